package paxos

import (
	"slices"

	"assent/protocol"
	"assent/protocol/quorum"
)

// Epoch is a numbered set of acceptors for registers, agreements without a place in any log. While the
// acceptors change there is an epoch of its own, of which both sets must agree:
//
//	epoch 1: the old set. Epoch 2: the old and the new (Joint). Epoch 3: the new set.
//
// Every message of a proposer carries its epoch; an acceptor refuses those of lower epochs than it knows. A
// ballot belongs to one epoch, and is higher than all of those before: an acceptor that has missed some, or that
// left and comes back, may hold what was accepted long ago. The rules are those of a Mover:
//
//  1. Epoch 2 begins at a read quorum of the old acceptors, stably. From then on no write quorum of
//     theirs accepts anything in epoch 1.
//  2. What any of them has accepted by then is decided in epoch 2, so that a write quorum of the new
//     acceptors has it: that is the state transfer.
//  3. Only then epoch 3 begins, and the old acceptors may retire.
//
// Ballots of epochs 1 and 2 read from the old set, those of 2 and 3 from the new one; those of 1 and 3
// never run at the same time.
type Epoch struct {
	Number uint64
	System quorum.System
	// Next is the new set, in an epoch of both.
	Next *quorum.System `cbor:",omitempty" json:",omitempty"`
}

// Joint returns the systems of which each must agree.
func (e Epoch) Joint() quorum.Joint {
	if e.Next == nil {
		return quorum.Joint{e.System}
	}
	return quorum.Joint{e.System, *e.Next}
}

// Over reports whether an epoch of that number is over where e is known: an acceptor that knows e, stably,
// refuses what is of it.
func (e Epoch) Over(number uint64) bool {
	return number < e.Number
}

// Fenced reports whether the epoch before e, which is one of both, is over for good when e has begun at the old
// acceptors for which begun is true: no write quorum of theirs accepts anything in it any more.
func (e Epoch) Fenced(begun func(protocol.NodeID) bool) bool {
	return e.System.Reading(func(n protocol.NodeID) quorum.Answer {
		if begun(n) {
			return quorum.Granted
		}
		return quorum.Silent
	}) == quorum.Reached
}

// EpochKey is the key of the epoch that an acceptor knows.
const EpochKey = "epoch"

// The messages.
type (
	// Said is a message of a register: any of them. One field is set.
	Said[V any] struct {
		Phase1a *Phase1a[V] `cbor:",omitempty" json:",omitempty"`
		Phase1b *Phase1b[V] `cbor:",omitempty" json:",omitempty"`
		Phase2a *Phase2a[V] `cbor:",omitempty" json:",omitempty"`
		Phase2b *Phase2b[V] `cbor:",omitempty" json:",omitempty"`
		Refused *Refused[V] `cbor:",omitempty" json:",omitempty"`
		Chosen  *Chosen[V]  `cbor:",omitempty" json:",omitempty"`
	}

	// Dated is a message of a register with the epoch of the ballot that it is about.
	Dated[V any] struct {
		Epoch Epoch
		Said[V]
	}

	// Outdated says that the receiver's epoch is over. Acceptor → proposer.
	Outdated[V any] struct{ Epoch Epoch }

	// Begin announces an epoch. Mover → acceptor, proposer.
	Begin[V any] struct{ Epoch Epoch }

	// Begun says that the acceptor accepts nothing more in earlier epochs, and what it has accepted so
	// far. Acceptor → mover.
	Begun[V any] struct {
		Epoch    Epoch
		Accepted Ballot
		Value    V
	}
)

// EpochRecord is the epoch that an acceptor knows.
type EpochRecord[V any] struct{ Epoch Epoch }

