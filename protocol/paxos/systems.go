package paxos

import (
	"errors"
	"fmt"

	"assent/protocol"
	"assent/protocol/quorum"
)

// Consensus is a whole system for the simulator and the checker: proposers p1, p2 … with a value
// each, and acceptors a1, a2 …. The first proposer owns ballot 0, unless it is unowned.
type Consensus struct {
	// Proposers and Acceptors are how many there are, 1 to 8 each.
	Proposers, Acceptors int
	// Quorums, if it has members, are the acceptors with their votes. Defaults to a majority.
	Quorums quorum.System
	Options Options
	// Fickle lets a proposer be given either of two values, "vi" and "wi": one that has crashed may
	// want something else when it comes back.
	Fickle bool
	// Unowned leaves ballot 0 to nobody.
	Unowned bool
	// Learner adds a learner, l.
	Learner bool
}

// Topic is the instance of a Consensus.
const Topic Instance = "topic"

// ErrSystem says that a system cannot be made; the text says why.
var ErrSystem = errors.New("no such system")

// Nodes returns the nodes: proposers, which may be given their values at any time, then acceptors,
// then the learner. Proposer number i proposes "vi".
func (c Consensus) Nodes() ([]protocol.Node, error) {
	if c.Proposers < 1 || c.Proposers > 8 || c.Acceptors < 1 || c.Acceptors > 8 {
		return nil, fmt.Errorf("%w: %d proposers and %d acceptors: give 1 to 8 each", ErrSystem, c.Proposers, c.Acceptors)
	}
	var acceptors []protocol.NodeID
	for i := range c.Acceptors {
		acceptors = append(acceptors, protocol.NodeID(fmt.Sprintf("a%d", i+1)))
	}
	system := c.Quorums
	if len(system.Members) == 0 {
		system = quorum.Majority(acceptors...)
	}
	if err := system.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSystem, err)
	}
	owner := protocol.NodeID("p1")
	if c.Unowned {
		owner = ""
	}
	var learners []protocol.NodeID
	if c.Learner {
		learners = []protocol.NodeID{"l"}
	}
	var nodes []protocol.Node
	for i := range c.Proposers {
		id := protocol.NodeID(fmt.Sprintf("p%d", i+1))
		wishes := []protocol.Value{Propose[string]{Value: fmt.Sprintf("v%d", i+1)}}
		if c.Fickle {
			wishes = append(wishes, Propose[string]{Value: fmt.Sprintf("w%d", i+1)})
		}
		nodes = append(nodes, protocol.Node{ID: id, New: []func() protocol.Machine{func() protocol.Machine {
			return &Proposer[string]{Instance: Topic, Self: id, System: system, Owner: id == owner, Options: c.Options}
		}}, Inputs: wishes})
	}
	for _, id := range acceptors {
		nodes = append(nodes, protocol.Node{ID: id, New: []func() protocol.Machine{func() protocol.Machine {
			return &Acceptor[string]{Instance: Topic, Owner: owner, Learners: learners}
		}}})
	}
	for _, id := range learners {
		nodes = append(nodes, protocol.Node{ID: id, New: []func() protocol.Machine{func() protocol.Machine {
			return &Learner[string]{Instance: Topic, System: system}
		}}})
	}
	return nodes, nil
}

// Learned returns what the proposer knows to be decided.
func (p *Proposer[V]) Learned() (value any, ok bool) { return p.Value, p.State == ProposerDecided }

// Learned returns what the learner knows to be decided.
func (l *Learner[V]) Learned() (value any, ok bool) { return l.Value, l.Decided }
