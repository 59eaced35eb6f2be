package site

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/trace"
)

// TestResolveASiteThatIsGone: a coordinator tells a site its decision again and again, until an operator says how it ended
// there. That is on record, and counts after a restart as well.
func TestResolveASiteThatIsGone(t *testing.T) {
	for _, p := range Protocols() {
		w := newWorld(t, 3, 1)
		w.acceptors = []protocol.NodeID{"n1"}
		w.cutAt(lastWord, link{"n3", "n1"})
		w.all()
		h := w.host("n1")
		tx := w.begin("n1", p)
		if err := w.put(tx, "key", "n2", "n3"); err != nil {
			t.Fatal(err)
		}
		good := Resolution{ID: tx.ID, Site: "n3", Outcome: commit.Committed, By: "alice", Reason: "it burnt down"}
		if p == ThreePhase || p == QuorumThreePhase { // what follows would wait for n3's word
			good.Outcome = commit.RolledBack
			if err := h.Abort(tx, []protocol.NodeID{"n2", "n3"}, "not wanted"); err != nil {
				t.Fatal(err)
			}
		} else if r, err := h.Commit(t.Context(), tx, []protocol.NodeID{"n2", "n3"}, false); err != nil || r.Decision != commit.Commit {
			t.Fatalf("%s: %+v, %v", p, r, err)
		}
		w.awaits("n1", tx, "n3")
		for want, change := range map[string]func(*Resolution){
			"say who resolves it":           func(r *Resolution) { r.By = "" },
			"why 1024":                      func(r *Resolution) { r.Reason = strings.Repeat("x", maxReason+1) },
			"must be UTF-8":                 func(r *Resolution) { r.Reason = "\xff" },
			"name the node":                 func(r *Resolution) { r.Site = "" },
			"committed or rolled back":      func(r *Resolution) { r.Outcome = commit.Hazard },
			"the transaction is not known":  func(r *Resolution) { r.ID = "another" },
			"to resolve: it waits for [n3]": func(r *Resolution) { r.Site = "n2" },
		} {
			bad := good
			change(&bad)
			if err := h.Resolve(bad); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: want %q, got %v", p, want, err)
			}
		}
		if err := h.Resolve(good); err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		check := func(when string) {
			t.Helper()
			w.done("n1")
			s := w.in("n1", tx)
			if len(s.Awaits) > 0 || len(s.Notes) != 1 || s.Notes[0].By != "alice" || s.Notes[0].Site != "n3" || s.Notes[0].Outcome != good.Outcome {
				t.Errorf("%s, %s: n1 says %+v", p, when, s)
			}
		}
		check("resolved")
		if err := h.Resolve(good); !errors.Is(err, ErrNothingToResolve) {
			t.Errorf("%s: once more: %v", p, err)
		}
		h.sweep(ahead())
		w.crash("n1")
		h = w.up("n1")
		check("after a restart")
		if h.sweep(ahead().Add(h.cfg.KeepResolved)); p == TwoPhase && len(h.List()) > 0 {
			t.Errorf("it is kept for good: %+v", h.List())
		}
	}
}

// TestResolveInDoubt: a site that is in doubt for good, because the coordinator is gone for good, does as an operator says, and
// the others that ask it do the same. While it may still learn the decision nobody may say so.
func TestResolveInDoubt(t *testing.T) {
	w, tx := doubt(t, TwoPhase)
	h := w.host("n2")
	word := Resolution{ID: tx.ID, Site: "n2", Outcome: commit.RolledBack, By: "alice", Reason: "n1 burnt down, and nobody had an answer"}
	if err := h.Resolve(word); !errors.Is(err, ErrNothingToResolve) || !strings.Contains(err.Error(), "may still learn") {
		t.Errorf("while n1 is a member: %v", err)
	}
	w.members("n2", "n3")
	if err := h.Resolve(word); err != nil {
		t.Fatal(err)
	}
	w.settled("n2", "n3")
	if w.holds("n2", "key", tx) || w.holds("n3", "key", tx) {
		t.Error("it was to be rolled back")
	}
	s := w.in("n2", tx)
	if s.InDoubt || len(s.Notes) != 1 || s.Notes[0].Reason != word.Reason {
		t.Errorf("n2 says %+v", s)
	}
}

// TestResolveWithoutAMajority: the same where a majority of the acceptors is gone for good. The node can leave then, and
// forgets at last what it goes on asking for.
func TestResolveWithoutAMajority(t *testing.T) {
	t.Parallel() // it waits more than it works
	then := func(w *world) {
		w.silence("n2")
		w.members("n3", "n4", "n5")
	}
	moving(t, then, func(w *world, tx Transaction, _ *told) bool {
		h := w.host("n3")
		if !w.in("n3", tx).InDoubt {
			return false
		}
		word := Resolution{ID: tx.ID, Site: "n3", Outcome: commit.Committed, By: "alice", Reason: "n2 has committed"}
		if err := h.Resolve(word); err != nil {
			t.Fatal(err)
		}
		w.settled("n3")
		w.done("n3")
		if !w.holds("n3", "key", tx) {
			t.Error("n3 has not committed")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if _, err := h.Leave(ctx); err != nil {
			t.Error(err)
		}
		h.sweep(ahead())
		if w.in("n3", tx).ID == "" {
			t.Error("what the operator said is forgotten at once")
		}
		for w.in("n3", tx).ID != "" { // not while a record is being made; the test's time bounds it
			h.sweep(ahead().Add(h.cfg.KeepResolved))
		}
		return true
	})
}

// TestResendsBackOff: the pauses before a site is told again grow, and no further than to a bound of their own.
func TestResendsBackOff(t *testing.T) {
	w := newWorld(t, 2, 1)
	pauses := make(chan time.Duration, 8)
	w.tweak = func(c *Config) {
		c.Retry, c.RetryMost, c.ResendMost = time.Millisecond, 2*time.Millisecond, 8*time.Millisecond
	}
	w.observer = both{&trap{when: lastWord, spring: func(trace.Event) { w.silence("n1") }}, hearing(func(e trace.Event) {
		if timer, ok := e.Value.(protocol.Timer); ok && e.Kind == trace.Timer && e.Node == "n1/c" && timer.Name == commit.ResendTimer && timer.After > 0 {
			select {
			case pauses <- timer.After:
			default:
			}
		}
	})}
	w.all()
	tx := w.begin("n1", TwoPhase)
	if err := w.put(tx, "key", "n2"); err != nil {
		t.Fatal(err)
	}
	if r, err := w.host("n1").Commit(t.Context(), tx, []protocol.NodeID{"n2"}, false); err != nil || r.Decision != commit.Commit {
		t.Fatalf("%+v, %v", r, err)
	}
	for i, want := range []time.Duration{1, 2, 4, 8, 8, 8} {
		if got := <-pauses; got != want*time.Millisecond {
			t.Errorf("pause %d is %v", i+1, got)
		}
	}
}
