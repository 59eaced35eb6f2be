package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"assent/cluster"
	"assent/decision"
	"assent/internal/ports"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/membership"
)

// keeping returns the configuration of a node of those who keep the log among themselves.
func (h *house) keeping(name protocol.NodeID) cluster.Config {
	cfg := h.config(name)
	cfg.Log, cfg.LogName = nil, ""
	return cfg
}

func (h *house) openKeeping(names ...protocol.NodeID) {
	h.t.Helper()
	for _, name := range names {
		h.openAs(name, h.keeping(name))
	}
}

func (h *house) openAs(name protocol.NodeID, cfg cluster.Config) {
	h.t.Helper()
	n, err := cluster.Open(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	delete(h.first, name)
	h.nodes[name] = n
}

// joining returns the configuration of a node that joins by asking another.
func (h *house) joining(name, ask protocol.NodeID) cluster.Config {
	cfg := h.keeping(name)
	cfg.Members, cfg.Join = nil, map[protocol.NodeID]string{ask: h.members[ask].Address}
	cfg.As = cluster.Member{API: "http://api-of-" + string(name)}
	if cfg.Address = h.addresses[name]; cfg.Address == "" {
		l, err := net.Listen("tcp", ports.Address(h.t))
		if err != nil {
			h.t.Fatal(err)
		}
		h.first[name], cfg.Listener = l, l
		cfg.Address = l.Addr().String()
		h.addresses[name] = cfg.Address
	}
	return cfg
}

// settled waits until all nodes that are up know the members as they are given ("a b d=0"), each with its
// votes, and the registers are theirs.
func (h *house) settled(members string) {
	h.t.Helper()
	h.eventually("the members are "+members, func() bool {
		for _, n := range h.nodes {
			s := n.State()
			var all []string
			for _, m := range s.Members {
				all = append(all, string(m.Node))
				if m.Votes != 1 {
					all[len(all)-1] += fmt.Sprintf("=%d", m.Votes)
				}
			}
			if strings.Join(all, " ") != members || s.Trails() {
				return false
			}
		}
		return true
	})
}

// load decides one transaction after the other at each of the nodes, until it is stopped.
type load struct {
	stop    context.CancelFunc
	group   sync.WaitGroup
	mu      sync.Mutex
	decided []commit.TransactionID
	missed  int
}

func (h *house) load(at ...protocol.NodeID) *load {
	ctx, cancel := context.WithCancel(h.t.Context())
	l := &load{stop: cancel}
	h.t.Cleanup(l.end)
	for _, node := range at {
		n := h.nodes[node]
		prefix := n.Log().(decision.Prefixer).Prefix()
		l.group.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := commit.TransactionID(fmt.Sprintf("%sL-%d", prefix, i))
				stands, err := n.Log().Decide(ctx, decision.Entry{ID: id, Decision: commit.Commit, By: "coordinator", Time: time.Now()})
				l.mu.Lock()
				if err == nil && stands.Decision == commit.Commit {
					l.decided = append(l.decided, id)
				} else {
					l.missed++
				}
				l.mu.Unlock()
				select {
				case <-ctx.Done():
				case <-time.After(2 * time.Millisecond): // the test is of what stands, not of how much
				}
			}
		})
	}
	return l
}

func (l *load) end() {
	l.stop()
	l.group.Wait()
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.decided)
}

// stand checks that all that was decided is known at a node.
func (h *house) stand(l *load, at protocol.NodeID) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range l.decided {
		if e, err := h.nodes[at].Log().Lookup(ctx, id); err != nil || e.Decision != commit.Commit {
			h.t.Fatalf("%s was decided, and %s says %v, %v", id, at, e.Decision, err)
		}
	}
}

