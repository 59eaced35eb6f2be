package stack

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"assent/sim"
	"assent/trace"
)

// Explain logs the script of a run that failed, shrunk.
func Explain(t testing.TB, s *Stack, failed sim.Report) {
	t.Helper()
	small, err := sim.Explain(t.Context(), s, failed, s.Work())
	if err != nil {
		t.Error(err)
	}
	t.Logf("seed %d, shrunk: %v; assent replay runs this again:\n%s", failed.Plan.Seed, small.Failure, small.Script)
}

// replays wants the script to make the run again that failed so.
func replays(t *testing.T, s *Stack, small sim.Explanation) {
	t.Helper()
	r, err := trace.NewReader(bytes.NewReader(small.Script), nil)
	if err != nil {
		t.Fatal(err)
	}
	again, plan, err := FromHeader(r.Header())
	if err != nil {
		t.Fatal(err)
	}
	again.flaw = s.flaw // which no script names
	run, err := again.Run(plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(small.Failure, run.Failure); d != "" {
		t.Errorf("its script, run again, fails otherwise (- first, + again):\n%s", d)
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
