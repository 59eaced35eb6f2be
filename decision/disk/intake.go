package disk

import (
	"errors"
	"sync"
	"time"

	"assent/decision"
)

// request is one call of a Log's method on its way through a store.
type request struct {
	changes []change // one decision or one forgetting, or any number of notes
	bytes   int      // of the changes, roughly
	forced  bool
	stands  *decision.Entry // what a decision that was not the first is answered
	err     error
	done    chan struct{} // closed when stands and err are set
}

func newRequest(forced bool, changes ...change) *request {
	r := &request{changes: changes, forced: forced, done: make(chan struct{})}
	for i := range changes {
		r.bytes += len(changes[i].id) + len(changes[i].body)
	}
	return r
}

// decides reports whether r proposes a decision.
func (r *request) decides() bool { return r.changes[0].kind == decideRecord }

// outcome is what applying r's changes has come to. That there is no entry to note something on is the least
// of errors.
func (r *request) outcome() (err error) {
	for i := range r.changes {
		if c := &r.changes[i]; c.err != nil && (err == nil || errors.Is(err, decision.ErrNotFound)) {
			err = c.err
		}
	}
	return err
}

func (r *request) finish(err error) {
	r.err = err
	close(r.done)
}

// intake is where callers leave their requests for the writing goroutine.
type intake struct {
	sync.Mutex
	requests []*request
	spare    []*request // to be used again
	changes  int        // of all requests
	closed   error      // why nothing is taken any more
	wake     chan struct{}
	later    *time.Timer // signals for requests that can wait
	running  bool        // later is
}

func newIntake() *intake {
	q := &intake{wake: make(chan struct{}, 1)}
	q.later = time.AfterFunc(time.Hour, func() {
		q.Lock()
		defer q.Unlock()
		if q.running = false; len(q.requests) > 0 {
			q.signal()
		}
	})
	q.later.Stop()
	return q
}

const (
	// Requests that need not be forced wait this long, or until there are so many changes, for one
	// that must be: then they share its write.
	laterTime = time.Millisecond
	laterMost = 64

	maxGroupChanges = 4096
	maxGroupBytes   = 1 << 20
)

// put adds r. It fails when the store has stopped and when most changes wait already.
func (q *intake) put(r *request, most int) error {
	q.Lock()
	defer q.Unlock()
	if q.closed != nil {
		return q.closed
	}
	if q.changes >= most {
		return busy(most)
	}
	q.requests = append(q.requests, r)
	q.changes += len(r.changes)
	switch {
	case r.forced || q.changes >= laterMost:
		q.signal()
	case !q.running:
		q.running = true
		q.later.Reset(laterTime)
	}
	return nil
}

func (q *intake) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns waiting requests, in the order in which they came, with at most maxGroupChanges
// changes and not many more bytes than maxGroupBytes. They are the caller's until it takes again.
func (q *intake) take() []*request {
	q.Lock()
	defer q.Unlock()
	n, changes, bytes := 0, 0, 0
	for n < len(q.requests) && bytes < maxGroupBytes {
		r := q.requests[n]
		if changes += len(r.changes); changes > maxGroupChanges && n > 0 {
			break
		}
		q.changes -= len(r.changes)
		bytes += r.bytes
		n++
	}
	taken := q.requests[:n]
	clear(q.spare[:cap(q.spare)])
	q.spare, q.requests = taken[:0], append(q.spare[:0], q.requests[n:]...)
	if len(q.requests) > 0 {
		q.signal()
	}
	return taken
}

// close makes put fail with err from now on.
func (q *intake) close(err error) {
	q.Lock()
	defer q.Unlock()
	if q.closed == nil {
		q.closed = err
	}
	q.signal()
}
