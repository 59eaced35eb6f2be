package cutproxy

import (
	"bufio"
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
)

// link is one client's connection and the server's behind it.
type link struct {
	proxy  *Proxy
	client net.Conn

	mu     sync.Mutex
	server net.Conn
	closed bool

	swallow atomic.Bool   // the server's answers no longer go to the client
	ready   chan struct{} // closed at the first ReadyForQuery while swallow is set
	gone    chan struct{} // closed by close
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	close(l.gone)
	_ = l.client.Close()
	if l.server != nil {
		_ = l.server.Close()
	}
}

func (l *link) dial() bool {
	server, err := net.Dial(l.proxy.network, l.proxy.address)
	if err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.server = server
	if l.closed {
		_ = server.Close()
	}
	return !l.closed
}

// The codes of startup messages that ask for something else than a session.
const (
	cancelRequest = 80877102
	sslRequest    = 80877103
	gssRequest    = 80877104
)

func (l *link) run() {
	defer l.close()
	in := bufio.NewReader(l.client)
	for {
		m, err := readMessage(in, true)
		if err != nil || len(m) < 8 {
			return
		}
		code := binary.BigEndian.Uint32(m[4:])
		if code == sslRequest || code == gssRequest {
			if _, err := l.client.Write([]byte("N")); err != nil {
				return
			}
			continue
		}
		if !l.dial() {
			return
		}
		if _, err := l.server.Write(m); err != nil || code == cancelRequest {
			return
		}
		break
	}
	var answers sync.WaitGroup
	answers.Go(l.answers)
	l.requests(in)
	l.close()
	answers.Wait()
}

func (l *link) requests(in *bufio.Reader) {
	for {
		m, err := readMessage(in, false)
		if err != nil {
			return
		}
		h := l.proxy.take(m)
		if h == nil {
			if _, err := l.server.Write(m); err != nil {
				return
			}
			continue
		}
		switch h.action {
		case CutBefore:
			l.close()
		case CutReply:
			l.cutReply(in, m)
		case CutLate:
			l.cutLate(in, m, h)
			return
		}
		close(h.happened)
		return
	}
}

// rest returns m and what follows up to the end of the request: a pipeline ends with Sync.
func rest(in *bufio.Reader, m []byte) []byte {
	all := m
	for m[0] != 'Q' && m[0] != 'S' {
		var err error
		if m, err = readMessage(in, false); err != nil {
			break
		}
		all = append(all, m...)
	}
	return all
}

func (l *link) cutReply(in *bufio.Reader, m []byte) {
	l.swallow.Store(true)
	if _, err := l.server.Write(rest(in, m)); err == nil {
		select {
		case <-l.ready:
		case <-l.gone:
		}
	}
	l.close()
}

func (l *link) cutLate(in *bufio.Reader, m []byte, h *Hit) {
	defer close(h.delivered)
	held := rest(in, m)
	l.swallow.Store(true)
	_ = l.client.Close()
	close(h.happened)
	select {
	case <-h.deliver:
	case <-l.gone:
		return
	}
	if _, err := l.server.Write(held); err != nil {
		return
	}
	select {
	case <-l.ready:
	case <-l.gone:
	}
}

func (l *link) answers() {
	defer l.close()
	in := bufio.NewReader(l.server)
	for {
		m, err := readMessage(in, false)
		if err != nil {
			return
		}
		if l.swallow.Load() {
			if m[0] == 'Z' {
				close(l.ready)
				return
			}
			continue
		}
		if _, err := l.client.Write(m); err != nil && !l.swallow.Load() {
			return
		}
	}
}
