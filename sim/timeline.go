package sim

import (
	"container/heap"
	"sync/atomic"
	"time"
)

// Timeline is simulated time: a queue of what is going to happen. Time passes only from one
// happening to the next. It is for one goroutine, but for Now. The zero value is at time zero, with nothing to
// come.
type Timeline struct {
	now    atomic.Int64
	queue  queue
	number uint64
}

// happening is something that will be done. Those of one moment are done in the order in which they
// were planned.
type happening struct {
	at     time.Duration
	number uint64
	do     func() // nil once cancelled
}

// Now returns the time since the run began. It may be called by any goroutine.
func (t *Timeline) Now() time.Duration { return time.Duration(t.now.Load()) }

// After plans do for the moment d from now, or for this one if d is negative. The returned function
// cancels it.
func (t *Timeline) After(d time.Duration, do func()) (cancel func()) {
	t.number++
	h := &happening{at: t.Now() + max(d, 0), number: t.number, do: do}
	heap.Push(&t.queue, h)
	return func() { h.do = nil }
}

// Next does what comes next, unless that is later than the given time. It reports whether there was
// anything; where there was not, the time is the one given.
func (t *Timeline) Next(until time.Duration) bool {
	for len(t.queue) > 0 && t.queue[0].at <= until {
		h := heap.Pop(&t.queue).(*happening)
		if h.do == nil {
			continue
		}
		t.now.Store(int64(h.at))
		h.do()
		return true
	}
	t.Pass(until)
	return false
}

// Pass lets time pass until then, unless it has. What was planned for that time is still to come.
func (t *Timeline) Pass(until time.Duration) { t.now.Store(int64(max(t.Now(), until))) }

// queue is a heap.
type queue []*happening

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].number < q[j].number
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(*happening)) }
func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return last
}
