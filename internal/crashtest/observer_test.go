package crashtest

import (
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"assent/spec"
	"assent/trace"
)

// observer kills or holds its process at chosen points of the protocol.
type observer struct {
	witness *spec.Witness // may be nil

	tell func(message)

	mu      sync.Mutex
	changed *sync.Cond
	points  []string
	counts  map[string]int
	arms    []armed
	held    map[string]chan struct{}
}

// armed is an arm with the counts, since the beginning, that it waits for.
type armed struct {
	arm
	await map[string]int
}

func newObserver(tell func(message)) *observer {
	o := &observer{tell: tell, counts: map[string]int{}, held: map[string]chan struct{}{}}
	o.changed = sync.NewCond(&o.mu)
	return o
}

func (o *observer) arm(arms []arm) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, a := range arms {
		a.N = max(a.N, 1) + o.counts[a.Point]
		await := map[string]int{}
		for _, p := range a.Await {
			await[p] = o.counts[p] + 1
		}
		o.arms = append(o.arms, armed{a, await})
	}
}

// release lets the step that is held at point go on.
func (o *observer) release(point string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.held[point]; c != nil {
		close(c)
		delete(o.held, point)
	}
}

// Observe implements trace.Observer.
func (o *observer) Observe(e trace.Event) {
	if o.witness != nil {
		o.witness.Observe(e)
	}
	if e.Kind != trace.Timer { // nothing comes between it and the next event that a crash could undo
		o.pass(e.Point())
	}
}

// pass passes a point.
func (o *observer) pass(point string) {
	o.mu.Lock()
	o.points = append(o.points, point)
	o.counts[point]++
	n := o.counts[point]
	o.changed.Broadcast()
	for {
		i := slices.IndexFunc(o.arms, func(a armed) bool { return a.Point == point && a.N == n })
		if i < 0 {
			o.mu.Unlock()
			return
		}
		a := o.arms[i]
		o.arms = slices.Delete(o.arms, i, i+1)
		o.act(a)
	}
}

// act does what a says. The caller holds mu, and holds it again after.
func (o *observer) act(a armed) {
	switch {
	case a.Kill && a.Delay > 0:
		time.AfterFunc(a.Delay, die)
	case a.Kill:
		die()
	case a.Hold:
		c := make(chan struct{})
		o.held[a.Point] = c
		o.mu.Unlock()
		o.tell(message{Held: a.Point})
		<-c
		o.mu.Lock()
	default:
		// The goroutine that is held may, rarely, be the one that would pass the points: a machine
		// is stepped by whoever brings it an event.
		late := false
		stop := time.AfterFunc(time.Second, func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			late = true
			o.changed.Broadcast()
		})
		for !late && !o.passed(a.await) {
			o.changed.Wait()
		}
		stop.Stop()
	}
}

// passed reports whether all points were passed so often. The caller holds mu.
func (o *observer) passed(points map[string]int) bool {
	for p, n := range points {
		if o.counts[p] < n {
			return false
		}
	}
	return true
}

func (o *observer) seen() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.points)
}

// die ends the process as a power failure would end the program: at once.
func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
