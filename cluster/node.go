package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"assent/decision"
	"assent/decision/paxos"
	"assent/engine"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/detector"
	"assent/protocol/election"
	"assent/protocol/membership"
	"assent/transport"
)

// The channels of the mesh. Their numbers are part of the protocol between nodes.
const (
	logChannel   = 0
	watchChannel = 1
	askChannel   = 2
	siteChannel  = 3
)

// Node is this process's part in its cluster. All methods are safe for concurrent use.
type Node struct {
	cfg     Config
	started time.Time
	mesh    *transport.Mesh
	codec   *protocol.Codec
	watcher *watcher
	loop    *engine.Loop
	channel *transport.Channel
	log     decision.Log
	own     *paxos.Log // nil where the nodes do not keep the log among themselves
	prefix  string
	asking  asking
	state   membership.State

	mu      sync.Mutex
	leaving bool
	others  map[protocol.NodeID]*other
	strange map[string]time.Time // when a prefix that nobody has announced was first asked about
}

// other is what this node believes of another.
type other struct {
	news      announcement
	known     bool // it has announced itself
	suspected bool
	since     time.Time // when that changed
}

// announcement is what a node tells the others of itself, with every heartbeat. Fields that a node does
// not know are passed over, so later versions may add some.
type announcement struct {
	// Prefix begins the ids of the transactions that the node's present life begins.
	Prefix string `json:"prefix"`
	// Started is when that life began, by its own clock.
	Started time.Time `json:"started"`
	// Leaving says that it takes no new transactions and is about to stop.
	Leaving bool `json:"leaving,omitempty"`
}

// The first byte of a message on the watch's channel.
const (
	announced = 'a' // an announcement, in JSON
	machined  = 'm' // a message of a machine, in the codec's encoding
	// maxNews bounds a message in bytes.
	maxNews = 4 << 10
)

