package commit

import (
	"strings"

	"assent/protocol"
)

// TwoPhaseSite is the first site of the papers' central two-phase commit: it coordinates, and it takes
// part with a branch of its own. The two are the machines that run on nodes of their own elsewhere;
// what they say to each other never leaves the site, and is part of the step that says it.
//
// The site votes last: its own branch is asked to prepare when all others have voted yes. So in two
// phases its vote, the decision and the end of its branch are one step and one forced write, it is
// never in doubt, and its branch does no work for a transaction that another's no has ended.
type TwoPhaseSite struct {
	Self protocol.NodeID
	Head CoordinatorNode
	Own  ParticipantNode
	// Held says that the site's own branch has yet to be asked for its vote.
	Held bool `cbor:",omitempty" json:",omitempty"`
}

// Step routes the event to the parts, and what they say to each other between them.
func (n *TwoPhaseSite) Step(ev protocol.Event, out *protocol.Effects) {
	c := &n.Head.Coordinator
	colocated{n.Self, &n.Head, &n.Own, &n.Held, func() bool {
		return c.State == CoordinatorVoting && allButOneVoted(c.Members, n.Self)
	}}.step(ev, Prepare{ID: c.ID, Peers: c.peers(n.Self)}, out)
}

// Standing returns what the site knows, and where its branch stands.
func (n *TwoPhaseSite) Standing() Standing { return bothStand(n.Own.Standing(), n.Head.Standing()) }

// ThreePhaseSite is the first site of the papers' central three-phase commit, made as TwoPhaseSite is.
type ThreePhaseSite struct {
	Self protocol.NodeID
	Head ThreePhaseCoordinator
	Own  ThreePhaseNode
	// Held says that the site's own branch has yet to be asked for its vote.
	Held bool `cbor:",omitempty" json:",omitempty"`
}

// Step routes the event to the parts, and what they say to each other between them.
func (n *ThreePhaseSite) Step(ev protocol.Event, out *protocol.Effects) {
	c := &n.Head
	colocated{n.Self, &n.Head, &n.Own, &n.Held, func() bool {
		return c.State == CoordinatorVoting && allButOneVoted(c.Members, n.Self)
	}}.step(ev, Prepare{ID: c.ID, Peers: c.nodes()}, out)
}

// Standing returns what the site knows, and where its branch stands.
func (n *ThreePhaseSite) Standing() Standing { return bothStand(n.Own.Standing(), n.Head.Standing()) }

// bothStand is done when the site's own branch is: that the coordinator has others left to tell keeps
// nobody from deciding.
func bothStand(own, head Standing) Standing {
	s := own.Join(head)
	s.Done = own.Done
	return s
}

func allButOneVoted(members []Member, one protocol.NodeID) bool {
	for _, m := range members {
		if m.Vote == NoVote && m.Node != one {
			return false
		}
	}
	return true
}

// headPrefix stands before the keys of the coordinator's records and the names of its timers, apart from
// the participant's.
const headPrefix = "head/"

// colocated is a coordinator and a participant at one site.
type colocated struct {
	self      protocol.NodeID
	head, own protocol.Machine
	held      *bool
	turn      func() bool // it is the site's turn to vote: all others have
}

func (c colocated) step(ev protocol.Event, prepare Prepare, out *protocol.Effects) {
	between := c.give(nil, c.head, ev, out)
	between = c.give(between, c.own, ev, out)
	for {
		for len(between) > 0 {
			s := between[0]
			between = c.give(between[1:], s.to, protocol.Receive{From: c.self, Message: s.message}, out)
		}
		if !*c.held || !c.turn() {
			return
		}
		*c.held = false
		between = c.give(nil, c.own, protocol.Receive{From: c.self, Message: prepare}, out)
	}
}

// said is a message from one part to the other.
type said struct {
	to      protocol.Machine
	message protocol.Message
}

// give has one part take an event, and returns between with what it then says to the other.
func (c colocated) give(between []said, part protocol.Machine, ev protocol.Event, out *protocol.Effects) []said {
	other, prefix := c.head, ""
	if part == c.head {
		other, prefix = c.own, headPrefix
	}
	switch e := ev.(type) {
	case protocol.Recover:
		ev = protocol.Recover{Records: recordsOf(e.Records, prefix)}
	case protocol.Expire:
		timer, ok := ofPart(e.Timer, prefix)
		if !ok {
			return between
		}
		ev = protocol.Expire{Timer: timer}
	}
	var e protocol.Effects
	part.Step(ev, &e)
	for _, w := range e.Writes {
		out.Writes = append(out.Writes, protocol.Write{Key: prefix + w.Key, Record: w.Record})
	}
	for _, t := range e.Timers {
		out.Timers = append(out.Timers, protocol.Timer{Name: prefix + t.Name, After: t.After})
	}
	out.Emits = append(out.Emits, e.Emits...)
	for _, s := range e.Sends {
		_, asks := s.Message.(Prepare)
		switch {
		case s.To != c.self:
			out.Sends = append(out.Sends, s)
		case asks:
			*c.held = true
		default:
			between = append(between, said{other, s.Message})
		}
	}
	return between
}

// ofPart returns the name that the part with a prefix knows, and whether it is the part's.
func ofPart(name, prefix string) (own string, ok bool) {
	own, ofHead := strings.CutPrefix(name, headPrefix)
	return own, ofHead == (prefix != "")
}

// recordsOf returns the records of one part, under the keys that it knows.
func recordsOf(records protocol.Records, prefix string) protocol.Records {
	part := protocol.Records{}
	for key, r := range records {
		if own, ok := ofPart(key, prefix); ok {
			part[own] = r
		}
	}
	return part
}
