package check_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"assent/check"
	"assent/protocol"
	"assent/protocol/commit"
)

// twoPhaseCommit is the production coordinator, over a register, among n production participants,
// over branches, with every combination of the given votes.
func twoPhaseCommit(t testing.TB, n int, options commit.Options, votes ...commit.Vote) check.System {
	t.Helper()
	codec, err := protocol.NewCodec(commit.Types()...)
	if err != nil {
		t.Fatal(err)
	}
	options.Retry, options.RetryMost = time.Second, time.Second // one pause: durations do not count here
	var ids []protocol.NodeID
	for i := range n {
		ids = append(ids, protocol.NodeID(fmt.Sprint("p", i+1)))
	}
	coordinator := func(ids []protocol.NodeID) func() protocol.Machine {
		return func() protocol.Machine {
			return &commit.CoordinatorNode{Coordinator: *commit.NewCoordinator("t", ids, options)}
		}
	}
	sys := check.System{Codec: codec}
	sys.Nodes = append(sys.Nodes, check.Node{ID: "c", New: []func() protocol.Machine{coordinator(ids)}, Anew: coordinator(nil)})
	participant := func(v commit.Vote) func() protocol.Machine {
		return func() protocol.Machine {
			return &commit.ParticipantNode{Participant: *commit.NewParticipant("t", "c", options), Branch: commit.Branch{Vote: v}}
		}
	}
	for _, id := range ids {
		node := check.Node{ID: id}
		for _, v := range votes {
			node.New = append(node.New, participant(v))
		}
		sys.Nodes = append(sys.Nodes, node)
	}
	return sys
}

// branches returns how the branches stand, in stable storage where the node is down.
func branches(s check.State, n int) (committed, rolledBack, promised bool) {
	for i := 1; i <= n; i++ {
		record, _ := s.Record(i, commit.ResourceKey).(commit.BranchRecord)
		state := record.State
		if m := s.Machine(i); m != nil {
			state = m.(*commit.ParticipantNode).Branch.State
		}
		committed = committed || state == commit.BranchCommitted
		rolledBack = rolledBack || state == commit.BranchRolledBack
		promised = promised || state == commit.BranchInDoubt
	}
	return committed, rolledBack, promised
}

// atomic are AC1 (all who decide, decide alike) and AC2 and AC3 as far as a state can tell them:
// no branch ends against what the register says, and commit never stands without every vote.
func atomic(n int) []check.Property {
	return []check.Property{
		{Name: "AC1", Holds: func(s check.State) bool {
			committed, rolledBack, _ := branches(s, n)
			return !committed || !rolledBack
		}},
		{Name: "AC2", Holds: func(s check.State) bool {
			committed, rolledBack, _ := branches(s, n)
			record, _ := s.Record(0, commit.RegisterKey).(commit.DecisionRecord)
			return (!committed || record.Decision == commit.Commit) && (!rolledBack || record.Decision != commit.Commit)
		}},
		{Name: "AC3", Holds: func(s check.State) bool {
			record, _ := s.Record(0, commit.RegisterKey).(commit.DecisionRecord)
			if record.Decision != commit.Commit {
				return true
			}
			for i := 1; i <= n; i++ {
				m, _ := s.Machine(i).(*commit.ParticipantNode)
				if m != nil && m.Branch.State == commit.BranchWorking || m != nil && m.Branch.Vote == commit.No && m.Branch.State != commit.BranchRolledBack && m.Branch.State != commit.BranchLost {
					return false
				}
			}
			return true
		}},
	}
}

func sometimes(n int) []check.Property {
	return []check.Property{
		{Name: "all commit", Holds: func(s check.State) bool {
			committed, _, promised := branches(s, n)
			c, _ := s.Machine(0).(*commit.CoordinatorNode)
			return committed && !promised && c != nil && c.Coordinator.State == commit.CoordinatorCommitted
		}},
		{Name: "a promise is rolled back", Holds: func(s check.State) bool {
			_, rolledBack, promised := branches(s, n)
			return rolledBack && promised
		}},
	}
}

// decided: a coordinator has always come to its end, for the question is whether participants can.
func decided(_ int, m protocol.Machine) bool {
	p, ok := m.(*commit.ParticipantNode)
	return !ok || p.Participant.State.Done()
}

// TestTwoPhaseCommitIsSafe: AC1 to AC3 under loss, duplication and reordering without limit, and
// crashes with and without restarts, with and without cooperative termination.
func TestTwoPhaseCommitIsSafe(t *testing.T) {
	yesNo := []commit.Vote{commit.Yes, commit.No}
	all := []commit.Vote{commit.Yes, commit.No, commit.ReadOnly}
	for _, tc := range []struct {
		name    string
		n       int
		votes   []commit.Vote
		options commit.Options
		faults  check.Faults
	}{
		{"cooperative", 2, all, commit.Options{Cooperative: true}, check.Faults{Crashes: 2, Restarts: 2, Duplicates: check.Unlimited}},
		{"asks again", 2, all, commit.Options{VoteRetries: 1}, check.Faults{Crashes: 2, Restarts: 2, Duplicates: check.Unlimited}},
		{"three", 3, yesNo, commit.Options{}, check.Faults{Crashes: 1, Restarts: 1, Duplicates: check.Unlimited}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.n > 2 && os.Getenv("ASSENT_SOAK") == "" {
				t.Skip("200,000 states: run by make soak")
			}
			sys := twoPhaseCommit(t, tc.n, tc.options, tc.votes...)
			sys.Faults = tc.faults
			r, err := check.Run(context.Background(), sys, check.Claims{Always: atomic(tc.n), Sometimes: sometimes(tc.n)}, check.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range r.Broken {
				t.Errorf("%s", c)
			}
			if len(r.Never) > 0 || !r.Complete {
				t.Errorf("never: %v; complete: %v", r.Never, r.Complete)
			}
			t.Logf("%d states, %d transitions, depth %d, %d local states, %d messages, %v", r.States, r.Transitions, r.Depth, r.Locals, r.Messages, r.Elapsed)
		})
	}
}

// TestTwoPhaseCommitBlocks: AC5 does not hold. One crash, the coordinator's, blocks those who have
// voted yes; while it can come back, nobody is blocked for ever.
func TestTwoPhaseCommitBlocks(t *testing.T) {
	sys := twoPhaseCommit(t, 2, commit.Options{}, commit.Yes)
	for i := 1; i <= 2; i++ { // who has not voted may give up of its own accord
		sys.Nodes[i].Inputs = []protocol.Value{commit.Abandon{}}
	}
	run := func(f check.Faults) check.Report {
		t.Helper()
		f.Duplicates = check.Unlimited
		sys.Faults = f
		r, err := check.Run(context.Background(), sys, check.Claims{Decided: decided}, check.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := run(check.Faults{}); r.Blocking != 0 {
		t.Errorf("without a fault %d states block: %v", r.Blocking, r.Blocked)
	}
	r := run(check.Faults{Crashes: 1})
	if r.Blocked == nil {
		t.Fatal("two-phase commit does not block")
	}
	text := r.Blocked.String()
	last := strings.Join(r.Blocked.Steps[len(r.Blocked.Steps)-1].After, "\n")
	if !strings.HasPrefix(last, "down\n") || !strings.Contains(last, `"State":"prepared"`) {
		t.Errorf("it blocks otherwise than in doubt, with the coordinator down:\n%s%s", text, last)
	}
	t.Logf("%d of %d states block; the shortest way:\n%s", r.Blocking, r.States, text)
}
