package cluster

import (
	"maps"
	"slices"

	register "assent/decision/paxos"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/membership"
	"assent/protocol/paxos"
	"assent/protocol/quorum"
	"assent/sim"
)

// The members change while all goes on. What a node says of registers is of an epoch. Whoever knows a later one answers
// with that, and does nothing else; whoever knows only an earlier one asks for it, and keeps what was said for as
// long. So it is in decision/paxos, whose hands these are.

// roster is an epoch as a node knows it.
type roster struct {
	epoch  register.Epoch
	system paxos.Epoch
	// own are the entries of the node in the sets that name it: none where it is not a member.
	own []register.Member
	// others are the other members of both sets.
	others []protocol.NodeID
}

func (r *registers) roster(e register.Epoch) roster {
	z := roster{epoch: e, system: e.Acceptors()}
	if r.n.w.c.flaw == smallQuorum {
		z.system.System.Read--
	}
	for _, m := range slices.Concat(e.Members, e.Next) {
		if m.Node == r.n.ID {
			z.own = append(z.own, m)
		} else if !slices.Contains(z.others, m.Node) {
			z.others = append(z.others, m.Node)
		}
	}
	return z
}

// epochOf returns whose the registers are in the log's terms.
func epochOf(r membership.Registers) register.Epoch {
	members := func(all []membership.Member) (m []register.Member) {
		for _, x := range all {
			m = append(m, register.Member{Node: x.Node, Storage: x.Storage, Votes: x.Votes, Place: x.Place, Since: x.Since})
		}
		return m
	}
	return register.Epoch{Number: r.Number, Members: members(r.Members), Next: members(r.Next)}
}

// outside reports whether the node is not a member, so that nothing can be asked of it but what it holds.
func (r *registers) outside() bool { return r.n.w.c.Log == Paxos && len(r.known.own) == 0 }

// serves reports whether the node's storage is the one that counts. That of a founder whose storage was not known is:
// no founder has lost its disk here and come back.
func (r *registers) serves() bool {
	return !r.outside() && !slices.ContainsFunc(r.known.own, func(m register.Member) bool {
		return m.Storage != "" && m.Storage != r.n.storage()
	})
}

// names reports whether the node is a member in the epoch that is known.
func (r *registers) names(node protocol.NodeID) bool {
	return node == r.n.ID || r.n.w.c.Log == Disk || slices.Contains(r.known.others, node)
}

// system returns the acceptors of a transaction.
func (r *registers) system(id commit.TransactionID) paxos.Epoch {
	if r.n.w.c.Log == Disk {
		home := r.n
		if id != "" {
			home = r.n.w.nodeOf(string(id))
		}
		return paxos.Epoch{Number: r.known.epoch.Number, System: quorum.Majority(home.ID)}
	}
	return r.known.system
}

// maxEarly bounds what is kept until its epoch is known.
const maxEarly = 512

// take takes what a node says of registers.
func (r *registers) take(p sim.Packet, d Dated) {
	known, m := r.known.epoch.Number, d.message()
	late := r.n.w.c.flaw == votesLate && d.Epoch < known && (d.Phase1a != nil || d.Phase2a != nil)
	if (d.Epoch == known || late) && m != nil && r.names(p.From) {
		r.heed(p, m)
		return
	}
	r.n.w.Heard(p)
	switch {
	case d.Epoch > known && d.Entered != nil:
		if known == 0 || r.names(p.From) { // else it may be of another cluster, that was before
			r.adopt(*d.Entered)
		}
	case d.Epoch > known:
		if len(r.early) < maxEarly {
			r.early = append(r.early, p)
		}
		r.say("", p.From, known, nil) // that epoch is over: it is told which it is
	case r.known.system.Over(d.Epoch):
		r.say("", p.From, known, r.known.epoch)
	}
}

// say says something of registers to another node, or to this one.
func (r *registers) say(scope string, to protocol.NodeID, epoch uint64, m protocol.Message) {
	r.n.send(scope, to, date(epoch, m))
}

// heed takes a message of the present epoch.
func (r *registers) heed(p sim.Packet, m protocol.Message) {
	id := commit.TransactionID(p.Scope)
	switch m := m.(type) {
	case paxos.Phase1b[register.Value], paxos.Phase2b[register.Value], paxos.Refused[register.Value],
		paxos.Chosen[register.Value], register.Void:
		r.answered(p.From, id, m)
		return
	case Page:
		r.n.w.Heard(p)
		r.told(p.From, m)
		return
	case Inventory:
		r.n.w.Heard(p)
		r.surveyed(p.From, m)
		return
	case Taught:
		r.n.w.Heard(p)
		r.holds(p.From, m)
		return
	}
	if !r.serves() {
		return
	}
	switch m := m.(type) {
	case paxos.Phase1a[register.Value]: // the answer is for the proposer's life
		r.add(delivery{id: id, event: protocol.Receive{From: m.Ballot.Node, Message: m}, number: p.Number})
	case paxos.Phase2a[register.Value]:
		r.add(delivery{id: id, event: protocol.Receive{From: m.Ballot.Node, Message: m}, number: p.Number})
	case register.Learn, register.Annotate:
		r.add(delivery{id: id, event: protocol.Receive{From: p.From, Message: m}, number: p.Number})
	case Query:
		r.n.w.Heard(p)
		r.add(delivery{then: func() { r.asked(p.From, m) }})
	case Survey:
		r.n.w.Heard(p)
		r.add(delivery{then: func() { r.survey(p.From) }})
	case Teach:
		r.n.w.Heard(p)
		r.taught(p.From, m)
	}
}

// adopt makes the epoch the one by which the node proposes, and has its copies enter it; unless it is over.
func (r *registers) adopt(e register.Epoch) {
	if e.Number <= r.known.epoch.Number {
		return
	}
	r.known = r.roster(e)
	r.add(delivery{id: fenceName, event: protocol.Receive{From: r.n.ID, Message: Entering{Epoch: e}}})
	for _, id := range slices.Sorted(maps.Keys(r.proposals)) {
		if p := r.proposals[id]; p.stands == nil {
			p.actor.Deliver(protocol.Input{Value: r.known.system})
		}
	}
	for _, number := range slices.Sorted(maps.Keys(r.calls)) {
		c := r.calls[number]
		c.system, c.got = r.system(c.query.ID), map[protocol.NodeID]Page{}
		r.inquire(c)
	}
	early := r.early
	r.early = nil
	for _, p := range early {
		r.n.receive(p)
	}
}

// fenceName is the name under which a node's epoch is stepped. It is no transaction's.
const fenceName = "epoch"

// fence is the machine that keeps the epoch of a node's copies: one for all of them. What was delivered before it enters
// an epoch was of the one before.
type fence struct{ r *registers }
