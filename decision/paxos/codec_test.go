package paxos

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"assent/decision"
	"assent/internal/journal"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/paxos"
)

var (
	sampleBallot = paxos.Ballot{Epoch: 9, Round: 1 << 40, Node: "abcdefghijklmnopqrst"}
	sampleValue  = Value{Stamp: 1_700_000_000_000_000_000, Status: decision.Unfinished, Entry: []byte{0xa1, 1, 2}}
	sampleNote   = Note{Stamp: 77, Node: "b", Note: []byte{0xa0}}
	sampleEpoch  = Epoch{Number: 9, Members: []Member{{"a", "s", 1, 0, 0}, {"b", "", 2, 1, 0}}, Next: []Member{{"b", "t", 2, 1, 0}, {"c", "u", 0, 63, 0}}}
	sampleHeld   = held{id: "tx-1", chosen: true, value: sampleValue, notes: []Note{sampleNote}, forgotten: 3}
)

// sampleMessages are one of each message of the protocol.
func sampleMessages() []protocol.Message {
	return []protocol.Message{
		phase1a{Instance: "tx-1", Ballot: sampleBallot},
		phase1b{Instance: "tx-1", Ballot: sampleBallot, Accepted: paxos.Ballot{Node: "x"}, Value: sampleValue},
		phase2a{Instance: "tx-1", Ballot: sampleBallot, Value: sampleValue},
		phase2b{Instance: "tx-1", Ballot: sampleBallot, Value: Value{Stamp: 9}},
		refused{Instance: "tx-1", Ballot: sampleBallot, Promised: paxos.Ballot{Epoch: 1, Round: 300, Node: "y"}},
		chosen{Instance: "tx-1", Value: sampleValue},
		Void{Instance: "tx-1", Forgotten: 255},
	}
}

// TestMessagesComeBack: what is sent is what arrives, and is canonical CBOR to others as well.
func TestMessagesComeBack(t *testing.T) {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range sampleMessages() {
		b := appendMessage(nil, m)
		r := &reader{data: b}
		items := r.list(16)
		k := kind(r.most(255))
		id, got := r.message(k, items)
		if r.err != nil || len(r.data) > 0 || id != "tx-1" {
			t.Fatalf("%#v: %q, %v, %d bytes left", m, id, r.err, len(r.data))
		}
		if diff := cmp.Diff(m, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		var any any
		if err := cbor.Unmarshal(b, &any); err != nil {
			t.Fatalf("%#v: %v", m, err)
		}
		if again, err := mode.Marshal(any); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%#v: % x is encoded by others as % x, %v", m, b, again, err)
		}
		for n := range b { // nothing that is cut off is taken for whole
			r := &reader{data: b[:n]}
			items := r.list(16)
			k := kind(r.most(255))
			if r.message(k, items); r.err == nil {
				t.Errorf("%#v: %d of %d bytes are read", m, n, len(b))
			}
		}
	}
}

// TestRecordsComeBack: a copy's records, read back in order, restore it.
func TestRecordsComeBack(t *testing.T) {
	r := &Copy{ID: "tx-1"}
	var out protocol.Effects
	var data []byte
	for _, m := range []protocol.Message{
		phase1a{Instance: "tx-1", Ballot: sampleBallot},
		phase2a{Instance: "tx-1", Ballot: sampleBallot, Value: sampleValue},
		Annotate{Note: sampleNote, Forced: true},
		Learn{Chosen: true, Value: sampleValue, Notes: []Note{{Stamp: 78, Node: "a", Note: []byte{0xa0}}}},
	} {
		out.Reset()
		r.Step(protocol.Receive{From: sampleBallot.Node, Message: m}, &out)
		for _, w := range out.Writes {
			data, _ = appendWrite(data, r.ID, w)
		}
		again := &Copy{ID: "tx-1"}
		for read := (&reader{data: data}); len(read.data) > 0; {
			rec := read.record()
			if read.err != nil {
				t.Fatal(read.err)
			}
			again.restore(rec.change)
		}
		if diff := cmp.Diff(r, again); diff != "" {
			t.Errorf("after %T (-want +got):\n%s", m, diff)
		}
		state := &reader{data: appendState(nil, r)}
		if rec := state.record(); state.err != nil || !cmp.Equal(r, rec.state) {
			t.Errorf("after %T: %v, %s", m, state.err, cmp.Diff(r, rec.state))
		}
	}
}

// TestEpochsComeBack: an epoch that is told is the one that arrives, and none arrives that cannot be entered.
func TestEpochsComeBack(t *testing.T) {
	b := appendEpoch(nil, byte(recordEpoch), sampleEpoch)
	r := &reader{data: b}
	if rec := r.record(); r.err != nil || len(r.data) > 0 || !cmp.Equal(rec.epoch, sampleEpoch) {
		t.Errorf("%v: %s", r.err, cmp.Diff(sampleEpoch, rec.epoch))
	}
	for n := range b {
		r := &reader{data: b[:n]}
		if r.record(); r.err == nil {
			t.Errorf("%d of %d bytes are read", n, len(b))
		}
	}
	twice := sampleEpoch
	twice.Next = append(twice.Next, twice.Next[0])
	r = &reader{data: appendEpoch(nil, byte(recordEpoch), twice)}
	if r.record(); r.err == nil {
		t.Error("an epoch with a member twice is read")
	}
	m := moved{left: 7, more: true, unsettled: []held{sampleHeld}}
	r = &reader{data: appendMoved(nil, m)}
	if got := r.moved(); r.err != nil || got.left != 7 || !got.more || len(got.unsettled) != 1 || got.unsettled[0].id != sampleHeld.id {
		t.Errorf("got %+v, %v; want %+v", got, r.err, m)
	}
}

