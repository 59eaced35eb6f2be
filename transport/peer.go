package transport

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"assent/protocol"
)

// peer is another node: the stream to it, which this node makes, and the stream from it.
type peer struct {
	mesh    *Mesh
	node    protocol.NodeID
	address string
	life    context.Context
	end     context.CancelFunc
	hurry   chan struct{} // the peer has called: it is up
	guest   atomic.Bool   // it is not one of those that SetPeers has named

	mu      sync.Mutex
	out     *stream // to the peer; nil while it is away
	since   time.Time
	why     error  // why it is away
	queue   []byte // frames that wait
	spare   []byte // memory for the queue
	queued  time.Time
	in      *wire  // from the peer; nil while there is none
	version byte   // of the protocol, on the last stream of either way
	program string // what it has said of its software

	reading chan struct{} // holds a token while somebody delivers what the peer sends
	allowed allowance     // while it is a guest; whoever has the token uses it
	heard   atomic.Int64  // nanoseconds since the mesh's epoch; of streams that are gone
	rtt     atomic.Int64

	sent, received, lost, dropped, missed, breaks atomic.Uint64
}

func newPeer(m *Mesh, node protocol.NodeID, address string) *peer {
	p := &peer{mesh: m, node: node, address: address, since: time.Now(), why: errNotYet,
		hurry: make(chan struct{}, 1), reading: make(chan struct{}, 1)}
	p.life, p.end = context.WithCancel(m.life)
	return p
}

var errNotYet = errors.New("it has not answered yet")

// close ends the peer: it is called with the mesh's lock held.
func (p *peer) close() {
	p.end()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.in != nil {
		_ = p.in.Close() // its reader is told by that
	}
}

// run keeps a stream to the peer for as long as the peer belongs to the mesh.
func (p *peer) run() {
	pause := p.mesh.cfg.Retry
	told := ""
	for p.life.Err() == nil {
		s, err := p.call()
		if err == nil {
			p.mesh.cfg.Logger.Info("connected to node", "node", p.node, "address", p.address)
			err = p.use(s)
			pause, told = p.mesh.cfg.Retry, ""
		}
		if p.life.Err() != nil {
			return
		}
		p.mu.Lock()
		p.why = err
		p.mu.Unlock()
		if text := err.Error(); text != told { // the same reason is told once
			told = text
			p.mesh.cfg.Logger.Warn("node cannot be reached", "node", p.node, "address", p.address, "reason", err)
		}
		if !p.pause(pause/2 + rand.N(pause)) {
			return
		}
		pause = min(2*pause, p.mesh.cfg.RetryMost)
	}
}

// pause waits, or until the peer itself has called.
func (p *peer) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.hurry:
	case <-p.life.Done():
		return false
	}
	return true
}

// mostDialing bounds one attempt to connect, to the time after which TCP itself repeats a lost SYN: the next
// attempt does so as well, and sooner than TCP, whose pauses double.
const mostDialing = time.Second

// call makes a connection and greets.
func (p *peer) call() (*stream, error) {
	m := p.mesh
	ctx, cancel := context.WithTimeout(p.life, m.cfg.Handshake)
	defer cancel()
	dialer := net.Dialer{Timeout: mostDialing}
	conn, err := dialer.DialContext(ctx, "tcp", p.address)
	if err != nil {
		return nil, err
	}
	w := newWire(conn, m.epoch)
	s := &stream{peer: p, wire: w, conn: w, wake: make(chan struct{}, 1)}
	// The end of ctx, its success excepted, ends whatever the handshake waits for.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	if err = p.greet(ctx, s); err == nil && !stop() {
		err = ctx.Err()
	}
	if err == nil {
		return s, nil
	}
	_ = conn.Close() // the first error says more
	if ctx.Err() != nil {
		err = fmt.Errorf("no answer to hello within %v", m.cfg.Handshake)
	}
	return nil, err
}

// greet makes TLS where there is TLS, says hello and hears the answer.
func (p *peer) greet(ctx context.Context, s *stream) error {
	m := p.mesh
	if m.cfg.TLS != nil {
		conn := tls.Client(s.wire, calling(m.cfg.TLS, p.node))
		if err := conn.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("tls: %w", hintOfTLS(err))
		}
		s.conn = conn
	}
	h := hello{speaks: m.cfg.speaks, cluster: m.cfg.Cluster, from: m.cfg.Self, to: p.node, software: m.cfg.Software, address: m.cfg.Advertise}
	if _, err := s.conn.Write(h.encode()); err != nil {
		return fmt.Errorf("say hello: %w", hintOfTLS(err))
	}
	a, err := readAnswer(s.conn)
	switch {
	case err != nil:
		return fmt.Errorf("the answer to hello: %w", hintOfTLS(err))
	case a.text != "":
		return fmt.Errorf("it refuses this node: %s", a.text)
	case a.from != p.node:
		return fmt.Errorf("at this address there is node %q", a.from)
	case m.cfg.speaks.with(versions{a.version, a.version}) == 0:
		return fmt.Errorf("it chose version %d of the protocol, and this node speaks %v", a.version, m.cfg.speaks)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.program, p.version = a.software, a.version
	return nil
}

// stale is for how long messages to a peer that is away are kept: a break that is mended at once
// loses none of them, and one that lasts does not end with a flood of old news.
const stale = time.Second

// send queues a frame and, where nobody is writing, writes it.
func (p *peer) send(channel byte, payload []byte) {
	p.mu.Lock()
	s := p.out
	if s == nil && len(p.queue) > 0 && time.Since(p.queued) > stale {
		p.dropQueueLocked()
	}
	if len(p.queue)+frameHeader+len(payload) > p.mesh.cfg.MaxQueue {
		p.mu.Unlock()
		p.dropped.Add(1)
		return
	}
	if s == nil && len(p.queue) == 0 {
		p.queued = time.Now()
	}
	p.queue = appendFrame(p.queue, channel, payload)
	p.sent.Add(1)
	if s == nil || s.busy {
		p.mu.Unlock()
		return
	}
	s.busy = true
	batch := p.takeLocked()
	p.mu.Unlock()

	err := s.writeAtOnce(batch)

	p.mu.Lock()
	p.giveLocked(batch)
	more := err != nil || len(p.queue) > 0 || s.wire.behind()
	s.busy = more
	p.mu.Unlock()
	if more {
		s.wake <- struct{}{} // there is room: whoever is busy is the only one to send
	}
}

// dropQueueLocked loses what is queued.
func (p *peer) dropQueueLocked() {
	n := uint64(0)
	for rest := p.queue; len(rest) > 0; {
		if rest[0] != control {
			n++
		}
		rest = rest[frameHeader+int(binary.BigEndian.Uint32(rest[1:])):]
	}
	p.missed.Add(n)
	p.queue = p.queue[:0]
}

// takeLocked takes all that is queued.
func (p *peer) takeLocked() []byte {
	batch := p.queue
	p.queue, p.spare = p.spare[:0], nil
	return batch
}

// keepMost is the most memory that is kept for the next messages.
const keepMost = 256 << 10

// giveLocked gives the memory of a batch back.
func (p *peer) giveLocked(batch []byte) {
	if cap(batch) <= keepMost {
		p.spare = batch[:0]
	}
}
