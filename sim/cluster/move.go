package cluster

import (
	"maps"
	"slices"
	"time"

	register "assent/decision/paxos"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/paxos"
	"assent/protocol/quorum"
)

// The registers move to other members in three epochs, as in decision/paxos: each of the members before goes through what
// it held when the epoch of both had begun. What is decided it teaches the members after; what is not, whoever
// leads settles.

// move is how far the members before have come, as the leader knows.
type move struct {
	number uint64
	done   map[protocol.NodeID]bool
	// met is when a transaction was first told to be unsettled.
	met  map[commit.TransactionID]time.Duration
	over bool
}

// movePatience is how long a proposer is given that has had something accepted when the epoch began.
const movePatience = 250 * time.Millisecond

// moved goes on with the move in that epoch, and reports whether it is over.
func (r *registers) moved(number uint64) bool {
	m := r.moving
	if m == nil || m.number != number {
		m = &move{number: number, done: map[protocol.NodeID]bool{}, met: map[commit.TransactionID]time.Duration{},
			over: r.n.w.c.flaw == movesUnread}
		r.moving = m
	}
	if r.known.epoch.Number != number || r.outside() {
		return false
	}
	for _, v := range r.known.system.System.Members {
		if !m.done[v.Node] && !m.over {
			r.say("", v.Node, number, Survey{})
		}
	}
	return m.over
}

// surveyed takes how far a member is.
func (r *registers) surveyed(from protocol.NodeID, a Inventory) {
	m := r.moving
	if m == nil || m.over || m.number != r.known.epoch.Number {
		return
	}
	if a.Left == 0 {
		m.done[from] = true
	}
	for _, h := range a.Unsettled {
		since, met := m.met[h.ID]
		if !met {
			m.met[h.ID] = r.n.w.Line.Now()
		} else if r.n.w.Line.Now()-since >= movePatience { // its own proposer has not come to an end
			r.n.w.Reach("the registers move: what was accepted is settled")
			r.decide(h.ID, h.Value, func(register.Value) {})
		}
	}
	if m.over = r.known.system.Fenced(func(n protocol.NodeID) bool { return m.done[n] }); m.over {
		r.n.w.Reach("the registers move")
		r.n.tend()
	}
}

// survey tells how far this node is with its inventory: what it held when the epoch of both had begun. What it tells
// is stable.
func (r *registers) survey(from protocol.NodeID) {
	if !r.rest() || r.entered.system.Next == nil {
		return
	}
	if !r.taken {
		r.taken, r.inventory = true, slices.Sorted(maps.Keys(r.copies))
	}
	var a Inventory
	r.inventory = slices.DeleteFunc(r.inventory, func(id commit.TransactionID) bool { return r.seenTo(r.copies[id]) })
	a.Left = len(r.inventory)
	for _, id := range r.inventory {
		if h := r.copies[id].held(); !h.Chosen {
			a.Unsettled = append(a.Unsettled, h)
		}
	}
	r.say("", from, r.entered.epoch.Number, a)
}

// seenTo reports whether nothing is left to do about the copy: a write quorum of the members after holds what is
// decided, or nothing was ever accepted.
func (r *registers) seenTo(c *copied) bool {
	if !c.Chosen {
		return c.Acceptor == nil || c.Acceptor.Value.Stamp == 0
	}
	return r.entered.system.Next.Writing(func(n protocol.NodeID) quorum.Answer {
		if n == r.n.ID || slices.Contains(c.holders, n) {
			return quorum.Granted
		}
		return quorum.Silent
	}) == quorum.Reached
}

// teach tells the members after what is decided, in an epoch of both, until each has said that it holds it: it does
// for the feeds of decision/paxos.
func (r *registers) teach() {
	if r.known.system.Next == nil || r.known.epoch.Number != r.entered.epoch.Number || !r.serves() {
		return
	}
	for _, v := range r.known.system.Next.Members {
		var t Teach
		for _, id := range slices.Sorted(maps.Keys(r.copies)) {
			if c := r.copies[id]; c.Chosen && v.Node != r.n.ID && !slices.Contains(c.holders, v.Node) {
				t.States = append(t.States, c.held())
			}
		}
		if len(t.States) > 0 {
			r.say("", v.Node, r.known.epoch.Number, t)
		}
	}
}

// taught takes what another teaches, and says so when it is stable.
func (r *registers) taught(from protocol.NodeID, t Teach) {
	var a Taught
	for _, h := range t.States {
		a.IDs = append(a.IDs, h.ID)
		r.add(delivery{id: h.ID, event: protocol.Receive{From: from, Message: register.Learn{Chosen: true, Value: h.Value, Notes: h.Notes}}})
	}
	r.add(delivery{then: func() {
		if r.rest() {
			r.say("", from, r.entered.epoch.Number, a)
		}
	}})
}

// holds notes that another holds what is decided of these.
func (r *registers) holds(from protocol.NodeID, a Taught) {
	for _, id := range a.IDs {
		if c := r.copies[id]; c != nil && !slices.Contains(c.holders, from) {
			c.holders = append(c.holders, from)
		}
	}
}

// rest makes stable what was left to be forced with what comes later. It reports false where the disk fails.
func (r *registers) rest() bool {
	return r.alive() && (len(r.n.soft) == 0 || r.n.force(registerPart, nil) == nil)
}

// anew reports whether this node comes back in the epoch as a new member, and drops what it holds from the time before:
// whatever counts of that the others have.
func (r *registers) anew(z roster) bool {
	was := r.entered
	stays := len(was.own) > 0 && len(z.own) > 0 && was.own[0].Since == z.own[0].Since && r.n.w.c.flaw != dropsHeld
	if len(z.own) == 0 || was.epoch.Number == 0 || stays {
		return false
	}
	for id := range r.copies {
		r.faulted = r.faulted || string(ownerOf(id)) == r.n.prefix // it is not known here any more what was begun
	}
	if len(r.copies) > 0 {
		r.n.w.Reach("who comes back drops what it held")
	}
	clear(r.copies)
	return true
}

// Step implements protocol.Machine.
func (f fence) Step(ev protocol.Event, out *protocol.Effects) {
	r := f.r
	e, ok := ev.(protocol.Receive)
	if !ok {
		return
	}
	m, ok := e.Message.(Entering)
	if !ok || m.Epoch.Number <= r.entered.epoch.Number {
		return
	}
	z := r.roster(m.Epoch)
	blank := r.anew(z)
	r.entered, r.taken, r.inventory = z, false, nil
	for _, c := range r.copies {
		c.holders = nil
	}
	out.Put(paxos.EpochKey, EpochRecord{Epoch: m.Epoch, Blank: blank})
}
