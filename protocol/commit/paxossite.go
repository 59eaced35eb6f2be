package commit

import (
	"fmt"
	"time"

	"assent/protocol"
	"assent/protocol/quorum"
)

// PaxosSite is a node in Paxos Commit: a leader, an acceptor and a participant, of which any may be
// missing. What they say to one another is no message: it takes place within one step.
type PaxosSite struct {
	Self        protocol.NodeID
	Leader      *PaxosLeader      `cbor:",omitempty" json:",omitempty"`
	Acceptor    *VoteAcceptor     `cbor:",omitempty" json:",omitempty"`
	Participant *PaxosParticipant `cbor:",omitempty" json:",omitempty"`
}

// Step gives the event to the parts that it concerns.
func (s *PaxosSite) Step(ev protocol.Event, out *protocol.Effects) {
	var all protocol.Effects
	s.step(ev, &all)
	for i := 0; i < len(all.Sends); i++ {
		if m := all.Sends[i]; m.To == s.Self {
			s.step(protocol.Receive{From: s.Self, Message: m.Message}, &all)
		} else {
			out.Send(m.To, m.Message)
		}
	}
	out.Writes, out.Timers, out.Emits = append(out.Writes, all.Writes...), append(out.Timers, all.Timers...), append(out.Emits, all.Emits...)
}

func (s *PaxosSite) step(ev protocol.Event, out *protocol.Effects) {
	if s.Leader != nil {
		s.Leader.Step(ev, out)
	}
	if s.Acceptor != nil {
		s.Acceptor.Step(ev, out)
	}
	if s.Participant != nil {
		s.Participant.Step(ev, out)
	}
}

// Standing returns what the participant knows and where its branch stands, or what the leader has
// brought about.
func (s *PaxosSite) Standing() Standing {
	all := Standing{Done: true}
	if p := s.Participant; p != nil {
		all = Standing{Decision: p.Participant.Decision, Participant: true, Branch: p.Branch.State,
			Vote: p.Branch.Vote, Done: p.Participant.State.Done()}
	}
	if s.Leader != nil {
		c := s.Leader.Coordinator
		if all.Decision == Undecided {
			all.Decision = c.decision()
		}
		if s.Participant == nil {
			all.Done = c.State.Done() || c.State == CoordinatorRecovered
		}
	}
	return all
}

// PaxosCommit describes a system that runs one transaction by Paxos Commit.
type PaxosCommit struct {
	// Participants is their number, 1 to 8.
	Participants int
	// F is how many acceptors may fail: there are 2F + 1, 0 to 3. With none it is two-phase commit,
	// message for message.
	F int
	// CoLocated puts the acceptors on the nodes of the first participants, and the leader with the
	// first of them. Otherwise the leader c has an acceptor and no branch, and the other acceptors have
	// nodes of their own.
	CoLocated bool
	// Fast has acceptors tell the participants themselves.
	Fast bool
	// Leaders is how many nodes may lead: acceptors, the first of which is the coordinator. Defaults
	// to all acceptors.
	Leaders int
	// Votes are those that each branch may give: ways to begin. Defaults to yes, no and read-only.
	Votes []Vote
	// Options are the machines'. Options.Rounds bounds the state space.
	Options Options
	// Steadfast participants do not give up by themselves before they are asked.
	Steadfast bool
}

// Nodes returns the system: first the nodes of acceptors, of which the first is the coordinator, c or
// p1, then those that have a branch only. Its pauses are of one length. It returns an ErrSystem if a
// number is out of bounds.
func (t PaxosCommit) Nodes() ([]protocol.Node, error) {
	participants, err := participantIDs(t.Participants)
	if err != nil {
		return nil, err
	}
	if t.F < 0 || t.F > 3 {
		return nil, fmt.Errorf("%w: %d acceptors may fail; 0 to 3 are allowed", ErrSystem, t.F)
	}
	acceptors := make([]protocol.NodeID, 2*t.F+1)
	for i := range acceptors {
		switch {
		case t.CoLocated && i < len(participants):
			acceptors[i] = participants[i]
		case i == 0:
			acceptors[i] = "c"
		default:
			acceptors[i] = protocol.NodeID(fmt.Sprintf("a%d", i+1))
		}
	}
	if t.Leaders == 0 {
		t.Leaders = len(acceptors)
	}
	if t.Leaders < 1 || t.Leaders > len(acceptors) {
		return nil, fmt.Errorf("%w: %d leaders among %d acceptors", ErrSystem, t.Leaders, len(acceptors))
	}
	t.Options.Retry, t.Options.RetryMost = time.Second, time.Second
	e := Electorate{Participants: participants, Acceptors: quorum.Majority(acceptors...), Leaders: acceptors[:t.Leaders], Fast: t.Fast}
	ids := append([]protocol.NodeID(nil), acceptors...)
	for _, p := range participants {
		if !e.accepts(p) {
			ids = append(ids, p)
		}
	}
	var nodes []protocol.Node
	for i, id := range ids {
		nodes = append(nodes, t.node(e, id, i))
	}
	return nodes, nil
}

// accepts reports whether node is an acceptor.
func (e Electorate) accepts(node protocol.NodeID) bool {
	for _, m := range e.Acceptors.Members {
		if m.Node == node {
			return true
		}
	}
	return false
}

func (t PaxosCommit) node(e Electorate, id protocol.NodeID, place int) protocol.Node {
	branch := false
	for _, p := range e.Participants {
		branch = branch || p == id
	}
	site := func(vote Vote, electorate *Electorate) protocol.Machine {
		s := &PaxosSite{Self: id}
		if place < t.Leaders {
			s.Leader = NewPaxosLeader("t", id, electorate, t.Options)
		}
		if e.accepts(id) {
			s.Acceptor = &VoteAcceptor{ID: "t"}
		}
		if branch {
			s.Participant = &PaxosParticipant{Participant: *NewParticipant("t", e.Leaders[0], t.Options), Branch: Branch{Vote: vote}, Self: id}
		}
		return s
	}
	var first *Electorate
	if place == 0 {
		first = &e
	}
	n := protocol.Node{ID: id, Anew: func() protocol.Machine { return site(Yes, nil) }}
	if !branch {
		n.New = []func() protocol.Machine{func() protocol.Machine { return site(NoVote, first) }}
		return n
	}
	if !t.Steadfast {
		n.Inputs = []protocol.Value{Abandon{}}
	}
	for _, v := range votesOr(t.Votes) {
		n.New = append(n.New, func() protocol.Machine { return site(v, first) })
	}
	return n
}
