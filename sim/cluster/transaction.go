package cluster

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"assent/decision"
	register "assent/decision/paxos"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/sim"
	"assent/sim/bank"
)

// job is a transaction that a client has begun at this node.
type job struct {
	n       *node
	id      commit.TransactionID
	client  protocol.NodeID
	parts   []bank.Part
	waiting map[protocol.NodeID]bool
	sum     int64
	asked   bool // the coordinator was asked to commit, or to abort
}

// workTime is how long the work may take.
const workTime = time.Second

// begin begins a transaction for a client, where the node is a member.
func (n *node) begin(client protocol.NodeID, m Begin) {
	if n.registers.outside() {
		return
	}
	key := fmt.Sprintf("%s/%d", client, m.Ref)
	if id := n.begun[key]; id != "" {
		n.send(string(id), client, Begun{Ref: m.Ref, ID: id})
		return
	}
	n.minted++
	j := &job{n: n, id: commit.TransactionID(fmt.Sprintf("%s%d", n.prefix, n.minted)), client: client, parts: m.Parts,
		waiting: map[protocol.NodeID]bool{}}
	n.begun[key], n.jobs[j.id] = j.id, j
	n.w.book.Begin(j.id, m.Parts, false)
	n.send(string(j.id), client, Begun{Ref: m.Ref, ID: j.id})
	for _, p := range m.Parts {
		j.waiting[p.Node] = true
		n.send(string(j.id), p.Node, Work{ID: j.id, Operations: p.Operations, Sent: int64(n.w.Line.Now())})
	}
	n.After(workTime, func() { j.commit(true) })
}

// worked takes a node's answer.
func (j *job) worked(from protocol.NodeID, m bank.Worked) {
	if j.asked || !j.waiting[from] {
		return
	}
	delete(j.waiting, from)
	for _, v := range m.Values {
		j.sum += v
	}
	if !m.Done {
		j.n.w.refused(j.id, from, m.Reason)
	}
	if !m.Done || len(j.waiting) == 0 {
		j.commit(!m.Done)
	}
}

// commit asks the coordinator to commit, or to abort.
func (j *job) commit(abort bool) {
	if j.asked {
		return
	}
	j.asked = true
	among := make([]protocol.NodeID, len(j.parts))
	for i, p := range j.parts {
		among[i] = p.Node
	}
	t := j.n.coordination(j.id, among)
	if abort {
		t.actor.Deliver(protocol.Input{Value: commit.Cancel{Reason: "the work could not be done"}})
		return
	}
	t.actor.Deliver(protocol.Start{})
}

// coordination is the hands of one transaction's coordinator, at the node that began it or at one that
// finishes what another has left.
type coordination struct {
	n         *node
	id        commit.TransactionID
	machine   *commit.Coordinator
	actor     *sim.Actor
	recovered bool
	entry     bool // a decision stands in the registers
	concluded commit.Decision
}

func (n *node) coordination(id commit.TransactionID, among []protocol.NodeID) *coordination {
	t := &coordination{n: n, id: id, machine: commit.NewCoordinator(id, among, n.w.options)}
	t.actor = n.Actor(string(id), t.machine, t)
	n.coordinations[id] = t
	return t
}

// recover makes the coordinator of a transaction anew.
func (n *node) recover(id commit.TransactionID) *coordination {
	t := n.coordination(id, nil)
	t.recovered = true
	t.actor.Deliver(protocol.Recover{})
	return t
}

// coordinate takes a participant's message to the coordinator.
func (n *node) coordinate(id commit.TransactionID, p sim.Packet) {
	t := n.coordinations[id]
	if t == nil {
		if j := n.jobs[id]; j != nil && !j.asked {
			return // it has not been asked for a vote: the message is of another coordinator
		}
		if v, ok := p.Message.(commit.Voted); !ok || v.Vote != commit.Yes {
			return
		}
		// Somebody is in doubt about a transaction that nobody drives here.
		n.w.Reach("recovery: a vote that nobody waits for")
		t = n.recover(id)
	}
	t.actor.Deliver(protocol.Receive{From: p.From, Message: p.Message})
}

