package membership

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"assent/protocol"
	"assent/protocol/paxos"
	"assent/protocol/quorum"
)

// ErrInvalid says that a cluster cannot be founded so; the text says why.
var ErrInvalid = errors.New("invalid membership")

// Kind says what a change does.
type Kind uint8

// The kinds.
const (
	// Barrier changes nothing. When it is answered, the state that the asker has seen is no older
	// than when it asked.
	Barrier Kind = iota
	// Join makes Node a member that learns; it votes when it has caught up. A member that comes with
	// another storage is one that has lost its disk: it learns again.
	Join
	// Weigh gives Node so many Votes.
	Weigh
	// Leave makes Node a member no more, because it, or a person, has said so.
	Leave
	// Exclude does the same because Node is suspected to have failed.
	Exclude
	// Identify notes the storages of founders.
	Identify
	// Readdress notes where Node is reached.
	Readdress
	// Set gives Key a Value, Unset removes it.
	Set
	Unset
	// Register notes a Resource, under its name; Unregister drops the one named Key.
	Register
	Unregister
	// Regroup begins the registers' next epoch: of the old and the present members, or, where they are in
	// such a one, of the new members alone.
	Regroup
	// Void refuses the change of that By, Storage and Number, for Reason: it makes a view in which nobody
	// changes, so that no copy of that change, made for the same view, is ever applied.
	Void
)

var kindNames = [...]string{"barrier", "join", "weigh", "leave", "exclude", "identify", "readdress", "set", "unset", "register", "unregister", "regroup", "void"}

// String returns the kind's name.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "invalid"
}

// MarshalText returns the kind's name.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText sets k from its name. It fails on any other text.
func (k *Kind) UnmarshalText(text []byte) error { return named(kindNames[:], text, k) }

// ofView reports whether a change of this kind makes a view.
func (k Kind) ofView() bool { return k >= Join && k <= Identify || k == Void }

// Change is what the log's entries hold.
type Change struct {
	// By, Storage and Number name the change: a node numbers what it asks for, upwards. The node's own
	// machine sets them.
	By      protocol.NodeID
	Storage string `cbor:",omitempty" json:",omitempty"`
	Number  uint64
	Kind    Kind
	// Epoch, if it is not 0, must be the state's for the change to be applied: compare and set. It is
	// for Set, Unset, Register and Unregister.
	Epoch uint64 `cbor:",omitempty" json:",omitempty"`
	// Node is whom the change is about.
	Node protocol.NodeID `cbor:",omitempty" json:",omitempty"`
	// Member is given with Join and Readdress. Its Node and Votes are not looked at.
	Member Member `cbor:",omitempty" json:",omitempty"`
	Votes  int    `cbor:",omitempty" json:",omitempty"`
	// Storages are given with Identify.
	Storages   []paxos.Storage `cbor:",omitempty" json:",omitempty"`
	Key, Value string          `cbor:",omitempty" json:",omitempty"`
	Resource   *Resource       `cbor:",omitempty" json:",omitempty"`
	// Operator is the person who asks for the change, Reason why, and Time when, in milliseconds since
	// 1970 by the clock of the node that was asked. What a person asks for is kept in State.Trail.
	Operator string `cbor:",omitempty" json:",omitempty"`
	Reason   string `cbor:",omitempty" json:",omitempty"`
	Time     int64  `cbor:",omitempty" json:",omitempty"`
	// Registers is the number of the epoch that a Regroup begins.
	Registers uint64 `cbor:",omitempty" json:",omitempty"`
}

// settled reports whether the change was applied or refused, and why it was refused; or whether it was
// overtaken by a later one of the same node, and so never will be applied unless it was.
func (s *State) settled(c Change) (why string, ok bool) {
	i := slices.IndexFunc(s.Sessions, func(x Session) bool {
		return x.Node == c.By && x.Storage == c.Storage && x.Number >= c.Number
	})
	if i < 0 || s.Sessions[i].Number > c.Number {
		return "", i >= 0
	}
	return s.Sessions[i].Refused, true
}

// apply takes an entry of the log. It returns why the entry changes nothing, or "". What makes a view is
// applied if and only if its configuration follows the one in force, because then that configuration
// reigns, whatever the rest of the change says.
func (s *State) apply(e paxos.Entry[Change]) (why string) {
	c := e.Value
	_, settled := s.settled(c)
	switch {
	case e.Kind == paxos.NoOp:
		return ""
	case e.Kind == paxos.Reconfiguration:
		if e.Configuration == nil || e.Configuration.Number != s.View.Number+1 {
			return "another change of members came first"
		}
		s.reform(c)
		s.install(View{Number: s.View.Number + 1})
		if s.Epoch++; c.Kind == Void {
			why = c.Reason
		}
		s.note(c, why)
		return why
	case settled:
		return "another copy of it came first"
	default:
		why = s.alter(c)
	}
	if why == "" && c.Kind != Barrier {
		s.Epoch++
	}
	s.note(c, why)
	return why
}

