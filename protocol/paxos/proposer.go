package paxos

import (
	"slices"

	"assent/protocol"
	"assent/protocol/quorum"
)

// RoundKey is the key of a proposer's one stable record.
const RoundKey = "round"

// RetryTimer is the pause before a proposer sends again what was not answered, or begins a higher
// ballot.
const RetryTimer = "paxos"

// RoundRecord is what a proposer keeps: the highest round that it has begun, so that it never uses
// a ballot for two values.
type RoundRecord[V any] struct{ Round uint64 }

// ProposerState is where a proposer stands.
type ProposerState uint8

// The states of a proposer.
const (
	// ProposerIdle has nothing to propose.
	ProposerIdle ProposerState = iota
	// ProposerReading is in phase 1.
	ProposerReading
	// ProposerWriting is in phase 2.
	ProposerWriting
	// ProposerRefused has lost its ballot and waits before it begins a higher one.
	ProposerRefused
	// ProposerDecided knows what is decided.
	ProposerDecided
	// ProposerSpent has come to the end of Options.Rounds.
	ProposerSpent
)

var proposerStateNames = [...]string{"idle", "reading", "writing", "refused", "decided", "spent"}

// String returns the state's name.
func (s ProposerState) String() string {
	if int(s) < len(proposerStateNames) {
		return proposerStateNames[s]
	}
	return "invalid"
}

// MarshalText returns the state's name.
func (s ProposerState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Proposer brings about a decision: it reads what a quorum has accepted, and has a quorum accept the
// value of the highest ballot that it found, or its own where there is none.
type Proposer[V any] struct {
	Instance Instance
	Self     protocol.NodeID
	// System are the acceptors.
	System quorum.System
	// Also are systems of acceptors of which each must agree, too, while the acceptors change (see Epoch).
	Also quorum.Joint `cbor:",omitempty" json:",omitempty"`
	// Epoch is the number of the acceptors' epoch, if they change.
	Epoch uint64 `cbor:",omitempty" json:",omitempty"`
	// Careful says that the acceptors may have changed since earlier ballots: what a quorum has accepted
	// in one of them is proposed again, and not taken for decided.
	Careful bool `cbor:",omitempty" json:",omitempty"`
	// Owner says that Self owns ballot 0. One proposer of an instance may.
	Owner   bool `cbor:",omitempty" json:",omitempty"`
	Options Options
	State   ProposerState
	// Ballot is the present ballot; Round is the highest round that Self has begun or heard of.
	Ballot Ballot
	Round  uint64 `cbor:",omitempty" json:",omitempty"`
	// Own is the value that Self would like, Value the one that it is bound to in phase 2, or the
	// one that is decided.
	Own, Value V
	// Answers are the acceptors' answers in this phase of this ballot, sorted by node. In phase 2
	// all have the present ballot.
	Answers []Acceptance[V] `cbor:",omitempty" json:",omitempty"`
	// Refusals are the acceptors that refused the ballot, sorted.
	Refusals []protocol.NodeID `cbor:",omitempty" json:",omitempty"`
	Attempt  int               `cbor:",omitempty" json:",omitempty"`
}

// Step takes Recover, Propose as input, the acceptors' answers and its timer. A value that is
// proposed while another is under way is not taken up: Decided says what came of it.
func (p *Proposer[V]) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Recover:
		// What was sent in ballot 0 is forgotten, so it must not be used again.
		p.Owner = false
		if r, ok := ev.Records[RoundKey].(RoundRecord[V]); ok {
			p.Round = max(p.Round, r.Round)
		}
	case protocol.Input:
		if v, ok := ev.Value.(Propose[V]); ok {
			p.propose(v.Value, out)
		}
	case protocol.Receive:
		p.receive(ev.From, ev.Message, out)
	case protocol.Expire:
		if ev.Timer == RetryTimer {
			p.retry(out)
		}
	}
}

func (p *Proposer[V]) propose(value V, out *protocol.Effects) {
	switch p.State {
	case ProposerIdle:
		p.Own = value
		if p.Owner {
			p.Owner = false
			p.Ballot = Ballot{Epoch: p.Epoch, Node: p.Self}
			p.write(value, out)
			return
		}
		p.begin(out)
	case ProposerDecided:
		out.Emit(Decided[V]{Value: p.Value})
	}
}

// begin starts a ballot that is higher than all that are known.
func (p *Proposer[V]) begin(out *protocol.Effects) {
	if p.Options.Rounds > 0 && p.Round >= p.Options.Rounds {
		p.State = ProposerSpent
		p.Answers, p.Refusals = nil, nil
		return
	}
	p.Round++
	p.Ballot = Ballot{Epoch: p.Epoch, Round: p.Round, Node: p.Self}
	out.Put(RoundKey, RoundRecord[V]{Round: p.Round})
	p.State = ProposerReading
	p.ask(out)
}

// write starts phase 2 of the present ballot.
func (p *Proposer[V]) write(value V, out *protocol.Effects) {
	p.State, p.Value = ProposerWriting, value
	p.ask(out)
}

