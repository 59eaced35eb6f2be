package commit

import (
	"slices"

	"assent/protocol"
	"assent/protocol/paxos"
	"assent/protocol/quorum"
)

// Electorate is who decides a transaction in Paxos Commit (Gray and Lamport 2006). It is settled when the
// transaction begins and never changes.
type Electorate struct {
	// Participants each have an agreement of their own on how they voted.
	Participants []protocol.NodeID
	// Acceptors agree. With 2F + 1 of them, F may fail.
	Acceptors quorum.System
	// Leaders may bring the decision about, in the order in which participants in doubt turn to
	// them. The first is the transaction's coordinator. Any number may act at a time.
	Leaders []protocol.NodeID
	// Fast says that acceptors tell the participants themselves what they have accepted: one message delay
	// less, and more messages (Gray and Lamport 2006, 4.3).
	Fast bool `cbor:",omitempty" json:",omitempty"`
}

// learners returns whom acceptors tell what they accept: the coordinator, or, where it is fast, the
// participants, and the coordinator where it is one of them or has the only acceptor.
func (e Electorate) learners() []protocol.NodeID {
	switch {
	case !e.Fast:
		return e.Leaders[:min(1, len(e.Leaders))]
	case len(e.Acceptors.Members) > 1 || len(e.Leaders) == 0 || slices.Contains(e.Participants, e.Leaders[0]):
		return e.Participants
	}
	return append(slices.Clone(e.Participants), e.Leaders[0])
}

// instance names the agreement on the vote of a participant.
func instance(id TransactionID, participant protocol.NodeID) paxos.Instance {
	return paxos.Instance(string(id) + "/" + string(participant))
}

// Cast is a vote as acceptors accept it.
type Cast struct {
	Vote     Vote
	Evidence []byte `cbor:",omitempty" json:",omitempty"`
	Reason   string `cbor:",omitempty" json:",omitempty"`
}

// Bundle is what the agreements of one transaction have to say to a node at one time. A participant is
// the owner of ballot 0 of its own agreement, so its vote goes to the acceptors as Phase2a.
type Bundle struct {
	ID TransactionID
	// Electorate is given by those who ask, for those who have not heard of the transaction.
	Electorate *Electorate           `cbor:",omitempty" json:",omitempty"`
	Phase1a    []paxos.Phase1a[Cast] `cbor:",omitempty" json:",omitempty"`
	Phase1b    []paxos.Phase1b[Cast] `cbor:",omitempty" json:",omitempty"`
	Phase2a    []paxos.Phase2a[Cast] `cbor:",omitempty" json:",omitempty"`
	Phase2b    []paxos.Phase2b[Cast] `cbor:",omitempty" json:",omitempty"`
	Refused    []paxos.Refused[Cast] `cbor:",omitempty" json:",omitempty"`
}

// InDoubt asks a leader for the decision. Whoever is asked and does not know it brings it about.
// Participant → leader.
type InDoubt struct {
	ID         TransactionID
	Electorate Electorate
	Cast       Cast
}

// bundled sends what the agreements have to say: one message to each node.
func bundled(id TransactionID, e *Electorate, sends []protocol.Send, out *protocol.Effects) {
	var to []protocol.NodeID
	bundles := map[protocol.NodeID]*Bundle{}
	for _, s := range sends {
		b := bundles[s.To]
		if b == nil {
			b = &Bundle{ID: id, Electorate: e}
			bundles[s.To] = b
			to = append(to, s.To)
		}
		switch m := s.Message.(type) {
		case paxos.Phase1a[Cast]:
			b.Phase1a = append(b.Phase1a, m)
		case paxos.Phase1b[Cast]:
			b.Phase1b = append(b.Phase1b, m)
		case paxos.Phase2a[Cast]:
			b.Phase2a = append(b.Phase2a, m)
		case paxos.Phase2b[Cast]:
			b.Phase2b = append(b.Phase2b, m)
		case paxos.Refused[Cast]:
			b.Refused = append(b.Refused, m)
		}
	}
	for _, n := range to {
		out.Send(n, *bundles[n])
	}
}

