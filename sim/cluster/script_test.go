package cluster

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"assent/sim"
	"assent/trace"
)

// Explain logs the script of a run that failed, shrunk.
func Explain(t testing.TB, c *Cluster, failed sim.Report) {
	t.Helper()
	small, err := sim.Explain(t.Context(), c, failed, c.Work())
	if err != nil {
		t.Error(err)
	}
	t.Logf("seed %d, shrunk: %v; assent replay runs this again:\n%s", failed.Plan.Seed, small.Failure, small.Script)
}

// replays wants the script to make the run again that failed so.
func replays(t *testing.T, c *Cluster, small sim.Explanation) {
	t.Helper()
	r, err := trace.NewReader(bytes.NewReader(small.Script), nil)
	if err != nil {
		t.Fatal(err)
	}
	again, plan, err := FromHeader(r.Header())
	if err != nil {
		t.Fatal(err)
	}
	again.flaw = c.flaw // which no script names
	run, err := again.Run(plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(small.Failure, run.Failure); d != "" {
		t.Errorf("its script, run again, fails otherwise (- first, + again):\n%s", d)
	}
}