// note remembers what has become of a change: a copy of it that comes later must not become anything else, nor
// one of a change that came after it. Of nodes that are gone it is forgotten in the end.
func (s *State) note(c Change, refused string) {
	if _, overtaken := s.settled(c); !overtaken {
		sessions := slices.DeleteFunc(slices.Clone(s.Sessions), func(x Session) bool { return x.Node == c.By && x.Storage == c.Storage })
		s.Sessions = append(sessions[max(0, len(sessions)+1-2*MaxMembers):], Session{Node: c.By, Storage: c.Storage, Number: c.Number, Refused: refused})
	}
	if refused == "" && c.Operator != "" {
		s.Trail = append(slices.Clone(s.Trail[max(0, len(s.Trail)+1-KeptTrail):]), Noted{Epoch: s.Epoch, Change: c})
	}
}

// reform changes the members as a change of view says.
func (s *State) reform(c Change) {
	s.Members = slices.Clone(s.Members)
	i, found := s.place(c.Node)
	switch c.Kind {
	case Join:
		m := c.Member
		m.Node, m.Votes, m.Founder = c.Node, 0, false
		m.Place, _ = s.freePlace(c.Node)
		s.Departed = slices.DeleteFunc(slices.Clone(s.Departed), func(d paxos.Storage) bool { return d.Node == c.Node })
		if found { // it has lost its storage, not its weight
			m.Wanted = s.Members[i].Wanted
			s.Members[i] = m
		} else {
			s.Members = slices.Insert(s.Members, i, m)
		}
	case Weigh:
		if found {
			s.Members[i].Votes, s.Members[i].Wanted = c.Votes, c.Votes
		}
	case Leave, Exclude:
		if found {
			if c.Kind == Leave {
				s.Departed = append(slices.Clone(s.Departed[max(0, len(s.Departed)+1-maxDeparted):]),
					paxos.Storage{Node: c.Node, ID: s.Members[i].Storage})
			}
			s.Members = slices.Delete(s.Members, i, i+1)
		}
	case Identify:
		for _, x := range c.Storages {
			if i, found := s.place(x.Node); found && s.Members[i].Storage == "" {
				s.Members[i].Storage = x.ID
			}
		}
	}
}

// alter changes what is not a view. It returns why it cannot, or "".
func (s *State) alter(c Change) (why string) {
	if c.Epoch != 0 && c.Epoch != s.Epoch {
		return fmt.Sprintf("the state is at epoch %d, not %d: look again", s.Epoch, c.Epoch)
	}
	switch c.Kind {
	case Readdress:
		i, found := s.place(c.Node)
		if !found {
			return fmt.Sprintf("%s is no member", c.Node)
		}
		s.Members = slices.Clone(s.Members)
		s.Members[i].Address, s.Members[i].API = c.Member.Address, c.Member.API
	case Set:
		if _, there := s.Setting(c.Key); !there && len(s.Settings) >= MaxSettings {
			return fmt.Sprintf("there are %d settings, as many as are possible", MaxSettings)
		}
		s.Settings = put(s.Settings, Setting{c.Key, c.Value}, func(x Setting) string { return x.Key })
	case Unset:
		s.Settings = drop(s.Settings, c.Key, func(x Setting) string { return x.Key })
	case Register:
		there := slices.ContainsFunc(s.Resources, func(x Resource) bool { return x.Name == c.Resource.Name })
		if !there && len(s.Resources) >= MaxResources {
			return fmt.Sprintf("there are %d resources, as many as are possible", MaxResources)
		}
		s.Resources = put(s.Resources, *c.Resource, func(x Resource) string { return x.Name })
	case Unregister:
		s.Resources = drop(s.Resources, c.Key, func(x Resource) string { return x.Name })
	case Regroup:
		return s.regroup(c.Registers)
	}
	return ""
}

// regroup begins the registers' epoch of that number. It returns why it cannot, or "".
func (s *State) regroup(number uint64) (why string) {
	r, next := s.Registers, s.following()
	switch {
	case number != r.Number+1:
		return fmt.Sprintf("the registers are in epoch %d", r.Number)
	case !s.Trails():
		return "the registers are those of the members already"
	case r.Next != nil:
		s.Registers = Registers{Number: number, Members: r.Next}
	case !slices.ContainsFunc(next, func(m Member) bool { return m.Votes > 0 }):
		return "no votes would be left"
	default:
		s.Registers = Registers{Number: number, Members: r.Members, Next: r.enter(number, next)}
	}
	return ""
}

// put returns all with x in its place, by key.
func put[T any](all []T, x T, key func(T) string) []T {
	i, found := slices.BinarySearchFunc(all, key(x), func(y T, k string) int { return cmp.Compare(key(y), k) })
	all = slices.Clone(all)
	if found {
		all[i] = x
		return all
	}
	return slices.Insert(all, i, x)
}

func drop[T any](all []T, k string, key func(T) string) []T {
	return slices.DeleteFunc(slices.Clone(all), func(x T) bool { return key(x) == k })
}

