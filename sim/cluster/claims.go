package cluster

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strconv"

	"assent/decision"
	register "assent/decision/paxos"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/membership"
	"assent/spec"
)

// The claims of the cluster, besides AC1 to AC3, AC4 in runs without faults, and sim.Ended.
const (
	claimAgreement = "what the nodes hold to be decided agrees"
	claimHeuristic = "no outcome is heuristic"
	claimTold      = "what a client was told stands"
	claimMoney     = "money is conserved at every consistent read"
	claimPlace     = "money is where the decisions have put it"
	claimState     = "the cluster's own state is the same at all nodes"
	claimLeft      = "who has left on request stays away"
)

// transaction is what the run has seen of one transaction, from what stores, registers and coordinators have
// answered. It is a spec.View: node 0 is the register, the others are the branches.
type transaction struct {
	id       commit.TransactionID
	parts    []Part
	stands   commit.Decision // in a register
	stamp    uint64          // of the value that stands
	decision commit.Decision // that stands, or that its coordinator has concluded
	heard    commit.Decision // that a client was told
	branches []*standing
}

var _ spec.View = (*transaction)(nil)

// standing is what a branch, or the register, shows of itself.
type standing struct {
	node  protocol.NodeID
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
		Unregistered: t.stands != commit.Commit}}
}

// Record implements spec.View. Nobody is ever down: what is shown has been answered.
func (t *transaction) Record(int, string) protocol.Record { return nil }

// known enters a transaction that begins.
func (w *world) known(id commit.TransactionID, parts []Part) {
	t := &transaction{id: id, parts: parts}
	for _, p := range parts {
		t.branches = append(t.branches, &standing{node: p.Node,
			shown: commit.Standing{Participant: true, Branch: commit.BranchWorking, Vote: commit.Yes}})
	}
	w.transactions[id] = t
	w.names = append(w.names, id)
}

func (w *world) touch(id commit.TransactionID) *transaction {
	t := w.transactions[id]
	w.touched = append(w.touched, t)
	return t
}

func (t *transaction) branch(node protocol.NodeID) *standing {
	i := slices.IndexFunc(t.branches, func(b *standing) bool { return b.node == node })
	return t.branches[i]
}

// refused notes that a store could not do the work: the branch would not vote yes.
func (w *world) refused(id commit.TransactionID, node protocol.NodeID, reason string) {
	w.Reach("work refused: " + reason)
	w.touch(id).branch(node).shown.Vote = commit.No
}

