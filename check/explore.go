package check

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"assent/protocol"
)

// A global state is a tuple: the number of each node's local state, then the faults used up, then
// the numbers of the messages under way, in order. Where duplication is unlimited, a message stays
// under way for ever and is there once.

// explorer is one run.
type explorer struct {
	sys      System
	claims   Claims
	limits   Limits
	locals   table[local]
	messages table[message]
	results  sync.Map // of uint64 (local state and trigger) to *result
	visited  visited
	begun    time.Time

	stepped     int64
	transitions int64
	states      int64

	mu       sync.Mutex
	broken   []uint64 // by Always: the fingerprint of the state that breaks it, or 0
	held     []atomic.Bool
	firstErr error
}

// worker is the state of one goroutine.
type worker struct {
	x     *explorer
	memo  memo
	next  []uint32 // tuples found at this depth, one after another, each after its length
	tuple []uint32 // scratch
	moved int64
}

func newExplorer(sys System, claims Claims, limits Limits) *explorer {
	if limits.Workers <= 0 {
		limits.Workers = runtime.GOMAXPROCS(0)
	}
	if limits.States <= 0 {
		limits.States = 50_000_000
	}
	return &explorer{sys: sys, claims: claims, limits: limits, begun: time.Now(),
		broken: make([]uint64, len(claims.Always)), held: make([]atomic.Bool, len(claims.Sometimes))}
}

func (x *explorer) local(n uint32) *local { return x.locals.get(n) }

func (x *explorer) run(ctx context.Context) (Report, error) {
	frontier, err := x.initial()
	if err != nil {
		return Report{}, err
	}
	depth, complete, reported := 0, true, time.Now()
	for len(frontier) > 0 {
		if ctx.Err() != nil || x.states >= int64(x.limits.States) {
			complete = false
			break
		}
		if x.limits.Progress != nil && time.Since(reported) > time.Second {
			reported = time.Now()
			x.progress(size(frontier), depth)
		}
		if frontier, err = x.expand(ctx, frontier); err != nil {
			return Report{}, err
		}
		depth++
	}
	r := Report{States: int(x.states), Transitions: int(x.transitions), Depth: depth - 1,
		Locals: x.locals.len(), Messages: x.messages.len(), Stepped: int(x.stepped),
		Bytes: x.visited.bytes(), Complete: complete && ctx.Err() == nil}
	if err := x.judge(&r); err != nil {
		return r, err
	}
	if r.Complete && x.claims.Decided != nil {
		if err := x.blocking(&r); err != nil {
			return r, err
		}
	}
	r.Elapsed = time.Since(x.begun)
	if x.limits.Progress != nil {
		x.progress(size(frontier), depth)
	}
	return r, nil
}

// size counts the tuples of a frontier.
func size(frontier [][]uint32) (n int) {
	for _, chunk := range frontier {
		for ; len(chunk) > 0; n++ {
			chunk = chunk[1+chunk[0]:]
		}
	}
	return n
}

func (x *explorer) progress(frontier, depth int) {
	x.limits.Progress(Progress{States: int(x.states), Frontier: frontier, Depth: depth, Elapsed: time.Since(x.begun)})
}

// initial returns the initial states: every combination of the nodes' ways to begin.
func (x *explorer) initial() ([][]uint32, error) {
	w := &worker{x: x, memo: memo{}}
	tuples := [][]uint32{{}}
	for i, node := range x.sys.Nodes {
		var longer [][]uint32
		for _, tuple := range tuples {
			for _, fresh := range node.New {
				n, err := x.begin(i, fresh())
				if err != nil {
					return nil, err
				}
				longer = append(longer, append(slices.Clone(tuple), n))
			}
		}
		tuples = longer
	}
	for _, tuple := range tuples {
		w.arrive(append(tuple, 0), 0)
	}
	return [][]uint32{w.next}, nil
}

// begin numbers the first state of a node. A machine to which Start means nothing has started.
func (x *explorer) begin(node int, m protocol.Machine) (uint32, error) {
	n, err := x.intern(local{node: node, up: true, machine: m})
	if err != nil {
		return 0, err
	}
	r, err := x.compute(n, triggerStart)
	if err != nil {
		return 0, err
	}
	if l := x.local(r.next); len(r.sends) == 0 && !r.wrote && len(l.timers) == 0 && l.encoded == x.local(n).encoded {
		return r.next, nil
	}
	return n, nil
}

