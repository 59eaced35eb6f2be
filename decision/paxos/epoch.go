package paxos

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"assent/protocol"
	"assent/protocol/paxos"
	"assent/protocol/quorum"
)

// Member is a node that keeps a copy of what is decided. One without votes learns only: it is told what
// the others know, and may propose.
type Member struct {
	Node protocol.NodeID
	// Storage names the directory of the node that counts: a node whose directory has another name does
	// not vote. Where it is empty, the first directory counts that the other members have heard of.
	Storage string
	// Votes is the member's weight: more than half of all are a quorum.
	Votes int
	// Place is 0 to MaxMembers-1. It is the node's own among the members of both sets, and stays its own
	// as long as it is a member. Its stamps end in it.
	Place int
	// Since is the number of the epoch with which the storage came, 0 for the founders'. One that has left and
	// comes back, with the same directory even, comes anew: what it holds from the time before is void.
	Since uint64
}

// Epoch is a numbered set of members. Epochs are agreed on elsewhere: two with one number are the same.
type Epoch struct {
	// Number is 1 for the founders; a later epoch has a higher one.
	Number uint64
	// Members are those that decide.
	Members []Member
	// Next is the set that follows, in an epoch of both, of which each must agree (protocol/paxos.Epoch).
	// A node in both has the same Place in both, and the same Storage where both name one.
	Next []Member
}

// ErrEpoch says that an Epoch breaks a rule; the text says which.
var ErrEpoch = errors.New("invalid epoch")

// Founders returns the first epoch of a cluster: each node has one vote, and its place by its name.
func Founders(nodes ...protocol.NodeID) Epoch {
	e := Epoch{Number: 1}
	for i, n := range slices.Sorted(slices.Values(nodes)) {
		e.Members = append(e.Members, Member{Node: n, Votes: 1, Place: i})
	}
	return e
}

// equal reports whether e and o are the same, in whatever order their members are listed.
func (e Epoch) equal(o Epoch) bool {
	same := func(a, b []Member) bool { return slices.Equal(byPlace(a), byPlace(b)) }
	return e.Number == o.Number && same(e.Members, o.Members) && same(e.Next, o.Next)
}

func byPlace(members []Member) []Member {
	return slices.SortedFunc(slices.Values(members), func(a, b Member) int { return a.Place - b.Place })
}

// Validate returns an error that wraps ErrEpoch unless the epoch can be entered.
func (e Epoch) Validate() error {
	if e.Number == 0 {
		return fmt.Errorf("%w: it has no number: the founders' is 1", ErrEpoch)
	}
	places := map[int]Member{}
	for _, m := range e.Members {
		if err := m.validate(); err != nil {
			return fmt.Errorf("%w: epoch %d: %w", ErrEpoch, e.Number, err)
		}
		if was, ok := places[m.Place]; ok {
			return fmt.Errorf("%w: epoch %d: %s and %s have the same place %d", ErrEpoch, e.Number, was.Node, m.Node, m.Place)
		}
		places[m.Place] = m
	}
	for _, m := range e.Next {
		if err := m.validate(); err != nil {
			return fmt.Errorf("%w: epoch %d: %w", ErrEpoch, e.Number, err)
		}
		if was, ok := places[m.Place]; ok && was.Node != m.Node {
			return fmt.Errorf("%w: epoch %d: %s and %s have the same place %d", ErrEpoch, e.Number, was.Node, m.Node, m.Place)
		}
		if err := e.follows(m); err != nil {
			return fmt.Errorf("%w: epoch %d: %w", ErrEpoch, e.Number, err)
		}
		places[m.Place] = m
	}
	for _, s := range e.Acceptors().Joint() {
		if err := s.Validate(); err != nil {
			return fmt.Errorf("%w: epoch %d: %w", ErrEpoch, e.Number, err)
		}
	}
	return nil
}

