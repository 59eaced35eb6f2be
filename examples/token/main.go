// Command token runs a small protocol of its own: three sites, each with a socket on 127.0.0.1, pass a
// token round. docs/your-own-protocol.md tells how it is written, checked, simulated and run.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"time"

	"assent/engine"
	"assent/protocol"
	"assent/spec"
)

// Token is the right to go on, passed round a ring. Each pass adds one to its number.
type Token struct{ Number int }

// Site is one place of a ring in which one at a time may do what it likes (Le Lann 1977).
type Site struct {
	Next    protocol.NodeID
	Seen    int // the number of the last token that it has had, or 0
	Last    int // the number with which the token comes to rest
	Holding bool
}

// Step takes a new token and puts it on record, or a crash would make an old copy look new. When the
// timer runs out it offers the next to its neighbour, again and again, for messages may be lost.
func (s *Site) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Recover:
		seen, _ := ev.Records["seen"].(Token)
		s.Seen, s.Holding = max(s.Seen, seen.Number), false // the crash has ended whatever it did
	case protocol.Expire:
		s.Holding = false
	case protocol.Receive:
		t, ok := ev.Message.(Token)
		if !ok || t.Number <= s.Seen || t.Number > s.Last {
			return
		}
		s.Seen, s.Holding = t.Number, true
		out.Put("seen", t)
		out.Emit(t)
	}
	if !s.Holding && s.Seen > 0 && s.Seen < s.Last {
		out.Send(s.Next, Token{s.Seen + 1})
	}
	out.Arm("go on", 20*time.Millisecond)
}

func (s *Site) holds() bool { return s.Holding }

// types are what may be sent, kept and be a state. Their names are for ever.
func types() []protocol.Type {
	return []protocol.Type{{Name: "token", Zero: Token{}}, {Name: "site", Zero: Site{}}}
}

// ring makes the sites, of which the first begins with token 1. Each has its turn that many times.
func ring(turns int, ids ...protocol.NodeID) (nodes []protocol.Node) {
	for i, id := range ids {
		site := Site{Next: ids[(i+1)%len(ids)], Last: turns * len(ids)}
		if i == 0 {
			site.Seen, site.Holding = 1, true
		}
		nodes = append(nodes, protocol.Node{ID: id, New: []func() protocol.Machine{func() protocol.Machine { s := site; return &s }}})
	}
	return nodes
}

// exclusive is the claim of which it is all about.
var exclusive = spec.Property{Name: "one site at most holds the token", Holds: func(v spec.View) bool {
	held := 0
	for i := range v.Nodes() {
		if s, up := v.Machine(i).(interface{ holds() bool }); up && s.holds() {
			held++
		}
	}
	return held <= 1
}}

// done reports whether a site among so many has had all its turns, as every one must in the end.
func done(m protocol.Machine, sites int) bool {
	s := m.(*Site)
	return s.Seen > s.Last-sites && !s.Holding
}

// host runs one site: it is the hands of its machine, and gives it what arrives.
type host struct {
	*net.UDPConn
	protocol.Node
	codec *protocol.Codec
	peers map[protocol.NodeID]*net.UDPAddr
	held  chan<- string
}

// Force would write to a file; but here all sites end at once, and none of them comes back.
func (h host) Force([]protocol.Write) error { return nil }
func (h host) Emit(v protocol.Value)        { h.held <- fmt.Sprintf("%s holds %+v", h.ID, v) }
func (h host) Send(to protocol.NodeID, m protocol.Message) {
	if data, err := h.codec.Encode(m); err == nil {
		_, _ = h.WriteToUDP(data, h.peers[to]) // else the message is lost, as any may be
	}
}

func (h host) run() {
	loop := engine.New(engine.Config{Node: h.ID, Machine: h.New[0](), Hands: h, Clock: engine.SystemClock{}})
	defer loop.Stop()
	loop.Deliver(protocol.Start{})
	for data := make([]byte, 1<<10); ; {
		n, _, err := h.ReadFromUDP(data)
		if err != nil {
			return // the socket is closed
		}
		if m, err := h.codec.Decode(data[:n]); err == nil {
			loop.Deliver(protocol.Receive{Message: m}) // this machine does not ask from whom
		}
	}
}

func run(out io.Writer, turns int, ids ...protocol.NodeID) error {
	codec, err := protocol.NewCodec(types()...)
	if err != nil {
		return err
	}
	peers, held, hosts := map[protocol.NodeID]*net.UDPAddr{}, make(chan string, turns*len(ids)), []host{}
	for _, n := range ring(turns, ids...) {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return err
		}
		defer conn.Close()
		peers[n.ID] = conn.LocalAddr().(*net.UDPAddr)
		hosts = append(hosts, host{conn, n, codec, peers, held})
	}
	for _, h := range hosts {
		go h.run()
	}
	for range turns*len(ids) - 1 { // the first site begins with the token
		fmt.Fprintln(out, <-held)
	}
	return nil
}

func main() {
	if err := run(os.Stdout, 3, "anna", "ben", "carl"); err != nil {
		log.Fatal(err)
	}
}
