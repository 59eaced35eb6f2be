package commit

import (
	"fmt"
	"time"

	"assent/protocol"
)

// Central describes a system that runs one transaction by a central commit protocol as the papers
// draw it: the first site coordinates and takes part, the others take part.
type Central struct {
	// Sites is their number, 2 to 8.
	Sites int
	// Phases is 2 or 3. Defaults to 2.
	Phases int
	// Votes are those that each branch may give: ways to begin. Defaults to yes, no and read-only.
	Votes []Vote
	// Options are the machines'.
	Options Options
	// Steadfast sites do not give up by themselves before they are asked.
	Steadfast bool
}

// Nodes returns the system: sites p1, p2 and so on, of which p1 coordinates. Its pauses are of one
// length, so that a machine does not count them in its state. It returns an ErrSystem if a number
// is out of bounds.
func (c Central) Nodes() ([]protocol.Node, error) {
	ids, phases, err := sites(c.Sites, c.Phases)
	if err != nil {
		return nil, err
	}
	c.Phases, c.Options.Retry, c.Options.RetryMost = phases, time.Second, time.Second
	nodes := participants(ids, votesOr(c.Votes), c.Steadfast, func(id protocol.NodeID, v Vote) protocol.Machine {
		if id == ids[0] {
			return c.first(ids, v)
		}
		return c.other(id, ids[0], v)
	})
	nodes[0].Anew = func() protocol.Machine {
		if c.Phases == 3 {
			return &ThreePhaseSite{Self: ids[0], Head: *NewThreePhaseCoordinator("t", nil, c.Options),
				Own: ThreePhaseNode{Participant: *NewThreePhaseParticipant("t", ids[0], ids[0], c.Options)}}
		}
		return &TwoPhaseSite{Self: ids[0], Head: CoordinatorNode{Coordinator: *NewCoordinator("t", nil, c.Options)},
			Own: ParticipantNode{Participant: *NewParticipant("t", ids[0], c.Options)}}
	}
	return nodes, nil
}

func (c Central) first(ids []protocol.NodeID, v Vote) protocol.Machine {
	switch own := c.other(ids[0], ids[0], v).(type) {
	case *ThreePhaseNode:
		return &ThreePhaseSite{Self: ids[0], Head: *NewThreePhaseCoordinator("t", ids, c.Options), Own: *own}
	case *ParticipantNode:
		return &TwoPhaseSite{Self: ids[0], Head: CoordinatorNode{Coordinator: *NewCoordinator("t", ids, c.Options)}, Own: *own}
	}
	return nil
}

func (c Central) other(id, coordinator protocol.NodeID, v Vote) protocol.Machine {
	if c.Phases == 3 {
		return &ThreePhaseNode{Participant: *NewThreePhaseParticipant("t", id, coordinator, c.Options), Branch: Branch{Vote: v}}
	}
	return &ParticipantNode{Participant: *NewParticipant("t", coordinator, c.Options), Branch: Branch{Vote: v}}
}

// sites names n sites and fills in the phases.
func sites(n, phases int) ([]protocol.NodeID, int, error) {
	if phases == 0 {
		phases = 2
	}
	if n < 2 || n > 8 || phases < 2 || phases > 3 {
		return nil, 0, fmt.Errorf("%w: %d sites and %d phases; 2 to 8 sites and 2 or 3 phases are allowed", ErrSystem, n, phases)
	}
	ids, err := participantIDs(n)
	return ids, phases, err
}
