package stack

import (
	"fmt"
	"math/rand/v2"
	"time"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/sim/bank"
)

// task is a piece of work that a client has: what it wants to do where. It is drawn from the seed and
// its number alone, so that leaving out others does not change it.
type task struct {
	number int
	at     time.Duration
	parts  []bank.Part
	audit  bool // it reads everything
}

// draw draws the task with that number.
func (w *world) draw(number int) task {
	d := rand.New(rand.NewPCG(w.Plan.Seed, uint64(number)+1000))
	k := task{number: number, at: time.Duration(d.Int64N(int64(w.Plan.Safety / 3)))}
	if d.IntN(4) == 0 {
		k.at = time.Duration(d.Int64N(int64(w.Plan.Safety)))
	}
	if d.IntN(6) == 0 {
		k.audit = true
		for _, s := range w.sites {
			k.parts = append(k.parts, bank.Part{Node: s.ID})
			for a := range w.stack.Accounts {
				last := &k.parts[len(k.parts)-1]
				last.Operations = append(last.Operations, bank.Operation{Account: a})
			}
		}
		return k
	}
	order := d.Perm(len(w.sites))
	amount := int64(1 + d.IntN(30))
	n := min(1+d.IntN(3), len(order))
	for i, at := range order[:n] {
		p := bank.Part{Node: w.sites[at].ID}
		change := -amount * int64(n-1)
		if i > 0 {
			change = amount
		}
		a := d.IntN(w.stack.Accounts)
		switch {
		case n == 1: // within one site
			p.Operations = []bank.Operation{{Account: a, Change: -amount}, {Account: (a + 1) % w.stack.Accounts, Change: amount}}
			if w.stack.Accounts == 1 {
				p.Operations = []bank.Operation{{Account: a}}
			}
		default:
			p.Operations = []bank.Operation{{Account: a, Change: change}}
		}
		if d.IntN(20) == 0 {
			p.Operations = append(p.Operations, bank.Operation{Spoil: true})
		}
		k.parts = append(k.parts, p)
	}
	if n < len(order) && d.IntN(3) == 0 { // and a look at somebody else's
		k.parts = append(k.parts, bank.Part{Node: w.sites[order[n]].ID, Operations: []bank.Operation{{Account: d.IntN(w.stack.Accounts)}}})
	}
	return k
}

// job is a task's attempt at a coordinator: a transaction.
type job struct {
	c       *coordinator
	task    task
	id      commit.TransactionID
	attempt int
	waiting map[protocol.NodeID]bool
	sum     int64
	// begun says that the coordinator has been asked to commit, or to abort.
	begun bool
}

const (
	// workTime is how long a client waits for a site to do its work.
	workTime = time.Second
	// attempts is how often a task is tried that was refused a lock.
	attempts = 3
)

// begin begins a transaction for the task, as soon as the coordinator is up.
func (c *coordinator) begin(k task, attempt int) {
	if !c.Up {
		c.w.Line.After(200*time.Millisecond, func() { c.begin(k, attempt) })
		return
	}
	j := &job{c: c, task: k, attempt: attempt, waiting: map[protocol.NodeID]bool{}}
	j.id = commit.TransactionID(fmt.Sprintf("T%d-%d", k.number+1, attempt))
	c.jobs[j.id] = j
	c.w.book.Begin(j.id, k.parts, len(k.parts) == 1)
	c.w.homes[j.id] = c.log.Owner()
	for _, p := range k.parts {
		j.waiting[p.Node] = true
		c.w.Say(string(j.id), c.ID, p.Node, Work{ID: j.id, Owner: c.log.Owner(), Operations: p.Operations, Sent: int64(c.w.Line.Now())})
	}
	c.After(workTime, func() { j.begin(true) })
}

// worked takes a site's answer.
func (j *job) worked(from protocol.NodeID, m bank.Worked) {
	if j.begun || !j.waiting[from] {
		return
	}
	delete(j.waiting, from)
	for _, v := range m.Values {
		j.sum += v
	}
	if !m.Done || len(j.waiting) == 0 {
		if !m.Done {
			j.c.w.Reach("work refused: " + m.Reason)
		}
		j.begin(!m.Done)
	}
}

// begin asks the coordinator to commit, or to abort.
func (j *job) begin(abort bool) {
	if j.begun {
		return
	}
	j.begun = true
	among := make([]protocol.NodeID, len(j.task.parts))
	for i, p := range j.task.parts {
		among[i] = p.Node
	}
	t := j.c.coordination(j.id, among)
	if abort {
		t.actor.Deliver(protocol.Input{Value: commit.Cancel{Reason: "the work could not be done"}})
		return
	}
	t.actor.Deliver(protocol.Start{})
}

// told hears how the transaction ends.
func (j *job) told(v commit.Concluded) {
	delete(j.c.jobs, j.id)
	w := j.c.w
	w.book.Told(j.id, v.Decision)
	switch {
	case v.Decision == commit.Commit && j.task.audit:
		w.book.Audited(j.sum, len(w.sites)*w.stack.Accounts)
	case v.Decision == commit.Abort && j.attempt < attempts:
		j.c.After(time.Duration(50<<j.attempt)*time.Millisecond, func() { j.c.begin(j.task, j.attempt+1) })
	}
}
