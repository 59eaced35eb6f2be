package cluster

import (
	"maps"
	"slices"
	"strings"

	"assent/decision"
	register "assent/decision/paxos"
	"assent/engine"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/paxos"
	"assent/sim"
	"assent/trace"
)

// registers is a node's part of the decision log: the copies that it holds, which an engine.Batch steps, and
// the proposals that it has under way. It is the hands that decision/paxos has live.
type registers struct {
	n     *node
	actor *sim.Actor // of the life that the batch is of, without a machine
	batch *engine.Batch
	// inbox are events that wait for the batch, which takes together what comes at about the same time.
	inbox   []delivery
	numbers []uint64 // of the packets of events that the batch was given and has not stepped
	stamp   uint64

	// known is the epoch by which the node proposes, entered the one that its copies have entered. Early is what
	// was said in one that is not known yet.
	known, entered roster
	early          []sim.Packet
	// moving is the move to other members, where this node leads. Inventory is what the node held when the epoch of both had
	// begun, once it is taken, without what it has seen to.
	moving    *move
	taken     bool
	inventory []commit.TransactionID
	// faulted says that it is not known any more what was begun in this life.
	faulted bool
	keys    map[string]bool // of the records on disk

	copies    map[commit.TransactionID]*copied
	proposals map[commit.TransactionID]*proposal
	calls     map[uint64]*call
	called    uint64
}

// delivery is an event for a copy, or something to do when all that was delivered before is stable.
type delivery struct {
	id     commit.TransactionID
	event  protocol.Event
	number uint64
	then   func()
}

// copied is a copy in a node's table.
type copied struct {
	register.Copy
	r *registers
	// holders are those that have said, in this epoch, that they hold what is decided.
	holders []protocol.NodeID
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
	r := &registers{n: n, actor: n.Actor("", nil, nil), copies: map[commit.TransactionID]*copied{},
		proposals: map[commit.TransactionID]*proposal{}, calls: map[uint64]*call{}, keys: map[string]bool{}}
	r.batch = engine.NewBatch(engine.BatchConfig{Node: n.ID, Hands: r, Observer: r})
	if n.w.c.Log == Disk {
		r.known = r.roster(register.Epoch{Number: 1})
		r.entered = r.known
	}
	for _, key := range slices.Sorted(maps.Keys(records)) { // acceptor comes before chosen
		r.keys[key] = true
		if v, ok := records[key].(EpochRecord); ok {
			r.entered = r.roster(v.Epoch)
			r.known = r.entered
			continue
		}
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
		p.actor.Stop()
	}
}

func (r *registers) alive() bool { return r.actor.Alive() }

// next returns a stamp that nobody draws twice: the time, later than all that were drawn here, ending in the
// node's number.
func (r *registers) next() uint64 {
	r.stamp = max(uint64(r.n.w.Clock().UnixNano()), r.stamp+register.MaxMembers)&^(register.MaxMembers-1) | uint64(r.n.index)
	return r.stamp
}

// add lets an event wait for the disk.
func (r *registers) add(d delivery) {
	r.inbox = append(r.inbox, d)
	if len(r.inbox) > 1 {
		return
	}
	r.n.After(r.n.w.Pause("disk", r.n.ID), r.flush)
}

// flush gives the batch all that waits, and waits for its goroutine: so everything still happens in one
// order.
func (r *registers) flush() {
	together := r.inbox
	r.inbox = nil
	r.batch.Then(func() {
		for _, d := range together {
			if d.then != nil {
				r.batch.Then(d.then)
				continue
			}
			r.numbers = append(r.numbers, d.number)
			r.batch.Deliver(string(d.id), d.event)
		}
	})
	r.batch.Wait()
}

// Machine implements engine.BatchHands.
func (r *registers) Machine(name string) protocol.Machine {
	if name == fenceName {
		return fence{r}
	}
	return r.copy(commit.TransactionID(name))
}

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
			case paxos.AcceptorRecord[register.Value], register.ForgottenRecord, EpochRecord:
				hard = true
			case register.NoteRecord:
				hard = hard || v.Forced
			}
			if v, ok := w.Record.(EpochRecord); ok && v.Blank {
				for _, key := range slices.Sorted(maps.Keys(r.keys)) {
					writes = append(writes, protocol.Write{Key: key})
				}
				clear(r.keys)
			}
			key := steps[i].Name + "/" + w.Key
			r.keys[key] = true
			writes = append(writes, protocol.Write{Key: key, Record: w.Record})
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
			r.answered(r.n.ID, commit.TransactionID(step.Name), m.Message)
		case r.serves():
			r.n.transmit(step.Name, to.ID, date(r.dated(m.Message), m.Message))
		}
	}
}

// dated returns the epoch of which an acceptor's answer is: the one that the copies have entered.
func (r *registers) dated(m protocol.Message) uint64 {
	if r.n.w.c.flaw == votesLate {
		switch said := paxos.Say[register.Value](m); {
		case said.Phase1b != nil:
			return said.Phase1b.Ballot.Epoch
		case said.Phase2b != nil:
			return said.Phase2b.Ballot.Epoch
		}
	}
	return r.entered.epoch.Number
}

// Flush implements engine.BatchHands.
func (r *registers) Flush() {}

// Observe implements trace.Observer, for the batch.
func (r *registers) Observe(e trace.Event) {
	if !r.actor.Alive() {
		return
	}
	switch e.Kind {
	case trace.Deliver:
		r.n.w.Arriving, r.numbers = r.numbers[0], r.numbers[1:]
		defer func() { r.n.w.Arriving = 0 }()
	case trace.Send:
		if to := r.n.w.nodeOf(string(e.Peer)); to != nil {
			e.Peer = to.ID // it is addressed to a life
		}
	}
	r.actor.Observe(e)
}

// tell says to all other members what is known here.
func (r *registers) tell(id commit.TransactionID, message protocol.Message) {
	for _, o := range r.known.others {
		r.say(string(id), o, r.known.epoch.Number, message)
	}
}

// finished notes that a transaction is finished, unforced.
func (r *registers) finished(id commit.TransactionID) {
	raw, err := decision.Note{Kind: decision.Finished, Time: r.n.w.Clock()}.Normal().Encode()
	r.n.w.Fail(err)
	a := register.Annotate{Note: register.Note{Stamp: r.next(), Node: protocol.NodeID(r.n.prefix), Note: raw}}
	r.add(delivery{id: id, event: protocol.Receive{From: r.n.ID, Message: a}})
	if r.n.w.c.Log == Paxos {
		r.tell(id, a)
	}
}

// busy says what is not known to be decided, or decided and not finished, or nothing.
func (r *registers) busy() string {
	if r.outside() {
		return "" // nobody tells it
	}
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
