package check_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"assent/check"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/spec"
)

// noder is a system of one of the protocols.
type noder interface {
	Nodes() ([]protocol.Node, error)
}

// explore runs a system to its end and logs what it took.
func explore(t *testing.T, n noder, model check.Model, faults check.Faults, claims check.Claims) check.Report {
	t.Helper()
	codec, err := protocol.NewCodec(commit.Types()...)
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := n.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	sys := check.System{Nodes: nodes, Codec: codec, Faults: faults, Model: model}
	r, err := check.Run(context.Background(), sys, claims, check.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Complete {
		t.Fatal("the run is not complete")
	}
	t.Logf("%d states, %d transitions, depth %d, %d local states, %d messages, %v", r.States, r.Transitions, r.Depth, r.Locals, r.Messages, r.Elapsed)
	return r
}

func soak(t *testing.T) {
	t.Helper()
	if os.Getenv("ASSENT_SOAK") == "" {
		t.Skip("millions of states: run by make soak")
	}
}

// TestThreePhaseCommitIsNonblocking: in the synchronous model, with crashes at every place, AC1 to
// AC3 hold, and no participant that is up is ever blocked (AC5), as long as one site stays up.
func TestThreePhaseCommitIsNonblocking(t *testing.T) {
	yes := []commit.Vote{commit.Yes}
	for name, c := range map[string]struct {
		commit.ThreePhase
		check.Faults
		long bool
	}{
		"two, one crash":                {ThreePhase: commit.ThreePhase{Participants: 2}, Faults: check.Faults{Crashes: 1}},
		"two, one crash and restart":    {ThreePhase: commit.ThreePhase{Participants: 2}, Faults: check.Faults{Crashes: 1, Restarts: 1}},
		"two, two crashes":              {ThreePhase: commit.ThreePhase{Participants: 2}, Faults: check.Faults{Crashes: 2}},
		"two, two crashes and restarts": {ThreePhase: commit.ThreePhase{Participants: 2, Votes: yes, Steadfast: true}, Faults: check.Faults{Crashes: 2, Restarts: 2}},
		"three, one crash and restart":  {ThreePhase: commit.ThreePhase{Participants: 3, Votes: yes, Steadfast: true}, Faults: check.Faults{Crashes: 1, Restarts: 1}},
		"three, two crashes":            {ThreePhase: commit.ThreePhase{Participants: 3, Votes: yes, Steadfast: true}, Faults: check.Faults{Crashes: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.long {
				soak(t)
			}
			r := explore(t, c.ThreePhase, check.Synchronous, c.Faults, check.Claims{Always: safety(),
				Sometimes: []spec.Property{spec.AllCommit(), spec.PromiseUndone()}, Decided: spec.AC5().Decided})
			for _, b := range r.Broken {
				t.Errorf("%s%s", b, strings.Join(b.Steps[len(b.Steps)-1].After, "\n"))
			}
			if r.Blocking > 0 {
				t.Errorf("%d states block: %s%s", r.Blocking, r.Blocked, strings.Join(r.Blocked.Steps[len(r.Blocked.Steps)-1].After, "\n"))
			}
			if len(r.Never) > 0 {
				t.Errorf("never: %v", r.Never)
			}
		})
	}
}