// paxosTypes returns the encodings of what only Paxos Commit has.
func paxosTypes() []protocol.Type {
	return append(paxos.Types[Cast]("commit.Cast"), []protocol.Type{
		{Name: "commit.Electorate", Zero: Electorate{}},
		{Name: "commit.Bundle", Zero: Bundle{}},
		{Name: "commit.InDoubt", Zero: InDoubt{}},
		{Name: "commit.VoteAcceptor", Zero: VoteAcceptor{}},
		{Name: "commit.VoteRegister", Zero: VoteRegister{}},
		{Name: "commit.PaxosLeader", Zero: PaxosLeader{}},
		{Name: "commit.PaxosParticipant", Zero: PaxosParticipant{}},
		{Name: "commit.PaxosSite", Zero: PaxosSite{}},
		{Name: "commit.CastRecord", Zero: CastRecord{}},
	}...)
}

// CastKey is the key of a PaxosParticipant's stable record of its own.
const CastKey = "cast"

// CastRecord is what a participant in Paxos Commit has said to acceptors: in ballot 0 it says the same
// for ever.
type CastRecord struct {
	Electorate Electorate
	Cast       Cast
}

// PaxosParticipant is a participant whose vote goes to the acceptors. It votes, waits and finishes as in
// two-phase commit; a participant in doubt asks one leader after the other.
type PaxosParticipant struct {
	Participant Participant
	Branch      Branch
	Self        protocol.NodeID
	// Electorate is known from Prepare on.
	Electorate *Electorate `cbor:",omitempty" json:",omitempty"`
	// Cast is what was said to the acceptors, if anything.
	Cast *Cast `cbor:",omitempty" json:",omitempty"`
	// Asked is the place of the leader that is asked next.
	Asked int `cbor:",omitempty" json:",omitempty"`
	// Learners are those of the agreements, in the order of Electorate.Participants, where acceptors tell
	// the participants.
	Learners []paxos.Learner[Cast] `cbor:",omitempty" json:",omitempty"`
}

// Step takes the events of a participant in two-phase commit.
func (p *PaxosParticipant) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Recover:
		if r, ok := ev.Records[CastKey].(CastRecord); ok {
			p.Electorate, p.Cast = &r.Electorate, &r.Cast
		}
	case protocol.Receive:
		switch m := ev.Message.(type) {
		case Prepare:
			if m.ID == p.Participant.ID && m.Electorate != nil && p.Electorate == nil {
				p.Electorate = m.Electorate
			}
		case Finish: // whoever brought the decision about wants to know when it is done
			if m.ID == p.Participant.ID {
				p.Participant.Coordinator = ev.From
			}
		case Bundle:
			if m.ID == p.Participant.ID {
				p.learn(ev.From, m, out)
			}
			return
		}
	}
	p.participant(ev, out)
}

// learn counts what acceptors have accepted. When every vote stands, or one is no, the participant knows the
// decision without being told.
func (p *PaxosParticipant) learn(from protocol.NodeID, b Bundle, out *protocol.Effects) {
	if p.Electorate == nil || !p.Electorate.Fast || len(b.Phase2b) == 0 || p.Participant.State.Done() {
		return
	}
	e := p.Electorate
	if len(p.Learners) == 0 {
		for _, n := range e.Participants {
			p.Learners = append(p.Learners, paxos.Learner[Cast]{Instance: instance(p.Participant.ID, n), System: e.Acceptors})
		}
	}
	decision := Commit
	var none protocol.Effects
	for i := range p.Learners {
		l := &p.Learners[i]
		for _, m := range b.Phase2b {
			l.Step(protocol.Receive{From: from, Message: m}, &none)
		}
		switch {
		case decision == Abort:
		case l.Decided && l.Value.Vote == No:
			decision = Abort
		case !l.Decided:
			decision = Undecided
		}
	}
	if decision != Undecided && len(e.Leaders) > 0 {
		p.Participant.Coordinator = e.Leaders[0]
		p.participant(protocol.Receive{From: e.Leaders[0], Message: Finish{ID: p.Participant.ID, Decision: decision}}, out)
	}
}

