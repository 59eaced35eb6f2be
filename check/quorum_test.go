package check_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"assent/check"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/spec"
)

// TestQuorumThreePhaseIsSafe: AC1 to AC3 without any bound on delays, with loss, duplication and
// reordering without limit, which covers every partition: what is cut off is not delivered yet. Both
// ends are reached without the coordinator.
func TestQuorumThreePhaseIsSafe(t *testing.T) {
	beside(t)
	two := func(q commit.Quorums, rounds int, votes ...commit.Vote) commit.QuorumThreePhase {
		return commit.QuorumThreePhase{Participants: 2, Quorums: q, Votes: votes, Steadfast: true, Options: commit.Options{Rounds: rounds}}
	}
	weighted := commit.Quorums{Votes: []int{2, 1}, Commit: 2, Abort: 2}
	easyCommit := commit.Quorums{Votes: []int{1, 1}, Commit: 1, Abort: 2}
	easyAbort := commit.Quorums{Votes: []int{1, 1}, Commit: 2, Abort: 1}
	without := []spec.Property{withoutCoordinator(commit.Commit), withoutCoordinator(commit.Abort)}
	for name, c := range map[string]struct {
		commit.QuorumThreePhase
		crashes, restarts int
		sometimes         []spec.Property
		long              bool
	}{
		"any votes":               {QuorumThreePhase: two(easyAbort, 1, commit.Yes, commit.No)},
		"any votes, easy commit":  {QuorumThreePhase: two(easyCommit, 1, commit.Yes, commit.No)},
		"a round, a crash":        {QuorumThreePhase: two(easyAbort, 1, commit.Yes), crashes: 1, restarts: 1, sometimes: without},
		"weighted, a crash":       {QuorumThreePhase: two(weighted, 1, commit.Yes), crashes: 1, restarts: 1, sometimes: without, long: true},
		"each leads, a crash":     {QuorumThreePhase: two(easyAbort, 2, commit.Yes), crashes: 1, sometimes: without},
		"weighted, three rounds":  {QuorumThreePhase: two(weighted, 3, commit.Yes), long: true},
		"four rounds":             {QuorumThreePhase: two(easyAbort, 4, commit.Yes), long: true},
		"each leads, two crashes": {QuorumThreePhase: two(easyAbort, 2, commit.Yes), crashes: 2, restarts: 2, sometimes: without, long: true},
	} {
		t.Run(name, func(t *testing.T) {
			if c.long {
				soak(t)
			}
			faults := check.Faults{Crashes: c.crashes, Restarts: c.restarts, Duplicates: check.Unlimited}
			nothingBroken(t, explore(t, c.QuorumThreePhase, check.Asynchronous, faults, check.Claims{Always: safety(),
				Sometimes: append(c.sometimes, spec.AllCommit(), spec.PromiseUndone())}))
		})
	}
}

// TestQuorumThreePhaseUnderPartition: the network splits and heals, in the synchronous model.
func TestQuorumThreePhaseUnderPartition(t *testing.T) {
	beside(t)
	three := commit.QuorumThreePhase{Participants: 3, Votes: []commit.Vote{commit.Yes}, Steadfast: true, Options: commit.Options{Rounds: 1}}
	if soaking() {
		three.Options.Rounds = 3
	}
	nothingBroken(t, explore(t, three, check.Synchronous, check.Faults{Partitions: 1, Heals: 1}, check.Claims{Always: safety(),
		Sometimes: []spec.Property{spec.AllCommit(), spec.PromiseUndone()}}))
}

// voted is a node of a system in which all have voted yes: at the start it is made from its stable
// record. It keeps to the rounds: it says nothing of decisions to others, and nothing once it has
// one. That hides no disagreement, since the first two who decide otherwise have not been told.
type voted struct {
	Coordinator *commit.ThreePhaseCoordinator
	Participant *commit.QuorumNode
	Record      commit.SiteRecord
}

