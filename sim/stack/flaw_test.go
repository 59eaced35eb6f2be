package stack

import (
	"testing"

	"assent/sim"
)

// TestFlaws gives the hands one fault each and wants it found by a claim, and the plan of the seed
// shrunk to a few faults and pieces of work.
func TestFlaws(t *testing.T) {
	for name, f := range map[string]flaw{
		"commit is told and never logged":              unloggedDecision,
		"a branch in doubt is rolled back for its age": ageAbort,
		"prepared branches are not looked for":         forgetsPrepared,
	} {
		t.Run(name, func(t *testing.T) {
			s := &Stack{Size: Size{flaw: f}}
			for seed := uint64(1); ; seed++ {
				if seed > 300 {
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
				small, runs, err := sim.Shrink(t.Context(), s, r, s.Work())
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("seed %d: %v; %d faults and %d jobs, after %d runs %d faults and %d jobs: %v", seed, r.Failure,
					len(plan.Faults), s.Work(), runs, len(small.Plan.Faults), s.Work()-len(small.Plan.Skip), small.Failure)
				if small.Failure == nil || small.Failure.Claim != r.Failure.Claim || len(small.Plan.Faults) > 4 || s.Work()-len(small.Plan.Skip) > 3 {
					t.Errorf("it was shrunk to %v, %v", small.Plan.Faults, small.Failure)
				}
				return
			}
		})
	}
}
