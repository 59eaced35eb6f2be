package paxos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/decision"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/paxos"
	"assent/resource"
)

// proposal returns an entry to propose.
func entry(id string, d commit.Decision, by string) decision.Entry {
	return decision.Entry{ID: commit.TransactionID(id), Decision: d, By: by, Time: time.Unix(1, 0).UTC(),
		Branches: []decision.Branch{{Resource: "orders", Evidence: []byte("4711")}, {Resource: "stock"}}}
}

// decide proposes at the member, which must succeed, and returns what stands.
func (g *group) decide(at protocol.NodeID, e decision.Entry) decision.Entry {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), 2*time.Minute)
	defer cancel()
	stands, err := g.log(at).Decide(ctx, e)
	if err != nil {
		g.t.Fatalf("decide %q at %s: %v", e.ID, at, err)
	}
	return stands
}

// own returns an id that the member decides about in one round trip.
func (g *group) own(at protocol.NodeID, n int) string {
	return fmt.Sprintf("%s-%d", g.log(at).Prefix(), n)
}

// lookup asks the member for the entry, which must be there.
func (g *group) lookup(at protocol.NodeID, id string) decision.Entry {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), 2*time.Minute)
	defer cancel()
	e, err := g.log(at).Lookup(ctx, commit.TransactionID(id))
	if err != nil {
		g.t.Fatalf("look up %q at %s: %v", id, at, err)
	}
	return e
}

// until waits for something that comes about by itself.
func (g *group) until(what string, is func() bool) {
	g.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !is() {
		if time.Now().After(deadline) {
			for _, name := range g.names {
				if l := g.log(name); l != nil {
					g.t.Logf("%+v", l.Status())
				}
			}
			g.t.Fatalf("it did not come about that %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// ready waits until all members vote and know it of each other.
func (g *group) ready() {
	g.t.Helper()
	g.until("all vote", func() bool {
		for _, name := range g.names {
			for _, m := range g.log(name).Status().Members {
				if m.Condition != "votes" {
					return false
				}
			}
		}
		return true
	})
}

// TestCost: what a decision costs where nothing fails: two messages to each other member and one forced
// write at each, and nobody waits for more than one round trip (Gray and Lamport 2006; the decision is
// told later, with other things).
func TestCost(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3, 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			g := newGroup(t, n, Config{Options: paxos.Options{Retry: time.Minute, RetryMost: time.Minute}})
			g.ready()
			var mu sync.Mutex
			counts := map[kind]int{}
			g.wires.watch = func(_, _ protocol.NodeID, payload []byte) {
				r := &reader{data: payload}
				r.envelope()
				for len(r.data) > 0 {
					items := r.list(16)
					k := kind(r.most(255))
					if k > kindVoid {
						return
					}
					r.message(k, items)
					mu.Lock()
					counts[k]++
					mu.Unlock()
				}
			}
			before := g.forces()
			const decisions = 20
			for i := range decisions {
				e := entry(g.own("a", i), commit.Commit, "coordinator")
				if got := g.decide("a", e); got.By != "coordinator" {
					t.Fatalf("%v stands", got)
				}
				g.until("all hold it", func() bool {
					for _, name := range g.names {
						if h, _ := g.log(name).serving().look(e.ID); h.value.Stamp == 0 {
							return false
						}
					}
					return true
				})
			}
			g.until("all have answered", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return counts[kindPhase2b]+counts[kindChosen] >= decisions*(n-1) && g.forces()-before >= decisions*n-counts[kindChosen]
			})
			mu.Lock()
			defer mu.Unlock()
			// Where a message was slow, its receiver may have been told of the decision by another
			// before: then it answers with that, and forces nothing.
			late := counts[kindChosen]
			if counts[kindPhase2a] != decisions*(n-1) || counts[kindPhase2b] != decisions*(n-1)-late || late > decisions/2 {
				t.Errorf("messages by kind: %v; want %d to accept and as many answers", counts, decisions*(n-1))
			}
			if got := g.forces() - before; got != decisions*n-late {
				t.Errorf("%d forced writes; want %d", got, decisions*n-late)
			}
		})
	}
}

// forces returns how often members have forced their journals for a decision.
func (g *group) forces() (n int) {
	for _, name := range g.names {
		n += int(g.log(name).Stats().Forces)
	}
	return n
}

// TestOneDown: with one of three away all goes on, also from scratch; when it is back it catches up.
func TestOneDown(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, Config{})
	g.ready()
	g.stop("c")
	for i := range 50 {
		g.decide("a", entry(g.own("a", i), commit.Commit, "a"))
		g.decide("b", entry(fmt.Sprint("any-", i), commit.Abort, "b"))
	}
	ctx := t.Context()
	if err := g.log("a").Annotate(ctx, "any-7", decision.Note{Kind: decision.Finished, Forced: true}); err != nil {
		t.Fatal(err)
	}
	if err := g.log("b").Forget(ctx, "any-9"); err != nil {
		t.Fatal(err)
	}
	g.start("c")
	g.until("c holds what the others hold", func() bool {
		s := g.log("c").serving()
		for i := range 50 {
			h, _ := s.look(commit.TransactionID(fmt.Sprint("any-", i)))
			if i == 9 && h.forgotten == 0 || i != 9 && !h.chosen || i == 7 && len(h.notes) != 1 {
				return false
			}
			if h, _ := s.look(commit.TransactionID(g.own("a", i))); !h.chosen {
				return false
			}
		}
		return true
	})
	g.until("nothing is owed", func() bool {
		for _, name := range g.names {
			for _, m := range g.log(name).Status().Members {
				if m.Lag != 0 {
					return false
				}
			}
		}
		return true
	})
}

