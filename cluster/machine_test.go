package cluster

import (
	"testing"

	"assent/protocol"
	"assent/protocol/detector"
	"assent/protocol/election"
	"assent/protocol/membership"
)

func testMachine(t *testing.T, o detector.Options) *machine {
	t.Helper()
	founders := []membership.Member{{Node: "a", Storage: "sa"}, {Node: "b", Storage: "sb"}}
	s, err := membership.Found("test", founders...)
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{node: membership.Founder(founders[0], s, membership.Options{Detector: o}), suspected: map[protocol.NodeID]bool{}}
	m.Step(protocol.Start{}, &protocol.Effects{})
	return m
}

// A node that was down and has begun a new life is suspected as soon as before, not later; one that was
// merely silent, later. Each suspicion, and its end, is told once.
func TestNewLivesCostNoPatience(t *testing.T) {
	m := testMachine(t, detector.Options{Beat: 1, Timeout: 5, Widen: 3})
	var out protocol.Effects
	ticks := func() (n int) {
		for suspected := false; !suspected; n++ {
			m.Step(protocol.Expire{Timer: detector.Timer}, &out)
			suspected, _ = m.suspicion("b")
		}
		return n
	}
	hear := func() { m.Step(protocol.Receive{From: "b", Message: detector.Heartbeat{}}, &out) }
	hear()
	first := ticks()
	hear()
	later := ticks()
	hear()
	m.reborn("b")
	again := ticks()
	if later <= first || again != first {
		t.Errorf("suspected after %d ticks, after a mistake %d, in a new life %d", first, later, again)
	}
	suspects, trusts := 0, 0
	for _, v := range out.Emits {
		switch v.(type) {
		case detector.Suspect:
			suspects++
		case detector.Trust:
			trusts++
		}
	}
	if suspects != 3 || trusts != 2 {
		t.Errorf("told of %d suspicions and of the end of %d", suspects, trusts)
	}
}

// The news that a node leads is worth nothing while it is suspected, whichever comes first.
func TestSuspectedNodesAreNotFollowed(t *testing.T) {
	m := testMachine(t, detector.Options{Beat: 1, Timeout: 2})
	var out protocol.Effects
	m.Step(protocol.Receive{From: "b", Message: election.Leader{}}, &out)
	if leader, _ := m.leader(); leader != "b" {
		t.Fatalf("follows %q", leader)
	}
	for range 3 {
		m.Step(protocol.Expire{Timer: detector.Timer}, &out)
	}
	if leader, state := m.leader(); leader != "" || state != election.Electing {
		t.Errorf("follows %q, %v", leader, state)
	}
	m.Step(protocol.Expire{Timer: election.Timer}, &out)
	if leader, state := m.leader(); leader != "a" || state != election.Leading {
		t.Errorf("follows %q, %v", leader, state)
	}
	if last := out.Emits[len(out.Emits)-1]; last != (election.Elected{Leader: "a"}) {
		t.Errorf("told %v", last)
	}
}
