package paxos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/decision"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/paxos"
	"assent/resource"
)

// brisk are pauses for tests in which ballots are refused often.
var brisk = paxos.Options{Retry: 10 * time.Millisecond, RetryMost: 100 * time.Millisecond}

// add starts a node that is not a member.
func (g *group) add(name protocol.NodeID) *Log {
	g.t.Helper()
	g.mu.Lock()
	if !slices.Contains(g.names, name) {
		g.names = append(g.names, name)
	}
	g.fs[name] = vfs.NewCrashableMem()
	g.mu.Unlock()
	return g.start(name)
}

// members returns members of the names, with their storages and a vote each; in the places that they have
// in was, or else in the first that are free. It returns nil where one is down.
func (g *group) members(was Epoch, names ...protocol.NodeID) (all []Member) {
	taken := map[int]bool{}
	for _, m := range was.named() {
		taken[m.Place] = true
	}
	for _, name := range names {
		l := g.log(name)
		if l == nil {
			return nil
		}
		m := Member{Node: name, Storage: l.Storage(), Votes: 1, Since: was.Number + 1}
		if known, ok := find(was.named(), name); ok {
			m.Place, m.Since = known.Place, known.Since
		} else {
			for taken[m.Place] {
				m.Place++
			}
			taken[m.Place] = true
		}
		all = append(all, m)
	}
	return all
}

// change returns the epochs that lead from the members of was to those of the names.
func (g *group) change(was Epoch, names ...protocol.NodeID) (both, after Epoch) {
	next := g.members(was, names...)
	return Epoch{Number: was.Number + 1, Members: was.Members, Next: next}, Epoch{Number: was.Number + 2, Members: next}
}

// move changes the members to those of the names, by the node at, and returns the epoch that it ends in.
func (g *group) move(at protocol.NodeID, was Epoch, names ...protocol.NodeID) Epoch {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), 2*time.Minute)
	defer cancel()
	both, after := g.change(was, names...)
	if err := g.log(at).Move(ctx, both, after); err != nil {
		g.t.Fatalf("move from %v to %v: %v", was, names, err)
	}
	for _, name := range names {
		if err := g.log(name).Enter(ctx, after); err != nil {
			g.t.Fatalf("enter %v at %s: %v", after, name, err)
		}
	}
	return after
}

// fill decides n transactions, of which some are annotated, finished or forgotten, and returns how to check
// that a member tells what was told.
func (g *group) fill(at protocol.NodeID, prefix string, n int) (check func(at protocol.NodeID)) {
	g.t.Helper()
	ctx := g.t.Context()
	id := func(i int) string { return fmt.Sprint(prefix, "-", i) }
	for i := range n {
		g.decide(at, entry(id(i), commit.Commit, string(at)))
		var err error
		switch i % 4 {
		case 1:
			err = g.log(at).Annotate(ctx, commit.TransactionID(id(i)), decision.Note{Kind: decision.Finished, Forced: true})
		case 2:
			err = g.log(at).Forget(ctx, commit.TransactionID(id(i)))
		}
		if err != nil {
			g.t.Fatal(err)
		}
	}
	return func(at protocol.NodeID) {
		g.t.Helper()
		for i := range n {
			if i%4 == 2 {
				if e, err := g.log(at).Lookup(ctx, commit.TransactionID(id(i))); !errors.Is(err, decision.ErrNotFound) {
					g.t.Errorf("%s was forgotten, and at %s it is %v, %v", id(i), at, e, err)
				}
				continue
			}
			want := decision.Unfinished
			if i%4 == 1 {
				want = decision.Done
			}
			if e := g.lookup(at, id(i)); e.Decision != commit.Commit || e.Status() != want {
				g.t.Errorf("%s at %s: %v, %v", id(i), at, e, e.Status())
			}
		}
	}
}

// TestChange: what the members before knew is what those after tell, by themselves; and who is a member no
// more is refused.
func TestChange(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, Config{Options: brisk})
	g.ready()
	check := g.fill("a", "before", 80)
	g.add("d")
	e := g.move("a", g.cfg.Epoch, "b", "c", "d")
	g.until("a knows", func() bool { return g.log("a").Epoch().Number == e.Number })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := g.log("a").Decide(ctx, entry(g.own("a", 1), commit.Commit, "a"))
	if !errors.Is(err, ErrNotMember) || resource.CodeOf(err) != resource.Unavailable || !strings.Contains(err.Error(), "a is not a member in epoch 3") {
		t.Errorf("a proposes: %v", err)
	}
	if why := g.log("a").Status().Stopped; why != "a is not a member in epoch 3" {
		t.Errorf("a has stopped: %q", why)
	}
	g.stop("b") // now it is c and d, of whom d knew nothing before
	check("d")
	check("c")
	g.decide("d", entry(g.own("d", 1), commit.Commit, "d"))
	if g.log("d").faulted.Load() {
		t.Error("d decides in two round trips")
	}
	if got := g.decide("c", entry("before-0", commit.Abort, "late")); got.By != "a" {
		t.Errorf("%v stands", got)
	}
	g.start("b")
	check("b")
	g.until("nothing is owed", func() bool {
		for _, name := range []protocol.NodeID{"b", "c", "d"} {
			for _, m := range g.log(name).Status().Members {
				if m.Lag != 0 || m.Node == "a" {
					return false
				}
			}
		}
		return true
	})
}

