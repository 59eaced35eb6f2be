// Package resource is the contract between Assent and what it changes: a database, a store or a
// service that can prepare. It is X/Open XA's contract in Go.
//
// The package promises that whatever implements Resource and passes resourcetest takes part in a
// transaction without loss. It contains no adapter: each has a package of its own below this one.
package resource

import (
	"context"
	"time"

	"assent/protocol/commit"
)

// Resource is a database, store or service that can prepare. All methods are safe for concurrent
// use. The context bounds the time of one call; when it ends, the call returns soon, and what
// it was doing may or may not have happened.
type Resource interface {
	// Begin opens the branch id: a place to do work that commits or rolls back as one. The
	// branch lives on after Begin returns, whatever becomes of ctx.
	Begin(ctx context.Context, id ID) (Branch, error)

	// Commit finishes a prepared branch, from whatever session and process. The outcome is
	// returned only with proof: Committed if the branch is committed now, by this call or
	// before; RolledBack if the resource proves that somebody rolled it back; Hazard if the
	// branch is not there and there is no evidence what became of it. "Unknown branch" alone
	// proves nothing. An error means that nothing is known yet and the call must be repeated.
	Commit(ctx context.Context, prepared Prepared) (commit.Outcome, error)

	// Rollback is Commit's opposite and takes the same care. A branch that was never prepared
	// and of which no session is left is RolledBack. Rollback must leave nothing behind that can
	// still prepare: a PREPARE that is under way is waited for or killed first.
	Rollback(ctx context.Context, prepared Prepared) (commit.Outcome, error)

	// Recover lists the branches that are prepared here, those of other owners and of other
	// programs included (see Prepared.Foreign).
	Recover(ctx context.Context) ([]Prepared, error)
}

// Branch is one transaction's work in one resource, before it is prepared. Adapters add methods
// to do the work. The methods below are called by the transaction manager alone, one at a time.
type Branch interface {
	// Prepare makes the branch able to commit and to roll back after any crash, and answers with
	// a vote. Yes needs the resource's own proof. On ReadOnly the branch is over. On No, or an
	// error (taken for No; it says why), the manager calls Rollback until it succeeds.
	Prepare(ctx context.Context) (Vote, error)

	// Commit finishes the branch after a Yes, on the session that prepared it where that is
	// better than another. It has the meaning of Resource.Commit.
	Commit(ctx context.Context) (commit.Outcome, error)

	// Rollback undoes the branch, prepared or not, and has the meaning of Resource.Rollback.
	Rollback(ctx context.Context) (commit.Outcome, error)
}

// OnePhase is a Branch that can commit without being prepared. The manager uses it where the
// branch is the only one.
type OnePhase interface {
	// CommitOnePhase commits the branch and returns Committed or RolledBack with proof. Where
	// the reply was lost it looks for evidence. Hazard without an error means that there is none
	// and never will be; Hazard with an error, that it cannot be had now: the manager then calls
	// Rollback until that succeeds and tells what became of the branch. It is called once.
	CommitOnePhase(ctx context.Context) (commit.Outcome, error)
}

// Split is a Branch that can be asked without waiting for its answer, so that one goroutine asks all
// branches before it waits for the first. The manager then uses these methods in place of Prepare and
// Commit.
type Split interface {
	// StartPrepare begins what Prepare does and returns without waiting for anybody. It returns what
	// waits for the vote, which is called once, by any goroutine, before any other method of the
	// branch; or nil where the branch must be asked by Prepare after all: then it has done nothing.
	// When ctx ends, the answer comes soon.
	StartPrepare(ctx context.Context) (answer func() (Vote, error))
	// StartCommit is the same for Commit.
	StartCommit(ctx context.Context) (answer func() (commit.Outcome, error))
}

// Vote is a branch's answer to Prepare.
type Vote struct {
	Vote commit.Vote
	// Evidence is whatever lets the adapter find out, later and from anywhere, what became of
	// the branch: a transaction number, say. At most MaxEvidence bytes, opaque to the manager,
	// kept in the decision log.
	Evidence []byte
}

// MaxEvidence is the greatest length in bytes of a vote's evidence.
const MaxEvidence = 256

// Prepared is a branch in a resource's list of prepared branches, or what the manager remembers
// of one.
type Prepared struct {
	// ID is the branch; zero where Foreign is not empty.
	ID ID
	// Evidence is what Vote gave, or what the resource's list tells. It may be nil.
	Evidence []byte
	// Since is when the branch was prepared, by the resource's clock; zero where it does not say.
	Since time.Time
	// Age is for how long the branch has been prepared, by the resource's clock alone; zero
	// where it does not say.
	Age time.Duration
	// Foreign is the resource's own name of a branch that Assent did not make; it need not be UTF-8.
	// Such branches are shown and never touched.
	Foreign string
}

// Doctor is a Resource that can examine itself before it is trusted.
type Doctor interface {
	// Doctor returns what it found, good and bad. It changes nothing that outlives the call. An
	// error means that the examination could not be made.
	Doctor(ctx context.Context) ([]Finding, error)
}

// Severity grades a Finding. The zero value is invalid.
type Severity uint8

// The severities.
const (
	// OK is a check that passed.
	OK Severity = iota + 1
	// Warning is something that works and may hurt later.
	Warning
	// Failure is something because of which transactions fail or are lost.
	Failure
)

// String returns the severity's name: ok, warning or failure.
func (s Severity) String() string {
	switch s {
	case OK:
		return "ok"
	case Warning:
		return "warning"
	case Failure:
		return "failure"
	}
	return "invalid"
}

// MarshalText returns the severity's name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is one result of a Doctor.
type Finding struct {
	// Check names what was looked at: "prepared transactions enabled".
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	// Detail says what was seen, with figures.
	Detail string `json:"detail"`
	// Hint says what to do about it; empty where nothing is to be done.
	Hint string `json:"hint,omitempty"`
}

// Transaction is what a resource joins; *assent.Tx is one.
type Transaction interface {
	// Join returns this transaction's branch in r, beginning it if it has none yet. It fails when
	// r is not a resource of the manager, and when the transaction is no longer open for work.
	Join(ctx context.Context, r Resource) (Branch, error)
}
