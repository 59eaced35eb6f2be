package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// maxGreeted bounds the connections that have not greeted yet.
const maxGreeted = 64

// accept takes connections until the listener is closed.
func (m *Mesh) accept() {
	room := make(chan struct{}, maxGreeted)
	for {
		conn, err := m.listener.Accept()
		switch {
		case m.life.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return
		case errors.Is(err, net.ErrClosed):
			m.cfg.Logger.Error("the listener for peers was closed", "error", err)
			return
		case err != nil: // there are too many open files, say: it may pass
			m.log.warn("cannot accept a peer", "error", err)
			select {
			case <-time.After(50 * time.Millisecond):
			case <-m.life.Done():
			}
			continue
		}
		select {
		case room <- struct{}{}:
		default:
			_ = conn.Close()
			m.log.warn("connection refused", "from", conn.RemoteAddr(), "reason", "too many connections have not said who they are")
			continue
		}
		if !m.admit(conn) {
			_ = conn.Close()
			continue
		}
		m.group.Go(func() {
			defer m.leave(conn)
			m.host(conn, sync.OnceFunc(func() { <-room }))
		})
	}
}

// admit notes a connection that came in, so that Close cuts it.
func (m *Mesh) admit(conn net.Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.guests[conn] = true
	}
	return !m.closed
}

func (m *Mesh) leave(conn net.Conn) {
	_ = conn.Close() // all that was to be read of it is read
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.guests, conn)
}

// host greets who has called and takes its messages until the connection ends. It calls greeted when
// the greeting is over, or fails.
func (m *Mesh) host(conn net.Conn, greeted func()) {
	defer greeted()
	ctx, cancel := context.WithTimeout(m.life, m.cfg.Handshake)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	w := newWire(conn, m.epoch)
	stream, p, h, err := m.receiveHello(ctx, w)
	if err == nil {
		err = p.takeOver(ctx, w)
	}
	if err != nil {
		if m.life.Err() == nil {
			m.log.warn("connection refused", "from", conn.RemoteAddr(), "node", h.from, "reason", err)
		}
		return
	}
	defer p.letGo(w)
	version := m.cfg.speaks.with(h.speaks)
	a := answer{version: version, from: m.cfg.Self, software: m.cfg.Software}
	if _, err := stream.Write(a.encode()); err != nil || !stop() {
		return // it has gone, or was too slow: it calls again
	}
	greeted()
	p.mu.Lock()
	p.version, p.program = version, h.software
	p.mu.Unlock()
	select {
	case p.hurry <- struct{}{}:
	default:
	}
	w.patience = m.cfg.Silence
	err = p.receive(stream)
	if p.life.Err() == nil {
		m.cfg.Logger.Debug("the stream from a node ended", "node", p.node, "reason", err)
	}
}

// receiveHello says who has called, or tells it why it is refused.
func (m *Mesh) receiveHello(ctx context.Context, w *wire) (net.Conn, *peer, hello, error) {
	var stream net.Conn = w
	if m.cfg.TLS != nil {
		conn := tls.Server(w, called(m.cfg.TLS))
		if err := conn.HandshakeContext(ctx); err != nil {
			return nil, nil, hello{}, fmt.Errorf("tls: %w", hintOfTLS(err))
		}
		stream = conn
	}
	h, err := readHello(stream)
	if err != nil {
		return nil, nil, h, err
	}
	p, err := m.judge(stream, h)
	if err != nil {
		a := answer{version: m.cfg.speaks.newest, from: m.cfg.Self, software: m.cfg.Software, text: err.Error()}
		_, _ = stream.Write(a.encode()) // a courtesy
	}
	return stream, p, h, err
}

