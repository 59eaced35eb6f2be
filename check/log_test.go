package check_test

import (
	"testing"

	"assent/check"
	"assent/protocol"
	"assent/protocol/paxos"
	"assent/spec"
)

func replicatedLog(t *testing.T, l paxos.ReplicatedLog, f check.Faults, claims check.Claims) check.Report {
	t.Helper()
	nodes, err := l.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	codec, err := protocol.NewCodec(paxos.ReplicatedLogTypes()...)
	if err != nil {
		t.Fatal(err)
	}
	sys := check.System{Nodes: nodes, Codec: codec, Faults: f}
	return complete(t, sys, claims)
}

// TestLogIsSafe: a log of two slots, two leaders, with loss, repetition and reordering without limit; nodes
// that crash and come back, snapshots, and acceptors that change, in smaller systems.
func TestLogIsSafe(t *testing.T) {
	options := func(last paxos.Slot, rounds uint64) paxos.LogOptions {
		return paxos.LogOptions{Poll: -1, Beat: -1, Last: last, Queue: 1, Ballots: steady(rounds)}
	}
	beating := options(1, 1)
	beating.Beat = 0
	always := check.Faults{Duplicates: check.Unlimited}
	crash := check.Faults{Duplicates: check.Unlimited, Crashes: 1, Restarts: 1}
	for name, c := range map[string]struct {
		paxos.ReplicatedLog
		check.Faults
		slots int
		long  bool
	}{
		"2 slots, 2 ballots":                     {paxos.ReplicatedLog{Size: 3, Leaders: 2, Window: 1, Options: options(2, 1)}, always, 2, false},
		"2 slots at once":                        {paxos.ReplicatedLog{Size: 3, Leaders: 2, Window: 2, Options: options(2, 1)}, always, 2, true},
		"2 slots at once, 4 ballots, 2 replicas": {paxos.ReplicatedLog{Size: 2, Leaders: 2, Window: 2, Options: options(2, 2)}, always, 2, false},
		"1 slot, 4 ballots, 2 replicas":          {paxos.ReplicatedLog{Size: 2, Leaders: 2, Window: 1, Options: options(1, 2)}, always, 1, false},
		"1 slot, 4 ballots":                      {paxos.ReplicatedLog{Size: 3, Leaders: 2, Window: 1, Options: options(1, 2)}, always, 1, true},
		"3 slots, one after the other":           {paxos.ReplicatedLog{Size: 3, Leaders: 2, Window: 1, Options: options(3, 1)}, always, 3, true},
		"heartbeats, 2 replicas":                 {paxos.ReplicatedLog{Size: 2, Leaders: 2, Window: 1, Options: beating}, always, 1, false},
		"heartbeats":                             {paxos.ReplicatedLog{Size: 3, Leaders: 2, Window: 1, Options: beating}, always, 1, true},
		"a leader comes back, 2 replicas":        {paxos.ReplicatedLog{Size: 2, Leaders: 1, Window: 1, Options: options(2, 2)}, crash, 2, false},
		"a leader comes back":                    {paxos.ReplicatedLog{Size: 3, Leaders: 1, Window: 1, Options: options(2, 2)}, crash, 2, true},
		"two replicas, a crash":                  {paxos.ReplicatedLog{Size: 2, Leaders: 2, Window: 2, Options: options(2, 1)}, crash, 2, false},
		"two replicas, two crashes":              {paxos.ReplicatedLog{Size: 2, Leaders: 2, Window: 2, Options: options(2, 2)}, check.Faults{Duplicates: check.Unlimited, Crashes: 2, Restarts: 2}, 2, true},
		"a snapshot":                             {paxos.ReplicatedLog{Size: 2, Leaders: 2, Window: 1, Every: 1, Options: options(2, 1)}, crash, 2, false},
		"snapshots":                              {paxos.ReplicatedLog{Size: 2, Leaders: 2, Window: 2, Every: 2, Options: options(3, 2)}, crash, 3, true},
		"an acceptor for another":                {paxos.ReplicatedLog{Size: 3, Voters: 2, Leaders: 2, Window: 1, Moves: [][]int{{2, 3}}, Options: options(2, 1)}, always, 2, false},
		"other acceptors, another leader":        {paxos.ReplicatedLog{Size: 3, Voters: 2, Leaders: 2, Window: 2, Moves: [][]int{{2, 3}}, Options: options(3, 2)}, always, 3, true},
		"other acceptors":                        {paxos.ReplicatedLog{Size: 4, Voters: 3, Leaders: 2, Window: 1, Moves: [][]int{{2, 3, 4}}, Options: options(2, 1)}, always, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			if c.long {
				soak(t)
			}
			claims := check.Claims{Always: []spec.Property{spec.LogAgreement()},
				Sometimes: []spec.Property{spec.LogReaches(c.slots), spec.LogHas("v1")}}
			if len(c.Moves) > 0 {
				claims.Sometimes = append(claims.Sometimes, spec.LogHas("c2"))
			}
			r := replicatedLog(t, c.ReplicatedLog, c.Faults, claims)
			for _, b := range r.Broken {
				t.Error(b)
			}
			if len(r.Never) > 0 {
				t.Errorf("never: %v", r.Never)
			}
		})
	}
}
