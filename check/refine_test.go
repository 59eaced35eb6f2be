package check_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"assent/check"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/spec"
)

// TCommit of the published specification (Gray and Lamport 2006, section 2): what any protocol of
// commitment may do. It has no messages and sees all resource managers at once, so it is one machine.
type tcommit struct{ RMs []uint8 } // as rm.State

type turn struct {
	RM    int
	Abort bool // or go on: prepare, then commit
}

func (c *tcommit) Step(ev protocol.Event, _ *protocol.Effects) {
	in, ok := ev.(protocol.Input)
	if !ok {
		return
	}
	t := in.Value.(turn)
	state := &c.RMs[t.RM]
	canCommit := !slices.ContainsFunc(c.RMs, func(s uint8) bool { return s != 1 && s != 2 })
	switch {
	case t.Abort && *state <= 1 && !slices.Contains(c.RMs, 2):
		*state = 3
	case !t.Abort && *state == 0:
		*state = 1
	case !t.Abort && *state == 1 && canCommit:
		*state = 2
	}
}

func commitment(t testing.TB, n int) check.System {
	t.Helper()
	codec, err := protocol.NewCodec(protocol.Type{Name: "tcommit", Zero: tcommit{}})
	if err != nil {
		t.Fatal(err)
	}
	node := protocol.Node{ID: "rms", New: []func() protocol.Machine{func() protocol.Machine { return &tcommit{RMs: make([]uint8, n)} }}}
	for i := range n {
		node.Inputs = append(node.Inputs, turn{RM: i}, turn{RM: i, Abort: true})
	}
	return check.System{Nodes: []protocol.Node{node}, Codec: codec}
}

// TestTCommitCounts: the published numbers of distinct states, 3^N + 2^N - 1.
func TestTCommitCounts(t *testing.T) {
	for n, want := range map[int]int{1: 4, 2: 12, 3: 34, 4: 96} {
		r, err := check.Run(context.Background(), commitment(t, n), check.Claims{}, check.Limits{})
		if err != nil || r.States != want || !r.Complete {
			t.Errorf("N=%d: %d states, want %d; %v", n, r.States, want, err)
		}
	}
}

const rms = 3

// outward is what both specifications show of the resource managers.
type outward [rms]uint8

// twoPhaseState is what TwoPhase shows: all of its state. While the manager has not decided, a
// Prepared message was sent by those that are prepared; afterwards neither these messages nor what
// the manager has read of them matter, so they are left out. The messages Commit and Abort were
// sent when it decided.
type twoPhaseState struct {
	RMs      outward
	TM       uint8
	Prepared [rms]bool
}

func paperState(v spec.View) (s twoPhaseState) {
	m := v.Machine(0).(*manager)
	s.TM = m.State
	for i := range rms {
		s.RMs[i] = v.Machine(1 + i).(*rm).State
		s.Prepared[i] = m.State == 0 && slices.Contains(m.Prepared, m.RMs[i])
	}
	return s
}

// productionState is how two-phase commit as it runs stands for a state of TwoPhase. A resource manager
// is a branch. Work that a crash undoes has aborted. A coordinator that crashes before commit is in
// the register has aborted there and then, though it writes nothing: it will never propose commit.
func productionState(v spec.View) (s twoPhaseState) {
	for i := range rms {
		s.RMs[i] = branchAsRM(v, 1+i)
	}
	decision, _ := v.Record(0, commit.RegisterKey).(commit.DecisionRecord)
	c, up := v.Machine(0).(*commit.CoordinatorNode)
	switch {
	case decision.Decision == commit.Commit:
		s.TM = 1
	case up && (c.Coordinator.State == commit.CoordinatorIdle || c.Coordinator.State == commit.CoordinatorVoting):
		for i, m := range c.Coordinator.Members {
			s.Prepared[i] = m.Vote == commit.Yes
		}
	default:
		s.TM = 2
	}
	return s
}

func branchAsRM(v spec.View, i int) uint8 {
	record, _ := v.Record(i, commit.ResourceKey).(commit.BranchRecord)
	state := record.State
	if p, ok := v.Machine(i).(*commit.ParticipantNode); ok {
		state = p.Branch.State
	} else if state == commit.BranchWorking {
		state = commit.BranchLost
	}
	return [...]uint8{commit.BranchWorking: 0, commit.BranchLost: 3, commit.BranchInDoubt: 1,
		commit.BranchCommitted: 2, commit.BranchRolledBack: 3}[state]
}

