package sim_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/detector"
	"assent/protocol/election"
	"assent/protocol/paxos"
	"assent/sim"
	"assent/sim/simtest"
	"assent/spec"
	"assent/trace"
)

// seen is how many of so many seeds to run: an eighth under the race detector. Some things are not seen in so few.
func seen(last uint64) uint64 {
	if simtest.UnderRace {
		return (last + 7) / 8
	}
	return last
}

// seeds runs many seeds and wants none to fail and every class to be seen. Every so many it runs twice. Under the
// race detector it runs few, and wants none to fail.
func seeds(t *testing.T, s *sim.System, last uint64, classes []sim.Class) sim.Summary {
	t.Helper()
	last = seen(last)
	sum, err := sim.Seeds(t.Context(), s, 1, last, classes, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range sum.Failed {
		t.Errorf("seed %d: %v", r.Plan.Seed, r.Failure)
	}
	for _, c := range classes {
		if sum.Fired[c] == 0 && !simtest.UnderRace {
			t.Errorf("%v had an effect in no seed", c)
		}
	}
	for _, p := range s.Sometimes {
		if sum.Reached[p.Name] == 0 && !simtest.UnderRace {
			t.Errorf("in no seed %s", p.Name)
		}
	}
	const every = 20
	for seed := uint64(1); seed <= last; seed += every {
		twice(t, s, s.Draw(seed, classes))
	}
	return sum
}

// twice runs a plan twice and wants the same trace, byte for byte.
func twice(t *testing.T, s *sim.System, plan sim.Plan) {
	t.Helper()
	first, _ := traced(t, s, plan)
	second, _ := traced(t, s, plan)
	if !bytes.Equal(first, second) {
		t.Fatalf("seed %d gives two traces:\n%s", plan.Seed, cmp.Diff(string(first), string(second)))
	}
}

// TestSameTraces runs each seed of the protocols twice that have no seeds of their own here.
func TestSameTraces(t *testing.T) {
	options := commit.Options{Cooperative: true}
	for name, of := range map[string]interface {
		Nodes() ([]protocol.Node, error)
	}{
		"3pc":        commit.ThreePhase{Participants: 3, Options: options},
		"quorum 3pc": commit.QuorumThreePhase{Participants: 3, Options: options},
		"2pc peers":  commit.Decentralised{Sites: 3, Phases: 2, Options: options},
		"3pc peers":  commit.Decentralised{Sites: 3, Phases: 3, Options: options},
	} {
		t.Run(name, func(t *testing.T) {
			nodes, err := of.Nodes()
			s := system(t, name, nodes, err, commit.Types())
			s.Done = spec.ParticipantDone
			for seed := range uint64(20) {
				twice(t, s, s.Draw(seed, sim.Classes()))
			}
		})
	}
}

func system(t *testing.T, name string, nodes []protocol.Node, err error, types []protocol.Type) *sim.System {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	codec, err := protocol.NewCodec(types...)
	if err != nil {
		t.Fatal(err)
	}
	return &sim.System{Name: name, Nodes: nodes, Codec: codec}
}

// TestPaxosSeeds: agreement among all faults but lies, and an end after them for those who propose.
func TestPaxosSeeds(t *testing.T) {
	nodes, err := paxos.Consensus{Proposers: 3, Acceptors: 5, Learner: true, Fickle: true}.Nodes()
	s := system(t, "paxos", nodes, err, paxos.Types[string]("string"))
	s.Always = []spec.Property{spec.Agreement(), spec.Validity("v1", "v2", "v3", "w1", "w2", "w3")}
	s.Sometimes = []spec.Property{spec.Learns("v1"), spec.Learns("w3")}
	s.Done = func(_ int, m protocol.Machine) bool {
		p, ok := m.(*paxos.Proposer[string])
		return !ok || p.State == paxos.ProposerIdle || p.State == paxos.ProposerDecided
	}
	seeds(t, s, 500, sim.Classes())
}

// TestPaxosCommitSeeds: AC1 to AC3 among all faults but lies, and an end after them for everybody.
func TestPaxosCommitSeeds(t *testing.T) {
	for name, c := range map[string]commit.PaxosCommit{
		"co-located": {Participants: 3, F: 1, CoLocated: true},
		"apart":      {Participants: 2, F: 2, Leaders: 3},
		"F = 0":      {Participants: 2},
		"fast":       {Participants: 3, F: 1, CoLocated: true, Fast: true},
		"fast apart": {Participants: 2, F: 1, Fast: true},
	} {
		t.Run(name, func(t *testing.T) {
			nodes, err := c.Nodes()
			s := system(t, "paxos-commit", nodes, err, commit.Types())
			s.Always = []spec.Property{spec.AC1(), spec.AC2(), spec.AC3()}
			s.Sometimes = []spec.Property{spec.AllCommit()}
			s.Done = spec.ParticipantDone
			seeds(t, s, 400, sim.Classes())
		})
	}
}

// TestElectionSeeds: after the faults all follow the highest node.
func TestElectionSeeds(t *testing.T) {
	nodes, err := election.Bully{Size: 4, Options: election.Options{Again: time.Second}}.Nodes()
	s := system(t, "election", nodes, err, election.Types())
	s.Done = func(_ int, m protocol.Machine) bool { return m.(*election.Elector).Leader == "n4" }
	// An elector writes nothing to a disk that could fail.
	classes := slices.DeleteFunc(sim.Classes(), func(c sim.Class) bool {
		return c == sim.DiskFull || c == sim.FailedSync || c == sim.TornWrite || c == sim.Corruption
	})
	seeds(t, s, 300, classes)
}

// TestDetectorSeeds: in a run of crashes that last, and of delays, detectors are at least eventually
// perfect: whoever is down is suspected, and after the faults nobody is.
func TestDetectorSeeds(t *testing.T) {
	for name, o := range map[string]detector.Options{
		"fixed": {Tick: 20 * time.Millisecond}, "adaptive": {Tick: 20 * time.Millisecond, Phi: 8},
		"probing": {Tick: 20 * time.Millisecond, Probe: true},
	} {
		t.Run(name, func(t *testing.T) {
			nodes, err := detector.Watch{Size: 4, Options: o}.Nodes()
			s := system(t, "detector", nodes, err, detector.Types())
			s.Bound = time.Minute
			s.Done = func(_ int, m protocol.Machine) bool { return len(m.(*detector.Detector).Suspected()) == 0 }
			classes := []sim.Class{sim.Crash, sim.Loss, sim.Delay, sim.Slow, sim.Drift, sim.Partition, sim.OneWay, sim.Flapping}
			seeds(t, s, 24, classes)

			detections := 0
			for seed := range uint64(10) {
				var log events
				if _, err := s.Run(s.Draw(seed, []sim.Class{sim.Crash}), &log); err != nil {
					t.Fatal(err)
				}
				card := spec.JudgeSuspicions(log)
				if card.Mistakes > 0 || !slices.Contains(card.Class(), "perfect") {
					t.Errorf("seed %d: nothing was late, and yet:\n%v", seed, card)
				}
				detections += card.Detections
				if timeout := 20 * 25 * time.Millisecond; card.DetectionMost > timeout {
					t.Errorf("seed %d: a crash was noticed after %v", seed, card.DetectionMost)
				}
			}
			if detections == 0 {
				t.Error("nothing was detected")
			}
		})
	}
}

// events keeps a trace. The values of detectors are never changed, so they need no copies.
type events []trace.Event

func (l *events) Observe(e trace.Event) { *l = append(*l, e) }
