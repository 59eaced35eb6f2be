package check_test

import (
	"context"
	"testing"

	"assent/check"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/sim"
	"assent/spec"
	"assent/trace"
)

// hopes are properties that do not hold, so that there are ways to show: short and long ones, to where
// something is committed, undone, lost, or said twice.
func hopes() []spec.Property {
	not := func(name string, p func(spec.View) bool) spec.Property {
		return spec.Property{Name: name, Holds: func(v spec.View) bool { return !p(v) }}
	}
	down := func(v spec.View) (n int) {
		for i := range v.Nodes() {
			if v.Machine(i) == nil {
				n++
			}
		}
		return n
	}
	return []spec.Property{
		not("not all commit", spec.AllCommit().Holds),
		not("no promise is undone", spec.PromiseUndone().Holds),
		not("one branch never commits alone", func(v spec.View) bool { return committed(v) == 1 && down(v) > 0 }),
		not("nobody is down beside one who has committed and come back", func(v spec.View) bool {
			for i := range v.Nodes() {
				p, ok := v.Machine(i).(*commit.ParticipantNode)
				if ok && p.Participant.Outcome == commit.Committed && p.Participant.Attempt == 0 && down(v) > 0 {
					return true
				}
			}
			return false
		}),
	}
}

// TestTracesAreReplayed: every counterexample is a run that the simulator can follow, event for event,
// and at whose end the claim does not hold there either.
func TestTracesAreReplayed(t *testing.T) {
	beside(t)
	lies := func(from, _ protocol.NodeID, m protocol.Message) []protocol.Message {
		if v, ok := m.(commit.Voted); ok && from == "p1" {
			v.Vote = commit.No
			return []protocol.Message{v}
		}
		return nil
	}
	forever := check.Faults{Crashes: 2, Restarts: 1, Duplicates: check.Unlimited}
	counted := check.Faults{Crashes: 1, Restarts: 1, Losses: 1, Duplicates: 1}
	partitioned := check.Faults{Partitions: 1, Heals: 1, Crashes: 1, Restarts: 1}
	for name, c := range map[string]struct {
		faults    check.Faults
		model     check.Model
		lie       func(from, to protocol.NodeID, m protocol.Message) []protocol.Message
		symmetric bool
	}{
		"forever":                     {faults: forever},
		"forever, up to names":        {faults: forever, symmetric: true},
		"counted":                     {faults: counted, model: check.Synchronous},
		"counted, up to names":        {faults: counted, symmetric: true, model: check.Synchronous},
		"partitions":                  {faults: partitioned, model: check.Synchronous},
		"partitions, up to names":     {faults: partitioned, model: check.Synchronous, symmetric: true},
		"cuts":                        {faults: check.Faults{Cuts: 2, Heals: 1, Crashes: 1, Restarts: 1}, model: check.Synchronous},
		"cuts, messages stay":         {faults: check.Faults{Cuts: 1, Heals: 1, Crashes: 1, Restarts: 1, Duplicates: check.Unlimited}},
		"lies":                        {faults: check.Faults{Lies: 1, Crashes: 1, Restarts: 1}, lie: lies, model: check.Synchronous},
		"lies beside what stays true": {faults: check.Faults{Lies: 1, Crashes: 1, Restarts: 1, Duplicates: check.Unlimited}, lie: lies},
	} {
		t.Run(name, func(t *testing.T) {
			beside(t)
			model := twoPhaseCommit{TwoPhase: commit.TwoPhase{Participants: 2, Options: commit.Options{Cooperative: true}}, Faults: c.faults, Model: c.model}
			if !soaking() {
				model.Votes = []commit.Vote{commit.Yes} // the search for the ways takes most of the time
			}
			sys, err := model.system()
			if err != nil {
				t.Fatal(err)
			}
			sys.Lie = c.lie
			if c.symmetric {
				sys = interchangeable(sys)
			}
			r, err := check.Run(context.Background(), sys, check.Claims{Always: hopes(), Decided: spec.ParticipantDone}, check.Limits{States: 1_000_000})
			if err != nil || len(r.Broken) != len(hopes()) || r.Blocked == nil {
				t.Fatalf("%d broken, blocked %v, %v", len(r.Broken), r.Blocked != nil, err)
			}
			for i, broken := range r.Broken {
				replay(t, sys, broken, hopes()[i:i+1])
			}
			replay(t, sys, *r.Blocked, nil)
		})
	}
}

// replay follows a counterexample in the simulator.
func replay(t *testing.T, sys check.System, c check.Counterexample, claim []spec.Property) {
	t.Helper()
	s := sim.System{Nodes: sys.Nodes, Codec: sys.Codec, Always: claim}
	report, err := s.Replay(sim.Plan{Begin: c.Begin}, c.Trace(), nil)
	if err != nil {
		t.Errorf("%v\n%s", err, c)
		for i, e := range c.Trace() {
			t.Logf("%d %s #%d", i+1, e.Point(), e.Message)
		}
		return
	}
	if len(claim) > 0 && report.Failure == nil {
		t.Errorf("%s holds in the simulator\n%s", claim[0].Name, c)
	}
	for _, e := range c.Trace() {
		if e.Kind == trace.Failed || e.Node == "" {
			t.Errorf("what is this: %+v", e)
		}
	}
}