// TestLostDirectory: a member that has lost its directory is left out, and let in again with its new storage;
// what waited for the old one waits no more.
func TestLostDirectory(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, Config{Options: brisk, RetainCount: 40})
	g.ready()
	e := g.move("b", g.cfg.Epoch, "a", "b", "c") // their storages are known now
	g.stop("c")
	old := g.fs["c"]
	for i := range 100 {
		id := fmt.Sprint("done-", i)
		g.decide("a", entry(id, commit.Commit, "a"))
		if err := g.log("b").Annotate(t.Context(), commit.TransactionID(id), decision.Note{Kind: decision.Finished}); err != nil {
			t.Fatal(err)
		}
	}
	check := g.fill("a", "before", 20)
	g.add("c")
	g.until("c is refused", func() bool { return strings.Contains(g.log("c").Status().Stopped, "names another storage") })
	both, _ := g.change(e, "a", "b", "c")
	if err := g.log("a").Enter(t.Context(), both); !errors.Is(err, ErrEpoch) {
		t.Errorf("another storage at once: got %v; want %v", err, ErrEpoch)
	}
	e = g.move("a", e, "a", "b")
	g.until("nothing waits for c", func() bool {
		st := g.log("a").Status()
		return st.Members[0].Retained <= 40 && len(st.Members) == 2
	})
	more := g.fill("b", "between", 20)
	e = g.move("b", e, "a", "b", "c")
	g.until("c votes", func() bool { return g.log("c").Status().Quorum == "3 of 3 votes, 2 needed" })
	g.stop("a")
	check("c")
	more("c")
	g.stop("c")
	g.fs["c"], old = old, g.fs["c"]
	g.start("c") // its old directory comes back
	g.until("the old directory is refused", func() bool {
		return g.log("c").Epoch().Number == e.Number && strings.Contains(g.log("c").Status().Stopped, "names another storage")
	})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if got, err := g.log("b").Decide(ctx, entry("alone", commit.Commit, "b")); err == nil {
		t.Errorf("b alone has decided %v", got)
	}
	g.stop("c")
	g.fs["c"] = old
	g.start("c")
	g.decide("b", entry("alone", commit.Commit, "b"))
}

// TestGrow: from one to three to five and back.
func TestGrow(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 1, Config{Options: brisk})
	checks := []func(protocol.NodeID){g.fill("a", "one", 30)}
	e := g.cfg.Epoch
	for i, names := range [][]protocol.NodeID{{"a", "b", "c"}, {"a", "b", "c", "d", "e"}, {"c", "d", "e"}} {
		for _, name := range names {
			if g.log(name) == nil {
				g.add(name)
			}
		}
		e = g.move("a", e, names...)
		last := names[len(names)-1]
		checks = append(checks, g.fill(last, fmt.Sprint("after-", i), 10))
	}
	for _, name := range []protocol.NodeID{"a", "b"} {
		g.stop(name)
	}
	g.until("c, d and e are three", func() bool { return g.log("e").Status().Quorum == "3 of 3 votes, 2 needed" })
	for _, check := range checks {
		check("c")
		check("e")
	}
	if e.Number != 7 {
		t.Errorf("it ends in epoch %d", e.Number)
	}
}