// ask begins a phase.
func (p *Proposer[V]) ask(out *protocol.Effects) {
	p.Answers, p.Refusals = nil, nil
	p.send(out)
	p.arm(out)
}

// send asks those acceptors that have not answered.
func (p *Proposer[V]) send(out *protocol.Effects) {
	var message protocol.Message = Phase2a[V]{Instance: p.Instance, Ballot: p.Ballot, Value: p.Value}
	if p.State == ProposerReading {
		message = Phase1a[V]{Instance: p.Instance, Ballot: p.Ballot}
	}
	for _, m := range p.System.Members {
		if p.answer(m.Node) == quorum.Silent {
			out.Send(m.Node, message)
		}
	}
	for i, s := range p.Also {
		for _, m := range s.Members {
			if p.answer(m.Node) == quorum.Silent && !p.System.Has(m.Node) && !p.Also[:i].Has(m.Node) {
				out.Send(m.Node, message)
			}
		}
	}
}

// reading and writing say how the quorums of all systems stand.
func (p *Proposer[V]) reading() quorum.Verdict {
	return max(p.System.Reading(p.answer), p.Also.Read(p.answer))
}

func (p *Proposer[V]) writing() quorum.Verdict {
	return max(p.System.Writing(p.answer), p.Also.Write(p.answer))
}

func (p *Proposer[V]) arm(out *protocol.Effects) {
	pause, attempt := p.Options.pause(p.Attempt, p.Self)
	p.Attempt = attempt
	out.Arm(RetryTimer, pause)
}

func (p *Proposer[V]) retry(out *protocol.Effects) {
	switch {
	case p.State == ProposerRefused, len(p.Refusals) > 0:
		// Who has refused the ballot does so for ever, and whoever is silent may be gone for good.
		p.begin(out)
	case p.State == ProposerReading, p.State == ProposerWriting:
		p.send(out)
		p.arm(out)
	}
}

func (p *Proposer[V]) answer(node protocol.NodeID) quorum.Answer {
	if slices.Contains(p.Refusals, node) {
		return quorum.Refused
	}
	if slices.ContainsFunc(p.Answers, func(a Acceptance[V]) bool { return a.Node == node }) {
		return quorum.Granted
	}
	return quorum.Silent
}

func (p *Proposer[V]) receive(from protocol.NodeID, message protocol.Message, out *protocol.Effects) {
	if !p.System.Has(from) && !p.Also.Has(from) {
		return
	}
	switch m := message.(type) {
	case Phase1b[V]:
		if m.Instance == p.Instance && m.Ballot == p.Ballot && p.State == ProposerReading {
			p.promised(Acceptance[V]{Node: from, Ballot: m.Accepted, Value: m.Value}, out)
		}
	case Phase2b[V]:
		if m.Instance == p.Instance && m.Ballot == p.Ballot && p.State == ProposerWriting {
			p.accepted(Acceptance[V]{Node: from, Ballot: m.Ballot, Value: m.Value}, out)
		}
	case Refused[V]:
		if m.Instance == p.Instance {
			p.refused(from, m, out)
		}
	case Chosen[V]:
		if m.Instance == p.Instance && p.State != ProposerIdle && p.State != ProposerDecided {
			p.decide(m.Value, out)
		}
	}
}

func (p *Proposer[V]) promised(a Acceptance[V], out *protocol.Effects) {
	if p.answer(a.Node) == quorum.Granted {
		return
	}
	p.Answers = accepted(p.Answers, a)
	if value, ok := chosen(p.System, p.Answers); ok && !p.Careful { // by an earlier ballot, whose proposer may be gone
		p.decide(value, out)
		return
	}
	if p.reading() != quorum.Reached {
		return
	}
	highest, value := Ballot{}, p.Own
	for _, a := range p.Answers {
		if a.Ballot.Compare(highest) > 0 {
			highest, value = a.Ballot, a.Value
		}
	}
	p.Attempt = 0
	p.write(value, out)
}

func (p *Proposer[V]) accepted(a Acceptance[V], out *protocol.Effects) {
	p.Answers = accepted(p.Answers, a)
	if p.writing() == quorum.Reached {
		p.decide(p.Value, out)
	}
}

func (p *Proposer[V]) decide(value V, out *protocol.Effects) {
	p.State, p.Value = ProposerDecided, value
	p.Answers, p.Refusals, p.Attempt = nil, nil, 0
	out.Disarm(RetryTimer)
	out.Emit(Decided[V]{Value: value})
}

func (p *Proposer[V]) refused(from protocol.NodeID, m Refused[V], out *protocol.Effects) {
	if m.Ballot != p.Ballot || p.State != ProposerReading && p.State != ProposerWriting {
		return
	}
	p.Round = max(p.Round, m.Promised.Round)
	if i, found := slices.BinarySearch(p.Refusals, from); !found {
		p.Refusals = slices.Insert(p.Refusals, i, from)
	}
	verdict := p.reading()
	if p.State == ProposerWriting {
		verdict = p.writing()
	}
	if verdict == quorum.Lost {
		p.State, p.Answers, p.Refusals = ProposerRefused, nil, nil
		p.arm(out)
	}
}
