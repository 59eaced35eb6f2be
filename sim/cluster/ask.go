package cluster

import (
	"cmp"
	"maps"
	"slices"
	"time"

	register "assent/decision/paxos"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/paxos"
	"assent/protocol/quorum"
)

// call is a question to all nodes, whose answers are being collected.
type call struct {
	number uint64
	query  Query
	system paxos.Epoch
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
	r.called++
	number := r.called<<8 | uint64(r.n.Life) // an answer to an earlier life must not count
	c := &call{number: number, query: Query{Number: number, ID: id}, system: r.system(id), got: map[protocol.NodeID]Page{}, then: then}
	r.calls[number] = c
	r.repeat(c)
	r.n.After(askTime, func() { r.settle(number, false) })
}

// repeat asks those who have not answered, until the call is over.
func (r *registers) repeat(c *call) {
	if r.calls[c.number] == c {
		r.inquire(c)
		r.n.After(askAgain, func() { r.repeat(c) })
	}
}

// inquire asks those who have not answered. A node that is not a member asks in vain.
func (r *registers) inquire(c *call) {
	if r.outside() {
		return
	}
	var asked []protocol.NodeID
	for _, s := range c.system.Joint() {
		for _, m := range s.Members {
			if _, ok := c.got[m.Node]; !ok && !slices.Contains(asked, m.Node) {
				asked = append(asked, m.Node)
				r.say(string(c.query.ID), m.Node, c.system.Number, c.query)
			}
		}
	}
}

// asked answers a question. What was delivered before is stable.
func (r *registers) asked(from protocol.NodeID, q Query) {
	page := Page{Number: q.Number}
	for _, id := range slices.Sorted(maps.Keys(r.copies)) {
		if h := r.copies[id].held(); (q.ID == "" || q.ID == id) && (h.Chosen || h.Value.Stamp > 0) {
			page.States = append(page.States, h)
		}
	}
	r.say(string(q.ID), from, r.entered.epoch.Number, page)
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
	if c.system.Joint().Read(answer) == quorum.Reached {
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
