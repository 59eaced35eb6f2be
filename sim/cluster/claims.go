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
	"assent/sim/bank"
	"assent/spec"
)

// The claims of the cluster, besides AC1 to AC3, AC4 in runs without faults, sim.Ended and those of a bank.Book.
const (
	claimState = "the cluster's own state is the same at all nodes"
	claimLeft  = "who has left on request stays away"
)

// refused notes that a store could not do the work.
func (w *world) refused(id commit.TransactionID, node protocol.NodeID, reason string) {
	w.Reach("work refused: " + reason)
	w.book.Refused(id, node)
}

// stands notes what a node takes for decided in the register.
func (w *world) stands(id commit.TransactionID, v register.Value) {
	e, err := decision.DecodeEntry(v.Entry)
	if err != nil {
		w.Fail(fmt.Errorf("%s: %w", id, err))
		return
	}
	w.Reach("decided: " + e.Decision.String() + ", by " + e.By)
	w.book.Decided(id, e.Decision)
	if stamp, ok := w.stamps[id]; ok && stamp != v.Stamp {
		w.Broken(bank.ClaimAgreement, fmt.Sprintf("%s: the value of stamp %d, and then that of %d", id, stamp, v.Stamp))
	}
	w.stamps[id] = v.Stamp
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

// bereft reports whether a node that has a branch of the transaction is gone for good: then it is never
// finished.
func (w *world) bereft(id commit.TransactionID) bool {
	return slices.ContainsFunc(w.book.Entry(id).Parts, func(p bank.Part) bool { return w.byID[p.Node].gone })
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
	var holders []bank.Holder
	for _, n := range w.present() {
		h := bank.Holder{Node: n.ID}
		for a := range n.accounts() {
			h.Balances = append(h.Balances, n.store.accounts[a])
		}
		holders = append(holders, h)
	}
	w.book.Settle(holders, func(t *bank.Entry) bool { return t.Stands == commit.Commit })
}
