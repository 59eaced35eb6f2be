package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/decision"
	"assent/decision/paxos"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/membership"
	agreement "assent/protocol/paxos"
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
	fs      vfs.FS
	started time.Time
	mesh    *transport.Mesh
	codec   *protocol.Codec
	channel *transport.Channel
	asking  asking
	life    atomic.Pointer[life]
	moved   chan struct{} // the state has changed
	opened  chan struct{} // the log is open and the members are known
	broken  chan struct{} // the records could not be written
	quit    chan struct{} // the node is being closed
	closing sync.Once
	group   sync.WaitGroup

	mu       sync.Mutex
	log      decision.Log // nil until it is open
	own      *paxos.Log   // nil where the nodes do not keep the log among themselves
	prefix   string       // of the log's; empty until it is open
	known    bool         // who the members are
	leaving  bool
	others   map[protocol.NodeID]*other
	strange  map[string]time.Time // when a prefix that nobody has announced was first asked about
	standing membership.Standing  // the last that was told
	waiting  map[uint64]chan membership.Answered
	asked    uint64 // the number of the last change
	moving   string // why the registers have not moved yet
	sites    func() string
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
	// Sites is with what it takes part in transactions among sites, if it does, in the words of package site.
	Sites string `json:"sites,omitempty"`
}

// The first byte of a message on the watch's channel.
const (
	announced = 'a' // an announcement, in JSON
	machined  = 'm' // a message of a machine, in the codec's encoding
	// maxNews bounds an announcement, and whatever a node says that is not known, in bytes.
	maxNews = 4 << 10
	// mostWaiting is how many messages may wait for a disk that does not answer; what else comes is lost.
	mostWaiting = 1024
	// mostGuests is how many nodes may ask at a time to be let in.
	mostGuests = 8
)

// fetch asks what stands in the membership's log.
type fetch = agreement.Fetch[membership.Change]

// Open makes this process a node: it listens for the other nodes, calls them, and begins to watch them. It
// waits for none. Close the node after whoever uses its log.
func Open(cfg Config) (*Node, error) {
	if cfg.Members == nil {
		cfg.Members = map[protocol.NodeID]Member{}
	}
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	codec, err := protocol.NewCodec(append(membership.Types(), protocol.Type{Name: "cluster.Began", Zero: began{}})...)
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	n := &Node{
		cfg: cfg, fs: vfs.Default, started: time.Now(), codec: codec,
		moved: make(chan struct{}, 1), broken: make(chan struct{}, 1), opened: make(chan struct{}), quit: make(chan struct{}),
		others: map[protocol.NodeID]*other{}, strange: map[string]time.Time{}, waiting: map[uint64]chan membership.Answered{},
	}
	n.mesh, err = transport.Listen(transport.Config{
		Cluster: cfg.Name, Self: cfg.Self, Listener: cfg.Listener, Address: cfg.Address, Peers: cfg.asked(),
		Advertise: cfg.own().Address, Guests: mostGuests, GuestChannel: watchChannel,
		TLS: cfg.TLS, AllowPlaintext: cfg.AllowPlaintext, Software: cfg.Software, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	n.channel = n.mesh.Channel(watchChannel)
	l, err := n.begin()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cluster: %w", cfg.explain(err)), n.mesh.Close())
	}
	if err := n.openLog(); err != nil {
		l.loop.Stop()
		return nil, errors.Join(fmt.Errorf("cluster: %w", err), n.mesh.Close(), l.records.close())
	}
	n.channel.Receive(n.receive)
	n.asking.channel, n.asking.log = n.mesh.Channel(askChannel), cfg.Logger
	n.asking.channel.Receive(n.asking.receive)
	n.group.Go(n.revive)
	n.group.Go(n.tend)
	return n, nil
}

// Close leaves the others, who notice by the silence. The node is a member as before.
func (n *Node) Close() error {
	n.closing.Do(func() { close(n.quit) })
	n.life.Load().loop.Stop()
	n.group.Wait()
	l := n.life.Load()
	l.loop.Stop()
	var err error
	if own := n.register(); own != nil {
		err = own.Close()
	}
	return errors.Join(err, n.mesh.Close(), l.records.close())
}

// Leave tells the others that this node takes no new transactions and will stop.
func (n *Node) Leave() {
	n.mu.Lock()
	n.leaving = true
	n.mu.Unlock()
	for _, node := range n.Nodes() {
		n.announce(node)
	}
}

// Sites returns the channel on which the machines of transactions among sites speak to one another.
func (n *Node) Sites() *transport.Channel { return n.mesh.Channel(siteChannel) }

// TellSites has this node tell the others, with every heartbeat, with what it takes part in transactions among sites:
// what announcement returns, which is empty while it takes no part.
func (n *Node) TellSites(announcement func() string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sites = announcement
}

// SitesOf returns what another node has told last, or "" where it has told nothing.
func (n *Node) SitesOf(node protocol.NodeID) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if o := n.others[node]; o != nil {
		return o.news.Sites
	}
	return ""
}

