package kv

import (
	"errors"
	"sync"
)

// errDeadlock is what a request gets that was chosen to give way.
var errDeadlock = errors.New("the branch waited in a circle with others and was the youngest of them")

// mode is how a lock is held. Shared locks go together; an exclusive one goes with none.
type mode uint8

const (
	shared mode = iota + 1
	exclusive
)

// lockTable grants locks on spans of keys, first come, first served: a request waits for every
// conflicting request that came before it, granted or not, and for none that came later. The one
// exception is an owner that asks for more while others wait for what it has: it goes before
// those, because to queue behind them would be a deadlock of the table's own making.
//
// So for any two requests of different owners that conflict, exactly one waits for the other,
// and a request is granted when it waits for none. All of it is under one mutex, which is never
// held across anything slow.
type lockTable struct {
	mu       sync.Mutex
	requests spanTree
	arrivals uint64
	owners   uint64
}

// lockOwner is a branch or a view, as the table sees it. It waits for one lock at a time.
type lockOwner struct {
	// age is the place in the order in which owners came; the youngest in a circle gives way.
	age uint64
	// The rest is under the table's mutex.
	requests []*request
	waiting  *request
	points   map[string]mode // granted on single keys
	spans    []span          // granted, shared, on ranges
}

// request is a lock that is held or waited for.
type request struct {
	node
	span
	owner   *lockOwner
	mode    mode
	single  bool // the span is the single key from
	granted bool
	// blockers are what this request waits for, waiters those that wait for it.
	blockers, waiters []*request
	// done gets nil when the lock is granted, or errDeadlock. It has room for one.
	done chan error
}

func (a *request) conflicts(b *request) bool {
	return a.owner != b.owner && (a.mode == exclusive || b.mode == exclusive)
}

// newOwner returns an owner without locks, younger than all before it.
func (t *lockTable) newOwner() *lockOwner {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.owners++
	return &lockOwner{age: t.owners, points: map[string]mode{}}
}

// lock asks for a lock. It returns nil where the lock is held now. Otherwise the caller waits for
// the request's done, and calls abandon if it gives up. added says whether the owner's locks grew.
func (t *lockTable) lock(o *lockOwner, s span, single bool, m mode) (wait *request, added bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if o.covers(s, single, m) {
		return nil, false
	}
	t.arrivals++
	r := &request{span: s, owner: o, mode: m, single: single}
	r.number = t.arrivals
	t.link(r)
	t.requests.insert(r)
	o.requests = append(o.requests, r)
	if len(r.blockers) == 0 {
		t.grant(r)
		return nil, true
	}
	r.done = make(chan error, 1)
	o.waiting = r
	t.breakCircles(r)
	return r, true
}

func (o *lockOwner) covers(s span, single bool, m mode) bool {
	if single && o.points[s.from] >= m {
		return true
	}
	if m == shared {
		for _, held := range o.spans {
			if held.contains(s) {
				return true
			}
		}
	}
	return false
}

// link finds what r waits for, and what must wait for r.
func (t *lockTable) link(r *request) {
	var behind map[*lockOwner]*lockOwner
	t.requests.overlapping(r.span, func(q *request) {
		if !r.conflicts(q) {
			return
		}
		if !q.granted {
			if behind == nil {
				behind = waitersOf(r.owner)
			}
			if _, ok := behind[q.owner]; ok {
				edge(q, r)
				return
			}
		}
		edge(r, q)
	})
}

func edge(waiter, blocker *request) {
	waiter.blockers = append(waiter.blockers, blocker)
	blocker.waiters = append(blocker.waiters, waiter)
}

// waitersOf returns the owners that wait for o, directly or by way of others, each with the one
// that it waits for on the way to o.
func waitersOf(o *lockOwner) map[*lockOwner]*lockOwner {
	found := map[*lockOwner]*lockOwner{}
	queue := []*lockOwner{o}
	for len(queue) > 0 {
		next := queue[0]
		queue = queue[1:]
		for _, r := range next.requests {
			for _, w := range r.waiters {
				if _, ok := found[w.owner]; !ok && w.owner != o {
					found[w.owner] = next
					queue = append(queue, w.owner)
				}
			}
		}
	}
	return found
}

// breakCircles looks for circles that the new request r has closed and has the youngest in each
// give way. Only r can have closed one, since nothing else changed.
func (t *lockTable) breakCircles(r *request) {
	for !r.granted && r.owner.waiting == r {
		victim := t.victim(r)
		if victim == nil {
			return
		}
		w := victim.waiting
		t.drop(w)
		w.done <- errDeadlock
	}
}

// victim returns the youngest in a circle through r, or nil if there is none. All in a circle
// are waiting.
func (t *lockTable) victim(r *request) *lockOwner {
	behind := waitersOf(r.owner)
	for _, b := range r.blockers {
		if _, ok := behind[b.owner]; !ok {
			continue
		}
		youngest := r.owner
		for o := b.owner; o != r.owner; o = behind[o] {
			if o.age > youngest.age {
				youngest = o
			}
		}
		return youngest
	}
	return nil
}

func (t *lockTable) grant(r *request) {
	r.granted = true
	o := r.owner
	switch {
	case r.single:
		o.points[r.from] = max(o.points[r.from], r.mode)
	case r.mode == shared:
		o.spans = append(o.spans, r.span)
	}
	if o.waiting == r {
		o.waiting = nil
		r.done <- nil
	}
}

// unlink takes r away and grants what waited for r alone.
func (t *lockTable) unlink(r *request) {
	t.requests.remove(r)
	for _, b := range r.blockers {
		b.waiters = without(b.waiters, r)
	}
	waiters := r.waiters
	r.blockers, r.waiters = nil, nil
	for _, w := range waiters {
		w.blockers = without(w.blockers, r)
		if len(w.blockers) == 0 && !w.granted {
			t.grant(w)
		}
	}
}

func without(list []*request, r *request) []*request {
	last := len(list) - 1
	for i := last; i >= 0; i-- { // what was added last goes first, most of the time
		if list[i] == r {
			list[i], list[last] = list[last], nil
			return list[:last]
		}
	}
	return list
}

// drop takes away the request that its owner waits for.
func (t *lockTable) drop(r *request) {
	r.owner.requests = without(r.owner.requests, r)
	r.owner.waiting = nil
	t.unlink(r)
}

// abandon gives up waiting for r. It reports false where r was granted, or refused, meanwhile:
// done then holds the answer.
func (t *lockTable) abandon(r *request) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.owner.waiting != r {
		return false
	}
	t.drop(r)
	return true
}

// How many locks are released before others get a turn at the table.
const releaseAtOnce = 256

// release gives back the locks of o for which keep, if any, is false. o must not be waiting.
func (t *lockTable) release(o *lockOwner, keep func(*request) bool) {
	t.mu.Lock()
	requests := o.requests
	o.requests, o.points, o.spans = nil, map[string]mode{}, nil
	for _, r := range requests {
		if keep != nil && keep(r) {
			o.requests = append(o.requests, r)
			o.points[r.from] = r.mode
		}
	}
	for n, r := range requests {
		if n%releaseAtOnce == releaseAtOnce-1 {
			t.mu.Unlock()
			t.mu.Lock()
		}
		if keep == nil || !keep(r) {
			t.unlink(r)
		}
	}
	t.mu.Unlock()
}

// changing reports whether somebody holds key exclusively.
func (t *lockTable) changing(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := false
	t.requests.overlapping(point(key), func(r *request) {
		found = found || r.granted && r.mode == exclusive
	})
	return found
}
