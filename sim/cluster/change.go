package cluster

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"assent/protocol"
	"assent/protocol/membership"
	"assent/sim"
)

// The members change while clients work: new nodes are started and join, people have others leave, be excluded, or
// weigh more. Each change is a piece of work, drawn from the seed and its number alone.

// newcomers are the names of the nodes that may join: one for each change.
func (c *Cluster) newcomers() (ids []protocol.NodeID) {
	for r := 'a'; r <= 'z' && len(ids) < c.Changes; r++ {
		id := protocol.NodeID(r)
		if !slices.ContainsFunc(c.Members, func(m Member) bool { return m.Node == id }) {
			ids = append(ids, id)
		}
	}
	return ids
}

// still reports whether the members stay as they are: so they do in half of the runs without faults.
func still(plan sim.Plan) bool { return plan.Seed%32 == 0 }

// drawChange draws a change of members. It begins when the cluster may still be founding itself, at the earliest.
func (w *world) drawChange(number int) task {
	d := rand.New(rand.NewPCG(w.Plan.Seed, uint64(number)+1000))
	k := task{number: number, at: 300*time.Millisecond + time.Duration(d.Int64N(int64(w.Plan.Safety*2/3)))}
	k.change.Node = w.nodes[d.IntN(len(w.nodes))].ID
	k.change.Operator, k.change.Reason = "operator", "the plan"
	switch d.IntN(9) {
	case 0, 1, 2:
		k.change.Kind, k.change.Node = membership.Join, w.nodes[len(w.c.Members)+number-w.c.Jobs].ID
	case 3, 4:
		k.change.Kind = membership.Leave
	case 5, 6:
		k.change.Kind = membership.Exclude
	default:
		k.change.Kind, k.change.Votes = membership.Weigh, 2+d.IntN(3)
	}
	return k
}

// alter makes a change of members, or has a client ask for it. Where nodes go for good in this run, nobody is sent away
// who is not gone, and nobody is given more weight: the others must be able to do without those that go.
func (c *client) alter(k task) {
	n, goes := c.w.byID[k.change.Node], slices.ContainsFunc(c.w.Plan.Faults, func(f sim.Fault) bool { return f.Class == sim.Gone })
	switch {
	case k.change.Kind == membership.Join:
		n.absent = false
		n.start()
	case n.absent, goes && !(k.change.Kind == membership.Exclude && n.gone):
	default:
		c.begin(k, 1)
		return
	}
	c.w.pending--
}

// asks returns the nodes that somebody who asks for something knows of.
func (w *world) asks() (all []*node) {
	return slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return n.absent })
}

// needs reports whether the node takes another for a member, or for one that the registers need still: so cluster.Node
// follows the members.
func (n *node) needs(id protocol.NodeID) bool {
	s := &n.member.machine.State
	return slices.ContainsFunc(slices.Concat(s.Members, s.Registers.Members, s.Registers.Next),
		func(m membership.Member) bool { return m.Node == id })
}

// tend has the registers follow what the cluster has agreed on, and moves them where this node leads: cluster.Node.tend.
func (n *node) tend() {
	s, leads := n.member.machine.State.Registers, n.member.leads()
	if n.w.c.Log == Paxos {
		n.registers.adopt(epochOf(s))
		n.registers.teach()
	}
	if s.Next != nil && leads && (n.w.c.Log == Disk || n.registers.moved(s.Number)) {
		n.member.actor.Deliver(protocol.Input{Value: membership.Moved{Number: s.Number}})
	}
}

// handOver has a branch in doubt answer to a member, where this node is none and cannot find out what stands. Live, any
// member that has the resource configured finishes its branches.
func (b *branch) handOver() {
	var members []protocol.NodeID
	for _, m := range b.n.member.machine.State.Members {
		if m.Node != b.n.ID {
			members = append(members, m.Node)
		}
	}
	if len(members) > 0 {
		b.n.w.Reach("recovery: a branch on a node that is no member")
		b.handed++
		b.since = b.n.w.Line.Now()
		b.adopt(members[b.handed%len(members)])
	}
}

// standing says what the node is not yet that it is to be, or nothing.
func (m *member) standing() string {
	s := &m.machine.State
	own, member := s.Member(m.n.ID)
	var why []string
	switch {
	case m.machine.Retired:
		return ""
	case m.machine.Left():
		return "has left, and is needed still"
	case !member || own.Votes == 0:
		why = append(why, "has no vote")
	case s.Trails():
		why = append(why, "the registers are not those of the members")
	}
	if !m.status.Primary {
		why = append(why, "is not on the side that goes on: "+m.status.Why)
	}
	return strings.Join(why, "; ")
}
