package spec_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"assent/protocol"
	"assent/protocol/detector"
	"assent/spec"
	"assent/trace"
)

// run writes a trace: "0 a up", "3 a crash", "5 b suspects a", "7 b trusts a", times in seconds.
func run(t *testing.T, lines ...string) []trace.Event {
	t.Helper()
	var events []trace.Event
	for _, l := range lines {
		f := strings.Fields(l)
		at, err := time.ParseDuration(f[0] + "s")
		if err != nil {
			t.Fatal(err)
		}
		e := trace.Event{At: at, Node: protocol.NodeID(f[1])}
		switch f[2] {
		case "up":
			e.Kind, e.Value = trace.Deliver, protocol.Start{}
		case "crash":
			e.Kind = trace.Crash
		case "suspects":
			e.Kind, e.Value = trace.Emit, detector.Suspect{Node: protocol.NodeID(f[3])}
		case "trusts":
			e.Kind, e.Value = trace.Emit, detector.Trust{Node: protocol.NodeID(f[3])}
		default:
			t.Fatal(l)
		}
		events = append(events, e)
	}
	return events
}

func TestSuspicionsAreJudged(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		class string
		want  func(spec.Suspicions) bool
	}{
		{"nothing happens", []string{"0 a up", "0 b up"}, "perfect, strong, eventually perfect, eventually strong, weak, eventually weak",
			func(s spec.Suspicions) bool { return s.Mistakes == 0 && s.Detections == 0 }},
		{"a crash is noticed", []string{"0 a up", "0 b up", "0 c up", "10 a crash", "12 b suspects a", "14 c suspects a"},
			"perfect, strong, eventually perfect, eventually strong, weak, eventually weak",
			func(s spec.Suspicions) bool {
				return s.Detections == 2 && s.Detection == 3*time.Second && s.DetectionMost == 4*time.Second
			}},
		{"by one only", []string{"0 a up", "0 b up", "0 c up", "10 a crash", "12 b suspects a"}, "weak, eventually weak",
			func(s spec.Suspicions) bool { return !s.StrongCompleteness && s.WeakCompleteness }},
		{"by nobody", []string{"0 a up", "0 b up", "10 a crash"}, "none",
			func(s spec.Suspicions) bool { return !s.WeakCompleteness && s.StrongAccuracy }},
		{"a mistake is taken back", []string{"0 a up", "0 b up", "10 a suspects b", "12 a trusts b", "20 a up"},
			"strong, eventually perfect, eventually strong, weak, eventually weak",
			func(s spec.Suspicions) bool {
				return s.Mistakes == 1 && s.Mistake == 2*time.Second && s.Rate == 1.0/40 && !s.StrongAccuracy
			}},
		{"everybody was suspected once", []string{"0 a up", "0 b up", "10 a suspects b", "11 b suspects a", "12 a trusts b", "14 b trusts a"},
			"eventually perfect, eventually strong, eventually weak",
			func(s spec.Suspicions) bool { return s.Mistake == 2500*time.Millisecond }},
		{"and still is", []string{"0 a up", "0 b up", "0 c up", "10 a suspects b", "10 b suspects a", "10 a suspects c", "12 a trusts c", "15 a up"},
			"eventually strong, eventually weak",
			func(s spec.Suspicions) bool { return s.Mistake == 4*time.Second }},
		{"suspected before the crash", []string{"0 a up", "0 b up", "10 a suspects b", "13 b crash", "20 a up"},
			"strong, eventually perfect, eventually strong, weak, eventually weak",
			func(s spec.Suspicions) bool {
				return s.Mistakes == 1 && s.Mistake == 3*time.Second && s.Detections == 0 && s.Rate == 1.0/33
			}},
		{"the watcher goes down", []string{"0 a up", "0 b up", "10 a suspects b", "11 a crash", "15 a up"},
			"strong, eventually perfect, eventually strong, weak, eventually weak",
			func(s spec.Suspicions) bool { return s.Mistakes == 1 && s.Mistake == time.Second }},
		{"it comes back", []string{"0 a up", "0 b up", "10 b crash", "12 a suspects b", "14 b up", "15 a trusts b"},
			"perfect, strong, eventually perfect, eventually strong, weak, eventually weak",
			func(s spec.Suspicions) bool { return s.Detections == 1 && s.Mistakes == 0 }},
	} {
		card := spec.JudgeSuspicions(run(t, c.lines...))
		class := strings.Join(card.Class(), ", ")
		if class == "" {
			class = "none"
		}
		if class != c.class || !c.want(card) {
			t.Errorf("%s:\n%v\nwant %s", c.name, card, c.class)
		}
		if !strings.HasSuffix(card.String(), "class: "+c.class) || !slices.IsSorted(card.Nodes) {
			t.Errorf("%s: %v", c.name, card)
		}
	}
}
