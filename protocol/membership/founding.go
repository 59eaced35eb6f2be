package membership

import (
	"slices"

	"assent/protocol"
	"assent/protocol/paxos"
	"assent/protocol/quorum"
)

// A founder with an empty storage may be one of a cluster that begins, or one that has lost the storage on which
// it has promised and accepted. The others tell: each writes down, once and for ever, the first storage that it
// meets of each founder. Who has been met by more than half of the others' votes is what it was in the
// beginning, for any two such halves have a node in common, and that has met one storage only.

// show asks the others whether they have met another storage of this node.
func (n *Node) show(out *protocol.Effects) {
	if !n.Life.Blank {
		return
	}
	for _, m := range n.State.View.Members {
		if m.Node != n.Self.Node && !slices.Contains(n.Welcomes, m.Node) {
			out.Send(m.Node, Meet{Storage: n.Self.Storage})
		}
	}
}

// meet answers a founder with the storage that is known to be its: the first that was met.
func (n *Node) meet(from protocol.NodeID, storage string, out *protocol.Effects) {
	if n.State.View.Number == 0 {
		return // a node that joins knows of nobody yet
	}
	known := ""
	if m, ok := n.State.Member(from); ok {
		known = m.Storage
		if i := slices.IndexFunc(n.Met, func(s paxos.Storage) bool { return s.Node == from }); known == "" && i >= 0 {
			known = n.Met[i].ID
		}
		if known == "" {
			known = storage
			n.Met = append(slices.Clone(n.Met), paxos.Storage{Node: from, ID: storage})
			out.Put(MetKey, MetRecord{Storages: n.Met})
		}
	}
	out.Send(from, Met{Storage: known})
}

// metBy counts those who have met this storage and no other. A node of whom another was met joins, as its own
// successor.
func (n *Node) metBy(from protocol.NodeID, storage string, out *protocol.Effects) {
	if !n.Life.Blank || n.Told == 0 { // it has not begun
		return
	}
	if storage != n.Self.Storage {
		n.Life.Blank, n.Life.Founder, n.Welcomes = false, false, nil
		out.Put(LifeKey, n.Life)
		n.say(out)
		return
	}
	if !slices.Contains(n.Welcomes, from) {
		n.Welcomes = append(slices.Clone(n.Welcomes), from)
	}
	welcome := n.welcome()
	if 2*welcome.For <= welcome.Total {
		return
	}
	n.Life.Blank, n.Welcomes = false, nil
	out.Put(LifeKey, n.Life)
	n.log(protocol.Input{Value: paxos.Swear[Change]{}}, out)
	if n.voter() {
		n.Elector.Step(protocol.Start{}, out)
	}
}

// welcome counts the others' votes that have met this storage.
func (n *Node) welcome() quorum.Tally {
	others := n.State.View.Quorums()
	others.Members = slices.DeleteFunc(others.Members, func(m quorum.Member) bool { return m.Node == n.Self.Node })
	return others.WriteTally(func(node protocol.NodeID) quorum.Answer {
		if slices.Contains(n.Welcomes, node) {
			return quorum.Granted
		}
		return quorum.Silent
	})
}

// WhyLost is the reason of a node that has stopped, as LifeRecord.Lost says.
const WhyLost = "it has founded a cluster alone, with nothing on disk, and there is one already of which it is a member: " +
	"empty its directory, and start it with the addresses of members to ask to let it join"

// Alone reports whether the state is that of a founder of one whom nobody has ever joined.
func (s *State) Alone() bool {
	return len(s.Views) > 0 && s.Views[0].Number == 1 && !slices.ContainsFunc(s.Views, func(v View) bool { return len(v.Members) != 1 })
}

// contradicts reports whether a message shows a founder of one that it is a member of a cluster of more. Nodes that are not
// let in say nothing to it but what they ask for (hush), or pass on what others do. The node stops then: what it decides
// alone the others may have decided otherwise.
func (n *Node) contradicts(ev protocol.Receive, out *protocol.Effects) bool {
	if !n.Life.Founder || !n.State.Alone() || n.State.View.Has(ev.From) || n.admits() {
		return false
	}
	switch ev.Message.(type) {
	case paxos.Fetch[Change], Request:
		return false
	}
	n.Life.Lost = true
	out.Put(LifeKey, n.Life)
	n.log(protocol.Input{Value: paxos.Follow[Change]{}}, out)
	n.say(out)
	return true
}

// admits reports whether there is a change on record by which another is let in: after a restart the node does not know
// what stands of that until it leads.
func (n *Node) admits() bool {
	return slices.ContainsFunc(n.Log.Log, func(s paxos.SlotRecord[Change]) bool {
		c := s.Entry.Configuration
		return c != nil && (len(c.Learners) > 0 || len(c.System.Members) > 1)
	})
}

// hush holds back whatever a founder of one would take for a contradiction, as long as this node is not let in: it may
// know who leads, or the state, before.
func (n *Node) hush(out *protocol.Effects) {
	if n.member() || n.State.View.Number > 0 && !n.State.Alone() {
		return
	}
	out.Sends = slices.DeleteFunc(out.Sends, func(s protocol.Send) bool {
		switch s.Message.(type) {
		case paxos.Fetch[Change], Request:
			return false
		}
		return true
	})
}
