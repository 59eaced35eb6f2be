package transport_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"assent/internal/ports"
	"assent/protocol"
	"assent/transport"
)

// record is a log that a test can read.
type record struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

// eventually waits until what holds.
func eventually(t *testing.T, text string, what func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !what(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not after a minute: %s", text)
		}
	}
}

// lan is the network of a test: addresses that are known before anybody listens, and that stay the nodes'
// between two lives.
type lan struct {
	t         testing.TB
	listeners map[protocol.NodeID]net.Listener
	addresses map[protocol.NodeID]string
	logs      map[protocol.NodeID]*record
}

func newLAN(t testing.TB, names ...protocol.NodeID) *lan {
	l := &lan{t: t, listeners: map[protocol.NodeID]net.Listener{}, addresses: map[protocol.NodeID]string{}, logs: map[protocol.NodeID]*record{}}
	for _, n := range names {
		address := ports.Address(t)
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = listener.Close() })
		l.listeners[n], l.addresses[n] = listener, address
	}
	return l
}

// config is the node's configuration: quick to try again. A busy machine is not taken for a silent peer.
func (l *lan) config(node protocol.NodeID) transport.Config {
	if l.logs[node] == nil {
		l.logs[node] = &record{}
	}
	peers := map[protocol.NodeID]string{}
	for n, a := range l.addresses {
		peers[n] = a
	}
	return transport.Config{
		Cluster: "test", Self: node, Listener: l.listeners[node], Address: l.addresses[node], Peers: peers, Software: "1.2",
		Ping: 50 * time.Millisecond, Silence: time.Minute, Retry: 5 * time.Millisecond, RetryMost: 50 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(l.logs[node], &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

func (l *lan) listen(cfg transport.Config) *transport.Mesh {
	l.t.Helper()
	m, err := transport.Listen(cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = m.Close() })
	return m
}

// inbox collects what arrives on a channel.
type inbox struct {
	mu  sync.Mutex
	got []string
}

func newInbox(c *transport.Channel) *inbox {
	b := &inbox{}
	c.Receive(func(from protocol.NodeID, payload []byte) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.got = append(b.got, fmt.Sprintf("%s: %s", from, payload))
	})
	return b
}

func (b *inbox) all() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.got)
}

func (b *inbox) await(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%q arrive", want), func() bool { return len(b.all()) >= len(want) })
	if got := b.all(); !slices.Equal(got, want) {
		t.Fatalf("arrived: %q, want %q", got, want)
	}
}

func connected(m *transport.Mesh) bool {
	for _, s := range m.Status() {
		if !s.Connected || !s.Hears {
			return false
		}
	}
	return true
}

func awaitConnected(t *testing.T, meshes ...*transport.Mesh) {
	t.Helper()
	for _, m := range meshes {
		eventually(t, fmt.Sprintf("%s is connected", m.Self()), func() bool { return connected(m) })
	}
}

func statusOf(m *transport.Mesh, node protocol.NodeID) transport.PeerStatus {
	all := m.Status()
	return all[slices.IndexFunc(all, func(s transport.PeerStatus) bool { return s.Node == node })]
}

func TestMessagesArriveInOrderOnTheirChannel(t *testing.T) {
	l := newLAN(t, "a", "b", "c")
	a, b, c := l.listen(l.config("a")), l.listen(l.config("b")), l.listen(l.config("c"))
	var want, wantSelf []string
	inB, inB2, inC, inA := newInbox(b.Channel(1)), newInbox(b.Channel(254)), newInbox(c.Channel(1)), newInbox(a.Channel(1))
	awaitConnected(t, a, b, c)
	for i := range 2000 {
		text := fmt.Sprintf("%d %s", i, strings.Repeat("x", i%700))
		want, wantSelf = append(want, "a: "+text), append(wantSelf, "a: "+text)
		a.Channel(1).Send("b", []byte(text))
		a.Channel(1).Send("a", []byte(text))
	}
	a.Channel(254).Send("b", nil)
	a.Channel(2).Send("b", []byte("nobody is there to receive it"))
	a.Channel(1).Send("nobody", []byte("x"))
	c.Channel(1).Send("b", []byte("from c"))
	inA.await(t, wantSelf...)
	eventually(t, "all arrive", func() bool { return len(inB.all()) == 2001 })
	got := slices.DeleteFunc(inB.all(), func(s string) bool { return s == "c: from c" })
	if !slices.Equal(got, want) {
		t.Error("messages of one node are out of order or changed")
	}
	inB2.await(t, "a: ")
	if len(inC.all()) > 0 {
		t.Errorf("c received %q", inC.all())
	}
	eventually(t, "all are counted, also the one that nobody was there to receive", func() bool {
		s := statusOf(b, "a")
		return s.Received == 2002 && s.Lost == 1
	})
	if s := statusOf(b, "a"); s.Software != "1.2" || s.Version != 1 || s.Heard.IsZero() {
		t.Errorf("%+v", s)
	}
}