// Nodes returns the names of the present members, as this node knows them, in their order.
func (n *Node) Nodes() []protocol.NodeID { return nodesOf(n.Members()) }

// Self returns this node's name.
func (n *Node) Self() protocol.NodeID { return n.cfg.Self }

// Keeper returns the member that keeps the resource for itself, by the rule that the name of such a
// resource ends in a hyphen and the node's name, and the URL of its API.
func (n *Node) Keeper(resource string) (node protocol.NodeID, api string, ok bool) {
	for _, m := range n.Members() {
		if strings.HasSuffix(resource, "-"+string(m.Node)) && len(m.Node) > len(node) {
			node, api, ok = m.Node, m.API, true
		}
	}
	return node, api, ok
}

// Elsewhere reports whether the resource is kept by another member. It is for assent.Config.
func (n *Node) Elsewhere(resource string) bool {
	node, _, ok := n.Keeper(resource)
	return ok && node != n.cfg.Self
}

func (n *Node) announce(to protocol.NodeID) {
	n.mu.Lock()
	a, sites := announcement{Prefix: n.prefix, Started: n.started, Leaving: n.leaving}, n.sites
	n.mu.Unlock()
	if a.Prefix == "" {
		return // it begins no transactions yet
	}
	if sites != nil {
		a.Sites = sites()
	}
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

// receive takes a message of the watch. What cannot be read is of a later version, or damaged.
func (n *Node) receive(from protocol.NodeID, payload []byte) {
	known := n.knows(from)
	if len(payload) == 0 || len(payload) > protocol.MaxEncoded || len(payload) > maxNews && (!known || payload[0] == announced) {
		return
	}
	switch payload[0] {
	case announced:
		n.heard(from, payload[1:])
	case machined:
		if message, err := n.codec.Decode(payload[1:]); err == nil && (known || mayKnock(from, message) || n.alone()) {
			if l := n.life.Load(); l.loop.Waiting() < mostWaiting {
				l.loop.Deliver(protocol.Receive{From: from, Message: message})
			}
		}
	}
}

// heard takes what a node says of itself.
func (n *Node) heard(from protocol.NodeID, text []byte) {
	var a announcement
	if json.Unmarshal(text, &a) != nil || len(a.Prefix) > decision.MaxPrefix {
		return
	}
	n.mu.Lock()
	o := n.others[from]
	another := o != nil && o.known && o.news.Prefix != a.Prefix
	if o != nil {
		o.news, o.known = a, true
	}
	n.mu.Unlock()
	if another {
		n.life.Load().machine.reborn(from)
	}
}

// mostStrange bounds the prefixes that are remembered of those that nobody has announced.
const mostStrange = 4096

// Alive reports whether the node that began the transaction is believed to live, or was suspected so
// lately that the leader is given time to settle the transaction alone. It is for assent.Config.
func (n *Node) Alive(id commit.TransactionID) bool {
	leader, _ := n.life.Load().machine.leader()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.prefix != "" && strings.HasPrefix(string(id), n.prefix) {
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
	if n.prefix != "" && strings.HasPrefix(id, n.prefix) {
		return n.cfg.Self, false, true
	}
	for node, o := range n.others {
		if o.known && o.news.Prefix != "" && strings.HasPrefix(id, o.news.Prefix) {
			return node, o.suspected, true
		}
	}
	return "", false, false
}