// Open joins the cluster: it listens for the other nodes, calls them, and begins to watch them. It
// waits for none. Close the node after whoever uses its log.
func Open(cfg Config) (*Node, error) {
	if cfg.Members == nil {
		cfg.Members = map[protocol.NodeID]Member{}
	}
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	codec, err := protocol.NewCodec(append(detector.Types(), election.Types()...)...)
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	state, err := membership.Found(cfg.Name, cfg.founders()...)
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	n := &Node{
		state: state, cfg: cfg, started: time.Now(), codec: codec, watcher: newWatcher(&cfg),
		others: map[protocol.NodeID]*other{}, strange: map[string]time.Time{},
	}
	peers := map[protocol.NodeID]string{}
	for node, m := range cfg.Members {
		peers[node] = m.Address
		if node != cfg.Self {
			n.others[node] = &other{since: n.started}
		}
	}
	n.mesh, err = transport.Listen(transport.Config{
		Cluster: cfg.Name, Self: cfg.Self, Listener: cfg.Listener, Address: cfg.Address, Peers: peers,
		TLS: cfg.TLS, AllowPlaintext: cfg.AllowPlaintext, Software: cfg.Software, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	if err := n.openLog(); err != nil {
		return nil, errors.Join(fmt.Errorf("cluster: %w", err), n.mesh.Close())
	}
	n.channel = n.mesh.Channel(watchChannel)
	n.loop = engine.New(engine.Config{
		Scope: cfg.Name, Node: cfg.Self, Machine: n.watcher, Hands: hands{n}, Clock: engine.SystemClock{},
	})
	n.channel.Receive(n.receive)
	n.asking.channel, n.asking.log = n.mesh.Channel(askChannel), cfg.Logger
	n.asking.channel.Receive(n.asking.receive)
	n.loop.Deliver(protocol.Start{})
	return n, nil
}

// Close leaves the cluster. The others notice by the silence.
func (n *Node) Close() error {
	n.loop.Stop()
	var err error
	if n.own != nil {
		err = n.own.Close()
	}
	return errors.Join(err, n.mesh.Close())
}

// Leave tells the others that this node takes no new transactions and will stop.
func (n *Node) Leave() {
	n.mu.Lock()
	n.leaving = true
	n.mu.Unlock()
	for node := range n.cfg.Members {
		n.announce(node)
	}
}

// Log returns the log that all nodes share. Its ids' prefix is this node's and this life's alone.
func (n *Node) Log() decision.Log { return n.log }

// Sites returns the channel on which the machines of transactions among sites speak to one another.
func (n *Node) Sites() *transport.Channel { return n.mesh.Channel(siteChannel) }

// Nodes returns the names of all members, in their order.
func (n *Node) Nodes() []protocol.NodeID { return n.cfg.nodes() }

// Self returns this node's name.
func (n *Node) Self() protocol.NodeID { return n.cfg.Self }

// Keeper returns the member that keeps the resource for itself, by the rule that the name of such a
// resource ends in a hyphen and the node's name, and the URL of its API.
func (n *Node) Keeper(resource string) (node protocol.NodeID, api string, ok bool) {
	for member, m := range n.cfg.Members {
		if strings.HasSuffix(resource, "-"+string(member)) && len(member) > len(node) {
			node, api, ok = member, m.API, true
		}
	}
	return node, api, ok
}

// Elsewhere reports whether the resource is kept by another member. It is for assent.Config.
func (n *Node) Elsewhere(resource string) bool {
	node, _, ok := n.Keeper(resource)
	return ok && node != n.cfg.Self
}

// hands carry out what the watcher wants.
type hands struct{ n *Node }

// Force has nothing to do: beliefs are not stable.
func (hands) Force([]protocol.Write) error { return nil }

// Send sends a message of a machine. With a heartbeat goes what the node says of itself.
func (h hands) Send(to protocol.NodeID, message protocol.Message) {
	if _, ok := message.(detector.Heartbeat); ok {
		h.n.announce(to)
	}
	data, err := h.n.codec.Encode(message)
	if err != nil {
		h.n.cfg.Logger.Error("a message cannot be encoded", "error", err)
		return
	}
	h.n.channel.Send(to, append([]byte{machined}, data...))
}

// Emit takes note of what the machines believe.
func (h hands) Emit(value protocol.Value) {
	switch v := value.(type) {
	case detector.Suspect:
		h.n.believe(v.Node, true)
	case detector.Trust:
		h.n.believe(v.Node, false)
	case election.Elected:
		if v.Leader != "" {
			h.n.cfg.Logger.Info("recovery leader", "node", v.Leader)
		}
	}
}

func (n *Node) announce(to protocol.NodeID) {
	n.mu.Lock()
	a := announcement{Prefix: n.prefix, Started: n.started, Leaving: n.leaving}
	n.mu.Unlock()
	data, err := json.Marshal(a)
	if err != nil {
		n.cfg.Logger.Error("an announcement cannot be encoded", "error", err)
		return
	}
	n.channel.Send(to, append([]byte{announced}, data...))
}

func (n *Node) believe(node protocol.NodeID, suspected bool) {
	n.mu.Lock()
	o := n.others[node]
	if o != nil {
		o.suspected, o.since = suspected, time.Now()
	}
	n.mu.Unlock()
	if suspected {
		n.cfg.Logger.Warn("node is suspected to be down", "node", node)
	} else {
		n.cfg.Logger.Info("node is up again", "node", node)
	}
}

// receive takes a message of the watch. What cannot be read is of a later version, or damaged; it is a
// sign of life in any case.
func (n *Node) receive(from protocol.NodeID, payload []byte) {
	if len(payload) == 0 || len(payload) > maxNews || n.others[from] == nil {
		return
	}
	switch payload[0] {
	case announced:
		var a announcement
		if json.Unmarshal(payload[1:], &a) == nil && len(a.Prefix) <= decision.MaxPrefix {
			n.mu.Lock()
			o := n.others[from]
			another := o.known && o.news.Prefix != a.Prefix
			o.news, o.known = a, true
			n.mu.Unlock()
			if another {
				n.watcher.reborn(from)
			}
		}
	case machined:
		if message, err := n.codec.Decode(payload[1:]); err == nil {
			n.loop.Deliver(protocol.Receive{From: from, Message: message})
		}
	}
}

// mostStrange bounds the prefixes that are remembered of those that nobody has announced.
const mostStrange = 4096

// Alive reports whether the node that began the transaction is believed to live, or was suspected so
// lately that the leader is given time to settle the transaction alone. It is for assent.Config.
func (n *Node) Alive(id commit.TransactionID) bool {
	leader, _ := n.watcher.leader()
	n.mu.Lock()
	defer n.mu.Unlock()
	if strings.HasPrefix(string(id), n.prefix) {
		return true
	}
	now := time.Now()
	for _, o := range n.others {
		if o.known && o.news.Prefix != "" && strings.HasPrefix(string(id), o.news.Prefix) {
			return !o.suspected || leader != n.cfg.Self && now.Sub(o.since) < n.cfg.Deference
		}
	}
	// It is of an earlier life of a node, or of one that this node has not heard of yet.
	prefix := string(id)[:min(len(id), len(n.prefix))]
	first, ok := n.strange[prefix]
	if !ok {
		if len(n.strange) >= mostStrange {
			clear(n.strange)
		}
		first, n.strange[prefix] = now, now
	}
	patience := n.cfg.Benefit
	if leader != n.cfg.Self {
		patience += n.cfg.Deference
	}
	return now.Sub(first) < patience
}

// Suspected reports whether another node is suspected to be down.
func (n *Node) Suspected(node protocol.NodeID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	o := n.others[node]
	return o != nil && o.suspected
}

// Coordinator returns the node that began the transaction, in its present life, and whether it is
// suspected to be down; ok is false where no node says that it did.
func (n *Node) Coordinator(id string) (node protocol.NodeID, suspected, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if strings.HasPrefix(id, n.prefix) {
		return n.cfg.Self, false, true
	}
	for node, o := range n.others {
		if o.known && o.news.Prefix != "" && strings.HasPrefix(id, o.news.Prefix) {
			return node, o.suspected, true
		}
	}
	return "", false, false
}
