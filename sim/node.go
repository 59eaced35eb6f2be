package sim

import (
	"errors"
	"fmt"
	"time"

	"assent/engine"
	"assent/protocol"
	"assent/trace"
)

// node is a place where a machine runs: what of it outlives a crash.
type node struct {
	w       *world
	decl    protocol.Node
	index   int
	disk    *Disk
	life    *life // nil while the node is down
	began   bool  // it was started for the first time
	refused bool  // it has found its disk damaged and stays down
	fuse    Fuse
}

// life is a node from one crash to the next: the hands, the clock and the observer of its loop.
type life struct {
	n       *node
	machine protocol.Machine
	loop    *engine.Loop
	over    bool
	// arming is the name of the timer that is being armed; armed are those that are.
	arming string
	armed  map[string]func()
}

// errAiling says that the simulated disk has failed a write.
var errAiling = errors.New("the disk has failed")

var (
	_ engine.Hands   = (*life)(nil)
	_ engine.Clock   = (*life)(nil)
	_ trace.Observer = (*life)(nil)
)

// start makes the node run the machine, whose first event is given; nil for one that comes later.
func (n *node) start(m protocol.Machine, first protocol.Event) {
	n.began = true
	n.life = &life{n: n, machine: m, armed: map[string]func(){}}
	n.life.loop = engine.New(engine.Config{Node: n.decl.ID, Machine: m, Hands: n.life, Clock: n.life, Observer: n.life})
	if first != nil {
		n.life.loop.Deliver(first)
	}
}

// anew makes the machine anew after a crash, if there was one and the disk lets it.
func (n *node) anew() {
	if n.life == nil && !n.refused && n.began {
		n.revive()
	}
}

func (n *node) revive() {
	records, err := n.disk.Read()
	if err != nil {
		n.refused = true
		n.w.Fire(Corruption)
		return
	}
	made := n.decl.Anew
	if made == nil {
		made = n.decl.New[0]
	}
	n.start(made(), protocol.Recover{Records: records})
}

// crash takes the node down. sent says where within a step it falls; it is negative between steps.
func (n *node) crash(sent int) {
	if n.life == nil {
		return
	}
	n.life.over = true
	n.life.loop.Stop()
	for _, stop := range n.life.armed {
		stop()
	}
	n.life = nil
	e := trace.Event{Node: n.decl.ID, Kind: trace.Crash}
	if sent >= 0 {
		e.Value = trace.Sent(sent)
	}
	n.w.Tell(e)
}

// Force implements engine.Hands.
func (l *life) Force(writes []protocol.Write) error {
	if l.over {
		return errAiling
	}
	met, err := l.n.disk.Force(writes)
	switch {
	case met != 0:
		l.n.w.Fire(met)
		return errAiling
	case err != nil:
		l.n.w.Fail(fmt.Errorf("%w: node %s: %v", ErrSystem, l.n.decl.ID, err))
	}
	return err
}

// Send implements engine.Hands.
func (l *life) Send(to protocol.NodeID, message protocol.Message) {
	if l.over {
		return
	}
	if l.n.w.byID[to] == nil {
		l.n.w.Fail(fmt.Errorf("%w: %s sends %T to %q, which is no node", ErrSystem, l.n.decl.ID, message, to))
		return
	}
	if err := l.n.w.send(Packet{From: l.n.decl.ID, To: to, Message: message}); err != nil {
		l.n.w.Fail(fmt.Errorf("%w: %s sends: %v", ErrSystem, l.n.decl.ID, err))
	}
}

// Emit implements engine.Hands. Nobody stands above.
func (l *life) Emit(protocol.Value) {}

// AfterFunc implements engine.Clock: the clock drifts as the plan says.
func (l *life) AfterFunc(d time.Duration, f func()) (stop func()) {
	name := l.arming
	for i := range l.n.w.Plan.Faults {
		g := &l.n.w.Plan.Faults[i]
		if g.Class == Drift && g.Node == l.n.decl.ID && g.active(l.n.w.Line.Now()) {
			d = min(d, mostTime) * 100 / time.Duration(max(g.Rate, 1))
			l.n.w.Fire(Drift)
		}
	}
	fire := func() {
		if !l.over {
			delete(l.armed, name)
			f()
		}
	}
	cancel := l.n.w.timer(l, name, d, fire)
	stop = func() {
		cancel()
		delete(l.armed, name)
	}
	l.armed[name] = stop
	return stop
}

// Observe implements trace.Observer: it passes events on, and is where the node dies within a step.
func (l *life) Observe(e trace.Event) {
	if l.over {
		return
	}
	if sent, now := l.n.fuse.Blows(e); now {
		l.n.w.Fire(Crash)
		l.n.w.down(l.n, sent)
		return
	}
	switch e.Kind {
	case trace.Timer:
		l.arming = e.Value.(protocol.Timer).Name
	case trace.Send:
		e.Message = l.n.w.Net.Number()
	case trace.Deliver:
		if _, ok := e.Value.(protocol.Receive); ok {
			e.Message = l.n.w.Arriving
		}
	}
	l.n.w.Tell(e)
	if e.Kind == trace.Failed {
		l.n.w.down(l.n, -1)
	}
}