// over reports whether nothing is left to do but to wait for nodes that are gone for good.
func (t *coordination) over() bool {
	if t.machine.State == commit.CoordinatorRecovered {
		return true // nobody has asked
	}
	if t.machine.State != commit.CoordinatorCommitting && t.machine.State != commit.CoordinatorAborting {
		return t.machine.State.Done()
	}
	return !slices.ContainsFunc(t.machine.Members, func(m commit.Member) bool {
		o := t.n.w.byID[m.Node]
		return m.Outcome == 0 && m.Vote != commit.ReadOnly && m.Vote != commit.No && !o.gone
	})
}

// Force implements engine.Hands. The coordinator's only record is the decision, in the register.
func (t *coordination) Force([]protocol.Write) error { return nil }

// Send implements engine.Hands.
func (t *coordination) Send(to protocol.NodeID, message protocol.Message) {
	if t.actor.Alive() {
		t.n.transmit(string(t.id), to, message)
	}
}

// Emit implements engine.Hands.
func (t *coordination) Emit(value protocol.Value) {
	if !t.actor.Alive() {
		return
	}
	switch v := value.(type) {
	case commit.Propose:
		t.n.After(t.n.w.Pause(string(t.id), t.n.ID), func() { t.propose(v) })
	case commit.Concluded:
		t.conclude(v)
	case commit.Contradicted:
		t.n.w.book.Contradicted(t.id, v)
	case commit.Completed:
		t.n.After(t.n.w.Pause(string(t.id), t.n.ID), t.retire)
	}
}

// value is what is proposed to the register.
func (t *coordination) value(p commit.Propose) register.Value {
	e := decision.Entry{ID: t.id, Decision: p.Decision, By: "coordinator", Time: t.n.w.Clock()}
	if p.Decision == commit.Abort {
		e.By, e.Reason = "recovery", "a branch is prepared and no decision is recorded"
	}
	for _, m := range p.Members {
		e.Branches = append(e.Branches, decision.Branch{Resource: string(m.Node), Evidence: m.Evidence})
	}
	raw, err := e.Normal().Encode()
	t.n.w.Fail(err)
	return register.Value{Status: decision.Unfinished, Entry: raw}
}

// propose has the register decide.
func (t *coordination) propose(p commit.Propose) {
	value := t.value(p)
	switch flaw := t.n.w.c.flaw; {
	case flaw == tellsEarly && p.Decision == commit.Commit:
		t.decided(value)
	case flaw == unknownIsAbort && t.recovered && p.Decision == commit.Abort:
		t.n.registers.ask(t.id, func(all map[commit.TransactionID]Held, ok bool) {
			switch h := all[t.id]; {
			case !ok:
				t.actor.Deliver(protocol.Input{Value: commit.ProposeFailed{}})
			case h.Chosen || h.Value.Stamp > 0:
				t.n.registers.decide(t.id, h.Value, t.decided)
			default:
				t.decided(value)
			}
		})
		return
	}
	if !t.n.registers.decide(t.id, value, func(stands register.Value) {
		if t.n.w.c.flaw == ignoresAnswer {
			stands = value
		}
		t.decided(stands)
	}) {
		t.actor.Deliver(protocol.Input{Value: commit.ProposeFailed{}})
	}
}

// decided tells the machine what stands.
func (t *coordination) decided(stands register.Value) {
	e, err := decision.DecodeEntry(stands.Entry)
	if err != nil {
		t.n.w.Fail(err)
		return
	}
	t.entry = true
	v := commit.Decided{Decision: e.Decision}
	for _, b := range e.Branches {
		v.Members = append(v.Members, commit.Member{Node: protocol.NodeID(b.Resource), Evidence: b.Evidence})
	}
	t.actor.Deliver(protocol.Input{Value: v})
}