// Say returns a message of a register as one of any. No field is set where it is not one.
func Say[V any](message protocol.Message) (s Said[V]) {
	switch m := message.(type) {
	case Phase1a[V]:
		s.Phase1a = &m
	case Phase1b[V]:
		s.Phase1b = &m
	case Phase2a[V]:
		s.Phase2a = &m
	case Phase2b[V]:
		s.Phase2b = &m
	case Refused[V]:
		s.Refused = &m
	case Chosen[V]:
		s.Chosen = &m
	}
	return s
}

// Message returns what was said, or nil.
func (s Said[V]) Message() protocol.Message {
	switch {
	case s.Phase1a != nil:
		return *s.Phase1a
	case s.Phase1b != nil:
		return *s.Phase1b
	case s.Phase2a != nil:
		return *s.Phase2a
	case s.Phase2b != nil:
		return *s.Phase2b
	case s.Refused != nil:
		return *s.Refused
	case s.Chosen != nil:
		return *s.Chosen
	}
	return nil
}

// EpochAcceptor is an acceptor that knows of epochs.
type EpochAcceptor[V any] struct {
	Acceptor Acceptor[V]
	Epoch    Epoch
	// Silent says that it does not tell who is outdated or refused: that is for the checker, for which it
	// is much the same as if the news were lost.
	Silent bool `cbor:",omitempty" json:",omitempty"`
}

// Step takes Recover, Dated and Begin.
func (a *EpochAcceptor[V]) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Recover:
		a.Acceptor.Step(ev, out)
		if r, ok := ev.Records[EpochKey].(EpochRecord[V]); ok {
			a.Epoch = r.Epoch
		}
	case protocol.Receive:
		switch m := ev.Message.(type) {
		case Begin[V]:
			a.begin(ev.From, m.Epoch, out)
		case Dated[V]:
			a.dated(ev.From, m, out)
		}
	}
}

func (a *EpochAcceptor[V]) begin(from protocol.NodeID, e Epoch, out *protocol.Effects) {
	if a.Epoch.Over(e.Number) {
		a.outdated(from, out)
		return
	}
	a.enter(e, out)
	out.Send(from, Begun[V]{Epoch: e, Accepted: a.Acceptor.Accepted, Value: a.Acceptor.Value})
}

func (a *EpochAcceptor[V]) outdated(who protocol.NodeID, out *protocol.Effects) {
	if !a.Silent {
		out.Send(who, Outdated[V]{Epoch: a.Epoch})
	}
}

func (a *EpochAcceptor[V]) enter(e Epoch, out *protocol.Effects) {
	if e.Number > a.Epoch.Number {
		a.Epoch = e
		out.Put(EpochKey, EpochRecord[V]{Epoch: e})
	}
}

func (a *EpochAcceptor[V]) dated(from protocol.NodeID, m Dated[V], out *protocol.Effects) {
	if a.Epoch.Over(m.Epoch.Number) {
		a.outdated(from, out)
		return
	}
	a.enter(m.Epoch, out)
	var lower protocol.Effects
	a.Acceptor.Step(protocol.Receive{From: from, Message: m.Message()}, &lower)
	out.Writes = append(out.Writes, lower.Writes...)
	for _, s := range lower.Sends {
		if _, no := s.Message.(Refused[V]); !no || !a.Silent {
			out.Send(s.To, Dated[V]{Epoch: m.Epoch, Said: Say[V](s.Message)})
		}
	}
}

// EpochProposer is a proposer that knows of epochs. Its messages are in Dated. Who dates many at once, those of
// several registers that share their acceptors, gives the Proposer the other events itself, and has it Turn
// when the epoch is over; the ballot of an answer says of which epoch that is.
type EpochProposer[V any] struct {
	Proposer Proposer[V]
	Epoch    Epoch
}

// NewEpochProposer returns a proposer that begins in an epoch.
func NewEpochProposer[V any](p Proposer[V], e Epoch) EpochProposer[V] {
	x := EpochProposer[V]{Proposer: p}
	x.turn(e)
	return x
}

