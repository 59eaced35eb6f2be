package assent

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"assent/protocol"
	"assent/protocol/commit"
)

// errands are what the machines of a transaction want while somebody drives it: one goroutine that gives
// the machines events, waits for the answers of the branches that were asked meanwhile, one after the
// other, and asks the register. Nobody else is woken for that.
type errands struct {
	mu      sync.Mutex
	drivers int // how many are giving the machines an event at this moment
	wanted  wanted
}

// wanted is what follows from an event.
type wanted struct {
	answers  []*errand
	calls    *calls // of the answers
	proposal *commit.Propose
}

// calls are requests to several branches that have one context: that of a phase. What ends one of them before
// its time, a rollback, ends the others just as well.
type calls struct {
	ctx    context.Context
	cancel context.CancelFunc
	left   atomic.Int32
	beside sync.WaitGroup // goroutines that wait for answers and are no workers
}

// begin adds a call. The first one sets for how long all may take.
func (c *calls) begin(life context.Context, timeout time.Duration) context.Context {
	if c.left.Load() == 0 { // none is under way
		c.ctx, c.cancel = context.WithTimeout(life, timeout)
	}
	c.left.Add(1)
	return c.ctx
}

// end ends a call. The last one releases the context.
func (c *calls) end() {
	if c.left.Add(-1) == 0 {
		c.cancel()
	}
}

// errand is a branch that was asked, and whose answer somebody must wait for.
type errand struct {
	p      *participant
	answer func() protocol.Value
	begun  atomic.Bool // somebody waits
}

// take asks p's branch and leaves it to whoever drives to wait for the answer. It reports false where
// nobody drives, or the branch cannot be asked without waiting: unless it is the only one, then the driver
// has nothing else to do.
func (e *errands) take(p *participant) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.drivers == 0 {
		return false
	}
	if e.wanted.calls == nil {
		e.wanted.calls = &calls{}
	}
	answer := p.ask(e.wanted.calls)
	if answer == nil && p.t.single {
		answer = func() protocol.Value { return p.do(p.next()) }
	}
	if answer == nil {
		return false
	}
	e.wanted.answers = append(e.wanted.answers, &errand{p: p, answer: answer})
	return true
}

// takeProposal leaves p to whoever drives. It reports false where nobody does.
func (e *errands) takeProposal(p commit.Propose) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.drivers == 0 || e.wanted.proposal != nil {
		return false
	}
	e.wanted.proposal = &p
	return true
}

// during calls deliver, which must not wait, and returns what is wanted then.
func (e *errands) during(deliver func()) wanted {
	e.mu.Lock()
	e.drivers++
	e.mu.Unlock()
	deliver()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.drivers--
	w := e.wanted
	e.wanted = wanted{}
	return w
}

// drive gives the coordinator ev and carries out what follows from it, as far as that needs nobody else's
// goroutine. It is for workers: it waits for branches and for the register.
func (t *transaction) drive(ev protocol.Event) {
	for ev != nil {
		w := t.errands.during(func() { t.loop.Deliver(ev) })
		proposal := t.waitFor(w.answers, w.calls)
		if w.proposal != nil {
			proposal = w.proposal
		}
		if ev = nil; proposal != nil {
			ev = t.propose(*proposal)
		}
	}
}

// waitFor waits for the answers and gives them to the machines. It returns the proposal that follows from
// the last.
func (t *transaction) waitFor(answers []*errand, c *calls) *commit.Propose {
	if len(answers) > 1 {
		defer t.shareLater(answers, c)()
	}
	for i, e := range answers {
		if e.begun.Swap(true) {
			continue
		}
		input := e.answer() // outside of during: what comes meanwhile must not wait for it
		w := t.errands.during(func() { e.settle(input) })
		for _, other := range w.answers {
			if !t.m.spawn(other.finish) {
				other.finish() // soon, for its context has ended
			}
		}
		if e.p.hasMore() {
			t.m.spawn(e.p.work)
		}
		if w.proposal != nil && i == len(answers)-1 {
			return w.proposal
		} else if w.proposal != nil {
			t.m.spawn(func() { t.drive(t.propose(*w.proposal)) })
		}
	}
	return nil
}

// settle gives the answer to the branch's machine.
func (e *errand) settle(input protocol.Value) {
	e.p.returned()
	e.p.loop.Deliver(protocol.Input{Value: input})
}

// finish waits for the answer, where nobody does yet, and does what is left to do in the branch.
func (e *errand) finish() {
	if !e.begun.Swap(true) {
		e.settle(e.answer())
		e.p.work()
	}
}

// shareTime is how long the driver waits alone before workers wait for the other answers.
const shareTime = 20 * time.Millisecond

// shareLater has workers wait for those answers that nobody waits for yet, if shareTime passes before
// the returned function is called: one branch that hangs must not keep the others' votes from the
// coordinator.
func (t *transaction) shareLater(answers []*errand, c *calls) (stop func()) {
	c.beside.Add(1)
	timer := time.AfterFunc(shareTime, func() {
		defer c.beside.Done()
		for _, e := range answers {
			if !t.m.spawn(e.finish) {
				c.beside.Go(e.finish) // soon, for its context has ended, and beside one that hangs all the same
			}
		}
	})
	return func() {
		if timer.Stop() {
			c.beside.Done()
		}
		c.beside.Wait() // where Close waits for the workers, for those that wait in their place, too
	}
}
