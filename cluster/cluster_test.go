package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"assent/cluster"
	"assent/decision"
	"assent/decision/disk"
	"assent/internal/ports"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/detector"
	"assent/protocol/election"
)

var quiet = slog.New(slog.DiscardHandler)

// house is a cluster in one process. Its nodes share a log.
type house struct {
	t       *testing.T
	log     decision.Log
	members map[protocol.NodeID]cluster.Member
	first   map[protocol.NodeID]net.Listener // until the node's first life
	nodes   map[protocol.NodeID]*cluster.Node
	dir     string
	// addresses are those of nodes that join.
	addresses map[protocol.NodeID]string
}

func newHouse(t *testing.T, names ...protocol.NodeID) *house {
	log, err := disk.Open(filepath.Join(t.TempDir(), "log"), disk.Config{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, log: log, dir: t.TempDir(), addresses: map[protocol.NodeID]string{}, members: map[protocol.NodeID]cluster.Member{}, nodes: map[protocol.NodeID]*cluster.Node{},
		first: map[protocol.NodeID]net.Listener{}}
	for _, n := range names {
		l, err := net.Listen("tcp", ports.Address(t))
		if err != nil {
			t.Fatal(err)
		}
		h.first[n] = l
		h.members[n] = cluster.Member{Address: l.Addr().String(), API: "http://api-of-" + string(n)}
	}
	t.Cleanup(func() {
		for _, n := range h.nodes {
			_ = n.Close()
		}
		for _, l := range h.first {
			_ = l.Close()
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *house) config(name protocol.NodeID) cluster.Config {
	return cluster.Config{
		Name: "test", Self: name, Members: h.members, Log: h.log, LogName: "a test", Dir: filepath.Join(h.dir, string(name)), Logger: quiet, Software: "1.0", Listener: h.first[name],
		Detector:  detector.Options{Tick: 20 * time.Millisecond, Beat: 2, Timeout: 25},
		Election:  election.Options{Answer: 100 * time.Millisecond, Again: 200 * time.Millisecond},
		Deference: 500 * time.Millisecond, Benefit: 300 * time.Millisecond,
	}
}

func (h *house) open(names ...protocol.NodeID) {
	h.t.Helper()
	for _, name := range names {
		n, err := cluster.Open(h.config(name))
		if err != nil {
			h.t.Fatal(err)
		}
		delete(h.first, name)
		h.nodes[name] = n
	}
}

func (h *house) close(name protocol.NodeID) {
	h.t.Helper()
	if err := h.nodes[name].Close(); err != nil {
		h.t.Fatal(err)
	}
	delete(h.nodes, name)
}

// follow waits until all nodes that are up follow the leader.
func (h *house) follow(leader protocol.NodeID) {
	h.t.Helper()
	h.eventually("all follow "+string(leader), func() bool {
		for _, n := range h.nodes {
			if n.Status().Leader != leader {
				return false
			}
		}
		return true
	})
}

func (h *house) eventually(text string, what func() bool) {
	h.t.Helper()
	for end := time.Now().Add(time.Minute); !what(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			for _, n := range h.nodes {
				s, _ := json.Marshal(n.Status())
				h.t.Logf("%s", s)
			}
			h.t.Fatalf("not after a minute: %s", text)
		}
	}
}

func (h *house) state(at, of protocol.NodeID) string {
	s := h.nodes[at].Status()
	return s.Members[slices.IndexFunc(s.Members, func(m cluster.MemberStatus) bool { return m.Node == of })].State
}

// id returns an id that the node makes.
func (h *house) id(node protocol.NodeID) commit.TransactionID {
	return commit.TransactionID(h.nodes[node].Log().(decision.Prefixer).Prefix() + "X-1")
}

func TestNodesFindEachOtherAndALeader(t *testing.T) {
	h := newHouse(t, "a", "b", "c")
	h.open("a", "b", "c")
	h.follow("c")
	for _, at := range []protocol.NodeID{"a", "b", "c"} {
		role := map[bool]string{true: "leading", false: "following"}[at == "c"]
		var s cluster.Status
		h.eventually("all are up and reached", func() bool {
			s = h.nodes[at].Status()
			for _, m := range s.Members {
				if m.State != "up" && m.Node != at {
					return false
				}
			}
			return s.Role == role && s.Quorum == "decisions need none of the nodes' votes; 3 of 3 votes, 2 needed"
		})
		if !s.Decides || s.Log != "kept by a test" || !strings.HasPrefix(s.View, "a, b and c; view ") || s.Cluster != "test" || s.Self != at {
			t.Errorf("%+v", s)
		}
	}
	h.close("c")
	h.follow("b")
	h.eventually("c is suspected", func() bool { return h.state("a", "c") == "suspected" })
	h.eventually("the quorum says so", func() bool {
		count, enough := h.nodes["a"].Decides()
		return count == "2 of 3 votes, 2 needed: c unreachable" && enough
	})
	h.close("b")
	h.follow("a")
	h.eventually("no quorum is left", func() bool {
		count, enough := h.nodes["a"].Decides()
		return count == "1 of 3 votes, 2 needed: b and c unreachable" && !enough
	})
	h.open("c")
	h.follow("c")
	h.eventually("c is up", func() bool { return h.state("a", "c") == "up" })
}

// A transaction is alive while its node is; when it dies the leader may settle it at once, and the
// others a little later.
func TestAlive(t *testing.T) {
	h := newHouse(t, "a", "b", "c")
	h.open("a", "b", "c")
	h.follow("c")
	id := h.id("a")
	for _, at := range []protocol.NodeID{"b", "c"} {
		h.eventually("a is known", func() bool {
			node, suspected, ok := h.nodes[at].Coordinator(string(id))
			return ok && node == "a" && !suspected
		})
	}
	for _, n := range h.nodes {
		h.eventually(string(n.Self())+" takes a live transaction for alive", func() bool { return n.Alive(id) })
	}
	h.close("a")
	h.eventually("the leader takes it for dead", func() bool { return !h.nodes["c"].Alive(id) })
	if _, suspected, ok := h.nodes["c"].Coordinator(string(id)); !ok || !suspected {
		t.Errorf("suspected %v, known %v", suspected, ok)
	}
	h.eventually("so do the others", func() bool { return !h.nodes["b"].Alive(id) })

	// The next life of a begins no transactions of the earlier one's.
	h.open("a")
	if h.id("a") == id {
		t.Fatal("the same prefix again")
	}
	h.eventually("a's new life is known", func() bool { _, _, ok := h.nodes["c"].Coordinator(string(h.id("a"))); return ok })
	for _, at := range []protocol.NodeID{"a", "b", "c"} {
		h.eventually("the old life is dead at "+string(at), func() bool { return !h.nodes[at].Alive(id) })
		// The news of a new life come shortly before the heartbeat that ends the suspicion of the old one.
		h.eventually("the new life is alive at "+string(at), func() bool { return h.nodes[at].Alive(h.id("a")) })
	}
	if _, _, ok := h.nodes["c"].Coordinator("nobody's"); ok {
		t.Error("somebody has begun what nobody has")
	}
}

// What nobody has announced is given a moment, and what many have made up does not fill the memory.
func TestStrangersAreGivenAMoment(t *testing.T) {
	h := newHouse(t, "a")
	h.open("a")
	n := h.nodes["a"]
	if !n.Alive("STRANGE-1") {
		t.Error("not given a moment")
	}
	h.eventually("the moment passes", func() bool { return !n.Alive("STRANGE-1") })
	for i := range 10_000 {
		n.Alive(commit.TransactionID(fmt.Sprintf("%020d-1", i)))
	}
	if !n.Alive("") {
		t.Error("not given a moment")
	}
}

func TestLeaving(t *testing.T) {
	h := newHouse(t, "a", "b")
	h.open("a", "b")
	h.eventually("b is up", func() bool { return h.state("a", "b") == "up" })
	h.nodes["b"].Leave()
	h.eventually("b is leaving", func() bool { return h.state("a", "b") == "leaving" && h.state("b", "b") == "this node, leaving" })
}

func TestKeeper(t *testing.T) {
	h := newHouse(t, "a", "b", "x-b")
	h.open("a")
	n := h.nodes["a"]
	for name, want := range map[string]string{"kv-a": "a", "kv-b": "b", "kv-x-b": "x-b", "kv": "", "b": "", "kv-c": ""} {
		node, api, ok := n.Keeper(name)
		if string(node) != want || ok != (want != "") || ok && api != "http://api-of-"+want {
			t.Errorf("%s is kept by %q at %q", name, node, api)
		}
		if n.Elsewhere(name) != (want != "" && want != "a") {
			t.Errorf("%s is elsewhere: %v", name, n.Elsewhere(name))
		}
	}
}

func TestBadConfig(t *testing.T) {
	h := newHouse(t, "a", "b")
	for want, change := range map[string]func(*cluster.Config){
		"the cluster's name: it is empty":          func(c *cluster.Config) { c.Name = "" },
		"at most 32 are allowed":                   func(c *cluster.Config) { c.Name = strings.Repeat("n", 33) },
		`node "z" is not among the members, which`: func(c *cluster.Config) { c.Self = "z" },
		"not among the members":                    func(c *cluster.Config) { c.Members = nil },
		"the name of a node":                       func(c *cluster.Config) { c.Members = with(c.Members, "b c", cluster.Member{Address: "127.0.0.1:1"}) },
		"the address of node c":                    func(c *cluster.Config) { c.Members = with(c.Members, "c", cluster.Member{Address: "nowhere"}) },
		"votes": func(c *cluster.Config) {
			c.Members = with(c.Members, "c", cluster.Member{Address: "127.0.0.1:1", Votes: -1})
		},
		"and there is no TLS": func(c *cluster.Config) { c.Members = with(c.Members, "c", cluster.Member{Address: "10.0.0.1:1"}) },
		"Config.Dir":          func(c *cluster.Config) { c.Dir = "" },
	} {
		cfg := h.config("a")
		change(&cfg)
		n, err := cluster.Open(cfg)
		if err == nil {
			_ = n.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
}

func with(members map[protocol.NodeID]cluster.Member, node protocol.NodeID, m cluster.Member) map[protocol.NodeID]cluster.Member {
	all := map[protocol.NodeID]cluster.Member{node: m}
	for n, m := range members {
		all[n] = m
	}
	return all
}

// asking opens two nodes of three, which are connected.
func asking(t *testing.T) (a, b *cluster.Node) {
	t.Helper()
	h := newHouse(t, "a", "b", "absent")
	h.open("a", "b")
	a, b = h.nodes["a"], h.nodes["b"]
	for _, n := range []*cluster.Node{a, b} {
		h.eventually("a and b are connected", func() bool {
			count, _ := n.Decides()
			return strings.HasPrefix(count, "2 of 3")
		})
	}
	return a, b
}

// TestQuestionsThatWait: questions of one kind that have to wait leave room for others, and when there are too many
// of them, more are refused at once.
func TestQuestionsThatWait(t *testing.T) {
	a, b := asking(t)
	const most = 1024
	let := make(chan struct{})
	begun := make(chan struct{}, most)
	b.Answer(func(_ protocol.NodeID, question []byte) []byte {
		if question[0] == 'w' {
			begun <- struct{}{}
			<-let
		}
		return question
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	results := make(chan error, most)
	for range most {
		go func() {
			_, err := a.Ask(ctx, "b", []byte("work"))
			results <- err
		}()
	}
	for range most {
		<-begun
	}
	if answer, err := a.Ask(ctx, "b", []byte("tell")); err != nil || string(answer) != "tell" {
		t.Errorf("a question of another kind: %q, %v", answer, err)
	}
	if _, err := a.Ask(ctx, "b", []byte("work")); !errors.Is(err, cluster.ErrBusy) {
		t.Errorf("one more: %v", err)
	}
	close(let)
	for range most {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if _, err := a.Ask(ctx, "b", []byte("work")); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
}

func TestQuestions(t *testing.T) {
	a, b := asking(t)
	b.Answer(func(from protocol.NodeID, question []byte) []byte {
		return []byte(fmt.Sprintf("%s asked %s", from, question))
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	results := make(chan string, 20)
	for i := range 20 {
		go func() {
			answer, err := a.Ask(ctx, "b", []byte(fmt.Sprint(i)))
			results <- fmt.Sprintf("%s %v %v", answer, err, string(answer) == fmt.Sprintf("a asked %d", i))
		}()
	}
	for range 20 {
		if r := <-results; !strings.HasSuffix(r, "<nil> true") {
			t.Error(r)
		}
	}
	if _, err := a.Ask(ctx, "nobody", nil); err == nil {
		t.Error("nobody has answered")
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := a.Ask(short, "absent", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("who is absent has answered: %v", err)
	}
	if _, err := b.Ask(short, "a", nil); !errors.Is(err, context.DeadlineExceeded) { // nobody answers there
		t.Errorf("who has no answers has answered: %v", err)
	}
}
