package resource

import (
	"strings"
	"testing"
)

func TestIDText(t *testing.T) {
	id := ID{Owner: "01KAAA", Transaction: "01KBBB-1z", Branch: "orders.eu_1"}
	if got := id.String(); got != "assent:01KAAA:01KBBB-1z:orders.eu_1" {
		t.Errorf("text form %q", got)
	}
	if back, ok := ParseID(id.String()); !ok || back != id {
		t.Errorf("read back %+v, %v", back, ok)
	}
	longest := ID{strings.Repeat("o", MaxOwner), strings.Repeat("t", MaxTransaction), strings.Repeat("b", MaxBranch)}
	if err := longest.Validate(); err != nil {
		t.Error(err)
	}
	if n := len(longest.String()); n > 199 {
		t.Errorf("the longest id has %d bytes; PostgreSQL takes 199", n)
	}
}

func TestIDIsChecked(t *testing.T) {
	good := ID{"o", "t", "b"}
	for want, change := range map[string]func(*ID){
		"owner is empty":       func(id *ID) { id.Owner = "" },
		"transaction is empty": func(id *ID) { id.Transaction = "" },
		"branch is empty":      func(id *ID) { id.Branch = "" },
		"at most 64":           func(id *ID) { id.Branch = strings.Repeat("b", MaxBranch+1) },
		"at most 32":           func(id *ID) { id.Owner = strings.Repeat("o", MaxOwner+1) },
		`holds ':'`:            func(id *ID) { id.Transaction = "a:b" },
		`holds '\''`:           func(id *ID) { id.Branch = "a'b" },
		`holds ' '`:            func(id *ID) { id.Branch = "a b" },
	} {
		id := good
		change(&id)
		if err := id.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want an error with %q", id, err, want)
		}
		if _, ok := ParseID(id.String()); ok {
			t.Errorf("%q was read as an id", id)
		}
	}
}

// FuzzParseID: whatever is read as an id has that text and no other.
func FuzzParseID(f *testing.F) {
	for _, seed := range []string{"assent:o:t:b", "assent:::", "assent:o:t:b:c", "other:o:t:b", "", "assent:o:t'--:b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, ok := ParseID(text)
		if !ok {
			return
		}
		if id.String() != text {
			t.Errorf("%q was read as %+v", text, id)
		}
		if err := id.Validate(); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}
