package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"
)

// stream is a connection to a peer, made by this node and written by it.
type stream struct {
	peer *peer
	wire *wire
	conn net.Conn // the wire, or TLS over it
	// wake tells the stream's own goroutine that it is the writer now.
	wake chan struct{}
	// busy says that somebody is the writer: a caller of send that found nobody writing, or the
	// stream's own goroutine. It is guarded by peer.mu.
	busy bool
}

// use carries messages over s until it breaks, and returns why.
func (p *peer) use(s *stream) error {
	p.mu.Lock()
	p.out, p.since, p.why = s, time.Now(), nil
	s.busy = true
	p.mu.Unlock()
	s.wire.patience = p.mesh.cfg.Silence
	stop := make(chan struct{})
	listened := make(chan error, 1)
	go func() { listened <- s.listen() }()
	written := make(chan error, 1)
	go func() { written <- s.write(stop) }()

	var err error
	select {
	case err = <-listened:
		listened <- nil
	case err = <-written:
		written <- nil
	case <-p.life.Done():
		err = errors.New("this node leaves")
	}
	p.mu.Lock()
	p.noteHeard(s.wire)
	p.out, p.since, p.why = nil, time.Now(), err
	p.queued = time.Now()
	p.breaks.Add(1) // whoever sees that the stream is gone sees that it broke
	p.mu.Unlock()
	close(stop)
	_ = s.wire.Close() // both goroutines end by that
	<-listened
	<-written
	return err
}

// writeAtOnce writes what can be written without waiting. The caller is the writer.
func (s *stream) writeAtOnce(batch []byte) error {
	s.wire.eager.Store(true)
	_, err := s.conn.Write(batch)
	s.wire.eager.Store(false)
	return err
}

// write is the stream's own goroutine: it writes what callers cannot write without waiting, and what
// was queued while they wrote.
func (s *stream) write(stop <-chan struct{}) error {
	p := s.peer
	ticker := time.NewTicker(p.mesh.cfg.Ping)
	defer ticker.Stop()
	if err := s.drain(); err != nil { // what was queued while the peer was away
		return err
	}
	for {
		select {
		case <-stop:
			return nil
		case <-s.wake:
		case <-ticker.C:
			if !s.ping() {
				continue
			}
		}
		if err := s.drain(); err != nil {
			return err
		}
	}
}

// ping queues a ping and reports whether the stream's own goroutine is the writer now.
func (s *stream) ping() bool {
	p := s.peer
	var payload [9]byte
	payload[0] = ping
	binary.BigEndian.PutUint64(payload[1:], uint64(time.Since(p.mesh.epoch)))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = appendFrame(p.queue, control, payload[:])
	if s.busy {
		return false
	}
	s.busy = true
	return true
}

// drain writes until nothing is left: all that is queued in one write. The caller is the writer, and
// is not after.
func (s *stream) drain() error {
	p := s.peer
	for {
		if err := s.wire.flush(); err != nil {
			return err
		}
		p.mu.Lock()
		if len(p.queue) == 0 {
			s.busy = false
			p.mu.Unlock()
			return nil
		}
		batch := p.takeLocked()
		p.mu.Unlock()
		_, err := s.conn.Write(batch)
		p.mu.Lock()
		p.giveLocked(batch)
		p.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// listen reads the pongs until the connection ends.
func (s *stream) listen() error {
	r := newFrameReader(s.conn, maxControl)
	for {
		channel, payload, err := r.next()
		if err != nil {
			return fmt.Errorf("the connection ended: %w", hintOfTLS(err))
		}
		if channel == control && len(payload) == 9 && payload[0] == pong {
			then := time.Duration(binary.BigEndian.Uint64(payload[1:]))
			s.peer.rtt.Store(int64(time.Since(s.peer.mesh.epoch) - then))
		}
	}
}
