// Package resourcetest puts a resource.Resource to the test of its contract.
//
// Every adapter's tests call Run with a Harness that says how to make a store, how to work in a
// branch and how to crash. The package promises that a resource which passes keeps its word in
// package resource: votes, outcomes and their proof, recovery, isolation until the decision, and
// sane answers to repeated, late, racing and cancelled calls. It measures no speed, and it cannot
// show what only a failing disk or a failing network would show: adapters test those themselves.
package resourcetest

import (
	"context"
	"testing"

	"assent/resource"
)

// Harness is what Run needs to know of an adapter. Open, Add, Get and Read must be set; a test
// that needs another field is skipped where it is nil or false.
type Harness struct {
	// Open makes a store without any key and returns a handle on it. Whatever it makes is
	// released with t.Cleanup. Other branches may be prepared in the same place, as long as they
	// have other owners.
	Open func(t *testing.T) resource.Resource

	// Another returns a second handle on r's store, as another process would open one. Nil
	// stands for a store that only one process can open: r itself is used then.
	Another func(t *testing.T, r resource.Resource) resource.Resource

	// Crash ends every session of r and of all other handles on its store without warning, takes
	// away whatever was not stable, and returns a handle on the store after its restart. Nothing
	// that was got from the old handles is used afterwards, apart from t.Cleanup.
	Crash func(t *testing.T, r resource.Resource) resource.Resource

	// Add adds delta to the counter key within the branch b. A counter that was never written is
	// zero. The addition loses no update: it waits for, or fails because of, another branch that
	// has changed the counter and is not finished. Keys are lower-case letters, digits and '-'.
	// It returns soon after ctx ends.
	Add func(ctx context.Context, b resource.Branch, key string, delta int64) error

	// Get returns the counter key as the branch b sees it, its own changes included.
	Get func(ctx context.Context, b resource.Branch, key string) (int64, error)

	// Read returns the counter key outside any branch. While the counter is being changed it
	// returns the last committed value, or waits, or fails with resource.Unavailable or
	// resource.LockTimeout.
	Read func(ctx context.Context, r resource.Resource, key string) (int64, error)

	// Break makes something fail within b, after which b must not prepare.
	Break func(ctx context.Context, b resource.Branch)

	// Foreign prepares a branch in r's store by other means than Assent and returns the name
	// under which the store lists it. It is removed with t.Cleanup.
	Foreign func(t *testing.T, r resource.Resource) string

	// Serializable says that branches that all commit have an equivalent serial order, reads
	// included.
	Serializable bool
}

// Run runs the whole suite as subtests of t. The subtests run one after the other; each opens a
// store of its own.
func Run(t *testing.T, h Harness) {
	t.Helper()
	if h.Open == nil || h.Add == nil || h.Get == nil || h.Read == nil {
		t.Fatal("resourcetest: Open, Add, Get and Read must be set")
	}
	if h.Another == nil {
		h.Another = func(_ *testing.T, r resource.Resource) resource.Resource { return r }
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.needs != nil && !c.needs(h) {
				t.Skip("the harness does not support it")
			}
			c.run(newStore(t, h))
		})
	}
}

// One case is one sentence of the contract.
type testCase struct {
	name  string
	needs func(Harness) bool
	run   func(*store)
}

func crashes(h Harness) bool      { return h.Crash != nil }
func breaks(h Harness) bool       { return h.Break != nil }
func hasForeign(h Harness) bool   { return h.Foreign != nil }
func serializable(h Harness) bool { return h.Serializable }

var cases = []testCase{
	{"Begin/RefusesInvalidID", nil, beginRefusesInvalidID},
	{"Begin/OutlivesItsContext", nil, beginOutlivesItsContext},
	{"Branch/SeesItsOwnWork", nil, branchSeesItsOwnWork},
	{"Branch/IsInvisibleBeforeCommit", nil, branchIsInvisibleBeforeCommit},
	{"Branch/Commit", nil, branchCommit},
	{"Branch/RollbackPrepared", nil, branchRollbackPrepared},
	{"Branch/RollbackActive", nil, branchRollbackActive},
	{"Branch/ReadOnlyLeavesNothing", nil, readOnlyLeavesNothing},
	{"Branch/BrokenVotesNo", breaks, brokenVotesNo},
	{"OnePhase/Commit", nil, onePhaseCommit},
	{"OnePhase/BrokenDoesNotCommit", breaks, onePhaseBroken},
	{"ByID/Commit", nil, commitByID},
	{"ByID/Rollback", nil, rollbackByID},
	{"ByID/FromTheList", nil, finishFromTheList},
	{"ByID/CommitAgain", nil, commitAgain},
	{"ByID/CommitAgainWithoutEvidence", nil, commitAgainWithoutEvidence},
	{"ByID/RollbackAfterCommit", nil, rollbackAfterCommit},
	{"ByID/CommitAfterRollback", nil, commitAfterRollback},
	{"ByID/CommitUnknown", nil, commitUnknown},
	{"ByID/CommitNeverPrepared", nil, commitNeverPrepared},
	{"ByID/RollbackUnknown", nil, rollbackUnknown},
	{"ByID/RollbackThenLatePrepare", nil, rollbackThenLatePrepare},
	{"ByID/RollbackRacesPrepare", nil, rollbackRacesPrepare},
	{"ByID/Duplicate", nil, duplicateID},
	{"ByID/GreatestLengthsAndAllCharacters", nil, greatestIDs},
	{"ByID/OneIsPrefixOfAnother", nil, prefixIDs},
	{"Recover/ListsWhatIsPrepared", nil, recoverLists},
	{"Recover/ListsForeign", hasForeign, recoverListsForeign},
	{"Crash/KeepsPrepared", crashes, crashKeepsPrepared},
	{"Crash/KeepsLocks", crashes, crashKeepsLocks},
	{"Crash/ForgetsActive", crashes, crashForgetsActive},
	{"Crash/KeepsOutcomes", crashes, crashKeepsOutcomes},
	{"Context/EndedBeforeTheCall", nil, endedContext},
	{"Context/EndsDuringAWait", nil, contextEndsDuringWait},
	{"Concurrent/RecoverersAgree", nil, recoverersAgree},
	{"Concurrent/CommitRacesRollback", nil, commitRacesRollback},
	{"Concurrent/ManyBranches", nil, manyBranches},
	{"Concurrent/Bank", nil, bank},
	{"Concurrent/Audit", serializable, audit},
	{"Concurrent/WriteSkew", serializable, writeSkew},
	{"Doctor/IsWell", nil, doctorIsWell},
}
