package assent

import (
	"errors"
	"fmt"
	"strings"

	"assent/protocol/commit"
	"assent/resource"
)

// Errors for errors.Is. Every error of Run, Commit and Rollback that tells an outcome matches
// exactly one of the first three.
var (
	// ErrAborted: nothing of the transaction is left in any resource, or will be. It is safe to
	// do the same work again in a new transaction.
	ErrAborted = errors.New("transaction aborted")
	// ErrInDoubt: it is not known yet whether the transaction commits. It is being driven to its
	// end; ask for its id later. It is not safe to do the work again before.
	ErrInDoubt = errors.New("transaction in doubt")
	// ErrHeuristic: somebody other than Assent finished a branch against the decision, or it is
	// not known what became of a branch. A person must look.
	ErrHeuristic = errors.New("transaction ended heuristically")
	// ErrNotOpen: the transaction has ended, or is ending, and takes no more work.
	ErrNotOpen = errors.New("transaction is not open")
	// ErrClosed: the manager was closed.
	ErrClosed = errors.New("manager is closed")
	// ErrUnknown: neither this manager nor its log knows the transaction. That is not an outcome.
	ErrUnknown = errors.New("transaction is not known here")
)

// AbortedError says that a transaction aborted, by whom and why. It matches ErrAborted and
// whatever Err is.
type AbortedError struct {
	ID commit.TransactionID
	// Cause is what the coordinator saw.
	Cause commit.Cause
	// By is the resource that the cause is about, or who settled the transaction; may be empty.
	By string
	// Reason says more, for people.
	Reason string
	// Err is the error that made it abort: the application's, or the resource's. It may be nil.
	Err error
}

// Error returns the id, who aborted and why.
func (e *AbortedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "transaction %s aborted: %s", e.ID, e.Cause)
	if e.By != "" {
		fmt.Fprintf(&b, " (%s)", e.By)
	}
	switch {
	case e.Err != nil:
		fmt.Fprintf(&b, ": %v", e.Err)
	case e.Reason != "":
		fmt.Fprintf(&b, ": %s", e.Reason)
	}
	return b.String()
}

// Unwrap returns ErrAborted and the cause.
func (e *AbortedError) Unwrap() []error { return []error{ErrAborted, e.Err} }

// Hint says what to do: what the resource advises, or to try again.
func (e *AbortedError) Hint() string {
	if hint := resource.HintOf(e.Err); hint != "" {
		return hint
	}
	if resource.CodeOf(e.Err).Retryable() {
		return "nothing was changed; do the same work again in a new transaction"
	}
	return ""
}

// InDoubtError says that a transaction's outcome is not known yet. It matches ErrInDoubt.
type InDoubtError struct {
	ID commit.TransactionID
	// Err is why the caller was not told: mostly the end of its context, or the log's error.
	Err error
}

// Error returns the id and why the outcome is not known.
func (e *InDoubtError) Error() string {
	return fmt.Sprintf("transaction %s is in doubt and being driven to its end: %v", e.ID, e.Err)
}

// Unwrap returns ErrInDoubt and the cause.
func (e *InDoubtError) Unwrap() []error { return []error{ErrInDoubt, e.Err} }

// Hint says what to do.
func (e *InDoubtError) Hint() string {
	return fmt.Sprintf("do not repeat the work; ask for the outcome of %s until it is known", e.ID)
}

// HeuristicError says that branches ended against the decision, or that nobody knows how. It
// matches ErrHeuristic.
type HeuristicError struct {
	ID       commit.TransactionID
	Decision commit.Decision
	Branches []Contradiction
}

// Contradiction is one branch's heuristic outcome.
type Contradiction struct {
	Resource string         `json:"resource"`
	Outcome  commit.Outcome `json:"outcome"`
}

// Mixed reports whether a branch is proven to contradict the decision; else the outcome is a
// hazard: not known.
func (e *HeuristicError) Mixed() bool {
	for _, b := range e.Branches {
		if b.Outcome != commit.Hazard {
			return true
		}
	}
	return false
}

// Error returns the id, the decision and the branches.
func (e *HeuristicError) Error() string {
	kind := "hazard"
	if e.Mixed() {
		kind = "mixed"
	}
	parts := make([]string, len(e.Branches))
	for i, b := range e.Branches {
		parts[i] = fmt.Sprintf("%s: %s", b.Resource, b.Outcome)
	}
	return fmt.Sprintf("transaction %s ended heuristically (%s): decision %s, but %s",
		e.ID, kind, e.Decision, strings.Join(parts, ", "))
}

// Unwrap returns ErrHeuristic.
func (e *HeuristicError) Unwrap() error { return ErrHeuristic }

// Hint says what to do.
func (e *HeuristicError) Hint() string {
	return fmt.Sprintf("compare the resources, repair by hand, then record it: assent resolve %s", e.ID)
}
