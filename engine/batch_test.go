package engine

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"assent/protocol"
)

// ledger is the hands of a batch: it keeps what was done in order, and can hold a force up.
type ledger struct {
	mu       sync.Mutex
	lines    []string
	machines map[string]protocol.Machine
	fail     bool
	forces   int
	hold     chan struct{} // a force waits for it, where there is one
	forcing  chan struct{} // and says so here
}

func newBatch() (*Batch, *ledger) {
	l := &ledger{machines: map[string]protocol.Machine{"a": &script{}, "b": &script{}}}
	return NewBatch(BatchConfig{Node: "n", Hands: l}), l
}

func (l *ledger) write(f string, a ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(f, a...))
}

func (l *ledger) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, ", ")
}

func (l *ledger) Machine(name string) protocol.Machine { return l.machines[name] }

func (l *ledger) Force(steps []Step) error {
	var writes []string
	for _, s := range steps {
		for _, w := range s.Out.Writes {
			writes = append(writes, s.Name+w.Key)
		}
	}
	if len(writes) > 0 {
		l.write("force %v", writes)
		l.forces++
	}
	if l.hold != nil {
		l.forcing <- struct{}{}
		<-l.hold
	}
	if l.fail {
		return errors.New("disk full")
	}
	return nil
}

func (l *ledger) Release(s *Step) {
	for _, t := range s.Out.Timers {
		l.write("%s arms %s", s.Name, t.Name)
	}
	for _, m := range s.Out.Sends {
		l.write("%s sends %v", s.Name, m.Message)
	}
	for _, v := range s.Out.Emits {
		l.write("%s emits %v", s.Name, v)
	}
}

func (l *ledger) Flush() { l.write("flush") }

// idle waits until the batch has done all it was given.
func idle(b *Batch) {
	done := make(chan struct{})
	b.Then(func() { close(done) })
	<-done
	b.mu.Lock()
	for b.busy {
		b.mu.Unlock()
		b.work.Wait()
		b.mu.Lock()
	}
	b.mu.Unlock()
}

