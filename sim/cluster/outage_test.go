package cluster

import (
	"slices"
	"testing"

	"assent/sim"
	"assent/sim/simtest"
)

// TestOutage has the members change eight times, those that leave be switched off, and all that are left start again at
// once: what those who are gone have agreed on is needed no more. In seed 284 they had most of the votes before.
func TestOutage(t *testing.T) {
	c := &Cluster{Members: []Member{{Node: "a"}}, Changes: 8, outage: true}
	classes := slices.DeleteFunc(Classes(), func(k sim.Class) bool { return k == sim.Gone })
	first, last := uint64(275), uint64(294)
	if simtest.UnderRace {
		first, last = 284, 284
	}
	sum, err := sim.Seeds(t.Context(), c, first, last, classes, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range sum.Failed {
		t.Errorf("seed %d: %v", r.Plan.Seed, r.Failure)
	}
	if sum.Fired[sim.Gone] == 0 && !simtest.UnderRace {
		t.Error("nobody who has left was switched off")
	}
}