// Step hands on what belongs to the rounds.
func (n *voted) Step(ev protocol.Event, out *protocol.Effects) {
	if n.Standing().Decision != commit.Undecided {
		return
	}
	first := protocol.Records{commit.BranchKey: n.Record, commit.ResourceKey: commit.BranchRecord{State: commit.BranchInDoubt}}
	switch e := ev.(type) {
	case protocol.Start:
		ev = protocol.Recover{Records: first}
	case protocol.Recover:
		maps.Copy(first, e.Records)
		ev = protocol.Recover{Records: first}
	}
	if n.Coordinator != nil {
		n.Coordinator.Step(ev, out)
	} else {
		n.Participant.Step(ev, out)
	}
	n.Record = commit.SiteRecord{}
	out.Sends = slices.DeleteFunc(out.Sends, func(s protocol.Send) bool {
		switch s.Message.(type) {
		case commit.PreCommit, commit.PreAbort, commit.PreAcknowledge, commit.StateReport:
			return false
		case commit.StateRequest:
			return s.To == "c" // which has nothing to report
		}
		return true
	})
}

// Standing returns that of the part.
func (n *voted) Standing() commit.Standing {
	if n.Coordinator != nil {
		return n.Coordinator.Standing()
	}
	return n.Participant.Standing()
}

// TestQuorumRounds: three sites that all have voted yes, and that lead rounds of their own beside
// the coordinator's, under loss, duplication and delay without limit.
func TestQuorumRounds(t *testing.T) {
	beside(t)
	one := []int{1, 1, 1}
	for name, c := range map[string]struct {
		commit.Quorums
		rounds, crashes int
		long            bool
	}{
		"majority":             {commit.Majority(3), 2, 0, false},
		"majority, a crash":    {commit.Majority(3), 2, 1, true},
		"majority, all lead":   {commit.Majority(3), 3, 0, true},
		"easy abort":           {commit.Quorums{Votes: one, Commit: 3, Abort: 1}, 2, 0, false},
		"easy commit":          {commit.Quorums{Votes: one, Commit: 1, Abort: 3}, 2, 0, false},
		"easy commit, a crash": {commit.Quorums{Votes: one, Commit: 1, Abort: 3}, 2, 1, true},
		"weighted":             {commit.Quorums{Votes: []int{2, 1, 1}, Commit: 3, Abort: 2}, 2, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			if c.long {
				soak(t)
			}
			sys := votedSystem(t, c.Quorums, c.rounds)
			sys.Faults = check.Faults{Crashes: c.crashes, Restarts: c.crashes, Duplicates: check.Unlimited}
			nothingBroken(t, complete(t, sys, check.Claims{Always: []spec.Property{spec.AC1(), spec.AC2()},
				Sometimes: []spec.Property{spec.PromiseUndone(), decided(commit.Commit)}}))
		})
	}
}

func votedSystem(t *testing.T, q commit.Quorums, rounds int) check.System {
	t.Helper()
	codec, err := protocol.NewCodec(append(commit.Types(), protocol.Type{Name: "voted", Zero: voted{}})...)
	if err != nil {
		t.Fatal(err)
	}
	ids := []protocol.NodeID{"p1", "p2", "p3"}
	o := commit.Options{Rounds: rounds, Retry: time.Second, RetryMost: time.Second}
	way := func(fresh func() *voted) []func() protocol.Machine {
		return []func() protocol.Machine{func() protocol.Machine { return fresh() }}
	}
	nodes := []protocol.Node{{ID: "c", New: way(func() *voted {
		return &voted{Coordinator: commit.NewThreePhaseCoordinator("t", nil, o),
			Record: commit.SiteRecord{ID: "t", State: commit.SitePreCommitted, Peers: ids, Quorums: &q}}
	})}}
	for _, id := range ids {
		nodes = append(nodes, protocol.Node{ID: id, New: way(func() *voted {
			return &voted{Participant: &commit.QuorumNode{Participant: *commit.NewQuorumParticipant("t", id, "c", o), Branch: commit.Branch{Vote: commit.Yes}},
				Record: commit.SiteRecord{ID: "t", Coordinator: "c", State: commit.SitePrepared, Peers: ids, Quorums: &q}}
		})})
	}
	return check.System{Nodes: nodes, Codec: codec}
}

// decided is reached when some participant has decided d.
func decided(d commit.Decision) spec.Property {
	return spec.Property{Name: "a participant decides " + d.String(), Holds: func(v spec.View) bool {
		for i := 1; i < v.Nodes(); i++ {
			if s, ok := v.Machine(i).(spec.Site); ok && s.Standing().Decision == d {
				return true
			}
		}
		return false
	}}
}
