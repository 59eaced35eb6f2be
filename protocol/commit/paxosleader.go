package commit

import (
	"slices"

	"assent/protocol"
	"assent/protocol/paxos"
)

// VoteRegister is the register of Paxos Commit: commit stands when every participant's agreement has
// come to a vote and none is no. It takes Propose: those agreements in which nobody has voted are
// then brought to a no. It emits Decided, and is told of votes by acceptors.
type VoteRegister struct {
	ID         TransactionID
	Self       protocol.NodeID
	Electorate *Electorate `cbor:",omitempty" json:",omitempty"`
	// Proposers and Learners are those of the agreements, in the order of Electorate.Participants.
	Proposers []paxos.Proposer[Cast] `cbor:",omitempty" json:",omitempty"`
	Learners  []paxos.Learner[Cast]  `cbor:",omitempty" json:",omitempty"`
	// Round is the highest round that was begun before a crash.
	Round   uint64 `cbor:",omitempty" json:",omitempty"`
	Options Options
}

// learnt is what a VoteRegister tells its leader: a vote that stands.
type learnt struct {
	from protocol.NodeID
	cast Cast
}

// join makes the agreements, once.
func (r *VoteRegister) join(e Electorate) {
	if r.Electorate != nil {
		return
	}
	r.Electorate = &e
	first, most := r.Options.retry()
	for _, p := range e.Participants {
		i := instance(r.ID, p)
		r.Proposers = append(r.Proposers, paxos.Proposer[Cast]{Instance: i, Self: r.Self, System: e.Acceptors, Round: r.Round,
			Options: paxos.Options{Retry: first, RetryMost: most, Rounds: uint64(r.Options.Rounds)}})
		r.Learners = append(r.Learners, paxos.Learner[Cast]{Instance: i, System: e.Acceptors})
	}
}

// Step takes Recover, Propose as input, Bundle and paxos.RetryTimer. What it emits goes to the leader:
// learnt for each vote, and Decided when the last is known or when it is asked again.
func (r *VoteRegister) Step(ev protocol.Event, out *protocol.Effects) {
	before := r.known()
	var lower protocol.Effects
	asked := false
	switch ev := ev.(type) {
	case protocol.Recover:
		if record, ok := ev.Records[paxos.RoundKey].(paxos.RoundRecord[Cast]); ok {
			r.Round = record.Round
		}
	case protocol.Input:
		if _, asked = ev.Value.(Propose); asked {
			no := protocol.Input{Value: paxos.Propose[Cast]{Value: Cast{Vote: No}}}
			for i := range r.Proposers {
				if !r.Learners[i].Decided {
					r.Proposers[i].Step(no, &lower)
				}
			}
		}
	case protocol.Expire:
		for i := range r.Proposers {
			r.Proposers[i].Step(ev, &lower)
		}
	case protocol.Receive:
		if b, ok := ev.Message.(Bundle); ok && b.ID == r.ID {
			r.receive(ev.From, b, &lower)
		}
	}
	r.carry(&lower, out)
	r.report(before, asked, out)
}

func (r *VoteRegister) receive(from protocol.NodeID, b Bundle, lower *protocol.Effects) {
	give := func(i paxos.Instance, m protocol.Message) {
		for at := range r.Proposers {
			if r.Proposers[at].Instance == i {
				r.Learners[at].Step(protocol.Receive{From: from, Message: m}, lower)
				r.Proposers[at].Step(protocol.Receive{From: from, Message: m}, lower)
			}
		}
	}
	for _, m := range b.Phase1b {
		give(m.Instance, m)
	}
	for _, m := range b.Phase2b {
		give(m.Instance, m)
	}
	for _, m := range b.Refused {
		give(m.Instance, m)
	}
	for i := range r.Proposers { // what one of the two knows the other need not find out
		p, l := &r.Proposers[i], &r.Learners[i]
		switch {
		case l.Decided:
			p.State, p.Value, p.Answers, p.Refusals = paxos.ProposerDecided, l.Value, nil, nil
		case p.State == paxos.ProposerDecided:
			l.Decided, l.Value, l.Accepted = true, p.Value, nil
		}
	}
}

// carry passes on what the agreements want: one record of the highest round, one timer, one message
// to each node.
func (r *VoteRegister) carry(lower, out *protocol.Effects) {
	if len(lower.Writes) > 0 {
		round := uint64(0)
		for _, p := range r.Proposers {
			round = max(round, p.Round)
		}
		out.Put(paxos.RoundKey, paxos.RoundRecord[Cast]{Round: round})
	}
	busy := slices.ContainsFunc(r.Proposers, func(p paxos.Proposer[Cast]) bool {
		return p.State == paxos.ProposerReading || p.State == paxos.ProposerWriting || p.State == paxos.ProposerRefused
	})
	var armed protocol.Timer
	for _, t := range lower.Timers {
		if t.After > 0 && (armed.After == 0 || t.After < armed.After) {
			armed = t
		}
	}
	switch {
	case busy && armed.After > 0:
		out.Arm(armed.Name, armed.After)
	case !busy && len(lower.Timers) > 0:
		out.Disarm(paxos.RetryTimer)
	}
	bundled(r.ID, r.Electorate, lower.Sends, out)
}

// known returns how many votes stand.
func (r *VoteRegister) known() int {
	n := 0
	for _, l := range r.Learners {
		if l.Decided {
			n++
		}
	}
	return n
}

