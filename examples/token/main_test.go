package main

import (
	"bytes"
	"testing"
	"time"

	"assent/check"
	"assent/protocol"
	"assent/protocol/protocoltest"
	"assent/sim"
	"assent/spec"
)

var ids = []protocol.NodeID{"a", "b", "c"}

// allDone is the good thing that must be possible.
var allDone = spec.Property{Name: "everybody has had all turns", Holds: func(v spec.View) bool {
	for i := range v.Nodes() {
		if m := v.Machine(i); m == nil || !done(m, v.Nodes()) {
			return false
		}
	}
	return true
}}

func isDone(_ int, m protocol.Machine) bool { return done(m, len(ids)) }

func codec(t *testing.T) *protocol.Codec {
	t.Helper()
	c, err := protocol.NewCodec(append(types(), protocol.Type{Name: "forgetful", Zero: forgetful{}}, protocol.Type{Name: "hasty", Zero: hasty{}})...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// forgetful is a site that keeps nothing on record.
type forgetful struct{ Site }

func (f *forgetful) Step(ev protocol.Event, out *protocol.Effects) {
	f.Site.Step(ev, out)
	out.Writes = nil
}

// hasty is a site that offers the token as soon as it has it.
type hasty struct{ Site }

func (h *hasty) Step(ev protocol.Event, out *protocol.Effects) {
	h.Site.Step(ev, out)
	if h.Holding && h.Seen < h.Last {
		out.Send(h.Next, Token{h.Seen + 1})
	}
}

// wrong are rings with a fault in each site.
func wrong() map[string][]protocol.Node {
	made := map[string]func(Site) protocol.Machine{
		"forgetful": func(s Site) protocol.Machine { return &forgetful{s} },
		"hasty":     func(s Site) protocol.Machine { return &hasty{s} },
	}
	rings := map[string][]protocol.Node{}
	for name, spoil := range made {
		nodes := ring(2, ids...)
		for i, n := range nodes {
			fresh := n.New[0]
			nodes[i].New = []func() protocol.Machine{func() protocol.Machine { return spoil(*fresh().(*Site)) }}
		}
		rings[name] = nodes
	}
	return rings
}

// faulty is as much as the ring must bear: messages are lost, repeated and reordered without limit, and
// two sites crash and come back, at every point of every step.
var faulty = check.Faults{Duplicates: check.Unlimited, Crashes: 2, Restarts: 2}

func explore(t *testing.T, nodes []protocol.Node, faults check.Faults, claims check.Claims) check.Report {
	t.Helper()
	r, err := check.Run(t.Context(), check.System{Nodes: nodes, Codec: codec(t), Faults: faults}, claims, check.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d states, complete: %v", r.States, r.Complete)
	return r
}

func TestEveryState(t *testing.T) {
	claims := check.Claims{Always: []spec.Property{exclusive}, Sometimes: []spec.Property{allDone}}
	r := explore(t, ring(2, ids...), faulty, claims)
	if !r.Complete || len(r.Broken) > 0 || len(r.Never) > 0 {
		t.Errorf("complete %v, broken %v, never %v", r.Complete, r.Broken, r.Never)
	}
	for name, nodes := range wrong() {
		if r := explore(t, nodes, faulty, check.Claims{Always: claims.Always}); len(r.Broken) == 0 {
			t.Errorf("a %s site is not found out", name)
		}
	}
}

// TestWhoIsDownBlocksTheRing: nobody is ever stuck as long as all are up, and with one site down for ever
// somebody is: a ring has no way round.
func TestWhoIsDownBlocksTheRing(t *testing.T) {
	claims := check.Claims{Decided: isDone}
	if r := explore(t, ring(2, ids...), check.Faults{Duplicates: check.Unlimited, Crashes: 1, Restarts: 1}, claims); r.Blocked == nil {
		t.Error("with one site down nobody is blocked")
	}
	if r := explore(t, ring(2, ids...), check.Faults{Duplicates: check.Unlimited}, claims); r.Blocked != nil {
		t.Errorf("with all up: %v", r.Blocked)
	}
}

func TestSeeds(t *testing.T) {
	system := sim.System{Name: "token", Nodes: ring(2, ids...), Codec: codec(t),
		Always: []spec.Property{exclusive}, Sometimes: []spec.Property{allDone}, Done: isDone, Safety: 2 * time.Second}
	sum, err := sim.Seeds(t.Context(), &system, 1, 500, sim.Classes(), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range sum.Failed {
		t.Errorf("seed %d: %v", r.Plan.Seed, r.Failure)
	}
	if sum.Reached[allDone.Name] == 0 {
		t.Errorf("in no seed %s", allDone.Name)
	}
	for name, nodes := range wrong() {
		broken := sim.System{Name: name, Nodes: nodes, Codec: codec(t), Always: []spec.Property{exclusive}, Safety: 2 * time.Second}
		sum, err := sim.Seeds(t.Context(), &broken, 1, 500, sim.Classes(), 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		if sum.Failures == 0 {
			t.Errorf("no seed of %d finds a %s site out", sum.Seeds, name)
		}
		t.Logf("%s: found in %d of %d seeds", name, sum.Failures, sum.Seeds)
	}
}

// TestLive runs the machines over sockets. Whatever the sockets lose and repeat, each token is held once,
// by the site whose turn it is.
func TestLive(t *testing.T) {
	var out bytes.Buffer
	if err := run(&out, 2, ids...); err != nil {
		t.Fatal(err)
	}
	want := "b holds {Number:2}\nc holds {Number:3}\na holds {Number:4}\nb holds {Number:5}\nc holds {Number:6}\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

// TestMachine is what every machine must bear, with or without sense.
func TestMachine(t *testing.T) {
	s := protocoltest.Subject{Codec: codec(t), Events: []protocol.Event{protocol.Start{}, protocol.Expire{Timer: "go on"},
		protocol.Recover{}, protocol.Recover{Records: protocol.Records{"seen": Token{4}}}}}
	for _, n := range ring(2, ids...) {
		s.New = append(s.New, n.New...)
	}
	for number := range 8 {
		s.Events = append(s.Events, protocol.Receive{From: "a", Message: Token{number}})
	}
	protocoltest.Run(t, s)
}
