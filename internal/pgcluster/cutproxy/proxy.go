// Package cutproxy stands between a PostgreSQL client and its server and cuts the connection at
// a chosen statement: before the server sees it, after the server has answered, or so that the
// server executes it late, when the client has long given up.
//
// It promises that what it lets pass is unchanged and in order. It understands the framing of
// PostgreSQL's protocol 3 and nothing else; it offers no TLS. It is for tests.
package cutproxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Action is what happens at a statement.
type Action uint8

// The actions.
const (
	// CutBefore cuts the connection; the server never sees the statement.
	CutBefore Action = iota + 1
	// CutReply lets the server execute the statement, takes its answer and cuts the connection.
	CutReply
	// CutLate cuts the client at once and holds the statement until Hit.Deliver. The server
	// knows nothing of the cut meanwhile.
	CutLate
)

// maxMessage bounds the messages that the proxy carries.
const maxMessage = 64 << 20

// Proxy listens on 127.0.0.1 and forwards to a server. Its methods are safe for concurrent use.
type Proxy struct {
	network, address string
	listener         net.Listener
	done             sync.WaitGroup

	mu     sync.Mutex
	down   bool
	closed bool
	hits   []*Hit
	conns  map[*link]struct{}
}

// New starts a proxy in front of the server that is dialled with network and address.
func New(network, address string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a proxy: %w", err)
	}
	p := &Proxy{network: network, address: address, listener: l, conns: map[*link]struct{}{}}
	p.done.Go(p.accept)
	return p, nil
}

// DSN returns a connection string by way of the proxy.
func (p *Proxy) DSN(user, db string) string {
	addr := p.listener.Addr().(*net.TCPAddr)
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable", addr.IP, addr.Port, user, db)
}

// Close cuts every connection and stops the proxy.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	err := p.listener.Close()
	p.Cut()
	p.done.Wait()
	return err
}

// Cut cuts every connection, on both sides, and every new one until Heal.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for l := range p.conns {
		l.close()
	}
}

// Heal ends Cut.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = p.closed
}

// On does action at the next message from a client that contains match, once. A prepared
// statement's text is seen when it is prepared, not when it is executed.
func (p *Proxy) On(match string, action Action) *Hit {
	h := &Hit{match: []byte(match), action: action, happened: make(chan struct{}), deliver: make(chan struct{}), delivered: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hits = append(p.hits, h)
	return h
}

// Hit is one cut that was asked for with On.
type Hit struct {
	match     []byte
	action    Action
	happened  chan struct{}
	once      sync.Once
	deliver   chan struct{}
	delivered chan struct{}
}

// Happened is closed when the connection was cut; with CutReply the server has answered before.
func (h *Hit) Happened() <-chan struct{} { return h.happened }

// Deliver hands the held statement to the server (CutLate) and returns when the server has
// answered it, or has closed the connection.
func (h *Hit) Deliver(ctx context.Context) error {
	if h.action != CutLate {
		return errors.New("only a late statement can be delivered")
	}
	h.once.Do(func() { close(h.deliver) })
	select {
	case <-h.delivered:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("deliver a late statement: %w", ctx.Err())
	}
}

func (p *Proxy) take(message []byte) *Hit {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, h := range p.hits {
		if bytes.Contains(message, h.match) {
			p.hits = append(p.hits[:i:i], p.hits[i+1:]...)
			return h
		}
	}
	return nil
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		l := &link{proxy: p, client: client, ready: make(chan struct{}), gone: make(chan struct{})}
		p.mu.Lock()
		down := p.down || p.closed
		if !down {
			p.conns[l] = struct{}{}
		}
		p.mu.Unlock()
		if down {
			_ = client.Close()
			continue
		}
		p.done.Go(func() {
			l.run()
			p.mu.Lock()
			delete(p.conns, l)
			p.mu.Unlock()
		})
	}
}

// readMessage reads one message; a startup message has no type byte.
func readMessage(r io.Reader, startup bool) ([]byte, error) {
	head := 5
	if startup {
		head = 4
	}
	b := make([]byte, head)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(b[head-4:])) - 4
	if n < 0 || n > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes", n)
	}
	b = append(b, make([]byte, n)...)
	_, err := io.ReadFull(r, b[head:])
	return b, err
}
