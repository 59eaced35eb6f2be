package commit

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"assent/protocol"
	"assent/protocol/paxos"
	"assent/protocol/protocoltest"
)

// quietRun runs a system without faults, the oldest message first, and counts.
type quietRun struct {
	up       map[protocol.NodeID]protocol.Machine
	mail     []quietLetter
	messages map[string]int // by kind
	forces   int            // steps with stable writes before the decision is told
	told     bool
	delays   map[protocol.NodeID]int // the longest chain of messages that led to each node
	known    int                     // and to a participant when it knew the decision, the longest
}

type quietLetter struct {
	from, to protocol.NodeID
	message  protocol.Message
	delays   int
}

func runQuietly(t *testing.T, nodes []protocol.Node) *quietRun {
	t.Helper()
	r := &quietRun{up: map[protocol.NodeID]protocol.Machine{}, messages: map[string]int{}, delays: map[protocol.NodeID]int{}}
	for _, n := range nodes {
		r.up[n.ID] = n.New[0]()
	}
	for _, n := range nodes {
		r.step(n.ID, protocol.Start{})
	}
	for i := 0; i < len(r.mail); i++ {
		l := r.mail[i]
		r.delays[l.to] = max(r.delays[l.to], l.delays)
		r.step(l.to, protocol.Receive{From: l.from, Message: l.message})
	}
	for _, n := range nodes {
		if s, ok := r.up[n.ID].(interface{ Standing() Standing }); ok && s.Standing().Participant && s.Standing().Branch != BranchCommitted {
			t.Fatalf("%s is not committed: %+v", n.ID, s.Standing())
		}
	}
	return r
}

func (r *quietRun) step(id protocol.NodeID, ev protocol.Event) {
	var out protocol.Effects
	before := r.committed(id)
	r.up[id].Step(ev, &out)
	if !before && r.committed(id) {
		r.known = max(r.known, r.delays[id])
	}
	if len(out.Writes) > 0 && !r.told && !r.committed(id) {
		r.forces++
	}
	for _, s := range out.Sends {
		kind := fmt.Sprintf("%T", s.Message)
		r.messages[kind]++
		r.told = r.told || kind == "commit.Finish"
		r.mail = append(r.mail, quietLetter{id, s.To, s.Message, r.delays[id] + 1})
	}
}

// committed reports whether a node has a branch that is committed.
func (r *quietRun) committed(id protocol.NodeID) bool {
	s, ok := r.up[id].(interface{ Standing() Standing })
	return ok && s.Standing().Participant && s.Standing().Branch == BranchCommitted
}

// cost returns the messages that it took until all knew the decision.
func (r *quietRun) cost() int {
	n := 0
	for kind, count := range r.messages {
		if kind != "commit.Acknowledge" {
			n += count
		}
	}
	return n
}

// The published cost of a fault-free commit (Gray and Lamport 2006, figure 4). The participant that begins
// is the coordinator's own where all are co-located. Elsewhere ours is asked by an application, not by a
// participant that votes by asking, which costs one message more.
func TestCostOfPaxosCommit(t *testing.T) {
	for _, n := range []int{2, 3, 5} {
		for f := range 3 {
			costs(t, PaxosCommit{Participants: n, F: f}, n*f+f+3*n-1+1, 5-1, n+f+1)
			costs(t, PaxosCommit{Participants: n, F: f, Fast: true}, 2*n*f+3*n-1+1, 4-1, n+f+1)
			if f+1 > n {
				continue // there are not enough participants to put acceptors with
			}
			costs(t, PaxosCommit{Participants: n, F: f, CoLocated: true}, n*(f+3)-3, 4, 0)
			costs(t, PaxosCommit{Participants: n, F: f, CoLocated: true, Fast: true}, (n-1)*(2*f+3), 3, 0)
		}
	}
}

// costs runs a system without faults and holds what it takes against what it should: messages, message
// delays until all participants know the decision, and stable writes where these are given. With F = 0 the
// acceptor is the leader's, which takes one delay less than the paper's figure. The paper counts one more where all are apart: the
// message by which a participant begins.
func costs(t *testing.T, c PaxosCommit, messages, delays, forces int) {
	t.Helper()
	nodes, err := c.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	if !c.Fast && (c.F == 0 || c.CoLocated && c.Participants == 2) {
		delays-- // of two participants with acceptors, each asks for one vote only
	}
	r := runQuietly(t, nodes)
	if r.cost() != messages {
		t.Errorf("%+v: %d messages, want %d: %v", c, r.cost(), messages, r.messages)
	}
	if r.known != delays {
		t.Errorf("%+v: %d message delays, want %d", c, r.known, delays)
	}
	if forces > 0 && r.forces != forces {
		t.Errorf("%+v: %d stable writes, want %d", c, r.forces, forces)
	}
}

// With F = 0 it is two-phase commit, message for message.
func TestPaxosCommitWithoutFaultsIsTwoPhaseCommit(t *testing.T) {
	for n := 2; n <= 5; n++ {
		two, err := TwoPhase{Participants: n}.Nodes()
		if err != nil {
			t.Fatal(err)
		}
		paxos, err := PaxosCommit{Participants: n}.Nodes()
		if err != nil {
			t.Fatal(err)
		}
		a, b := runQuietly(t, two), runQuietly(t, paxos)
		if len(a.mail) != len(b.mail) || a.forces != b.forces {
			t.Fatalf("%d participants: %d messages and %d writes, %d and %d in two-phase commit", n, len(b.mail), b.forces, len(a.mail), a.forces)
		}
		for i := range a.mail {
			x, y := a.mail[i], b.mail[i]
			if x.from != y.from || x.to != y.to || !same(x.message, y.message) {
				t.Errorf("%d participants, message %d: %s to %s %T, in two-phase commit %s to %s %T", n, i, y.from, y.to, y.message, x.from, x.to, x.message)
			}
		}
	}
}