func (h *house) change(at protocol.NodeID, c membership.Change) {
	h.t.Helper()
	h.eventually(fmt.Sprintf("%v of %s is made", c.Kind, c.Node), func() bool {
		_, err := h.nodes[at].Change(h.t.Context(), c)
		if err != nil && !errors.Is(err, cluster.ErrUnsure) && !strings.Contains(err.Error(), "is no member") {
			h.t.Logf("%v", err) // another change was under way, say, or a node not heard of yet
		}
		return err == nil || strings.Contains(err.Error(), "is no member")
	})
}

// Under load a fourth node joins three, votes, and one of the first leaves for good. What was decided stands, at
// the new node too, and is decided without the one that has left, also when all start again.
func TestJoinAndLeaveUnderLoad(t *testing.T) {
	h := newHouse(t, "a", "b", "c")
	h.openKeeping("a", "b", "c")
	load := h.load("a", "b")
	h.eventually("the load runs", func() bool { return load.count() > 20 })
	h.openAs("d", h.joining("d", "a"))
	h.settled("a b c d")
	if err := h.nodes["d"].Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.eventually("d knows itself for a member", func() bool { s := h.nodes["d"].Status(); return s.Decides && s.Primary })
	before := load.count()
	h.eventually("the load goes on", func() bool { return load.count() > before+20 })

	h.change("b", membership.Change{Kind: membership.Leave, Node: "c"})
	h.eventually("c may be stopped", func() bool { return h.nodes["c"].Status().Retired })
	h.close("c")
	h.settled("a b d")
	h.close("b") // of three, two go on
	load.end()
	h.stand(load, "d")
	h.close("a")
	h.close("d")
	h.openKeeping("a")
	h.openAs("d", h.joining("d", "a"))
	h.eventually("a and d go on", func() bool { return h.nodes["a"].Status().Primary && h.nodes["d"].Status().Primary })
	h.stand(load, "a")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stands, err := h.nodes["d"].Log().Decide(ctx, decision.Entry{ID: h.id("d"), Decision: commit.Commit, By: "coordinator", Time: time.Now()})
	if err != nil || stands.Decision != commit.Commit {
		t.Errorf("%v, %v", stands.Decision, err)
	}
	if _, _, ok := h.nodes["a"].Keeper("kv-c"); ok {
		t.Error("a resource is kept by a node that has left")
	}
	if node, api, ok := h.nodes["a"].Keeper("kv-d"); !ok || node != "d" || api != "http://api-of-d" {
		t.Errorf("%s %s %v", node, api, ok)
	}
}

// A node that has lost its directory comes back under its name, learns what stands and votes again; nobody waits
// for its old storage any more.
func TestLostDirectory(t *testing.T) {
	h := newHouse(t, "a", "b", "c")
	h.openKeeping("a", "b", "c")
	h.settled("a b c")
	h.eventually("storages are known", func() bool {
		for _, m := range h.nodes["a"].Members() {
			if m.Storage == "" {
				return false
			}
		}
		return true
	})
	load := h.load("a")
	h.eventually("the load runs", func() bool { return load.count() > 20 })
	was := h.nodes["c"].Members()[2].Storage
	h.close("c")
	if err := os.RemoveAll(filepath.Join(h.dir, "c")); err != nil {
		t.Fatal(err)
	}
	h.openKeeping("c") // with the configuration of a founder
	h.eventually("c is a member with its new storage", func() bool {
		m := h.nodes["a"].Members()
		return len(m) == 3 && m[2].Storage != was && m[2].Votes == 1
	})
	h.settled("a b c")
	h.eventually("c's part of the log votes", func() bool { s := h.nodes["a"].Status(); return s.Members[2].Log == "votes" })
	load.end()
	h.close("b")
	h.stand(load, "c")
}