// judge returns the peer that the hello is from, or why there is none.
func (m *Mesh) judge(stream net.Conn, h hello) (*peer, error) {
	if CheckName(string(h.from)) != nil || CheckName(h.cluster) != nil {
		return nil, errors.New("its hello holds a name that cannot be")
	}
	if conn, ok := stream.(*tls.Conn); ok {
		if err := belongs(conn.ConnectionState().PeerCertificates[0], h.from); err != nil {
			return nil, fmt.Errorf("the certificate of node %s: %w", h.from, err)
		}
	}
	switch p := m.peer(h.from); {
	case h.cluster != m.cfg.Cluster:
		return nil, fmt.Errorf("it belongs to cluster %q, and this is cluster %q", h.cluster, m.cfg.Cluster)
	case h.to != m.cfg.Self:
		return nil, fmt.Errorf("it calls node %.63q, and this is node %s; one of the addresses is wrong", h.to, m.cfg.Self)
	case m.cfg.speaks.with(h.speaks) == 0:
		return nil, fmt.Errorf("it speaks %v of the protocol, and this node %v; upgrade in smaller steps", h.speaks, m.cfg.speaks)
	case h.from == m.cfg.Self:
		return nil, fmt.Errorf("it calls itself %s, as this node does; each node needs a name of its own", h.from)
	case p == nil:
		return m.receiveGuest(h)
	default:
		return p, nil
	}
}

// takeOver makes w the one stream from the peer: an earlier one, which the peer must have given up, is
// cut, and its receiver waited for.
func (p *peer) takeOver(ctx context.Context, w *wire) error {
	for {
		p.mu.Lock()
		if p.in != nil {
			_ = p.in.Close()
		}
		p.mu.Unlock()
		select {
		case p.reading <- struct{}{}:
			p.mu.Lock()
			defer p.mu.Unlock()
			p.in = w
			if p.life.Err() != nil {
				p.in = nil
				<-p.reading
				return errors.New("the node has left the cluster")
			}
			return nil
		case <-ctx.Done():
			return errors.New("what it sent on an earlier connection is still being dealt with")
		case <-p.life.Done():
			return errors.New("the node has left the cluster")
		case <-time.After(20 * time.Millisecond): // another may have taken over meanwhile
		}
	}
}

func (p *peer) letGo(w *wire) {
	p.mu.Lock()
	p.noteHeard(w)
	if p.in == w {
		p.in = nil
	}
	p.mu.Unlock()
	<-p.reading
}

// noteHeard keeps when a stream that goes was heard of. It is called with the lock held under which it goes.
func (p *peer) noteHeard(w *wire) {
	p.heard.Store(max(p.heard.Load(), w.heard.Load()))
}

// receive takes the peer's messages until the connection ends, and returns why.
func (p *peer) receive(stream net.Conn) error {
	r := newFrameReader(stream, p.mesh.cfg.MaxPayload)
	var reply []byte
	for {
		channel, payload, err := r.next()
		if err != nil {
			return err
		}
		if channel != control && p.guest.Load() && !p.mayHear(channel) {
			p.lost.Add(1)
			continue
		}
		if channel != control {
			p.received.Add(1)
			if !p.mesh.channels[channel].deliver(p.node, payload) {
				p.lost.Add(1)
			}
			continue
		}
		if len(payload) > 0 && payload[0] == ping {
			payload[0] = pong
			reply = appendFrame(reply[:0], control, payload)
			if _, err := stream.Write(reply); err != nil {
				return err
			}
		}
	}
}

// sparing is a logger that says no more than one line a second of what others can provoke.
type sparing struct {
	logger *slog.Logger
	mu     sync.Mutex
	next   time.Time
	missed int
}

func (s *sparing) warn(text string, args ...any) {
	s.mu.Lock()
	missed := s.missed
	if now := time.Now(); now.Before(s.next) {
		s.missed++
		s.mu.Unlock()
		return
	} else {
		s.next, s.missed = now.Add(time.Second), 0
	}
	s.mu.Unlock()
	if missed > 0 {
		args = append(args, "unreported", missed)
	}
	s.logger.Warn(text, args...)
}
