package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"assent/protocol"
	"assent/trace"
)

// diary is hands, clock and observer in one, and keeps what was done in order.
type diary struct {
	mu     sync.Mutex
	lines  []string
	fail   bool
	timers []func()
	onSend func()
}

func (d *diary) write(f string, a ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(f, a...))
}

func (d *diary) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.lines, ", ")
}

func (d *diary) Force(w []protocol.Write) error {
	d.write("force %d", len(w))
	if d.fail {
		return errors.New("disk full")
	}
	return nil
}

func (d *diary) Send(to protocol.NodeID, m protocol.Message) {
	d.write("send %v to %s", m, to)
	if d.onSend != nil {
		d.onSend()
	}
}

func (d *diary) Emit(v protocol.Value) { d.write("emit %v", v) }

func (d *diary) AfterFunc(after time.Duration, f func()) func() {
	d.write("arm %v", after)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.timers = append(d.timers, f)
	return func() { d.write("stop") }
}

// script is a machine that does what its inputs say.
type script struct{ steps int }

func (s *script) Step(ev protocol.Event, out *protocol.Effects) {
	s.steps++
	switch ev := ev.(type) {
	case protocol.Input:
		ev.Value.(func(*protocol.Effects))(out)
	case protocol.Expire:
		out.Emit("expired " + ev.Timer)
	}
}

func do(f func(out *protocol.Effects)) protocol.Event { return protocol.Input{Value: f} }

func newLoop() (*Loop, *diary) {
	d := &diary{}
	return New(Config{Scope: "t", Node: "n", Machine: &script{}, Hands: d, Clock: d}), d
}

// TestOrderOfEffects: nothing leaves before the writes are forced; then timers, sends, emits.
func TestOrderOfEffects(t *testing.T) {
	l, d := newLoop()
	l.Deliver(do(func(out *protocol.Effects) {
		out.Emit("e1")
		out.Send("x", "m1")
		out.Arm("t", time.Second)
		out.Put("k", "r")
		out.Send("y", "m2")
		out.Emit("e2")
		out.Delete("j")
	}))
	if got, want := d.text(), "force 2, arm 1s, send m1 to x, send m2 to y, emit e1, emit e2"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestFailedForceSilences: when the writes fail nothing of the step leaves, and nothing after it.
func TestFailedForceSilences(t *testing.T) {
	l, d := newLoop()
	d.fail = true
	l.Deliver(do(func(out *protocol.Effects) { out.Put("k", "r"); out.Send("x", "m") }))
	d.fail = false
	l.Deliver(do(func(out *protocol.Effects) { out.Send("x", "later") }))
	if got := d.text(); got != "force 1" {
		t.Errorf("got %s", got)
	}
}

// TestReentrantDeliver: what hands deliver within a step comes after it.
func TestReentrantDeliver(t *testing.T) {
	l, d := newLoop()
	d.onSend = func() {
		d.onSend = nil
		l.Deliver(do(func(out *protocol.Effects) { out.Emit("second") }))
	}
	l.Deliver(do(func(out *protocol.Effects) { out.Send("x", "m"); out.Emit("first") }))
	if got, want := d.text(), "send m to x, emit first, emit second"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestTimers(t *testing.T) {
	l, d := newLoop()
	l.Deliver(do(func(out *protocol.Effects) { out.Arm("a", time.Second) }))
	l.Deliver(do(func(out *protocol.Effects) { out.Arm("a", 2*time.Second) })) // replaces
	l.Deliver(do(func(out *protocol.Effects) { out.Arm("b", time.Second) }))
	l.Deliver(do(func(out *protocol.Effects) { out.Disarm("b") }))
	for _, fire := range d.timers { // those stopped fire too late, all the same
		fire()
	}
	if got, want := d.text(), "arm 1s, stop, arm 2s, arm 1s, stop, emit expired a"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	l.Deliver(do(func(out *protocol.Effects) { out.Arm("c", time.Second) }))
	l.Stop()
	d.timers[len(d.timers)-1]()
	l.Deliver(do(func(out *protocol.Effects) { out.Emit("after the end") }))
	if strings.Contains(d.text(), "expired c") || strings.Contains(d.text(), "after the end") {
		t.Errorf("a stopped loop went on: %s", d.text())
	}
}

// TestOneStepAtATime: however many deliver, no event is lost and steps do not overlap (the race
// detector watches the machine's counter).
func TestOneStepAtATime(t *testing.T) {
	const deliverers, each = 8, 500
	m, d := &script{}, &diary{}
	l := New(Config{Node: "n", Machine: m, Hands: d, Clock: d})
	var last [deliverers]int
	var wg sync.WaitGroup
	for i := range deliverers {
		wg.Go(func() {
			for n := range each {
				l.Deliver(do(func(*protocol.Effects) {
					if last[i] != n {
						t.Errorf("event %d of deliverer %d came after %d", n, i, last[i])
					}
					last[i]++
				}))
			}
		})
	}
	wg.Wait()
	done := make(chan struct{})
	l.Deliver(do(func(*protocol.Effects) { close(done) }))
	<-done
	if m.steps != deliverers*each+1 {
		t.Errorf("%d steps for %d events", m.steps, deliverers*each+1)
	}
}

type witness struct{ points []string }

func (w *witness) Observe(e trace.Event) { w.points = append(w.points, e.Point()) }

type ping struct{ Hops uint8 }

// TestObserverSeesBeforeItHappens: an observer that kills the process at "force" finds nothing
// written, at "forced" all, at "send" nothing sent yet.
func TestObserverSeesBeforeItHappens(t *testing.T) {
	d, w := &diary{}, &witness{}
	l := New(Config{Scope: "t", Node: "n", Machine: &script{}, Hands: d, Clock: d, Observer: w})
	l.Deliver(do(func(out *protocol.Effects) {
		out.Put("k", ping{})
		out.Delete("j")
		out.Send("x", ping{})
		out.Emit(ping{})
	}))
	want := []string{"n deliver ", "n force ping,delete", "n forced ping,delete", "n send ping to x", "n emit ping", "n stepped "}
	if !slices.Equal(w.points, want) {
		t.Errorf("got  %q\nwant %q", w.points, want)
	}
	d.fail = true
	l.Deliver(do(func(out *protocol.Effects) { out.Put("k", ping{}); out.Send("x", ping{}) }))
	if last := w.points[len(w.points)-1]; last != "n failed ping" {
		t.Errorf("the last point is %q", last)
	}
}

func TestSystemClock(t *testing.T) {
	fired := make(chan struct{})
	SystemClock{}.AfterFunc(time.Millisecond, func() { close(fired) })
	<-fired
	stop := SystemClock{}.AfterFunc(time.Hour, func() { t.Error("a stopped timer fired") })
	stop()
}
