package sim_test

import (
	"os"
	"slices"
	"testing"

	"assent/protocol"
	"assent/protocol/paxos"
	"assent/sim"
	"assent/spec"
)

// enough is how many seeds to run: few in the gate.
func enough(few, many uint64) uint64 {
	if os.Getenv("ASSENT_SOAK") != "" {
		return many
	}
	return few
}

// TestLogSeeds: one log at five nodes among all faults but lies; after them every value that anybody
// wished for is in the log of whoever wished it, those who lagged, were voted out or joined included.
func TestLogSeeds(t *testing.T) {
	for name, c := range map[string]struct {
		paxos.ReplicatedLog
		sometimes []string
	}{
		"entries":   {paxos.ReplicatedLog{Size: 5, Values: 4, Window: 4}, []string{"n5.4"}},
		"snapshots": {paxos.ReplicatedLog{Size: 5, Values: 4, Window: 3, Every: 4, Options: paxos.LogOptions{Page: 2}}, []string{"n5.4"}},
		"some kept": {paxos.ReplicatedLog{Size: 3, Values: 5, Window: 2, Every: 5, Options: paxos.LogOptions{Page: 3, Keep: 3}}, []string{"n3.5"}},
		"other acceptors": {paxos.ReplicatedLog{Size: 5, Voters: 3, Values: 4, Window: 3, Every: 6,
			Moves: [][]int{{2, 3, 4}, {3, 4, 5}, {1, 2, 3, 4, 5}, {5}}}, []string{"n1.4", "-", "c5"}},
	} {
		t.Run(name, func(t *testing.T) {
			nodes, err := c.Nodes()
			s := system(t, "log", nodes, err, paxos.ReplicatedLogTypes())
			s.Always = []spec.Property{spec.LogAgreement()}
			for _, v := range c.sometimes {
				s.Sometimes = append(s.Sometimes, spec.LogHas(v))
			}
			s.Done = func(_ int, m protocol.Machine) bool { return m.(*paxos.LogNode).Content() }
			seeds(t, s, enough(20, 1000), slices.DeleteFunc(sim.Classes(), func(c sim.Class) bool { return c == sim.Whim })) // there are no inputs
		})
	}
}

// TestMovingSeeds: a register whose acceptors change while three propose, among all faults but lies.
func TestMovingSeeds(t *testing.T) {
	nodes, err := paxos.Moving{Proposers: 3, Old: []int{1, 2, 3}, New: []int{2, 3, 4}, Movers: 2}.Nodes()
	s := system(t, "moving", nodes, err, append(paxos.Types[string]("string"), paxos.EpochTypes[string]("string")...))
	s.Always = []spec.Property{spec.Agreement(), spec.Validity("v1", "v2", "v3")}
	s.Sometimes = []spec.Property{spec.Learns("v1"), spec.Learns("v3")}
	s.Done = func(_ int, m protocol.Machine) bool {
		p, ok := m.(*paxos.EpochProposer[string])
		return !ok || p.Proposer.State == paxos.ProposerIdle || p.Proposer.State == paxos.ProposerDecided
	}
	seeds(t, s, enough(200, 20_000), sim.Classes())
}
