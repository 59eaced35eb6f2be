package spec_test

import (
	"fmt"
	"testing"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/spec"
	"assent/trace"
)

// TestWitness: what is seen of a transaction, and the claims that it breaks.
func TestWitness(t *testing.T) {
	ask := func(to protocol.NodeID) trace.Event {
		return trace.Event{Node: "c", Kind: trace.Send, Peer: to, Value: commit.Prepare{ID: "t"}}
	}
	hear := func(at protocol.NodeID, v protocol.Value) trace.Event {
		return trace.Event{Node: at, Kind: trace.Deliver, Value: protocol.Input{Value: v}}
	}
	votes := func(at protocol.NodeID, v commit.Vote) trace.Event { return hear(at, commit.BranchPrepared{Vote: v}) }
	ends := func(at protocol.NodeID, o commit.Outcome) trace.Event {
		return hear(at, commit.BranchFinished{Outcome: o})
	}
	stands := func(d commit.Decision) trace.Event { return hear("c", commit.Decided{Decision: d}) }
	told := func(at protocol.NodeID, d commit.Decision) trace.Event {
		return trace.Event{Node: at, Kind: trace.Deliver, Value: protocol.Receive{From: "c", Message: commit.Finish{ID: "t", Decision: d}}}
	}
	begin := []trace.Event{ask("a"), ask("b")}
	willing := append(begin[:2:2], votes("a", commit.Yes), votes("b", commit.Yes))
	for name, c := range map[string]struct {
		before, events []trace.Event
		broken         []string
	}{
		"a commit":               {willing, []trace.Event{stands(commit.Commit), told("a", commit.Commit), ends("a", commit.Committed), ends("b", commit.Committed)}, nil},
		"an abort":               {begin, []trace.Event{votes("a", commit.No), ends("b", commit.RolledBack)}, nil},
		"a read-only vote":       {begin, []trace.Event{votes("a", commit.Yes), votes("b", commit.ReadOnly), stands(commit.Commit), ends("a", commit.Committed), ends("b", commit.RolledBack)}, nil},
		"an orphan, elsewhere":   {nil, []trace.Event{stands(commit.Commit), told("a", commit.Commit), ends("a", commit.Committed)}, nil},
		"one phase":              {nil, []trace.Event{{Node: "c", Kind: trace.Send, Peer: "a", Value: commit.OnePhase{ID: "t"}}, ends("a", commit.Committed)}, nil},
		"a late presumption":     {willing, []trace.Event{stands(commit.Commit), told("a", commit.Commit), ends("a", commit.Committed), told("a", commit.Abort)}, nil},
		"a split":                {willing, []trace.Event{stands(commit.Commit), ends("a", commit.Committed), ends("b", commit.RolledBack)}, []string{"AC1", "AC2"}},
		"a reversal":             {willing, []trace.Event{stands(commit.Commit), stands(commit.Abort)}, []string{"AC2"}},
		"another is concluded":   {willing, []trace.Event{stands(commit.Abort), {Node: "c", Kind: trace.Emit, Value: commit.Concluded{Decision: commit.Commit}}}, []string{"AC2"}},
		"told against what is":   {willing, []trace.Event{stands(commit.Commit), told("b", commit.Abort)}, []string{"AC2"}},
		"before it is on record": {willing, []trace.Event{ends("a", commit.Committed)}, []string{"AC2"}},
		"a vote is missing":      {begin, []trace.Event{votes("a", commit.Yes), stands(commit.Commit)}, []string{"AC3"}},
		"a no is not heard":      {begin, []trace.Event{votes("a", commit.Yes), votes("b", commit.No), stands(commit.Commit)}, []string{"AC3"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := spec.NewWitness()
			for _, e := range append(append([]trace.Event{{Node: "nobody", Kind: trace.Crash}}, c.before...), c.events...) {
				if e.Kind != trace.Crash {
					e.Scope = "t"
				}
				w.Observe(e)
			}
			var broken []string
			for _, b := range w.Breaches() {
				broken = append(broken, b.Claim[:3])
				if b.Scope != "t" || b.Event.Value != nil {
					t.Errorf("the breach %v is of %q and keeps %v", b, b.Scope, b.Event.Value)
				}
			}
			if fmt.Sprint(broken) != fmt.Sprint(c.broken) || w.Judged() != 1 {
				t.Errorf("broken are %v, want %v; %d judged", w.Breaches(), c.broken, w.Judged())
			}
		})
	}
}

// TestWitnessIsBounded: it lets the oldest transactions go.
func TestWitnessIsBounded(t *testing.T) {
	w := spec.NewWitness(spec.AC2())
	for i := range 70_000 {
		scope := fmt.Sprint(i)
		for _, d := range []commit.Decision{commit.Commit, commit.Abort} {
			w.Observe(trace.Event{Scope: scope, Node: "c", Kind: trace.Deliver, Value: protocol.Input{Value: commit.Decided{Decision: d}}})
		}
	}
	if w.Judged() != 1<<16 || len(w.Breaches()) != 100 {
		t.Errorf("%d transactions and %d breaches are kept", w.Judged(), len(w.Breaches()))
	}
}
