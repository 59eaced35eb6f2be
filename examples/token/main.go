// Command token runs a small protocol of its own: three sites, each with a socket on 127.0.0.1, pass a
// token round. docs/your-own-protocol.md tells how it is written, checked, simulated and run.
package main

import (
	"fmt"
	"log"
	"time"

	"assent/engine/loopback"
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

// codec knows what may be sent, kept and be a state. The names are for ever.
func codec() *protocol.Codec {
	c, err := protocol.NewCodec(protocol.Type{Name: "token", Zero: Token{}}, protocol.Type{Name: "site", Zero: Site{}})
	if err != nil {
		panic(err) // the types cannot be encoded, whatever happens
	}
	return c
}

// ring makes the sites, of which the first begins with token 1, which goes round that many times.
func ring(rounds int, ids ...protocol.NodeID) (nodes []protocol.Node) {
	for i, id := range ids {
		site := Site{Next: ids[(i+1)%len(ids)], Last: rounds * len(ids)}
		if i == 0 {
			site.Seen, site.Holding = 1, true
		}
		begin := func() protocol.Machine { s := site; return &s }
		nodes = append(nodes, protocol.Node{ID: id, New: []func() protocol.Machine{begin}})
	}
	return nodes
}

// claims are what the checker, the simulator and the live run are held to.
var claims = []spec.Property{{Name: "one site at most holds the token", Holds: func(v spec.View) bool {
	held := 0
	for i := range v.Nodes() {
		if s, up := v.Machine(i).(*Site); up && s.Holding {
			held++
		}
	}
	return held <= 1
}}}

func main() {
	held := make(chan string)
	network, err := loopback.Start(loopback.Config{Nodes: ring(2, "anna", "ben", "carl"), Codec: codec(), Always: claims,
		Emit: func(at protocol.NodeID, v protocol.Value) { held <- fmt.Sprintf("%s holds %+v", at, v) }})
	if err != nil {
		log.Fatal(err)
	}
	for range 5 { // of six turns, for the first is anna's from the start
		fmt.Println(<-held)
	}
	if err := network.Close(); err != nil {
		log.Fatal(err)
	}
}
