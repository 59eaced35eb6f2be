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
	Silent bool
	// Lean leaves out what no acceptor can notice, for the checker. Proposers and movers begin as soon as they
	// can: whoever begins later is as one whose messages are late. Proposers do not learn what became of
	// their values, of which they would make nothing: what is decided is seen by what acceptors say. It
	// needs Silent, and messages that are repeated and take any time.
	Lean    bool
	Options Options
}

// LeanProposer is a proposer of a lean Moving.
type LeanProposer struct {
	Proposer EpochProposer[string]
	Value    string
}

// Step hands events to the proposer.
func (p *LeanProposer) Step(ev protocol.Event, out *protocol.Effects) {
	if d, ok := received(ev).(Dated[string]); ok && d.Phase2b != nil {
		return
	}
	p.Proposer.Step(ev, out)
	if p.Proposer.Epoch.Number > 0 && p.Proposer.Proposer.State == ProposerIdle {
		p.Proposer.Step(protocol.Input{Value: Propose[string]{Value: p.Value}}, out)
	}
}

// LeanMover is a mover of a lean Moving.
type LeanMover struct{ Mover Mover[string] }

// Step hands events to the mover.
func (m *LeanMover) Step(ev protocol.Event, out *protocol.Effects) {
	if m.Mover.State == MoverIdle {
		m.Mover.Step(protocol.Input{Value: Move[string]{}}, out)
	}
	m.Mover.Step(ev, out)
}

// LeanAcceptor is an acceptor of a lean Moving. It leaves out answers of which nobody makes anything any more: to a
// question of a ballot that it has accepted, and so to one whose owner goes on with the answers that it had; and that the
// last epoch has begun, which nobody counts.
type LeanAcceptor struct{ Acceptor EpochAcceptor[string] }

// Step hands events to the acceptor.
func (a *LeanAcceptor) Step(ev protocol.Event, out *protocol.Effects) {
	a.Acceptor.Step(ev, out)
	out.Sends = slices.DeleteFunc(out.Sends, func(s protocol.Send) bool {
		switch m := s.Message.(type) {
		case Begun[string]:
			return m.Epoch.Next == nil || m.Accepted.Epoch == m.Epoch.Number && m.Accepted.Node == s.To
		case Dated[string]:
			return m.Phase1b != nil && m.Phase1b.Accepted == m.Phase1b.Ballot
		}
		return false
	})
}

// Nodes returns the nodes: proposers, which may be given their values at any time, movers, which may be told
// to move, and acceptors. Proposer number i proposes "vi"; the first owns ballot 0.
func (m Moving) Nodes() ([]protocol.Node, error) {
	if m.Lean && !m.Silent {
		return nil, fmt.Errorf("%w: acceptors that tell who is outdated in a lean system: make them silent", ErrSystem)
	}
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
		value := fmt.Sprintf("v%d", i+1)
		node := protocol.Node{ID: id, New: []func() protocol.Machine{func() protocol.Machine {
			p := proposer(id, begins)
			return &p
		}}, Inputs: []protocol.Value{Propose[string]{Value: value}}}
		if m.Lean {
			node.Inputs = nil
			node.New[0] = func() protocol.Machine { return &LeanProposer{Proposer: proposer(id, begins), Value: value} }
		}
		nodes = append(nodes, node)
	}
	for i := range m.Movers {
		id := protocol.NodeID(fmt.Sprintf("m%d", i+1))
		mover := func() Mover[string] {
			return Mover[string]{Both: both, After: last, Tells: told, Proposer: proposer(id, both)}
		}
		node := protocol.Node{ID: id, New: []func() protocol.Machine{func() protocol.Machine {
			m := mover()
			return &m
		}}, Inputs: []protocol.Value{Move[string]{}}}
		if m.Lean {
			node.Inputs = nil
			node.New[0] = func() protocol.Machine { return &LeanMover{mover()} }
		}
		nodes = append(nodes, node)
	}
	for _, id := range acceptors {
		nodes = append(nodes, protocol.Node{ID: id, New: []func() protocol.Machine{m.acceptor}})
	}
	return nodes, nil
}

func (m Moving) acceptor() protocol.Machine {
	a := EpochAcceptor[string]{Silent: m.Silent, Acceptor: Acceptor[string]{Instance: Topic, Owner: "p1"}}
	if m.Lean {
		return &LeanAcceptor{a}
	}
	return &a
}

// MovingTypes returns the encodings of a Moving.
func MovingTypes() []protocol.Type {
	return slices.Concat(Types[string]("string"), EpochTypes[string]("string"), []protocol.Type{
		{Name: "paxos.LeanProposer", Zero: LeanProposer{}}, {Name: "paxos.LeanMover", Zero: LeanMover{}},
		{Name: "paxos.LeanAcceptor", Zero: LeanAcceptor{}},
	})
}
