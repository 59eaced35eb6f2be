package assent_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"assent"
	"assent/decision"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/kv"
)

// prefixed is a log with a prefix.
type prefixed struct {
	decision.Log
	prefix string
}

func (p prefixed) Prefix() string { return p.prefix }

func TestIDsBeginWithTheLogsPrefix(t *testing.T) {
	h := newHouse(t, func(c *assent.Config) { c.Log = prefixed{c.Log, "PREFIXOFTWENTYLETTER"} })
	other, err := assent.Open(t.Context(), assent.Config{Log: prefixed{h.log, "PREFIXOFTWENTYLETTER"}, Logger: quiet,
		Resources: map[string]resource.Resource{"a": h.stores["a"]}})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.Background())
	seen := map[string]bool{}
	for _, m := range []*assent.Manager{h.m, other} {
		for range 3 {
			tx, err := m.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if id := tx.ID(); !strings.HasPrefix(id, "PREFIXOFTWENTYLETTER") || seen[id] {
				t.Errorf("id %s after %v", id, seen)
			}
			seen[tx.ID()] = true
			if err := tx.Rollback(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	for _, bad := range []string{"", "has space", strings.Repeat("A", decision.MaxPrefix+1)} {
		if _, err := assent.Open(t.Context(), assent.Config{Log: prefixed{h.log, bad}, Resources: map[string]resource.Resource{"a": h.stores["a"]}}); err == nil {
			t.Errorf("prefix %q is taken", bad)
		}
	}
}

// TestAliveSparesTransactionsOfOthers: a branch of a manager that lives is left alone until the grace is
// over, and settled at once when it has died.
func TestAliveSparesTransactionsOfOthers(t *testing.T) {
	var mu sync.Mutex
	alive, asked := true, map[commit.TransactionID]int{}
	believed := func(id commit.TransactionID) bool {
		mu.Lock()
		defer mu.Unlock()
		asked[id]++
		return alive
	}
	scout := &observer{}
	h := newHouse(t, func(c *assent.Config) {
		c.Observer, c.Alive, c.OrphanGrace = scout, believed, time.Hour
	})
	stopped, release := make(chan struct{}), make(chan struct{})
	var id string
	scout.at("coordinator: emit Propose(commit)", func(tx string) { id = tx; close(stopped); <-release })
	result := make(chan error, 1)
	go func() {
		_, err := h.changeAll(context.Background(), "v")
		result <- err
	}()
	<-stopped
	h.die(release)
	if err := <-result; !errors.Is(err, assent.ErrInDoubt) {
		t.Fatal(err)
	}
	if err := h.m.Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	if asked[commit.TransactionID(id)] == 0 {
		t.Error("nobody asked whether its manager lives")
	}
	mu.Unlock()
	for name, s := range h.m.Scans() {
		if s.Prepared != 1 || s.Settled != 0 {
			t.Errorf("%s, while its manager lives: %+v", name, s)
		}
	}
	mu.Lock()
	alive = false
	mu.Unlock()
	h.settled()
	for _, name := range storeNames {
		if got := h.get(name, "k"); got != "" {
			t.Errorf("%s has %q", name, got)
		}
	}
	if i, err := h.m.Transaction(t.Context(), id); err != nil && !errors.Is(err, assent.ErrUnknown) || err == nil && i.Decision != commit.Abort {
		t.Errorf("%+v, %v", i, err)
	}
}

// diesDecided lets a transaction over all stores be decided and its manager die before anything is
// finished, and returns its id. The next life's configuration is changed by next.
func diesDecided(t *testing.T, next func(*assent.Config)) (*house, string) {
	t.Helper()
	scout := &observer{}
	h := newHouse(t, func(c *assent.Config) {
		c.Observer = scout
		if scout.point != "" {
			next(c)
		}
	})
	stopped, release := make(chan struct{}), make(chan struct{})
	var id string
	scout.at("coordinator: deliver Decided(commit)", func(tx string) { id = tx; close(stopped); <-release })
	result := make(chan struct{})
	go func() {
		defer close(result)
		_, _ = h.changeAll(context.Background(), "v") // in doubt or committed, by chance
	}()
	<-stopped
	h.die(release)
	<-result
	return h, id
}

// TestBranchesElsewhereAreLeft: who does not keep a resource finishes the others' branches, and leaves the
// rest and the record of the end to the manager that does.
func TestBranchesElsewhereAreLeft(t *testing.T) {
	whole := false
	h, id := diesDecided(t, func(c *assent.Config) {
		if !whole {
			delete(c.Resources, "c")
			c.Elsewhere = func(name string) bool { return name == "c" }
			c.Alive = func(commit.TransactionID) bool { return false }
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for h.get("a", "k") != "v" || h.get("b", "k") != "v" {
		if err := h.m.Scan(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := assent.ScanLog(ctx, h.m); err != nil {
		t.Fatal(err)
	}
	if err := h.m.Quiesce(ctx); err != nil {
		t.Errorf("what is another's is held on to: %v", err)
	}
	if left, err := h.stores["c"].Recover(ctx); err != nil || len(left) != 1 {
		t.Errorf("c holds %v, %v", left, err)
	}
	if i, err := h.m.Transaction(ctx, id); err != nil || i.State != assent.StateCommitting {
		t.Errorf("before c is finished: %+v, %v", i, err)
	}
	whole = true
	h.reopen()
	h.settled()
	if got := h.get("c", "k"); got != "v" {
		t.Errorf("c has %q", got)
	}
	if i, err := h.m.Transaction(ctx, id); err != nil || i.State != assent.StateCommitted {
		t.Errorf("after: %+v, %v", i, err)
	}
}

// TestLogScanEndsWhatTheDeadLeft: of a transaction whose branches are all finished, the log alone knows
// that nobody has said so.
func TestLogScanEndsWhatTheDeadLeft(t *testing.T) {
	var mu sync.Mutex
	alive := true
	h, id := diesDecided(t, func(c *assent.Config) {
		c.OrphanGrace = time.Hour
		c.Alive = func(commit.TransactionID) bool { mu.Lock(); defer mu.Unlock(); return alive }
	})
	ctx := t.Context()
	for name, s := range h.stores { // as another manager would
		if outcome, err := s.Commit(ctx, resource.Prepared{ID: resource.ID{Owner: h.log.Owner(), Transaction: id, Branch: name}}); err != nil || outcome != commit.Committed {
			t.Fatalf("%s: %v, %v", name, outcome, err)
		}
	}
	if err := assent.ScanLog(ctx, h.m); err != nil {
		t.Fatal(err)
	}
	if i, err := h.m.Transaction(ctx, id); err != nil || i.State != assent.StateCommitting {
		t.Errorf("while its manager lives: %+v, %v", i, err)
	}
	mu.Lock()
	alive = false
	mu.Unlock()
	if err := assent.ScanLog(ctx, h.m); err != nil {
		t.Fatal(err)
	}
	if err := h.m.Quiesce(ctx); err != nil {
		t.Fatal(err)
	}
	if i, err := h.m.Transaction(ctx, id); err != nil || i.State != assent.StateCommitted {
		t.Errorf("after: %+v, %v", i, err)
	}
}

// TestGraceSparesDecisionsOfOthers: where nobody can tell whether another manager lives, what was decided within
// the grace is left to it.
func TestGraceSparesDecisionsOfOthers(t *testing.T) {
	h, id := diesDecided(t, func(c *assent.Config) { c.OrphanGrace = time.Hour })
	if err := h.m.Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, s := range h.m.Scans() {
		if s.Prepared != 1 || s.Settled != 0 {
			t.Errorf("%s, within the grace: %+v", name, s)
		}
	}
	if i, err := h.m.Transaction(t.Context(), id); err != nil || i.Decision != commit.Commit {
		t.Errorf("%+v, %v", i, err)
	}
}

// Nobody is told to ask for an outcome later that is known now: of what needs no record there is none later.
func TestGivingUpTooLateTellsTheOutcome(t *testing.T) {
	h := newHouse(t, nil)
	if err := assent.GiveUpTooLate(h.m, commit.Commit); err != nil {
		t.Errorf("committed: %v", err)
	}
	if err := assent.GiveUpTooLate(h.m, commit.Abort); !errors.Is(err, assent.ErrAborted) {
		t.Errorf("aborted: %v", err)
	}
}

// meddled is a log in which something happens before an entry is looked up, and after that nothing is
// decided until it is let.
type meddled struct {
	decision.Log
	meddle func()
	once   sync.Once
	let    chan struct{}
}

func (l *meddled) Lookup(ctx context.Context, id commit.TransactionID) (decision.Entry, error) {
	l.once.Do(l.meddle)
	return l.Log.Lookup(ctx, id)
}

func (l *meddled) Decide(ctx context.Context, e decision.Entry) (decision.Entry, error) {
	select {
	case <-l.let:
	case <-ctx.Done():
	}
	return l.Log.Decide(ctx, e)
}

// An operator's word on a transaction whose recovery has just begun is taken: a scan has found a branch of
// it that came back, and the register has not yet told what stands.
func TestResolveBesideARecovery(t *testing.T) {
	var log *meddled
	h := newHouse(t, func(c *assent.Config) {
		if log != nil {
			c.Log = log
		}
	})
	ctx := context.Background()
	const id = "damaged-1"
	prepareOrphan := func() {
		b, err := h.stores["a"].Begin(ctx, resource.ID{Owner: h.log.Owner(), Transaction: id, Branch: "a"})
		if err == nil {
			err = b.(*kv.Tx).Put(ctx, []byte("k"), []byte("v"))
		}
		if err == nil {
			_, err = b.Prepare(ctx)
		}
		if err := errors.Join(err, h.m.Scan(ctx)); err != nil {
			t.Error(err)
		}
	}
	if err := h.m.Close(over); err != nil {
		t.Fatal(err)
	}
	_, err := h.log.Decide(ctx, decision.Entry{ID: id, Decision: commit.Commit, Branches: []decision.Branch{{Resource: "a"}}})
	for _, n := range []decision.Note{
		{Kind: decision.Heuristic, Branch: "a", Outcome: commit.RolledBack, Forced: true}, {Kind: decision.Finished},
	} {
		err = errors.Join(err, h.log.Annotate(ctx, id, n))
	}
	if err != nil {
		t.Fatal(err)
	}
	log = &meddled{Log: h.log, meddle: prepareOrphan, let: make(chan struct{})}
	let := sync.OnceFunc(func() { close(log.let) })
	t.Cleanup(let) // before the house is closed
	h.manage()
	if _, err := h.m.Resolve(ctx, assent.Resolution{ID: id, By: "operator", Reason: "the branch came back"}); err != nil {
		t.Error(err)
	}
	let()
	h.settled()
	info, err := h.m.Transaction(ctx, id)
	if err != nil || info.State != assent.StateCommitted || h.get("a", "k") != "v" {
		t.Errorf("%+v, %v; the store holds %q", info, err, h.get("a", "k"))
	}
}
