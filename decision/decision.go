// Package decision is the write-once register in which each transaction's decision is recorded,
// once, and the contract that every place it may live in keeps.
//
// The package promises that the first decision written for a transaction stands and that whoever
// writes second is told what stands; package decisiontest puts an implementation to that test.
// It contains no implementation: each has a package of its own below this one. What they have in common
// is here: the encoding of entries, and Grouper, which lets calls share a round trip.
package decision

import (
	"context"
	"errors"
	"iter"
	"time"

	"assent/protocol/commit"
)

// Register holds decisions. All methods are safe for concurrent use, also by several processes
// where the implementation can be reached by several.
type Register interface {
	// Decide proposes e.Decision for the transaction e.ID and returns the entry that stands: e
	// itself, if it was the first and is now stable, or the earlier one. Only a coordinator that
	// holds every yes vote may propose commit; anybody may propose abort.
	//
	// An error says that it is not known what stands; the same call may be repeated, and
	// whatever was written by the failed call then stands. A register that has failed to force
	// its storage answers ErrStopped from then on.
	Decide(ctx context.Context, e Entry) (stands Entry, err error)

	// Lookup returns the entry of the transaction id, or ErrNotFound: nothing is decided, or
	// what was decided is forgotten.
	Lookup(ctx context.Context, id commit.TransactionID) (Entry, error)
}

// Log is a Register with the housekeeping that a transaction manager needs.
type Log interface {
	Register

	// Annotate appends a note to the entry of the transaction id; ErrNotFound if there is none.
	// A note with Forced is stable when Annotate returns; any other soon after.
	Annotate(ctx context.Context, id commit.TransactionID, note Note) error

	// List returns the entries of the given status, those decided first first. Entries that come or
	// change meanwhile may be missing. A zero status returns all.
	List(ctx context.Context, status Status) iter.Seq2[Entry, error]

	// Forget drops the entry of the transaction id, whatever its status; ErrNotFound if there is
	// none. It is for those who know that nobody will ask again.
	Forget(ctx context.Context, id commit.TransactionID) error

	// Owner names this log: the owner in the ids of the branches that are decided here. It is
	// made when the log is created and never changes. At most resource.MaxOwner bytes.
	Owner() string
}

// Prefixer is implemented by a Log that decides faster about the transactions whose ids begin with its
// prefix. The prefix was never given before, to anybody: whoever makes ids through this value begins
// them with it, and goes on with something of its own.
type Prefixer interface {
	// Prefix returns the prefix, of at most MaxPrefix letters and digits. It does not change.
	Prefix() string
}

// Batcher is implemented by a Log that takes one note on many transactions at once, for less than each
// alone.
type Batcher interface {
	// AnnotateAll is Annotate for each of ids. Those of which there is no entry are left out. After an
	// error each may or may not have the note.
	AnnotateAll(ctx context.Context, ids []commit.TransactionID, note Note) error
}

// MaxPrefix is the greatest length of a prefix in bytes.
const MaxPrefix = 26

// Entry is what a Log holds of one transaction.
type Entry struct {
	ID       commit.TransactionID `json:"id" cbor:"1,keyasint"`
	Decision commit.Decision      `json:"decision" cbor:"2,keyasint"`
	// Branches are those that must be finished. For an abort that was proposed by somebody who
	// does not know them all, only those that are known.
	Branches []Branch `json:"branches,omitempty" cbor:"3,keyasint,omitempty"`
	// By says who proposed the decision: "coordinator", "recovery", "operator alice".
	By string `json:"by,omitempty" cbor:"4,keyasint,omitempty"`
	// Reason says why, for an abort.
	Reason string `json:"reason,omitempty" cbor:"5,keyasint,omitempty"`
	// Time is when it was proposed, by the proposer's clock. For people; nothing depends on it.
	Time time.Time `json:"time" cbor:"6,keyasint"`
	// Notes are what was annotated since, oldest first.
	Notes []Note `json:"notes,omitempty" cbor:"7,keyasint,omitempty"`
}

// Branch is one branch of a decided transaction.
type Branch struct {
	Resource string `json:"resource" cbor:"1,keyasint"`
	// Evidence is what the branch's vote gave.
	Evidence []byte `json:"evidence,omitempty" cbor:"2,keyasint,omitempty"`
}

// Kind says what a Note is about. The zero value is invalid.
type Kind uint8

// The kinds.
const (
	// Finished: every branch has reported, so the entry is kept for information only and may be
	// forgotten after the log's retention. It concerns no single branch.
	Finished Kind = iota + 1
	// Heuristic: the branch's outcome contradicts the decision or is not known. The entry is kept
	// until a Resolved note for the same branch follows.
	Heuristic
	// Resolved: somebody took note of a heuristic outcome, or repaired it, and says how.
	Resolved
)

// String returns the kind's name: finished, heuristic or resolved.
func (k Kind) String() string {
	switch k {
	case Finished:
		return "finished"
	case Heuristic:
		return "heuristic"
	case Resolved:
		return "resolved"
	}
	return "invalid"
}

// MarshalText returns the kind's name.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Note is something that happened to a transaction after its decision.
type Note struct {
	Kind Kind      `json:"kind" cbor:"1,keyasint"`
	Time time.Time `json:"time" cbor:"2,keyasint"`
	// Branch is the resource's name; empty for Finished.
	Branch  string         `json:"branch,omitempty" cbor:"3,keyasint,omitempty"`
	Outcome commit.Outcome `json:"outcome,omitempty" cbor:"4,keyasint,omitempty"`
	// By and Reason are the audit trail of Resolved, and the evidence of Heuristic.
	By     string `json:"by,omitempty" cbor:"5,keyasint,omitempty"`
	Reason string `json:"reason,omitempty" cbor:"6,keyasint,omitempty"`
	// Forced asks Annotate to return only when the note is stable.
	Forced bool `json:"-" cbor:"-"`
}

// Status classes entries by what is left to do. The zero value stands for all.
type Status uint8

// The statuses.
const (
	// Unfinished entries have branches that have not reported.
	Unfinished Status = iota + 1
	// Damaged entries have a heuristic outcome that nobody has resolved.
	Damaged
	// Done entries are kept for information only.
	Done
)

// String returns the status's name: unfinished, damaged or done.
func (s Status) String() string {
	switch s {
	case Unfinished:
		return "unfinished"
	case Damaged:
		return "damaged"
	case Done:
		return "done"
	}
	return "any"
}

// Status returns e's status. Damaged takes precedence.
func (e Entry) Status() Status {
	finished := false
	damaged := map[string]bool{}
	for _, n := range e.Notes {
		switch n.Kind {
		case Finished:
			finished = true
		case Heuristic:
			damaged[n.Branch] = true
		case Resolved:
			delete(damaged, n.Branch)
		}
	}
	switch {
	case len(damaged) > 0:
		return Damaged
	case finished:
		return Done
	}
	return Unfinished
}

// The limits on an entry. Decide and Annotate refuse what exceeds them.
const (
	MaxBranches = 1024
	MaxNotes    = 1024
	MaxReason   = 1024 // bytes, also of By
)

// Errors that a Log returns, wrapped or bare.
var (
	// ErrNotFound says that there is no entry. It is not a decision.
	ErrNotFound = errors.New("no decision is recorded")
	// ErrStopped says that the log cannot be sure of its storage and decides nothing until it is
	// opened again. Nothing that was decided is lost.
	ErrStopped = errors.New("the decision log has stopped")
	// ErrClosed says that the log was closed.
	ErrClosed = errors.New("the decision log is closed")
)
