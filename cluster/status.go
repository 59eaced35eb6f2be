package cluster

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"assent/decision/paxos"
	"assent/protocol"
	"assent/protocol/membership"
	"assent/protocol/quorum"
	"assent/transport"
)

// Status is how the cluster stands, as this node sees it.
type Status struct {
	Cluster string          `json:"cluster"`
	Self    protocol.NodeID `json:"self"`
	// Leader is whom this node follows; empty where it knows of none. Role is what this node does
	// itself: "leading", "following", "electing" or "waiting", or "joining" where it is not let in yet.
	Leader protocol.NodeID `json:"leader,omitempty"`
	Role   string          `json:"role"`
	// View says which members there are, by which view and in which epoch of the state, and who leads what
	// they agree on about themselves; or why this node is not one of them.
	View string `json:"view"`
	// Epoch is the state's, as far as this node knows.
	Epoch uint64 `json:"epoch"`
	// Primary says that this node is on the side that can change the state, and Why says why not.
	Primary bool   `json:"primary"`
	Why     string `json:"why,omitempty"`
	// Registers says whose the decisions' registers are where they do not follow the members yet.
	Registers string `json:"registers,omitempty"`
	// Retired says that the node has left, and that the others can do without it.
	Retired bool `json:"retired,omitempty"`
	// Quorum counts the votes of those that this node reaches: "2 of 3 votes, 2 needed: c unreachable".
	// Decides says that they suffice, or that they are not needed.
	Quorum  string `json:"quorum"`
	Decides bool   `json:"decides"`
	// Log says what keeps the decisions, and how this node's part of it is.
	Log     string         `json:"log"`
	Members []MemberStatus `json:"members"`
}

// MemberStatus is what this node believes of a member.
type MemberStatus struct {
	Node  protocol.NodeID `json:"node"`
	Votes int             `json:"votes"`
	// Learns says of a member without a vote how far it is: "learns, 12 changes behind".
	Learns  string `json:"learns,omitempty"`
	Address string `json:"address"`
	API     string `json:"api,omitempty"`
	// State is "this node", "up", "suspected", "leaving" or "not heard of yet".
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// Suspicion is how suspicious its silence is; at 1 it is suspected.
	Suspicion float64 `json:"suspicion"`
	// Link is the network to it, and Words says it in words; both are empty for this node.
	Link  *transport.PeerStatus `json:"link,omitempty"`
	Words string                `json:"words,omitempty"`
	// Log is how its part of the log is, as far as this node knows: what it lags behind, say.
	Log      string `json:"log,omitempty"`
	Software string `json:"software,omitempty"`
}

// Status returns how the cluster stands now.
func (n *Node) Status() Status {
	now := time.Now()
	l := n.life.Load()
	state, m := l.machine.state(), l.machine.status()
	leader, role := l.machine.leader()
	s := Status{
		Cluster: n.cfg.Name, Self: n.cfg.Self, Leader: leader, Role: role.String(),
		Epoch: state.Epoch, Primary: m.Primary, Why: m.Why, Retired: l.machine.retired(),
	}
	if s.View = viewInWords(state, m); state.View.Number == 0 {
		what, _ := n.Joining()
		s.Role, s.View = "joining", "not known yet: this node "+what
	}
	n.describeRegisters(&s, state)
	links := map[protocol.NodeID]transport.PeerStatus{}
	for _, l := range n.mesh.Status() {
		links[l.Node] = l
	}
	for _, member := range state.Members {
		x := MemberStatus{Node: member.Node, Votes: member.Votes, Address: member.Address, API: member.API}
		if member.Votes == 0 {
			x.Learns = learns(member.Node, m)
		}
		if member.Node == n.cfg.Self {
			x.State, x.Since, x.Software = "this node", n.started, n.cfg.Software
			n.mu.Lock()
			if n.leaving {
				x.State = "this node, leaving"
			}
			n.mu.Unlock()
		} else {
			n.describe(&x, links[member.Node], now)
		}
		s.Members = append(s.Members, x)
	}
	s.Quorum, s.Decides = n.Decides()
	if n.cfg.Log != nil {
		s.Quorum, s.Decides = "decisions need none of the nodes' votes; "+s.Quorum, true
	}
	n.describeLog(&s)
	return s
}

// viewInWords says who the members are and who leads them.
func viewInWords(s membership.State, m membership.Status) string {
	switch {
	case m.Leader == "":
		return fmt.Sprintf("%s; view %d, epoch %d, %s", wordsOfView(s.View), s.View.Number, s.Epoch, m.Why)
	case !m.Member:
		return fmt.Sprintf("%s; view %d, epoch %d, led by %s; this node is none", wordsOfView(s.View), s.View.Number, s.Epoch, m.Leader)
	}
	return fmt.Sprintf("%s; view %d, epoch %d, led by %s", wordsOfView(s.View), s.View.Number, s.Epoch, m.Leader)
}

// wordsOfView names the members of a view: "a, b (2 votes) and c (learns)".
func wordsOfView(v membership.View) string {
	var all []protocol.NodeID
	for _, m := range v.Members {
		switch m.Votes {
		case 0:
			m.Node += " (learns)"
		case 1:
		default:
			m.Node += protocol.NodeID(fmt.Sprintf(" (%d votes)", m.Votes))
		}
		all = append(all, m.Node)
	}
	return words(all)
}

