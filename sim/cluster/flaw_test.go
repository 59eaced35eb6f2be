package cluster

import (
	"testing"

	"assent/sim"
)

// TestFlaws gives the cluster one fault each and wants it found by a claim, and the plan of the seed shrunk to a
// few faults and pieces of work, and its script to replay.
func TestFlaws(t *testing.T) {
	if UnderRace {
		t.Skip("it takes long here; make test runs it without the race detector")
	}
	for name, f := range map[string]struct {
		flaw
		first uint64 // a seed from which on it is found soon, to save time
	}{
		"what the registers do not know is taken for aborted": {unknownIsAbort, 478},
		"an acceptor comes back without what it promised":     {forgetsRecord, 14},
		"one vote less than must be is read":                  {smallQuorum, 2926},
		"what stands in the register is ignored":              {ignoresAnswer, 14},
		"commit is told when it is proposed":                  {tellsEarly, 1},
		"every life of a node has the same name":              {reusesName, 11},
		"votes leave an acceptor before they are stable":      {votesUnforced, 478},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &Cluster{flaw: f.flaw}
			for seed := f.first; ; seed++ {
				if seed > f.first+3000 {
					t.Fatal("no seed has found it")
				}
				plan := c.Draw(seed, Classes())
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
				t.Logf("seed %d: %v; %d faults and %d jobs, after %d runs %d faults and %d jobs: %v", seed, r.Failure,
					len(plan.Faults), c.Work(), small.Runs, len(small.Plan.Faults), c.Work()-len(small.Plan.Skip), small.Failure)
				if small.Failure == nil || small.Failure.Claim != r.Failure.Claim || len(small.Plan.Faults) > 8 || c.Work()-len(small.Plan.Skip) > 3 {
					t.Fatalf("it was shrunk to %v, %v", small.Plan.Faults, small.Failure)
				}
				replays(t, c, small)
				return
			}
		})
	}
}
