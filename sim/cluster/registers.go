package cluster

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"assent/decision"
	register "assent/decision/paxos"
	"assent/engine"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/paxos"
	"assent/protocol/quorum"
	"assent/sim"
	"assent/trace"
)

// registers is a node's part of the decision log: the copies that it holds, which an engine.Batch steps, and
// the proposals that it has under way. It is the hands that decision/paxos has live.
type registers struct {
	n     *node
	life  int
	batch *engine.Batch
	// inbox are events that wait for the batch, which takes together what comes at about the same time.
	inbox   []delivery
	numbers []uint64 // of the packets of events that the batch was given and has not stepped
	stamp   uint64

	copies    map[commit.TransactionID]*copied
	proposals map[commit.TransactionID]*proposal
	calls     map[uint64]*call
	called    uint64
}

type delivery struct {
	id     commit.TransactionID
	event  protocol.Event
	number uint64
}

// copied is a copy in a node's table.
type copied struct {
	register.Copy
	r *registers
}

// Step implements protocol.Machine.
func (c *copied) Step(ev protocol.Event, out *protocol.Effects) {
	was := c.Chosen
	c.Copy.Step(ev, out)
	if c.Chosen && !was {
		c.r.n.w.stands(c.ID, c.Value)
	}
}

// held returns what is held of the transaction.
func (c *copied) held() Held {
	h := Held{ID: c.ID, Chosen: c.Chosen, Value: c.Value, Notes: c.Notes}
	if !c.Chosen && c.Acceptor != nil {
		h.Value = c.Acceptor.Value
	}
	return h
}

// openRegisters takes back what the disk holds.
func openRegisters(n *node, records protocol.Records) *registers {
	r := &registers{n: n, life: n.life, copies: map[commit.TransactionID]*copied{},
		proposals: map[commit.TransactionID]*proposal{}, calls: map[uint64]*call{}}
	r.batch = engine.NewBatch(engine.BatchConfig{Node: n.id, Hands: r, Observer: r})
	for _, key := range slices.Sorted(maps.Keys(records)) { // acceptor comes before chosen
		name, what, _ := strings.Cut(key, "/")
		c := r.copy(commit.TransactionID(name))
		switch v := records[key].(type) {
		case paxos.AcceptorRecord[register.Value]:
			if n.w.c.flaw == forgetsRecord {
				continue
			}
			c.Acceptor = r.acceptor(c.ID)
			c.Acceptor.Step(protocol.Recover{Records: protocol.Records{what: v}}, &protocol.Effects{})
		case register.ChosenRecord:
			if n.w.c.flaw == forgetsRecord {
				continue
			}
			if v.Accepted {
				v.Value = c.Acceptor.Value
			}
			c.Acceptor, c.Chosen, c.Value = nil, true, v.Value
		case register.NoteRecord:
			c.Notes = append(c.Notes, v.Note)
		}
	}
	return r
}

func (r *registers) acceptor(id commit.TransactionID) *paxos.Acceptor[register.Value] {
	return &paxos.Acceptor[register.Value]{Instance: paxos.Instance(id), Owner: ownerOf(id)}
}

// ownerOf returns the life that owns ballot 0.
func ownerOf(id commit.TransactionID) protocol.NodeID { return protocol.NodeID(id[:prefixLength]) }

// copy returns the copy of the transaction, made now if there is none.
func (r *registers) copy(id commit.TransactionID) *copied {
	c := r.copies[id]
	if c == nil {
		c = &copied{Copy: register.Copy{ID: id}, r: r}
		r.copies[id] = c
	}
	return c
}

func (r *registers) stop() {
	r.batch.Stop()
	for _, p := range r.proposals {
		p.actor.loop.Stop()
	}
}

func (r *registers) alive() bool { return r.n.up && r.n.life == r.life }

// system returns the acceptors of a transaction.
func (r *registers) system(id commit.TransactionID) quorum.System {
	if r.n.w.c.Log == Disk {
		return quorum.System{Members: []quorum.Member{{Node: r.n.w.nodeOf(string(id)).id, Votes: 1}}, Read: 1, Write: 1}
	}
	s := r.n.w.c.system()
	if r.n.w.c.flaw == smallQuorum {
		s.Read--
	}
	return s
}

