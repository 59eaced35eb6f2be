package paxos

import (
	"testing"

	"assent/decision"
	"assent/protocol/commit"
)

// TestStrayAnswers: an answer counts only where it has the number, the epoch and the kind of what was asked and,
// where it tells of one transaction, tells of that one.
func TestStrayAnswers(t *testing.T) {
	p := &peer{contact: &contact{}, node: "b"}
	for what, c := range map[string]struct {
		asked  call
		number uint64
		kind   kind
		id     commit.TransactionID
		counts bool
	}{
		"the answer":          {call{answer: kindAnswer, id: "tx-1"}, 7, kindAnswer, "tx-1", true},
		"another number":      {call{answer: kindAnswer, id: "tx-1"}, 6, kindAnswer, "tx-1", false},
		"another transaction": {call{answer: kindAnswer, id: "tx-1"}, 7, kindAnswer, "tx-2", false},
		"another kind":        {call{answer: kindAnswer, id: "tx-1"}, 7, kindDone, "", false},
		"a page for done":     {call{answer: kindDone, id: "tx-1"}, 7, kindPage, "", false},
		"done":                {call{answer: kindDone, id: "tx-1"}, 7, kindDone, "", true},
		"an answer for pages": {call{answer: kindPage}, 7, kindAnswer, "tx-1", false},
		"a page":              {call{answer: kindPage}, 7, kindPage, "", true},
		"of another epoch":    {call{answer: kindAnswer, id: "tx-1", epoch: 1}, 7, kindAnswer, "tx-1", false},
		"done in another":     {call{answer: kindDone, epoch: 1}, 7, kindDone, "", false},
	} {
		asked := c.asked
		asked.epoch += 2 // that of the answers
		asked.replies = make(chan reply, 1)
		l := &Log{calls: map[uint64]*call{7: &asked}}
		b := appendUint(nil, c.number)
		switch c.kind {
		case kindAnswer:
			b = appendHeld(b, held{id: c.id})
		case kindPage:
			b = appendPage(b, page{})
		}
		l.replied(p, 2, &reader{data: b}, c.kind)
		if got := len(asked.replies) == 1; got != c.counts {
			t.Errorf("%s: counts: %v; want %v", what, got, c.counts)
		}
	}
}

// TestCallsOfAnotherLife: a Log that is opened again does not number its calls as it did before.
func TestCallsOfAnotherLife(t *testing.T) {
	g := newGroup(t, 1, Config{})
	before := g.log("a").lastCall
	g.stop("a")
	g.start("a")
	if after := g.log("a").lastCall; max(after, before)-min(after, before) < 1<<20 {
		t.Errorf("calls are numbered from %d, and from %d in the life before", after, before)
	}
}

// TestNoRoomForDecision: where a decision finds no room in its own member's storage, nothing says later
// that ballot 0 was used, so it is not used again.
func TestNoRoomForDecision(t *testing.T) {
	g := newGroup(t, 1, Config{MaxOpen: 1, RetainCount: 1, MaxWaiting: 1})
	l := g.log("a")
	finish := func(id string) {
		l.outbox.crowd.Add(1)
		p := &proposal{log: l, id: commit.TransactionID(id), done: make(chan struct{})}
		l.mu.Lock()
		l.proposals[p.id] = p
		l.mu.Unlock()
		p.finish(Value{Stamp: 64, Status: decision.Unfinished, Entry: []byte{0xa0}}, nil)
		g.until("the proposal is gone", func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.proposals[p.id] == nil
		})
	}
	finish("first")
	finish("second")
	finish("third") // there is a little room for what others have under way
	if l.faulted.Load() {
		t.Error("there was room for three")
	}
	finish("fourth")
	if !l.faulted.Load() {
		t.Error("there was no room for a fourth, and ballot 0 may be used again")
	}
}