func TestLongMessages(t *testing.T) {
	l := newLAN(t, "a", "b")
	cfg := l.config("a")
	cfg.MaxPayload = 1 << 20
	a := l.listen(cfg)
	cfg = l.config("b")
	cfg.MaxPayload = 1 << 20
	b := l.listen(cfg)
	awaitConnected(t, a, b)
	got := make(chan []byte, 10)
	b.Channel(0).Receive(func(_ protocol.NodeID, payload []byte) { got <- payload })
	for i := range 5 { // more than what the system takes at once, while nobody is slow
		a.Channel(0).Send("b", bytes.Repeat([]byte{byte(i)}, 1<<20))
	}
	for i := range 5 {
		if p := <-got; len(p) != 1<<20 || p[0] != byte(i) || p[1<<20-1] != byte(i) {
			t.Fatalf("message %d has %d bytes and begins with %d", i, len(p), p[0])
		}
	}
	a.Channel(0).Send("b", make([]byte, 1<<20+1))
	if s := statusOf(a, "b"); s.Dropped != 1 {
		t.Errorf("too long: %+v", s)
	}
	if !strings.Contains(l.logs["a"].String(), "too long to send") {
		t.Error("the log is silent about it")
	}
}

// A node that sends more than the other allows is cut off, not obeyed.
func TestTooLongToReceive(t *testing.T) {
	l := newLAN(t, "a", "b")
	a := l.listen(l.config("a"))
	cfg := l.config("b")
	cfg.MaxPayload, cfg.MaxQueue = 100, 1000
	b := l.listen(cfg)
	in := newInbox(b.Channel(0))
	awaitConnected(t, a, b)
	a.Channel(0).Send("b", make([]byte, 101))
	eventually(t, "the stream breaks", func() bool { return statusOf(a, "b").Breaks > 0 })
	if len(in.all()) > 0 || !strings.Contains(l.logs["b"].String(), "at most 100 are allowed") {
		t.Errorf("received %d; log: %s", len(in.all()), l.logs["b"])
	}
}

func TestPeerRestarts(t *testing.T) {
	l := newLAN(t, "a", "b")
	a := l.listen(l.config("a"))
	b := l.listen(l.config("b"))
	awaitConnected(t, a, b)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a notices", func() bool { return !statusOf(a, "b").Connected })
	s := statusOf(a, "b")
	if s.Why == "" || s.Breaks == 0 || !strings.HasPrefix(s.Words(time.Now()), "away for ") {
		t.Errorf("%+v: %s", s, s.Words(time.Now()))
	}
	cfg := l.config("b")
	cfg.Listener = nil
	b = l.listen(cfg)
	in := newInbox(b.Channel(3))
	awaitConnected(t, a, b)
	a.Channel(3).Send("b", []byte("again"))
	in.await(t, "a: again")
	eventually(t, "a ping is answered", func() bool { return statusOf(a, "b").RoundTrip > 0 })
	if words := statusOf(a, "b").Words(time.Now()); !strings.HasPrefix(words, "connected for ") || !strings.Contains(words, "round trip") {
		t.Error(words)
	}
}