// The side without a majority says why it cannot be asked, and is not believed to have done anything.
func TestMinoritySaysWhy(t *testing.T) {
	h := newHouse(t, "a", "b", "c")
	h.openKeeping("a", "b", "c")
	h.settled("a b c")
	h.change("a", membership.Change{Kind: membership.Set, Key: "k", Value: "before"})
	h.close("b")
	h.close("c")
	h.eventually("a says why", func() bool {
		s := h.nodes["a"].Status()
		return !s.Primary && s.Why == "1 of 3 votes, 2 needed: b and c unreachable"
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := h.nodes["a"].Change(ctx, membership.Change{Kind: membership.Set, Key: "k", Value: "after"})
	if !errors.Is(err, cluster.ErrUnsure) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "b and c unreachable") {
		t.Errorf("%v", err)
	}
	h.openKeeping("b")
	h.eventually("a and b go on", func() bool { return h.nodes["a"].Status().Primary })
	h.change("b", membership.Change{Kind: membership.Set, Key: "l", Value: "v"})
}

// The leader dies while a node joins; the others let it in.
func TestLeaderDiesDuringAJoin(t *testing.T) {
	h := newHouse(t, "a", "b", "c")
	h.openKeeping("a", "b", "c")
	h.settled("a b c")
	leader := protocol.NodeID("")
	h.eventually("somebody leads", func() bool {
		for _, n := range h.nodes {
			if s := n.Status(); s.Primary && strings.Contains(s.View, "led by "+string(s.Self)) {
				leader = s.Self
				return true
			}
		}
		return false
	})
	ask := protocol.NodeID("a")
	if leader == "a" {
		ask = "b"
	}
	h.openAs("d", h.joining("d", ask))
	h.close(leader)
	h.settled("a b c d")
	h.openKeeping(leader)
	h.settled("a b c d")
}

// Two nodes join at once, and one is weighed meanwhile. All is restarted then, one of the founders with a
// configuration that is out of date: what was agreed on counts.
func TestTwoJoinAndAllRestart(t *testing.T) {
	h := newHouse(t, "a", "b", "c")
	h.openKeeping("a", "b", "c")
	h.settled("a b c")
	h.openAs("d", h.joining("d", "a"))
	h.openAs("e", h.joining("e", "b"))
	h.settled("a b c d e")
	h.change("d", membership.Change{Kind: membership.Weigh, Node: "a", Votes: 2})
	h.settled("a=2 b c d e")
	load := h.load("d", "e")
	h.eventually("the load runs", func() bool { return load.count() > 10 })
	load.end()
	for _, name := range []protocol.NodeID{"a", "b", "c", "d", "e"} {
		h.close(name)
	}
	old := h.keeping("a")
	old.Members = with(old.Members, "z", cluster.Member{Address: "127.0.0.1:1"})
	h.openAs("a", old)
	h.openKeeping("b", "c")
	for _, name := range []protocol.NodeID{"d", "e"} {
		cfg := h.joining(name, "a")
		cfg.Join = nil // it is a member: it need not be told again
		h.openAs(name, cfg)
	}
	h.settled("a=2 b c d e")
	h.eventually("all can decide", func() bool {
		for _, n := range h.nodes {
			if s := n.Status(); !s.Decides || !s.Primary {
				return false
			}
		}
		return true
	})
	h.stand(load, "a")
}

// A node may ask to be let in, and nothing else: of a founder's name with another storage, whatever it says, the
// old one's votes are not its.
func TestRefusals(t *testing.T) {
	h := newHouse(t, "a", "b", "c")
	h.openKeeping("a", "b", "c")
	h.settled("a b c")
	for _, c := range []membership.Change{
		{Kind: membership.Leave, Node: "x"}, {Kind: membership.Regroup, Registers: 2}, {Kind: membership.Identify},
		{Kind: membership.Weigh, Node: "a", Votes: -1}, {Kind: membership.Set},
	} {
		if _, err := h.nodes["a"].Change(t.Context(), c); !errors.Is(err, cluster.ErrRefused) {
			text, _ := json.Marshal(c)
			t.Errorf("%s: %v", text, err)
		}
	}
}
