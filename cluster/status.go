package cluster

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"assent/protocol"
	"assent/protocol/quorum"
	"assent/transport"
)

// Status is how the cluster stands, as this node sees it.
type Status struct {
	Cluster string          `json:"cluster"`
	Self    protocol.NodeID `json:"self"`
	// Leader is whom this node follows; empty where it knows of none. Role is what this node does
	// itself: "leading", "following", "electing" or "waiting".
	Leader protocol.NodeID `json:"leader,omitempty"`
	Role   string          `json:"role"`
	// View says which members there are, and since when or by whose word.
	View string `json:"view"`
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
	Node    protocol.NodeID `json:"node"`
	Votes   int             `json:"votes"`
	Address string          `json:"address"`
	API     string          `json:"api,omitempty"`
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
	leader, role := n.watcher.leader()
	s := Status{
		Cluster: n.cfg.Name, Self: n.cfg.Self, Leader: leader, Role: role.String(),
		View: fmt.Sprintf("%s, from the configuration", words(n.cfg.nodes())),
	}
	links := map[protocol.NodeID]transport.PeerStatus{}
	for _, l := range n.mesh.Status() {
		links[l.Node] = l
	}
	for _, node := range n.cfg.nodes() {
		m := MemberStatus{Node: node, Votes: n.cfg.Members[node].Votes, Address: n.cfg.Members[node].Address, API: n.cfg.Members[node].API}
		if node == n.cfg.Self {
			m.State, m.Since, m.Software = "this node", n.started, n.cfg.Software
			n.mu.Lock()
			if n.leaving {
				m.State = "this node, leaving"
			}
			n.mu.Unlock()
		} else {
			n.describe(&m, links[node], now)
		}
		s.Members = append(s.Members, m)
	}
	s.Quorum, s.Decides = n.Decides()
	if n.own == nil {
		s.Quorum, s.Decides = "decisions need none of the nodes' votes; "+s.Quorum, true
	}
	n.describeLog(&s)
	return s
}

// Decides reports whether this node reaches enough members that vote for anything to be decided, and counts
// their votes in words: "2 of 3 votes, 2 needed: c unreachable".
func (n *Node) Decides() (count string, enough bool) {
	wanting := n.wanting()
	tally := n.cfg.system().WriteTally(func(node protocol.NodeID) quorum.Answer {
		if wanting[node] == "" {
			return quorum.Granted
		}
		return quorum.Silent
	})
	count = fmt.Sprintf("%d of %d votes, %d needed", tally.For, tally.Total, tally.Needed)
	separator := ": "
	for _, why := range slices.Sorted(maps.Values(wanting)) {
		var nodes []protocol.NodeID
		for _, node := range n.cfg.nodes() {
			if wanting[node] == why {
				nodes = append(nodes, node)
				delete(wanting, node) // said
			}
		}
		if len(nodes) > 0 {
			count += separator + words(nodes) + " " + why
			separator = ", "
		}
	}
	return count, tally.Verdict() == quorum.Reached
}

// wanting says why members give no vote as far as this node knows.
func (n *Node) wanting() map[protocol.NodeID]string {
	why := map[protocol.NodeID]string{}
	for _, l := range n.mesh.Status() {
		if !l.Connected || !l.Hears {
			why[l.Node] = "unreachable"
		}
	}
	if n.own == nil {
		return why
	}
	for _, m := range n.own.Status().Members {
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
	suspected, level := n.watcher.suspicion(m.Node)
	m.Suspicion = level
	n.mu.Lock()
	defer n.mu.Unlock()
	o := n.others[m.Node]
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
func words(nodes []protocol.NodeID) string {
	var b strings.Builder
	for i, n := range nodes {
		switch {
		case i == 0:
		case i == len(nodes)-1:
			b.WriteString(" and ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(string(n))
	}
	return b.String()
}