// next returns a stamp that nobody draws twice: the time, later than all that were drawn here, ending in the
// node's number.
func (r *registers) next() uint64 {
	r.stamp = max(uint64(r.n.w.clock().UnixNano()), r.stamp+register.MaxMembers)&^(register.MaxMembers-1) | uint64(r.n.index)
	return r.stamp
}

// receive takes what is for a copy here.
func (r *registers) receive(id commit.TransactionID, p sim.Packet) {
	from := p.From
	switch m := p.Message.(type) {
	case paxos.Phase1a[register.Value]:
		from = m.Ballot.Node // the proposer's life, which the answer is for
	case paxos.Phase2a[register.Value]:
		from = m.Ballot.Node
	}
	r.add(delivery{id: id, event: protocol.Receive{From: from, Message: p.Message}, number: p.Number})
}

// add lets an event wait for the disk.
func (r *registers) add(d delivery) {
	r.inbox = append(r.inbox, d)
	if len(r.inbox) > 1 {
		return
	}
	r.n.after(r.n.w.pause("disk", r.n.id), r.flush)
}

// flush gives the batch all that waits, and waits for its goroutine: so everything still happens in one
// order.
func (r *registers) flush() {
	together := r.inbox
	r.inbox = nil
	r.batch.Then(func() {
		for _, d := range together {
			r.numbers = append(r.numbers, d.number)
			r.batch.Deliver(string(d.id), d.event)
		}
	})
	r.batch.Wait()
}

// Machine implements engine.BatchHands.
func (r *registers) Machine(name string) protocol.Machine { return r.copy(commit.TransactionID(name)) }

// Force implements engine.BatchHands: what an acceptor writes must be stable before anything follows. What
// others know, too, is written and forced with what comes later.
func (r *registers) Force(steps []engine.Step) error {
	if !r.alive() {
		return errDisk
	}
	hard := false
	var writes []protocol.Write
	for i := range steps {
		for _, w := range steps[i].Out.Writes {
			switch v := w.Record.(type) {
			case paxos.AcceptorRecord[register.Value], register.ForgottenRecord:
				hard = true
			case register.NoteRecord:
				hard = hard || v.Forced
			}
			writes = append(writes, protocol.Write{Key: steps[i].Name + "/" + w.Key, Record: w.Record})
		}
	}
	if hard && r.n.w.c.flaw != votesUnforced {
		return r.n.force(registerPart, writes)
	}
	r.n.write(registerPart, writes)
	return nil
}

// Release implements engine.BatchHands.
func (r *registers) Release(step *engine.Step) {
	for _, m := range step.Out.Sends {
		to := r.n.w.nodeOf(string(m.To))
		switch {
		case !r.alive() || to == nil:
		case to == r.n:
			r.answered(r.n.id, commit.TransactionID(step.Name), m.Message)
		default:
			r.n.transmit(step.Name, to.id, m.Message)
		}
	}
}

// Flush implements engine.BatchHands.
func (r *registers) Flush() {}

// Observe implements trace.Observer, for the batch.
func (r *registers) Observe(e trace.Event) {
	a := actor{n: r.n, life: r.life}
	if !a.alive() {
		return
	}
	switch e.Kind {
	case trace.Deliver:
		r.n.w.arriving, r.numbers = r.numbers[0], r.numbers[1:]
		defer func() { r.n.w.arriving = 0 }()
	case trace.Send:
		if to := r.n.w.nodeOf(string(e.Peer)); to != nil {
			e.Peer = to.id // it is addressed to a life
		}
	}
	a.Observe(e)
}

// proposal is a proposer at work. No ballot is ever used for two values, so it stays until this node's copy
// knows the decision.
type proposal struct {
	r       *registers
	id      commit.TransactionID
	own     register.Value
	machine paxos.Proposer[register.Value]
	actor   *actor
	stands  *register.Value
	waiting []func(register.Value)
}

