package commit

import (
	"errors"
	"fmt"
	"time"

	"assent/protocol"
)

// ErrSystem says that a system of nodes cannot be made as described; the text says why.
var ErrSystem = errors.New("system cannot be made")

// TwoPhase describes a system that runs one transaction by two-phase commit: the coordinator over a
// register of its own, and participants over branches.
type TwoPhase struct {
	// Participants is their number, 1 to 8.
	Participants int
	// Votes are those that each branch may give: ways to begin. Defaults to yes, no and read-only.
	Votes []Vote
	// Options are the machines'.
	Options Options
	// Steadfast participants do not give up by themselves before they are asked.
	Steadfast bool
}

// Nodes returns the system: node 0 is the coordinator c, the others are p1, p2 and so on. Its
// pauses are of one length, so that a machine does not count them in its state. It returns an
// ErrSystem if the number of participants is out of bounds.
func (t TwoPhase) Nodes() ([]protocol.Node, error) {
	ids, err := participantIDs(t.Participants)
	if err != nil {
		return nil, err
	}
	t.Options.Retry, t.Options.RetryMost = time.Second, time.Second
	nodes := []protocol.Node{{ID: "c", New: []func() protocol.Machine{t.coordinator(ids)}, Anew: t.coordinator(nil)}}
	for _, id := range ids {
		node := protocol.Node{ID: id}
		if !t.Steadfast {
			node.Inputs = []protocol.Value{Abandon{}}
		}
		for _, v := range votesOr(t.Votes) {
			node.New = append(node.New, func() protocol.Machine {
				return &ParticipantNode{Participant: *NewParticipant("t", "c", t.Options), Branch: Branch{Vote: v}}
			})
		}
		nodes = append(nodes, node)
	}
	return nodes, nil
}

func (t TwoPhase) coordinator(ids []protocol.NodeID) func() protocol.Machine {
	return func() protocol.Machine {
		return &CoordinatorNode{Coordinator: *NewCoordinator("t", ids, t.Options)}
	}
}

// participantIDs names n participants.
func participantIDs(n int) ([]protocol.NodeID, error) {
	if n < 1 || n > 8 {
		return nil, fmt.Errorf("%w: %d participants; 1 to 8 are allowed", ErrSystem, n)
	}
	ids := make([]protocol.NodeID, n)
	for i := range ids {
		ids[i] = protocol.NodeID(fmt.Sprintf("p%d", i+1))
	}
	return ids, nil
}

func votesOr(votes []Vote) []Vote {
	if len(votes) == 0 {
		return []Vote{Yes, No, ReadOnly}
	}
	return votes
}
