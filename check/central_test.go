package check_test

import (
	"testing"

	"assent/check"
	"assent/protocol/commit"
	"assent/spec"
)

// TestCentralSites: a coordinator that takes part itself changes nothing about what holds: two phases
// are safe under an unreliable network and crashes, three phases are safe and do not block under
// crashes in the synchronous model.
func TestCentralSites(t *testing.T) {
	yes := []commit.Vote{commit.Yes}
	for name, c := range map[string]struct {
		commit.Central
		check.Faults
		check.Model
		long, blocks bool
	}{
		"two phases, two sites":            {Central: commit.Central{Sites: 2}, Faults: check.Faults{Crashes: 2, Restarts: 2, Duplicates: check.Unlimited}},
		"two phases, three sites":          {Central: commit.Central{Sites: 3, Votes: yes}, Faults: check.Faults{Crashes: 1, Restarts: 1, Duplicates: check.Unlimited}, long: true},
		"two phases, synchronous":          {Central: commit.Central{Sites: 3}, Faults: check.Faults{Crashes: 1}, Model: check.Synchronous, blocks: true},
		"three phases, two sites":          {Central: commit.Central{Sites: 2, Phases: 3}, Faults: check.Faults{Crashes: 1, Restarts: 1}, Model: check.Synchronous},
		"three phases, three sites":        {Central: commit.Central{Sites: 3, Phases: 3, Votes: yesOrNo}, Faults: check.Faults{Crashes: 2}, Model: check.Synchronous},
		"three phases, three, with return": {Central: commit.Central{Sites: 3, Phases: 3, Votes: yes}, Faults: check.Faults{Crashes: 2, Restarts: 1}, Model: check.Synchronous, long: true},
	} {
		t.Run(name, func(t *testing.T) {
			if c.long {
				soak(t)
			}
			claims := check.Claims{Always: safety(), Sometimes: []spec.Property{spec.AllCommit()}}
			if c.Model == check.Synchronous {
				claims.Decided = spec.AC5().Decided
			}
			r := explore(t, c.Central, c.Model, c.Faults, claims)
			for _, b := range r.Broken {
				t.Error(b)
			}
			if len(r.Never) > 0 {
				t.Errorf("never: %v", r.Never)
			}
			if (r.Blocked != nil) != c.blocks {
				t.Errorf("%d states block: %v", r.Blocking, r.Blocked)
			}
		})
	}
}

// TestNobodyWaitsForWhatIsKnown: who is blocked has asked all who are up, and none of them knows the
// decision.
func TestNobodyWaitsForWhatIsKnown(t *testing.T) {
	ask := commit.Options{Cooperative: true}
	yes := []commit.Vote{commit.Yes}
	for name, n := range map[string]noder{
		"decentralised":   commit.Decentralised{Sites: 3, Votes: yes},
		"coordinator":     commit.TwoPhase{Participants: 2, Votes: yes, Options: ask},
		"coordinator too": commit.Central{Sites: 3, Votes: yes, Options: ask},
	} {
		t.Run(name, func(t *testing.T) {
			blocked := 0
			explore(t, n, check.Synchronous, check.Faults{Crashes: 1}, check.Claims{Decided: spec.AC5().Decided,
				Blocked: func(v spec.View, nodes []int) {
					if len(nodes) > 0 {
						blocked++
					}
					for i := range v.Nodes() {
						site, up := v.Machine(i).(spec.Site)
						if up && len(nodes) > 0 && site.Standing().Decision != commit.Undecided {
							t.Errorf("%v are blocked, and %d knows: %+v", nodes, i, site.Standing())
						}
					}
				}})
			if blocked == 0 {
				t.Error("nobody blocks")
			}
		})
	}
}