// conclude tells the client.
func (t *coordination) conclude(v commit.Concluded) {
	t.concluded = v.Decision
	t.n.w.book.Concluded(t.id, v)
	if j := t.n.jobs[t.id]; j != nil {
		t.n.send(string(t.id), j.client, Told{ID: t.id, Decision: v.Decision, Sum: j.sum})
	}
}

// retire notes that the transaction is finished, and drops it.
func (t *coordination) retire() {
	if t.entry {
		t.n.registers.finished(t.id)
	}
	delete(t.n.coordinations, t.id)
}

// inquired tells a client what is known of a transaction: api's Get. What is not decided is no outcome.
func (n *node) inquired(client protocol.NodeID, id commit.TransactionID) {
	answer := func(d commit.Decision) { n.send(string(id), client, Told{ID: id, Decision: d}) }
	if t := n.coordinations[id]; t != nil && t.concluded != commit.Undecided {
		answer(t.concluded)
		return
	}
	n.registers.ask(id, func(all map[commit.TransactionID]Held, ok bool) {
		h, found := all[id]
		switch {
		case ok && (h.Chosen || found):
			// What may have been decided by somebody who is gone is settled first.
			n.registers.decide(id, h.Value, func(v register.Value) {
				e, err := decision.DecodeEntry(v.Entry)
				n.w.Fail(err)
				n.w.Reach("a client learns from another node: " + e.Decision.String())
				answer(e.Decision)
			})
		case ok && n.w.c.flaw == unknownIsAbort && !n.alive(id):
			answer(commit.Abort)
		default:
			answer(commit.Undecided)
		}
	})
}

// scanBranches looks for branches in doubt that nobody finishes: Manager.Scan. A coordinator made anew here has
// abort decided, and abides by what stands.
func (n *node) scanBranches() {
	for _, id := range n.store.prepared() {
		b := n.branches[id]
		if b == nil || n.coordinations[id] != nil && !n.registers.outside() || b.machine.State != commit.ParticipantPrepared {
			continue
		}
		outside := n.registers.outside()
		if n.w.Line.Now()-b.since < grace && n.alive(id) && !(outside && b.machine.Coordinator == n.ID) {
			continue
		}
		if outside {
			if now := n.w.Line.Now(); b.handed == 0 || now-b.since >= grace/5 {
				b.handOver()
			}
			continue
		}
		n.w.Reach("recovery: an orphan")
		n.recover(id)
		b.adopt(n.ID)
	}
}

// scanLog brings about that what was decided, or may have been, is known here and finished: Manager.scanLog,
// and the feeds by which live registers tell each other.
func (n *node) scanLog() {
	n.registers.ask("", func(all map[commit.TransactionID]Held, ok bool) {
		for _, id := range slices.Sorted(maps.Keys(all)) {
			if h := all[id]; ok {
				n.look(h)
			}
		}
	})
}

// look goes on with what a read quorum holds of a transaction.
func (n *node) look(h Held) {
	own := n.registers.copy(h.ID).held()
	switch {
	case !h.Chosen && n.registers.proposals[h.ID] == nil:
		n.w.Reach("recovery: what was accepted is settled")
		n.registers.decide(h.ID, h.Value, func(register.Value) {})
		return
	case !h.Chosen:
		return
	case !own.Chosen || len(own.Notes) < len(h.Notes):
		n.registers.add(delivery{id: h.ID, event: protocol.Receive{From: n.ID, Message: register.Learn{Chosen: true, Value: h.Value, Notes: h.Notes}}})
	}
	if len(h.Notes) > 0 || n.coordinations[h.ID] != nil || n.alive(h.ID) && !n.own(h.ID) {
		return
	}
	n.w.Reach("recovery: an unfinished decision")
	n.recover(h.ID).decided(h.Value)
}

// own reports whether the transaction began here, in this life.
func (n *node) own(id commit.TransactionID) bool { return string(id[:prefixLength]) == n.prefix }