// What is sent shortly before the peer is there arrives; what is sent long before does not.
func TestMessagesToThoseWhoAreAway(t *testing.T) {
	l := newLAN(t, "a", "b")
	a := l.listen(l.config("a"))
	a.Channel(0).Send("b", []byte("early"))
	cfg := l.config("b")
	cfg.Peers = nil // it refuses a until somebody receives
	b := l.listen(cfg)
	in := newInbox(b.Channel(0))
	if err := b.SetPeers(l.addresses); err != nil {
		t.Fatal(err)
	}
	in.await(t, "a: early")
	awaitConnected(t, a, b)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a notices", func() bool { return !statusOf(a, "b").Connected })
	a.Channel(0).Send("b", []byte("old"))
	eventually(t, "old news are dropped", func() bool {
		a.Channel(0).Send("b", []byte("newer"))
		return statusOf(a, "b").Missed > 0
	})
	if s := statusOf(a, "b"); s.Queued > 20*1000 || s.Dropped > 0 {
		t.Errorf("%d bytes are queued for a peer that is away", s.Queued)
	}
}

func TestSlowReaderHindersNobodyElse(t *testing.T) {
	l := newLAN(t, "a", "b", "c")
	cfg := l.config("a")
	cfg.MaxQueue, cfg.MaxPayload = 1<<20, 1<<20
	a := l.listen(cfg)
	b, c := l.listen(l.config("b")), l.listen(l.config("c"))
	blocked := make(chan struct{})
	release := sync.OnceFunc(func() { close(blocked) })
	t.Cleanup(release)
	b.Channel(0).Receive(func(protocol.NodeID, []byte) { <-blocked })
	inC := newInbox(c.Channel(0))
	awaitConnected(t, a, b, c)
	payload := make([]byte, 64<<10)
	eventually(t, "the queue to b is full", func() bool {
		a.Channel(0).Send("b", payload)
		return statusOf(a, "b").Dropped > 0
	})
	if s := statusOf(a, "b"); s.Queued > 1<<20 || !strings.Contains(s.Words(time.Now()), "dropped") {
		t.Errorf("%+v", s)
	}
	a.Channel(0).Send("c", []byte("you at least"))
	inC.await(t, "a: you at least")
	release()
	eventually(t, "b catches up", func() bool { return statusOf(a, "b").Queued == 0 })
}

func TestPeersChange(t *testing.T) {
	l := newLAN(t, "a", "b", "c")
	a, b, c := l.listen(l.config("a")), l.listen(l.config("b")), l.listen(l.config("c"))
	awaitConnected(t, a, b, c)
	if err := a.SetPeers(map[protocol.NodeID]string{"a": l.addresses["a"], "c": l.addresses["c"]}); err != nil {
		t.Fatal(err)
	}
	if all := a.Status(); len(all) != 1 || all[0].Node != "c" {
		t.Errorf("peers: %+v", all)
	}
	eventually(t, "b is told", func() bool {
		return strings.Contains(statusOf(b, "a").Why, "is not among the peers of node a, which are [c]")
	})
	if err := a.SetPeers(map[protocol.NodeID]string{"b": l.addresses["b"], "c": l.addresses["c"]}); err != nil {
		t.Fatal(err)
	}
	awaitConnected(t, a, b, c)
	// The addresses of b and c are exchanged: each says who it is.
	if err := a.SetPeers(map[protocol.NodeID]string{"b": l.addresses["c"], "c": l.addresses["b"]}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the exchange is noticed", func() bool {
		return strings.Contains(statusOf(a, "b").Why, "it calls node \"b\", and this is node c; one of the addresses is wrong")
	})
	if err := a.SetPeers(map[protocol.NodeID]string{"b": "10.0.0.1:1"}); err == nil || !strings.Contains(err.Error(), "another machine, and there is no TLS") {
		t.Errorf("plaintext to another machine: %v", err)
	}
}

func TestWhoIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*transport.Config)
		want   string // what the refused side is told
	}{
		"another cluster": {func(c *transport.Config) { c.Cluster = "other" }, `it belongs to cluster "other", and this is cluster "test"`},
		"the same name":   {func(c *transport.Config) { c.Self, c.Peers = "a", map[protocol.NodeID]string{"b": c.Peers["a"]} }, `it calls node "b", and this is node a`},
		"an unknown node": {func(c *transport.Config) { c.Self = "x" }, "node x is not among the peers of node a, which are [b]"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLAN(t, "a", "b")
			l.listen(l.config("a"))
			cfg := l.config("b")
			c.change(&cfg)
			b := l.listen(cfg)
			eventually(t, "told "+c.want, func() bool { return strings.Contains(b.Status()[0].Why, c.want) })
			eventually(t, "logged", func() bool {
				return strings.Contains(l.logs["a"].String(), "connection refused") && strings.Contains(l.logs["b"].String(), "it refuses this node")
			})
			if s := b.Status()[0]; s.Connected || s.Software != "" {
				t.Errorf("%+v", s)
			}
		})
	}
}

