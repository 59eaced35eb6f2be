package cluster

import (
	"time"

	register "assent/decision/paxos"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/paxos"
	"assent/sim"
)

// proposal is a proposer at work. No ballot is ever used for two values, so it stays until this node's copy
// knows the decision.
type proposal struct {
	r       *registers
	id      commit.TransactionID
	own     register.Value
	machine register.Proposer
	actor   *sim.Actor
	stands  *register.Value
	waiting []func(register.Value)
}

// decide brings about a decision, and calls then with the value that stands. Where it is known already, value
// is not proposed. It reports false where the node is not a member, and so cannot propose.
func (r *registers) decide(id commit.TransactionID, value register.Value, then func(register.Value)) bool {
	if c := r.copies[id]; c != nil && c.Chosen {
		then(c.Value)
		return true
	}
	p := r.proposals[id]
	if p == nil {
		if r.outside() {
			return false
		}
		p = r.propose(id, value)
	}
	if p.stands != nil {
		then(*p.stands)
		return true
	}
	p.waiting = append(p.waiting, then)
	return true
}

func (r *registers) propose(id commit.TransactionID, value register.Value) *proposal {
	_, traced := r.copies[id]
	p := &proposal{r: r, id: id, own: value}
	if p.own.Stamp == 0 {
		p.own.Stamp = r.next()
	}
	self := protocol.NodeID(r.n.prefix)
	p.machine.EpochProposer = paxos.NewEpochProposer(paxos.Proposer[register.Value]{Instance: paxos.Instance(id), Self: self,
		Options: paxos.Options{RetryMost: 2 * time.Second}, Owner: !traced && !r.faulted && ownerOf(id) == self, Round: r.next()}, r.system(id))
	p.actor = r.n.Actor(string(id), &p.machine, p)
	r.proposals[id] = p
	r.n.After(0, func() { p.actor.Deliver(protocol.Input{Value: paxos.Propose[register.Value]{Value: p.own}}) })
	return p
}

// Force implements engine.Hands. What a proposer would keep is for one that comes back under the same name.
func (p *proposal) Force([]protocol.Write) error { return nil }

// Send implements engine.Hands.
func (p *proposal) Send(to protocol.NodeID, message protocol.Message) {
	if !p.actor.Alive() {
		return
	}
	epoch := p.machine.Epoch.Number
	if to != p.r.n.ID {
		p.r.n.transmit(string(p.id), to, date(epoch, message))
	} else if epoch == p.r.known.epoch.Number {
		p.r.heed(sim.Packet{Scope: string(p.id), From: to, Message: message}, message)
	}
}

// Emit implements engine.Hands.
func (p *proposal) Emit(value protocol.Value) {
	d, ok := value.(paxos.Decided[register.Value])
	if !ok || !p.actor.Alive() {
		return
	}
	p.stands = &d.Value
	p.r.n.w.stands(p.id, d.Value)
	learn := register.Learn{Chosen: true, Value: d.Value}
	p.r.add(delivery{id: p.id, event: protocol.Receive{From: p.r.n.ID, Message: learn}})
	if p.r.n.w.c.Log == Paxos {
		p.r.tell(p.id, learn)
	}
	for _, then := range p.waiting {
		p.r.n.After(0, func() { then(d.Value) })
	}
	p.waiting = nil
}

// answered gives a proposer the answer of an acceptor.
func (r *registers) answered(from protocol.NodeID, id commit.TransactionID, message protocol.Message) {
	p := r.proposals[id]
	if p == nil || p.stands != nil {
		return
	}
	if m, ok := message.(paxos.Phase2b[register.Value]); ok && m.Ballot.Node != p.machine.Proposer.Self {
		return
	}
	p.actor.Deliver(protocol.Receive{From: from, Message: message})
}
