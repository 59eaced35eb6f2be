package check_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"assent/check"
	"assent/protocol"
	"assent/spec"
)

// The models of the published specification TwoPhase (Gray and Lamport 2006, section 3; the TLA+
// examples' transaction_commit), in their encoding: messages stay for ever, a resource manager may
// prepare or abort of its own accord, and obeys whatever it is told.
type (
	manager struct {
		State    uint8             // 0 init, 1 committed, 2 aborted
		Prepared []protocol.NodeID // in order
		RMs      []protocol.NodeID
	}
	rm struct{ State uint8 } // 0 working, 1 prepared, 2 committed, 3 aborted

	prepared struct{}
	verdict  struct{ Commit bool }

	wish struct{ What string }
)

func (m *manager) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Receive:
		if m.State == 0 {
			if i, known := slices.BinarySearch(m.Prepared, ev.From); !known {
				m.Prepared = slices.Insert(m.Prepared, i, ev.From)
			}
		}
	case protocol.Input:
		if m.State != 0 {
			return
		}
		commit := ev.Value.(wish).What == "commit"
		m.State = 2
		if commit {
			if len(m.Prepared) < len(m.RMs) {
				m.State = 0
				return
			}
			m.State = 1
		}
		for _, r := range m.RMs {
			out.Send(r, verdict{commit})
		}
	}
}

func (r *rm) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Receive:
		r.State = 3
		if ev.Message.(verdict).Commit {
			r.State = 2
		}
	case protocol.Input:
		if r.State != 0 {
			return
		}
		if ev.Value.(wish).What == "prepare" {
			r.State = 1
			out.Send("tm", prepared{})
			return
		}
		r.State = 3
	}
}

func twoPhase(t testing.TB, n int) check.System {
	t.Helper()
	codec, err := protocol.NewCodec(
		protocol.Type{Name: "manager", Zero: manager{}}, protocol.Type{Name: "rm", Zero: rm{}},
		protocol.Type{Name: "prepared", Zero: prepared{}}, protocol.Type{Name: "verdict", Zero: verdict{}})
	if err != nil {
		t.Fatal(err)
	}
	var rms []protocol.NodeID
	for i := range n {
		rms = append(rms, protocol.NodeID(fmt.Sprint("rm", i)))
	}
	sys := check.System{Codec: codec, Faults: check.Faults{Duplicates: check.Unlimited}}
	sys.Nodes = append(sys.Nodes, protocol.Node{ID: "tm",
		New:    []func() protocol.Machine{func() protocol.Machine { return &manager{RMs: rms} }},
		Inputs: []protocol.Value{wish{"commit"}, wish{"abort"}}})
	for _, id := range rms {
		sys.Nodes = append(sys.Nodes, protocol.Node{ID: id,
			New:    []func() protocol.Machine{func() protocol.Machine { return &rm{} }},
			Inputs: []protocol.Value{wish{"prepare"}, wish{"abort"}}})
	}
	return sys
}

// agree: no resource manager has committed while another has aborted (TCConsistent).
func agree(n int) spec.Property {
	return spec.Property{Name: "consistent", Holds: func(s spec.View) bool {
		committed, aborted := false, false
		for i := range n {
			switch s.Machine(1 + i).(*rm).State {
			case 2:
				committed = true
			case 3:
				aborted = true
			}
		}
		return !committed || !aborted
	}}
}

// TestTwoPhaseCounts: the published numbers of distinct states, 6^N + 4^N + 2^N.
func TestTwoPhaseCounts(t *testing.T) {
	for n, want := range map[int]int{1: 12, 2: 56, 3: 288, 5: 8832} {
		r, err := check.Run(context.Background(), twoPhase(t, n), check.Claims{
			Always: []spec.Property{agree(n)},
			Sometimes: []spec.Property{{Name: "all commit", Holds: func(s spec.View) bool {
				for i := range n {
					if s.Machine(1+i).(*rm).State != 2 {
						return false
					}
				}
				return true
			}}},
		}, check.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if r.States != want || len(r.Broken) > 0 || len(r.Never) > 0 || !r.Complete {
			t.Errorf("N=%d: %d states, want %d; broken %v, never %v", n, r.States, want, r.Broken, r.Never)
		}
	}
}

func BenchmarkTwoPhase(b *testing.B) {
	for b.Loop() {
		r, err := check.Run(context.Background(), twoPhase(b, 8), check.Claims{Always: []spec.Property{agree(8)}}, check.Limits{})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(r.States)/r.Elapsed.Seconds(), "states/s")
		b.ReportMetric(float64(r.Bytes)/float64(r.States), "B/state")
		b.ReportMetric(float64(r.States), "states")
	}
}
