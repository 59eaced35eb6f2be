package stack_test

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"assent/sim"
	"assent/sim/simtest"
	"assent/sim/stack"
)

// reachable is what must happen in some of the seeds of a test: the simulator is worth nothing where it
// does not.
var reachable = []string{
	"a consistent read", "a decision is forgotten", "a one-phase commit",
	"concluded: abort, cancelled", "concluded: abort, no answer", "concluded: abort, one phase",
	"concluded: abort, settled", "concluded: abort, voted no",
	"concluded: commit, one phase", "concluded: commit, settled", "concluded: commit, unanimous",
	"recovery: a branch in doubt", "recovery: an orphan",
	"recovery: an unfinished abort", "recovery: an unfinished commit",
	"the log holds abort", "the log holds commit", "the log was opened again in place",
	"vote: no", "vote: read-only", "vote: yes", "work refused: lock timeout",
}

// TestSeeds runs the whole stack through 2,000 seeds, each twice, which must give the same trace byte for
// byte: no claim is broken, every class of faults strikes, and all that should be possible happens. The
// race detector sees the first 60 of them.
func TestSeeds(t *testing.T) {
	seeds := 2000
	if simtest.UnderRace {
		seeds = 60
	}
	sizes := []*stack.Stack{
		{Size: stack.Size{Coordinators: 1, Sites: 2, Jobs: 5}},
		{Size: stack.Size{Coordinators: 1, Sites: 3, Jobs: 6}},
		{Size: stack.Size{Coordinators: 2, Sites: 2, Jobs: 7}},
		{},
	}
	y := &simtest.Tally{}
	var all sync.WaitGroup
	workers := 2 * runtime.GOMAXPROCS(0) // the goroutines of a store now and then wait for a clock
	for k := range workers {
		all.Go(func() {
			for seed := 1 + k; seed <= seeds && !t.Failed(); seed += workers {
				s := sizes[seed%len(sizes)]
				y.Twice(t, s, s.Draw(uint64(seed), sim.Classes()), s.Work())
			}
		})
	}
	all.Wait()
	if !simtest.UnderRace { // which sees too few to meet everything
		y.Complete(t, slices.DeleteFunc(sim.Classes(), func(c sim.Class) bool { return c == sim.Whim }), reachable)
	}
}

// TestLies has nodes send well-formed messages that are not true. Two-phase commit does not bear that, so
// claims must break; the hands must bear it, so no run may fail otherwise.
func TestLies(t *testing.T) {
	s := &stack.Stack{}
	broken := map[string]int{}
	seeds := uint64(40)
	if simtest.UnderRace {
		seeds = 20
	}
	for seed := range seeds {
		r, err := s.Run(s.Draw(seed, []sim.Class{sim.Lying}), nil)
		if err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		if r.Failure != nil {
			broken[r.Failure.Claim]++
		}
	}
	t.Logf("claims broken by lies: %v", broken)
	if len(broken) == 0 {
		t.Error("nobody has noticed a lie")
	}
}

// TestSoak is the long search: 100,000 seeds.
func TestSoak(t *testing.T) {
	if os.Getenv("ASSENT_SOAK") == "" {
		t.Skip("set ASSENT_SOAK for the 100,000 seeds")
	}
	s := &stack.Stack{}
	sum, err := sim.Seeds(t.Context(), s, 1_000_000, 1_099_999, sim.Classes(), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range sum.Failed {
		t.Errorf("seed %d: %v", r.Plan.Seed, r.Failure)
		if i == 0 {
			simtest.Explain(t, s, r, s.Work())
		}
	}
	t.Logf("%d seeds in %v, %.0f a second; %v simulated, %.0f times as fast as real time; %d events, %d messages",
		sum.Seeds, sum.Elapsed, float64(sum.Seeds)/sum.Elapsed.Seconds(), sum.Simulated,
		sum.Simulated.Seconds()/sum.Elapsed.Seconds(), sum.Events, sum.Messages)
}

// TestHeader makes the stack and the plan again from the header of a trace.
func TestHeader(t *testing.T) {
	s := &stack.Stack{Size: stack.Size{Coordinators: 1, Sites: 2, Accounts: 3, Jobs: 5}}
	plan := s.Draw(7, sim.Classes())
	again, replan, err := stack.FromHeader(s.Header(plan))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(simtest.Text(t, s, plan), simtest.Text(t, again, replan)); d != "" {
		t.Error(d)
	}
}

// What cannot be run is refused, by all who might run it.
func TestRefuses(t *testing.T) {
	s := &stack.Stack{}
	plan := sim.Plan{Safety: time.Second, Faults: []sim.Fault{
		{Class: sim.TornWrite, At: 500 * time.Millisecond, For: time.Second, Node: "s1", Rate: 900}}}
	if _, _, err := stack.FromHeader(s.Header(plan)); !errors.Is(err, sim.ErrSystem) {
		t.Errorf("a torn write that keeps 900 %%: %v", err)
	}
	if _, err := s.Run(plan, nil); !errors.Is(err, sim.ErrSystem) {
		t.Errorf("a torn write that keeps 900 %%: %v", err)
	}
	none := &stack.Stack{Size: stack.Size{Coordinators: -2, Sites: 1}}
	if _, err := sim.Seeds(t.Context(), none, 1, 20, sim.Classes(), 1, nil); !errors.Is(err, sim.ErrSystem) {
		t.Errorf("less than no coordinators: %v", err)
	}
}

func BenchmarkSeed(b *testing.B) {
	s := &stack.Stack{}
	for seed := uint64(1); b.Loop(); seed++ {
		if _, err := s.Run(s.Draw(seed, sim.Classes()), nil); err != nil {
			b.Fatal(err)
		}
	}
}
