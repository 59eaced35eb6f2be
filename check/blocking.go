package check

import (
	"context"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
)

// blocking finds the states from which a node that is up can no longer come to its end, whatever
// happens short of another fault. Each state has a bit for each node that can: those that are down or
// have come to their end can; and a state has the bits of all states that follow without a fault.
// The states are gone through, the deepest first, until nothing changes any more.
type blocking struct {
	x     *explorer
	all   levels
	every uint32   // a bit for each node
	can   []uint32 // by slot of visited
}

// block does it. It returns the fingerprint of a shallowest blocked state, or 0.
func (x *explorer) block(ctx context.Context, all levels, r *Report) (target uint64, err error) {
	b := &blocking{x: x, all: all, every: uint32(1<<len(x.sys.Nodes) - 1), can: make([]uint32, len(x.visited.slots))}
	r.Bytes += 4 * len(b.can)
	x.enter(Blocking)
	if err = b.each(ctx, func(s state, slot int, _ *seeker) error {
		b.can[slot] = b.ends(s.tuple)
		return nil
	}); err != nil {
		return 0, err
	}
	for changed := true; changed && err == nil && ctx.Err() == nil; {
		changed, err = b.pass(ctx)
	}
	if err != nil || ctx.Err() != nil {
		return 0, err
	}
	return b.count(ctx, r), nil
}

// ends returns the nodes that are down or have come to their end.
func (b *blocking) ends(tuple []uint32) (nodes uint32) {
	for i := range b.x.sys.Nodes {
		if b.x.ended(b.x.local(tuple[i])) {
			nodes |= 1 << i
		}
	}
	return nodes
}

// ended reports whether a node is down or has come to its end.
func (x *explorer) ended(l *local) bool {
	const yes, no = 1, 2
	if known := l.ended.Load(); known != 0 {
		return known == yes
	}
	answer := !l.up || x.claims.Decided(l.node, l.machine)
	if answer {
		l.ended.Store(yes)
	} else {
		l.ended.Store(no)
	}
	return answer
}

// pass goes through all states once and reports whether anything changed.
func (b *blocking) pass(ctx context.Context) (bool, error) {
	var changed atomic.Bool
	err := b.each(ctx, func(s state, slot int, k *seeker) error {
		had := atomic.LoadUint32(&b.can[slot])
		if had == b.every {
			return nil
		}
		can := had
		err := k.successors(s, func(_ action, to state) {
			if k.orbits == nil {
				can |= atomic.LoadUint32(&b.can[b.x.visited.find(fingerprint(to.sum))])
				return
			}
			stands, r, err := k.orbits.representative(to)
			if err != nil {
				k.err = err
				return
			}
			nodes := atomic.LoadUint32(&b.can[b.x.visited.find(fingerprint(stands.sum))])
			for i := range b.x.sys.Nodes {
				can |= nodes >> b.x.symmetry.node(i, r) & 1 << i
			}
		})
		if can != had {
			atomic.OrUint32(&b.can[slot], can)
			changed.Store(true)
		}
		return err
	})
	return changed.Load(), err
}

// each calls f with every state, the deepest first, in parallel. When ctx ends it leaves the rest out.
func (b *blocking) each(ctx context.Context, f func(s state, slot int, k *seeker) error) error {
	b.x.gone.Store(0)
	for _, level := range slices.Backward(b.all) {
		var group sync.WaitGroup
		var taken atomic.Int64
		for range min(b.x.limits.Workers, len(level)) {
			group.Go(func() {
				k := b.x.newSeeker()
				k.faultless = true
				for i := int(taken.Add(1)) - 1; i < len(level) && ctx.Err() == nil; i = int(taken.Add(1)) - 1 {
					for place := 0; place < len(level[i].words); {
						var s state
						s, place = level[i].at(place)
						if err := f(s, b.x.visited.find(fingerprint(s.sum)), k); err != nil {
							b.x.fail(err)
							return
						}
					}
					b.x.gone.Add(int64(level[i].states))
				}
			})
		}
		done := make(chan struct{})
		go func() {
			group.Wait()
			close(done)
		}()
		b.x.wait(done)
	}
	return b.x.firstErr
}

// count counts the blocked states and hands out all states. It returns the least fingerprint of the
// shallowest that are blocked, or 0. When ctx ends first nothing is known.
func (b *blocking) count(ctx context.Context, r *Report) (target uint64) {
	shown := State{x: b.x}
	for _, level := range b.all {
		first := target == 0
		for _, block := range level {
			if ctx.Err() != nil {
				r.Blocking = 0
				return 0
			}
			for place := 0; place < len(block.words); {
				var s state
				s, place = block.at(place)
				h := fingerprint(s.sum)
				blocked := b.every &^ b.can[b.x.visited.find(h)]
				if blocked != 0 {
					r.Blocking++
					if first && (target == 0 || h < target) {
						target = h
					}
				}
				if b.x.claims.Blocked != nil {
					shown.tuple = s.tuple
					b.x.claims.Blocked(&shown, nodesOf(blocked))
				}
			}
		}
	}
	r.BlockingKnown = true
	return target
}

func nodesOf(set uint32) (nodes []int) {
	for ; set != 0; set &= set - 1 {
		nodes = append(nodes, bits.TrailingZeros32(set))
	}
	return nodes
}
