package check

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"assent/protocol"
)

// explorer is one search, breadth first: all states of one depth are expanded before those of the
// next, so whatever is found first was reached on a shortest way.
type explorer struct {
	sys      System
	claims   Claims
	limits   Limits
	budget   [faultKinds]int
	forever  bool // messages stay under way for ever
	links    bool // links can be cut
	symmetry *symmetry

	locals   table[local]
	messages table[message]
	worlds   table[world]
	slots    []uint32 // by node: how many distinct messages go to it
	visited  visited
	begun    time.Time
	searched time.Duration    // how long the search took, when it is over
	tick     <-chan time.Time // when to tell of the progress; nil where nobody wants to know
	phase    Phase
	gone     atomic.Int64 // states gone through in this phase, after the search

	stepped         atomic.Int64
	found, expanded atomic.Int64 // states
	transitions     atomic.Int64
	depth           atomic.Int64
	memory          atomic.Int64 // bytes of states, but for visited; and the most that was ever taken

	always, steps, held []atomic.Bool // by claim: it is broken; it was so once
	watch               *watch        // to find the way to something; nil in the main search
	keep                bool          // keep all levels
	visit               func(from, to State, m Move)

	mu       sync.Mutex
	firstErr error
}

// A block is some states of one depth, each as its length, its sum in two words and its tuple.
type block struct {
	words  []uint32
	states int
}

const (
	blockWords  = 4096
	headerWords = 3
	// takeAtOnce is how many states are looked up together, so that their slots are fetched together.
	takeAtOnce = 64
)

func (b *block) add(s state) {
	b.words = append(b.words, uint32(len(s.tuple)), uint32(s.sum), uint32(s.sum>>32))
	b.words = append(b.words, s.tuple...)
	b.states++
}

// at returns the state at a place, and the place of the next.
func (b *block) at(place int) (state, int) {
	h := b.words[place : place+headerWords]
	next := place + headerWords + int(h[0])
	return state{b.words[place+headerWords : next], uint64(h[1]) | uint64(h[2])<<32}, next
}

// seeker is a worker of the search.
type seeker struct {
	worker
	orbits  *orbits
	reached block // the successors of from
	room    int   // slots of visited that are reserved
	out     []*block
	spare   []*block
	from    state // that is being expanded
	before  State // of from
	after   State
	moved   int
	count   int // of states found
	order   int // of the first of reached among the successors
	near    uint64
}

func newExplorer(sys System, claims Claims, limits Limits) *explorer {
	if limits.Workers <= 0 {
		limits.Workers = runtime.GOMAXPROCS(0)
	}
	if limits.States <= 0 {
		limits.States = 100_000_000
	}
	x := &explorer{sys: sys, claims: claims, limits: limits, budget: sys.Faults.budgets(),
		forever: sys.Faults.Duplicates == Unlimited, slots: make([]uint32, len(sys.Nodes)),
		begun: time.Now(), phase: Searching,
		always: make([]atomic.Bool, len(claims.Always)), steps: make([]atomic.Bool, len(claims.Steps)),
		held: make([]atomic.Bool, len(claims.Sometimes))}
	if limits.Progress != nil {
		x.tick = time.Tick(time.Second)
	}
	x.links = x.budget[partition] != 0 || x.budget[cutting] != 0
	x.keep = claims.Decided != nil
	if x.forever {
		x.budget[duplication], x.budget[loss] = 0, 0
	}
	if len(sys.Symmetric) > 0 {
		x.symmetry = newSymmetry(x, sys.Symmetric)
	}
	return x
}

func (x *explorer) newSeeker() *seeker {
	k := &seeker{worker: *x.newWorker()}
	k.before.x, k.after.x = x, x
	if x.symmetry != nil {
		k.orbits = newOrbits(x.symmetry)
	}
	return k
}

func (x *explorer) local(n uint32) *local { return x.locals.get(n) }

// levels are the blocks of each depth: all of them, or only the last.
type levels [][]*block