// Step takes the events of a Proposer, with its messages in Dated, and Outdated.
func (p *EpochProposer[V]) Step(ev protocol.Event, out *protocol.Effects) {
	var lower protocol.Effects
	switch m := received(ev).(type) {
	case nil:
		if p.Epoch.Number > 0 { // else it knows no acceptors yet
			p.Proposer.Step(ev, &lower)
		}
	case Dated[V]:
		if m.Epoch.Number == p.Epoch.Number {
			p.Proposer.Step(protocol.Receive{From: ev.(protocol.Receive).From, Message: m.Message()}, &lower)
		}
	case Outdated[V]:
		p.Turn(m.Epoch, &lower)
	case Begin[V]:
		p.Turn(m.Epoch, &lower)
	}
	out.Writes, out.Timers, out.Emits = append(out.Writes, lower.Writes...), append(out.Timers, lower.Timers...), append(out.Emits, lower.Emits...)
	for _, s := range lower.Sends {
		out.Send(s.To, Dated[V]{Epoch: p.Epoch, Said: Say[V](s.Message)})
	}
}

// received returns the message of an event, or nil for what is none.
func received(ev protocol.Event) protocol.Message {
	if r, ok := ev.(protocol.Receive); ok {
		return r.Message
	}
	return nil
}

// Turn goes over to a later epoch; another has no effect. A ballot that is under way is begun again, higher. What
// is sent then is not in Dated.
func (p *EpochProposer[V]) Turn(e Epoch, out *protocol.Effects) {
	if e.Number <= p.Epoch.Number {
		return
	}
	p.turn(e)
	if s := p.Proposer.State; s == ProposerReading || s == ProposerWriting {
		p.Proposer.begin(out)
	}
}

func (p *EpochProposer[V]) turn(e Epoch) {
	p.Epoch, p.Proposer.System, p.Proposer.Also = e, e.System, nil
	p.Proposer.Epoch, p.Proposer.Careful = e.Number, true
	if e.Next != nil {
		p.Proposer.Also = quorum.Joint{*e.Next}
	}
}

// MoverState is where a Mover stands.
type MoverState uint8

// The states of a mover.
const (
	// MoverIdle has nothing to do.
	MoverIdle MoverState = iota
	// MoverFencing has epoch 2 begun at the old acceptors.
	MoverFencing
	// MoverSettling has the new acceptors get what was accepted.
	MoverSettling
	// MoverDone has had epoch 3 begun.
	MoverDone
)

var moverStateNames = [...]string{"idle", "fencing", "settling", "done"}

// String returns the state's name.
func (s MoverState) String() string {
	if int(s) < len(moverStateNames) {
		return moverStateNames[s]
	}
	return "invalid"
}

// MarshalText returns the state's name.
func (s MoverState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Move is the input that makes a Mover begin.
type Move[V any] struct{}

// MoveTimer is the pause before a Mover repeats what was not answered.
const MoveTimer = "move"

// Mover changes the acceptors of a register from those of one epoch to those of the next but one. Any
// number of movers may do so at a time, for the same sets; one that comes back begins again.
type Mover[V any] struct {
	// Both is the epoch between, and After the one after it.
	Both, After Epoch
	State       MoverState
	// Begun are the old acceptors that have begun, sorted. Found says that one of them has accepted
	// something, and Value is what the highest of them has.
	Begun    []protocol.NodeID `cbor:",omitempty" json:",omitempty"`
	Found    bool              `cbor:",omitempty" json:",omitempty"`
	Accepted Ballot
	Value    V
	Proposer EpochProposer[V]
	// Tells are proposers that are told of the epoch after.
	Tells []protocol.NodeID `cbor:",omitempty" json:",omitempty"`
}

// Step takes Recover, Move as input, Begun, Outdated, and the events of its proposer.
func (m *Mover[V]) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Recover:
		m.Proposer.Step(ev, out)
		return
	case protocol.Input:
		if _, ok := ev.Value.(Move[V]); ok && m.State == MoverIdle {
			m.State = MoverFencing
			m.announce(out)
		}
		return
	case protocol.Expire:
		if ev.Timer == MoveTimer {
			m.announce(out)
			return
		}
	case protocol.Receive:
		switch b := ev.Message.(type) {
		case Begun[V]:
			m.begun(ev.From, b, out)
			return
		case Outdated[V]:
			if b.Epoch.Number >= m.After.Number {
				m.finish(out) // somebody else has got that far
				return
			}
		}
	}
	var lower protocol.Effects
	m.Proposer.Step(ev, &lower)
	for _, v := range lower.Emits {
		if _, ok := v.(Decided[V]); ok && m.State == MoverSettling {
			defer m.finish(out)
		}
	}
	out.Writes, out.Timers, out.Sends = append(out.Writes, lower.Writes...), append(out.Timers, lower.Timers...), append(out.Sends, lower.Sends...)
}

