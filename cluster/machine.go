package cluster

import (
	"errors"
	"fmt"
	"sync"

	"assent/engine"
	"assent/protocol"
	"assent/protocol/detector"
	"assent/protocol/election"
	"assent/protocol/membership"
)

// machine is a node's membership, for others to look at between two steps. What its detector and its elector
// believe is emitted when it changes: detector.Suspect, detector.Trust, election.Elected.
type machine struct {
	mu        sync.Mutex // Step is called by one goroutine at a time; others look
	node      *membership.Node
	suspected map[protocol.NodeID]bool
	elected   protocol.NodeID
}

// Step steps the membership.
func (m *machine) Step(ev protocol.Event, out *protocol.Effects) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.node.Step(ev, out)
	for _, p := range m.node.Detector.Peers {
		switch {
		case p.Suspected && !m.suspected[p.Node]:
			m.suspected[p.Node] = true
			out.Emit(detector.Suspect{Node: p.Node})
		case !p.Suspected && m.suspected[p.Node]:
			delete(m.suspected, p.Node)
			out.Emit(detector.Trust{Node: p.Node})
		}
	}
	if leader, _ := m.node.Elected(); leader != m.elected {
		m.elected = leader
		out.Emit(election.Elected{Leader: leader})
	}
}

// reborn notes that the node has begun a new life: suspicions of the last one were right and are nothing to
// be more patient for, and its silence says nothing of its rhythm.
func (m *machine) reborn(node protocol.NodeID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.node.Detector.Peers {
		if p := &m.node.Detector.Peers[i]; p.Node == node {
			p.Mistakes, p.Intervals = 0, nil
		}
	}
}

// leader returns who leads the recovery, as far as this node knows.
func (m *machine) leader() (protocol.NodeID, election.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.node.Elected()
}

// state returns what the node knows of the cluster's state.
func (m *machine) state() membership.State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.node.State
}

// status returns how the node stands.
func (m *machine) status() membership.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.node.Status()
}

// lost reports whether the node has stopped for good (membership.LifeRecord.Lost).
func (m *machine) lost() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.node.Life.Lost
}

// retired reports whether the node has been told that the others can do without it.
func (m *machine) retired() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.node.Retired
}

// left reports whether the node has left on request, as far as it knows.
func (m *machine) left() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.node.Left()
}

// suspicion returns whether the node is suspected, and how suspicious its silence is as a share of
// what makes it suspected.
func (m *machine) suspicion(node protocol.NodeID) (suspected bool, level float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	level = m.node.Detector.Level(node)
	for _, p := range m.node.Detector.Peers {
		if p.Node == node {
			suspected = p.Suspected
			if phi := m.node.Detector.Options.Phi; phi > 0 && len(p.Intervals) >= 4 {
				level /= float64(phi)
			}
		}
	}
	return suspected, level
}

// life is the membership from one opening of its records to the next: they are opened again when they could
// not be written.
type life struct {
	node    *Node
	machine *machine
	records *records
	loop    *engine.Loop
}

// begin opens the records and begins a life with them.
func (n *Node) begin() (*life, error) {
	r, err := openRecords(n.recordsConfig())
	if err != nil {
		return nil, err
	}
	all, err := r.load()
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	if was, ok := all[beganKey].(began); ok && was.Decisions && n.cfg.Log == nil && !exists(n, n.fs.PathJoin(n.decisionsDir(), formatName)) {
		return nil, errors.Join(fmt.Errorf("%w: %s is gone, but %s is there", errLostInPart, n.decisionsDir(), r.cfg.dir), r.close())
	}
	var first protocol.Event = protocol.Recover{Records: all}
	was, known := all[membership.LifeKey].(membership.LifeRecord)
	if was.Lost {
		return nil, errors.Join(fmt.Errorf("%s: %s", r.cfg.dir, membership.WhyLost), r.close())
	}
	if !known {
		first = protocol.Start{}
	}
	node, err := n.cfg.machine(r.storage, !known)
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	l := &life{node: n, records: r, machine: &machine{node: node, suspected: map[protocol.NodeID]bool{}}}
	l.loop = engine.New(engine.Config{
		Scope: n.cfg.Name, Node: n.cfg.Self, Machine: l.machine, Hands: l, Clock: engine.SystemClock{},
	})
	n.life.Store(l)
	if !known {
		n.follow(l.machine.state())
	} // or else with what is on record: those who are known stay so, and connected
	l.loop.Deliver(first)
	if known {
		n.compare(l.machine.state())
	}
	return l, nil
}

// machine returns the machine of a node with that storage, which may be blank. What is on record comes to it
// later, so one with records begins as one that knows only whom to ask.
func (c *Config) machine(storage string, blank bool) (*membership.Node, error) {
	own := c.own()
	self := membership.Member{Node: c.Self, Storage: storage, Wanted: own.Votes, Address: own.Address, API: own.API}
	_, founder := c.Members[c.Self]
	switch {
	case !blank, len(c.Join) > 0:
		return membership.Joiner(self, c.seeds(), c.options()), nil
	case !founder:
		return nil, c.stranger()
	}
	state, err := membership.Found(c.Name, c.founders()...)
	if err != nil {
		return nil, err
	}
	return membership.Founder(self, state, c.options()), nil
}

// Force writes the machine's records. When that fails the life is over; another is begun as soon as its
// records can be opened again.
func (l *life) Force(writes []protocol.Write) error {
	err := l.records.force(writes)
	if err != nil && !errors.Is(err, errClosed) {
		l.node.cfg.Logger.Error("the membership's records cannot be written; this node is silent until they can", "error", err)
		select {
		case l.node.broken <- struct{}{}:
		default:
		}
	}
	return err
}

// Send sends a message of the machine. With a heartbeat goes what the node says of itself.
func (l *life) Send(to protocol.NodeID, message protocol.Message) {
	n := l.node
	if _, ok := message.(detector.Heartbeat); ok {
		n.announce(to)
	}
	data, err := n.codec.Encode(message)
	if err != nil {
		n.cfg.Logger.Error("a message cannot be encoded", "error", err)
		return
	}
	n.channel.Send(to, append([]byte{machined}, data...))
}

// Emit takes note of what the machine tells.
func (l *life) Emit(value protocol.Value) {
	n := l.node
	switch v := value.(type) {
	case detector.Suspect:
		n.believe(v.Node, true)
	case detector.Trust:
		n.believe(v.Node, false)
	case election.Elected:
		if v.Leader != "" {
			n.cfg.Logger.Info("recovery leader", "node", v.Leader)
		}
	case membership.Changed:
		n.follow(v.State)
	case membership.Installed:
		n.cfg.Logger.Info("view of the cluster", "view", v.View.Number, "members", wordsOfView(v.View))
	case membership.Answered:
		n.answered(v)
	case membership.Status:
		n.stands(v)
	case membership.Retired:
		n.cfg.Logger.Info("this node is a member no more, and the others can do without it: it may be stopped for good", "view", v.View)
	}
}
