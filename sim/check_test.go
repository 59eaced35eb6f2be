package sim_test

import (
	"testing"

	"assent/check"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/sim"
	"assent/spec"
)

// The shortest run that the checker finds is followed by the simulator, event for event, and ends in
// the same: two-phase commit blocked.
func TestCheckersBlockingReplays(t *testing.T) {
	s := twoPhase(t, 2, commit.Options{})
	r, err := check.Run(t.Context(), check.System{Nodes: s.Nodes, Codec: s.Codec, Model: check.Synchronous,
		Faults: check.Faults{Crashes: 1}}, check.Claims{Decided: spec.AC5().Decided}, check.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Blocked == nil {
		t.Fatal("the checker has found no blocking")
	}
	replayed, err := s.Replay(sim.Plan{Begin: r.Blocked.Begin}, r.Blocked.Trace(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if replayed.Failure != nil || len(replayed.Unfinished) == 0 {
		t.Errorf("the replay ends with %v, and %v not at their end", replayed.Failure, replayed.Unfinished)
	}
}

// Three-phase commit splits its brain when the network splits, and the simulator shows it too.
func TestCheckersSplitBrainReplays(t *testing.T) {
	nodes, err := commit.ThreePhase{Participants: 2, Votes: []commit.Vote{commit.Yes}, Steadfast: true}.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	codec, err := protocol.NewCodec(commit.Types()...)
	if err != nil {
		t.Fatal(err)
	}
	claims := []spec.Property{spec.AC1()}
	r, err := check.Run(t.Context(), check.System{Nodes: nodes, Codec: codec, Model: check.Synchronous,
		Faults: check.Faults{Partitions: 1}}, check.Claims{Always: claims}, check.Limits{States: 3_000_000})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Broken) == 0 {
		t.Fatalf("the checker has found no split brain in %d states", r.States)
	}
	s := &sim.System{Name: "3pc", Nodes: nodes, Codec: codec, Always: claims}
	replayed, err := s.Replay(sim.Plan{Begin: r.Broken[0].Begin}, r.Broken[0].Trace(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if replayed.Failure == nil || replayed.Failure.Claim != spec.AC1().Name {
		t.Errorf("the replay ends with %v; want AC1 broken", replayed.Failure)
	}
}