// learns says how far a member is that has no vote. Only the leader knows.
func learns(node protocol.NodeID, s membership.Status) string {
	for _, p := range s.Peers {
		if p.Node == node && p.Chosen > 0 && p.Chosen < s.Chosen {
			return fmt.Sprintf("learns, %d changes behind", s.Chosen-p.Chosen)
		}
	}
	return "learns"
}

// describeRegisters says whether the registers are on the way to other members.
func (n *Node) describeRegisters(s *Status, state membership.State) {
	if r := state.Registers; state.Trails() {
		s.Registers = fmt.Sprintf("epoch %d, of %s", r.Number, words(nodesOf(r.Members)))
		if r.Next != nil {
			s.Registers += "; on the way to " + words(nodesOf(r.Next))
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.moving != "" {
			s.Registers += ": " + n.moving
		}
	}
}

// Decides reports whether this node reaches enough members that vote for anything to be decided, and counts
// their votes in words: "2 of 3 votes, 2 needed: c unreachable".
func (n *Node) Decides() (count string, enough bool) {
	own := n.register()
	var systems []quorum.System
	switch {
	case own != nil:
		e := own.Epoch()
		systems = append(systems, majority(e.Members))
		if e.Next != nil {
			systems = append(systems, majority(e.Next))
		}
	case n.cfg.Log == nil:
		return "this node has no part in the log yet: " + cmp.Or(n.life.Load().machine.status().Why, "the others are to let it in"), false
	default:
		systems = append(systems, n.State().View.Quorums())
	}
	why := n.wanting(own)
	enough = true
	for i, s := range systems {
		text, ok := inWords(s, why)
		if i > 0 {
			text = "; and of the next members " + text
		}
		count, enough = count+text, enough && ok
	}
	return count, enough
}

// majority returns the members that vote, with majorities as quorums.
func majority(members []paxos.Member) quorum.System {
	var v membership.View
	for _, m := range members {
		v.Members = append(v.Members, membership.Voter{Node: m.Node, Votes: m.Votes})
	}
	return v.Quorums()
}

// inWords counts the votes of a system, and says whether they suffice, of which those in why are wanting.
func inWords(system quorum.System, why map[protocol.NodeID]string) (count string, enough bool) {
	tally := system.WriteTally(func(node protocol.NodeID) quorum.Answer {
		if why[node] == "" {
			return quorum.Granted
		}
		return quorum.Silent
	})
	count = fmt.Sprintf("%d of %d votes, %d needed", tally.For, tally.Total, tally.Needed)
	separator := ": "
	reasons := slices.Sorted(maps.Values(why))
	for _, reason := range slices.Compact(reasons) {
		var nodes []protocol.NodeID
		for _, m := range system.Members {
			if why[m.Node] == reason {
				nodes = append(nodes, m.Node)
			}
		}
		if len(nodes) > 0 {
			count += separator + words(nodes) + " " + reason
			separator = ", "
		}
	}
	return count, tally.Verdict() == quorum.Reached
}

// wanting says why nodes give no vote as far as this node knows.
func (n *Node) wanting(own *paxos.Log) map[protocol.NodeID]string {
	why := map[protocol.NodeID]string{}
	for _, l := range n.mesh.Status() {
		if !l.Connected || !l.Hears {
			why[l.Node] = "unreachable"
		}
	}
	if own == nil {
		return why
	}
	for _, m := range own.Status().Members {
		// What the log has not heard for a moment counts as the network says: it may only be busy.
		if heard := m.Condition == "votes" || strings.HasPrefix(m.Condition, "not heard of"); why[m.Node] == "" && !heard {
			why[m.Node] = m.Condition
			if m.Node == n.cfg.Self {
				why[m.Node] = "not voting (" + m.Condition + ")"
			}
		}
	}
	return why
}

// describe says what this node believes of another.
func (n *Node) describe(m *MemberStatus, link transport.PeerStatus, now time.Time) {
	m.Link, m.Words, m.Software = &link, link.Words(now), link.Software
	suspected, level := n.life.Load().machine.suspicion(m.Node)
	m.Suspicion = level
	n.mu.Lock()
	defer n.mu.Unlock()
	o := n.others[m.Node]
	if o == nil {
		o = &other{since: now} // it has become a member this moment
	}
	m.Since = o.since
	switch {
	case suspected:
		m.State = "suspected"
	case !o.known:
		m.State = "not heard of yet"
	case o.news.Leaving:
		m.State = "leaving"
	default:
		m.State = "up"
	}
}

// words joins the names of nodes: "a, b and c".
func words(nodes []protocol.NodeID) string { return list(nodes, "and") }

// list joins the names of nodes, the last one with that word.
func list(nodes []protocol.NodeID, last string) string {
	var b strings.Builder
	for i, n := range nodes {
		switch {
		case i == 0:
		case i == len(nodes)-1:
			b.WriteString(" " + last + " ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(string(n))
	}
	return b.String()
}
