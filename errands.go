package assent

import (
	"sync"
	"sync/atomic"
	"time"

	"assent/protocol"
	"assent/protocol/commit"
)

// errands are what the machines of a transaction want while somebody drives it: one goroutine that gives
// the machines events, asks all branches that can be asked without waiting, waits for one answer after the
// other, and asks the register. Nobody else is woken for that.
type errands struct {
	mu      sync.Mutex
	drivers int // how many are giving the machines an event at this moment
	wanted  wanted
}

// wanted is what follows from an event.
type wanted struct {
	branches []*participant // something is to be done in them
	proposal *commit.Propose
}

// take leaves p to whoever drives. It reports false where nobody does.
func (e *errands) take(p *participant) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.drivers == 0 {
		return false
	}
	e.wanted.branches = append(e.wanted.branches, p)
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
		proposal := t.runErrands(t.ask(w.branches))
		if w.proposal != nil {
			proposal = w.proposal
		}
		if ev = nil; proposal != nil {
			ev = t.propose(*proposal)
		}
	}
}

// errand is a branch that was asked, and whose answer somebody must wait for.
type errand struct {
	p      *participant
	answer func() protocol.Value
	begun  atomic.Bool // somebody waits
}

// ask asks the branches. Workers ask those that do not answer later, but for the last of them: that is
// the first errand.
func (t *transaction) ask(branches []*participant) []*errand {
	var asked []*errand
	var slow *participant
	for _, p := range branches {
		if answer := p.ask(); answer != nil {
			asked = append(asked, &errand{p: p, answer: answer})
			continue
		}
		if slow != nil {
			t.m.spawn(slow.work)
		}
		slow = p
	}
	if slow != nil {
		asked = append([]*errand{{p: slow, answer: func() protocol.Value { return slow.do(slow.next()) }}}, asked...)
	}
	return asked
}

// runErrands waits for the answers and gives them to the machines. It returns the proposal that follows from
// the last.
func (t *transaction) runErrands(asked []*errand) *commit.Propose {
	if len(asked) > 1 {
		defer t.shareLater(asked)()
	}
	for i, e := range asked {
		if e.begun.Swap(true) {
			continue
		}
		input := e.answer() // outside of during: what comes meanwhile must not wait for it
		w := t.errands.during(func() { e.settle(input) })
		for _, p := range w.branches {
			t.m.spawn(p.work)
		}
		if e.p.hasMore() {
			t.m.spawn(e.p.work)
		}
		if w.proposal != nil && i == len(asked)-1 {
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

// shareTime is how long the driver waits alone before workers wait for the other answers.
const shareTime = 20 * time.Millisecond

// shareLater has workers wait for those answers that nobody waits for yet, if shareTime passes before
// the returned function is called: one branch that hangs must not keep the others' votes from the
// coordinator.
func (t *transaction) shareLater(asked []*errand) (stop func()) {
	timer := time.AfterFunc(shareTime, func() {
		for _, e := range asked {
			t.m.spawn(func() {
				if !e.begun.Swap(true) {
					e.settle(e.answer())
					e.p.work()
				}
			})
		}
	})
	return func() { timer.Stop() }
}
