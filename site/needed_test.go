package site

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/kv"
	"assent/trace"
)

// TestCutOffCoordinatorMayStillAsk: in Paxos Commit others can end a transaction whose coordinator is cut off and wants to
// abort. However late it comes back, it finds acceptors who know, and tells its caller what was decided.
func TestCutOffCoordinatorMayStillAsk(t *testing.T) {
	for !cutOff(t) {
		t.Log("the machine is so busy that somebody lost patience before both had voted; once more")
	}
}

// cutOff reports false where the transaction was aborted: somebody was too slow to vote.
func cutOff(t *testing.T) bool {
	w := newWorld(t, 3, 1)
	w.hurry = 300 * time.Millisecond
	between := func(from, to protocol.NodeID) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.cut[[2]protocol.NodeID{from, to}] = true
	}
	between("n2", "n1")
	between("n3", "n1")
	w.observer = &trap{when: func(e trace.Event) bool {
		_, asked := e.Value.(commit.PrepareBranch)
		return e.Kind == trace.Emit && e.Node == "n3" && asked
	}, spring: func(trace.Event) { w.silence("n1") }}
	w.all()
	tx, sites := w.begin("n1", PaxosCommit), []protocol.NodeID{"n2", "n3"}
	if err := w.put(tx, "key", sites...); err != nil {
		t.Fatal(err)
	}
	told := make(chan Result, 1)
	go func() {
		r, _ := w.host("n1").Commit(t.Context(), tx, sites, false)
		told <- r
	}()
	for _, id := range sites {
		w.says(id, tx, func(s Status) bool { return s.Decision != commit.Undecided })
		w.done(id)
	}
	if !w.holds("n2", "key", tx) {
		return false
	}
	w.tidyUp(sites...)
	w.heal()
	if r := <-told; r.Decision != commit.Commit {
		t.Errorf("the sites have committed, and the caller is told %+v", r)
	}
	w.forgotten(w.nodes...)
	return true
}

// TestResolvedSiteComesBack: a site of which an operator has said how it ended comes back in doubt after all. Whomever it
// asks has not forgotten what was decided.
func TestResolvedSiteComesBack(t *testing.T) {
	for _, p := range []Protocol{ThreePhase, QuorumThreePhase, PaxosCommit} {
		w := newWorld(t, 3, 1)
		w.cutAt(telling, link{"n1", "n3"}, link{"n2", "n3"})
		w.all()
		tx := w.begin("n1", p)
		if err := w.put(tx, "key", w.nodes...); err != nil {
			t.Fatal(err)
		}
		if r, err := w.host("n1").Commit(t.Context(), tx, w.nodes, false); err != nil || r.Decision != commit.Commit {
			t.Fatalf("%s: %+v, %v", p, r, err)
		}
		w.settled("n1", "n2")
		w.crash("n3")
		w.awaits("n1", tx, "n3")
		word := Resolution{ID: tx.ID, Site: "n3", Outcome: commit.Committed, By: "alice", Reason: "it burnt down"}
		if err := w.host("n1").Resolve(word); err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		w.done("n1")
		w.tidyUp("n1", "n2")
		w.crash("n1")
		w.heal()
		w.hurry = 20 * time.Millisecond // n3 asks
		w.up("n3")
		w.settled("n3")
		if !w.holds("n2", "key", tx) || !w.holds("n3", "key", tx) {
			t.Errorf("%s: n2 has committed, and n3 has not", p)
		}
	}
}

// stuck is a resource whose branches cannot commit.
type stuck struct{ resource.Resource }

type stuckBranch struct{ resource.Branch }

func (r stuck) Begin(ctx context.Context, id resource.ID) (resource.Branch, error) {
	b, err := r.Resource.Begin(ctx, id)
	return stuckBranch{b}, err
}

func (stuckBranch) Commit(context.Context) (commit.Outcome, error) {
	return commit.Unfinished, errors.New("the disk is on fire")
}