// search goes through all states. It reports the depth of the last and whether that was all.
func (x *explorer) search(ctx context.Context) (all levels, depth int, complete bool, err error) {
	seekers := make([]*seeker, x.limits.Workers)
	for i := range seekers {
		seekers[i] = x.newSeeker()
		if x.visit == nil && len(x.claims.Steps) == 0 && x.watch == nil && x.symmetry == nil { // else each counts
			seekers[i].recent = new(recent)
		}
	}
	level, err := x.first(seekers[0])
	for err == nil && len(level) > 0 {
		all = append(all, level)
		if ctx.Err() != nil || x.full() || x.watch.satisfied() {
			return all, depth, false, nil
		}
		var next []*block
		if next, err = x.expand(ctx, level, seekers); len(next) > 0 {
			depth++
			x.depth.Store(int64(depth))
		}
		if !x.keep {
			for i, b := range level {
				k := seekers[i%len(seekers)]
				k.spare = append(k.spare, b)
			}
			all[len(all)-1] = nil
		}
		level = next
	}
	return all, depth, err == nil && x.expanded.Load() == x.found.Load(), err
}

func (x *explorer) full() bool { return x.found.Load() > int64(x.limits.States) }

// first takes in the initial states.
func (x *explorer) first(k *seeker) ([]*block, error) {
	initial, err := x.initial()
	if err != nil {
		return nil, err
	}
	x.visited.mu.RLock()
	defer x.visited.mu.RUnlock()
	for i, s := range initial {
		k.order = i
		k.arrive(action{}, s)
		k.takeIn()
	}
	x.settle(k)
	x.watch.next()
	return k.take(), k.err
}

// initial returns the initial states: every combination of the nodes' ways to begin.
func (x *explorer) initial() ([]state, error) {
	beginnings := make([][]uint32, len(x.sys.Nodes))
	tuples := [][]uint32{{}}
	for i, node := range x.sys.Nodes {
		for _, fresh := range node.New {
			n, err := x.begin(i, fresh())
			if err != nil {
				return nil, err
			}
			beginnings[i] = append(beginnings[i], n)
		}
		var longer [][]uint32
		for _, tuple := range tuples {
			for _, n := range beginnings[i] {
				longer = append(longer, append(slices.Clone(tuple), n))
			}
		}
		tuples = longer
	}
	if x.symmetry != nil {
		if err := x.symmetry.verify(beginnings); err != nil {
			return nil, err
		}
	}
	world := x.internWorld([faultKinds]uint8{}, nil)
	states := make([]state, len(tuples))
	for i, tuple := range tuples {
		states[i] = x.state(append(tuple, world))
	}
	return states, nil
}

// state makes a state of a tuple.
func (x *explorer) state(tuple []uint32) state {
	n := len(x.sys.Nodes)
	s := state{tuple: tuple, sum: x.worlds.get(tuple[n]).hash}
	for _, l := range tuple[:n] {
		s.sum += x.local(l).hash
	}
	x.eachMessage(s, func(m uint32) { s.sum += x.messages.get(m).hash })
	return s
}

// begin numbers the first state of a node. A machine to which Start means nothing has started.
func (x *explorer) begin(node int, m protocol.Machine) (uint32, error) {
	n, err := x.intern(snapshot{node: node, up: true, machine: m})
	if err != nil {
		return 0, err
	}
	r, err := x.step(x.local(n), triggerStart)
	if err != nil {
		return 0, err
	}
	if l := x.local(r.next); len(r.sends) == 0 && !r.wrote && len(l.timers) == 0 && l.encoded == x.local(n).encoded {
		return r.next, nil
	}
	return n, nil
}

// expand takes all states of one depth one step further, in parallel.
func (x *explorer) expand(ctx context.Context, level []*block, seekers []*seeker) (next []*block, err error) {
	var taken atomic.Int64
	var group sync.WaitGroup
	workers := min(len(seekers), len(level))
	done := make(chan struct{})
	for _, k := range seekers[:workers] {
		group.Go(func() {
			for {
				i := int(taken.Add(1)) - 1
				if i >= len(level) || ctx.Err() != nil || x.full() || x.watch.satisfied() {
					return
				}
				if err := k.expand(level[i]); err != nil {
					x.fail(err)
					return
				}
			}
		})
	}
	go func() {
		group.Wait()
		close(done)
	}()
	x.wait(done)
	for _, k := range seekers[:workers] {
		next = append(next, k.take()...)
	}
	return next, x.firstErr
}

func (x *explorer) fail(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.firstErr == nil {
		x.firstErr = err
	}
}

