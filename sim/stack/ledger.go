package stack

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/resource"
	"assent/spec"
)

// transaction is what the run has seen of one transaction, from what stores, logs and coordinators
// have answered. It is a spec.View: node 0 is the register, the others are the branches.
type transaction struct {
	id       commit.TransactionID
	owner    string
	task     task
	onePhase bool
	decision commit.Decision // that stands in the log, or that the coordinator has concluded
	heard    commit.Decision // that the client was told
	branches []*standing
}

var _ spec.View = (*transaction)(nil)

// standing is what a branch, or the register, shows of itself.
type standing struct {
	site  protocol.NodeID
	shown commit.Standing
}

// Step implements protocol.Machine; nobody steps it.
func (s *standing) Step(protocol.Event, *protocol.Effects) {}

// Standing implements spec.Site.
func (s *standing) Standing() commit.Standing { return s.shown }

// Nodes implements spec.View.
func (t *transaction) Nodes() int { return 1 + len(t.branches) }

// Machine implements spec.View.
func (t *transaction) Machine(i int) protocol.Machine {
	if i > 0 {
		return t.branches[i-1]
	}
	return &standing{shown: commit.Standing{Decision: t.decision, Done: t.decision != commit.Undecided,
		Unregistered: t.decision != commit.Commit && !t.onePhase}}
}

// Record implements spec.View. Nobody is ever down: what is shown has been answered.
func (t *transaction) Record(int, string) protocol.Record { return nil }

// known enters a transaction that begins.
func (w *world) known(j *job) {
	t := &transaction{id: j.id, owner: j.c.log.Owner(), task: j.task, onePhase: len(j.task.parts) == 1}
	for _, p := range j.task.parts {
		t.branches = append(t.branches, &standing{site: p.site,
			shown: commit.Standing{Participant: true, Branch: commit.BranchWorking, Vote: commit.Yes}})
	}
	w.transactions[j.id] = t
}

func (w *world) touch(id commit.TransactionID) *transaction {
	t := w.transactions[id]
	w.touched = append(w.touched, t)
	return t
}

func (t *transaction) branch(site protocol.NodeID) *standing {
	for _, b := range t.branches {
		if b.site == site {
			return b
		}
	}
	panic(fmt.Sprintf("%s has no branch at %s", t.id, site))
}

// voted notes what a store has answered to prepare.
func (w *world) voted(id commit.TransactionID, site protocol.NodeID, v commit.Vote) {
	b := w.touch(id).branch(site)
	w.Reach("vote: " + v.String())
	if b.shown.Branch == commit.BranchCommitted || b.shown.Branch == commit.BranchRolledBack {
		return // a late PREPARE is refused: that is no vote any more
	}
	switch v {
	case commit.Yes:
		b.shown.Vote, b.shown.Branch = v, commit.BranchInDoubt
	case commit.ReadOnly:
		b.shown.Vote, b.shown.Branch = v, commit.BranchLost
	default:
		if b.shown.Branch == commit.BranchWorking {
			b.shown.Vote, b.shown.Branch = commit.No, commit.BranchLost
		}
	}
}

// finished notes what a store has said of a branch's end.
func (w *world) finished(id commit.TransactionID, site protocol.NodeID, o commit.Outcome) {
	t := w.touch(id)
	b := t.branch(site)
	switch {
	case o == commit.Committed && b.shown.Branch == commit.BranchRolledBack,
		o == commit.RolledBack && b.shown.Branch == commit.BranchCommitted:
		w.Broken(claimHeuristic, fmt.Sprintf("%s at %s was %s and is %s", id, site, b.shown.Branch, o))
	case o == commit.Hazard:
		w.Broken(claimHeuristic, fmt.Sprintf("%s at %s: %s", id, site, o))
	case b.shown.Vote == commit.ReadOnly:
		// It had nothing to finish, and answers either way.
	case o == commit.Committed:
		b.shown.Branch = commit.BranchCommitted
		if t.onePhase {
			w.Reach("a one-phase commit")
		}
	case o == commit.RolledBack:
		b.shown.Branch = commit.BranchRolledBack
	}
}

// stands notes what the log has answered.
func (w *world) stands(id commit.TransactionID, d commit.Decision) {
	t := w.touch(id)
	w.Reach("the log holds " + d.String())
	if t.decision != commit.Undecided && t.decision != d {
		w.Broken(spec.AC2().Name, fmt.Sprintf("%s: %s was decided, and %s stands", id, t.decision, d))
	}
	t.decision = d
}

// concluded notes what a coordinator holds to be settled and stable.
func (w *world) concluded(id commit.TransactionID, v commit.Concluded) {
	t := w.touch(id)
	w.Reach("concluded: " + v.Decision.String() + ", " + v.Cause.String())
	if t.decision != commit.Undecided && t.decision != v.Decision {
		w.Broken(spec.AC2().Name, fmt.Sprintf("%s: %s was decided, and %s is concluded", id, t.decision, v.Decision))
	}
	t.decision = v.Decision
}

// told notes what a client was told.
func (w *world) told(id commit.TransactionID, d commit.Decision) {
	t := w.touch(id)
	if t.heard != commit.Undecided && t.heard != d {
		w.Broken(claimTold, fmt.Sprintf("%s: %s, and then %s", id, t.heard, d))
	}
	t.heard = d
}

// total is all the money there is.
func (w *world) total() int64 {
	return int64(w.stack.Sites * w.stack.Accounts * opening)
}

// settle compares, at the end, what the accounts hold with what the transactions have done that
// committed.
func (w *world) settle() {
	want := map[protocol.NodeID][]int64{}
	for _, s := range w.sites {
		for range w.stack.Accounts {
			want[s.ID] = append(want[s.ID], opening)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.transactions)) {
		t := w.transactions[id]
		committed := t.decision == commit.Commit
		if t.onePhase {
			committed = w.committedAlone(t)
		}
		if t.heard != commit.Undecided && committed != (t.heard == commit.Commit) && !t.idle() {
			w.Broken(claimTold, fmt.Sprintf("%s: %s was told", t.id, t.heard))
		}
		if !committed {
			continue
		}
		for _, p := range t.task.parts {
			for _, o := range p.operations {
				if !o.Spoil {
					want[p.site][o.Account] += o.Change
				}
			}
		}
	}
	for _, s := range w.sites {
		got, err := s.balances()
		if err != nil {
			w.Fail(err)
			return
		}
		for a := range got {
			if got[a] != want[s.ID][a] {
				w.Broken(claimPlace, fmt.Sprintf("account %d at %s holds %d; it should hold %d", a, s.ID, got[a], want[s.ID][a]))
			}
		}
	}
}

// committedAlone asks the only site of a transaction what became of it: its answer may have been lost
// together with whoever would have asked again.
func (w *world) committedAlone(t *transaction) bool {
	b := t.branches[0]
	for _, s := range w.sites {
		if s.ID != b.site {
			continue
		}
		id := resource.ID{Owner: t.owner, Transaction: string(t.id), Branch: string(s.ID)}
		outcome, err := s.store.Commit(context.Background(), resource.Prepared{ID: id})
		w.Fail(err)
		if b.shown.Branch == commit.BranchCommitted && outcome != commit.Committed && !t.idle() {
			w.Broken(claimPlace, fmt.Sprintf("%s was committed at %s, which now says %s", t.id, s.ID, outcome))
		}
		return outcome == commit.Committed
	}
	return false
}

// idle reports whether the transaction only read.
func (t *transaction) idle() bool {
	for _, p := range t.task.parts {
		for _, o := range p.operations {
			if o.Change != 0 {
				return false
			}
		}
	}
	return true
}
