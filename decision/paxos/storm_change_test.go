package paxos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"assent/protocol"
)

// council stands for what agrees on epochs, the replicated log: it has the latest.
type council struct {
	mu     sync.Mutex
	latest Epoch
}

func (c *council) epoch() Epoch {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.latest
}

func (c *council) set(e Epoch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.latest = e
}

// changer changes the members, each time by one or two of the nodes at once, until it is told to stop, and on a
// busy machine until it has done so twice. It returns how often they have changed.
func (s *storm) changer(c *council, all []protocol.NodeID, rng *rand.Rand, stop *atomic.Bool) (changes int) {
	for !stop.Load() || changes < 2 && !s.t.Failed() {
		was := c.epoch()
		var names []protocol.NodeID
		for _, i := range rng.Perm(len(all))[:3] {
			names = append(names, all[i])
		}
		next := s.members(was, names...)
		if next == nil {
			time.Sleep(time.Millisecond)
			continue // one of them is down
		}
		both, after := Epoch{Number: was.Number + 1, Members: was.Members, Next: next}, Epoch{Number: was.Number + 2, Members: next}
		c.set(both)
		if s.carry(both, after, all, rng, stop) {
			c.set(after)
			changes++
		}
	}
	return changes
}

// carry has nodes move until one has done so, and then some enter the epoch after. It reports whether one
// has.
func (s *storm) carry(both, after Epoch, all []protocol.NodeID, rng *rand.Rand, stop *atomic.Bool) bool {
	for tries := 0; ; tries++ {
		if stop.Load() && tries > 200 || s.t.Context().Err() != nil {
			s.t.Errorf("no move to epoch %d", after.Number)
			return false
		}
		var wg sync.WaitGroup
		var moved atomic.Bool
		for range 1 + rng.IntN(2) {
			l := s.log(all[rng.IntN(len(all))])
			if l == nil {
				continue
			}
			patience := time.Duration(20+rng.IntN(400)) * time.Millisecond
			if stop.Load() { // the storm is over
				patience = 10 * time.Second
			}
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(s.t.Context(), patience)
				defer cancel()
				if l.Move(ctx, both, after) == nil {
					moved.Store(true)
				}
			})
		}
		wg.Wait()
		if moved.Load() {
			break
		}
		time.Sleep(time.Millisecond)
	}
	for range 1 + rng.IntN(2) {
		if l := s.log(all[rng.IntN(len(all))]); l != nil {
			ctx, cancel := context.WithTimeout(s.t.Context(), 100*time.Millisecond)
			_ = l.Enter(ctx, after)
			cancel()
		}
	}
	return true
}

// TestStormOfChanges is TestStorm while the members change all the time: among four nodes three are, and
// whoever is not comes back. Those that crash do so with moves under way, and with proposals of epochs that
// are over.
func TestStormOfChanges(t *testing.T) {
	t.Parallel()
	rounds, seeds := 12, 2
	if os.Getenv("ASSENT_SOAK") != "" {
		rounds, seeds = 60, 20
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			s := newStorm(t, 3)
			s.add("d")
			all, c, rng := slices.Clone(s.names), &council{latest: s.cfg.Epoch}, rand.New(rand.NewPCG(uint64(seed), 13))
			changes := 0
			s.rage(uint64(seed), rounds, func(stop *atomic.Bool) { changes = s.changer(c, all, rng, stop) })
			s.names = names(c.epoch().Members)
			s.settle(uint64(seed))
			s.names = all
			if changes < 2 {
				t.Errorf("the members have changed %d times", changes)
			}
			t.Logf("the members have changed %d times", changes)
		})
	}
}