func (k *seeker) expand(b *block) error {
	x := k.x
	x.visited.mu.RLock()
	defer x.visited.mu.RUnlock()
	arrive := k.arrive
	for place := 0; place < len(b.words); {
		k.from, place = b.at(place)
		k.order = 0
		if err := k.successors(k.from, arrive); err != nil {
			return err
		}
		if k.reached.states >= takeAtOnce || x.watch != nil { // it wants to know from which state each is reached
			k.takeIn()
			x.watch.next()
		}
	}
	k.takeIn()
	x.expanded.Add(int64(b.states))
	x.settle(k)
	return nil
}

// settle adds what k has counted to the whole.
func (x *explorer) settle(k *seeker) {
	x.found.Add(int64(k.count))
	x.transitions.Add(int64(k.moved))
	k.count, k.moved = 0, 0
}

// take returns the blocks that k has filled.
func (k *seeker) take() []*block {
	out := k.out
	k.out = nil
	return out
}

// arrive notes a state that is reached from k.from.
func (k *seeker) arrive(a action, s state) {
	if k.x.visit != nil {
		k.show(a, s)
	}
	if len(k.x.claims.Steps) > 0 {
		k.judgeStep(s)
	}
	if k.orbits != nil {
		var err error
		if s, _, err = k.orbits.representative(s); err != nil {
			k.err = err
			return
		}
	}
	if k.recent != nil {
		h := fingerprint(s.sum)
		if k.recent.has(h) {
			k.left++
			return
		}
		k.recent.add(h)
	}
	k.reached.add(s)
}

// takeIn takes in the states that were reached, in their order.
func (k *seeker) takeIn() {
	x := k.x
	k.moved += k.reached.states + k.left
	k.left = 0
	if k.room < k.reached.states {
		x.visited.mu.RUnlock()
		k.room += x.visited.room(k.reached.states)
		x.visited.mu.RLock()
	}
	var near uint64
	for place := 0; place < len(k.reached.words); {
		var s state
		s, place = k.reached.at(place)
		near |= x.visited.touch(fingerprint(s.sum))
	}
	k.near = near
	for place := 0; place < len(k.reached.words); k.order++ {
		var s state
		s, place = k.reached.at(place)
		if !x.visited.add(fingerprint(s.sum)) {
			continue
		}
		k.room--
		k.count++
		x.watch.add(k.order)
		k.store(s)
		k.judge(s)
	}
	k.reached.words, k.reached.states = k.reached.words[:0], 0
}

// store keeps s to be expanded.
func (k *seeker) store(s state) {
	last := len(k.out) - 1
	size := headerWords + len(s.tuple)
	if last < 0 || len(k.out[last].words)+size > cap(k.out[last].words) {
		k.out = append(k.out, k.block(size))
		last++
	}
	k.out[last].add(s)
}

func (k *seeker) block(size int) *block {
	if n := len(k.spare) - 1; n >= 0 && cap(k.spare[n].words) >= size {
		b := k.spare[n]
		k.spare = k.spare[:n]
		b.words, b.states = b.words[:0], 0
		return b
	}
	size = max(size, blockWords)
	k.x.memory.Add(int64(4 * size))
	return &block{words: make([]uint32, 0, size)}
}

// judge puts the claims about single states to the test.
func (k *seeker) judge(s state) {
	x := k.x
	k.after.tuple = s.tuple
	for i, p := range x.claims.Always {
		if !x.always[i].Load() && !p.Holds(&k.after) {
			x.always[i].Store(true)
			x.watch.sawAlways(i)
		}
	}
	for i, p := range x.claims.Sometimes {
		if !x.held[i].Load() && p.Holds(&k.after) {
			x.held[i].Store(true)
		}
	}
	x.watch.saw(s.sum)
}

// judgeStep puts the claims about steps to the test.
func (k *seeker) judgeStep(s state) {
	x := k.x
	k.before.tuple, k.after.tuple = k.from.tuple, s.tuple
	for i, p := range x.claims.Steps {
		if x.steps[i].Load() {
			continue
		}
		ok := false
		if k.from.tuple == nil {
			ok = p.Holds(nil, &k.after)
		} else {
			ok = p.Holds(&k.before, &k.after)
		}
		if !ok {
			x.steps[i].Store(true)
			x.watch.sawStep(i, k.order+k.reached.states)
		}
	}
}

// wait tells of the progress until done.
func (x *explorer) wait(done chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-x.tick:
			x.progress()
		}
	}
}
