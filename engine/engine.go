// Package engine is the live executor: it gives events to a machine and carries out the effects
// with real hands.
//
// The package promises the order that protocol.Effects demands, whatever goroutines deliver, and
// that a machine is stepped by one goroutine at a time. It owns no disk, network or clock: it is
// handed them, and the simulator hands it simulated ones.
package engine

import (
	"slices"
	"sync"
	"time"

	"assent/protocol"
	"assent/trace"
)

// Hands carry out effects. The methods are called by one goroutine at a time for one Loop. They
// may call Deliver, of this loop too: it never waits.
type Hands interface {
	// Force applies the writes atomically and returns when they are stable. After an error the
	// loop is dead: what the machine promised cannot be kept, so it says nothing more.
	Force(writes []protocol.Write) error
	// Send hands over a message. It does not wait for its arrival.
	Send(to protocol.NodeID, message protocol.Message)
	// Emit hands a value to the other part on the node. It does not wait for an answer.
	Emit(value protocol.Value)
}

// Clock runs timers.
type Clock interface {
	// AfterFunc calls f once in a goroutine of its own after d has passed, unless the returned
	// function is called first.
	AfterFunc(d time.Duration, f func()) (stop func())
}

// Config says what a Loop runs. Machine, Hands and Clock are required.
type Config struct {
	// Scope names the run in traces.
	Scope string
	// Node is the machine's own id.
	Node    protocol.NodeID
	Machine protocol.Machine
	Hands   Hands
	Clock   Clock
	// Observer is told of every event. Defaults to none.
	Observer trace.Observer
}

// Loop runs one machine. All methods are safe for concurrent use.
type Loop struct {
	cfg    Config
	mu     sync.Mutex
	queue  []protocol.Event
	timers []timer // the armed ones; a machine has few
	armed  uint64  // the number of the last timer that was armed
	busy   bool    // some goroutine is stepping the machine
	dead   bool
	out    protocol.Effects // of the goroutine that is stepping
}

// timer is an armed timer. Its number tells it from an earlier one of the same name, which may be
// going off at this moment.
type timer struct {
	name   string
	number uint64
	stop   func()
}

// New returns a loop that waits for its first event.
func New(cfg Config) *Loop { return &Loop{cfg: cfg} }

// Deliver gives the machine an event. Where another goroutine is stepping the machine, the event
// is left to it and Deliver returns at once; else Deliver steps until no event is left. Events
// that one goroutine delivers arrive in that order. A stopped loop drops them.
func (l *Loop) Deliver(ev protocol.Event) {
	l.mu.Lock()
	if l.dead {
		l.mu.Unlock()
		return
	}
	l.queue = append(l.queue, ev)
	if l.busy {
		l.mu.Unlock()
		return
	}
	l.busy = true
	for len(l.queue) > 0 && !l.dead {
		next := l.queue[0]
		l.queue = slices.Delete(l.queue, 0, 1) // in place: it is short, and made once
		l.mu.Unlock()
		ok := l.step(next)
		l.mu.Lock()
		if !ok {
			l.stop()
		}
	}
	if l.dead {
		l.queue = nil
	}
	l.busy = false
	l.mu.Unlock()
}

// Waiting returns how many events wait for the one that is being stepped. It has no bound of its own, so whoever delivers
// what others send, and may be sent again, looks at it while a disk does not answer.
func (l *Loop) Waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue)
}

// Stop drops all events and timers from now on. A step that is being carried out goes on to its
// end; Stop does not wait for it.
func (l *Loop) Stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop()
}

func (l *Loop) stop() {
	l.dead = true
	for _, t := range l.timers {
		t.stop()
	}
	l.timers = nil
}

// step reports whether the machine may go on.
func (l *Loop) step(ev protocol.Event) bool {
	out := &l.out
	out.Reset()
	observed := l.cfg.Observer != nil // else nothing is put together for it
	l.observe(trace.Deliver, "", ev)
	l.cfg.Machine.Step(ev, out)
	if len(out.Writes) > 0 {
		if observed {
			l.observe(trace.Force, "", out.Writes)
		}
		err := l.cfg.Hands.Force(out.Writes)
		if observed {
			l.observe(forced(err), "", out.Writes)
		}
		if err != nil {
			return false
		}
	}
	for _, t := range out.Timers {
		if observed {
			l.observe(trace.Timer, "", t)
		}
		l.setTimer(t)
	}
	for _, s := range out.Sends {
		l.observe(trace.Send, s.To, s.Message)
		l.cfg.Hands.Send(s.To, s.Message)
	}
	for _, v := range out.Emits {
		l.observe(trace.Emit, "", v)
		l.cfg.Hands.Emit(v)
	}
	l.observe(trace.Stepped, "", ev)
	return true
}

func (l *Loop) observe(kind trace.Kind, peer protocol.NodeID, value any) {
	if l.cfg.Observer == nil {
		return
	}
	l.cfg.Observer.Observe(trace.Event{Scope: l.cfg.Scope, Node: l.cfg.Node, Kind: kind, Peer: peer, Value: value})
}

func (l *Loop) setTimer(t protocol.Timer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.IndexFunc(l.timers, func(x timer) bool { return x.name == t.Name }); i >= 0 {
		l.timers[i].stop()
		l.timers = slices.Delete(l.timers, i, i+1)
	}
	if t.After <= 0 || l.dead {
		return
	}
	l.armed++
	number := l.armed
	stop := l.cfg.Clock.AfterFunc(t.After, func() { l.expire(t.Name, number) })
	l.timers = append(l.timers, timer{t.Name, number, stop})
}

// expire delivers the end of a timer, unless it was disarmed or armed anew meanwhile.
func (l *Loop) expire(name string, number uint64) {
	l.mu.Lock()
	i := slices.IndexFunc(l.timers, func(x timer) bool { return x.number == number })
	if i >= 0 {
		l.timers = slices.Delete(l.timers, i, i+1)
	}
	l.mu.Unlock()
	if i >= 0 {
		l.Deliver(protocol.Expire{Timer: name})
	}
}

// SystemClock is the machine's own monotonic clock.
type SystemClock struct{}

// AfterFunc is time.AfterFunc.
func (SystemClock) AfterFunc(d time.Duration, f func()) (stop func()) {
	t := time.AfterFunc(d, f)
	return func() { t.Stop() }
}
