package transport_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"assent/protocol"
	"assent/transport"
)

// knows leaves those peers to a configuration.
func knows(cfg transport.Config, nodes ...protocol.NodeID) transport.Config {
	for n := range cfg.Peers {
		if !slices.Contains(nodes, n) {
			delete(cfg.Peers, n)
		}
	}
	return cfg
}

// peersOf returns the names of a mesh's peers, those of guests with a star.
func peersOf(m *transport.Mesh) string {
	var all []string
	for _, p := range m.Status() {
		name := string(p.Node)
		if p.Guest {
			name += "*"
		}
		all = append(all, name)
	}
	return strings.Join(all, " ")
}

// Who is no peer is let in as a guest where there are to be any: so many and no more, and only if it can be
// called back. It stays when the peers change, until it has gone.
func TestGuests(t *testing.T) {
	l := newLAN(t, "a", "d", "e")
	cfg := knows(l.config("a"))
	cfg.Guests, cfg.GuestChannel, cfg.Silence = 1, 3, 500*time.Millisecond // it is not long before who has gone is seen out
	a := l.listen(cfg)
	atA := newInbox(a.Channel(3))
	guest := func(node protocol.NodeID) *transport.Mesh {
		cfg := knows(l.config(node), "a")
		cfg.Advertise = l.addresses[node]
		return l.listen(cfg)
	}
	d := guest("d")
	atD := newInbox(d.Channel(3))
	eventually(t, "d is a guest", func() bool { return peersOf(a) == "d*" })
	// A busy machine may take longer than a's patience: then what was under way is lost, and sent again.
	eventually(t, "a hears d", func() bool {
		d.Channel(3).Send("a", []byte("may I come in?"))
		return slices.Contains(atA.all(), "d: may I come in?")
	})
	eventually(t, "d hears a", func() bool {
		a.Channel(3).Send("d", []byte("come in"))
		return slices.Contains(atD.all(), "a: come in")
	})

	e := guest("e")
	eventually(t, "e is refused", func() bool { return strings.Contains(e.Status()[0].Why, "1 others already that are not") })
	if err := a.SetPeers(map[protocol.NodeID]string{"d": l.addresses["d"]}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "d is a peer and e a guest", func() bool { return peersOf(a) == "d e*" })
	if err := a.SetPeers(map[protocol.NodeID]string{}); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "e is seen out, and d a guest again", func() bool { return peersOf(a) == "d*" })
}

func TestGuestsThatAreRefused(t *testing.T) {
	l := newLAN(t, "a", "d", "e", "f")
	cfg := knows(l.config("a"))
	a := l.listen(cfg)
	cfg = knows(l.config("e"))
	cfg.Guests = 2
	e := l.listen(cfg)
	cfg = knows(l.config("d"), "a", "e")
	d := l.listen(cfg)
	cfg = knows(l.config("f"), "e")
	cfg.Advertise = "10.0.0.1:7421"
	f := l.listen(cfg)
	for what, want := range map[*transport.Mesh]string{d: "says not where to answer it", f: "on another machine, and there is no TLS"} {
		eventually(t, want, func() bool {
			return slices.ContainsFunc(what.Status(), func(p transport.PeerStatus) bool { return strings.Contains(p.Why, want) })
		})
	}
	eventually(t, "no guests", func() bool { return strings.Contains(d.Status()[0].Why, "is not among the peers of node a") })
	if peersOf(a) != "" || peersOf(e) != "" {
		t.Errorf("%q, %q", peersOf(a), peersOf(e))
	}
}

// A guest cannot flood the node.
func TestGuestsAreBounded(t *testing.T) {
	l := newLAN(t, "a", "d")
	cfg := knows(l.config("a"))
	cfg.Guests, cfg.GuestChannel = 1, 3
	a := l.listen(cfg)
	atA := newInbox(a.Channel(3))
	cfg = knows(l.config("d"), "a")
	cfg.Advertise = l.addresses["d"]
	d := l.listen(cfg)
	eventually(t, "d is connected", func() bool { return d.Status()[0].Connected && d.Status()[0].Hears })
	const sent = 5000
	for range sent {
		d.Channel(3).Send("a", []byte("x"))
	}
	lost := func() int {
		if all := a.Status(); len(all) > 0 {
			return int(all[0].Lost)
		}
		return 0
	}
	eventually(t, "all are dealt with, and counted", func() bool { return len(atA.all())+lost() == sent })
	if got := len(atA.all()); got == 0 || got >= sent || !strings.Contains(l.logs["a"].String(), "it sends too many") {
		t.Errorf("%d messages of %d arrived; log: %s", got, sent, l.logs["a"])
	}
}

// A guest is heard on one channel alone, until it becomes a peer: then at once on all, without another connection.
func TestGuestsHaveOneChannel(t *testing.T) {
	l := newLAN(t, "a", "d")
	cfg := knows(l.config("a"))
	cfg.Guests, cfg.GuestChannel = 1, 3
	a := l.listen(cfg)
	open, closed := newInbox(a.Channel(3)), newInbox(a.Channel(4))
	cfg = knows(l.config("d"), "a")
	cfg.Advertise = l.addresses["d"]
	d := l.listen(cfg)
	eventually(t, "d is connected", func() bool { return d.Status()[0].Connected && d.Status()[0].Hears })
	// One stream carries both, in their order: what is heard last says what became of the first.
	eventually(t, "a hears the guest on channel 3", func() bool {
		d.Channel(4).Send("a", []byte("do as I say"))
		d.Channel(3).Send("a", []byte("may I come in?"))
		return len(open.all()) > 0
	})
	if all := closed.all(); len(all) > 0 {
		t.Errorf("a guest is heard on channel 4: %q", all)
	}
	if is := a.Status()[0]; is.Lost == 0 || !is.Guest {
		t.Errorf("what was lost is not counted: %+v", is)
	}
	if err := a.SetPeers(map[protocol.NodeID]string{"d": l.addresses["d"]}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a hears the peer on channel 4", func() bool {
		d.Channel(4).Send("a", []byte("as a peer"))
		return slices.Contains(closed.all(), "d: as a peer")
	})
}

// Who comes again has no more allowed to it than who stays.
func TestGuestsThatComeAgainAreBounded(t *testing.T) {
	l := newLAN(t, "a", "d")
	cfg := knows(l.config("a"))
	cfg.Guests, cfg.GuestChannel, cfg.Silence = 1, 3, time.Minute // it is not seen out meanwhile
	a := l.listen(cfg)
	atA := newInbox(a.Channel(3))
	const times, sent = 8, 200
	began := time.Now()
	for n := range times {
		cfg := knows(l.config("d"), "a")
		cfg.Listener, cfg.Address = nil, "127.0.0.1:0" // each of its lives listens elsewhere, and nobody need call it
		cfg.Advertise = l.addresses["d"]
		d := l.listen(cfg)
		eventually(t, "d is connected", func() bool { return d.Status()[0].Connected })
		for range sent {
			d.Channel(3).Send("a", []byte("x"))
		}
		eventually(t, "all are dealt with", func() bool { return len(atA.all())+int(a.Status()[0].Lost) == (n+1)*sent })
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if most := 100 + int(50*time.Since(began).Seconds()) + 1; len(atA.all()) > most {
		t.Errorf("%d messages of a guest that came %d times are delivered; at most %d are allowed", len(atA.all()), times, most)
	}
}