// participant steps the participant in two-phase commit; its votes go to the acceptors.
func (p *PaxosParticipant) participant(ev protocol.Event, out *protocol.Effects) {
	var lower protocol.Effects
	stepOver(&p.Participant, &p.Branch, ev, &lower)
	out.Writes, out.Timers, out.Emits = append(out.Writes, lower.Writes...), append(out.Timers, lower.Timers...), append(out.Emits, lower.Emits...)
	for _, s := range lower.Sends {
		if v, ok := s.Message.(Voted); ok {
			p.cast(Cast{Vote: v.Vote, Evidence: v.Evidence, Reason: v.Reason}, out)
			continue
		}
		out.Send(s.To, s.Message)
	}
}

// cast tells the acceptors the vote: at first as many as it takes, then all of them, and a leader as
// well.
func (p *PaxosParticipant) cast(c Cast, out *protocol.Effects) {
	if p.Electorate == nil {
		return // refused before it was asked: the tombstone says so when it is
	}
	e := p.Electorate
	again := p.Cast != nil
	if !again {
		p.Cast = &c
		out.Put(CastKey, CastRecord{Electorate: *e, Cast: c})
	}
	var sends []protocol.Send
	votes := 0
	for _, a := range e.Acceptors.Members {
		if votes >= e.Acceptors.Write && !again {
			break
		}
		votes += a.Votes
		sends = append(sends, protocol.Send{To: a.Node, Message: paxos.Phase2a[Cast]{
			Instance: instance(p.Participant.ID, p.Self), Ballot: paxos.Ballot{Node: p.Self}, Value: *p.Cast}})
	}
	bundled(p.Participant.ID, e, sends, out)
	if again && p.Cast.Vote == Yes && len(e.Leaders) > 0 {
		out.Send(e.Leaders[p.Asked%len(e.Leaders)], InDoubt{ID: p.Participant.ID, Electorate: *e, Cast: *p.Cast})
		p.Asked = (p.Asked + 1) % len(e.Leaders)
	}
}

// VoteAcceptor accepts the votes of one transaction. In ballot 0 it waits for all of them, or for a no,
// and then forces them at once and tells the coordinator in one message.
type VoteAcceptor struct {
	ID TransactionID
	// Acceptors are those of the agreements, in the order of the electorate's participants.
	Acceptors []paxos.Acceptor[Cast] `cbor:",omitempty" json:",omitempty"`
	// Held are votes that wait for the others, in the order in which they came.
	Held []paxos.Phase2a[Cast] `cbor:",omitempty" json:",omitempty"`
	// Records are what was stable before the electorate was known again.
	Records []AcceptorState `cbor:",omitempty" json:",omitempty"`
}

// AcceptorState is the stable record of one agreement.
type AcceptorState struct {
	Instance paxos.Instance
	Record   paxos.AcceptorRecord[Cast]
}

// acceptorKey is the key of the stable record of one agreement.
func acceptorKey(i paxos.Instance) string { return paxos.AcceptorKey + "/" + string(i) }

// Step takes Recover and Bundle.
func (a *VoteAcceptor) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Recover:
		a.recover(ev.Records)
	case protocol.Receive:
		if b, ok := ev.Message.(Bundle); ok && b.ID == a.ID {
			a.receive(ev.From, b, out)
		}
	}
}

func (a *VoteAcceptor) recover(records protocol.Records) {
	for key, record := range records {
		r, ok := record.(paxos.AcceptorRecord[Cast])
		if ok && len(key) > len(paxos.AcceptorKey) {
			a.Records = append(a.Records, AcceptorState{Instance: paxos.Instance(key[len(paxos.AcceptorKey)+1:]), Record: r})
		}
	}
	slices.SortFunc(a.Records, func(x, y AcceptorState) int { return compareText(x.Instance, y.Instance) })
}