// samplePayload is a payload with one of each message.
func samplePayload(owner string) []byte {
	b := appendEnvelope(nil, envelope{owner: owner, incarnation: sampleBallot.Node, stamp: 5, epoch: 1})
	for _, m := range sampleMessages() {
		b = appendMessage(b, m)
	}
	b = appendHello(b, hello{storage: "s", admitted: true, unfinished: 1, retained: 2})
	b = appendHeld(appendUint(append(appendArray(b, 3), byte(kindAnswer)), 4), sampleHeld)
	b = appendPage(appendUint(append(appendArray(b, 3), byte(kindPage)), 4), page{states: []held{sampleHeld}, more: true})
	b = appendPageQuery(appendUint(append(appendArray(b, 6), byte(kindPageQuery)), 1), pageQuery{status: 1, after: place{2, "t"}, ids: []commit.TransactionID{"u"}})
	b = appendNote(appendBool(appendText(appendUint(append(appendArray(b, 5), byte(kindNote)), 1), "tx-1"), true), sampleNote)
	b = appendEpoch(b, byte(kindEpoch), sampleEpoch)
	b = appendUint(append(appendArray(b, 2), byte(kindMovedQuery)), 1)
	b = appendMoved(appendUint(append(appendArray(b, 3), byte(kindMoved)), 4), moved{left: 7, more: true, unsettled: []held{sampleHeld}})
	return appendStates(b, 1, true, []held{sampleHeld})
}

// TestSpoiltPayloads: no payload makes a member panic, or stops its storage; and it goes on to decide.
func TestSpoiltPayloads(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, Config{})
	g.ready()
	rng := rand.New(rand.NewPCG(8, 8))
	whole := samplePayload(g.cfg.Owner)
	for i := range 300 {
		spoilt := bytes.Clone(whole)
		for range rng.IntN(4) {
			spoilt[rng.IntN(len(spoilt))] ^= byte(1 << rng.IntN(8))
		}
		g.log("a").receive("b", spoilt[:len(spoilt)-rng.IntN(2)*rng.IntN(len(spoilt))])
		if i%30 == 0 {
			g.decide("a", entry(fmt.Sprint("after-", i), commit.Commit, "a"))
		}
	}
	if why := g.log("a").Status().Stopped; why != "" {
		t.Error(why)
	}
}

// FuzzPayload: no payload makes the reader of payloads panic.
func FuzzPayload(f *testing.F) {
	f.Add(samplePayload("test"))
	f.Add(samplePayload("another"))
	for _, number := range []uint64{0, 1, 9} {
		f.Add(appendEpoch(appendEnvelope(nil, envelope{owner: "test", incarnation: "x", epoch: number}), byte(kindEpoch), sampleEpoch))
	}
	f.Add([]byte{0x84, 1})
	cfg := Config{Owner: "test", Self: "a", Epoch: Founders("a", "b", "c"), Network: newWires(1).of("a"), Dir: "d", Logger: quiet}
	if err := cfg.validate(); err != nil {
		f.Fatal(err)
	}
	l := &Log{cfg: cfg, self: "abcdefghijklmnopqrst", calls: map[uint64]*call{}}
	l.roster.Store(newRoster("a", cfg.Epoch, nil))
	l.stamps.now = time.Now
	f.Fuzz(func(_ *testing.T, payload []byte) {
		l.roster.Store(newRoster("a", cfg.Epoch, nil))
		l.receive("b", payload)
	})
}

// FuzzRecords: no records make the reader of a journal panic.
func FuzzRecords(f *testing.F) {
	var data []byte
	data = appendState(data, &Copy{ID: "tx-1", Chosen: true, Value: sampleValue, Notes: []Note{sampleNote}})
	data = appendMember(data, "b", "storage")
	data = appendEpoch(data, byte(recordEpoch), sampleEpoch)
	data = appendBegin(appendAdmitted(appendDropped(data, "tx-1")), 7)
	f.Add(data, 5)
	f.Fuzz(func(t *testing.T, data []byte, count int) {
		l := &Log{fs: nil}
		s := &store{log: l, table: map[commit.TransactionID]*instance{}, members: map[protocol.NodeID]string{}, based: map[uint64][]*instance{}}
		r := &reader{data: data}
		for range min(max(count, 0), len(data)) {
			if rec := r.record(); r.err == nil {
				s.restore(rec, journal.Group{Segment: 1})
			}
		}
		for _, in := range s.table {
			s.measure(in)
			if _, err := in.Copy.status(); err != nil {
				continue
			}
		}
	})
}