// same compares a message of two-phase commit with one of Paxos Commit: a vote goes as phase 2a of ballot 0.
func same(two, px protocol.Message) bool {
	if v, ok := two.(Voted); ok {
		b, ok := px.(Bundle)
		return ok && len(b.Phase2a) == 1 && b.Phase2a[0].Ballot.Round == 0 && b.Phase2a[0].Value.Vote == v.Vote
	}
	return fmt.Sprintf("%T", two) == fmt.Sprintf("%T", px)
}

// A participant never says two things in ballot 0, though it did not record why it voted read-only and
// has nothing to vote with when it comes back.
func TestReadOnlyVoteIsNotTakenBack(t *testing.T) {
	nodes, err := PaxosCommit{Participants: 2, F: 1, Votes: []Vote{ReadOnly}}.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	r := runQuietlyUntilVote(t, nodes, "p1")
	p1 := nodes[slices.IndexFunc(nodes, func(n protocol.Node) bool { return n.ID == "p1" })]
	again := p1.Anew()
	var out protocol.Effects
	again.Step(protocol.Recover{Records: r.records}, &out)
	out.Reset()
	again.Step(protocol.Receive{From: "c", Message: r.prepare}, &out)
	cast := 0
	for _, s := range out.Sends {
		b, ok := s.Message.(Bundle)
		if !ok {
			continue
		}
		for _, m := range b.Phase2a {
			cast++
			if m.Value.Vote != ReadOnly {
				t.Errorf("now it says %v", m.Value.Vote)
			}
		}
	}
	if cast != 3 {
		t.Errorf("%d acceptors are told again, want all three", cast)
	}
}

type votedRun struct {
	records protocol.Records
	prepare protocol.Message
}

// runQuietlyUntilVote starts the coordinator and has one participant vote.
func runQuietlyUntilVote(t *testing.T, nodes []protocol.Node, who protocol.NodeID) votedRun {
	t.Helper()
	var out protocol.Effects
	nodes[0].New[0]().Step(protocol.Start{}, &out)
	v := votedRun{records: protocol.Records{}}
	for _, s := range out.Sends {
		if s.To == who {
			v.prepare = s.Message
		}
	}
	i := slices.IndexFunc(nodes, func(n protocol.Node) bool { return n.ID == who })
	m := nodes[i].New[0]()
	out.Reset()
	m.Step(protocol.Receive{From: nodes[0].ID, Message: v.prepare}, &out)
	for _, w := range out.Writes {
		v.records[w.Key] = w.Record
	}
	if len(v.records) == 0 {
		t.Fatal("nothing is on record")
	}
	return v
}

func TestPaxosCommitSystemsThatCannotBe(t *testing.T) {
	for _, c := range []PaxosCommit{{}, {Participants: 9}, {Participants: 1, F: 4}, {Participants: 1, F: -1}, {Participants: 1, F: 1, Leaders: 4}} {
		if _, err := c.Nodes(); !errors.Is(err, ErrSystem) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestPaxosSites(t *testing.T) {
	nodes, err := PaxosCommit{Participants: 2, F: 1, CoLocated: true}.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	r := runQuietly(t, nodes) // for messages that make sense
	events := []protocol.Event{protocol.Start{}, protocol.Recover{}, protocol.Input{Value: Abandon{}},
		protocol.Expire{Timer: VoteTimer}, protocol.Expire{Timer: ResendTimer}, protocol.Expire{Timer: InquireTimer}, protocol.Expire{Timer: paxos.RetryTimer}}
	e := Electorate{}
	for _, l := range r.mail {
		events = append(events, protocol.Receive{From: l.from, Message: l.message})
		if b, ok := l.message.(Bundle); ok && b.Electorate != nil {
			e = *b.Electorate
		}
	}
	i := instance("t", "p2")
	for _, from := range []protocol.NodeID{"p1", "p2", "a3"} {
		events = append(events,
			protocol.Receive{From: from, Message: InDoubt{ID: "t", Electorate: e, Cast: Cast{Vote: Yes}}},
			protocol.Receive{From: from, Message: Bundle{ID: "t", Electorate: &e, Phase1a: []paxos.Phase1a[Cast]{{Instance: i, Ballot: paxos.Ballot{Round: 1, Node: from}}}}},
			protocol.Receive{From: from, Message: Bundle{ID: "t", Phase1b: []paxos.Phase1b[Cast]{{Instance: i, Ballot: paxos.Ballot{Round: 1, Node: "p1"}}}}},
			protocol.Receive{From: from, Message: Bundle{ID: "t", Refused: []paxos.Refused[Cast]{{Instance: i, Ballot: paxos.Ballot{Round: 1, Node: "p1"}, Promised: paxos.Ballot{Round: 2, Node: "p2"}}}}},
			protocol.Receive{From: from, Message: Bundle{ID: "t", Phase2b: []paxos.Phase2b[Cast]{{Instance: i, Ballot: paxos.Ballot{Round: 1, Node: "p1"}, Value: Cast{Vote: No}}}}},
		)
	}
	c, err := protocol.NewCodec(Types()...)
	if err != nil {
		t.Fatal(err)
	}
	var machines []func() protocol.Machine
	for _, n := range nodes {
		machines = append(machines, n.New[0], n.Anew)
	}
	protocoltest.Run(t, protocoltest.Subject{New: machines, Events: events, Codec: c})
}
