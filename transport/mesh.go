package transport

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"assent/protocol"
)

// Mesh is a node's part in the network of its cluster. All methods are safe for concurrent use.
type Mesh struct {
	cfg      Config
	listener net.Listener
	epoch    time.Time
	channels [control]*Channel
	self     *loopqueue
	log      *sparing

	life  context.Context // ends with Close
	end   context.CancelFunc
	group sync.WaitGroup

	mu     sync.Mutex
	peers  map[protocol.NodeID]*peer
	guests map[net.Conn]bool // connections that came in
	closed bool

	byNode atomic.Pointer[map[protocol.NodeID]*peer] // what peers holds, for Send
}

// Listen begins to listen for peers and to call them. It waits for nobody. It fails on a bad Config,
// and where the address cannot be listened on.
func Listen(cfg Config) (*Mesh, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := cfg.checkPeers(cfg.Peers); err != nil {
		return nil, err
	}
	listener := cfg.Listener
	if listener == nil {
		var err error
		if listener, err = net.Listen("tcp", cfg.Address); err != nil {
			return nil, fmt.Errorf("transport: listen for peers: %w", err)
		}
	}
	m := &Mesh{
		cfg: cfg, listener: listener, epoch: time.Now(),
		log:   &sparing{logger: cfg.Logger},
		peers: map[protocol.NodeID]*peer{}, guests: map[net.Conn]bool{},
	}
	m.life, m.end = context.WithCancel(context.Background())
	m.self = &loopqueue{mesh: m}
	for n := range m.channels {
		m.channels[n] = &Channel{mesh: m, number: byte(n)}
	}
	m.byNode.Store(&map[protocol.NodeID]*peer{})
	m.setPeers(cfg.Peers)
	m.group.Go(m.accept)
	return m, nil
}

// Address returns where the mesh listens.
func (m *Mesh) Address() string { return m.listener.Addr().String() }

// Self returns this node's name.
func (m *Mesh) Self() protocol.NodeID { return m.cfg.Self }

// CheckPeer returns why a node cannot be a peer at that address, or nil.
func (m *Mesh) CheckPeer(node protocol.NodeID, address string) error {
	return m.cfg.checkPeers(map[protocol.NodeID]string{node: address})
}

// SetPeers replaces the peers: those that are new are called, those that are gone are cut off, and
// connections to those whose address has changed are made anew. Self is passed over. Guests stay, and those that
// are named are guests no more.
func (m *Mesh) SetPeers(peers map[protocol.NodeID]string) error {
	if err := m.cfg.checkPeers(peers); err != nil {
		return err
	}
	m.setPeers(peers)
	return nil
}

func (m *Mesh) setPeers(addresses map[protocol.NodeID]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	for node, p := range m.peers {
		address, ok := addresses[node]
		if ok && address == p.address {
			p.guest.Store(false)
		} else if ok || !p.guest.Load() {
			p.close()
			delete(m.peers, node)
		}
	}
	for node, address := range addresses {
		if node != m.cfg.Self && m.peers[node] == nil {
			p := newPeer(m, node, address)
			m.peers[node] = p
			m.group.Go(p.run)
		}
	}
	now := maps.Clone(m.peers)
	m.byNode.Store(&now)
}

// peer returns the peer of that name, or nil.
func (m *Mesh) peer(node protocol.NodeID) *peer { return (*m.byNode.Load())[node] }

// Close cuts all connections and returns when no goroutine of the mesh is left; so it waits for a
// receiver that has not returned. Messages that are queued are lost.
func (m *Mesh) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		m.group.Wait()
		return nil
	}
	m.closed = true
	for _, p := range m.peers {
		p.close()
	}
	for conn := range m.guests {
		_ = conn.Close() // nothing is written to it that anybody waits for
	}
	m.mu.Unlock()
	m.end()
	m.self.settle()
	err := m.listener.Close()
	m.group.Wait()
	return err
}

// names returns the names of the peers, for people.
func (m *Mesh) names() []protocol.NodeID {
	return slices.Sorted(maps.Keys(*m.byNode.Load()))
}

// Channel returns the channel with the number, 0 to 254: each protocol that runs over the mesh has one
// of its own, with the same number on all nodes. It panics on 255, which the mesh keeps for itself.
func (m *Mesh) Channel(number uint8) *Channel { return m.channels[number] }

// Channel carries the messages of one protocol. All methods are safe for concurrent use.
type Channel struct {
	mesh     *Mesh
	number   byte
	receiver atomic.Pointer[func(protocol.NodeID, []byte)]
}

// Send hands payload to the node to. It never waits, and keeps nothing of payload. The message is lost
// where the peer is unknown, or away for more than a moment, where its queue is full, and where payload
// is longer than Config.MaxPayload; Status counts those. A message to the mesh's own node is
// delivered too, by another goroutine.
func (c *Channel) Send(to protocol.NodeID, payload []byte) {
	m := c.mesh
	if to == m.cfg.Self {
		m.self.put(c, payload)
		return
	}
	p := m.peer(to)
	if p == nil {
		return
	}
	if len(payload) > m.cfg.MaxPayload {
		p.dropped.Add(1)
		m.log.warn("a message is too long to send", "node", to, "channel", c.number, "bytes", len(payload), "most", m.cfg.MaxPayload)
		return
	}
	p.send(c.number, payload)
}

// Receive sets what is called with each message that arrives; the payload is its to keep. It is called by
// one goroutine at a time for one peer, and by several for several. While it has not returned nothing
// more is read from that peer, so it must not wait for long: after Config.Silence the peer takes this
// node for dead. What arrives before there is a receiver is lost, and counted by Status.
func (c *Channel) Receive(receiver func(from protocol.NodeID, payload []byte)) {
	c.receiver.Store(&receiver)
}

// deliver reports false where nobody is there to receive the message.
func (c *Channel) deliver(from protocol.NodeID, payload []byte) bool {
	receiver := c.receiver.Load()
	if receiver == nil {
		return false
	}
	(*receiver)(from, payload)
	return true
}

// loopqueue carries what a node sends to itself.
type loopqueue struct {
	mesh    *Mesh
	mu      sync.Mutex
	queue   []selfMessage
	bytes   int
	running bool
	dropped uint64
}

type selfMessage struct {
	channel *Channel
	payload []byte
}

func (q *loopqueue) put(c *Channel, payload []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.bytes+len(payload) > q.mesh.cfg.MaxQueue || q.mesh.life.Err() != nil {
		q.dropped++
		return
	}
	q.queue = append(q.queue, selfMessage{c, append([]byte(nil), payload...)})
	q.bytes += len(payload)
	if !q.running {
		q.running = true
		q.mesh.group.Go(q.drain)
	}
}

// settle returns when nobody is left who begins to carry messages. The mesh's life has ended.
func (q *loopqueue) settle() {
	q.mu.Lock() // whoever saw the mesh alive held it, and has begun
	defer q.mu.Unlock()
	q.queue, q.bytes = nil, 0
}

func (q *loopqueue) drain() {
	for {
		q.mu.Lock()
		batch := q.queue
		q.queue, q.bytes = nil, 0
		if len(batch) == 0 || q.mesh.life.Err() != nil {
			q.running = false
			q.mu.Unlock()
			return
		}
		q.mu.Unlock()
		for _, m := range batch {
			m.channel.deliver(q.mesh.cfg.Self, m.payload)
		}
	}
}