// expand takes all states of one depth one step further, in parallel.
func (x *explorer) expand(ctx context.Context, frontier [][]uint32) ([][]uint32, error) {
	var states [][]uint32
	for _, chunk := range frontier {
		for len(chunk) > 0 {
			n := chunk[0]
			states = append(states, chunk[1:1+n])
			chunk = chunk[1+n:]
		}
	}
	workers := make([]*worker, min(x.limits.Workers, max(1, len(states)/64)))
	var taken atomic.Int64
	var group sync.WaitGroup
	for i := range workers {
		workers[i] = &worker{x: x, memo: memo{}}
		group.Go(func() {
			for {
				from := int(taken.Add(64)) - 64
				if from >= len(states) || ctx.Err() != nil {
					return
				}
				for _, s := range states[from:min(from+64, len(states))] {
					if !workers[i].expand(s) {
						return
					}
				}
			}
		})
	}
	group.Wait()
	var next [][]uint32
	for _, w := range workers {
		x.transitions += w.moved
		if len(w.next) > 0 {
			next = append(next, w.next)
		}
	}
	return next, x.firstErr
}

func (w *worker) expand(tuple []uint32) bool {
	from := w.x.fingerprint(tuple)
	err := w.x.successors(w, tuple, func(_ action, next []uint32) {
		w.moved++
		w.arrive(next, from)
	})
	if err != nil {
		w.x.mu.Lock()
		defer w.x.mu.Unlock()
		if w.x.firstErr == nil {
			w.x.firstErr = err
		}
		return false
	}
	return true
}

// arrive takes in a state that was reached from the state parent.
func (w *worker) arrive(tuple []uint32, parent uint64) {
	x := w.x
	h := x.fingerprint(tuple)
	if !x.visited.add(h, parent) {
		return
	}
	atomic.AddInt64(&x.states, 1)
	w.next = append(append(w.next, uint32(len(tuple))), tuple...)
	s := State{x, tuple}
	for i, p := range x.claims.Always {
		if atomic.LoadUint64(&x.broken[i]) == 0 && !p.Holds(s) {
			atomic.CompareAndSwapUint64(&x.broken[i], 0, h)
		}
	}
	for i, p := range x.claims.Sometimes {
		if !x.held[i].Load() && p.Holds(s) {
			x.held[i].Store(true)
		}
	}
}

// fingerprint is a sum of hashes, one for each part of the state.
func (x *explorer) fingerprint(tuple []uint32) uint64 {
	n := len(x.sys.Nodes)
	var h uint64
	for i := range n {
		h += x.local(tuple[i]).hash
	}
	h += mix(uint64(tuple[n]) + 0x9e3779b97f4a7c15)
	for _, m := range tuple[n+1:] {
		h += x.messages.get(m).hash
	}
	return fingerprint(mix(h))
}

// judge turns what was found into counterexamples.
func (x *explorer) judge(r *Report) error {
	for i, h := range x.broken {
		if h == 0 {
			continue
		}
		c, err := x.path(x.claims.Always[i].Name, h)
		if err != nil {
			return err
		}
		r.Broken = append(r.Broken, c)
	}
	for i := range x.held {
		if !x.held[i].Load() {
			r.Never = append(r.Never, x.claims.Sometimes[i].Name)
		}
	}
	return nil
}

// path finds the way to the state with the fingerprint h: back along the parents, and then forward
// again from the initial state, for only the forward way has the actions.
func (x *explorer) path(claim string, h uint64) (Counterexample, error) {
	var way []uint64
	for at := h; at != 0; at = x.visited.parent(at) {
		way = append(way, at)
	}
	slices.Reverse(way)
	w := &worker{x: x, memo: memo{}}
	var tuple []uint32
	tuples, err := x.beginnings()
	if err != nil {
		return Counterexample{}, err
	}
	for _, t := range tuples {
		if x.fingerprint(t) == way[0] {
			tuple = t
		}
	}
	c := Counterexample{Claim: claim, Steps: []Step{{What: "at first", After: x.texts(tuple)}}}
	for _, want := range way[1:] {
		var next []uint32
		var what string
		err := x.successors(w, tuple, func(a action, to []uint32) {
			if next == nil && x.fingerprint(to) == want {
				next, what = slices.Clone(to), x.describe(a, x.local(tuple[a.node]))
			}
		})
		if err != nil {
			return c, err
		}
		if next == nil {
			return c, fmt.Errorf("the way to a state that breaks %q cannot be found again: is a machine not deterministic?", claim)
		}
		tuple = next
		c.Steps = append(c.Steps, Step{What: what, After: x.texts(tuple)})
	}
	return c, nil
}

// beginnings returns the initial tuples again.
func (x *explorer) beginnings() ([][]uint32, error) {
	fresh := newExplorer(x.sys, Claims{}, Limits{Workers: 1})
	chunks, err := fresh.initial()
	if err != nil {
		return nil, err
	}
	var tuples [][]uint32
	for chunk := chunks[0]; len(chunk) > 0; {
		n := chunk[0]
		tuple := slices.Clone(chunk[1 : 1+n])
		for i := range x.sys.Nodes { // numbers are fresh's: translate
			number, err := x.intern(*fresh.local(tuple[i]))
			if err != nil {
				return nil, err
			}
			tuple[i] = number
		}
		tuples = append(tuples, tuple)
		chunk = chunk[1+n:]
	}
	return tuples, nil
}
