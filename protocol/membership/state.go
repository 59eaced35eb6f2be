package membership

import (
	"cmp"
	"fmt"
	"slices"

	"assent/protocol"
	"assent/protocol/paxos"
	"assent/protocol/quorum"
)

// Bounds of a State. They keep a snapshot within what one message holds.
const (
	// MaxMembers is the greatest number of members.
	MaxMembers = 32
	// MaxSettings and MaxResources are the greatest numbers of these.
	MaxSettings  = 256
	MaxResources = 128
	// MaxName bounds names, keys and addresses in bytes, MaxValue a setting's or resource's value.
	MaxName  = 128
	MaxValue = 1024
	// KeptViews is how many of the last views are part of the state, for those who have missed some.
	KeptViews = 32
	// KeptTrail is how many of the last changes that people have asked for are part of the state.
	KeptTrail = 32
	// MaxPlaces is the number of Member.Place's values.
	MaxPlaces = 64
	// maxDeparted is of how many nodes it is remembered that they left on request.
	maxDeparted = 64
)

// Member is a node of the cluster.
type Member struct {
	Node protocol.NodeID
	// Storage is the id of the node's stable storage; empty until it is known, for founders alone.
	Storage string `cbor:",omitempty" json:",omitempty"`
	// Votes is the member's weight, 0 while it only learns. Wanted is the weight that it is to have
	// when it has caught up.
	Votes  int `cbor:",omitempty" json:",omitempty"`
	Wanted int `cbor:",omitempty" json:",omitempty"`
	// Place is a number that no other member has, nor any other node that the registers need: 0 to
	// MaxPlaces - 1. A node keeps it while it is one of these.
	Place int `cbor:",omitempty" json:",omitempty"`
	// Since is, in Registers alone, the epoch with which the member's storage came to them, 0 for the
	// founders'.
	Since uint64 `cbor:",omitempty" json:",omitempty"`
	// Founder says that the node is one of the founders, and has not joined since with another storage.
	Founder bool `cbor:",omitempty" json:",omitempty"`
	// Address is where other nodes reach it, API where clients do.
	Address string `cbor:",omitempty" json:",omitempty"`
	API     string `cbor:",omitempty" json:",omitempty"`
}

// Voter is what a view says of a member.
type Voter struct {
	Node    protocol.NodeID
	Storage string `cbor:",omitempty" json:",omitempty"`
	Votes   int    `cbor:",omitempty" json:",omitempty"`
}

// View is an agreed membership. Views are numbered from 1 without gaps, and every node that is a member
// sees the same ones in the same order.
type View struct {
	Number uint64
	// Members are sorted by node. Those without votes learn.
	Members []Voter
}

// Quorums returns the majorities of the view's votes.
func (v View) Quorums() quorum.System {
	var s quorum.System
	for _, m := range v.Members {
		if m.Votes > 0 {
			s.Members = append(s.Members, quorum.Member{Node: m.Node, Votes: m.Votes})
		}
	}
	s.Read = s.Total()/2 + 1
	s.Write = s.Read
	return s
}

// Has reports whether a node is a member.
func (v View) Has(n protocol.NodeID) bool {
	return slices.ContainsFunc(v.Members, func(m Voter) bool { return m.Node == n })
}

// configuration returns the view as the log has it.
func (v View) configuration() paxos.Configuration {
	c := paxos.Configuration{Number: v.Number, System: v.Quorums()}
	for _, m := range v.Members {
		switch {
		case m.Votes == 0:
			c.Learners = append(c.Learners, m.Node)
		case m.Storage != "":
			c.Storages = append(c.Storages, paxos.Storage{Node: m.Node, ID: m.Storage})
		}
	}
	return c
}

// Resource is a resource that the cluster's nodes know. What Settings means is its adapter's to say;
// secrets do not belong there.
type Resource struct {
	Name, Kind string
	Settings   string `cbor:",omitempty" json:",omitempty"`
}

// Setting is a key of the cluster's configuration with its value.
type Setting struct{ Key, Value string }

// Session is the last change of a node that was applied or refused, so that none is applied twice, or after
// all.
type Session struct {
	Node    protocol.NodeID
	Storage string `cbor:",omitempty" json:",omitempty"`
	Number  uint64
	// Refused says why it was refused; it is empty where it was applied.
	Refused string `cbor:",omitempty" json:",omitempty"`
}

// Noted is a change that a person has asked for, with the state's epoch after it.
type Noted struct {
	Epoch  uint64
	Change Change
}

// Registers is whose the decisions' registers are. They follow the views: an epoch of Members alone, one in which
// Next must agree as well, one of what was Next alone (paxos.Epoch).
type Registers struct {
	// Number is the epoch's, from 1.
	Number uint64
	// Members and Next are sorted by node. Where a storage is empty it was not known when the epoch began.
	Members []Member
	Next    []Member `cbor:",omitempty" json:",omitempty"`
}

// enter returns the members as those who are to follow in the epoch of that number: each since when the registers
// have counted on its storage without a break.
func (r Registers) enter(number uint64, next []Member) []Member {
	for i := range next {
		next[i].Since = number
		for _, was := range r.Members {
			if was.Node == next[i].Node && next[i].succeeds(was) {
				next[i].Since = was.Since
			}
		}
	}
	return next
}

// needs reports whether the node is one whose part in the registers is not over.
func (r Registers) needs(n protocol.NodeID) bool {
	is := func(m Member) bool { return m.Node == n }
	return slices.ContainsFunc(r.Members, is) || slices.ContainsFunc(r.Next, is)
}

