package check

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
)

// The main search keeps no ways. When something is found, a second search by one worker goes the same
// way, keeps for each state which it came from, and stops where it meets the same thing. So what is
// shown is the same in every run, however many workers there were.

// place is a state by where it was found: the number of the state before it, or none, and the order
// among the successors of that.
type place struct{ before, order uint32 }

const none = math.MaxUint32

// unseen is the place of what was not met.
var unseen = place{none, none}

// watch is what the second search looks for and what it keeps. The methods may be called on nil.
type watch struct {
	found         []place // every state, by number
	now           uint32  // the number of the state being expanded
	always, steps []place
	target        uint64 // a fingerprint, or 0
	reached       place
	open          int // how much is yet to be seen
}

func newWatch(always, steps int, target uint64) *watch {
	h := &watch{now: none, always: slices.Repeat([]place{unseen}, always), steps: slices.Repeat([]place{unseen}, steps),
		target: target, reached: unseen, open: always + steps}
	if target != 0 {
		h.open++
	}
	return h
}

func (h *watch) next() {
	if h != nil {
		h.now++ // from none to 0
	}
}

func (h *watch) satisfied() bool { return h != nil && h.open == 0 }

func (h *watch) add(order int) {
	if h != nil {
		h.found = append(h.found, place{h.now, uint32(order)})
	}
}

func (h *watch) sawAlways(i int) {
	if h != nil {
		h.always[i] = h.found[len(h.found)-1]
		h.open--
	}
}

func (h *watch) sawStep(i, order int) {
	if h != nil {
		h.steps[i] = place{h.now, uint32(order)}
		h.open--
	}
}

func (h *watch) saw(sum uint64) {
	if h != nil && h.target != 0 && fingerprint(sum) == h.target {
		h.reached = h.found[len(h.found)-1]
		h.target = 0
		h.open--
	}
}

// way is the orders that lead to a place: among the initial states, and then among successors.
func (h *watch) way(p place) (orders []int) {
	for ; p.before != none; p = h.found[p.before] {
		orders = append(orders, int(p.order))
	}
	orders = append(orders, int(p.order))
	slices.Reverse(orders)
	return orders
}

// moved is one step of a way.
type moved struct {
	action        action
	before, after state
}

// counterexamples finds the ways to what the search has found broken, and to the state with the
// fingerprint target, if that is not 0. Where it is stopped, by ctx or by a limit, the ways that it has
// not found are empty.
func (x *explorer) counterexamples(ctx context.Context, r *Report, target uint64) error {
	var claims Claims
	for i := range x.always {
		if x.always[i].Load() {
			claims.Always = append(claims.Always, x.claims.Always[i])
		}
	}
	for i := range x.steps {
		if x.steps[i].Load() {
			claims.Steps = append(claims.Steps, x.claims.Steps[i])
		}
	}
	if len(claims.Always)+len(claims.Steps) == 0 && target == 0 {
		return nil
	}
	x.enter(Tracing)
	limits := Limits{Workers: 1, States: math.MaxInt} // no more than there are
	if !r.Complete {
		limits.States = 4 * r.States // to the same depth there may be more than were seen, and in another order
	}
	if x.limits.Progress != nil {
		limits.Progress = func(p Progress) {
			x.gone.Store(int64(p.States))
			x.progress()
		}
	}
	again := newExplorer(x.sys, claims, limits)
	again.watch = newWatch(len(claims.Always), len(claims.Steps), target)
	_, _, complete, err := again.search(ctx)
	if err != nil {
		return err
	}
	if complete && !again.watch.satisfied() {
		return errors.New("what was found cannot be found again: is a machine not deterministic?")
	}
	for i, p := range claims.Always {
		if err := again.report(r, p.Name, again.watch.always[i]); err != nil {
			return err
		}
	}
	for i, p := range claims.Steps {
		if err := again.report(r, p.Name, again.watch.steps[i]); err != nil {
			return err
		}
	}
	if target == 0 {
		return nil
	}
	c, err := again.counterexample("every node that is up can come to its end", again.watch.reached)
	r.Blocked = &c
	return err
}

func (x *explorer) report(r *Report, claim string, p place) error {
	c, err := x.counterexample(claim, p)
	r.Broken = append(r.Broken, c)
	return err
}

func (x *explorer) counterexample(claim string, p place) (Counterexample, error) {
	if p == unseen {
		return Counterexample{Claim: claim}, nil
	}
	initial, begins, steps, err := x.walk(x.watch.way(p))
	if err != nil {
		return Counterexample{}, err
	}
	c := Counterexample{Claim: claim, Begin: begins, Steps: []Step{{What: "at first", After: x.texts(initial.tuple)}}}
	for _, s := range steps {
		c.Steps = append(c.Steps, Step{What: x.describe(s.action, s.before.tuple), After: x.texts(s.after.tuple)})
	}
	c.events, err = x.rerun(initial, begins, steps)
	return c, err
}

// walk goes a way from an initial state. It also returns which of its ways to begin each node took.
func (x *explorer) walk(orders []int) (initial state, begins []int, steps []moved, err error) {
	all, err := x.initial()
	if err != nil {
		return state{}, nil, nil, err
	}
	initial, begins = all[orders[0]], make([]int, len(x.sys.Nodes))
	for i, rest := len(begins)-1, orders[0]; i >= 0; i-- {
		begins[i] = rest % len(x.sys.Nodes[i].New)
		rest /= len(x.sys.Nodes[i].New)
	}
	w := x.newWorker()
	if x.symmetry != nil {
		steps, err = x.walkOrbits(initial, orders[1:], w)
		return initial, begins, steps, err
	}
	at := initial
	for _, order := range orders[1:] {
		s, err := w.successor(at, order)
		if err != nil {
			return state{}, nil, nil, err
		}
		steps = append(steps, s)
		at = s.after
	}
	return initial, begins, steps, nil
}

func (s state) clone() state { return state{slices.Clone(s.tuple), s.sum} }

// successor returns the step of that order.
func (w *worker) successor(from state, order int) (s moved, err error) {
	i := 0
	err = w.successors(from, func(a action, to state) {
		if i == order {
			s = moved{a, from, to.clone()}
		}
		i++
	})
	if err == nil && s.after.tuple == nil {
		err = fmt.Errorf("a state has no successor number %d: is a machine not deterministic?", order)
	}
	return s, err
}

// walkOrbits goes a way that was found among representatives, without exchanging nodes under way. As
// it goes it knows by which renaming the real state comes from the representative.
func (x *explorer) walkOrbits(initial state, orders []int, w *worker) (steps []moved, err error) {
	o := newOrbits(x.symmetry)
	stands, r, err := o.representative(initial)
	if err != nil {
		return nil, err
	}
	stands = stands.clone()
	real, back := initial, r.inverse()
	for _, order := range orders {
		s, err := w.successor(stands, order)
		if err != nil {
			return nil, err
		}
		want, err := o.rename(s.after, back)
		if err != nil {
			return nil, err
		}
		want = want.clone()
		found := false
		err = w.successors(real, func(a action, to state) {
			if !found && to.sum == want.sum {
				found = true
				steps = append(steps, moved{a, real, to.clone()})
			}
		})
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, fmt.Errorf("%w: nodes are said to be interchangeable, and their machines tell them apart", ErrSystem)
		}
		real = steps[len(steps)-1].after
		if stands, r, err = o.representative(s.after); err != nil {
			return nil, err
		}
		stands, back = stands.clone(), back.after(r.inverse())
	}
	return steps, nil
}
