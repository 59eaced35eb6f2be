package cluster

import (
	"strings"
	"time"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/detector"
	"assent/protocol/election"
	"assent/protocol/membership"
	"assent/protocol/paxos"
	"assent/sim"
)

// member is a node's part of the cluster's own state, and its beliefs about the others.
type member struct {
	n       *node
	machine *membership.Node
	actor   *sim.Actor
	status  membership.Status
	state   membership.State
	asked   uint64
	asks    map[uint64]ask
}

// ask is a client's wish that waits for its answer.
type ask struct {
	client protocol.NodeID
	ref    uint64
	kind   membership.Kind
}

// memberScope is the scope of what members say to one another.
const memberScope = "members"

const (
	// newsTime is the pause between two announcements of a life, scanTime that between two scans of the
	// branches that are prepared, and logScanTime that between two scans of the registers.
	newsTime = time.Second
	scanTime = 500 * time.Millisecond
	// tendTime is how often the registers are seen to follow the members.
	tendTime    = 250 * time.Millisecond
	logScanTime = 2 * time.Second
	// grace is for how long a branch may be prepared before it is settled although its coordinator seems
	// to live, benefit for how long a life that nobody has announced is taken to last, and deference for how
	// long nodes that do not lead leave what a dead node has begun to the leader. They are those of
	// packages assent and cluster.
	grace     = 10 * time.Second
	benefit   = time.Second
	deference = time.Second
)

// options are those of package cluster, at half its pace. A founder of one takes a snapshot as seldom as it does: what it
// knows when it starts again hangs on it. The others do so often, so that state is transferred.
func (c *Cluster) options() membership.Options {
	o := membership.Options{
		Detector: detector.Options{Tick: 200 * time.Millisecond, Beat: 2, Timeout: 6, Phi: 60, Most: 15},
		Election: election.Options{Answer: 300 * time.Millisecond, Again: 2 * time.Second}, Every: 8}
	if len(c.Members) == 1 {
		o.Every = 0
	}
	o.Log.Beat = 400 * time.Millisecond
	return o
}

// newMember makes the machine of a node with those records, as cluster.Config.machine does: what is on record comes to
// it later, so one with records begins as one that knows only whom to ask.
func newMember(n *node, records protocol.Records) *member {
	self := membership.Member{Node: n.ID, Storage: n.storage(), Wanted: 1, Address: string(n.ID) + ":1"}
	if n.founder() {
		self.Wanted = n.w.c.Members[n.index].Votes
	}
	m := &member{n: n, asks: map[uint64]ask{}}
	if _, known := records[membership.LifeKey].(membership.LifeRecord); known || !n.founder() {
		var seeds []protocol.NodeID
		for _, o := range n.w.nodes {
			if o != n {
				seeds = append(seeds, o.ID)
			}
		}
		m.machine = membership.Joiner(self, seeds, n.w.c.options())
	} else {
		m.machine = membership.Founder(self, n.w.founders, n.w.c.options())
	}
	m.state = m.machine.State
	m.actor = n.Actor(memberScope, m.machine, m)
	return m
}

// begin gives the machine its first event.
func (m *member) begin(records protocol.Records) {
	if _, known := records[membership.LifeKey].(membership.LifeRecord); !known {
		m.actor.Deliver(protocol.Start{})
		return
	}
	m.actor.Deliver(protocol.Recover{Records: records})
}

// Force implements engine.Hands.
func (m *member) Force(writes []protocol.Write) error {
	if !m.actor.Alive() {
		return errDisk
	}
	return m.n.force(memberPart, writes)
}

// Send implements engine.Hands.
func (m *member) Send(to protocol.NodeID, message protocol.Message) {
	if m.actor.Alive() && m.n.w.byID[to] != nil {
		m.n.transmit(memberScope, to, message)
	}
}

// Emit implements engine.Hands.
func (m *member) Emit(value protocol.Value) {
	if !m.actor.Alive() {
		return
	}
	switch v := value.(type) {
	case membership.Installed:
		m.n.w.installed(m.n.ID, v.View)
	case membership.Changed:
		m.state = v.State
		m.n.w.changed(m.n.ID, v.State)
		m.n.After(0, m.n.tend)
	case membership.Retired:
		m.n.w.Reach("a node has left and is not needed")
		if m.n.w.c.outage && !m.n.founder() { // a founder has accounts
			m.n.After(0, func() { m.n.w.leave(m.n) })
		}
	case membership.Status:
		m.status = v
		now := map[protocol.NodeID]bool{}
		for _, id := range v.Suspected {
			now[id] = true
		}
		for id, p := range m.n.peers {
			if now[id] != p.suspected {
				p.suspected, p.changed = now[id], m.n.w.Line.Now()
			}
		}
	case membership.Answered:
		if a, ok := m.asks[v.Ref]; ok {
			delete(m.asks, v.Ref)
			m.n.w.Reach(a.kind.String() + ": " + v.Result.String())
			m.n.send("", a.client, Configured{Ref: a.ref, Result: v.Result})
		}
	}
}

// configure asks for a change.
func (m *member) configure(client protocol.NodeID, c Configure) {
	m.asked++
	m.asks[m.asked] = ask{client, c.Ref, c.Change.Kind}
	m.actor.Deliver(protocol.Input{Value: membership.Ask{Ref: m.asked, Change: c.Change}})
}

// leader returns who leads, as far as this node knows.
func (m *member) leader() protocol.NodeID { return m.status.Leader }

// leads reports whether this node leads the cluster's log.
func (m *member) leads() bool { return m.machine.Log.State == paxos.Leading }

// busy says what the node is not in accord with, or nothing.
func (m *member) busy() string {
	if why := m.standing(); why != "" || m.machine.Retired {
		return why
	}
	for _, key := range m.n.w.keys {
		if _, ok := m.state.Setting(key); !ok {
			return "does not know that " + key + " is set"
		}
	}
	if m.state.Epoch < m.n.w.epoch { // whoever knew it may have forgotten, in a crash of all
		return "lags behind in the cluster's own state"
	}
	return ""
}

// storage names the node's disk.
func (n *node) storage() string { return string(n.ID) + "/1" }

// peer is what a node knows of another.
type peer struct {
	prefix    string // its present life, as it has announced it
	suspected bool
	changed   time.Duration // when that began or ended
}

// announce tells the others of this life.
func (n *node) announce() {
	for _, o := range n.w.nodes {
		if o != n && n.needs(o.ID) {
			n.send("", o.ID, News{Prefix: n.prefix})
		}
	}
}

// heard takes an announcement. Lives come in order, and announcements may not.
func (n *node) heard(from protocol.NodeID, m News) {
	if p := n.peers[from]; p.prefix < m.Prefix {
		p.prefix = m.Prefix
	}
}

// alive reports whether the node that began the transaction is believed to live, or was suspected so lately
// that the leader is given time to settle it alone: cluster.Node.Alive.
func (n *node) alive(id commit.TransactionID) bool {
	if strings.HasPrefix(string(id), n.prefix) {
		return true
	}
	now, leads := n.w.Line.Now(), n.member.leader() == n.ID
	for o, p := range n.peers {
		if n.needs(o) && p.prefix != "" && strings.HasPrefix(string(id), p.prefix) {
			return !p.suspected || !leads && now-p.changed < deference
		}
	}
	prefix := string(id[:prefixLength])
	first, ok := n.strange[prefix]
	if !ok {
		first = now
		n.strange[prefix] = now
	}
	patience := benefit
	if !leads {
		patience += deference
	}
	return now-first < patience
}
