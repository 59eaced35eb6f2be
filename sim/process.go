package sim

import (
	"time"

	"assent/engine"
	"assent/protocol"
	"assent/trace"
)

// Process is a node that crashes and comes back, for those who simulate. It is for one goroutine.
type Process struct {
	Run *Run
	ID  protocol.NodeID
	// Up says that it runs, Since when it came up last, and Life how often it has come up.
	Up    bool
	Life  int
	Since time.Duration
	Fuse  Fuse
	// Die takes the process down within a step, when so many of the step's messages have left.
	Die func(sent int)
}

// Rise notes that the process comes up.
func (p *Process) Rise() {
	p.Life++
	p.Up, p.Since = true, p.Run.Line.Now()
}

// Fall notes that the process goes down. sent says where within a step that falls; it is negative between steps.
func (p *Process) Fall(sent int) {
	p.Up = false
	e := trace.Event{Node: p.ID, Kind: trace.Crash}
	if sent >= 0 {
		e.Value = trace.Sent(sent)
	}
	p.Run.Tell(e)
}

// After plans do, which a crash of the process prevents. A clock that drifts makes it later or sooner.
func (p *Process) After(d time.Duration, do func()) (cancel func()) {
	life := p.Life
	if f := p.Run.Active(Drift, p.ID); f != nil {
		p.Run.Fire(Drift)
		d = d * 100 / time.Duration(max(f.Rate, 1))
	}
	return p.Run.Line.After(d, func() {
		if p.Up && p.Life == life {
			do()
		}
	})
}

// Work plans a call of a store or a log, and then what follows from its answer: a crash may fall before the call, or
// between the call and what follows.
func (p *Process) Work(scope string, call func() (then func())) {
	p.After(p.Run.Pause(scope, p.ID), func() {
		if then := call(); p.Up && then != nil {
			p.After(p.Run.Pause(scope, p.ID), then)
		}
	})
}

// Actor runs one machine in one life of a process: it is the clock and the observer of its loop.
type Actor struct {
	p     *Process
	life  int
	scope string
	loop  *engine.Loop
}

var (
	_ engine.Clock   = (*Actor)(nil)
	_ trace.Observer = (*Actor)(nil)
)

// Actor has the process run a machine. Where there is none, what is observed is of another executor's machines.
func (p *Process) Actor(scope string, m protocol.Machine, hands engine.Hands) *Actor {
	a := &Actor{p: p, life: p.Life, scope: scope}
	if m != nil {
		a.loop = engine.New(engine.Config{Scope: scope, Node: p.ID, Machine: m, Hands: hands, Clock: a, Observer: a})
	}
	return a
}

// Alive reports whether the actor's life of the process is not over.
func (a *Actor) Alive() bool { return a.p.Up && a.p.Life == a.life }

// Deliver gives the machine an event, unless its process is down.
func (a *Actor) Deliver(ev protocol.Event) {
	if a.Alive() {
		a.loop.Deliver(ev)
	}
}

// Stop ends the machine.
func (a *Actor) Stop() { a.loop.Stop() }

// Transmit hands a machine's message to the network, unless its process is down.
func (a *Actor) Transmit(to protocol.NodeID, message protocol.Message) {
	if a.Alive() {
		a.p.Run.Carry(Packet{Scope: a.scope, From: a.p.ID, To: to, Message: message})
	}
}

// AfterFunc implements engine.Clock.
func (a *Actor) AfterFunc(d time.Duration, f func()) (stop func()) { return a.p.After(d, f) }

// Observe implements trace.Observer: it passes events on, and is where the process dies within a step.
func (a *Actor) Observe(e trace.Event) {
	if !a.Alive() {
		return
	}
	if sent, now := a.p.Fuse.Blows(e); now {
		a.p.Run.Fire(Crash)
		if a.loop != nil {
			a.loop.Stop()
		}
		a.p.Die(sent)
		return
	}
	switch e.Kind {
	case trace.Send:
		if e.Peer != a.p.ID { // what it tells itself is not on the network
			e.Message = a.p.Run.Net.Number()
		}
	case trace.Deliver:
		if _, ok := e.Value.(protocol.Receive); ok {
			e.Message = a.p.Run.Arriving
		}
	}
	a.p.Run.Tell(e)
}