// TestResolveTheCoordinatorsOwnSite: an operator may also say how the coordinator's own part ended. Others that have not
// reported are waited for all the same.
func TestResolveTheCoordinatorsOwnSite(t *testing.T) {
	for _, p := range Protocols() {
		w := newWorld(t, 2, 1)
		w.tweak = func(c *Config) {
			if c.Self == "n1" {
				c.Resources = map[string]resource.Resource{"kv": stuck{c.Resources["kv"]}}
			}
		}
		w.observer = &trap{when: lastWord, spring: func(trace.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.cut[[2]protocol.NodeID{"n2", "n1"}] = p != ThreePhase && p != QuorumThreePhase // there n2's word is needed
		}}
		w.all()
		h := w.host("n1")
		tx := w.begin("n1", p)
		b, err := h.Join(t.Context(), tx, "kv", false)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.(stuckBranch).Branch.(*kv.Tx).Put(t.Context(), []byte("key"), []byte("value")); err != nil {
			t.Fatal(err)
		}
		if err := w.put(tx, "key", "n2"); err != nil {
			t.Fatal(err)
		}
		if r, err := h.Commit(t.Context(), tx, w.nodes, false); err != nil || r.Decision != commit.Commit {
			t.Fatalf("%s: %+v, %v", p, r, err)
		}
		awaited := []protocol.NodeID{"n2"}
		if p == ThreePhase || p == QuorumThreePhase {
			awaited = nil
		}
		w.awaits("n1", tx, append([]protocol.NodeID{"n1"}, awaited...)...)
		word := Resolution{ID: tx.ID, Site: "n1", Outcome: commit.Committed, By: "alice", Reason: "its disk burnt down"}
		if err := h.Resolve(word); err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		h.sweep(ahead().Add(2 * h.cfg.KeepResolved))
		if s := w.in("n1", tx); !slices.Equal(s.Awaits, awaited) || len(awaited) > 0 && len(s.Notes) != 1 {
			t.Errorf("%s: %+v", p, s)
		}
	}
}

// TestSiteGoneForGood: what all others have done, and one site that has left the cluster can say nothing of, is remembered
// for long, and not for ever.
func TestSiteGoneForGood(t *testing.T) {
	for _, p := range []Protocol{ThreePhase, QuorumThreePhase, PaxosCommit} {
		w := newWorld(t, 3, 1)
		w.all()
		tx := w.begin("n1", p)
		if err := w.put(tx, "key", "n2", "n3"); err != nil {
			t.Fatal(err)
		}
		if r, err := w.host("n1").Commit(t.Context(), tx, []protocol.NodeID{"n2", "n3"}, true); err != nil || r.Decision != commit.Commit {
			t.Fatalf("%s: %+v, %v", p, r, err)
		}
		w.done("n2")
		w.crash("n3")
		w.crash("n2")
		w.silence("n1")
		h := w.up("n2") // that all have reported is not on record
		w.done("n2")
		forget := func(idle time.Duration) bool {
			h.askOthers(ahead().Add(idle))
			if err := h.conclude("n1", over{w.in("n2", tx).Transaction}); err != nil {
				t.Fatal(err)
			}
			h.askOthers(ahead().Add(idle))
			h.sweep(ahead().Add(idle))
			return len(h.List()) == 0
		}
		if forget(2 * h.cfg.KeepResolved) {
			t.Errorf("%s: n2 forgets what n3, a member, may ask", p)
		}
		w.members("n1", "n2")
		if forget(0) {
			t.Errorf("%s: n2 forgets what n3, which may be a member again, may ask", p)
		}
		if !forget(2 * h.cfg.KeepResolved) {
			t.Errorf("%s: n2 remembers for ever: %+v", p, h.List())
		}
	}
}

// TestTotalFailure: all sites of a three-phase commit have failed, in doubt, and one is gone for good. The others wait for
// it, so an operator may say how it ends.
func TestTotalFailure(t *testing.T) {
	w := newWorld(t, 3, 1)
	last := make(chan struct{})
	w.observer = &trap{when: lastWord, spring: func(trace.Event) { w.silence("n1"); close(last) }}
	w.all()
	tx := w.begin("n1", ThreePhase)
	if err := w.put(tx, "key", w.nodes...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		_, _ = w.host("n1").Commit(ctx, tx, w.nodes, false)
	}()
	<-last
	cancel()
	<-asked
	for _, id := range w.nodes {
		w.crash(id)
	}
	w.heal()
	w.hurry = time.Second
	w.up("n2")
	w.up("n3")
	word := Resolution{ID: tx.ID, Site: "n2", Outcome: commit.RolledBack, By: "alice", Reason: "n1 burnt down before anybody had committed"}
	if err := w.host("n2").Resolve(word); !errors.Is(err, ErrNothingToResolve) {
		t.Errorf("while n1 is a member: %v", err)
	}
	w.members("n2", "n3")
	if s := w.in("n2", tx); !s.InDoubt || s.Missing == "" {
		t.Errorf("n2 says %+v", s)
	}
	if err := w.host("n2").Resolve(word); err != nil {
		t.Fatal(err)
	}
	w.settled("n2", "n3")
	if w.holds("n2", "key", tx) || w.holds("n3", "key", tx) {
		t.Error("it was to be rolled back")
	}
}
