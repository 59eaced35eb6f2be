package paxos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"assent/decision"
	"assent/decision/decisiontest"
	"assent/protocol"
	"assent/protocol/commit"
)

// TestUnderWay: a proposer that is cut off while the members change goes on in the epoch that it finds: what
// nobody else has decided it decides, and of the rest it is told what stands. One that is a member no more
// decides nothing.
func TestUnderWay(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, Config{Options: brisk})
	g.add("d")
	g.ready2("a", "b", "c")
	g.wires.isolate("a")
	mine, lost := entry(g.own("a", 1), commit.Commit, "a"), entry(g.own("a", 2), commit.Commit, "a")
	type result struct {
		decision.Entry
		error
	}
	results := map[commit.TransactionID]chan result{mine.ID: make(chan result, 1), lost.ID: make(chan result, 1)}
	for _, e := range []decision.Entry{mine, lost} {
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			stands, err := g.log("a").Decide(ctx, e)
			results[e.ID] <- result{stands, err}
		}()
	}
	g.until("a has accepted its own", func() bool {
		h, _ := g.log("a").serving().look(mine.ID)
		l, _ := g.log("a").serving().look(lost.ID)
		return h.value.Stamp != 0 && l.value.Stamp != 0
	})
	e := g.moveWithout("b", g.cfg.Epoch, []protocol.NodeID{"a", "c", "d"}, "a")
	if got := g.decide("d", entry(string(lost.ID), commit.Abort, "recovery")); got.By != "recovery" {
		t.Errorf("%v stands", got)
	}
	g.wires.isolate()
	if r := <-results[mine.ID]; r.error != nil || r.By != "a" {
		t.Errorf("what nobody else decided: %v, %v", r.Entry, r.error)
	}
	if r := <-results[lost.ID]; r.error != nil || r.By != "recovery" {
		t.Errorf("what was decided meanwhile: %v, %v", r.Entry, r.error)
	}
	if got := g.log("a").Epoch(); !got.equal(e) {
		t.Errorf("a is in %v; want %v", got, e)
	}
	if got := g.lookup("d", string(mine.ID)); got.By != "a" {
		t.Errorf("%v stands", got)
	}
	g.wires.isolate("c") // as a proposer: it is about to be left out
	late := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := g.log("c").Decide(ctx, entry(g.own("c", 1), commit.Commit, "c"))
		late <- err
	}()
	g.moveWithout("a", e, []protocol.NodeID{"a", "d"}, "c")
	g.wires.isolate()
	g.until("c knows", func() bool { return !g.log("c").roster.Load().member() })
	cancel()
	if err := <-late; !errors.Is(err, context.Canceled) && !errors.Is(err, ErrNotMember) {
		t.Errorf("c was left out, and has decided: %v", err)
	}
}

// ready2 waits until the members vote.
func (g *group) ready2(members ...protocol.NodeID) {
	g.t.Helper()
	want := fmt.Sprintf("%d of %d votes, %d needed", len(members), len(members), len(members)/2+1)
	for _, name := range members {
		g.until("all vote", func() bool { return g.log(name).Status().Quorum == want })
	}
}

// moveWithout changes the members by the node at, while one of them is cut off.
func (g *group) moveWithout(at protocol.NodeID, was Epoch, names []protocol.NodeID, cut protocol.NodeID) Epoch {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), 2*time.Minute)
	defer cancel()
	both, after := g.change(was, names...)
	if err := g.log(at).Move(ctx, both, after); err != nil {
		g.t.Fatal(err)
	}
	for _, name := range names {
		if name != cut {
			if err := g.log(name).Enter(ctx, after); err != nil {
				g.t.Fatal(err)
			}
		}
	}
	return after
}

