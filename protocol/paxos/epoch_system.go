package paxos

import (
	"errors"
	"fmt"
	"slices"

	"assent/protocol"
	"assent/protocol/quorum"
)

// Moving is a whole system for the simulator and the checker: a register whose acceptors change while
// proposers p1, p2 … propose.
type Moving struct {
	// Proposers is how many there are, 1 to 8.
	Proposers int
	// Old and New are the acceptors before and after, by number: a1 to a8.
	Old, New []int
	// Movers are how many bring the change about, 1 to 4.
	Movers int
	// Silent acceptors do not tell who is outdated or refused. The first proposer then knows the first
	// epoch alone, and the others are told the last one by movers.
	Silent  bool
	Options Options
}

// Nodes returns the nodes: proposers, which may be given their values at any time, movers, which may be told
// to move, and acceptors. Proposer number i proposes "vi"; the first owns ballot 0.
func (m Moving) Nodes() ([]protocol.Node, error) {
	if m.Proposers < 1 || m.Proposers > 8 || m.Movers < 1 || m.Movers > 4 {
		return nil, fmt.Errorf("%w: %d proposers and %d movers: give 1 to 8 and 1 to 4", ErrSystem, m.Proposers, m.Movers)
	}
	var acceptors []protocol.NodeID
	system := func(numbers []int) quorum.System {
		var ids []protocol.NodeID
		for _, i := range numbers {
			id := protocol.NodeID(fmt.Sprintf("a%d", i))
			if ids = append(ids, id); !slices.Contains(acceptors, id) {
				acceptors = append(acceptors, id)
			}
		}
		return quorum.Majority(ids...)
	}
	before, after := system(m.Old), system(m.New)
	if err := errors.Join(before.Validate(), after.Validate()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSystem, err)
	}
	first, both, last := Epoch{Number: 1, System: before}, Epoch{Number: 2, System: before, Next: &after}, Epoch{Number: 3, System: after}
	proposer := func(id protocol.NodeID, e Epoch) EpochProposer[string] {
		return NewEpochProposer(Proposer[string]{Instance: Topic, Self: id, Owner: id == "p1", Options: m.Options}, e)
	}
	var nodes []protocol.Node
	var told []protocol.NodeID
	for i := range m.Proposers {
		id := protocol.NodeID(fmt.Sprintf("p%d", i+1))
		if m.Silent && i > 0 {
			told = append(told, id)
		}
		begins := first
		if m.Silent && i > 0 {
			begins = Epoch{}
		}
		nodes = append(nodes, protocol.Node{ID: id, New: []func() protocol.Machine{func() protocol.Machine {
			p := proposer(id, begins)
			return &p
		}}, Inputs: []protocol.Value{Propose[string]{Value: fmt.Sprintf("v%d", i+1)}}})
	}
	for i := range m.Movers {
		id := protocol.NodeID(fmt.Sprintf("m%d", i+1))
		nodes = append(nodes, protocol.Node{ID: id, New: []func() protocol.Machine{func() protocol.Machine {
			return &Mover[string]{Both: both, After: last, Tells: told, Proposer: proposer(id, both)}
		}}, Inputs: []protocol.Value{Move[string]{}}})
	}
	for _, id := range acceptors {
		nodes = append(nodes, protocol.Node{ID: id, New: []func() protocol.Machine{func() protocol.Machine {
			return &EpochAcceptor[string]{Silent: m.Silent, Acceptor: Acceptor[string]{Instance: Topic, Owner: "p1"}}
		}}})
	}
	return nodes, nil
}