// TestBatchForcesOnce: what comes while one force is under way is stepped together and forced once, and
// nothing leaves before; then every step's effects leave in order.
func TestBatchForcesOnce(t *testing.T) {
	b, l := newBatch()
	l.hold, l.forcing = make(chan struct{}), make(chan struct{}, 10)
	b.Deliver("a", do(func(out *protocol.Effects) { out.Put("1", "r"); out.Send("x", "m1") }))
	<-l.forcing
	b.Deliver("a", do(func(out *protocol.Effects) {
		out.Emit("e")
		out.Send("x", "m2")
		out.Arm("t", time.Second)
		out.Put("2", "r")
	}))
	b.Deliver("b", do(func(out *protocol.Effects) { out.Put("3", "r"); out.Send("x", "m3") }))
	b.Deliver("nobody", do(func(out *protocol.Effects) { out.Put("4", "r") }))
	b.Then(func() { l.write("then") })
	if got, want := l.text(), "force [a1]"; got != want {
		t.Errorf("before the first force ends: got %s, want %s", got, want)
	}
	close(l.hold)
	idle(b)
	want := "force [a1], a sends m1, flush, force [a2 b3], a arms t, a sends m2, a emits e, b sends m3, then, flush"
	if got := l.text(); !strings.HasPrefix(got, want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestBatchFailedForceSilences: when the writes fail nothing of any of the steps leaves, and nothing
// after them.
func TestBatchFailedForceSilences(t *testing.T) {
	b, l := newBatch()
	l.fail = true
	l.hold, l.forcing = make(chan struct{}), make(chan struct{}, 10)
	b.Deliver("a", do(func(out *protocol.Effects) { out.Put("1", "r"); out.Send("x", "m") }))
	<-l.forcing
	b.Deliver("b", do(func(out *protocol.Effects) { out.Send("x", "later") }))
	b.Then(func() { l.write("then") })
	close(l.hold)
	b.Wait()
	b.Deliver("b", do(func(out *protocol.Effects) { out.Send("x", "later still") }))
	b.Wait()
	if got := l.text(); got != "force [a1]" {
		t.Errorf("got %s", got)
	}
}

func TestBatchStops(t *testing.T) {
	b, l := newBatch()
	b.Stop()
	b.Wait()
	b.Deliver("a", do(func(out *protocol.Effects) { out.Send("x", "m") }))
	b.Then(func() { l.write("then") })
	b.Wait()
	if got := l.text(); got != "" {
		t.Errorf("a stopped batch went on: %s", got)
	}
}

// TestBatchOrder: however many deliver, no event is lost, those of one deliverer keep their order, and
// steps do not overlap (the race detector watches the machines' counters). Most bounds a round.
func TestBatchOrder(t *testing.T) {
	for _, gather := range []bool{false, true} {
		t.Run(fmt.Sprint("gather ", gather), func(t *testing.T) { testBatchOrder(t, BatchConfig{Most: 7, Gather: gather}) })
	}
}

func testBatchOrder(t *testing.T, cfg BatchConfig) {
	const deliverers, each = 8, 500
	l := &ledger{machines: map[string]protocol.Machine{"a": &script{}, "b": &script{}}}
	cfg.Node, cfg.Hands = "n", l
	b := NewBatch(cfg)
	var last [deliverers]int
	var wg sync.WaitGroup
	for i := range deliverers {
		wg.Go(func() {
			for n := range each {
				b.Deliver(string("ab"[n%2]), do(func(*protocol.Effects) {
					if last[i] != n {
						t.Errorf("event %d of deliverer %d came after %d", n, i, last[i])
					}
					last[i]++
				}))
			}
		})
	}
	wg.Wait()
	idle(b)
	if got := l.machines["a"].(*script).steps + l.machines["b"].(*script).steps; got != deliverers*each {
		t.Errorf("%d steps for %d events", got, deliverers*each)
	}
}

// TestBatchGathers: with Gather, those who are ready to deliver share one force, although each of them
// would find nobody working.
func TestBatchGathers(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that it is known who is ready
	const deliverers = 40
	l := &ledger{machines: map[string]protocol.Machine{"a": &script{}}}
	b := NewBatch(BatchConfig{Node: "n", Hands: l, Gather: true})
	var wg sync.WaitGroup
	for range deliverers {
		wg.Go(func() { b.Deliver("a", do(func(out *protocol.Effects) { out.Put("1", "r") })) })
	}
	wg.Wait()
	idle(b)
	// One, but that others in this process may take the processor at any time.
	if steps := l.machines["a"].(*script).steps; steps != deliverers || l.forces > deliverers/4 {
		t.Errorf("%d steps were forced %d times", steps, l.forces)
	}
}

// TestBatchReentrant: what the hands deliver while they release comes after it.
func TestBatchReentrant(t *testing.T) {
	b, l := newBatch()
	b.Then(func() {
		b.Deliver("a", do(func(out *protocol.Effects) { out.Emit("second") }))
		l.write("first")
	})
	idle(b)
	if got := l.text(); !strings.HasPrefix(got, "first, flush, a emits second, flush") {
		t.Errorf("got %s", got)
	}
}

// TestBatchObserver: the points are those of a Loop, with the machine's name as scope.
func TestBatchObserver(t *testing.T) {
	w := &witness{}
	l := &ledger{machines: map[string]protocol.Machine{"a": &script{}}}
	b := NewBatch(BatchConfig{Node: "n", Hands: l, Observer: w})
	b.Deliver("a", do(func(out *protocol.Effects) {
		out.Put("k", ping{})
		out.Send("x", ping{})
		out.Arm("t", time.Second)
		out.Emit(ping{})
	}))
	idle(b)
	want := []string{"n deliver ", "n force ping", "n forced ping", "n timer t", "n send ping to x", "n emit ping", "n stepped "}
	if len(w.points) == len(want) {
		w.points[3] = want[3] // however a timer is written
	}
	if !slices.Equal(w.points, want) {
		t.Errorf("got  %q\nwant %q", w.points, want)
	}
}
