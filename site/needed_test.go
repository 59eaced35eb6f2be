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
		for s := w.in(id, tx); s.ID == "" || s.Decision == commit.Undecided; s = w.in(id, tx) {
			time.Sleep(time.Millisecond)
		}
		w.done(id)
	}
	if !w.holds("n2", "key", tx) {
		return false
	}
	for range 50 { // as many as they would need to forget
		for _, id := range sites {
			w.host(id).sweep(ahead())
			w.host(id).askOthers(ahead())
		}
		time.Sleep(time.Millisecond)
	}
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
		w.observer = &trap{when: func(e trace.Event) bool {
			_, told := e.Value.(commit.Finish)
			return told && e.Kind == trace.Send
		}, spring: func(trace.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.cut[[2]protocol.NodeID{"n1", "n3"}], w.cut[[2]protocol.NodeID{"n2", "n3"}] = true, true
		}}
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
		for !slices.Equal(w.in("n1", tx).Awaits, []protocol.NodeID{"n3"}) {
			time.Sleep(time.Millisecond)
		}
		word := Resolution{ID: tx.ID, Site: "n3", Outcome: commit.Committed, By: "alice", Reason: "it burnt down"}
		if err := w.host("n1").Resolve(word); err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		w.done("n1")
		for range 50 { // as many as they would need to forget
			for _, id := range w.nodes[:2] {
				w.host(id).sweep(ahead())
				w.host(id).askOthers(ahead())
			}
			time.Sleep(time.Millisecond)
		}
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

// TestResolveTheCoordinatorsOwnSite: an operator may also say how the coordinator's own part ended.
func TestResolveTheCoordinatorsOwnSite(t *testing.T) {
	for _, p := range Protocols() {
		w := newWorld(t, 1, 1)
		w.tweak = func(c *Config) { c.Resources = map[string]resource.Resource{"kv": stuck{c.Resources["kv"]}} }
		h := w.up("n1")
		tx := w.begin("n1", p)
		b, err := h.Join(t.Context(), tx, "kv", false)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.(stuckBranch).Branch.(*kv.Tx).Put(t.Context(), []byte("key"), []byte("value")); err != nil {
			t.Fatal(err)
		}
		if r, err := h.Commit(t.Context(), tx, w.nodes, false); err != nil || r.Decision != commit.Commit {
			t.Fatalf("%s: %+v, %v", p, r, err)
		}
		for !slices.Equal(w.in("n1", tx).Awaits, w.nodes) {
			time.Sleep(time.Millisecond)
		}
		word := Resolution{ID: tx.ID, Site: "n1", Outcome: commit.Committed, By: "alice", Reason: "its disk burnt down"}
		if err := h.Resolve(word); err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		if s := w.in("n1", tx); len(s.Awaits) > 0 || len(s.Notes) != 1 {
			t.Errorf("%s: %+v", p, s)
		}
	}
}
