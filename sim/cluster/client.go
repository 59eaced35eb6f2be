package cluster

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/membership"
	"assent/sim"
	"assent/sim/bank"
)

// task is a piece of work that a client has. It is drawn from the seed and its number alone, so that
// leaving out others does not change it.
type task struct {
	number int
	at     time.Duration
	parts  []bank.Part
	audit  bool // it reads everything
	change membership.Change
}

// draw draws the task with that number.
func (w *world) draw(number int) task {
	d := rand.New(rand.NewPCG(w.Plan.Seed, uint64(number)+1000))
	k := task{number: number, at: time.Duration(d.Int64N(int64(w.Plan.Safety / 3)))}
	if d.IntN(4) == 0 {
		k.at = time.Duration(d.Int64N(int64(w.Plan.Safety)))
	}
	switch d.IntN(8) {
	case 0:
		k.audit = true
		for _, n := range w.nodes[:len(w.c.Members)] {
			p := bank.Part{Node: n.ID}
			for a := range w.c.Accounts {
				p.Operations = append(p.Operations, bank.Operation{Account: a})
			}
			k.parts = append(k.parts, p)
		}
	case 1:
		k.change = membership.Change{Kind: membership.Set, Key: "key-" + strconv.Itoa(number), Value: "set"}
	default:
		k.parts = w.transfer(d)
	}
	return k
}

// transfer moves money from one node's store to others, now and then with a look at somebody else's.
func (w *world) transfer(d *rand.Rand) (parts []bank.Part) {
	order := d.Perm(len(w.c.Members))
	amount, n := int64(1+d.IntN(30)), min(2+d.IntN(2), len(order))
	for i, at := range order[:n] {
		p, change, a := bank.Part{Node: w.nodes[at].ID}, amount, d.IntN(w.c.Accounts)
		if i == 0 {
			change = -amount * int64(n-1)
		}
		if n == 1 { // within one store
			p.Operations = []bank.Operation{{Account: a, Change: -amount}}
			a, change = (a+1)%w.c.Accounts, amount
		}
		p.Operations = append(p.Operations, bank.Operation{Account: a, Change: change})
		if d.IntN(20) == 0 {
			p.Operations = append(p.Operations, bank.Operation{Spoil: true})
		}
		parts = append(parts, p)
	}
	if n < len(order) && d.IntN(3) == 0 {
		parts = append(parts, bank.Part{Node: w.nodes[order[n]].ID, Operations: []bank.Operation{{Account: d.IntN(w.c.Accounts)}}})
	}
	return parts
}

// assign gives the clients their work.
func (w *world) assign() {
	for number := range w.c.Work() {
		if slices.Contains(w.Plan.Skip, number) {
			continue
		}
		c := w.clients[protocol.NodeID("client"+strconv.Itoa(1+number%w.c.Clients))]
		switch {
		case number < w.c.Jobs:
			k := w.draw(number)
			w.pending++
			w.Line.After(k.at, func() { c.begin(k, 1) })
		case !still(w.Plan):
			k := w.drawChange(number)
			w.pending++
			w.Line.After(k.at, func() { c.alter(k) })
		}
	}
}

// client has work done by whichever node answers. It has no machine and no disk, and is never down.
type client struct {
	w     *world
	id    protocol.NodeID
	wants map[uint64]*want
	ref   uint64
}

// want is an attempt at a task.
type want struct {
	task    task
	attempt int
	ref     uint64
	id      commit.TransactionID // once it is known
	asks    int
	nothing int // how often the answer was that nothing is decided
	over    bool
}

const (
	// attempts is how often a task is tried that was aborted, or that no node has taken up.
	attempts = 3
	// begunTime is how long a client waits for a node to take up its work, patience how long for the end, and
	// askPause is the pause between two nodes that it then asks.
	begunTime = 1500 * time.Millisecond
	patience  = 2500 * time.Millisecond
	askPause  = 600 * time.Millisecond
	// mostNothing is how often a client asks about a transaction of which the answer is that nothing is
	// decided. That is no outcome, and where nobody was asked for a vote none may follow.
	mostNothing = 8
)

func newClient(w *world, id protocol.NodeID) *client {
	return &client{w: w, id: id, wants: map[uint64]*want{}}
}

// node returns the node that is asked at the given try.
func (c *client) node(k task, try int) protocol.NodeID {
	all := c.w.asks()
	return all[(k.number*7+int(c.w.Plan.Seed%97)+try)%len(all)].ID
}

// begin makes an attempt.
func (c *client) begin(k task, attempt int) {
	c.ref++
	x := &want{task: k, attempt: attempt, ref: c.ref}
	c.wants[x.ref] = x
	to := c.node(k, attempt)
	if len(k.parts) == 0 {
		c.w.Say("", c.id, to, Configure{Ref: x.ref, Change: k.change})
		c.w.Line.After(4*patience, func() { c.again(x) })
		return
	}
	c.w.Say("", c.id, to, Begin{Ref: x.ref, Parts: k.parts})
	c.w.Line.After(begunTime, func() {
		if x.id == "" {
			c.again(x)
		}
	})
}

// again ends an attempt, and makes another where one is left.
func (c *client) again(x *want) {
	switch {
	case x.over:
		return
	case x.attempt < attempts:
		c.w.Line.After(time.Duration(50<<x.attempt)*time.Millisecond, func() { c.begin(x.task, x.attempt+1) })
	default:
		c.w.pending--
	}
	x.over = true
}

// done ends the task.
func (c *client) done(x *want) {
	if !x.over {
		x.over = true
		c.w.pending--
	}
}

// receive takes a node's answer.
func (c *client) receive(p sim.Packet) {
	switch m := p.Message.(type) {
	case Begun:
		if x := c.wants[m.Ref]; x.id == "" && !x.over {
			x.id = m.ID
			c.w.Line.After(patience, func() { c.ask(x) })
		}
	case Told:
		for _, ref := range slices.Sorted(maps.Keys(c.wants)) {
			if x := c.wants[ref]; x.id == m.ID {
				c.told(x, m)
			}
		}
	case Configured:
		x := c.wants[m.Ref]
		if m.Result == membership.Applied {
			switch x.task.change.Kind {
			case membership.Set:
				c.w.keys = append(c.w.keys, x.task.change.Key)
			case membership.Leave:
				c.w.hasLeft(c.w.byID[x.task.change.Node])
			}
			c.done(x)
			return
		}
		c.again(x)
	}
}

// told hears how a transaction ends.
func (c *client) told(x *want, m Told) {
	if m.Decision == commit.Undecided {
		if x.nothing++; x.nothing >= mostNothing && c.w.healed {
			c.w.Reach("a client gives up: nothing is decided")
			c.done(x)
		}
		return
	}
	c.w.book.Told(m.ID, m.Decision)
	switch {
	case x.over:
	case m.Decision == commit.Abort:
		c.again(x)
	case x.task.audit && m.Sum > 0: // the node that ran it has told what it read
		c.w.book.Audited(m.Sum, len(c.w.c.Members)*c.w.c.Accounts)
		c.done(x)
	default:
		c.done(x)
	}
}

// ask asks one node after the other how the transaction ends.
func (c *client) ask(x *want) {
	if x.over {
		return
	}
	x.asks++
	c.w.Say(string(x.id), c.id, c.node(x.task, x.attempt+x.asks), Inquiry{ID: x.id})
	c.w.Line.After(askPause, func() { c.ask(x) })
}
