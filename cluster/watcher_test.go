package cluster

import (
	"testing"

	"assent/protocol"
	"assent/protocol/detector"
	"assent/protocol/election"
)

// A node that was down and has begun a new life is suspected as soon as before, not later; one that was
// merely silent, later.
func TestNewLivesCostNoPatience(t *testing.T) {
	cfg := Config{Self: "a", Members: map[protocol.NodeID]Member{"a": {}, "b": {}}, Detector: detector.Options{Beat: 1, Timeout: 5, Widen: 3}}
	w := newWatcher(&cfg)
	var out protocol.Effects
	w.Step(protocol.Start{}, &out)
	ticks := func() (n int) {
		for suspected := false; !suspected; n++ {
			w.Step(protocol.Expire{Timer: detector.Timer}, &out)
			suspected, _ = w.suspicion("b")
		}
		return n
	}
	hear := func() { w.Step(protocol.Receive{From: "b", Message: detector.Heartbeat{}}, &out) }
	hear()
	first := ticks()
	hear()
	later := ticks()
	hear()
	w.reborn("b")
	again := ticks()
	if later <= first || again != first {
		t.Errorf("suspected after %d ticks, after a mistake %d, in a new life %d", first, later, again)
	}
}

// The news that a node leads is worth nothing while it is suspected, whichever comes first.
func TestSuspectedNodesAreNotFollowed(t *testing.T) {
	cfg := Config{Self: "a", Members: map[protocol.NodeID]Member{"a": {}, "b": {}}, Detector: detector.Options{Beat: 1, Timeout: 2}}
	w := newWatcher(&cfg)
	var out protocol.Effects
	w.Step(protocol.Start{}, &out)
	w.Step(protocol.Receive{From: "b", Message: election.Leader{}}, &out)
	if leader, _ := w.leader(); leader != "b" {
		t.Fatalf("follows %q", leader)
	}
	for range 3 {
		w.Step(protocol.Expire{Timer: detector.Timer}, &out)
	}
	if leader, state := w.leader(); leader != "" || state != election.Electing {
		t.Errorf("follows %q, %v", leader, state)
	}
	w.Step(protocol.Expire{Timer: election.Timer}, &out)
	if leader, state := w.leader(); leader != "a" || state != election.Leading {
		t.Errorf("follows %q, %v", leader, state)
	}
}
