package cluster

import (
	"testing"
	"time"

	"assent/sim"
)

// TestFlaws gives the cluster one fault each and wants it found by a claim, and the plan of the seed shrunk to a
// few faults and pieces of work, and its script to replay.
func TestFlaws(t *testing.T) {
	if UnderRace {
		t.Skip("it takes long here; make test runs it without the race detector")
	}
	moving := Cluster{Members: []Member{{Node: "a"}, {Node: "b"}, {Node: "c", Votes: 3}}, Changes: 8, Jobs: 24, Safety: 15 * time.Second}
	cut := []sim.Class{sim.Crash, sim.Loss, sim.Partition, sim.OneWay, sim.Delay}
	for name, f := range map[string]struct {
		flaw
		first   uint64 // a seed from which on it is found soon, to save time
		cluster Cluster
		classes []sim.Class
	}{
		"what the registers do not know is taken for aborted": {unknownIsAbort, 290, Cluster{}, Classes()},
		"an acceptor comes back without what it promised":     {forgetsRecord, 370, Cluster{}, Classes()},
		"one vote less than must be is read":                  {smallQuorum, 406, Cluster{}, Classes()},
		"what stands in the register is ignored":              {ignoresAnswer, 38, Cluster{}, Classes()},
		"commit is told when it is proposed":                  {tellsEarly, 3, Cluster{}, Classes()},
		"every life of a node has the same name":              {reusesName, 47, Cluster{}, Classes()},
		"votes leave an acceptor before they are stable":      {votesUnforced, 888, Cluster{}, Classes()},
		"who stays drops what it holds when an epoch begins":  {dropsHeld, 290, Cluster{}, Classes()},
		"the registers move and nobody reads the old ones":    {movesUnread, 327, moving, cut},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &f.cluster
			c.flaw = f.flaw
			for seed := f.first; ; seed++ {
				if seed > f.first+3000 {
					t.Fatal("no seed has found it")
				}
				plan := c.Draw(seed, f.classes)
				r, err := c.Run(plan, nil)
				if err != nil {
					t.Fatal(err)
				}
				if r.Failure == nil {
					continue
				}
				r.Plan = plan
				small, err := sim.Explain(t.Context(), c, r, c.Work())
				if err != nil {
					t.Fatal(err)
				}
				left := c.Work() - len(small.Plan.Skip)
				t.Logf("seed %d: %v; %d faults and %d pieces of work, after %d runs %d faults and %d pieces: %v", seed, r.Failure,
					len(plan.Faults), c.Work(), small.Runs, len(small.Plan.Faults), left, small.Failure)
				if small.Failure == nil || small.Failure.Claim != r.Failure.Claim || len(small.Plan.Faults) > 8 || left > 8 {
					t.Fatalf("it was shrunk to %v, %v", small.Plan.Faults, small.Failure)
				}
				replays(t, c, small)
				return
			}
		})
	}
}
