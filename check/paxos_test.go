package check_test

import (
	"testing"

	"assent/check"
	"assent/protocol"
	"assent/protocol/paxos"
	"assent/spec"
)

func consensus(t *testing.T, c paxos.Consensus, f check.Faults, claims check.Claims) check.Report {
	t.Helper()
	nodes, err := c.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	codec, err := protocol.NewCodec(paxos.Types[string]("string")...)
	if err != nil {
		t.Fatal(err)
	}
	var acceptors []int
	for i := range c.Acceptors {
		acceptors = append(acceptors, c.Proposers+i)
	}
	sys := check.System{Nodes: nodes, Codec: codec, Faults: f, Symmetric: [][]int{acceptors}}
	return complete(t, sys, claims)
}

// TestPaxosIsSafe: three acceptors, two proposers, three ballots (0.p1, 1.p1, 1.p2), with loss,
// repetition and reordering without limit; and nodes that crash and come back, in smaller systems.
func TestPaxosIsSafe(t *testing.T) {
	for name, c := range map[string]struct {
		paxos.Consensus
		check.Faults
		long bool
	}{
		"the owner comes back": {paxos.Consensus{Proposers: 1, Acceptors: 3, Fickle: true, Learner: true, Options: paxos.Options{Rounds: 1}},
			check.Faults{Duplicates: check.Unlimited, Crashes: 1, Restarts: 1}, true},
		"the owner comes back, 2 acceptors": {paxos.Consensus{Proposers: 1, Acceptors: 2, Fickle: true, Learner: true, Options: paxos.Options{Rounds: 1}},
			check.Faults{Duplicates: check.Unlimited, Crashes: 1, Restarts: 1}, false},
		"another comes back": {paxos.Consensus{Proposers: 1, Acceptors: 3, Fickle: true, Learner: true, Unowned: true, Options: paxos.Options{Rounds: 1}},
			check.Faults{Duplicates: check.Unlimited, Crashes: 1, Restarts: 1}, false},
		"3 ballots": {paxos.Consensus{Proposers: 2, Acceptors: 3, Options: paxos.Options{Rounds: 1}},
			check.Faults{Duplicates: check.Unlimited}, true},
		"3 ballots, 2 acceptors": {paxos.Consensus{Proposers: 2, Acceptors: 2, Options: paxos.Options{Rounds: 1}},
			check.Faults{Duplicates: check.Unlimited}, false},
		"acceptors and proposers come back": {paxos.Consensus{Proposers: 2, Acceptors: 1, Options: paxos.Options{Rounds: 1}},
			check.Faults{Duplicates: check.Unlimited, Crashes: 2, Restarts: 2}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if c.long {
				soak(t)
			}
			values := []any{"v1", "v2"}
			if c.Fickle {
				values = []any{"v1", "w1"}
			}
			claims := check.Claims{Always: []spec.Property{spec.Agreement(), spec.Validity(values...)},
				Sometimes: []spec.Property{spec.Learns(values[0]), spec.Learns(values[1])}}
			r := consensus(t, c.Consensus, c.Faults, claims)
			for _, b := range r.Broken {
				t.Error(b)
			}
			if len(r.Never) > 0 {
				t.Errorf("never: %v", r.Never)
			}
		})
	}
}
