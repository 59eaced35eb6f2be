package detector_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"assent/protocol"
	"assent/protocol/detector"
	"assent/protocol/protocoltest"

	"pgregory.net/rapid"
)

// The published curve: heartbeats every 1000 ms with a deviation of 100 ms.
func TestPhi(t *testing.T) {
	for _, c := range []struct{ elapsed, want float64 }{{500, 0.1}, {1000, 0.3}, {1200, 1.6}, {1400, 4.7}, {1600, 10.8}} {
		if got := detector.Phi(c.elapsed, 1000, 100); math.Abs(got-c.want) > 0.1+1e-9 {
			t.Errorf("phi after %v ms is %.2f, want %v", c.elapsed, got, c.want)
		}
	}
	if got := detector.Phi(1e9, 1000, 100); got != 300 {
		t.Errorf("long dead: %v", got)
	}
	if got := detector.Phi(0, 1e9, 1); got != 0 || math.Signbit(got) {
		t.Errorf("just heard of: %v", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		mean, deviation := rapid.Float64Range(1, 100).Draw(t, "mean"), rapid.Float64Range(0.5, 50).Draw(t, "deviation")
		a := rapid.Float64Range(0, 1000).Draw(t, "a")
		b := rapid.Float64Range(a, 1000).Draw(t, "b")
		if x, y := detector.Phi(a, mean, deviation), detector.Phi(b, mean, deviation); x > y || x < 0 || math.IsNaN(y) {
			t.Fatalf("phi falls from %v to %v", x, y)
		}
	})
}

// watcher is a detector that watches one node, x.
type watcher struct {
	*detector.Detector
	said []protocol.Value
	sent []protocol.Send
}

func watch(o detector.Options) *watcher {
	w := &watcher{Detector: detector.New([]protocol.NodeID{"x"}, o)}
	w.step(protocol.Start{})
	return w
}

func (w *watcher) step(ev protocol.Event) {
	var out protocol.Effects
	w.Step(ev, &out)
	w.said = append(w.said, out.Emits...)
	w.sent = append(w.sent, out.Sends...)
}

func (w *watcher) ticks(n int) {
	for range n {
		w.step(protocol.Expire{Timer: detector.Timer})
	}
}

func (w *watcher) hear() { w.step(protocol.Receive{From: "x", Message: detector.Heartbeat{}}) }

func TestFixedTimeout(t *testing.T) {
	w := watch(detector.Options{Beat: 5, Timeout: 12})
	for range 10 {
		w.ticks(11)
		w.hear()
	}
	if len(w.said) > 0 {
		t.Fatalf("suspected too early: %v", w.said)
	}
	w.ticks(12)
	if !slices.Equal(w.said, []protocol.Value{detector.Suspect{Node: "x"}}) || !slices.Equal(w.Suspected(), []protocol.NodeID{"x"}) {
		t.Fatalf("after the timeout: %v", w.said)
	}
	w.ticks(1000)
	if len(w.said) != 1 {
		t.Errorf("said again: %v", w.said)
	}
}

// "Eventually accurate": each mistake is taken back and makes the detector more patient.
func TestMistakesWidenTheTimeout(t *testing.T) {
	for name, o := range map[string]detector.Options{
		"fixed": {Beat: 2, Timeout: 4, Widen: 3}, "adaptive": {Beat: 2, Timeout: 4, Widen: 3, Phi: 8}} {
		w := watch(o)
		for range 40 { // a node that is heard of every 30 ticks
			w.ticks(30)
			w.hear()
		}
		mistakes := len(w.said) / 2
		for i, v := range w.said {
			if _, suspect := v.(detector.Suspect); suspect != (i%2 == 0) {
				t.Fatalf("%s: %v", name, w.said)
			}
		}
		if mistakes == 0 || mistakes > 10 || len(w.Suspected()) > 0 {
			t.Errorf("%s: %d mistakes", name, mistakes)
		}
		w.said = nil
		for range 100 {
			w.ticks(30)
			w.hear()
		}
		if len(w.said) > 0 {
			t.Errorf("%s: mistakes without an end: %v", name, w.said)
		}
	}
}

