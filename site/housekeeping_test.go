package site

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/paxos"
	"assent/resource"
	"assent/resource/kv"
	"assent/trace"
)

// hearing is an observer that calls a function.
type hearing func(trace.Event)

func (f hearing) Observe(e trace.Event) { f(e) }

// contradictions counts what coordinators take for heuristic outcomes.
type contradictions struct{ n atomic.Int32 }

func (c *contradictions) Observe(e trace.Event) {
	if _, ok := e.Value.(commit.Contradicted); ok && e.Kind == trace.Emit {
		c.n.Add(1)
	}
}

// ahead is a time before which everything was that has been done by now.
func ahead() time.Time { return time.Now().Add(time.Hour) }

// TestCoordinatorMadeAnewEndsNothing: a coordinator without records, which is made anew by a late message and forgotten again,
// does not say that all sites have reported: one that is down is in doubt, and what the acceptors know is needed.
func TestCoordinatorMadeAnewEndsNothing(t *testing.T) {
	w := newWorld(t, 4, 1)
	w.acceptors = w.nodes[1:]
	w.observer = &trap{when: lastWord, spring: func(trace.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, id := range w.nodes {
			w.cut[[2]protocol.NodeID{id, "n3"}] = true
		}
	}}
	w.all()
	tx := w.begin("n1", PaxosCommit)
	if err := w.put(tx, "key", "n2", "n3"); err != nil {
		t.Fatal(err)
	}
	r, err := w.host("n1").Commit(t.Context(), tx, []protocol.NodeID{"n2", "n3"}, false)
	if err != nil || r.Decision != commit.Commit {
		t.Fatalf("%+v, %v", r, err)
	}
	w.settled("n2")
	tx = w.in("n2", tx).Transaction
	w.crash("n3")
	w.crash("n1")
	h := w.up("n1")
	w.mu.Lock()
	w.posted = func(from protocol.NodeID, data []byte) {
		if v, err := h.codec.Decode(data); err == nil {
			if _, ok := v.(completed); ok {
				t.Errorf("%s says that all sites have reported", from)
			}
		}
	}
	w.mu.Unlock()
	if err := h.deliver(tx, "n2", "n1", commit.Acknowledge{ID: tx.ID, Outcome: commit.Committed}); err != nil {
		t.Fatal(err)
	}
	if len(h.List()) != 1 {
		t.Fatal("the late message has made no machine")
	}
	h.sweep(ahead())
	w.host("n2").sweep(ahead())
	if len(h.List()) != 0 || len(w.host("n2").List()) != 1 {
		t.Errorf("n1 remembers %+v, n2 %+v", h.List(), w.host("n2").List())
	}
	w.mu.Lock()
	w.posted = nil
	w.mu.Unlock()
	w.heal()
	w.hurry = 300 * time.Millisecond
	w.up("n3")
	w.settled("n3")
	if !w.holds("n2", "key", tx) || !w.holds("n3", "key", tx) {
		t.Error("n2 has committed, and n3 has not")
	}
}

// TestForgottenSaysNothing: a machine that is taken for over when it is about to record a promise does not say it: the
// record would be forgotten at once.
func TestForgottenSaysNothing(t *testing.T) {
	w := newWorld(t, 3, 1)
	var armed atomic.Bool
	var said atomic.Int32
	reached, swept := make(chan struct{}), make(chan struct{})
	w.observer = hearing(func(e trace.Event) {
		switch {
		case e.Node != "n2" || !armed.Load():
		case e.Kind == trace.Force:
			close(reached)
			<-swept
		case e.Kind == trace.Send:
			said.Add(1)
		}
	})
	w.all()
	h := w.host("n2")
	open := w.begin("n1", PaxosCommit)
	if err := w.put(open, "key", "n2"); err != nil {
		t.Fatal(err)
	}
	h.input(open, "n2", commit.Abandon{Reason: "nobody wants it"})
	w.done("n2")
	tx := open.settle(h.view(), []protocol.NodeID{"n2"})
	armed.Store(true)
	over := make(chan error)
	go func() {
		over <- h.deliver(tx, "n1", "n2", commit.Bundle{ID: tx.ID, Electorate: tx.electorate(), Phase1a: []paxos.Phase1a[commit.Cast]{
			{Instance: paxos.Instance(tx.ID + "/n2"), Ballot: paxos.Ballot{Round: 1, Node: "n1"}}}})
	}()
	<-reached
	h.sweep(ahead())
	close(swept)
	if err := <-over; err != nil {
		t.Fatal(err)
	}
	found, err := h.store.all(t.Context())
	if n := said.Load(); err != nil || n > 0 && len(found) == 0 || n == 0 && len(found) > 0 || len(h.List()) != len(found) {
		t.Errorf("it has said %d things, of the transaction there are %d machines, and on record %+v, %v", n, len(h.List()), found, err)
	}
}

