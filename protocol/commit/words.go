package commit

import "fmt"

// TransactionID names a global transaction. It is unique for ever and is never used again for
// other work: it is what makes duplicates and late messages recognisable.
type TransactionID string

// Decision is what is decided about a transaction, once. Undecided is the zero value, so that a
// missing decision is never taken for one.
type Decision uint8

// The decisions.
const (
	Undecided Decision = iota
	Commit
	Abort
)

// Vote is a participant's answer to PREPARE. The zero value is no vote.
type Vote uint8

// The votes.
const (
	// NoVote means that the participant has not answered.
	NoVote Vote = iota
	// Yes promises to commit or to abort, whichever is decided, whatever happens meanwhile.
	Yes
	// No has aborted the branch already and will never commit it.
	No
	// ReadOnly has nothing to commit: the participant leaves after phase 1.
	ReadOnly
)

// Outcome is what happened at one branch. Where it contradicts the decision it is heuristic.
type Outcome uint8

// The outcomes.
const (
	// Unfinished means that the branch has not reported.
	Unfinished Outcome = iota
	// Committed is proven: the branch's changes are in the resource for good.
	Committed
	// RolledBack is proven: the branch's changes are gone.
	RolledBack
	// Hazard means that the branch is finished, or lost, and no evidence says which way.
	Hazard
)

var (
	decisionNames = [...]string{"undecided", "commit", "abort"}
	voteNames     = [...]string{"none", "yes", "no", "read-only"}
	outcomeNames  = [...]string{"unfinished", "committed", "rolled back", "hazard"}
)

// String returns the decision's name: undecided, commit or abort.
func (d Decision) String() string { return name(decisionNames[:], d) }

// String returns the vote's name: none, yes, no or read-only.
func (v Vote) String() string { return name(voteNames[:], v) }

// String returns the outcome's name: unfinished, committed, rolled back or hazard.
func (o Outcome) String() string { return name(outcomeNames[:], o) }

// MarshalText returns the decision's name.
func (d Decision) MarshalText() ([]byte, error) { return marshal(decisionNames[:], d) }

// MarshalText returns the vote's name.
func (v Vote) MarshalText() ([]byte, error) { return marshal(voteNames[:], v) }

// MarshalText returns the outcome's name.
func (o Outcome) MarshalText() ([]byte, error) { return marshal(outcomeNames[:], o) }

// UnmarshalText sets d from its name. It fails on any other text.
func (d *Decision) UnmarshalText(text []byte) error { return unmarshal(decisionNames[:], text, d) }

// UnmarshalText sets v from its name. It fails on any other text.
func (v *Vote) UnmarshalText(text []byte) error { return unmarshal(voteNames[:], text, v) }

// UnmarshalText sets o from its name. It fails on any other text.
func (o *Outcome) UnmarshalText(text []byte) error { return unmarshal(outcomeNames[:], text, o) }

// Heuristic reports whether an outcome o contradicts the decision d, or cannot be reconciled
// with it for want of evidence (X/Open XA, 2.3.3).
func (d Decision) Heuristic(o Outcome) bool {
	switch o {
	case Committed:
		return d != Commit
	case RolledBack:
		return d != Abort
	case Hazard:
		return true
	}
	return false
}

func name[T ~uint8](names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("invalid(%d)", uint8(v))
}

func marshal[T ~uint8](names []string, v T) ([]byte, error) {
	if int(v) >= len(names) {
		return nil, fmt.Errorf("no name for %T %d", v, v)
	}
	return []byte(names[v]), nil
}

func unmarshal[T ~uint8](names []string, text []byte, v *T) error {
	for i, n := range names {
		if n == string(text) {
			*v = T(i)
			return nil
		}
	}
	return fmt.Errorf("%q is not a %T; known are %q", text, *v, names)
}