// TestLearner: a member without votes is told everything and may propose, and nobody waits for it.
func TestLearner(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, Config{Options: brisk})
	g.ready()
	check := g.fill("a", "before", 12)
	l := g.add("d")
	both, after := g.change(g.cfg.Epoch, "a", "b", "c", "d")
	both.Next[3].Votes = 0 // and after.Members'
	if err := g.log("a").Move(t.Context(), both, after); err != nil {
		t.Fatal(err)
	}
	if err := l.Enter(t.Context(), after); err != nil {
		t.Fatal(err)
	}
	g.until("d holds all", func() bool {
		for i := range 12 {
			if h, _ := l.serving().look(commit.TransactionID(fmt.Sprint("before-", i))); !h.chosen && h.forgotten == 0 {
				return false
			}
		}
		return true
	})
	if got := g.decide("d", entry(g.own("d", 1), commit.Commit, "d")); got.By != "d" {
		t.Errorf("%v stands", got)
	}
	if st := l.Status(); st.Quorum != "3 of 3 votes, 2 needed" || st.Members[0].Condition != "learns" {
		t.Errorf("quorum %q, %+v", st.Quorum, st.Members[0])
	}
	check("d")
	g.stop("d")
	g.decide("a", entry(g.own("a", 1), commit.Commit, "a"))
}

// TestTwoMove: two nodes change the members at once, while what one member before has accepted is known to be
// decided by nobody; both come to the end, and it is decided.
func TestTwoMove(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, Config{Options: brisk})
	g.ready()
	e := entry("tx", commit.Commit, "gone").Normal()
	value := Value{Stamp: g.log("a").stamps.next(), Status: e.Status(), Entry: encoded(t, e)}
	ballot := sampleBallot
	ballot.Epoch = 1
	stepped := make(chan struct{})
	s := g.log("b").serving()
	s.deliver("tx", ballot.Node, phase2a{Instance: "tx", Ballot: ballot, Value: value})
	s.batch.Then(func() { close(stepped) })
	<-stepped
	g.stop("c") // so that b is of those that are asked
	g.add("d")
	g.add("e")
	both, after := g.change(g.cfg.Epoch, "d", "e")
	var wg sync.WaitGroup
	for _, at := range []protocol.NodeID{"a", "d"} {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			if err := g.log(at).Move(ctx, both, after); err != nil {
				t.Errorf("move by %s: %v", at, err)
			}
		})
	}
	wg.Wait()
	for _, at := range []protocol.NodeID{"d", "e"} {
		if h, _ := g.log(at).serving().look("tx"); !h.chosen {
			t.Errorf("%s holds %v", at, h)
		}
		if err := g.log(at).Move(t.Context(), both, after); err != nil {
			t.Errorf("once more: %v", err)
		}
		if err := g.log(at).Enter(t.Context(), after); err != nil {
			t.Fatal(err)
		}
		if err := g.log(at).Move(t.Context(), both, after); err != nil {
			t.Errorf("when it is over: %v", err)
		}
	}
	if got := g.lookup("d", "tx"); got.By != "gone" {
		t.Errorf("%v stands", got)
	}
	g.start("c")
}

// TestMissedChange: a member that was away while another left and came back does not take for held there what
// was held there before.
func TestMissedChange(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 4, Config{Options: brisk})
	g.ready()
	g.decide("a", entry("tx", commit.Commit, "a"))
	l := g.log("b")
	owed := func() uint64 {
		s := l.serving()
		s.mu.Lock()
		defer s.mu.Unlock()
		if in, ok := s.table["tx"]; ok && in.Chosen {
			return in.owed
		}
		return ^uint64(0)
	}
	g.until("all hold it and b knows", func() bool { return owed() == 0 })
	g.wires.isolate("b")
	e := g.moveWithout("a", g.cfg.Epoch, []protocol.NodeID{"a", "b", "c"}, "b")
	e = g.moveWithout("a", e, []protocol.NodeID{"a", "b", "c", "d"}, "b")
	if err := l.Enter(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if d := l.roster.Load().peers.of("d"); owed()&d.bit == 0 {
		t.Error("b takes it that d holds what it held before it left")
	}
	g.wires.isolate()
	g.until("nothing is owed", func() bool { return owed() == 0 })
}

// TestMissedReturn: a member that hears of both at once, that it has left and that it is back, begins anew all the
// same.
func TestMissedReturn(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 4, Config{Options: brisk})
	g.ready()
	g.decide("a", entry("tx", commit.Commit, "a"))
	holds := func() bool { h, _ := g.log("d").serving().look("tx"); return h.chosen }
	g.until("d holds it", holds)
	g.wires.isolate("d")
	e := g.moveWithout("a", g.cfg.Epoch, []protocol.NodeID{"a", "b", "c"}, "d")
	e = g.moveWithout("a", e, []protocol.NodeID{"a", "b", "c", "d"}, "d")
	if err := g.log("d").Enter(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if holds() {
		t.Error("d goes on with what it held before it left")
	}
	g.wires.isolate()
	g.until("d is told again", holds)
}

