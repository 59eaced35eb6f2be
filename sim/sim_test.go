package sim_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/sim"
	"assent/spec"
	"assent/trace"
)

func twoPhase(t testing.TB, participants int, options commit.Options) *sim.System {
	t.Helper()
	nodes, err := commit.TwoPhase{Participants: participants, Options: options}.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	codec, err := protocol.NewCodec(commit.Types()...)
	if err != nil {
		t.Fatal(err)
	}
	return &sim.System{Name: "2pc", Parameters: map[string]string{"participants": fmt.Sprint(participants)},
		Nodes: nodes, Codec: codec,
		Always:    []spec.Property{spec.AC1(), spec.AC2(), spec.AC3()},
		Sometimes: []spec.Property{spec.AllCommit(), spec.PromiseUndone()},
		Done:      spec.ParticipantDone}
}

// traced runs a plan and returns its trace as text.
func traced(t testing.TB, s sim.Subject, plan sim.Plan) ([]byte, sim.Report) {
	t.Helper()
	var b bytes.Buffer
	w, err := trace.NewWriter(&b, s.Types(), s.Header(plan), trace.Text())
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Run(plan, w)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), r
}

// read returns the events of a trace.
func read(t testing.TB, s sim.Subject, data []byte) (h trace.Header, events []trace.Event) {
	t.Helper()
	r, err := trace.NewReader(bytes.NewReader(data), s.Types())
	if err != nil {
		t.Fatal(err)
	}
	for {
		e, err := r.Next()
		if err == io.EOF {
			return r.Header(), events
		}
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
}

// TestSameSeedSameTrace runs each seed twice, and then once more from its own trace.
func TestSameSeedSameTrace(t *testing.T) {
	s := twoPhase(t, 3, commit.Options{Cooperative: true})
	for seed := range seen(150) {
		plan := s.Draw(seed, sim.Classes())
		first, r := traced(t, s, plan)
		second, _ := traced(t, s, plan)
		if !bytes.Equal(first, second) {
			t.Fatalf("seed %d gave two traces:\n%s", seed, cmp.Diff(string(first), string(second)))
		}
		h, events := read(t, s, first)
		again, err := sim.ReadPlan(h)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(plan, again, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("seed %d: the header gives another plan:\n%s", seed, d)
		}
		replayed, err := s.Replay(again, events, nil)
		if err != nil {
			t.Fatalf("seed %d: replay: %v", seed, err)
		}
		if replayed.Failure != nil || len(replayed.Unfinished) != len(r.Unfinished) {
			t.Errorf("seed %d: the replay ends with %v and %v unfinished, the run with %v", seed, replayed.Failure, replayed.Unfinished, r.Unfinished)
		}
	}
}

// TestSeeds holds two-phase commit to its claims, and the drawing to its own: every class must have an
// effect in some seed, and what should be possible must happen.
func TestSeeds(t *testing.T) {
	for name, s := range map[string]*sim.System{
		"plain":       twoPhase(t, 3, commit.Options{}),
		"cooperative": twoPhase(t, 3, commit.Options{Cooperative: true, VoteRetries: 2}),
		"one":         twoPhase(t, 1, commit.Options{NoOnePhase: true}),
	} {
		t.Run(name, func(t *testing.T) {
			sum, err := sim.Seeds(t.Context(), s, 1, 1000, sim.Classes(), 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range sum.Failed {
				t.Errorf("seed %d: %v", r.Plan.Seed, r.Failure)
			}
			for _, c := range sim.Classes() {
				if sum.Fired[c] < 10 {
					t.Errorf("%v has had an effect in %d of %d seeds; it was drawn in %d", c, sum.Fired[c], sum.Seeds, sum.Drawn[c])
				}
			}
			for _, p := range s.Sometimes {
				if sum.Reached[p.Name] == 0 {
					t.Errorf("in no seed %s", p.Name)
				}
			}
		})
	}
}

// However many faults there are, a message is not repeated without end.
func TestCopiesAreBounded(t *testing.T) {
	var log events
	s := twoPhase(t, 2, commit.Options{})
	plan := sim.Plan{Safety: time.Second, Bound: time.Minute,
		Faults: slices.Repeat([]sim.Fault{{Class: sim.Duplication, For: time.Second, Rate: 100}}, 100)}
	if _, err := s.Run(plan, &log); err != nil {
		t.Fatal(err)
	}
	count := map[trace.Kind]int{}
	for _, e := range log {
		count[e.Kind]++
	}
	if count[trace.Duplicate] == 0 || count[trace.Duplicate] > 3*count[trace.Send] {
		t.Errorf("%d messages have %d copies", count[trace.Send], count[trace.Duplicate])
	}
}

// TestSeedsOfLittle draws for systems in which there is little time, or nobody: what cannot be run is
// refused.
func TestSeedsOfLittle(t *testing.T) {
	for _, safety := range []time.Duration{1, 2 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 150 * time.Millisecond} {
		s := twoPhase(t, 2, commit.Options{})
		s.Safety = safety
		if sum, err := sim.Seeds(t.Context(), s, 1, 30, sim.Classes(), 1, nil); err != nil || sum.Failures > 0 {
			t.Errorf("with %v of safety: %d failures, %v", safety, sum.Failures, err)
		}
	}
	long := twoPhase(t, 2, commit.Options{})
	long.Safety = 48 * time.Hour
	for name, s := range map[string]*sim.System{"no nodes": {}, "nodes without machines": {Nodes: make([]protocol.Node, 2)}, "two days": long} {
		if _, err := sim.Seeds(t.Context(), s, 1, 30, sim.Classes(), 1, nil); !errors.Is(err, sim.ErrSystem) {
			t.Errorf("%s: got %v; want ErrSystem", name, err)
		}
	}
	day := twoPhase(t, 2, commit.Options{})
	day.Safety = 24 * time.Hour
	for seed := range uint64(100) {
		if err := day.Draw(seed, []sim.Class{sim.Flapping}).Validate(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSeedsEnded ends a search early and wants what is known by then.
func TestSeedsEnded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sum, err := sim.Seeds(ctx, twoPhase(t, 2, commit.Options{}), 1, 1_000_000_000, sim.Classes(), 2, func(sim.Summary) { cancel() })
	if err != nil || sum.Seeds == 0 || sum.Events == 0 || sum.Failures != 0 {
		t.Errorf("the search ends with %v, %d seeds and %d failures", err, sum.Seeds, sum.Failures)
	}
}

// TestPlanBounds refuses what would take for ever to run, and faults that cannot be.
func TestPlanBounds(t *testing.T) {
	s := twoPhase(t, 1, commit.Options{})
	for _, p := range []sim.Plan{
		{Safety: -time.Second},
		{Safety: 30 * time.Hour},
		{Bound: 1000 * time.Hour},
		{Faults: make([]sim.Fault, 2000)},
		{Faults: []sim.Fault{{Class: sim.Flapping, For: time.Hour, By: 1}}},
		{Faults: []sim.Fault{{Class: sim.Loss, At: -1, For: time.Hour}}},
		{Faults: []sim.Fault{{Class: sim.Drift, For: time.Hour, Rate: 1 << 40}}},
		{Faults: []sim.Fault{{Class: sim.TornWrite, For: time.Hour, Rate: 900, Node: "p1"}}},
		{Faults: []sim.Fault{{Class: sim.Loss, For: time.Hour, Rate: -1}}},
		{Faults: []sim.Fault{{Class: sim.Whim, For: time.Hour, Sends: -1, Node: "p1"}}},
		{Faults: slices.Repeat([]sim.Fault{{Class: sim.Loss, For: time.Hour}}, 101)},
		{Faults: slices.Repeat([]sim.Fault{{Class: sim.Flapping, For: time.Hour, By: time.Second}}, 6)},
	} {
		if _, err := s.Run(p, nil); !errors.Is(err, sim.ErrSystem) {
			t.Errorf("%v runs: %v", p, err)
		}
		var h trace.Header
		p.Describe(&h)
		if again, err := sim.ReadPlan(h); err == nil {
			t.Errorf("%v is read", again)
		}
	}
}

// forgetful is a participant that takes back its promise: it rolls back as soon as it is in doubt
// long enough to ask.
type forgetful struct{ Node commit.ParticipantNode }

func (f *forgetful) Step(ev protocol.Event, out *protocol.Effects) {
	if e, ok := ev.(protocol.Expire); ok && e.Timer == commit.InquireTimer {
		ev = protocol.Receive{From: "c", Message: commit.Finish{ID: "t", Decision: commit.Abort}}
	}
	f.Node.Step(ev, out)
}

func (f *forgetful) Standing() commit.Standing { return f.Node.Standing() }

// broken is two-phase commit with a forgetful participant p1.
func broken(t testing.TB) *sim.System {
	s := twoPhase(t, 3, commit.Options{})
	p1 := &s.Nodes[1]
	honest, anew := p1.New[0], p1.New[0]
	p1.New = []func() protocol.Machine{func() protocol.Machine {
		return &forgetful{*honest().(*commit.ParticipantNode)}
	}}
	p1.Anew = func() protocol.Machine { return &forgetful{*anew().(*commit.ParticipantNode)} }
	return s
}

// TestBrokenMachine wants a machine with a known fault found, its seed shrunk, and the script of that
// to show the same when it is replayed from its text.
func TestBrokenMachine(t *testing.T) {
	s := broken(t)
	sum, err := sim.Seeds(t.Context(), s, 1, 500, sim.Classes(), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if sum.Failures == 0 {
		t.Fatal("no seed has found it")
	}
	for _, failed := range sum.Failed[:min(5, len(sum.Failed))] {
		small, err := sim.Explain(t.Context(), s, failed, 0)
		if err != nil {
			t.Fatal(err)
		}
		if small.Failure == nil || small.Failure.Claim != failed.Failure.Claim {
			t.Fatalf("seed %d: %v was shrunk to %v", failed.Plan.Seed, failed.Failure, small.Failure)
		}
		if len(small.Plan.Faults) > 2 {
			t.Errorf("seed %d needs %d faults: %v", failed.Plan.Seed, len(small.Plan.Faults), small.Plan.Faults)
		}
		r, err := s.ReplayText(bytes.NewReader(small.Script), nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Failure == nil || r.Failure.Claim != failed.Failure.Claim {
			t.Errorf("seed %d: the script ends with %v; want %v\n%s", failed.Plan.Seed, r.Failure, failed.Failure, small.Script)
		}
		if _, script := read(t, s, small.Script); len(script) > 20 {
			t.Errorf("seed %d: the script has %d choices", failed.Plan.Seed, len(script))
		}
		cut := bytes.Replace(small.Script, []byte("# node p3\n"), nil, 1)
		if _, err := s.ReplayText(bytes.NewReader(cut), nil); !errors.Is(err, sim.ErrScript) {
			t.Errorf("a header that is cut off: %v, want ErrScript", err)
		}
	}
}

// A lie breaks what no protocol for crashes promises to keep under lies, and is found.
func TestLiesAreFound(t *testing.T) {
	s := twoPhase(t, 2, commit.Options{})
	sum, err := sim.Seeds(t.Context(), s, 1, 300, []sim.Class{sim.Lying}, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if sum.Failures == 0 || sum.Fired[sim.Lying] == 0 {
		t.Errorf("%d seeds failed of %d with lies", sum.Failures, sum.Fired[sim.Lying])
	}
}

// A script that cannot be followed says where.
func TestReplayRefuses(t *testing.T) {
	s := twoPhase(t, 2, commit.Options{})
	start := trace.Event{Node: "c", Kind: trace.Deliver, Value: protocol.Start{}}
	for name, events := range map[string][]trace.Event{
		"a message that was never sent": {start, {Node: "p1", Kind: trace.Deliver, Value: protocol.Receive{From: "p2", Message: commit.Inquire{ID: "t"}}}},
		"a timer that is not armed":     {start, {Node: "c", Kind: trace.Deliver, Value: protocol.Expire{Timer: commit.ResendTimer}}},
		"a second start":                {start, start},
		"a node that is up made anew":   {start, {Node: "c", Kind: trace.Deliver, Value: protocol.Recover{}}},
		"a node that is not there":      {{Node: "x", Kind: trace.Crash}},
		"a damage of no kind":           {{Node: "c", Kind: trace.Damage, Value: "moths 3"}},
		"a damage that is no disk's":    {{Node: "c", Kind: trace.Damage, Value: "crash 50"}},
		"a damage beyond all":           {{Node: "c", Kind: trace.Damage, Value: "torn 900"}},
		"an input that is not one": {start, {Node: "c", Kind: trace.Deliver,
			Value: protocol.Input{Value: commit.Finish{ID: "t", Decision: commit.Commit}}}},
		"records out of nothing": {start, {Node: "c", Kind: trace.Crash}, {Node: "c", Kind: trace.Deliver,
			Value: protocol.Recover{Records: protocol.Records{commit.BranchKey: commit.PreparedRecord{ID: "t"}}}}},
		"a cut from nowhere": {{Node: "c", Kind: trace.Cut, Peer: "x"}},
		"a message over a link that is cut": {start, {Node: "p1", Kind: trace.Cut, Peer: "c"},
			{Node: "p1", Kind: trace.Deliver, Value: protocol.Receive{From: "c", Message: commit.Prepare{ID: "t"}}}},
		"something else in the trace": {start, {Node: "c", Kind: trace.Stepped, Value: protocol.Start{}}},
	} {
		if _, err := s.Replay(sim.Plan{}, events, nil); !errors.Is(err, sim.ErrScript) {
			t.Errorf("%s: got %v; want ErrScript", name, err)
		}
	}
}

// A message passes again once the link is healed.
func TestReplayHeals(t *testing.T) {
	s := twoPhase(t, 2, commit.Options{})
	deliver := trace.Event{Node: "p1", Kind: trace.Deliver,
		Value: protocol.Receive{From: "c", Message: commit.Prepare{ID: "t"}}}
	_, err := s.Replay(sim.Plan{}, []trace.Event{{Node: "c", Kind: trace.Deliver, Value: protocol.Start{}},
		{Node: "p1", Kind: trace.Cut, Peer: "c"}, {Node: "p1", Kind: trace.Heal, Peer: "c"}, deliver}, nil)
	if err != nil {
		t.Errorf("the message does not arrive: %v", err)
	}
}

func TestFaultText(t *testing.T) {
	for seed := range uint64(50) {
		for _, f := range twoPhase(t, 3, commit.Options{}).Draw(seed, sim.Classes()).Faults {
			again, err := sim.ParseFault(f.String())
			if err != nil || cmp.Diff(f, again) != "" {
				t.Errorf("%v is read as %v, %v", f, again, err)
			}
		}
	}
	for _, bad := range []string{"", "moths", "crash at=soon", "crash moon=full", "loss rate=x"} {
		if f, err := sim.ParseFault(bad); err == nil {
			t.Errorf("%q is read as %v", bad, f)
		}
	}
}

func TestMinimise(t *testing.T) {
	list := make([]int, 100)
	for i := range list {
		list[i] = i
	}
	got := sim.Minimise(t.Context(), list, func(part []int) bool {
		return slices.Contains(part, 7) && slices.Contains(part, 63) && slices.Contains(part, 64)
	})
	if d := cmp.Diff([]int{7, 63, 64}, got); d != "" {
		t.Error(d)
	}
}
