package check_test

import (
	"testing"

	"assent/check"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/spec"
)

// What the texts on two- and three-phase commit say beside what blocks whom, each as a property of
// every state.

// under is two-phase commit of two participants, with crashes and restarts, and loss, duplication and
// reordering without limit.
func under(crashes int) twoPhaseCommit {
	return twoPhaseCommit{TwoPhase: commit.TwoPhase{Participants: 2},
		Faults: check.Faults{Crashes: crashes, Restarts: crashes, Duplicates: check.Unlimited}}
}

// onItsWay reports whether the decision d is on its way, in the first word on it or a later one.
func onItsWay(v spec.View, d commit.Decision) (found bool) {
	v.(*check.State).UnderWay(func(_, _ int, m protocol.Message) {
		f, ok := m.(commit.Finish)
		found = found || ok && f.Decision == d
	})
	return found
}

// TestDecisionIsLoggedBeforeItIsTold: "The coordinator must record its decision to commit or abort in a
// transaction log on disk before sending requests to participants"
// (failures-in-two-phase-commit.txt). Of abort, presumed abort records nothing.
func TestDecisionIsLoggedBeforeItIsTold(t *testing.T) {
	logged := spec.Property{Name: "commit is on record before it is told", Holds: func(v spec.View) bool {
		record, _ := v.Record(0, commit.RegisterKey).(commit.DecisionRecord)
		return record.Decision == commit.Commit || !onItsWay(v, commit.Commit)
	}}
	nothingBroken(t, run(t, under(2), check.Claims{Always: []spec.Property{logged}, Sometimes: []spec.Property{
		{Name: "commit is told", Holds: func(v spec.View) bool { return onItsWay(v, commit.Commit) }}}}))
}

// TestNoCommitRecordIsAbort: "Transactions without a commit record in the log are aborted"
// (failures-in-two-phase-commit.txt). A coordinator that is back, and found none, never commits.
func TestNoCommitRecordIsAbort(t *testing.T) {
	without := func(v spec.View) bool { return v.Record(0, commit.RegisterKey) == nil }
	aborts := check.StepProperty{Name: "made anew without a record, the coordinator does not commit", Holds: func(before, after spec.View) bool {
		return before == nil || before.Machine(0) != nil || after.Machine(0) == nil || !without(before) ||
			!committing(after) && !onItsWay(after, commit.Commit)
	}}
	back := spec.Property{Name: "the coordinator is back, and a promise is undone", Holds: func(v spec.View) bool {
		return v.Machine(0) != nil && spec.PromiseUndone().Holds(v)
	}}
	nothingBroken(t, run(t, under(1), check.Claims{Steps: []check.StepProperty{aborts}, Sometimes: []spec.Property{back}}))
}

func committing(v spec.View) bool {
	c, ok := v.Machine(0).(*commit.CoordinatorNode)
	return ok && (c.Coordinator.Proposal == commit.Commit || c.Register.Decision == commit.Commit)
}

// TestCoordinatorWaitsForAcknowledgements: "Without the ACK messages from everyone, the Coordinator does not
// know that the Cohorts have caught up" (three-phase-commit.txt, on the state f1, which the
// simplified diagrams leave out). The machines have it: a coordinator that is done after commit has
// been told of every branch, in two phases and in three.
func TestCoordinatorWaitsForAcknowledgements(t *testing.T) {
	caughtUp := spec.Property{Name: "when the coordinator is done after commit, every branch is committed", Holds: func(v spec.View) bool {
		c, ok := v.Machine(0).(spec.Site)
		if !ok || !c.Standing().Done || c.Standing().Decision != commit.Commit {
			return true
		}
		for i := 1; i < v.Nodes(); i++ {
			if record, ok := v.Record(i, commit.ResourceKey).(commit.BranchRecord); ok && record.State != commit.BranchCommitted {
				return false
			}
		}
		return true
	}}
	claims := check.Claims{Always: []spec.Property{caughtUp}, Sometimes: []spec.Property{spec.AllCommit()}}
	nothingBroken(t, run(t, under(1), claims))
	yes := commit.ThreePhase{Participants: 2, Votes: []commit.Vote{commit.Yes}, Steadfast: true}
	nothingBroken(t, explore(t, yes, check.Synchronous, check.Faults{Crashes: 1, Restarts: 1}, claims))
}

// TestBeforeTheRequestCohortsAbort: "In the event of a coordinator failure before sending prepare requests,
// cohorts can safely abort the transaction" (failures-in-two-phase-commit.txt).
func TestBeforeTheRequestCohortsAbort(t *testing.T) {
	aborted := spec.Property{Name: "a participant that would vote yes aborts, never having been asked", Holds: func(v spec.View) bool {
		asked := false // what is sent stays under way for ever here
		v.(*check.State).UnderWay(func(from, _ int, _ protocol.Message) { asked = asked || from == 0 })
		p, ok := v.Machine(1).(*commit.ParticipantNode)
		return ok && !asked && v.Machine(0) == nil && p.Branch.Vote == commit.Yes && p.Branch.State == commit.BranchRolledBack
	}}
	model := under(1)
	model.Faults.Restarts = 0
	nothingBroken(t, run(t, model, check.Claims{Always: safety(), Sometimes: []spec.Property{aborted}}))
}

// TestLockingEffects: "Compare the impact in terms of locking effects if one cohort fails versus if the
// coordinator fails" (three-phase-commit.txt). A participant that fails keeps nobody else's locks: none
// of those that are up blocks. The coordinator's failure can make all keep theirs.
func TestLockingEffects(t *testing.T) {
	most := map[bool]int{} // by whether the coordinator is up, the most participants that block at once
	claims := check.Claims{Decided: spec.ParticipantDone, Blocked: func(v spec.View, nodes []int) {
		up := v.Machine(0) != nil
		most[up] = max(most[up], len(nodes))
	}}
	run(t, under(2), claims)
	if most[true] != 0 || most[false] != 2 {
		t.Errorf("at most %d participants block while the coordinator is up, and %d while it is down; want 0 and 2", most[true], most[false])
	}
}
