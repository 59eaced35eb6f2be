package paxos

import (
	"bytes"
	"testing"
	"time"

	"assent/decision"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/paxos"
)

// TestStampsDiffer: two members never draw the same stamp, though their clocks show the same and they
// have heard the same; and each member's come one after the other.
func TestStampsDiffer(t *testing.T) {
	at := time.Unix(1_700_000_000, 5)
	nodes := []protocol.NodeID{"c", "a", "b"} // in another order elsewhere
	drawnBy := map[uint64]protocol.NodeID{}
	for _, node := range nodes {
		last := uint64(0)
		s := stamps{now: func() time.Time { return at }}
		s.member.Store(uint64(newRoster(node, Founders(nodes...), nil).own[0].Place))
		if other := uint64(newRoster(node, Founders("a", "b", "c"), nil).own[0].Place); other != s.member.Load() {
			t.Errorf("%s is number %d, and %d where the members are listed otherwise", node, s.member.Load(), other)
		}
		for i := range 200 {
			if i%50 == 0 {
				s.heard(uint64(at.UnixNano()) + uint64(i)*1000 + 7)
			}
			stamp := s.next()
			if stamp <= last || stamp <= uint64(at.UnixNano())-MaxMembers {
				t.Fatalf("%s draws %d after %d, at %d", node, stamp, last, at.UnixNano())
			}
			if by, ok := drawnBy[stamp]; ok {
				t.Fatalf("%s and %s have drawn %d", by, node, stamp)
			}
			drawnBy[stamp], last = node, stamp
		}
	}
}

// TestSameStamp: a copy that has accepted one value and learns that another is decided takes that one,
// though it has the same stamp; also after a crash.
func TestSameStamp(t *testing.T) {
	decided := Value{Stamp: 9, Status: decision.Unfinished, Entry: []byte{1}}
	r := &Copy{ID: "tx"}
	again := &Copy{ID: "tx"}
	for _, m := range []protocol.Message{
		phase2a{Instance: "tx", Ballot: sampleBallot, Value: Value{Stamp: 9, Status: decision.Unfinished, Entry: []byte{2}}},
		Learn{Chosen: true, Value: decided},
	} {
		var out protocol.Effects
		r.Step(protocol.Receive{From: sampleBallot.Node, Message: m}, &out)
		for _, w := range out.Writes {
			again.restore(w.Record)
		}
	}
	for what, c := range map[string]*Copy{"now": r, "after a crash": again} {
		if !c.Chosen || !bytes.Equal(c.Value.Entry, decided.Entry) {
			t.Errorf("%s: chosen: %v, %v; want %v", what, c.Chosen, c.Value, decided)
		}
	}
}

// TestOtherStands: who proposed is told what stands, though it has the stamp of the proposal.
func TestOtherStands(t *testing.T) {
	g := newGroup(t, 1, Config{})
	l := g.log("a")
	mine, stands := entry("tx", commit.Commit, "me").Normal(), entry("tx", commit.Abort, "another").Normal()
	value := func(e decision.Entry) Value { return Value{Stamp: 64, Status: e.Status(), Entry: encoded(t, e)} }
	p := &proposal{log: l, id: "tx", own: value(mine), entry: mine, stands: value(stands), done: make(chan struct{})}
	close(p.done)
	if e, err := l.await(t.Context(), "decide", p); err != nil || e.Decision != commit.Abort {
		t.Errorf("got %v, %v; want the abort", e, err)
	}
	p.stands = p.own
	if e, err := l.await(t.Context(), "decide", p); err != nil || e.By != "me" {
		t.Errorf("got %v, %v; want the proposal", e, err)
	}
}

// TestOldVoid: that an earlier decision was forgotten does not end a later proposal. Where it is bound
// to the earlier value, it lets go of that.
func TestOldVoid(t *testing.T) {
	p := &proposal{own: Value{Stamp: 200}}
	if m := p.voided(Void{Instance: "tx", Forgotten: 100}); m != nil {
		t.Errorf("in phase 1: got %v", m)
	}
	p.bound.Store(&phase2a{Ballot: sampleBallot, Value: Value{Stamp: 150}})
	if m := p.voided(Void{Instance: "tx", Forgotten: 100}); m != nil {
		t.Errorf("bound to a later value: got %v", m)
	}
	want := refused{Instance: "tx", Ballot: sampleBallot, Promised: sampleBallot}
	if m := p.voided(Void{Instance: "tx", Forgotten: 150}); m != protocol.Message(want) {
		t.Errorf("bound to a void value: got %v; want %v", m, want)
	}
	if got := p.forgotten.Load(); got != 150 {
		t.Errorf("forgotten at %d; want 150", got)
	}
}

// TestDecideAfterForgetting: what was forgotten is decided anew, also where word of an earlier forgetting
// comes late.
func TestDecideAfterForgetting(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, Config{Options: paxos.Options{Retry: 10 * time.Millisecond, RetryMost: 100 * time.Millisecond}})
	g.ready()
	g.decide("a", entry("tx", commit.Commit, "first"))
	if err := g.log("a").Forget(t.Context(), "tx"); err != nil {
		t.Fatal(err)
	}
	l := g.log("b")
	p, _, err := l.propose("tx", Value{Status: decision.Unfinished, Entry: encoded(t, entry("tx", commit.Abort, "second"))}, decision.Entry{})
	if err != nil || p == nil {
		t.Fatalf("got %v, %v", p, err)
	}
	p.answered("c", Void{Instance: "tx", Forgotten: 1})
	if e, err := l.await(t.Context(), "decide", p); err != nil || e.By != "second" {
		t.Errorf("got %v, %v", e, err)
	}
}

func encoded(t *testing.T, e decision.Entry) []byte {
	t.Helper()
	raw, err := e.Normal().Encode()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
