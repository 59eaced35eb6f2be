package check

import (
	"errors"
	"fmt"
	"time"

	"assent/protocol"
	"assent/protocol/commit"
)

// TwoPhaseCommit is two-phase commit as it runs: the coordinator over a register of its own, and
// participants over branches.
type TwoPhaseCommit struct {
	// Participants is their number, 1 to 8.
	Participants int
	// Votes are those that each branch may give; all combinations are tried. Defaults to yes, no
	// and read-only.
	Votes []commit.Vote
	// Options are the machines'. Durations do not matter here.
	Options commit.Options
	// Steadfast participants do not give up by themselves before they are asked.
	Steadfast bool
	// Faults and Model are the system's.
	Faults Faults
	Model  Model
}

// System returns what Run takes: node 0 is the coordinator c, the others are p1, p2 and so on. The
// properties of package spec apply.
func (t TwoPhaseCommit) System() (System, error) {
	if t.Participants < 1 || t.Participants > 8 {
		return System{}, fmt.Errorf("%w: %d participants; 1 to 8 are allowed", ErrSystem, t.Participants)
	}
	if t.Model == Asynchronous && t.Faults.Duplicates != Unlimited {
		return System{}, errors.New("timers that may run out at any moment send without end: " +
			"in the asynchronous model duplicates must be unlimited, so that a message counts once")
	}
	codec, err := protocol.NewCodec(commit.Types()...)
	if err != nil {
		return System{}, err
	}
	if len(t.Votes) == 0 {
		t.Votes = []commit.Vote{commit.Yes, commit.No, commit.ReadOnly}
	}
	t.Options.Retry, t.Options.RetryMost = time.Second, time.Second // one pause, so one state
	ids := make([]protocol.NodeID, t.Participants)
	for i := range ids {
		ids[i] = protocol.NodeID(fmt.Sprintf("p%d", i+1))
	}
	sys := System{Codec: codec, Faults: t.Faults, Model: t.Model}
	sys.Nodes = append(sys.Nodes, Node{ID: "c", New: []func() protocol.Machine{t.coordinator(ids)}, Anew: t.coordinator(nil)})
	for _, id := range ids {
		node := Node{ID: id}
		if !t.Steadfast {
			node.Inputs = []protocol.Value{commit.Abandon{}}
		}
		for _, v := range t.Votes {
			node.New = append(node.New, func() protocol.Machine {
				return &commit.ParticipantNode{Participant: *commit.NewParticipant("t", "c", t.Options), Branch: commit.Branch{Vote: v}}
			})
		}
		sys.Nodes = append(sys.Nodes, node)
	}
	return sys, nil
}

func (t TwoPhaseCommit) coordinator(ids []protocol.NodeID) func() protocol.Machine {
	return func() protocol.Machine {
		return &commit.CoordinatorNode{Coordinator: *commit.NewCoordinator("t", ids, t.Options)}
	}
}
