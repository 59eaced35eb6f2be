package stack

import (
	"testing"

	"assent/sim"
)

// TestFlaws gives the hands one fault each and wants it found by a claim, and the plan of the seed
// shrunk to a few faults and pieces of work, of which none can be left out, and its script to replay.
func TestFlaws(t *testing.T) {
	for name, f := range map[string]struct {
		flaw
		first uint64 // a seed from which on it is found soon, to save time; from 1 on it takes 98 at most
	}{
		"commit is told before it is logged":                {decidesEarly, 3},
		"a branch votes yes before it is prepared":          {votesEarly, 1},
		"what stands in the log is ignored":                 {ignoresAnswer, 95},
		"a decision is forgotten when it is concluded":      {forgetsEarly, 95},
		"a branch that is not known is taken for committed": {unknownIsDone, 60},
		"a branch in doubt is rolled back for its age":      {ageAbort, 7},
		"prepared branches are not looked for":              {forgetsPrepared, 9},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &Stack{Size: Size{flaw: f.flaw}}
			for seed := f.first; ; seed++ {
				if seed > f.first+300 {
					t.Fatal("no seed has found it")
				}
				plan := s.Draw(seed, sim.Classes())
				r, err := s.Run(plan, nil)
				if err != nil {
					t.Fatal(err)
				}
				if r.Failure == nil {
					continue
				}
				r.Plan = plan
				small, err := sim.Explain(t.Context(), s, r, s.Work())
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("seed %d: %v; %d faults and %d jobs, after %d runs %d faults and %d jobs: %v", seed, r.Failure,
					len(plan.Faults), s.Work(), small.Runs, len(small.Plan.Faults), s.Work()-len(small.Plan.Skip), small.Failure)
				if small.Failure == nil || small.Failure.Claim != r.Failure.Claim || len(small.Plan.Faults) > 4 || s.Work()-len(small.Plan.Skip) > 3 {
					t.Fatalf("it was shrunk to %v, %v", small.Plan.Faults, small.Failure)
				}
				minimal(t, s, small)
				replays(t, s, small)
				return
			}
		})
	}
}