// announce has the epoch of both begun at the old acceptors.
func (m *Mover[V]) announce(out *protocol.Effects) {
	if m.State != MoverFencing {
		return
	}
	for _, x := range m.Both.System.Members {
		if !slices.Contains(m.Begun, x.Node) {
			out.Send(x.Node, Begin[V]{Epoch: m.Both})
		}
	}
	pause, _ := m.Proposer.Proposer.Options.pause(0, "")
	out.Arm(MoveTimer, pause)
}

// begun counts an old acceptor. When a read quorum of them has begun, what they have accepted is settled.
func (m *Mover[V]) begun(from protocol.NodeID, b Begun[V], out *protocol.Effects) {
	if m.State != MoverFencing || b.Epoch.Number != m.Both.Number {
		return
	}
	if i, found := slices.BinarySearch(m.Begun, from); !found {
		m.Begun = slices.Insert(slices.Clone(m.Begun), i, from)
	}
	if b.Accepted.Compare(m.Accepted) > 0 {
		m.Found, m.Accepted, m.Value = true, b.Accepted, b.Value
	}
	if !m.Both.Fenced(func(n protocol.NodeID) bool { return slices.Contains(m.Begun, n) }) {
		return
	}
	out.Disarm(MoveTimer)
	if !m.Found {
		m.finish(out)
		return
	}
	m.State = MoverSettling
	m.Proposer.Step(protocol.Input{Value: Propose[V]{Value: m.Value}}, out)
}

// finish has the epoch after begun at the new acceptors.
func (m *Mover[V]) finish(out *protocol.Effects) {
	m.State, m.Begun, m.Found = MoverDone, nil, false
	for _, x := range m.After.System.Members {
		out.Send(x.Node, Begin[V]{Epoch: m.After})
	}
	for _, n := range m.Tells {
		out.Send(n, Begin[V]{Epoch: m.After})
	}
}

// Learned returns what the proposer knows to be decided.
func (p *EpochProposer[V]) Learned() (value any, ok bool) { return p.Proposer.Learned() }

// Learned returns what the mover knows to be decided.
func (m *Mover[V]) Learned() (value any, ok bool) { return m.Proposer.Learned() }

// EpochTypes returns the encodings of registers whose acceptors change. Types are needed, too.
func EpochTypes[V any](name string) []protocol.Type {
	name = "[" + name + "]"
	return []protocol.Type{
		{Name: "paxos.EpochProposer" + name, Zero: EpochProposer[V]{}},
		{Name: "paxos.EpochAcceptor" + name, Zero: EpochAcceptor[V]{}},
		{Name: "paxos.Mover" + name, Zero: Mover[V]{}},
		{Name: "paxos.Dated" + name, Zero: Dated[V]{}},
		{Name: "paxos.Outdated" + name, Zero: Outdated[V]{}},
		{Name: "paxos.Begin" + name, Zero: Begin[V]{}},
		{Name: "paxos.Begun" + name, Zero: Begun[V]{}},
		{Name: "paxos.Move" + name, Zero: Move[V]{}},
		{Name: "paxos.EpochRecord" + name, Zero: EpochRecord[V]{}},
	}
}