// report says what is newly known.
func (r *VoteRegister) report(before int, asked bool, out *protocol.Effects) {
	now := r.known()
	if now == before && !asked {
		return
	}
	decided := Decided{Decision: Commit}
	for i, l := range r.Learners {
		if !l.Decided {
			continue
		}
		p := r.Electorate.Participants[i]
		out.Emit(learnt{from: p, cast: l.Value})
		switch l.Value.Vote {
		case Yes:
			decided.Members = append(decided.Members, Member{Node: p, Vote: Yes, Evidence: l.Value.Evidence})
		case No:
			decided.Decision = Abort
		}
	}
	// One no is enough for abort.
	if now > 0 && now == len(r.Learners) || decided.Decision == Abort {
		out.Emit(decided)
	}
}

// PaxosLeader is a coordinator over a VoteRegister: the transaction's own, or another that a participant
// in doubt has turned to. Leaders do no harm to one another.
type PaxosLeader struct {
	Coordinator Coordinator
	Register    VoteRegister
}

// NewPaxosLeader returns the coordinator self of the transaction id. Any other leader, and a coordinator
// made anew, is given no electorate: it learns of it from those who ask.
func NewPaxosLeader(id TransactionID, self protocol.NodeID, e *Electorate, options Options) *PaxosLeader {
	options.Contested, options.NoOnePhase, options.Cooperative = true, true, false
	var nodes []protocol.NodeID
	if e != nil {
		nodes = e.Participants
	}
	l := &PaxosLeader{Coordinator: *NewCoordinator(id, nodes, options),
		Register: VoteRegister{ID: id, Self: self, Options: options}}
	if e == nil {
		l.Coordinator.State = CoordinatorRecovered
	} else {
		l.Register.join(*e)
	}
	return l
}

// Step takes the events of a coordinator, and Bundle and InDoubt.
func (l *PaxosLeader) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Receive:
		switch m := ev.Message.(type) {
		case Voted:
			return // votes count when a quorum of acceptors has them
		case InDoubt:
			if m.ID == l.Coordinator.ID {
				l.inDoubt(ev.From, m, out)
			}
			return
		case Bundle:
			l.register(ev, out)
			return
		}
	case protocol.Expire:
		if ev.Timer == paxos.RetryTimer {
			l.register(ev, out)
			return
		}
	case protocol.Recover:
		l.register(ev, out)
	}
	l.coordinator(ev, out)
}

// inDoubt takes a participant's word that it has voted yes and waits.
func (l *PaxosLeader) inDoubt(from protocol.NodeID, m InDoubt, out *protocol.Effects) {
	l.Register.join(m.Electorate)
	for _, p := range m.Electorate.Participants { // those that were never asked are told, too
		l.Coordinator.admit(Member{Node: p})
	}
	if s := l.Coordinator.State; s == CoordinatorVoting || s == CoordinatorIdle {
		return // its vote counts when the acceptors have it
	}
	l.coordinator(protocol.Receive{From: from, Message: Voted{ID: m.ID, Vote: Yes, Evidence: m.Cast.Evidence}}, out)
}

// coordinator steps the coordinator and carries what it says to the register.
func (l *PaxosLeader) coordinator(ev protocol.Event, out *protocol.Effects) {
	var upper protocol.Effects
	l.Coordinator.Step(ev, &upper)
	out.Timers = append(out.Timers, upper.Timers...)
	for _, s := range upper.Sends {
		switch m := s.Message.(type) {
		case Prepare:
			m.Electorate = l.Register.Electorate
			s.Message = m
		case Finish:
			if l.toldByAcceptors(ev) {
				continue
			}
		}
		out.Send(s.To, s.Message)
	}
	for _, v := range upper.Emits {
		if p, ok := v.(Propose); ok {
			l.register(protocol.Input{Value: p}, out)
			continue
		}
		out.Emit(v)
	}
}

// toldByAcceptors reports whether the participants learn a decision from the acceptors, at the same time as
// this leader does. If one does not, it is told when the leader sends again what was not acknowledged.
func (l *PaxosLeader) toldByAcceptors(ev protocol.Event) bool {
	if e := l.Register.Electorate; e == nil || !e.Fast {
		return false
	}
	if in, ok := ev.(protocol.Input); !ok {
		return false
	} else if _, ok := in.Value.(Decided); !ok {
		return false
	}
	return !slices.ContainsFunc(l.Register.Proposers, func(p paxos.Proposer[Cast]) bool { return p.Round > l.Register.Round })
}

// register steps the register and carries what it says to the coordinator.
func (l *PaxosLeader) register(ev protocol.Event, out *protocol.Effects) {
	var lower protocol.Effects
	l.Register.Step(ev, &lower)
	out.Writes, out.Timers, out.Sends = append(out.Writes, lower.Writes...), append(out.Timers, lower.Timers...), append(out.Sends, lower.Sends...)
	for _, v := range lower.Emits {
		switch v := v.(type) {
		case learnt:
			switch s := l.Coordinator.State; {
			case s == CoordinatorVoting:
				l.coordinator(protocol.Receive{From: v.from, Message: Voted{ID: l.Coordinator.ID, Vote: v.cast.Vote,
					Evidence: v.cast.Evidence, Reason: v.cast.Reason}}, out)
			case (s == CoordinatorProposing || s == CoordinatorRecovered) && v.cast.Vote == ReadOnly:
				// It has left, and is told nothing: that it has nothing committed contradicts no decision.
				l.Coordinator.left(v.from)
			}
		case Decided:
			l.coordinator(protocol.Input{Value: v}, out)
		}
	}
}