// TestToldOnceMore: a coordinator that comes back late tells its decision once more, to sites that have done it long ago and
// forgotten it. That is no heuristic outcome.
func TestToldOnceMore(t *testing.T) {
	for _, p := range Protocols() {
		w := newWorld(t, 3, 1)
		c := &contradictions{}
		w.observer = c
		w.all()
		tx := w.begin("n1", p)
		if err := w.put(tx, "key", w.nodes...); err != nil {
			t.Fatal(err)
		}
		if r, err := w.host("n1").Commit(t.Context(), tx, w.nodes, true); err != nil || r.Decision != commit.Commit {
			t.Fatalf("%s: %+v, %v", p, r, err)
		}
		w.forgotten("n2", "n3")
		w.crash("n1")
		w.up("n1")
		w.done("n1")
		for _, id := range w.nodes {
			if s := w.in(id, tx); s.Decision == commit.Abort {
				t.Errorf("%s: %s says %+v", p, id, s)
			}
		}
		if n := c.n.Load(); n > 0 {
			t.Errorf("%s: %d sites seem to have contradicted the decision", p, n)
		}
	}
}

// TestRestartIsForgottenToo: what a site has on record when it restarts, and everybody else has forgotten, it forgets as
// well.
func TestRestartIsForgottenToo(t *testing.T) {
	for _, p := range Protocols() {
		w := newWorld(t, 3, 1)
		w.all()
		tx := w.begin("n1", p)
		if err := w.put(tx, "key", "n2", "n3"); err != nil {
			t.Fatal(err)
		}
		if r, err := w.host("n1").Commit(t.Context(), tx, []protocol.NodeID{"n2", "n3"}, true); err != nil || r.Decision != commit.Commit {
			t.Fatalf("%s: %+v, %v", p, r, err)
		}
		w.forgotten("n1", "n2")
		w.crash("n3")
		w.up("n3")
		if len(w.host("n3").List()) != 1 {
			t.Errorf("%s: n3 has nothing on record", p)
		}
		w.forgotten("n3")
	}
}

// late is a resource that cannot be listed for a while.
type late struct {
	resource.Resource
	down  atomic.Bool
	asked atomic.Int32
}

func (r *late) Recover(ctx context.Context) ([]resource.Prepared, error) {
	r.asked.Add(1)
	if r.down.Load() {
		return nil, errors.New("it is down")
	}
	return r.Resource.Recover(ctx)
}

