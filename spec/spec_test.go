package spec_test

import (
	"slices"
	"testing"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/spec"
)

// site is a machine of nobody's protocol: all it does is show where it stands.
type site commit.Standing

func (s *site) Step(protocol.Event, *protocol.Effects) {}
func (s *site) Standing() commit.Standing              { return commit.Standing(*s) }

// node is one place of a view: a machine, or records where it is down.
type node struct {
	machine protocol.Machine
	records protocol.Records
}

type view []node

func (v view) Nodes() int                               { return len(v) }
func (v view) Machine(i int) protocol.Machine           { return v[i].machine }
func (v view) Record(i int, key string) protocol.Record { return v[i].records[key] }

// branch is a node whose branch stands so.
func branch(state commit.BranchState, vote commit.Vote, decision commit.Decision) node {
	return node{machine: &site{Participant: true, Branch: state, Vote: vote, Decision: decision,
		Done: state == commit.BranchCommitted || state == commit.BranchRolledBack}}
}

// down is a node that is down, with these in its stable storage.
func down(records ...protocol.Record) node {
	keyed := protocol.Records{}
	for _, r := range records {
		switch r.(type) {
		case commit.DecisionRecord:
			keyed[commit.RegisterKey] = r
		case commit.BranchRecord:
			keyed[commit.ResourceKey] = r
		default:
			keyed[commit.BranchKey] = r
		}
	}
	return node{records: keyed}
}

// TestProperties: each view, and the properties that it breaks; all others hold.
func TestProperties(t *testing.T) {
	const yes, no, none = commit.Yes, commit.No, commit.Undecided
	committed := branch(commit.BranchCommitted, yes, commit.Commit)
	rolledBack := branch(commit.BranchRolledBack, yes, commit.Abort)
	inDoubt := branch(commit.BranchInDoubt, yes, none)
	teller := func(d commit.Decision) node { return node{machine: &site{Decision: d, Done: d != none}} }
	for name, c := range map[string]struct {
		view   view
		breaks []string
	}{
		"nothing yet":            {view: view{branch(commit.BranchWorking, yes, none), branch(commit.BranchWorking, no, none)}},
		"all commit":             {view: view{teller(commit.Commit), committed, committed}},
		"a split brain":          {view: view{committed, rolledBack}, breaks: []string{"AC1", "AC2", "AC4"}},
		"a split brain, down":    {view: view{down(commit.BranchRecord{State: commit.BranchCommitted}), rolledBack}, breaks: []string{"AC1", "AC2"}},
		"told otherwise":         {view: view{teller(commit.Abort), committed}, breaks: []string{"AC2", "AC4"}},
		"recorded otherwise":     {view: view{down(commit.DecisionRecord{Decision: commit.Commit}), rolledBack, inDoubt}, breaks: []string{"AC2", "AC4"}},
		"finished otherwise":     {view: view{down(commit.FinishedRecord{Decision: commit.Abort}), committed}, breaks: []string{"AC2", "AC4"}},
		"promised otherwise":     {view: view{down(commit.Tombstone{Decision: commit.Abort}), committed}, breaks: []string{"AC2", "AC4"}},
		"before it is on record": {view: view{{machine: &site{Unregistered: true}}, committed}, breaks: []string{"AC2"}},
		"against a no":           {view: view{committed, branch(commit.BranchLost, no, none)}, breaks: []string{"AC3"}},
		"before a vote":          {view: view{teller(commit.Commit), branch(commit.BranchWorking, yes, none)}, breaks: []string{"AC3"}},
		"abort for nothing":      {view: view{teller(commit.Abort), inDoubt, inDoubt}, breaks: []string{"AC4"}},
		"abort for a read-only":  {view: view{teller(commit.Abort), inDoubt, branch(commit.BranchLost, commit.ReadOnly, none)}, breaks: []string{"AC4"}},
		"abort for a no":         {view: view{teller(commit.Abort), rolledBack, branch(commit.BranchLost, no, commit.Abort)}},
		"strangers are not read": {view: view{{machine: stranger{}}, committed}},
	} {
		t.Run(name, func(t *testing.T) {
			var broken []string
			for _, p := range []spec.Property{spec.AC1(), spec.AC2(), spec.AC3(), spec.AC4()} {
				if !p.Holds(c.view) {
					broken = append(broken, p.Name[:3])
				}
			}
			if !slices.Equal(broken, c.breaks) {
				t.Errorf("broken: %v, want %v", broken, c.breaks)
			}
		})
	}
}

type stranger struct{}

func (stranger) Step(protocol.Event, *protocol.Effects) {}

// TestReached: what is claimed of some state only.
func TestReached(t *testing.T) {
	committed := branch(commit.BranchCommitted, commit.Yes, commit.Commit)
	rolledBack := branch(commit.BranchRolledBack, commit.Yes, commit.Abort)
	told := node{machine: &site{Decision: commit.Commit, Done: true}}
	telling := node{machine: &site{Decision: commit.Commit}}
	aborted := down(commit.DecisionRecord{Decision: commit.Abort})
	all, undone := spec.AllCommit(), spec.PromiseUndone()
	for name, c := range map[string]struct {
		property spec.Property
		view     view
		want     bool
	}{
		"all, and everybody has said so":  {all, view{told, committed, committed}, true},
		"all, and the teller waits":       {all, view{telling, committed, committed}, false},
		"all, and the teller is down":     {all, view{down(), committed, committed}, false},
		"all but one":                     {all, view{told, committed, branch(commit.BranchInDoubt, commit.Yes, commit.Undecided)}, false},
		"nobody":                          {all, view{told}, false},
		"undone":                          {undone, view{aborted, rolledBack}, true},
		"rolled back without a record":    {undone, view{told, rolledBack}, false},
		"abort on record, nothing undone": {undone, view{aborted, committed}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.property.Holds(c.view); got != c.want {
				t.Errorf("%s: %v", c.property.Name, got)
			}
		})
	}
	decided := spec.AC5().Decided
	if !decided(0, stranger{}) || !decided(0, telling.machine) || !decided(0, committed.machine) {
		t.Error("somebody who has come to the end, or is no participant, is waited for")
	}
	if decided(0, branch(commit.BranchInDoubt, commit.Yes, commit.Undecided).machine) {
		t.Error("a participant in doubt is taken for one that has come to its end")
	}
}
