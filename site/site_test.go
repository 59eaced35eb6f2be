package site

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/resource"
)

// TestCommitEverywhere: with every protocol, from every coordinator, and at sites that are all or some.
func TestCommitEverywhere(t *testing.T) {
	w := newWorld(t, 3, 1)
	w.all()
	for _, p := range Protocols() {
		for i, sites := range [][]protocol.NodeID{{"n1", "n2", "n3"}, {"n2", "n3"}, {"n1"}} {
			tx, key := w.begin("n1", p), fmt.Sprintf("%s/%d", p, i)
			if err := w.put(tx, key, sites...); err != nil {
				t.Fatal(err)
			}
			r, err := w.host("n1").Commit(t.Context(), tx, sites, true)
			if err != nil || r.Decision != commit.Commit || !r.Finished || len(r.Heuristic) > 0 {
				t.Fatalf("%s at %v: %+v, %v", p, sites, r, err)
			}
			for _, id := range sites {
				if !w.holds(id, key, tx) {
					t.Errorf("%s: %s has not committed", p, id)
				}
			}
			if _, err := w.host("n1").Branches(tx, true).Join(t.Context(), w.sites["n2"].store); err == nil {
				t.Errorf("%s: a store of another site is joined", p)
			}
			if _, err := w.host("n1").Commit(t.Context(), tx, sites, true); !errors.Is(err, ErrOver) {
				t.Errorf("%s: a second commit says %v", p, err)
			}
			if _, err := w.host(sites[0]).Branches(tx, true).Join(t.Context(), w.sites[sites[0]].store); !errors.Is(err, ErrOver) {
				t.Errorf("%s: work after the vote says %v", p, err)
			}
		}
	}
}

// TestNoVoteAborts: one site's no is everybody's abort, and its reason is told.
func TestNoVoteAborts(t *testing.T) {
	w := newWorld(t, 3, 1)
	w.refuses = "n3"
	w.all()
	for _, p := range Protocols() {
		tx := w.begin("n2", p)
		if err := w.put(tx, string(p), "n1", "n2"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.host("n3").Join(t.Context(), tx, "kv", false); err != nil {
			t.Fatal(err)
		}
		r, err := w.host("n2").Commit(t.Context(), tx, w.nodes, true)
		if err != nil || r.Decision != commit.Abort || r.Cause != commit.VotedNo || r.By != "n3" || !strings.Contains(r.Reason, "on fire") {
			t.Errorf("%s: %+v, %v", p, r, err)
		}
		w.settled(w.nodes...)
		for _, id := range w.nodes {
			if w.holds(id, string(p), tx) {
				t.Errorf("%s: %s has committed", p, id)
			}
		}
	}
}

// TestAbort: what is given up is rolled back where it was done.
func TestAbort(t *testing.T) {
	w := newWorld(t, 3, 1)
	w.all()
	for _, p := range Protocols() {
		tx := w.begin("n1", p)
		if err := w.put(tx, "key", w.nodes...); err != nil { // it waits for the locks of the one before
			t.Fatal(p, err)
		}
		if err := w.host("n1").Abort(tx, w.nodes, "changed my mind"); err != nil {
			t.Fatal(p, err)
		}
		if err := w.host("n1").Abort(tx, w.nodes, "again"); !errors.Is(err, ErrOver) {
			t.Errorf("%s: a second abort says %v", p, err)
		}
		if _, err := w.host("n1").Commit(t.Context(), tx, w.nodes, true); !errors.Is(err, ErrOver) {
			t.Errorf("%s: a commit after it says %v", p, err)
		}
	}
}

// TestLostWorkVotesNo: a site that has lost its work in a crash, or never did any, votes no.
func TestLostWorkVotesNo(t *testing.T) {
	w := newWorld(t, 3, 1)
	w.all()
	for _, p := range Protocols() {
		tx := w.begin("n1", p)
		if err := w.put(tx, string(p), w.nodes...); err != nil {
			t.Fatal(err)
		}
		w.crash("n3")
		w.up("n3")
		r, err := w.host("n1").Commit(t.Context(), tx, w.nodes, true)
		if err != nil || r.Decision != commit.Abort {
			t.Errorf("%s: %+v, %v", p, r, err)
		}
		w.settled(w.nodes...)
	}
}

// TestPublishedCost counts what crosses a live network, and what is forced, in a commit without faults, and
// compares it with Gray and Lamport (2006), figure 4: co-located 3N - 3 messages for two-phase commit,
// N(F + 3) - 3 for Paxos Commit; N + 1 and N + F + 1 stable writes, which are counted with every role
// on a node of its own.
func TestPublishedCost(t *testing.T) {
	for _, n := range []int{2, 3, 5} {
		messages, _ := cost(t, TwoPhase, n, 0, true)
		if want := 3*n - 3; messages != want {
			t.Errorf("2pc, N=%d co-located: %d messages, want %d", n, messages, want)
		}
		messages, forces := cost(t, TwoPhase, n, 0, false)
		if messages != 3*n || forces != n+1 {
			t.Errorf("2pc, N=%d apart: %d messages and %d writes, want %d and %d", n, messages, forces, 3*n, n+1)
		}
		for f := range 3 {
			messages, forces := cost(t, PaxosCommit, n, f, false)
			if want := n*f + f + 3*n; messages != want || forces != n+f+1 {
				t.Errorf("Paxos Commit, N=%d F=%d apart: %d messages and %d writes, want %d and %d", n, f, messages, forces, want, n+f+1)
			}
			if f+1 > n {
				continue // there are not enough participants to put acceptors with
			}
			messages, _ = cost(t, PaxosCommit, n, f, true)
			if want := n*(f+3) - 3; messages != want {
				t.Errorf("Paxos Commit, N=%d F=%d co-located: %d messages, want %d", n, f, messages, want)
			}
		}
	}
}

// cost runs one transaction of n participants and 2f+1 acceptors. Apart, the coordinator is an acceptor
// without a branch, and no participant is an acceptor.
func cost(t *testing.T, p Protocol, n, f int, together bool) (messages, forces int) {
	t.Helper()
	size, first := max(n, 2*f+1), 0
	if !together {
		size, first = n+2*f+1, 2*f+1
	}
	w := newWorld(t, size, 1)
	c := &counter{sent: map[string]int{}, told: map[string]bool{}}
	w.acceptors, w.observer = w.nodes[:2*f+1], c
	w.all()
	tx := w.begin("n1", p)
	sites := w.nodes[first : first+n]
	if err := w.put(tx, "key", sites...); err != nil {
		t.Fatal(err)
	}
	if r, err := w.host("n1").Commit(t.Context(), tx, sites, true); err != nil || r.Decision != commit.Commit {
		t.Fatalf("%s: %+v, %v", p, r, err)
	}
	for _, id := range w.nodes {
		w.crash(id) // nothing is counted any more
	}
	return c.cost()
}

// TestBadConfig: what is wrong is named.
func TestBadConfig(t *testing.T) {
	w := newWorld(t, 3, 1)
	good := func() Config { return w.config("n1", &inbox{w: w}, &node{}) }
	for want, change := range map[string]func(*Config){
		`node name "a/c"`:                    func(c *Config) { c.Self = "a/c" },
		`a view of the cluster are required`: func(c *Config) { c.Cluster = nil },
		`a network, a directory`:             func(c *Config) { c.Dir = "" },
		`resource "kv" is nil`:               func(c *Config) { c.Resources = map[string]resource.Resource{"kv": nil} },
		`KeepFor is -1ns`:                    func(c *Config) { c.KeepFor = -1 },
	} {
		c := good()
		change(&c)
		if _, err := Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