func compareText[S ~string](a, b S) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (a *VoteAcceptor) receive(from protocol.NodeID, b Bundle, out *protocol.Effects) {
	if b.Electorate != nil && len(a.Acceptors) == 0 {
		a.join(*b.Electorate)
	}
	var lower protocol.Effects
	if len(b.Phase1a) > 0 {
		a.flush(&lower) // what is on its way to being accepted must not be missed
	}
	for _, m := range b.Phase1a {
		a.step(from, m, m.Instance, &lower)
	}
	for _, m := range b.Phase2a {
		if m.Ballot.Round == 0 {
			a.hold(from, m, &lower)
		} else {
			a.step(from, m, m.Instance, &lower)
		}
	}
	out.Writes = append(out.Writes, lower.Writes...)
	bundled(a.ID, nil, lower.Sends, out)
}

func (a *VoteAcceptor) join(e Electorate) {
	for _, p := range e.Participants {
		x := paxos.Acceptor[Cast]{Instance: instance(a.ID, p), Owner: p, Learners: e.learners()}
		for _, r := range a.Records {
			if r.Instance == x.Instance {
				x.Promised, x.Accepted, x.Value = r.Record.Promised, r.Record.Accepted, r.Record.Value
			}
		}
		a.Acceptors = append(a.Acceptors, x)
	}
	a.Records = nil
}

// hold keeps a vote until all are there. One that is no is the end of the transaction, and one that
// was accepted before is only told again.
func (a *VoteAcceptor) hold(from protocol.NodeID, m paxos.Phase2a[Cast], out *protocol.Effects) {
	i := a.place(m.Instance)
	if i < 0 || m.Ballot.Node != from {
		return
	}
	if !a.Acceptors[i].Promised.IsZero() || m.Value.Vote == No {
		a.flush(out)
		a.step(from, m, m.Instance, out)
		return
	}
	if !slices.ContainsFunc(a.Held, func(h paxos.Phase2a[Cast]) bool { return h.Instance == m.Instance }) {
		a.Held = append(slices.Clone(a.Held), m)
	}
	for _, x := range a.Acceptors {
		if x.Promised.IsZero() && !slices.ContainsFunc(a.Held, func(h paxos.Phase2a[Cast]) bool { return h.Instance == x.Instance }) {
			return
		}
	}
	a.flush(out)
}

// flush accepts what is held.
func (a *VoteAcceptor) flush(out *protocol.Effects) {
	held := a.Held
	a.Held = nil
	for _, m := range held {
		a.step(m.Ballot.Node, m, m.Instance, out)
	}
}

func (a *VoteAcceptor) place(i paxos.Instance) int {
	return slices.IndexFunc(a.Acceptors, func(x paxos.Acceptor[Cast]) bool { return x.Instance == i })
}

// step hands a message to its agreement. The owner of ballot 0 is told nothing of that ballot, unless it
// is the coordinator: it takes no part in counting. In a higher ballot it is a leader like any other.
func (a *VoteAcceptor) step(from protocol.NodeID, m protocol.Message, i paxos.Instance, out *protocol.Effects) {
	at := a.place(i)
	if at < 0 {
		return
	}
	var lower protocol.Effects
	a.Acceptors[at].Step(protocol.Receive{From: from, Message: m}, &lower)
	for _, w := range lower.Writes {
		out.Put(acceptorKey(i), w.Record)
	}
	for _, s := range lower.Sends {
		if x := a.Acceptors[at]; s.To != x.Owner || slices.Contains(x.Learners, s.To) || roundOf(s.Message) > 0 {
			out.Send(s.To, s.Message)
		}
	}
}

// roundOf returns the round of the ballot that an acceptor's message is about.
func roundOf(message protocol.Message) uint64 {
	switch m := message.(type) {
	case paxos.Phase1b[Cast]:
		return m.Ballot.Round
	case paxos.Phase2b[Cast]:
		return m.Ballot.Round
	case paxos.Refused[Cast]:
		return m.Ballot.Round
	}
	return 0
}
