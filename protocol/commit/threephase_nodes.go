package commit

import (
	"time"

	"assent/protocol"
)

// ThreePhaseNode is a participant in three-phase commit over its branch.
type ThreePhaseNode struct {
	Participant ThreePhaseParticipant
	Branch      Branch
}

// Step routes the event to the parts, and what they say to each other between them.
func (n *ThreePhaseNode) Step(ev protocol.Event, out *protocol.Effects) {
	stepOver(&n.Participant, &n.Branch, ev, out)
}

// Standing returns what the participant knows and where its branch stands.
func (n *ThreePhaseNode) Standing() Standing { return n.Participant.standing(n.Branch) }

// QuorumNode is a participant in three-phase commit by quorums over its branch.
type QuorumNode struct {
	Participant QuorumParticipant
	Branch      Branch
}

// Step routes the event to the parts, and what they say to each other between them.
func (n *QuorumNode) Step(ev protocol.Event, out *protocol.Effects) {
	stepOver(&n.Participant, &n.Branch, ev, out)
}

// Standing returns what the participant knows and where its branch stands.
func (n *QuorumNode) Standing() Standing { return n.Participant.standing(n.Branch) }

func (s *Site) standing(b Branch) Standing {
	return Standing{Decision: s.Decision, Participant: true, Branch: b.State, Vote: b.Vote, Done: s.State == SiteFinished}
}

// Standing returns what the coordinator has decided.
func (c *ThreePhaseCoordinator) Standing() Standing {
	return Standing{Decision: c.Decision, Done: c.State.Done()}
}

// ThreePhase describes a system that runs one transaction by three-phase commit.
type ThreePhase struct {
	// Participants is their number, 1 to 8.
	Participants int
	// Votes are those that each branch may give: ways to begin. Defaults to yes, no and read-only.
	Votes []Vote
	// Options are the machines'. Options.Unilateral makes it the lessons' protocol, without election.
	Options Options
	// Steadfast participants do not give up by themselves before they are asked.
	Steadfast bool
}

// Nodes returns the system: node 0 is the coordinator c, the others are p1, p2 and so on, in the
// order in which they succeed it. Its pauses are of one length, so that a machine does not count
// them in its state. It returns an ErrSystem if the number of participants is out of bounds.
func (t ThreePhase) Nodes() ([]protocol.Node, error) {
	ids, err := participantIDs(t.Participants)
	if err != nil {
		return nil, err
	}
	t.Options.Retry, t.Options.RetryMost = time.Second, time.Second
	coordinator := func(ids []protocol.NodeID) func() protocol.Machine {
		return func() protocol.Machine { return NewThreePhaseCoordinator("t", ids, t.Options) }
	}
	participant := func(id protocol.NodeID, v Vote) protocol.Machine {
		return &ThreePhaseNode{Participant: *NewThreePhaseParticipant("t", id, "c", t.Options), Branch: Branch{Vote: v}}
	}
	nodes := []protocol.Node{{ID: "c", New: []func() protocol.Machine{coordinator(ids)}, Anew: coordinator(nil)}}
	return append(nodes, participants(ids, votesOr(t.Votes), t.Steadfast, participant)...), nil
}

// QuorumThreePhase describes a system that runs one transaction by three-phase commit with quorums.
type QuorumThreePhase struct {
	// Participants is their number, 1 to 8.
	Participants int
	// Quorums defaults to one vote each and majorities.
	Quorums Quorums
	// Votes are those that each branch may give: ways to begin. Defaults to yes, no and read-only.
	Votes []Vote
	// Options are the machines'. Options.Rounds bounds the state space.
	Options Options
	// Steadfast participants do not give up by themselves before they are asked.
	Steadfast bool
}

// Nodes returns the system: node 0 is the coordinator c, which has no vote, the others are p1, p2
// and so on. Its pauses are of one length. It returns an ErrSystem if the number of participants
// is out of bounds or the quorums are not safe.
func (t QuorumThreePhase) Nodes() ([]protocol.Node, error) {
	ids, err := participantIDs(t.Participants)
	if err != nil {
		return nil, err
	}
	if t.Quorums.Votes == nil && t.Quorums.Commit == 0 && t.Quorums.Abort == 0 {
		t.Quorums = Majority(t.Participants)
	}
	t.Options.Retry, t.Options.RetryMost = time.Second, time.Second
	first, err := NewQuorumCoordinator("t", ids, t.Quorums, t.Options)
	if err != nil {
		return nil, err
	}
	coordinator := func() protocol.Machine {
		c := NewThreePhaseCoordinator("t", ids, t.Options)
		c.Quorums = first.Quorums
		return c
	}
	anew := func() protocol.Machine { return NewThreePhaseCoordinator("t", nil, t.Options) }
	participant := func(id protocol.NodeID, v Vote) protocol.Machine {
		return &QuorumNode{Participant: *NewQuorumParticipant("t", id, "c", t.Options), Branch: Branch{Vote: v}}
	}
	nodes := []protocol.Node{{ID: "c", New: []func() protocol.Machine{coordinator}, Anew: anew}}
	return append(nodes, participants(ids, votesOr(t.Votes), t.Steadfast, participant)...), nil
}

// participants returns a node for each id, with a way to begin for each vote.
func participants(ids []protocol.NodeID, votes []Vote, steadfast bool,
	make func(protocol.NodeID, Vote) protocol.Machine) (nodes []protocol.Node) {
	for _, id := range ids {
		node := protocol.Node{ID: id}
		if !steadfast {
			node.Inputs = []protocol.Value{Abandon{}}
		}
		for _, v := range votes {
			node.New = append(node.New, func() protocol.Machine { return make(id, v) })
		}
		nodes = append(nodes, node)
	}
	return nodes
}
