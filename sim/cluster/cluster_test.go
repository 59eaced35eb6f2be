package cluster_test

import (
	"errors"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"assent/sim"
	"assent/sim/cluster"
	"assent/sim/simtest"
	"assent/trace"
)

func members(votes ...int) (all []cluster.Member) {
	for i, v := range votes {
		all = append(all, cluster.Member{Node: []cluster.Member{{Node: "a"}, {Node: "b"}, {Node: "c"}, {Node: "d"}, {Node: "e"}}[i].Node, Votes: v})
	}
	return all
}

// sizes are the clusters whose seeds are run: three nodes most often.
func sizes() []*cluster.Cluster {
	return []*cluster.Cluster{
		{},
		{Members: members(1, 1, 1, 1, 1), Jobs: 5},
		{Clients: 3, Jobs: 9},
		{Log: cluster.Disk},
		{},
		{Members: members(1)},
		{},
		{Members: members(2, 1, 1, 1)},
	}
}

// reachable is what must happen in some of the seeds of a test: the simulator is worth nothing where it
// does not.
var reachable = []string{
	"a client gives up: nothing is decided", "a client learns from another node: abort",
	"a client learns from another node: commit", "a consistent read", "set: applied",
	"concluded: abort, cancelled", "concluded: abort, no answer", "concluded: abort, settled",
	"concluded: abort, voted no", "concluded: commit, settled", "concluded: commit, unanimous",
	"decided: abort, by recovery", "decided: commit, by coordinator",
	"recovery: a branch in doubt", "recovery: a vote that nobody waits for", "recovery: an orphan",
	"recovery: an unfinished decision", "recovery: what was accepted is settled",
	"exclude: applied", "leave: applied", "weigh: applied", "exclude: refused", "a node has left and is not needed",
	"recovery: a branch on a node that is no member", "the registers move",
	"who comes back drops what it held",
	"view 2", "view 9", "vote: no", "vote: read-only", "vote: yes", "work refused: locked",
}

// TestSeeds runs clusters of one to five nodes through many seeds: no claim is broken, every class of faults
// strikes, and all that should be possible happens. Every sixth seed is run twice, under the race detector every
// sixteenth, and must give the same trace byte for byte.
func TestSeeds(t *testing.T) {
	seeds, every := 600, 6
	if simtest.UnderRace {
		seeds, every = 80, 16
	}
	all := sizes()
	y := &simtest.Tally{}
	var workers sync.WaitGroup
	n := runtime.GOMAXPROCS(0)
	for k := range n {
		workers.Go(func() {
			for seed := 1 + k; seed <= seeds && !t.Failed(); seed += n {
				c := all[seed/4%len(all)]
				run := y.Once
				if seed%every == 0 {
					run = y.Twice
				}
				run(t, c, c.Draw(uint64(seed), cluster.Classes()), c.Work())
			}
		})
	}
	workers.Wait()
	if !simtest.UnderRace { // which sees too few to meet everything
		y.Complete(t, cluster.Classes(), reachable)
	}
}

// TestGone takes nodes away for good, while all else may go wrong too: the others finish everything that they
// have a part in, and clients learn of it there.
func TestGone(t *testing.T) {
	seeds := uint64(60)
	if simtest.UnderRace {
		seeds = 4
	}
	for name, c := range map[string]*cluster.Cluster{"one of three": {}, "two of five": {Members: members(1, 1, 1, 1, 1)}} {
		t.Run(name, func(t *testing.T) {
			for _, classes := range [][]sim.Class{{sim.Gone}, {sim.Gone, sim.Delay, sim.Slow}} {
				sum, err := sim.Seeds(t.Context(), c, 1, seeds, classes, 0, nil)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range sum.Failed {
					t.Errorf("seed %d: %v", r.Plan.Seed, r.Failure)
				}
				if sum.Fired[sim.Gone] == 0 {
					t.Error("nobody was gone")
				}
			}
		})
	}
}

// TestLoneFounderChanges runs plans that once failed, of a founder of one whose members change eight times. In the first a
// node with most of the votes leads while the founder is down, and leaves by what it agrees on alone; then the founder leads,
// and needs for the slots before that who promises nothing any more. In the second all crash at the end, and who leads then
// has the promises for the last configuration and not for the one before it. In the next two the last slots are settled out
// of turn, and the one before them is told by another. In the others all crash at the end, one that had left among
// them, and forget alike what stood last: until they know it again nothing is over.
func TestLoneFounderChanges(t *testing.T) {
	seeds := []uint64{501285, 500292, 500692, 503088, 500652, 501492, 503396}
	if simtest.UnderRace {
		seeds = []uint64{501285, 501492}
	}
	c := &cluster.Cluster{Members: members(1), Changes: 8}
	for _, seed := range seeds {
		classes := cluster.Classes()
		if seed%2 == 0 {
			classes = slices.DeleteFunc(classes, func(k sim.Class) bool { return k == sim.Gone })
		}
		r, err := c.Run(c.Draw(seed, classes), nil)
		if err != nil || r.Failure != nil {
			t.Errorf("seed %d: %v, %v", seed, err, r.Failure)
		}
	}
}

