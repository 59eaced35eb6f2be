package stack

import (
	"time"

	"assent/engine"
	"assent/protocol"
	"assent/sim"
	"assent/trace"
)

// process is what coordinators and sites have in common: they crash and come back.
type process struct {
	w    *world
	id   protocol.NodeID
	disk *medium
	up   bool
	life int // how often it has come up
	// since is when it came up last.
	since time.Duration
	fuse  sim.Fuse
	// ailment is the fault that the next forced write will meet, and damage puts the disk right again
	// that has made the process refuse to start.
	ailment *sim.Fault
	corrupt bool // the next start finds a changed record
	repair  func() error
	role    role
}

// role is what a process does.
type role interface {
	// open brings the process up over its disk, and close lets go of what it held. dir is where the
	// disk holds what is forced.
	open() error
	close()
	dir() string
	// receive takes a packet.
	receive(p sim.Packet)
}

// start brings the process up. A damaged disk keeps it down.
func (p *process) start() {
	if p.up || p.repair != nil {
		return
	}
	if p.corrupt {
		p.corrupt = false
		repair, err := p.disk.corrupt(p.role.dir(), p.w.chance(uint64(p.w.line.Now())))
		if err != nil {
			p.w.fail(err)
			return
		}
		if p.repair = repair; repair != nil {
			p.w.tell(trace.Event{Node: p.id, Kind: trace.Damage, Value: sim.Corruption.String()})
		}
	}
	p.w.date.Store(int64(p.w.line.Now()))
	p.life++
	p.up, p.since = true, p.w.line.Now()
	err := p.role.open()
	switch {
	case err != nil && p.repair != nil:
		p.w.fire(sim.Corruption)
		p.up = false
		p.role.close()
	case err != nil:
		p.w.fail(err)
	case p.repair != nil:
		p.w.broken(claimDamage, string(p.id)+" has started over a changed record")
	}
}

// crash takes the process down. sent says where within a step it falls; it is negative between steps.
// percent says how much is kept of what a failed force has left.
func (p *process) crash(sent, percent int) {
	if !p.up {
		return
	}
	p.up = false
	e := trace.Event{Node: p.id, Kind: trace.Crash}
	if sent >= 0 {
		e.Value = trace.Sent(sent)
	}
	p.w.tell(e)
	// The step that is cut off may have been begun by a call of the store: that one ends first.
	p.w.line.After(0, func() {
		after, err := p.disk.crashed(p.role.dir(), percent)
		if err != nil {
			p.w.fail(err)
			return
		}
		p.disk.ail(nil)
		p.role.close()
		p.disk = after
		p.w.line.After(p.w.outage(p.id), p.start)
	})
}

// after plans do, which a crash of the process prevents. A clock that drifts makes it later or sooner.
func (p *process) after(d time.Duration, do func()) (cancel func()) {
	life := p.life
	return p.w.line.After(p.drift(d), func() {
		if p.up && p.life == life {
			p.w.date.Store(int64(p.w.line.Now()))
			do()
		}
	})
}

func (p *process) drift(d time.Duration) time.Duration {
	if f := p.w.active(sim.Drift, p.id); f != nil {
		p.w.fire(sim.Drift)
		return d * 100 / time.Duration(max(f.Rate, 1))
	}
	return d
}

// work plans a call of the store or the log, and then what follows from its answer: a crash may fall
// before the call, or between the call and what follows.
func (p *process) work(scope string, call func() (then func())) {
	p.after(p.w.pause(scope, p.id), func() {
		then := call()
		if p.up && then != nil {
			p.after(p.w.pause(scope, p.id), then)
		}
	})
}

// force runs a call that forces the disk, among whatever ails it, and reports the fault that it met. A
// fault waits for a call that fails because of it. From then on the disk ails until the process is down, or
// the caller says otherwise: what the store's own goroutines try next must not depend on who is quicker.
func (p *process) force(call func() error) (met *sim.Fault, err error) {
	p.disk.ail(p.ailment)
	err = call()
	if p.ailment != nil && err != nil {
		met, p.ailment = p.ailment, nil
		p.w.fire(met.Class)
		return met, err
	}
	p.disk.ail(nil)
	return nil, err
}

// send sends a message that is no machine's: loops tell of their own.
func (p *process) send(scope string, to protocol.NodeID, message protocol.Message) {
	p.w.tell(trace.Event{Scope: scope, Node: p.id, Kind: trace.Send, Peer: to, Value: message, Message: p.w.net.Number()})
	p.w.send(sim.Packet{Scope: scope, From: p.id, To: to, Message: message})
}

// actor runs one machine in a process: it is the clock and the observer of its loop.
type actor struct {
	p     *process
	life  int
	scope string
	loop  *engine.Loop
}

var (
	_ engine.Clock   = (*actor)(nil)
	_ trace.Observer = (*actor)(nil)
)

func (p *process) actor(scope string, m protocol.Machine, hands engine.Hands) *actor {
	a := &actor{p: p, life: p.life, scope: scope}
	a.loop = engine.New(engine.Config{Scope: scope, Node: p.id, Machine: m, Hands: hands, Clock: a, Observer: a})
	return a
}

func (a *actor) alive() bool { return a.p.up && a.p.life == a.life }

// deliver gives the machine an event, unless its process is gone.
func (a *actor) deliver(ev protocol.Event) {
	if a.alive() {
		a.loop.Deliver(ev)
	}
}

// AfterFunc implements engine.Clock.
func (a *actor) AfterFunc(d time.Duration, f func()) (stop func()) { return a.p.after(d, f) }

// Observe implements trace.Observer: it passes events on, and is where the process dies within a step.
func (a *actor) Observe(e trace.Event) {
	if !a.alive() {
		return
	}
	if sent, now := a.p.fuse.Blows(e); now {
		a.p.w.fire(sim.Crash)
		a.loop.Stop()
		a.p.crash(sent, 0)
		return
	}
	switch e.Kind {
	case trace.Send:
		e.Message = a.p.w.net.Number()
	case trace.Deliver:
		if _, ok := e.Value.(protocol.Receive); ok {
			e.Message = a.p.w.arriving
		}
	}
	a.p.w.tell(e)
}

// transmit hands a machine's message to the network.
func (a *actor) transmit(to protocol.NodeID, message protocol.Message) {
	if a.alive() {
		a.p.w.send(sim.Packet{Scope: a.scope, From: a.p.id, To: to, Message: message})
	}
}