// TestUnpromisedIsRolledBack: what an earlier run had prepared and not promised is rolled back whenever it turns up:
// after a resource is back, and when it is prepared late.
func TestUnpromisedIsRolledBack(t *testing.T) {
	w := newWorld(t, 1, 1)
	r := &late{}
	r.down.Store(true)
	w.tweak = func(c *Config) {
		r.Resource = c.Resources["kv"]
		c.Resources = map[string]resource.Resource{"kv": r}
		c.Retry, c.RetryMost, c.ScanInterval = time.Millisecond, time.Millisecond, time.Millisecond
	}
	h := w.up("n1")
	prepare := func(name string) {
		t.Helper()
		id := resource.ID{Owner: h.store.owner, Transaction: name, Branch: "kv"}
		b, err := w.sites["n1"].store.Begin(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		put(t, b, name)
		if v, err := b.Prepare(t.Context()); err != nil || v.Vote != commit.Yes {
			t.Fatal(v, err)
		}
	}
	prepare("early")
	for r.asked.Load() < 3 {
		time.Sleep(time.Millisecond)
	}
	if !w.inDoubt("n1") {
		t.Fatal("a resource that cannot be listed was cleared")
	}
	r.down.Store(false)
	w.settled("n1")
	prepare("late")
	w.settled("n1")
}

// TestScanSparesWhatIsPreparing: a scan leaves what is being prepared, and what is promised, also after a restart.
func TestScanSparesWhatIsPreparing(t *testing.T) {
	w := newWorld(t, 2, 1)
	r := &slow{prepared: make(chan struct{}), free: make(chan struct{})}
	w.tweak = func(c *Config) {
		if c.Self == "n2" {
			r.Resource = c.Resources["kv"]
			c.Resources = map[string]resource.Resource{"kv": r}
		}
	}
	// n1 is silent when both have voted.
	w.observer = &trap{when: lastWord, spring: func(trace.Event) { w.silence("n1") }}
	w.all()
	tx := w.begin("n1", TwoPhase)
	for _, id := range w.nodes {
		b, err := w.host(id).Join(t.Context(), tx, "kv", false)
		if err != nil {
			t.Fatal(err)
		}
		put(t, b, "key")
	}
	done := make(chan error, 1)
	go func() {
		_, err := w.host("n1").Commit(t.Context(), tx, w.nodes, false)
		done <- err
	}()
	<-r.prepared
	scan := func(when string) {
		t.Helper()
		if err := w.host("n2").scan("kv"); err != nil || !w.inDoubt("n2") {
			t.Fatalf("%s: %v, and a branch is rolled back", when, err)
		}
	}
	scan("when it is prepared and not promised yet")
	close(r.free)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	scan("when it is promised")
	w.crash("n2")
	w.up("n2")
	scan("after a restart")
	w.heal()
	w.hurry = time.Second
	w.crash("n2")
	w.up("n2")
	w.settled("n2")
	if !w.holds("n2", "key", tx) {
		t.Error("n2 has not committed")
	}
}

// slow is a resource whose branches take long to say that they are prepared.
type slow struct {
	resource.Resource
	prepared, free chan struct{}
	once           sync.Once
}

type slowBranch struct {
	resource.Branch
	r *slow
}

func (r *slow) Begin(ctx context.Context, id resource.ID) (resource.Branch, error) {
	b, err := r.Resource.Begin(ctx, id)
	return slowBranch{b, r}, err
}

func (b slowBranch) Prepare(ctx context.Context) (resource.Vote, error) {
	v, err := b.Branch.Prepare(ctx)
	b.r.once.Do(func() { close(b.r.prepared) })
	<-b.r.free
	return v, err
}

// put has a branch, whatever is around it, put a value that is its transaction's id.
func put(t *testing.T, b resource.Branch, key string) {
	t.Helper()
	if s, ok := b.(slowBranch); ok {
		b = s.Branch
	}
	tx := b.(*kv.Tx)
	if err := tx.Put(t.Context(), []byte(key), []byte(tx.ID().Transaction)); err != nil {
		t.Fatal(err)
	}
}

// TestWorkOfADeadCoordinator: work that was not asked for its vote is given up when its coordinator has been suspected for
// long, and not before. If that was a mistake the transaction aborts everywhere.
func TestWorkOfADeadCoordinator(t *testing.T) {
	const long = 24 * time.Hour // of which nothing passes but here
	for _, p := range Protocols() {
		w := newWorld(t, 3, 1)
		var suspected atomic.Bool
		w.tweak = func(c *Config) {
			c.AbandonAfter = long
			c.Suspects = func(n protocol.NodeID) bool { return n == "n1" && suspected.Load() }
		}
		w.all()
		h, now := w.host("n2"), time.Now()
		tx := w.begin("n1", p)
		if err := w.put(tx, "key", "n2", "n3"); err != nil {
			t.Fatal(err)
		}
		own := w.begin("n2", p)
		if err := w.put(own, "its own", "n2"); err != nil {
			t.Fatal(err)
		}
		after := func(d time.Duration, is bool, machines int) {
			t.Helper()
			suspected.Store(is)
			h.abandonWork(now.Add(d))
			if all := h.List(); len(all) != machines {
				t.Fatalf("%s, after %v: there are %+v", p, d, all)
			}
		}
		after(0, true, 0)
		after(long/2, true, 0)
		after(long, false, 0) // it was only slow
		after(2*long, true, 0)
		after(3*long-1, true, 0)
		after(3*long, true, 1)
		w.done("n2")
		if err := w.put(w.begin("n3", p), "key", "n2"); err != nil {
			t.Errorf("%s: the lock is not free: %v", p, err)
		}
		if _, err := h.Join(t.Context(), tx, "kv", true); !errors.Is(err, ErrOver) {
			t.Errorf("%s: more work is taken: %v", p, err)
		}
		r, err := w.host("n1").Commit(t.Context(), tx, []protocol.NodeID{"n2", "n3"}, true)
		if err != nil || r.Decision != commit.Abort || r.Cause != commit.VotedNo || r.By != "n2" {
			t.Errorf("%s: %+v, %v", p, r, err)
		}
		if w.holds("n3", "key", tx) {
			t.Errorf("%s: n3 has committed", p)
		}
		after(3*long, false, 1)
		w.members("n2", "n3") // n1 is no member any more
		other := w.begin("n1", p)
		if err := w.put(other, "another", "n2"); err != nil {
			t.Fatal(err)
		}
		after(4*long, false, 1)
		after(5*long, false, 2)
		w.members(w.nodes...)
		third := w.begin("n1", p)
		if err := w.put(third, "a third", "n2"); err != nil {
			t.Fatal(err)
		}
		lives := func(name string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.lives = map[protocol.NodeID]string{"n1": name}
		}
		lives("0") // what is heard of n1 is older than the transaction
		after(6*long, false, 2)
		lives(w.host("n1").run)
		after(6*long, false, 2)
		lives("7") // n1 has been started again
		after(6*long, false, 3)
	}
}

// TestAbortOrCommit: of an abort and a commit of one transaction that are asked for at the same time one counts, everywhere.
func TestAbortOrCommit(t *testing.T) {
	w := newWorld(t, 3, 1)
	w.all()
	sites := []protocol.NodeID{"n2", "n3"}
	for i := range 20 {
		tx, key := w.begin("n1", PaxosCommit), fmt.Sprint(i)
		if err := w.put(tx, key, sites...); err != nil {
			t.Fatal(err)
		}
		aborted := make(chan error)
		go func() { aborted <- w.host("n1").Abort(tx, sites, "not wanted") }()
		r, err := w.host("n1").Commit(t.Context(), tx, sites, true)
		committed := err == nil && r.Decision == commit.Commit
		if err := <-aborted; committed == (err == nil) {
			t.Errorf("committed: %v; and the abort says %v", committed, err)
		}
		if committed {
			w.settled(sites...)
		}
		if w.holds("n2", key, tx) != committed || w.holds("n3", key, tx) != committed {
			t.Errorf("committed: %v; n2 %v, n3 %v", committed, w.holds("n2", key, tx), w.holds("n3", key, tx))
		}
	}
}

// TestRecordsCannotBeWritten: whoever waits for a transaction is told when its coordinator cannot record anything any more, and
// nothing new is begun there.
func TestRecordsCannotBeWritten(t *testing.T) {
	w := newWorld(t, 2, 1)
	var full atomic.Bool
	w.tweak = func(c *Config) {
		if c.Self == "n1" {
			c.FS = errorfs.Wrap(c.FS, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if full.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
					return syscall.ENOSPC
				}
				return nil
			}))
		}
	}
	w.all()
	tx := w.begin("n1", TwoPhase)
	if err := w.put(tx, "key", "n2"); err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	_, err := w.host("n1").Commit(context.Background(), tx, []protocol.NodeID{"n2"}, true)
	if !errors.Is(err, ErrInDoubt) || !errors.Is(err, kv.ErrStopped) {
		t.Errorf("the commit says %v", err)
	}
	if _, err := w.host("n1").Begin(TwoPhase); !errors.Is(err, ErrStopped) {
		t.Errorf("another begins: %v", err)
	}
	if err := w.put(w.begin("n2", TwoPhase), "other", "n1"); !errors.Is(err, ErrStopped) {
		t.Errorf("work is taken: %v", err)
	}
	full.Store(false)
	w.crash("n1")
	w.hurry = time.Second
	w.crash("n2")
	w.all()
	w.settled("n1", "n2")
}
