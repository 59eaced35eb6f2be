package cluster

import (
	"maps"
	"slices"
	"strings"
	"time"

	"assent/internal/journal"
	"assent/protocol"
	"assent/protocol/membership"
)

// follow has the parts of the node know the members: whom it is connected to, of whom it believes something.
func (n *Node) follow(s membership.State) {
	needed := map[protocol.NodeID]membership.Member{}
	for _, m := range slices.Concat(s.Registers.Members, s.Registers.Next, s.Members) { // the last word counts
		needed[m.Node] = m
	}
	n.mu.Lock()
	n.known = s.View.Number > 0
	n.readyLocked()
	for node := range needed {
		if n.others[node] == nil && node != n.cfg.Self {
			n.others[node] = &other{since: time.Now()}
		}
	}
	for node := range n.others {
		if _, ok := needed[node]; !ok {
			delete(n.others, node)
		}
	}
	n.mu.Unlock()
	n.connect(needed, s)
	select {
	case n.moved <- struct{}{}:
	default:
	}
}

// connect has the mesh call the members. A node that takes no part calls those whom it may ask, too: what it knows of
// the members may be long out of date.
func (n *Node) connect(needed map[protocol.NodeID]membership.Member, s membership.State) {
	peers := map[protocol.NodeID]string{}
	n.mu.Lock()
	_, member := s.Member(n.cfg.Self)
	asks := !member || !n.standing.Primary
	n.mu.Unlock()
	if asks {
		maps.Copy(peers, n.cfg.asked())
	}
	for node, m := range needed {
		if err := n.mesh.CheckPeer(node, m.Address); err != nil {
			n.cfg.Logger.Warn("a member cannot be called", "node", node, "address", m.Address, "reason", err)
			continue
		}
		peers[node] = m.Address
	}
	if err := n.mesh.SetPeers(peers); err != nil {
		n.cfg.Logger.Error("the members cannot be called", "error", err)
	}
}

// knows reports whether a node is one whose messages count: a member, one that was, one whom this node may ask while it
// takes no part, or anybody while it knows no members. The mesh vouches for the node's name.
func (n *Node) knows(node protocol.NodeID) bool {
	n.mu.Lock()
	_, ok := n.others[node]
	out := !n.standing.Primary
	n.mu.Unlock()
	if ok {
		return true
	}
	if _, ok := n.cfg.asked()[node]; ok && out {
		return true
	}
	s := n.State()
	return s.View.Number == 0 || slices.ContainsFunc(s.Views, func(v membership.View) bool { return v.Has(node) })
}

// mayKnock reports whether a node that is not known may say this: that it wants to join, or asks what stands.
func mayKnock(from protocol.NodeID, m protocol.Message) bool {
	switch m := m.(type) {
	case membership.Request:
		return m.Change.Kind == membership.Join && m.Change.Node == from && m.Change.By == from
	case fetch:
		return true
	}
	return false
}

// alone reports whether this node founded its cluster alone, and nobody has joined: it must hear whoever takes it for
// a member of another (membership.LifeRecord.Lost).
func (n *Node) alone() bool {
	s := n.State()
	return s.Alone()
}

// compare says once where the configuration names other members than there are.
func (n *Node) compare(s membership.State) {
	if s.View.Number == 0 || len(n.cfg.Members) == 0 {
		return
	}
	var differences []string
	for _, m := range s.Members {
		c, ok := n.cfg.Members[m.Node]
		switch {
		case !ok:
			differences = append(differences, string(m.Node)+" is a member and is not configured")
		case c.Address != m.Address && m.Node != n.cfg.Self:
			differences = append(differences, string(m.Node)+" is at "+m.Address+" and is configured at "+c.Address)
		}
	}
	for _, node := range n.cfg.nodes() {
		if _, ok := s.Member(node); !ok {
			differences = append(differences, string(node)+" is configured and is no member")
		}
	}
	if len(differences) > 0 {
		n.cfg.Logger.Warn("the members are those that the cluster has agreed on, and not all of the configuration's: it counts at the very first start alone",
			"view", s.View.Number, "differences", strings.Join(differences, "; "))
	}
}

// stands says how it stands with the node where that has changed for the worse or the better.
func (n *Node) stands(s membership.Status) {
	n.mu.Lock()
	was := n.standing
	n.standing = s.Standing
	n.mu.Unlock()
	if s.Primary != was.Primary {
		n.follow(n.State()) // whom it calls depends on it
	}
	switch log := n.cfg.Logger; {
	case s.View > 0 && !s.Member && (was.Member || was.View == 0):
		log.Warn("this node is not a member of the cluster: "+n.whatToDo(), "view", s.View)
	case s.Primary && !was.Primary:
		log.Info("this node takes part in the cluster", "view", s.View, "leader", s.Leader)
	case !s.Primary && was.Primary:
		log.Warn("this node cannot take part in the cluster", "view", s.View, "reason", s.Why)
	}
}

// whatToDo says what becomes of a node that is no member.
func (n *Node) whatToDo() string {
	l := n.life.Load()
	if l.machine.left() {
		return "it has left; stop it, or, to have it back, empty " + n.cfg.Dir + " and start it with the addresses of members to ask"
	}
	return "it asks to be let in"
}

// revive begins another life each time that the records could not be written, when they can be opened again.
func (n *Node) revive() {
	for {
		select {
		case <-n.quit:
			return
		case <-n.broken:
		}
		old := n.life.Load()
		old.loop.Stop()
		if err := old.records.close(); err != nil {
			n.cfg.Logger.Warn("the membership's records were not closed in order", "error", err)
		}
		n.beginAgain()
	}
}

// beginAgain tries to begin another life until it succeeds.
func (n *Node) beginAgain() {
	told := ""
	for ticker := time.NewTicker(reviveAfter); ; {
		select {
		case <-n.quit:
			ticker.Stop()
			return
		case <-ticker.C:
		}
		_, err := n.begin()
		if err == nil {
			ticker.Stop()
			n.cfg.Logger.Info("the membership's records can be written again")
			n.unsure("the node has begun anew")
			return
		}
		if text := err.Error(); text != told { // the same reason is told once
			told = text
			n.cfg.Logger.Error("the membership's records cannot be opened", "error", err)
		}
	}
}

// reviveAfter is the pause between two attempts to open records that could not be written.
const reviveAfter = time.Second

// recordsConfig says where the records are.
func (n *Node) recordsConfig() recordsConfig {
	c := recordsConfig{fs: n.fs, dir: n.fs.PathJoin(n.cfg.Dir, membersName), owner: n.cfg.Name, node: n.cfg.Self, codec: n.codec}
	if path := n.fs.PathJoin(n.decisionsDir(), formatName); n.cfg.Log == nil && exists(n, path) {
		c.remains = path
	}
	return c
}

func (n *Node) decisionsDir() string { return n.fs.PathJoin(n.cfg.Dir, decisionsName) }

func exists(n *Node, path string) bool {
	_, err := journal.ReadFile(n.fs, path)
	return err == nil
}
