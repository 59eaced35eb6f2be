package resource

import (
	"fmt"
	"strings"
)

// ID names a branch in all the world. Its text form is what a resource keeps as the name of the
// prepared branch, and all that recovery has to go by.
type ID struct {
	// Owner is the decision log that the branch's transaction is decided in. Nobody settles a
	// branch of another owner.
	Owner string `json:"owner"`
	// Transaction is the global transaction's id.
	Transaction string `json:"transaction"`
	// Branch is the name under which the manager knows the resource.
	Branch string `json:"branch"`
}

// The greatest lengths in bytes of an ID's parts. The text form is then at most 168 bytes, which
// fits PostgreSQL's limit of 199.
const (
	MaxOwner       = 32
	MaxTransaction = 64
	MaxBranch      = 64
)

const prefix = "assent"

// String returns the text form, "assent:owner:transaction:branch".
func (id ID) String() string {
	return prefix + ":" + id.Owner + ":" + id.Transaction + ":" + id.Branch
}

// Validate reports what is wrong with id: each part must be non-empty, within its length, and
// made of ASCII letters, digits, '.', '_' and '-'.
func (id ID) Validate() error {
	for _, part := range [...]struct {
		what, text string
		most       int
	}{
		{"owner", id.Owner, MaxOwner},
		{"transaction", id.Transaction, MaxTransaction},
		{"branch", id.Branch, MaxBranch},
	} {
		if err := checkName(part.what, part.text, part.most); err != nil {
			return err
		}
	}
	return nil
}

// CheckName reports why name cannot be the name of a resource, or nil.
func CheckName(name string) error { return checkName("resource name", name, MaxBranch) }

func checkName(what, text string, most int) error {
	if text == "" {
		return fmt.Errorf("%s is empty", what)
	}
	if len(text) > most {
		return fmt.Errorf("%s %.20q… has %d bytes; at most %d are allowed", what, text, len(text), most)
	}
	for i := range len(text) {
		if !nameByte(text[i]) {
			return fmt.Errorf("%s %q holds %q; letters, digits, '.', '_' and '-' are allowed", what, text, text[i])
		}
	}
	return nil
}

func nameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-'
}

// ParseID reads the text form. ok is false for any text that ID.String does not make: such a
// branch is foreign.
func ParseID(text string) (id ID, ok bool) {
	parts := strings.Split(text, ":")
	if len(parts) != 4 || parts[0] != prefix {
		return ID{}, false
	}
	id = ID{Owner: parts[1], Transaction: parts[2], Branch: parts[3]}
	if id.Validate() != nil {
		return ID{}, false
	}
	return id, true
}