// voted notes what a store has answered to prepare.
func (w *world) voted(id commit.TransactionID, node protocol.NodeID, v commit.Vote) {
	b := w.touch(id).branch(node)
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
func (w *world) finished(id commit.TransactionID, node protocol.NodeID, o commit.Outcome) {
	b := w.touch(id).branch(node)
	switch {
	case o == commit.Committed && b.shown.Branch == commit.BranchRolledBack,
		o == commit.RolledBack && b.shown.Branch == commit.BranchCommitted:
		w.Broken(claimHeuristic, fmt.Sprintf("%s at %s was %s and is %s", id, node, b.shown.Branch, o))
	case b.shown.Vote == commit.ReadOnly:
		// It had nothing to finish, and answers either way.
	case o == commit.Hazard:
		w.Broken(claimHeuristic, fmt.Sprintf("%s at %s: %s", id, node, o))
	case o == commit.Committed:
		b.shown.Branch = commit.BranchCommitted
	case o == commit.RolledBack:
		b.shown.Branch = commit.BranchRolledBack
	}
}

// stands notes what a node takes for decided in the register.
func (w *world) stands(id commit.TransactionID, v register.Value) {
	e, err := decision.DecodeEntry(v.Entry)
	if err != nil {
		w.Fail(fmt.Errorf("%s: %w", id, err))
		return
	}
	t := w.touch(id)
	w.Reach("decided: " + e.Decision.String() + ", by " + e.By)
	w.agree(t, t.stands, e.Decision)
	w.agree(t, t.decision, e.Decision)
	if t.stamp != 0 && t.stamp != v.Stamp {
		w.Broken(claimAgreement, fmt.Sprintf("%s: the value of stamp %d, and then that of %d", id, t.stamp, v.Stamp))
	}
	t.stands, t.decision, t.stamp = e.Decision, e.Decision, v.Stamp
}

// concluded notes what a coordinator holds to be settled and stable.
func (w *world) concluded(id commit.TransactionID, v commit.Concluded) {
	t := w.touch(id)
	w.Reach("concluded: " + v.Decision.String() + ", " + v.Cause.String())
	w.agree(t, t.decision, v.Decision)
	t.decision = v.Decision
}

// agree holds a decision against what was decided before.
func (w *world) agree(t *transaction, before, now commit.Decision) {
	if before != commit.Undecided && before != now {
		w.Broken(claimAgreement, fmt.Sprintf("%s: %s, and then %s", t.id, before, now))
	}
}

// told notes what a client was told.
func (w *world) told(id commit.TransactionID, d commit.Decision) {
	t := w.touch(id)
	if t.heard != commit.Undecided && t.heard != d {
		w.Broken(claimTold, fmt.Sprintf("%s: %s, and then %s", id, t.heard, d))
	}
	t.heard = d
}

// installed notes a view that a node was told.
func (w *world) installed(node protocol.NodeID, v membership.View) {
	if known, ok := w.views[v.Number]; ok && !reflect.DeepEqual(known, v) {
		w.Broken(spec.LinearMembership().Name, fmt.Sprintf("view %d at %s is %v, and elsewhere %v", v.Number, node, v.Members, known.Members))
	}
	w.views[v.Number] = v
	w.Reach("view " + strconv.FormatUint(v.Number, 10))
}

// changed notes the cluster's own state, as a node has it: as it is encoded, for a list that is empty may be none. A change
// that is refused is noted in the sessions, and makes no epoch.
func (w *world) changed(node protocol.NodeID, s membership.State) {
	s.Sessions = nil
	state, err := w.codec.Encode(membership.Changed{State: s})
	w.Fail(err)
	if known, ok := w.states[s.Epoch]; ok && !bytes.Equal(known, state) {
		w.Broken(claimState, fmt.Sprintf("in epoch %d it is other at %s than elsewhere", s.Epoch, node))
	}
	w.states[s.Epoch] = state
	w.epoch = max(w.epoch, s.Epoch)
}

// total is all the money there is.
func (w *world) total() int64 { return int64(len(w.c.Members) * w.c.Accounts * opening) }

// bereft reports whether a node that has a branch of the transaction is gone for good: then it is never
// finished.
func (w *world) bereft(id commit.TransactionID) bool {
	return slices.ContainsFunc(w.transactions[id].parts, func(p Part) bool { return w.byID[p.Node].gone })
}

// idle reports whether the transaction only reads: then there is nothing to decide.
func (t *transaction) idle() bool {
	return !slices.ContainsFunc(t.parts, func(p Part) bool {
		return slices.ContainsFunc(p.Operations, func(o Operation) bool { return o.Change != 0 })
	})
}

// hasLeft notes that a client was told that the node has left. A founder that the others had not met yet, and so is its own
// successor as far as it knows, may come.
func (w *world) hasLeft(n *node) {
	if n.gone {
		return
	}
	life, ok := n.disk.Record(memberPart + membership.LifeKey).(membership.LifeRecord)
	if ok && !life.Blank && life.Founder == n.founder() {
		w.left = append(w.left, n.ID)
	}
}

// away holds against each node's state, at the end, who has left as a client was told.
func (w *world) away() {
	for _, n := range w.present() {
		for _, id := range w.left {
			if m, ok := n.member.machine.State.Member(id); ok && !n.member.machine.Retired {
				w.Broken(claimLeft, fmt.Sprintf("at %s, %s is a member with %d votes", n.ID, id, m.Votes))
			}
		}
	}
}

// settle compares, at the end, what the nodes hold with what the transactions have done that committed.
func (w *world) settle() {
	want := map[protocol.NodeID][]int64{}
	for _, n := range w.nodes {
		want[n.ID] = slices.Repeat([]int64{opening}, n.accounts())
	}
	for _, id := range w.names {
		t := w.transactions[id]
		if t.heard == commit.Commit && t.stands != commit.Commit && !t.idle() || t.heard == commit.Abort && t.stands == commit.Commit {
			w.Broken(claimTold, fmt.Sprintf("%s: %s was told, and %s stands", t.id, t.heard, t.stands))
		}
		if t.stands != commit.Commit {
			continue
		}
		for _, p := range t.parts {
			for _, o := range p.Operations {
				if !o.Spoil {
					want[p.Node][o.Account] += o.Change
				}
			}
		}
	}
	for _, n := range w.present() {
		for a := range n.accounts() {
			if got := n.store.accounts[a]; got != want[n.ID][a] {
				w.Broken(claimPlace, fmt.Sprintf("account %d at %s holds %d; it should hold %d", a, n.ID, got, want[n.ID][a]))
			}
		}
	}
}