// decide brings about a decision, and calls then with the value that stands. Where it is known already, value
// is not proposed.
func (r *registers) decide(id commit.TransactionID, value register.Value, then func(register.Value)) {
	if c := r.copies[id]; c != nil && c.Chosen {
		then(c.Value)
		return
	}
	p := r.proposals[id]
	if p == nil {
		p = r.propose(id, value)
	}
	if p.stands != nil {
		then(*p.stands)
		return
	}
	p.waiting = append(p.waiting, then)
}

func (r *registers) propose(id commit.TransactionID, value register.Value) *proposal {
	_, traced := r.copies[id]
	p := &proposal{r: r, id: id, own: value}
	if p.own.Stamp == 0 {
		p.own.Stamp = r.next()
	}
	self := protocol.NodeID(r.n.prefix)
	p.machine = paxos.Proposer[register.Value]{Instance: paxos.Instance(id), Self: self, System: r.system(id),
		Options: paxos.Options{RetryMost: 2 * time.Second}, Owner: !traced && ownerOf(id) == self, Round: r.next()}
	p.actor = r.n.actor(string(id), &p.machine, p)
	r.proposals[id] = p
	r.n.after(0, func() { p.actor.deliver(protocol.Input{Value: paxos.Propose[register.Value]{Value: p.own}}) })
	return p
}

// Force implements engine.Hands. What a proposer would keep is for one that comes back under the same name.
func (p *proposal) Force([]protocol.Write) error { return nil }

// Send implements engine.Hands.
func (p *proposal) Send(to protocol.NodeID, message protocol.Message) {
	if !p.actor.alive() {
		return
	}
	if to == p.r.n.id {
		p.r.receive(p.id, sim.Packet{From: to, Message: message})
		return
	}
	p.r.n.transmit(string(p.id), to, message)
}

// Emit implements engine.Hands.
func (p *proposal) Emit(value protocol.Value) {
	d, ok := value.(paxos.Decided[register.Value])
	if !ok || !p.actor.alive() {
		return
	}
	p.stands = &d.Value
	p.r.n.w.stands(p.id, d.Value)
	learn := register.Learn{Chosen: true, Value: d.Value}
	p.r.receive(p.id, sim.Packet{From: p.r.n.id, Message: learn})
	if p.r.n.w.c.Log == Paxos {
		p.r.tell(p.id, learn)
	}
	for _, then := range p.waiting {
		p.r.n.after(0, func() { then(d.Value) })
	}
	p.waiting = nil
}

// tell says to all others what is known here.
func (r *registers) tell(id commit.TransactionID, message protocol.Message) {
	for _, o := range r.n.w.nodes {
		if o != r.n {
			r.n.send(string(id), o.id, message)
		}
	}
}

// answered gives a proposer the answer of an acceptor.
func (r *registers) answered(from protocol.NodeID, id commit.TransactionID, message protocol.Message) {
	p := r.proposals[id]
	if p == nil || p.stands != nil {
		return
	}
	if m, ok := message.(paxos.Phase2b[register.Value]); ok && m.Ballot.Node != p.machine.Self {
		return
	}
	p.actor.deliver(protocol.Receive{From: from, Message: message})
}

// finished notes that a transaction is finished, unforced.
func (r *registers) finished(id commit.TransactionID) {
	raw, err := decision.Note{Kind: decision.Finished, Time: r.n.w.clock()}.Normal().Encode()
	r.n.w.fail(err)
	a := register.Annotate{Note: register.Note{Stamp: r.next(), Node: protocol.NodeID(r.n.prefix), Note: raw}}
	r.receive(id, sim.Packet{From: r.n.id, Message: a})
	if r.n.w.c.Log == Paxos {
		r.tell(id, a)
	}
}

// call is a question to all nodes, whose answers are being collected.
type call struct {
	system quorum.System
	got    map[protocol.NodeID]Page
	// then is called once: with what a read quorum holds, or with false where there is none in time.
	then func(held map[commit.TransactionID]Held, ok bool)
}

