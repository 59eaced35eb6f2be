package transport_test

import (
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"assent/protocol"
	"assent/transport"
)

// gap is a way between two nodes that can be cut without a word to either.
type gap struct {
	listener net.Listener
	to       string
	mu       sync.Mutex
	cut      chan struct{} // closed while the way is whole
}

func newGap(t *testing.T, to string) *gap {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gap{listener: listener, to: to, cut: make(chan struct{})}
	close(g.cut)
	var group sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		g.heal()
		group.Wait()
	})
	group.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			group.Go(func() { g.carry(out, in) })
			group.Go(func() { g.carry(in, out) })
		}
	})
	return g
}

// carry copies until either side closes; while the way is cut it holds everything back.
func (g *gap) carry(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		g.mu.Lock()
		whole := g.cut
		g.mu.Unlock()
		<-whole
		if _, werr := to.Write(buf[:n]); werr != nil || err != nil {
			_, _ = io.Copy(io.Discard, from)
			return
		}
	}
}

func (g *gap) sever() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cut = make(chan struct{})
}

func (g *gap) heal() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.cut:
	default:
		close(g.cut)
	}
}

// A peer that has gone without a word is noticed by both, and called again until it is back.
func TestSilentCutIsNoticed(t *testing.T) {
	l := newLAN(t, "a", "b")
	g := newGap(t, l.addresses["b"])
	cfg := l.config("a")
	cfg.Peers = map[protocol.NodeID]string{"b": g.listener.Addr().String()}
	cfg.Ping, cfg.Silence, cfg.Handshake = 20*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond
	a := l.listen(cfg)
	cfg = l.config("b")
	cfg.Ping, cfg.Silence = 20*time.Millisecond, 200*time.Millisecond
	b := l.listen(cfg)
	in := newInbox(b.Channel(0))
	awaitConnected(t, a, b)
	g.sever()
	// Only one way is cut. A busy machine may break the other one too, but not for long.
	eventually(t, "a notices", func() bool {
		s := statusOf(a, "b")
		return !s.Connected && s.Hears && strings.Contains(s.Words(time.Now()), "though it still reaches this node")
	})
	eventually(t, "a says why", func() bool {
		return strings.Contains(l.logs["a"].String(), "nothing was heard of it for 200ms")
	})
	eventually(t, "b notices", func() bool {
		s := statusOf(b, "a")
		return s.Connected && !s.Hears && strings.Contains(s.Words(time.Now()), "it has not called back")
	})
	eventually(t, "the call in between is given up", func() bool {
		return strings.Contains(statusOf(a, "b").Why, "no answer to hello within 200ms")
	})
	g.heal()
	awaitConnected(t, a, b)
	// A hello that was on its way in the gap may arrive now, and end the new stream with all that is on it.
	eventually(t, "messages arrive again", func() bool {
		a.Channel(0).Send("b", []byte("back"))
		all := in.all()
		return len(all) > 0 && all[0] == "a: back"
	})
}

// A stream on which the receiver does nothing for too long is given up; the next one waits until the
// receiver has returned, so that one at a time is called.
func TestReceiverIsCalledOneAtATime(t *testing.T) {
	l := newLAN(t, "a", "b")
	cfg := l.config("a")
	cfg.Ping, cfg.Silence = 10*time.Millisecond, 50*time.Millisecond
	a := l.listen(cfg)
	cfg = l.config("b")
	cfg.Handshake = 100 * time.Millisecond
	b := l.listen(cfg)
	var mu sync.Mutex
	inside, most := 0, 0
	blocked := make(chan struct{})
	release := sync.OnceFunc(func() { close(blocked) })
	t.Cleanup(release)
	b.Channel(0).Receive(func(protocol.NodeID, []byte) {
		mu.Lock()
		inside++
		most = max(most, inside)
		mu.Unlock()
		<-blocked
		mu.Lock()
		inside--
		mu.Unlock()
	})
	awaitConnected(t, a, b)
	a.Channel(0).Send("b", nil)
	eventually(t, "the stream is given up", func() bool { return statusOf(a, "b").Breaks > 0 })
	eventually(t, "a new one is refused", func() bool {
		a.Channel(0).Send("b", nil)
		return strings.Contains(l.logs["b"].String(), "is still being dealt with")
	})
	release()
	awaitConnected(t, a, b)
	mu.Lock()
	defer mu.Unlock()
	if most != 1 {
		t.Errorf("the receiver was called by %d at once", most)
	}
}

func TestCloseLeavesNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	ca := newAuthority(t, "ours")
	for _, secure := range []bool{false, true} {
		l := newLAN(t, "a", "b", "c", "absent")
		var meshes []*transport.Mesh
		for _, n := range []protocol.NodeID{"a", "b", "c"} {
			cfg := l.config(n)
			delete(cfg.Peers, "absent")
			if secure {
				cfg.TLS = ca.node(string(n))
			}
			meshes = append(meshes, l.listen(cfg))
		}
		awaitConnected(t, meshes...)
		if err := meshes[0].SetPeers(l.addresses); err != nil { // one that never answers
			t.Fatal(err)
		}
		var group sync.WaitGroup
		for _, m := range meshes {
			m.Channel(0).Receive(func(from protocol.NodeID, _ []byte) { m.Channel(1).Send(from, make([]byte, 1000)) })
			for range 3 {
				group.Go(func() {
					for range 300 {
						for n := range l.addresses {
							m.Channel(0).Send(n, make([]byte, 1000))
						}
					}
				})
			}
		}
		for _, m := range meshes {
			group.Go(func() {
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		for _, listener := range l.listeners {
			_ = listener.Close()
		}
	}
	eventually(t, "all goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}