// State is what the cluster agrees on about itself. It is a function of the log. Its slices are never
// changed in place, so copies may share them.
type State struct {
	// Cluster is the cluster's name with whatever makes it unique, settled when it is founded.
	Cluster string
	// Epoch counts the changes that were applied, from 1. Barriers change nothing and do not count.
	Epoch uint64
	View  View
	// Views are the last ones, the present one included.
	Views     []View
	Members   []Member // sorted by node
	Registers Registers
	Resources []Resource `cbor:",omitempty" json:",omitempty"` // sorted by name
	Settings  []Setting  `cbor:",omitempty" json:",omitempty"` // sorted by key
	// Departed left on request: they do not come back by themselves.
	Departed []paxos.Storage `cbor:",omitempty" json:",omitempty"`
	Sessions []Session       `cbor:",omitempty" json:",omitempty"`
	// Trail are the last changes that people have asked for, oldest first.
	Trail []Noted `cbor:",omitempty" json:",omitempty"`
}

// Found returns the state in which a cluster begins: all founders vote. They must all be given the same
// one. Votes default to 1. It fails on founders that cannot be, saying why.
func Found(cluster string, founders ...Member) (State, error) {
	s := State{Cluster: cluster, Epoch: 1}
	for _, m := range founders {
		m.Votes = max(m.Votes, 1)
		m.Wanted = m.Votes
		s.Members = append(s.Members, m)
	}
	slices.SortFunc(s.Members, compareMembers)
	for i := range s.Members {
		s.Members[i].Place, s.Members[i].Founder = i, true
	}
	s.Registers = Registers{Number: 1, Members: s.Members}
	s.install(View{Number: 1})
	if why := s.bounds(); why != "" {
		return State{}, fmt.Errorf("%w: %s", ErrInvalid, why)
	}
	return s, nil
}

func compareMembers(a, b Member) int { return cmp.Compare(a.Node, b.Node) }

// install makes the members a view with v's number.
func (s *State) install(v View) {
	v.Members = nil
	for _, m := range s.Members {
		v.Members = append(v.Members, Voter{Node: m.Node, Storage: m.Storage, Votes: m.Votes})
	}
	s.View = v
	s.Views = append(slices.Clone(s.Views[max(0, len(s.Views)+1-KeptViews):]), v)
}

// bounds says what is wrong with the members, or "".
func (s *State) bounds() string {
	if len(s.Members) > MaxMembers {
		return fmt.Sprintf("%d members: at most %d are possible", len(s.Members), MaxMembers)
	}
	for _, m := range s.Members {
		if len(m.Node) > MaxName || len(m.Storage) > MaxName || len(m.Address) > MaxName || len(m.API) > MaxName {
			return fmt.Sprintf("the names and addresses of %.20s are too long: at most %d bytes are allowed", m.Node, MaxName)
		}
	}
	if err := s.View.Quorums().Validate(); err != nil {
		return err.Error()
	}
	return ""
}

// Trails reports whether the registers are not yet, or not only, those of the present members. That storages have
// become known is no difference.
func (s *State) Trails() bool {
	same := func(was, is Member) bool {
		return was.Node == is.Node && was.Votes == is.Votes && was.Place == is.Place && is.succeeds(was)
	}
	return s.Registers.Next != nil || !slices.EqualFunc(s.Registers.Members, s.Members, same)
}

// succeeds reports whether the member has the storage that it had, which may not have been known.
func (m Member) succeeds(was Member) bool {
	return was.Storage == m.Storage || was.Storage == "" && m.Founder
}

// following returns the members that the registers are to have next: those who have lost a storage that the
// registers still count on are left out first, so that no acceptor is ever taken for its successor.
func (s *State) following() []Member {
	return slices.DeleteFunc(slices.Clone(s.Members), func(m Member) bool {
		return slices.ContainsFunc(s.Registers.Members, func(was Member) bool { return was.Node == m.Node && !m.succeeds(was) })
	})
}

// freePlace returns the place for a node, or false where all are taken.
func (s *State) freePlace(node protocol.NodeID) (place int, ok bool) {
	var taken [MaxPlaces]bool
	for _, m := range slices.Concat(s.Members, s.Registers.Members, s.Registers.Next) {
		if m.Node == node {
			return m.Place, true
		}
		taken[m.Place] = true
	}
	place = slices.Index(taken[:], false)
	return place, place >= 0
}

// HasLeft reports whether the node has left on request, with that storage.
func (s *State) HasLeft(n protocol.NodeID, storage string) bool {
	return slices.Contains(s.Departed, paxos.Storage{Node: n, ID: storage})
}

// Member returns a member.
func (s *State) Member(n protocol.NodeID) (Member, bool) {
	i, found := s.place(n)
	if !found {
		return Member{}, false
	}
	return s.Members[i], true
}

func (s *State) place(n protocol.NodeID) (int, bool) {
	return slices.BinarySearchFunc(s.Members, n, func(m Member, n protocol.NodeID) int { return cmp.Compare(m.Node, n) })
}

// Setting returns the value of a key of the configuration.
func (s *State) Setting(key string) (value string, ok bool) {
	i := slices.IndexFunc(s.Settings, func(x Setting) bool { return x.Key == key })
	if i < 0 {
		return "", false
	}
	return s.Settings[i].Value, true
}
