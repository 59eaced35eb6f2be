// Package simtest is what the tests of simulated subjects have in common: runs that are made twice and compared, tallies of
// what many seeds have reached, the search for a flaw, and scripts that must fail again as their run did. It holds no
// claims; those are the subjects' own.
package simtest

import (
	"bytes"
	"crypto/sha256"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"assent/sim"
	"assent/trace"
)

// write runs a plan and writes its trace.
func write(t testing.TB, out io.Writer, s sim.Subject, plan sim.Plan) sim.Report {
	t.Helper()
	w, err := trace.NewWriter(out, s.Types(), s.Header(plan), trace.Text())
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Run(plan, w)
	if err != nil {
		t.Errorf("seed %d: %v", plan.Seed, err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	return r
}

// Text returns the trace of a plan.
func Text(t testing.TB, s sim.Subject, plan sim.Plan) string {
	t.Helper()
	var b strings.Builder
	write(t, &b, s, plan)
	return b.String()
}

// Tally is what many seeds have shown. It may be used concurrently. The zero value is empty.
type Tally struct {
	mu      sync.Mutex
	fired   map[sim.Class]int
	reached map[string]int
	runs    int
	shown   bool // two traces of one seed were
}

func (y *Tally) add(r sim.Report) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.runs++; y.fired == nil {
		y.fired, y.reached = map[sim.Class]int{}, map[string]int{}
	}
	for c := range r.Fired {
		y.fired[c]++
	}
	for name := range r.Reached {
		y.reached[name]++
	}
}

// first reports whether nobody has asked before.
func (y *Tally) first() bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	was := y.shown
	y.shown = true
	return !was
}

// Once runs a plan, which must break no claim. One that does is shrunk, with so many pieces of work that may be left out.
func (y *Tally) Once(t *testing.T, s sim.Subject, plan sim.Plan, work int) {
	t.Helper()
	r, err := s.Run(plan, nil)
	if err != nil {
		t.Errorf("seed %d: %v", plan.Seed, err)
	}
	y.took(t, s, plan, work, r)
}

// Twice does as Once does, and runs the plan again, which must give the same trace byte for byte.
func (y *Tally) Twice(t *testing.T, s sim.Subject, plan sim.Plan, work int) {
	t.Helper()
	one, two := sha256.New(), sha256.New()
	r := write(t, one, s, plan)
	write(t, two, s, plan)
	y.took(t, s, plan, work, r)
	if !bytes.Equal(one.Sum(nil), two.Sum(nil)) {
		t.Errorf("seed %d gives two traces", plan.Seed)
		if y.first() {
			t.Log(cmp.Diff(strings.Split(Text(t, s, plan), "\n"), strings.Split(Text(t, s, plan), "\n")))
		}
	}
}

func (y *Tally) took(t *testing.T, s sim.Subject, plan sim.Plan, work int, r sim.Report) {
	t.Helper()
	y.add(r)
	if r.Failure != nil {
		t.Errorf("seed %d: %v", plan.Seed, r.Failure)
		r.Plan = plan
		Explain(t, s, r, work)
	}
}

// Complete wants each class to have had an effect in three runs, and all of that to have been reached: the simulator is
// worth nothing where it is not.
func (y *Tally) Complete(t *testing.T, classes []sim.Class, reachable []string) {
	t.Helper()
	for _, c := range classes {
		if y.fired[c] < 3 {
			t.Errorf("%v has had an effect in %d of %d seeds", c, y.fired[c], y.runs)
		}
	}
	for _, name := range reachable {
		if y.reached[name] == 0 {
			t.Errorf("in none of %d seeds: %s", y.runs, name)
		}
	}
}

// Explain logs the script of a run that failed, shrunk.
func Explain(t testing.TB, s sim.Subject, failed sim.Report, work int) {
	t.Helper()
	small, err := sim.Explain(t.Context(), s, failed, work)
	if err != nil {
		t.Error(err)
	}
	t.Logf("seed %d, shrunk: %v; assent replay runs this again:\n%s", failed.Plan.Seed, small.Failure, small.Script)
}

// Find wants one of so many seeds, from the first on, to find what is wrong with the subject, and its plan to be shrunk to few
// faults and few pieces of work, with the claim that it broke.
func Find(t *testing.T, s sim.Subject, first, seeds uint64, draw func(seed uint64) sim.Plan, work, few int) sim.Explanation {
	t.Helper()
	for seed := first; seed < first+seeds; seed++ {
		plan := draw(seed)
		r, err := s.Run(plan, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Failure == nil {
			continue
		}
		r.Plan = plan
		small, err := sim.Explain(t.Context(), s, r, work)
		if err != nil {
			t.Fatal(err)
		}
		left := work - len(small.Plan.Skip)
		t.Logf("seed %d: %v; %d faults and %d pieces of work, after %d runs %d faults and %d pieces: %v", seed, r.Failure,
			len(plan.Faults), work, small.Runs, len(small.Plan.Faults), left, small.Failure)
		if small.Failure == nil || small.Failure.Claim != r.Failure.Claim || len(small.Plan.Faults) > few || left > few {
			t.Fatalf("it was shrunk to %v, %v", small.Plan.Faults, small.Failure)
		}
		return small
	}
	t.Fatal("no seed has found it")
	return sim.Explanation{}
}

// Replays wants the script of a run, read by the subject that it names, to make the run again that failed so.
func Replays(t *testing.T, small sim.Explanation, read func(trace.Header) (sim.Subject, sim.Plan, error)) {
	t.Helper()
	r, err := trace.NewReader(bytes.NewReader(small.Script), nil)
	if err != nil {
		t.Fatal(err)
	}
	s, plan, err := read(r.Header())
	if err != nil {
		t.Fatal(err)
	}
	run, err := s.Run(plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(small.Failure, run.Failure); d != "" {
		t.Errorf("its script, run again, fails otherwise (- first, + again):\n%s", d)
	}
}
