package cluster

import (
	"time"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/sim"
	"assent/sim/bank"
)

const (
	// sessionTime is how long a branch may be at work before it is given up: its client is gone.
	sessionTime = 4 * time.Second
	// memory is how long a participant that has come to its end is kept for those who ask.
	memory = 2 * time.Second
)

// branch is a transaction's part at a node: the hands of its participant.
type branch struct {
	n       *node
	id      commit.TransactionID
	machine *commit.Participant
	actor   *sim.Actor
	since   time.Duration // when it came to be prepared, or was found so, or was handed over
	handed  int           // how often it was handed over to a member
}

// branch returns the participant of the transaction, made now if there is none.
func (n *node) branch(id commit.TransactionID, coordinator protocol.NodeID) *branch {
	if b := n.branches[id]; b != nil {
		return b
	}
	b := &branch{n: n, id: id, since: n.w.Line.Now()}
	b.make(coordinator)
	n.branches[id] = b
	return b
}

func (b *branch) make(coordinator protocol.NodeID) {
	b.machine = commit.NewParticipant(b.id, coordinator, b.n.w.options)
	b.actor = b.n.Actor(string(b.id), b.machine, b)
}

// resume makes a participant anew for each branch that is found prepared.
func (n *node) resume() {
	for _, id := range n.store.prepared() {
		n.w.Reach("recovery: a branch in doubt")
		n.w.book.Voted(id, n.ID, commit.Yes) // the answer may have been lost
		b := n.branch(id, n.store.branches[id].Coordinator)
		b.actor.Deliver(b.promise(b.machine.Coordinator))
		b.expire()
	}
}

// promise is the participant's record: the branch itself.
func (b *branch) promise(coordinator protocol.NodeID) protocol.Event {
	return protocol.Recover{Records: protocol.Records{commit.BranchKey: commit.PreparedRecord{ID: b.id, Coordinator: coordinator}}}
}

// adopt makes the participant anew, in doubt, to answer to a coordinator that another one, or this node, makes.
func (b *branch) adopt(coordinator protocol.NodeID) {
	b.actor.Stop()
	b.make(coordinator)
	b.actor.Deliver(b.promise(coordinator))
}

// participate takes a message to the participant.
func (n *node) participate(id commit.TransactionID, p sim.Packet) {
	b := n.branches[id]
	if b == nil {
		// It is finished and forgotten, or was never here: the machine finds out which.
		b = n.branch(id, p.From)
		b.actor.Deliver(protocol.Recover{})
		b.expire()
	}
	b.actor.Deliver(protocol.Receive{From: p.From, Message: p.Message})
}

// worked does what a transaction asks of the store, once: a copy that comes again or late is not of this
// connection.
func (n *node) worked(from protocol.NodeID, m Work) {
	if time.Duration(m.Sent) < n.Since || n.branches[m.ID] != nil {
		return
	}
	b := n.branch(m.ID, from)
	b.actor.Deliver(protocol.Start{})
	n.Work(string(m.ID), func() (then func()) {
		answer := bank.Worked{ID: m.ID}
		answer.Values, answer.Reason = n.store.work(m.ID, from, m.Operations)
		answer.Done = answer.Reason == ""
		return func() { n.send(string(m.ID), from, answer) }
	})
	n.After(sessionTime, func() { b.actor.Deliver(protocol.Input{Value: commit.Abandon{Reason: "the session is over"}}) })
	b.expire()
}

// expire forgets the participant some time after it has come to its end.
func (b *branch) expire() {
	b.n.After(memory, func() {
		if b.machine.State.Done() || b.machine.Blank && b.machine.State == commit.ParticipantWorking {
			delete(b.n.branches, b.id)
			return
		}
		b.expire()
	})
}

// Force implements engine.Hands. The participant's stable record is the prepared branch itself.
func (b *branch) Force([]protocol.Write) error { return nil }

// Send implements engine.Hands.
func (b *branch) Send(to protocol.NodeID, message protocol.Message) {
	if b.actor.Alive() {
		b.n.transmit(string(b.id), to, message)
	}
}

// Emit implements engine.Hands: the store does what the machine asks, and answers.
func (b *branch) Emit(value protocol.Value) {
	a := b.actor
	if !a.Alive() {
		return
	}
	b.n.Work(string(b.id), func() (then func()) {
		answer := b.carryOut(value)
		if answer == nil {
			return nil // the disk has failed, and the node with it
		}
		return func() { a.Deliver(protocol.Input{Value: answer}) }
	})
}

// carryOut calls the store. It returns nil where the disk has failed.
func (b *branch) carryOut(request protocol.Value) (answer protocol.Value) {
	if _, ok := request.(commit.PrepareBranch); ok {
		vote, reason, err := b.n.store.prepare(b.id, b.machine.Coordinator)
		if err != nil {
			return nil
		}
		b.since = b.n.w.Line.Now()
		b.n.w.book.Voted(b.id, b.n.ID, vote)
		return commit.BranchPrepared{Vote: vote, Reason: reason}
	}
	_, commits := request.(commit.CommitBranch)
	outcome, err := b.n.store.finish(b.id, commits)
	if err != nil {
		return nil
	}
	b.n.w.book.Finished(b.id, b.n.ID, outcome)
	return commit.BranchFinished{Outcome: outcome}
}