// Whoever speaks something else is cut off, and the log says why.
func TestStrangers(t *testing.T) {
	l := newLAN(t, "a", "b")
	cfg := l.config("a")
	cfg.Handshake = 300 * time.Millisecond
	l.listen(cfg)
	for said, want := range map[string]string{
		"GET / HTTP/1.1\r\n\r\n":                       `it begins with \"GET / HTTP/`,
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03": "it speaks TLS, and this node has no certificate",
		"assent/nH\xff\xff":                            "a greeting of 65535 bytes",
		"assent/nH\x00\x01\x01":                        "ends too early",
		"assent/nH\x00\x06\x01\x01\x01\xff\x00\x00":    "ends too early",
		"": "i/o timeout",
	} {
		conn, err := net.Dial("tcp", l.addresses["a"])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(said)); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("%q is answered with %d bytes", said, n)
		}
		_ = conn.Close()
		if said == "" {
			continue // the reason is the system's
		}
		// One line a second at most.
		eventually(t, "the log says "+want, func() bool {
			if strings.Contains(l.logs["a"].String(), want) {
				return true
			}
			if conn, err := net.Dial("tcp", l.addresses["a"]); err == nil {
				_, _ = conn.Write([]byte(said))
				_, _ = conn.Read(make([]byte, 1))
				_ = conn.Close()
			}
			return false
		})
	}
}

func TestBadConfig(t *testing.T) {
	good := transport.Config{Cluster: "c", Self: "a", Address: "127.0.0.1:0"}
	for want, change := range map[string]func(*transport.Config){
		"cluster's name: it is empty": func(c *transport.Config) { c.Cluster = "" },
		"node's name: it is empty":    func(c *transport.Config) { c.Self = "" },
		"holds more than letters":     func(c *transport.Config) { c.Self = "a b" },
		"is an IP address":            func(c *transport.Config) { c.Self = "10.0.0.1" },
		"has 64 bytes":                func(c *transport.Config) { c.Self = protocol.NodeID(strings.Repeat("a", 64)) },
		"can be reached by other":     func(c *transport.Config) { c.Address = "0.0.0.0:0" },
		"missing port":                func(c *transport.Config) { c.Peers = map[protocol.NodeID]string{"b": "127.0.0.1"} },
		"the name of a peer":          func(c *transport.Config) { c.Peers = map[protocol.NodeID]string{"": "127.0.0.1:1"} },
		"and there is no TLS":         func(c *transport.Config) { c.Peers = map[protocol.NodeID]string{"b": "b.example:1"} },
		"must be greater than Ping":   func(c *transport.Config) { c.Ping, c.Silence = 2, 1 },
		"Retry is -1ns":               func(c *transport.Config) { c.Retry, c.RetryMost = -1, 1 },
		"MaxQueue not below":          func(c *transport.Config) { c.MaxQueue = 1 },
		"at most 64":                  func(c *transport.Config) { c.Software = strings.Repeat("x", 65) },
		"listen for peers":            func(c *transport.Config) { c.Address = "127.0.0.1:99999" },
	} {
		cfg := good
		change(&cfg)
		m, err := transport.Listen(cfg)
		if err == nil {
			_ = m.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	m, err := transport.Listen(good)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := net.SplitHostPort(m.Address()); err != nil {
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	m.Channel(0).Send("a", nil)
}

func TestPlaintextWhereItIsAllowed(t *testing.T) {
	m, err := transport.Listen(transport.Config{Cluster: "c", Self: "a", Address: "127.0.0.1:0", AllowPlaintext: true,
		Peers: map[protocol.NodeID]string{"b": "b.invalid:1"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}
