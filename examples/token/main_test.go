package main

import (
	"testing"
	"time"

	"assent/check"
	"assent/protocol"
	"assent/sim"
)

// done says when a site of a ring of three has come to its end: it has had its last turn.
func done(_ int, m protocol.Machine) bool {
	s := m.(*Site)
	return s.Seen > s.Last-3 && !s.Holding
}

// TestEveryState: any message is lost, late or repeated, and two sites crash and may come back.
func TestEveryState(t *testing.T) {
	system := check.System{Nodes: ring(2, "a", "b", "c"), Codec: codec(),
		Faults: check.Faults{Duplicates: check.Unlimited, Crashes: 2, Restarts: 2}}
	r, err := check.Run(t.Context(), system, check.Claims{Always: claims, Decided: done}, check.Limits{})
	if err != nil || !r.Complete || len(r.Broken) > 0 {
		t.Fatal(err, r.Complete, r.Broken)
	}
	if r.Blocked == nil {
		t.Error("a ring has no way round, and yet nobody waits for a site that stays down")
	}
	t.Log(r.States, "states;", r.Blocked)
}

func TestSeeds(t *testing.T) {
	system := &sim.System{Nodes: ring(2, "a", "b", "c"), Codec: codec(), Always: claims, Done: done, Safety: 2 * time.Second}
	sum, err := sim.Seeds(t.Context(), system, 1, 500, sim.Classes(), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, failed := range sum.Failed[:min(1, len(sum.Failed))] {
		small, err := sim.Explain(t.Context(), system, failed, 0)
		t.Errorf("%d seeds fail; the first: %v, %v\n%s", sum.Failures, small.Failure, err, small.Script)
	}
}

func Example() {
	main()
	// Output:
	// ben holds {Number:2}
	// carl holds {Number:3}
	// anna holds {Number:4}
	// ben holds {Number:5}
	// carl holds {Number:6}
}