// TestTwoDown: with two of three away calls fail in time, and say who is missing; nothing is lost, and
// all goes on when one is back.
func TestTwoDown(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, Config{})
	g.ready()
	g.decide("a", entry("before", commit.Commit, "a"))
	g.decide("a", entry("old", commit.Commit, "a"))
	g.wires.isolate("a")
	g.until("a misses the others", func() bool { return strings.Contains(g.log("a").Status().Quorum, "b and c unreachable") })
	l := g.log("a")
	own := entry(g.own("a", 1), commit.Commit, "a")
	for what, do := range map[string]func(context.Context) error{
		"decide": func(ctx context.Context) error { _, err := l.Decide(ctx, own); return err },
		"look up": func(ctx context.Context) error {
			_, err := l.Lookup(ctx, "unknown")
			return err
		},
		"annotate": func(ctx context.Context) error {
			return l.Annotate(ctx, "before", decision.Note{Kind: decision.Finished, Forced: true})
		},
		"forget": func(ctx context.Context) error { return l.Forget(ctx, "old") },
		"list": func(ctx context.Context) error {
			for _, err := range l.List(ctx, 0) {
				return err
			}
			return nil
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		err := do(ctx)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || resource.CodeOf(err) != resource.Unavailable ||
			!strings.Contains(err.Error(), "1 of 3 votes, 2 needed: b and c unreachable") {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if e := g.lookup("a", "before"); e.Decision != commit.Commit {
		t.Errorf("what is known here: %v", e)
	}
	// The others decide meanwhile; the coordinator that comes back is told what stands.
	if got := g.decide("b", entry(string(own.ID), commit.Abort, "recovery")); got.By != "recovery" {
		t.Errorf("%v stands", got)
	}
	g.wires.isolate()
	if got := g.decide("a", own); got.Decision != commit.Abort || got.By != "recovery" {
		t.Errorf("the stale coordinator is told %v", got)
	}
}

// TestAmnesia: a member that has lost its directory is not let vote, and says so; the others go on, and
// so does it as a coordinator. Its own directory lets it vote again.
func TestAmnesia(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, Config{})
	g.ready()
	g.decide("a", entry("before", commit.Commit, "a"))
	g.stop("c")
	kept := g.fs["c"]
	g.fs["c"] = vfs.NewCrashableMem()
	g.start("c")
	g.until("c is refused", func() bool { return strings.Contains(g.log("c").Status().Stopped, "another storage") })
	if e := g.decide("c", entry("after", commit.Commit, "c")); e.By != "c" {
		t.Errorf("%v stands", e)
	}
	if e := g.lookup("c", "before"); e.Decision != commit.Commit {
		t.Errorf("before: %v", e)
	}
	g.until("the others know", func() bool {
		for _, m := range g.log("a").Status().Members {
			if m.Node == "c" && m.Condition == "not admitted to vote" {
				return true
			}
		}
		return false
	})
	// With a away as well there is no quorum: c's vote would be forgetful.
	g.stop("a")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if e, err := g.log("b").Decide(ctx, entry("alone", commit.Commit, "b")); err == nil {
		t.Errorf("b alone has decided %v", e)
	}
	g.stop("c")
	g.fs["c"] = kept
	g.start("c")
	if e := g.decide("b", entry("alone", commit.Commit, "b")); e.By != "b" {
		t.Errorf("%v stands", e)
	}
}

// TestWrongDirectory: a directory belongs to one node of one cluster.
func TestWrongDirectory(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, Config{})
	g.stop("c")
	for what, change := range map[string]func(*Config){
		"another node":    func(c *Config) { c.Self = "a" },
		"another cluster": func(c *Config) { c.Owner = "another" },
	} {
		cfg := g.cfg
		cfg.Self, cfg.FS, cfg.Network = "c", g.fs["c"], newWires(1).of("c")
		change(&cfg)
		l, err := Open(cfg)
		if !errors.Is(err, ErrForeign) {
			t.Errorf("%s: got %v, %v; want %v", what, l, err, ErrForeign)
		}
	}
	cfg := g.cfg
	cfg.Self, cfg.FS, cfg.Network = "b", g.fs["b"], newWires(1).of("b")
	if l, err := Open(cfg); !errors.Is(err, ErrLocked) {
		t.Errorf("twice: got %v, %v; want %v", l, err, ErrLocked)
	}
	g.start("c")
}
