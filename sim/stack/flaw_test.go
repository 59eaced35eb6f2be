package stack

import (
	"testing"

	"assent/sim"
	"assent/sim/simtest"
	"assent/trace"
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
			small := simtest.Find(t, s, f.first, 300, func(seed uint64) sim.Plan { return s.Draw(seed, sim.Classes()) }, s.Work(), 4)
			minimal(t, s, small)
			simtest.Replays(t, small, func(h trace.Header) (sim.Subject, sim.Plan, error) {
				again, plan, err := FromHeader(h)
				if err == nil {
					again.flaw = f.flaw // which no script names
				}
				return again, plan, err
			})
		})
	}
}

// minimal wants a plan of which no fault and no piece of work can be left out.
func minimal(t *testing.T, s *Stack, small sim.Explanation) {
	t.Helper()
	without := func(p sim.Plan, what any) {
		r, err := s.Run(p, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Failure != nil && r.Failure.Claim == small.Failure.Claim {
			t.Errorf("it fails without %v, too", what)
		}
	}
	for i, f := range small.Plan.Faults {
		p := small.Plan
		p.Faults = append(append([]sim.Fault{}, p.Faults[:i]...), p.Faults[i+1:]...)
		without(p, f)
	}
	left := map[int]bool{}
	for i := range s.Work() {
		left[i] = true
	}
	for _, i := range small.Plan.Skip {
		delete(left, i)
	}
	for i := range left {
		p := small.Plan
		p.Skip = append(append([]int{}, p.Skip...), i)
		without(p, i)
	}
}
