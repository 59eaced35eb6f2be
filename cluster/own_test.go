package cluster_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"assent/cluster"
	"assent/decision"
	"assent/protocol"
	"assent/protocol/commit"
)

// The nodes keep the log among themselves: what one decides the others know, also when it has gone.
func TestNodesKeepTheLog(t *testing.T) {
	h := newHouse(t, "a", "b", "c")
	dir := t.TempDir()
	open := func(names ...protocol.NodeID) {
		for _, name := range names {
			cfg := h.config(name)
			cfg.Log, cfg.LogName, cfg.Dir = nil, "", filepath.Join(dir, string(name))
			n, err := cluster.Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			delete(h.first, name)
			h.nodes[name] = n
		}
	}
	open("a", "b", "c")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	id := h.id("a")
	if stands, err := h.nodes["a"].Log().Decide(ctx, decision.Entry{ID: id, Decision: commit.Commit, By: "coordinator", Time: time.Now()}); err != nil || stands.Decision != commit.Commit {
		t.Fatalf("%+v, %v", stands, err)
	}
	// Two of three have forced it. Who hears of the decision before it is asked to accept forces nothing.
	h.eventually("two have forced a write", func() bool {
		forced := 0
		for _, n := range h.nodes {
			if n.LogStats()["forces"] > 0 {
				forced++
			}
		}
		return forced >= 2
	})
	h.close("a")
	for _, at := range []protocol.NodeID{"b", "c"} {
		stands, err := h.nodes[at].Log().Decide(ctx, decision.Entry{ID: id, Decision: commit.Abort, By: "recovery", Time: time.Now()})
		if err != nil || stands.Decision != commit.Commit {
			t.Errorf("%s is told %+v, %v", at, stands, err)
		}
	}
	h.eventually("a is missed", func() bool {
		s := h.nodes["b"].Status()
		return s.Decides && s.Quorum == "2 of 3 votes, 2 needed: a unreachable" && strings.HasPrefix(s.Log, "kept by the nodes; ")
	})
	h.close("c")
	h.eventually("nothing can be decided", func() bool { return !h.nodes["b"].Status().Decides })
	open("a")
	h.eventually("a votes again", func() bool { s := h.nodes["b"].Status(); return s.Decides && s.Members[1].Log == "votes" })
	if e, err := h.nodes["a"].Log().Lookup(ctx, id); err != nil || e.Decision != commit.Commit {
		t.Errorf("%+v, %v", e, err)
	}
}

// Two nodes of three do not decide before the third has been there once, and say so.
func TestFirstStart(t *testing.T) {
	h := newHouse(t, "a", "b", "c")
	dir := t.TempDir()
	for _, name := range []protocol.NodeID{"a", "b"} {
		cfg := h.config(name)
		cfg.Log, cfg.LogName, cfg.Dir = nil, "", filepath.Join(dir, string(name))
		n, err := cluster.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		delete(h.first, name)
		h.nodes[name] = n
	}
	h.eventually("a says what it waits for", func() bool {
		s := h.nodes["a"].Status()
		return !s.Decides && strings.HasPrefix(s.Quorum, "0 of 3 votes, 2 needed: ") && strings.Contains(s.Quorum, "b not admitted to vote") &&
			strings.Contains(s.Quorum, "a not voting (") && strings.Contains(s.Quorum, "c unreachable") && strings.Contains(s.Log, "does not vote: ")
	})
}