const (
	// askAgain is the pause after which nodes that have not answered are asked again, and askTime how long
	// a question waits for a quorum.
	askAgain = 200 * time.Millisecond
	askTime  = 2 * time.Second
)

// ask asks what is held of a transaction, or of all, and puts together what a read quorum answers.
func (r *registers) ask(id commit.TransactionID, then func(map[commit.TransactionID]Held, bool)) {
	c := &call{got: map[protocol.NodeID]Page{}, then: then}
	switch {
	case id != "":
		c.system = r.system(id)
	case r.n.w.c.Log == Disk:
		c.system = quorum.System{Members: []quorum.Member{{Node: r.n.id, Votes: 1}}, Read: 1, Write: 1}
	default:
		c.system = r.system("")
	}
	r.called++
	number := r.called<<8 | uint64(r.n.life) // an answer to an earlier life must not count
	r.calls[number] = c
	r.repeat(number, Query{Number: number, ID: id})
	r.n.after(askTime, func() { r.settle(number, false) })
}

func (r *registers) repeat(number uint64, q Query) {
	c := r.calls[number]
	if c == nil {
		return
	}
	for _, m := range c.system.Members {
		if _, ok := c.got[m.Node]; !ok {
			r.n.send(string(q.ID), m.Node, q)
		}
	}
	r.n.after(askAgain, func() { r.repeat(number, q) })
}

// asked answers a question, when what is told is stable.
func (r *registers) asked(from protocol.NodeID, q Query) {
	page := Page{Number: q.Number}
	for _, id := range slices.Sorted(maps.Keys(r.copies)) {
		if h := r.copies[id].held(); (q.ID == "" || q.ID == id) && (h.Chosen || h.Value.Stamp > 0) {
			page.States = append(page.States, h)
		}
	}
	r.n.send(string(q.ID), from, page)
}

// told takes an answer.
func (r *registers) told(from protocol.NodeID, p Page) {
	c := r.calls[p.Number]
	if c == nil {
		return
	}
	c.got[from] = p
	answer := func(n protocol.NodeID) quorum.Answer {
		if _, ok := c.got[n]; ok {
			return quorum.Granted
		}
		return quorum.Silent
	}
	if c.system.Reading(answer) == quorum.Reached {
		r.settle(p.Number, true)
	}
}

// settle ends a call.
func (r *registers) settle(number uint64, ok bool) {
	c := r.calls[number]
	if c == nil {
		return
	}
	delete(r.calls, number)
	all := map[commit.TransactionID]Held{}
	for _, from := range slices.Sorted(maps.Keys(c.got)) {
		for _, h := range c.got[from].States {
			all[h.ID] = merged(all[h.ID], h)
		}
	}
	c.then(all, ok)
}

// merged puts together what two nodes hold.
func merged(a, b Held) Held {
	notes := slices.Clone(a.Notes)
	for _, n := range b.Notes {
		if !slices.ContainsFunc(notes, func(o register.Note) bool { return o.Stamp == n.Stamp && o.Node == n.Node }) {
			notes = append(notes, n)
		}
	}
	slices.SortFunc(notes, func(x, y register.Note) int {
		return cmp.Or(cmp.Compare(x.Stamp, y.Stamp), cmp.Compare(x.Node, y.Node))
	})
	if b.Chosen && !a.Chosen || a.Chosen == b.Chosen && b.Value.Stamp > a.Value.Stamp {
		a = b
	}
	a.Notes = notes
	return a
}

// busy says what is not known to be decided, or decided and not finished, or nothing.
func (r *registers) busy() string {
	for _, id := range slices.Sorted(maps.Keys(r.copies)) {
		h := r.copies[id].held()
		switch {
		case r.n.w.c.Log == Disk && r.n.w.nodeOf(string(id)) != r.n:
			// It is on another node's disk; what is known here is nobody's business.
		case !h.Chosen && h.Value.Stamp > 0:
			return "has not learned what is decided of " + string(id)
		case h.Chosen && len(h.Notes) == 0 && !r.n.w.bereft(id):
			return "has not learned that " + string(id) + " is finished"
		}
	}
	return ""
}