// entry returns what is to be chosen for a change.
func (s *State) entry(c Change) paxos.Entry[Change] {
	e := paxos.Entry[Change]{Kind: paxos.Command, Value: c}
	if c.Kind.ofView() {
		next := *s
		next.reform(c)
		next.install(View{Number: s.View.Number + 1})
		configuration := next.View.configuration()
		e.Kind, e.Configuration = paxos.Reconfiguration, &configuration
	}
	return e
}

// Judge says why a change must not be tried in this state, or "". Answers says who of the members answers:
// a change that leaves too few of them to agree on anything is refused, because it could not be undone.
func (s *State) Judge(c Change, answers func(protocol.NodeID) bool) (why string) {
	if why := c.wrong(); why != "" || !c.Kind.ofView() {
		return why
	}
	m, member := s.Member(c.Node)
	switch {
	case c.Kind == Void:
		return ""
	case !member && c.Kind != Join && c.Kind != Identify:
		return fmt.Sprintf("%s is no member", c.Node)
	case c.Kind == Join && member && m.Storage == c.Member.Storage:
		return fmt.Sprintf("%s is a member already", c.Node)
	case c.Kind == Join && s.full(c.Node):
		return fmt.Sprintf("%d nodes are members, or were and are needed still: try again later", MaxPlaces)
	case c.Kind == Join && s.HasLeft(c.Node, c.Member.Storage):
		return fmt.Sprintf("%s has left on request: to have it back, let it begin with an empty directory", c.Node)
	case c.Kind == Weigh && m.Votes == c.Votes:
		return fmt.Sprintf("%s has %d votes already", c.Node, c.Votes)
	case c.Kind == Weigh && m.Votes == 0 && !answers(c.Node):
		return fmt.Sprintf("%s does not answer: a vote that is never given only makes agreement harder", c.Node)
	}
	next := *s
	next.reform(c)
	next.install(View{Number: s.View.Number + 1})
	if why := next.bounds(); why != "" {
		return why
	}
	tally := next.View.Quorums().WriteTally(func(n protocol.NodeID) quorum.Answer {
		if answers(n) {
			return quorum.Granted
		}
		return quorum.Unreachable
	})
	if tally.Verdict() != quorum.Reached {
		return "too few would be left who answer: " + tally.String()
	}
	if !next.led() {
		return fmt.Sprintf("the registers move, in epoch %d, and nobody would be left to vote who has a part in that: wait until they have moved", s.Registers.Number)
	}
	return ""
}

// led reports whether somebody may lead: while the registers move, a voter who has a part in them.
func (s *State) led() bool {
	return s.Registers.Next == nil || slices.ContainsFunc(s.View.Members, func(v Voter) bool { return v.Votes > 0 && s.Registers.needs(v.Node) })
}

// full reports whether there is no place for the node.
func (s *State) full(node protocol.NodeID) bool {
	_, ok := s.freePlace(node)
	return !ok
}

// wrong says what is wrong with the change itself, which is so in every state and for every leader, or "". What
// depends on the state is looked at where a change is applied, in the log's order, or made void there (Void): a copy
// of it that was refused elsewhere could still be chosen.
func (c Change) wrong() (why string) {
	switch {
	case len(c.Operator) > MaxName || len(c.Reason) > MaxValue:
		return fmt.Sprintf("the name of who asks has at most %d bytes, the reason %d", MaxName, MaxValue)
	case len(c.Key) > MaxName || len(c.Value) > MaxValue || len(c.Member.Address) > MaxName || len(c.Member.API) > MaxName:
		return fmt.Sprintf("names and addresses have at most %d bytes, values %d", MaxName, MaxValue)
	case c.Kind > Void:
		return "there is no such change"
	case c.Node == "" && c.Kind >= Join && c.Kind <= Exclude:
		return "it names no node"
	case c.Kind == Join && c.Member.Storage == "":
		return fmt.Sprintf("%s does not name its storage", c.Node)
	case c.Kind == Join && (c.Member.Wanted < 0 || c.Member.Wanted > quorum.MaxVotes),
		c.Kind == Weigh && (c.Votes < 0 || c.Votes > quorum.MaxVotes):
		return fmt.Sprintf("a member has 0 to %d votes", quorum.MaxVotes)
	case (c.Kind == Set || c.Kind == Unset || c.Kind == Unregister) && c.Key == "":
		return "it names no key"
	case c.Kind == Register && (c.Resource == nil || c.Resource.Name == ""):
		return "it names no resource"
	case c.Kind == Register && (len(c.Resource.Name) > MaxName || len(c.Resource.Kind) > MaxName || len(c.Resource.Settings) > MaxValue):
		return fmt.Sprintf("a resource's name and kind have at most %d bytes, its settings %d", MaxName, MaxValue)
	}
	return ""
}

// void returns the change that refuses c for good.
func (c Change) void(why string) Change {
	why = strings.ToValidUTF8(why[:min(len(why), MaxValue)], "")
	return Change{By: c.By, Storage: c.Storage, Number: c.Number, Kind: Void, Node: c.Node, Reason: why}
}