// TestDiskBlocks takes away a node on whose disk alone the decisions are: what it has begun stays in doubt
// at the others.
func TestDiskBlocks(t *testing.T) {
	c := &cluster.Cluster{Log: cluster.Disk, Bound: 30 * time.Second}
	blocked := 0
	for seed := range uint64(24) {
		plan := c.Draw(seed, nil)
		plan.Faults = []sim.Fault{{Class: sim.Gone, At: time.Duration(100+seed*75) * time.Millisecond, For: time.Second, Node: "a"}}
		r, err := c.Run(plan, nil)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case r.Failure == nil:
		case r.Failure.Claim != sim.Ended:
			t.Errorf("seed %d: %v", seed, r.Failure)
		default:
			blocked++
		}
	}
	if blocked == 0 {
		t.Error("nothing has blocked")
	}
}

// TestLies has nodes send well-formed messages that are not true. Nobody here bears that, so claims must
// break; the hands must bear it, so no run may fail otherwise.
func TestLies(t *testing.T) {
	c := &cluster.Cluster{}
	broken := map[string]int{}
	for seed := range uint64(16) {
		r, err := c.Run(c.Draw(seed, []sim.Class{sim.Lying}), nil)
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

// TestSoak is the long search: 10,000 seeds.
func TestSoak(t *testing.T) {
	if os.Getenv("ASSENT_SOAK") == "" {
		t.Skip("set ASSENT_SOAK for the 10,000 seeds")
	}
	var sum sim.Summary
	settled := 0
	for i, c := range sizes() {
		first := uint64(1_000_000 + 1250*i)
		s, err := sim.Seeds(t.Context(), c, first, first+1249, cluster.Classes(), 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, r := range s.Failed {
			t.Errorf("cluster %d, seed %d: %v", i, r.Plan.Seed, r.Failure)
			if k == 0 {
				simtest.Explain(t, c, r, c.Work())
			}
		}
		settled += s.Reached["the registers move: what was accepted is settled"]
		sum.Seeds += s.Seeds
		sum.Elapsed += s.Elapsed
		sum.Simulated += s.Simulated
		sum.Events += s.Events
		sum.Messages += s.Messages
	}
	if settled == 0 {
		t.Error("no move has settled what was accepted alone")
	}
	t.Logf("%d seeds in %v, %.0f a second; %v simulated, %.0f times as fast as real time; %d events, %d messages",
		sum.Seeds, sum.Elapsed, float64(sum.Seeds)/sum.Elapsed.Seconds(), sum.Simulated,
		sum.Simulated.Seconds()/sum.Elapsed.Seconds(), sum.Events, sum.Messages)
}

// TestHeader makes the cluster and the plan again from the header of a trace.
func TestHeader(t *testing.T) {
	for _, changes := range []int{-1, 0, 3} {
		c := &cluster.Cluster{Members: members(3, 1, 2), Log: cluster.Disk, Clients: 1, Accounts: 2, Jobs: 3, Changes: changes}
		plan := c.Draw(7, cluster.Classes())
		again, replan, err := cluster.FromHeader(c.Header(plan))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(simtest.Text(t, c, plan), simtest.Text(t, again, replan)); d != "" {
			t.Error(d)
		}
	}
}

// TestTracesAreRead reads the events of a trace back: every value in it can be written and read.
func TestTracesAreRead(t *testing.T) {
	c := &cluster.Cluster{}
	for seed := range uint64(4) {
		r, err := trace.NewReader(strings.NewReader(simtest.Text(t, c, c.Draw(seed, cluster.Classes()))), c.Types())
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = r.Next()
		}
		if !errors.Is(err, io.EOF) {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// What cannot be run is refused, by all who might run it.
func TestRefuses(t *testing.T) {
	for name, c := range map[string]*cluster.Cluster{
		"a name twice":       {Members: []cluster.Member{{Node: "a"}, {Node: "a"}}},
		"a client's name":    {Members: []cluster.Member{{Node: "client1"}}},
		"a name too long":    {Members: []cluster.Member{{Node: "abcdefghijklmn"}}},
		"a name of a prefix": {Members: []cluster.Member{{Node: "a-b"}}},
		"votes below 0":      {Members: []cluster.Member{{Node: "a", Votes: -1}}},
		"no such log":        {Log: "paper"},
		"too many jobs":      {Jobs: 2000},
		"less than no one":   {Clients: -1},
		"too many changes":   {Changes: 9},
	} {
		plan := c.Draw(1, cluster.Classes())
		if _, err := c.Run(plan, nil); !errors.Is(err, sim.ErrSystem) {
			t.Errorf("%s: %v", name, err)
		}
		if _, _, err := cluster.FromHeader(c.Header(plan)); err == nil {
			t.Errorf("%s: its header is read", name)
		}
	}
	c := &cluster.Cluster{}
	if _, err := c.Run(sim.Plan{Safety: time.Millisecond}, nil); !errors.Is(err, sim.ErrSystem) {
		t.Errorf("a phase of a millisecond: %v", err)
	}
}

func BenchmarkSeed(b *testing.B) {
	c := &cluster.Cluster{}
	for seed := uint64(1); b.Loop(); seed++ {
		if _, err := c.Run(c.Draw(seed, cluster.Classes()), nil); err != nil {
			b.Fatal(err)
		}
	}
}