// follows returns why m cannot stand in Next, or nil.
func (e Epoch) follows(m Member) error {
	seen := 0
	for _, o := range e.Next {
		if o.Node == m.Node || o.Place == m.Place {
			seen++
		}
	}
	if seen > 1 {
		return fmt.Errorf("%s or its place %d stands twice among the next members", m.Node, m.Place)
	}
	was, ok := find(e.Members, m.Node)
	switch {
	case !ok:
		return nil
	case was.Place != m.Place:
		return fmt.Errorf("%s has place %d and then place %d: leave it its place", m.Node, was.Place, m.Place)
	case was.Since != m.Since:
		return fmt.Errorf("%s is a member since epoch %d and since epoch %d: change to members without it first", m.Node, was.Since, m.Since)
	case was.Storage != "" && m.Storage != "" && was.Storage != m.Storage:
		return fmt.Errorf("%s has storage %s and then %s: change to members without it first", m.Node, was.Storage, m.Storage)
	}
	return nil
}

func (m Member) validate() error {
	switch {
	case m.Node == "" || len(m.Node) > maxName:
		return fmt.Errorf("a member's name %.40q has %d bytes: give it 1 to %d", m.Node, len(m.Node), maxName)
	case len(m.Storage) > maxName:
		return fmt.Errorf("the storage of %s has a name of %d bytes: give it at most %d", m.Node, len(m.Storage), maxName)
	case m.Place < 0 || m.Place >= MaxMembers:
		return fmt.Errorf("%s has place %d: give it one of 0 to %d", m.Node, m.Place, MaxMembers-1)
	case m.Votes < 0 || m.Votes > quorum.MaxVotes:
		return fmt.Errorf("%s has %d votes: give it 0 to %d", m.Node, m.Votes, quorum.MaxVotes)
	}
	return nil
}

func find(members []Member, node protocol.NodeID) (Member, bool) {
	for _, m := range members {
		if m.Node == node {
			return m, true
		}
	}
	return Member{}, false
}

// named returns the members of both sets, each once, by place. Where a node is in both, its storage is the
// one that is named, and its votes are the more of the two.
func (e Epoch) named() []Member {
	all := slices.Clone(e.Members)
	for _, m := range e.Next {
		i := slices.IndexFunc(all, func(o Member) bool { return o.Node == m.Node })
		switch {
		case i < 0:
			all = append(all, m)
		default:
			all[i].Storage = cmp.Or(all[i].Storage, m.Storage)
			all[i].Votes = max(all[i].Votes, m.Votes)
		}
	}
	return byPlace(all)
}

// Acceptors returns the epoch as the machines know it: those who vote, and how many suffice.
func (e Epoch) Acceptors() paxos.Epoch {
	x := paxos.Epoch{Number: e.Number, System: majority(e.Members)}
	if len(e.Next) > 0 {
		next := majority(e.Next)
		x.Next = &next
	}
	return x
}

// majority returns the members that vote; more than half of their votes are a quorum.
func majority(members []Member) quorum.System {
	s := quorum.System{}
	for _, m := range members {
		if m.Votes > 0 {
			s.Members = append(s.Members, quorum.Member{Node: m.Node, Votes: m.Votes})
		}
	}
	s.Read = s.Total()/2 + 1
	s.Write = s.Read
	return s
}

func appendEpoch(b []byte, kind byte, e Epoch) []byte {
	b = appendUint(append(appendArray(b, 4), kind), e.Number)
	for _, set := range [][]Member{e.Members, e.Next} {
		b = appendArray(b, len(set))
		for _, m := range set {
			b = appendText(appendText(appendArray(b, 5), m.Node), m.Storage)
			b = appendUint(appendUint(appendUint(b, uint64(m.Votes)), uint64(m.Place)), m.Since)
		}
	}
	return b
}

// epoch reads what appendEpoch made, behind its kind. It can be entered.
func (r *reader) epoch() (e Epoch) {
	e.Number = r.uint()
	e.Members = r.members()
	e.Next = r.members()
	if r.err == nil && e.Validate() != nil {
		r.fail()
	}
	return e
}

func (r *reader) members() (all []Member) {
	for range r.list(MaxMembers) {
		r.array(5)
		m := Member{Node: r.node(), Storage: r.text(maxName)}
		m.Votes = int(r.most(quorum.MaxVotes))
		m.Place = int(r.most(MaxMembers - 1))
		m.Since = r.uint()
		all = append(all, m)
	}
	return all
}