// TestMovesThatCannotBe: epochs that do not follow one another are refused with the reason.
func TestMovesThatCannotBe(t *testing.T) {
	g := newGroup(t, 1, Config{})
	g.add("b")
	both, after := g.change(g.cfg.Epoch, "b")
	other := after
	other.Members = g.cfg.Epoch.Members
	for what, c := range map[string][2]Epoch{"to others": {both, other}, "back": {after, both}, "no members": {both, {Number: 3}}} {
		if err := g.log("a").Move(t.Context(), c[0], c[1]); !errors.Is(err, ErrEpoch) {
			t.Errorf("%s: got %v; want %v", what, err, ErrEpoch)
		}
	}
	if got := g.log("a").Epoch().Number; got != 1 {
		t.Errorf("a is in epoch %d", got)
	}
	if err := g.log("b").Move(t.Context(), Epoch{Number: 2, Members: both.Members, Next: both.Members}, Epoch{Number: 3, Members: both.Members}); !errors.Is(err, ErrNotMember) {
		t.Errorf("by a node that is no member: got %v; want %v", err, ErrNotMember)
	}
}

// TestConformanceInChange: all that a decision log promises it keeps while the members change all the time.
func TestConformanceInChange(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	of := map[decision.Log]*group{}
	rng := rand.New(rand.NewPCG(8, 8))
	find := func(log decision.Log) *group {
		mu.Lock()
		defer mu.Unlock()
		return of[log]
	}
	keep := func(g *group, l *Log) decision.Log {
		mu.Lock()
		defer mu.Unlock()
		of[l] = g
		return l
	}
	decisiontest.Run(t, decisiontest.Harness{
		New: func(t *testing.T) decision.Log {
			g := newGroup(t, 3, Config{})
			g.add("d")
			done, ctx := make(chan struct{}), t.Context()
			go func() {
				defer close(done)
				g.keepChanging(ctx)
			}()
			t.Cleanup(func() { <-done }) // before the members close; ctx has ended
			return keep(g, g.log("a"))
		},
		Reopen: func(t *testing.T, log decision.Log) decision.Log {
			g := find(log)
			g.stop("a")
			return keep(g, g.start("a"))
		},
		Crash: func(t *testing.T, log decision.Log) decision.Log {
			g := find(log)
			mu.Lock()
			for _, name := range g.names {
				g.crash(name, rng.IntN(101), rng)
			}
			mu.Unlock()
			for _, name := range g.names {
				g.start(name)
			}
			return keep(g, g.log("a"))
		},
		Another: func(t *testing.T, log decision.Log) decision.Log {
			g := find(log)
			return keep(g, g.log("b"))
		},
	})
}

// keepChanging changes the members from a, b and c to a, b and d and back until ctx ends.
func (g *group) keepChanging(ctx context.Context) {
	was := g.cfg.Epoch
	for n := 0; ctx.Err() == nil; n++ {
		next := g.members(was, "a", "b", []protocol.NodeID{"d", "c"}[n%2])
		if next == nil {
			time.Sleep(time.Millisecond)
			n--
			continue
		}
		both, after := Epoch{Number: was.Number + 1, Members: was.Members, Next: next}, Epoch{Number: was.Number + 2, Members: next}
		for moved := false; !moved && ctx.Err() == nil; {
			for _, name := range []protocol.NodeID{"b", "c"} {
				if l := g.log(name); l != nil && !moved {
					within, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
					moved = l.Move(within, both, after) == nil
					cancel()
				}
			}
		}
		if l := g.log("b"); l != nil {
			_ = l.Enter(ctx, after)
		}
		was = after
		select { // what is large takes some time to be agreed on
		case <-time.After(min(time.Duration(n)*20*time.Millisecond, time.Second)):
		case <-ctx.Done():
		}
	}
}