// TestComesBack: a member that left and comes back with its directory does not bring back what the others have
// dropped since, also when it starts again.
func TestComesBack(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 4, Config{Options: brisk, RetainCount: 5})
	g.ready()
	check := g.fill("b", "open", 1)
	g.decide("b", entry("old", commit.Commit, "b"))
	own := entry(g.own("a", 1), commit.Commit, "a")
	g.decide("a", own)
	g.until("a holds it", func() bool { h, _ := g.log("a").serving().look("old"); return h.chosen })
	e := g.move("b", g.cfg.Epoch, "b", "c", "d")
	g.until("a knows", func() bool { return g.log("a").Epoch().Number == e.Number })
	if h, _ := g.log("a").serving().look("old"); !h.chosen {
		t.Error("a has dropped what it may still need")
	}
	finish := func(id string) {
		g.decide("b", entry(id, commit.Commit, "b"))
		if err := g.log("b").Annotate(t.Context(), commit.TransactionID(id), decision.Note{Kind: decision.Finished}); err != nil {
			t.Fatal(err)
		}
	}
	finish("old")
	for i := range 20 {
		finish(fmt.Sprint("done-", i))
	}
	g.until("the others have dropped it", func() bool {
		for _, name := range []protocol.NodeID{"b", "c", "d"} {
			if _, held := g.log(name).serving().look("old"); held {
				return false
			}
		}
		return true
	})
	g.until("a knows what it began", func() bool { h, _ := g.log("a").serving().look(own.ID); return h.chosen || h.forgotten > 0 })
	e = g.move("c", e, "a", "c", "d")
	if !g.log("a").faulted.Load() {
		t.Error("a may use ballot 0 again")
	}
	for range 2 {
		if h, held := g.log("a").serving().look("old"); held {
			t.Errorf("a holds %v", h)
		}
		check("a")
		g.stop("a")
		g.start("a")
	}
	for e, err := range g.log("a").List(t.Context(), decision.Unfinished) {
		if err != nil || e.ID != "open-0" && e.ID != own.ID {
			t.Errorf("listed: %v, %v", e, err)
		}
	}
	if got := g.log("a").Epoch(); !got.equal(e) {
		t.Errorf("a starts in %v; want %v", got, e)
	}
}

// TestStableEpoch: an epoch that was entered is known after a crash in which all is lost that was not forced,
// and after its record's segment has gone; whatever is of an earlier one is answered with it.
func TestStableEpoch(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, Config{Options: brisk, RetainCount: 10})
	g.ready()
	both, _ := g.change(g.cfg.Epoch, "a", "b", "c")
	if err := g.log("c").Enter(t.Context(), both); err != nil {
		t.Fatal(err)
	}
	g.crash("c", 0, nil)
	g.start("c")
	if got := g.log("c").Epoch(); !got.equal(both) {
		t.Errorf("c starts in %v; want %v", got, both)
	}
	g.decide("a", entry("tx", commit.Commit, "a")) // c tells
	g.until("all know", func() bool { return g.log("a").Epoch().equal(both) && g.log("b").Epoch().equal(both) })
	i := 0
	g.until("the first segment has gone", func() bool {
		for range 50 {
			i++
			id := fmt.Sprint("tx-", i)
			g.decide("a", entry(id, commit.Commit, "a"))
			if err := g.log("a").Annotate(t.Context(), commit.TransactionID(id), decision.Note{Kind: decision.Finished}); err != nil {
				t.Fatal(err)
			}
		}
		names, err := g.fs["b"].List("member/segments")
		return err == nil && !slices.Contains(names, "00000000000000000001.segment")
	})
	g.stop("b")
	g.start("b")
	if got := g.log("b").Epoch(); !got.equal(both) {
		t.Errorf("b starts in %v; want %v", got, both)
	}
}

// TestStranger: an epoch that is told by a node which is not a member has no effect, however high it is: the node
// may be left over from another cluster of the same name. Who knows of no epoch yet believes it.
func TestStranger(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, Config{Options: brisk})
	g.ready()
	a, known := g.log("a"), g.cfg.Epoch
	g.cfg.Epoch = Epoch{}
	joiner := g.add("d")
	g.cfg.Epoch = known
	strange := Epoch{Number: 7, Members: []Member{{Node: "x", Storage: "of x", Votes: 1}, {Node: "a", Storage: a.Storage(), Votes: 1, Place: 1}}}
	told := appendEnvelope(nil, envelope{owner: g.cfg.Owner, incarnation: "x-1", epoch: strange.Number})
	bare := slices.Clone(told)
	told = appendEpoch(told, byte(kindEpoch), strange)
	for _, payload := range [][]byte{bare, told} {
		a.receive("x", payload)
		joiner.receive("x", payload)
	}
	if is := a.Epoch(); is.Number != 1 {
		t.Errorf("a member of epoch 1 believes a stranger: %v", is)
	}
	if is := joiner.Epoch(); is.Number != strange.Number {
		t.Errorf("who knows of no epoch does not believe x: %v", is)
	}
	if e := g.decide("a", entry(g.own("a", 1), commit.Commit, "a")); e.By != "a" {
		t.Errorf("%v stands", e)
	}
	a.receive("b", told) // from a member it counts
	if is := a.Epoch(); is.Number != strange.Number {
		t.Errorf("a does not believe b: %v", is)
	}
}
