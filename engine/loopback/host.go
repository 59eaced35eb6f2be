package loopback

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"assent/engine"
	"assent/protocol"
	"assent/trace"
)

// host is a node's place: what of it outlives a crash.
type host struct {
	net     *Network
	node    protocol.Node
	conn    *net.UDPConn
	address netip.AddrPort

	mu   sync.Mutex
	disk map[string][]byte // records, encoded
	life *life             // nil while the node is down
}

// life is a node from one crash to the next: hands, clock and observer of its loop. What it still does
// after its crash has no effect.
type life struct {
	*host
	machine protocol.Machine
	loop    *engine.Loop
	// stepping is the event of a step that holds the network's; it is the stepping goroutine's.
	stepping *trace.Event
}

var (
	_ engine.Hands   = (*life)(nil)
	_ engine.Clock   = (*life)(nil)
	_ trace.Observer = (*life)(nil)
)

// start makes the node run the machine, unless one is running.
func (h *host) start(m protocol.Machine, first protocol.Event) {
	l := &life{host: h, machine: m}
	l.loop = engine.New(engine.Config{Node: h.node.ID, Machine: m, Hands: l, Clock: l, Observer: l})
	h.mu.Lock()
	up := h.life != nil
	if !up {
		h.life = l
	}
	h.mu.Unlock()
	if !up {
		h.net.deliver(l.loop, first)
	}
}

// halt takes the node down and reports whether it was up. Where crashed is set the observer is told.
func (h *host) halt(crashed bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.life == nil {
		return false
	}
	h.life.loop.Stop()
	h.life = nil
	if crashed {
		h.observe(trace.Event{Node: h.node.ID, Kind: trace.Crash})
	}
	return true
}

// restart makes the machine anew with the records that were forced.
func (h *host) restart() error {
	records := protocol.Records{}
	h.mu.Lock()
	for key, data := range h.disk {
		record, err := h.net.cfg.Codec.Decode(data)
		if err != nil {
			h.mu.Unlock()
			return fmt.Errorf("node %s: record %s: %w", h.node.ID, key, err)
		}
		records[key] = record
	}
	h.mu.Unlock()
	made := h.node.Anew
	if made == nil {
		made = h.node.New[0]
	}
	h.start(made(), protocol.Recover{Records: records})
	return nil
}

// deliver gives the machine an event, if the node is up.
func (h *host) deliver(ev protocol.Event) {
	h.mu.Lock()
	l := h.life
	h.mu.Unlock()
	if l != nil {
		h.net.deliver(l.loop, ev)
	}
}

// read hands over what arrives until the socket is closed. What comes from elsewhere than a node of this
// network is dropped.
func (h *host) read() {
	for data := make([]byte, maxMessage); ; {
		size, source, err := h.conn.ReadFromUDPAddrPort(data)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		from, known := h.net.addresses[source]
		if err != nil || !known {
			continue
		}
		message, err := h.net.cfg.Codec.Decode(data[:size])
		if err != nil {
			h.net.fail(fmt.Errorf("node %s: a message from %s: %w", h.node.ID, from, err))
			continue
		}
		h.deliver(protocol.Receive{From: from, Message: message})
	}
}

// observe tells the observer, if there is one. The caller holds h.mu, so that nothing of a life is told
// after its crash.
func (h *host) observe(e trace.Event) {
	if h.net.cfg.Observer != nil {
		h.net.cfg.Observer.Observe(e)
	}
}

var errDown = errors.New("the node is down")

// up reports whether the life goes on.
func (l *life) up() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.life == l
}

// Observe implements trace.Observer.
func (l *life) Observe(e trace.Event) {
	if len(l.net.cfg.Always) > 0 {
		l.oneByOne(e)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.life == l {
		l.observe(e)
	}
}

// oneByOne keeps other machines from being stepped from when the event is delivered until its writes are
// stable, and judges the claims then: before the first of whatever else follows from it.
func (l *life) oneByOne(e trace.Event) {
	switch {
	case e.Kind == trace.Deliver:
		l.net.step.Lock()
		l.stepping = &e
	case l.stepping != nil && e.Kind != trace.Force:
		if e.Kind != trace.Failed && l.up() {
			l.net.judge(*l.stepping)
		}
		l.stepping = nil
		l.net.step.Unlock()
	}
}

// Force implements engine.Hands: all writes, or after a crash none.
func (l *life) Force(writes []protocol.Write) error {
	encoded := make([][]byte, len(writes))
	for i, w := range writes {
		if w.Record == nil {
			continue
		}
		var err error
		if encoded[i], err = l.net.cfg.Codec.Encode(w.Record); err != nil {
			err = fmt.Errorf("node %s: record %s: %w", l.node.ID, w.Key, err)
			l.net.fail(err)
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.life != l {
		return errDown
	}
	for i, w := range writes {
		if w.Record == nil {
			delete(l.disk, w.Key)
		} else {
			l.disk[w.Key] = encoded[i]
		}
	}
	return nil
}

// Send implements engine.Hands. A datagram that the system does not take is lost, as any may be.
func (l *life) Send(to protocol.NodeID, message protocol.Message) {
	if !l.up() {
		return
	}
	peer, known := l.net.hosts[to]
	if !known {
		l.net.fail(fmt.Errorf("node %s sends %T to %q, which is no node", l.node.ID, message, to))
		return
	}
	data, err := l.net.cfg.Codec.Encode(message)
	if err == nil && len(data) > maxMessage {
		err = fmt.Errorf("it has %d bytes; at most %d are allowed", len(data), maxMessage)
	}
	if err != nil {
		l.net.fail(fmt.Errorf("node %s sends %T to %s: %w", l.node.ID, message, to, err))
		return
	}
	_, _ = l.conn.WriteToUDPAddrPort(data, peer.address)
}

// Emit implements engine.Hands.
func (l *life) Emit(value protocol.Value) {
	if l.net.cfg.Emit != nil && l.up() {
		l.net.cfg.Emit(l.node.ID, value)
	}
}

// AfterFunc implements engine.Clock, by the system's clock.
func (l *life) AfterFunc(d time.Duration, f func()) (stop func()) {
	return engine.SystemClock{}.AfterFunc(d, func() {
		if l.net.begin() {
			defer l.net.steps.Done()
			f()
		}
	})
}
