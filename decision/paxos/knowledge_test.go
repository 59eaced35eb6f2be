package paxos

import (
	"testing"

	"assent/decision"
	"assent/protocol/commit"
)

// TestNoteDoesNotTell: a note that comes from a member does not say that it holds the entry, so what
// it is owed of that it is still told; what it has told itself it is not.
func TestNoteDoesNotTell(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, Config{})
	g.ready()
	g.wires.isolate("a") // so that nothing is acknowledged
	s := g.log("a").serving()
	b, c := g.log("a").roster.Load().peers.of("b"), g.log("a").roster.Load().peers.of("c")
	owed := func(id commit.TransactionID) uint64 {
		done := make(chan struct{})
		s.batch.Then(func() { close(done) })
		<-done
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.table[id].owed
	}
	raw, err := decision.Note{Kind: decision.Finished}.Normal().Encode()
	if err != nil {
		t.Fatal(err)
	}
	e := entry("tx", commit.Commit, "a")
	body, err := e.Normal().Encode()
	if err != nil {
		t.Fatal(err)
	}
	value := Value{Stamp: 64, Status: e.Status(), Entry: body}
	s.deliver("tx", "b", Learn{Chosen: true, Value: value})
	if got := owed("tx"); got != c.bit {
		t.Errorf("b has told the entry: owed to %b; want %b", got, c.bit)
	}
	s.annotated(c, 1, "tx", Annotate{Note: Note{Stamp: 65, Node: "n", Note: raw}})
	if got := owed("tx"); got != b.bit|c.bit {
		t.Errorf("c has asked for a note: owed to %b; want %b", got, b.bit|c.bit)
	}
	s.deliver("tx", "c", Learn{Notes: []Note{{Stamp: 66, Node: "n", Note: raw}}})
	if got := owed("tx"); got != b.bit|c.bit {
		t.Errorf("c has told a note: owed to %b; want %b", got, b.bit|c.bit)
	}
	s.forgotten(c, 2, "other", 70)
	if got := owed("other"); got != b.bit|c.bit {
		t.Errorf("c has asked to forget: owed to %b; want %b", got, b.bit|c.bit)
	}
}

// TestOtherNotes: a member that holds more notes than another may still lack one of the other's.
func TestOtherNotes(t *testing.T) {
	s := &store{}
	here := &instance{Copy: Copy{ID: "tx", Chosen: true, Value: sampleValue, Notes: []Note{{Stamp: 1}, {Stamp: 2}}}}
	for what, c := range map[string]struct {
		notes []Note
		lacks bool
	}{
		"none":      {nil, false},
		"the same":  {here.Notes, false},
		"another":   {[]Note{{Stamp: 3}}, true},
		"as many":   {[]Note{{Stamp: 1}, {Stamp: 3}}, true},
		"many more": {[]Note{{Stamp: 1}, {Stamp: 2}, {Stamp: 3}}, true},
	} {
		there := &instance{Copy: Copy{ID: "tx", Chosen: true, Value: sampleValue, Notes: c.notes}}
		if _, lacks := s.lesson(here, there.summary()); lacks != c.lacks {
			t.Errorf("%s: lacks %v; want %v", what, lacks, c.lacks)
		}
	}
}