// cooperativeState is productionState where peers help. A participant that refuses tells peers in
// doubt to abort before the coordinator knows; commit has become impossible, so the manager has
// aborted then.
func cooperativeState(v spec.View) twoPhaseState {
	s := productionState(v)
	if slices.Contains(s.RMs[:], 3) {
		s.TM, s.Prepared = 2, [rms]bool{}
	}
	return s
}

// TestTwoPhaseCommitRefines: every step of two-phase commit as it runs, with crashes and restarts and
// under loss, duplication and reordering without limit, is one of TCommit or none; and it is at most
// two of TwoPhase: with the last vote the coordinator decides at once, and cooperative participants
// abort for the manager.
func TestTwoPhaseCommitRefines(t *testing.T) {
	beside(t)
	ctx := context.Background()
	top, err := check.BehaviourOf(ctx, commitment(t, rms), check.Limits{}, func(v spec.View) outward {
		return outward(v.Machine(0).(*tcommit).RMs)
	})
	if err != nil {
		t.Fatal(err)
	}
	middle, err := check.BehaviourOf(ctx, twoPhase(t, rms), check.Limits{}, paperState)
	if err != nil {
		t.Fatal(err)
	}
	r, err := check.Run(ctx, twoPhase(t, rms), check.Claims{Steps: []check.StepProperty{
		top.Refined("TwoPhase refines TCommit", 1, func(v spec.View) outward { return paperState(v).RMs })}}, check.Limits{})
	if err != nil || len(r.Broken) > 0 || r.States != 288 {
		t.Errorf("TwoPhase does not refine TCommit: %d states, %v, %v", r.States, r.Broken, err)
	}
	for name, as := range map[string]func(spec.View) twoPhaseState{"plain": productionState, "cooperative": cooperativeState} {
		t.Run(name, func(t *testing.T) {
			model := twoPhaseCommit{TwoPhase: commit.TwoPhase{Participants: rms, Votes: []commit.Vote{commit.Yes, commit.No}}}
			model.Options.Cooperative = name == "cooperative"
			model.Faults = check.Faults{Crashes: 1, Restarts: 1, Duplicates: check.Unlimited}
			if soaking() {
				model.Faults.Crashes, model.Faults.Restarts = 2, 2
			}
			sys, err := model.system()
			if err != nil {
				t.Fatal(err)
			}
			r := complete(t, interchangeable(sys), check.Claims{Steps: []check.StepProperty{
				top.Refined("refines TCommit", 1, func(v spec.View) outward { return as(v).RMs }),
				middle.Refined("refines TwoPhase", 2, as),
				middle.Refined("refines TwoPhase, step by step", 1, as),
			}})
			if len(r.Broken) != 1 || r.Broken[0].Claim != "refines TwoPhase, step by step" {
				t.Errorf("%v", r.Broken)
			}
		})
	}
}

// TestRefinementIsRefuted: a resource manager that aborts after it has voted yes does what neither
// specification does.
func TestRefinementIsRefuted(t *testing.T) {
	top, err := check.BehaviourOf(context.Background(), commitment(t, rms), check.Limits{}, func(v spec.View) outward {
		return outward(v.Machine(0).(*tcommit).RMs)
	})
	if err != nil {
		t.Fatal(err)
	}
	sys := twoPhase(t, rms)
	sys.Faults = check.Faults{Duplicates: check.Unlimited, Lies: 1}
	sys.Lie = func(from, _ protocol.NodeID, m protocol.Message) []protocol.Message {
		if v, ok := m.(verdict); ok && from == "tm" && v.Commit {
			return []protocol.Message{verdict{}}
		}
		return nil
	}
	r, err := check.Run(context.Background(), sys, check.Claims{
		Always: []spec.Property{agree(rms)},
		Steps:  []check.StepProperty{top.Refined("refines TCommit", 1, func(v spec.View) outward { return paperState(v).RMs })},
	}, check.Limits{})
	if err != nil || len(r.Broken) != 2 {
		t.Fatalf("%v, %v", r.Broken, err)
	}
	// The shortest way: three prepare, three are heard, the manager commits, lies once, and one believes it.
	if refuted := fmt.Sprint(r.Broken[1]); len(r.Broken[1].Steps) != 11 || !strings.Contains(refuted, "tm says verdict{\"Commit\":false}") {
		t.Errorf("%d steps: %s", len(r.Broken[1].Steps), refuted)
	}
}
