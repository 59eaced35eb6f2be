package check_test

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"assent/check"
	"assent/protocol/commit"
	"assent/trace"
	"assent/trace/chart"
)

var rewriteDocs = flag.Bool("rewrite-docs", false, "write the charts in docs anew")

// TestSplitBrainCharts draws the shortest runs in which three-phase commit splits: one participant has
// committed, the other is rolled back. docs/three-phase.md shows them.
func TestSplitBrainCharts(t *testing.T) {
	yes := []commit.Vote{commit.Yes}
	for name, c := range map[string]struct {
		system commit.ThreePhase
		model  check.Model
		faults check.Faults
		title  string
	}{
		"partition": {commit.ThreePhase{Participants: 2, Votes: yes, Steadfast: true}, check.Synchronous, check.Faults{Partitions: 1},
			"Three-phase commit under partition: p1 commits, p2 rolls back"},
		"asynchronous": {commit.ThreePhase{Participants: 2, Votes: yes, Steadfast: true}, check.Asynchronous, check.Faults{},
			"Three-phase commit without a bound on delays: nobody fails, and the sites split"},
		"lesson": {commit.ThreePhase{Participants: 2, Votes: yes, Steadfast: true, Options: commit.Options{Unilateral: true}},
			check.Synchronous, check.Faults{Crashes: 1},
			"Timeout transitions alone: a crash while PreCommit is sent splits the sites"},
	} {
		t.Run(name, func(t *testing.T) {
			broken := split(t, c.system, c.model, c.faults)
			sys := system(t, c.system, c.model, c.faults)
			h := trace.Header{Executor: trace.Check, System: "3pc"}
			for _, n := range sys.Nodes {
				h.Nodes = append(h.Nodes, n.ID)
			}
			last := strings.Join(broken.Steps[len(broken.Steps)-1].After, "\n")
			if strings.Count(last, `"Outcome":"committed"`) != 1 || strings.Count(last, `"Outcome":"rolled back"`) != 1 {
				t.Errorf("one is to be committed and one rolled back:\n%s", last)
			}
			drawn, err := chart.New(h, asFile(t, sys, h, broken), chart.Options{Title: c.title})
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := drawn.WriteSVG(&b); err != nil {
				t.Fatal(err)
			}
			path := "../docs/three-phase-" + name + ".svg"
			if *rewriteDocs {
				if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), b.String()); d != "" {
				t.Errorf("%s is not what the machines do; run `make docs`:\n%s", path, d)
			}
		})
	}
}

// asFile returns the events of a run as they are read from a file: a chart reads where nodes stand
// from that form.
func asFile(t *testing.T, sys check.System, h trace.Header, c check.Counterexample) (events []trace.Event) {
	t.Helper()
	var b bytes.Buffer
	w, err := trace.NewWriter(&b, sys.Codec, h)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range c.Trace() {
		w.Observe(e)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := trace.NewReader(&b, nil)
	if err != nil {
		t.Fatal(err)
	}
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return events
		}
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
}