func TestPatienceIsBounded(t *testing.T) {
	w := watch(detector.Options{Beat: 1, Timeout: 2, Widen: 5, Most: 20})
	for range 50 {
		w.ticks(40)
		w.hear()
	}
	if w.Peers[0].Mistakes > 4 || w.Peers[0].Silent > 21 {
		t.Errorf("a state that grows: %+v", w.Peers[0])
	}
	w.ticks(20)
	if len(w.Suspected()) == 0 {
		t.Error("more patient than the bound")
	}
}

func TestAdaptsToTheRhythm(t *testing.T) {
	suspectedAfter := func(interval int) int {
		w := watch(detector.Options{Beat: 2, Timeout: 1000, Most: 2000, Phi: 8})
		for range 40 {
			w.ticks(interval)
			w.hear()
		}
		if w.Level("x") != 0 && w.Level("x") > 1 || w.Level("stranger") != 0 {
			t.Errorf("a level of %v", w.Level("x"))
		}
		for n := 1; n < 1000; n++ {
			before := w.Level("x")
			w.ticks(1)
			if w.Level("x") < before {
				t.Fatalf("the level falls from %v to %v", before, w.Level("x"))
			}
			if len(w.said) > 0 {
				return n
			}
		}
		return 1000
	}
	short, long := suspectedAfter(4), suspectedAfter(40)
	if short < 6 || short > 20 || long < 50 || long > 200 {
		t.Errorf("suspected after %d and %d ticks of silence", short, long)
	}
}

func TestHeartbeatsAndProbes(t *testing.T) {
	w := watch(detector.Options{Beat: 3})
	w.ticks(9)
	if len(w.sent) != 4 || w.sent[0] != (protocol.Send{To: "x", Message: detector.Heartbeat{}}) {
		t.Errorf("heartbeats: %v", w.sent)
	}
	p := watch(detector.Options{Beat: 3, Probe: true})
	p.ticks(9)
	if len(p.sent) != 4 || p.sent[3] != (protocol.Send{To: "x", Message: detector.Probe{}}) {
		t.Errorf("probes: %v", p.sent)
	}
	p.sent = nil
	p.step(protocol.Receive{From: "stranger", Message: detector.Probe{}})
	if len(p.sent) != 1 || p.sent[0].To != "stranger" {
		t.Errorf("an answer: %v", p.sent)
	}
	p.ticks(2)
	p.step(protocol.Receive{From: "x", Message: "anything"})
	p.ticks(11)
	if len(p.said) > 0 {
		t.Errorf("any message is a sign of life: %v", p.said)
	}
}

func TestTicksAreTheOptions(t *testing.T) {
	var out protocol.Effects
	detector.New(nil, detector.Options{Tick: time.Second}).Step(protocol.Start{}, &out)
	if len(out.Timers) != 1 || out.Timers[0].After != time.Second {
		t.Errorf("%+v", out)
	}
}

func TestMachines(t *testing.T) {
	codec, err := protocol.NewCodec(detector.Types()...)
	if err != nil {
		t.Fatal(err)
	}
	events := []protocol.Event{protocol.Start{}, protocol.Recover{}, protocol.Expire{Timer: "another"}}
	for range 8 {
		events = append(events, protocol.Expire{Timer: detector.Timer})
	}
	for _, from := range []protocol.NodeID{"x", "y", "z"} {
		events = append(events, protocol.Receive{From: from, Message: detector.Heartbeat{}},
			protocol.Receive{From: from, Message: detector.Probe{}})
	}
	var machines []func() protocol.Machine
	for _, o := range []detector.Options{{}, {Phi: 8, Beat: 1}, {Probe: true, Timeout: 1}} {
		machines = append(machines, func() protocol.Machine { return detector.New([]protocol.NodeID{"x", "y"}, o) })
	}
	protocoltest.Run(t, protocoltest.Subject{New: machines, Events: events, Codec: codec, Steps: 60})
}
