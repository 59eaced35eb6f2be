package paxos

import (
	"sync/atomic"
	"testing"
	"time"

	"assent/decision"
	"assent/protocol/commit"
	"assent/protocol/paxos"
)

// TestDecidedOnGrave: what is promised and accepted after a forgetting is kept, however long nobody
// comes to tell that it is decided; what was forgotten alone goes when its time is over.
func TestDecidedOnGrave(t *testing.T) {
	t.Parallel()
	var later atomic.Int64
	g := newGroup(t, 3, Config{Retention: time.Hour, Clock: func() time.Time { return time.Now().Add(time.Duration(later.Load())) }})
	g.ready()
	for _, id := range []string{"tx", "promised", "gone"} { // in the order in which they may go
		g.decide("a", entry(id, commit.Commit, "first"))
		if err := g.log("a").Forget(t.Context(), commit.TransactionID(id)); err != nil {
			t.Fatal(err)
		}
	}
	settled := func() (n int) {
		for _, name := range g.names {
			s := g.log(name).serving()
			s.mu.Lock()
			for _, in := range s.table {
				if in.status == decision.Done && in.owed == 0 {
					n++
				}
			}
			s.mu.Unlock()
		}
		return n
	}
	g.until("all have forgotten", func() bool { return settled() == 9 })
	// A proposer elsewhere has its value accepted by two, and is gone; another has begun phase 1.
	e := entry("tx", commit.Abort, "second")
	value := Value{Stamp: g.log("a").stamps.next(), Status: e.Status(), Entry: encoded(t, e)}
	ballot := paxos.Ballot{Epoch: 1, Round: g.log("a").stamps.next(), Node: "proposer"}
	for _, name := range g.names[:2] {
		s := g.log(name).serving()
		s.deliver("tx", ballot.Node, phase2a{Instance: "tx", Ballot: ballot, Value: value})
		s.deliver("promised", ballot.Node, phase1a{Instance: "promised", Ballot: ballot})
		stepped := make(chan struct{})
		s.batch.Then(func() { close(stepped) })
		<-stepped
	}
	later.Store(int64(2 * time.Hour))
	g.until("what was forgotten is gone", func() bool {
		for _, name := range g.names {
			if _, ok := g.log(name).serving().look("gone"); ok {
				return false
			}
		}
		return true
	})
	for _, name := range g.names[:2] {
		if promise := promised(g.log(name), "promised"); promise != ballot {
			t.Errorf("%s has promised %v; want %v", name, promise, ballot)
		}
	}
	g.stop("b") // and what is on its disk says the same
	g.start("b")
	if promise := promised(g.log("b"), "promised"); promise != ballot {
		t.Errorf("b has promised %v when it is back; want %v", promise, ballot)
	}
	if got := g.lookup("c", "tx"); got.By != "second" {
		t.Errorf("%v stands", got)
	}
	found := false
	for e, err := range g.log("b").List(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		found = found || e.ID == "tx" && e.By == "second"
	}
	if !found {
		t.Error("it is not listed")
	}
}

// promised returns what the member has promised about the transaction.
func promised(l *Log, id commit.TransactionID) paxos.Ballot {
	s := l.serving()
	s.mu.Lock()
	defer s.mu.Unlock()
	in, ok := s.table[id]
	if !ok {
		return paxos.Ballot{}
	}
	ballot, _, _ := in.ballots()
	return ballot
}
