package assent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"assent"
	"assent/decision"
	"assent/decision/disk"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/kv"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// house is a manager over a log and stores in one directory, which can be closed and opened again.
type house struct {
	t      testing.TB
	dir    string
	log    *disk.Log
	stores map[string]*kv.Resource
	m      *assent.Manager
	change func(*assent.Config)
}

var storeNames = []string{"a", "b", "c"}

func newHouse(t testing.TB, change func(*assent.Config)) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), change: change}
	h.open()
	t.Cleanup(func() { h.close(context.Background()) })
	return h
}

func (h *house) open() {
	h.t.Helper()
	var err error
	if h.log, err = disk.Open(filepath.Join(h.dir, "log"), disk.Config{Logger: quiet}); err != nil {
		h.t.Fatal(err)
	}
	h.stores = map[string]*kv.Resource{}
	for _, name := range storeNames {
		if h.stores[name], err = kv.Open(filepath.Join(h.dir, name), kv.Config{Logger: quiet}); err != nil {
			h.t.Fatal(err)
		}
	}
	h.manage()
}

func (h *house) manage() {
	h.t.Helper()
	cfg := assent.Config{Log: h.log, Resources: map[string]resource.Resource{}, Logger: quiet,
		Retry: 5 * time.Millisecond, RetryMost: 50 * time.Millisecond, ScanInterval: 50 * time.Millisecond}
	for name, s := range h.stores {
		cfg.Resources[name] = s
	}
	if h.change != nil {
		h.change(&cfg)
	}
	var err error
	if h.m, err = assent.Open(context.Background(), cfg); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) close(ctx context.Context) {
	h.t.Helper()
	if h.m == nil {
		return
	}
	if err := h.m.Close(ctx); err != nil {
		h.t.Error(err)
	}
	h.m = nil
	for name, s := range h.stores {
		if err := s.Close(); err != nil {
			h.t.Errorf("close %s: %v", name, err)
		}
	}
	if err := h.log.Close(); err != nil {
		h.t.Error(err)
	}
}

// reopen is a restart of the process: nothing is waited for.
func (h *house) reopen() {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	h.close(ctx)
	h.open()
}

func put(ctx context.Context, tx *assent.Tx, s *kv.Resource, key, value string) error {
	b, err := s.Join(ctx, tx)
	if err != nil {
		return err
	}
	return b.Put(ctx, []byte(key), []byte(value))
}

// get reads a value outside any transaction; "" where there is none.
func (h *house) get(store, key string) string {
	h.t.Helper()
	var text string
	err := h.stores[store].View(context.Background(), func(v *kv.View) error {
		value, _, err := v.Get([]byte(key))
		text = string(value)
		return err
	})
	if err != nil {
		h.t.Fatalf("read %s in %s: %v", key, store, err)
	}
	return text
}

// settled waits until nothing is in doubt anywhere.
func (h *house) settled() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		if err := h.m.Scan(ctx); err != nil {
			h.t.Fatal(err)
		}
		if err := h.m.Quiesce(ctx); err != nil {
			h.t.Fatal(err)
		}
		prepared := 0
		for _, s := range h.stores {
			left, err := s.Recover(ctx)
			if err != nil {
				h.t.Fatalf("branches are left prepared: %v", err)
			}
			prepared += len(left)
		}
		if prepared == 0 {
			return
		}
		// A branch that is found while the recovery of its transaction comes to its end is left to
		// the next scan.
	}
}

func TestRunCommitsEverywhere(t *testing.T) {
	h := newHouse(t, nil)
	ctx := context.Background()
	var id string
	err := h.m.Run(ctx, func(ctx context.Context, tx *assent.Tx) error {
		id = tx.ID()
		for _, name := range storeNames {
			if err := put(ctx, tx, h.stores[name], "k", "v-"+name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range storeNames {
		if got := h.get(name, "k"); got != "v-"+name {
			t.Errorf("%s: %q", name, got)
		}
	}
	info, err := h.m.Transaction(ctx, id)
	if err != nil || info.State != assent.StateCommitted || len(info.Branches) != 3 {
		t.Errorf("report: %+v, %v", info, err)
	}
}

func TestRunRollsBackOnError(t *testing.T) {
	h := newHouse(t, nil)
	full := errors.New("course is full")
	err := h.m.Run(context.Background(), func(ctx context.Context, tx *assent.Tx) error {
		if err := put(ctx, tx, h.stores["a"], "k", "v"); err != nil {
			return err
		}
		return full
	})
	var aborted *assent.AbortedError
	if !errors.Is(err, full) || !errors.Is(err, assent.ErrAborted) || !errors.As(err, &aborted) || aborted.By != "application" {
		t.Fatalf("got %#v", err)
	}
	if got := h.get("a", "k"); got != "" {
		t.Errorf("the change is there: %q", got)
	}
}

func TestRunRollsBackOnPanic(t *testing.T) {
	h := newHouse(t, nil)
	func() {
		defer func() {
			if recover() != "boom" {
				t.Error("the panic did not go on")
			}
		}()
		_ = h.m.Run(context.Background(), func(ctx context.Context, tx *assent.Tx) error {
			if err := put(ctx, tx, h.stores["a"], "k", "v"); err != nil {
				return err
			}
			panic("boom")
		})
	}()
	if got := h.get("a", "k"); got != "" {
		t.Errorf("the change is there: %q", got)
	}
	h.settled()
}

func TestOneBranchWritesNoDecision(t *testing.T) {
	h := newHouse(t, nil)
	before := h.log.Stats().Decisions
	err := h.m.Run(context.Background(), func(ctx context.Context, tx *assent.Tx) error {
		return put(ctx, tx, h.stores["a"], "k", "v")
	})
	if err != nil || h.get("a", "k") != "v" {
		t.Fatalf("%v, %q", err, h.get("a", "k"))
	}
	if n := h.log.Stats().Decisions - before; n != 0 {
		t.Errorf("%d decisions for a transaction with one branch", n)
	}
}

func TestReadOnlyWritesNoDecision(t *testing.T) {
	h := newHouse(t, nil)
	before := h.log.Stats().Decisions
	err := h.m.Run(context.Background(), func(ctx context.Context, tx *assent.Tx) error {
		for _, name := range storeNames {
			b, err := h.stores[name].Join(ctx, tx)
			if err != nil {
				return err
			}
			if _, _, err := b.Get(ctx, []byte("k")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := h.log.Stats().Decisions - before; n != 0 {
		t.Errorf("%d decisions for a read-only transaction", n)
	}
}

func TestEndedTransactionTakesNoWork(t *testing.T) {
	h := newHouse(t, nil)
	ctx := context.Background()
	tx, err := h.m.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := put(ctx, tx, h.stores["a"], "k", "v"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(ctx); !errors.Is(err, assent.ErrNotOpen) {
		t.Errorf("second commit: %v", err)
	}
	if err := tx.Rollback(ctx); !errors.Is(err, assent.ErrNotOpen) {
		t.Errorf("rollback after commit: %v", err)
	}
	if _, err := h.stores["b"].Join(ctx, tx); !errors.Is(err, assent.ErrNotOpen) {
		t.Errorf("join after commit: %v", err)
	}
	if err := (func() error { tx, _ := h.m.Begin(ctx); _ = tx.Rollback(ctx); return tx.Rollback(ctx) })(); err != nil {
		t.Errorf("second rollback: %v", err)
	}
}

func TestTimeoutRollsBack(t *testing.T) {
	h := newHouse(t, nil)
	ctx := context.Background()
	var tx *assent.Tx
	for end := time.Now().Add(20 * time.Second); ; { // until one has done its work before its time was over
		var err error
		if tx, err = h.m.Begin(ctx, assent.Timeout(20*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if err = put(ctx, tx, h.stores["a"], "k", "v"); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	for {
		if _, err := h.stores["b"].Join(ctx, tx); err != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	var aborted *assent.AbortedError
	if err := tx.Commit(ctx); !errors.As(err, &aborted) || aborted.By != "manager" || !strings.Contains(aborted.Reason, "longer than") {
		t.Errorf("got %v", err)
	}
	h.settled()
	if got := h.get("a", "k"); got != "" {
		t.Errorf("the change is there: %q", got)
	}
}

func TestRetryOnDeadlock(t *testing.T) {
	h := newHouse(t, nil)
	ctx := context.Background()
	var tries atomic.Int32
	// Two transactions take the same two locks in opposite order, at once, again and again.
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			for n := range 20 {
				keys := []string{"x", "y"}
				err := h.m.Run(ctx, func(ctx context.Context, tx *assent.Tx) error {
					tries.Add(1)
					for j := range keys {
						if err := put(ctx, tx, h.stores["a"], keys[(i+j)%2], fmt.Sprint(i, n)); err != nil {
							return err
						}
					}
					return put(ctx, tx, h.stores["b"], "z", fmt.Sprint(i, n))
				}, assent.Retry(50))
				if err != nil {
					t.Errorf("run: %v", err)
				}
			}
		})
	}
	wg.Wait()
	h.settled()
	if h.get("a", "x") != h.get("a", "y") || h.get("a", "x") != h.get("b", "z") {
		t.Errorf("x %q, y %q, z %q", h.get("a", "x"), h.get("a", "y"), h.get("b", "z"))
	}
	t.Logf("%d tries for 40 transactions", tries.Load())
}

func TestCancelledContextAborts(t *testing.T) {
	h := newHouse(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	tx, err := h.m.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range storeNames {
		if err := put(ctx, tx, h.stores[name], "k", "v"); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	err = tx.Commit(ctx)
	h.settled()
	want := ""
	if err == nil { // the votes were quicker
		want = "v"
	} else if !errors.Is(err, assent.ErrAborted) {
		t.Fatalf("got %v", err)
	}
	for _, name := range storeNames {
		if got := h.get(name, "k"); got != want {
			t.Errorf("%s: %q, and Commit said %v", name, got, err)
		}
	}
}

func TestForeignResourceIsRefused(t *testing.T) {
	h := newHouse(t, nil)
	other, err := kv.Open(t.TempDir(), kv.Config{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	tx, err := h.m.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := other.Join(context.Background(), tx); err == nil || !strings.Contains(err.Error(), "not a resource of this manager") {
		t.Errorf("got %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	h := newHouse(t, nil)
	good := map[string]resource.Resource{"a": h.stores["a"]}
	for want, cfg := range map[string]assent.Config{
		"Config.Log is missing":         {Resources: good},
		"Config.Resources is empty":     {Log: h.log},
		"letters, digits":               {Log: h.log, Resources: map[string]resource.Resource{"a:b": h.stores["a"]}},
		"not comparable":                {Log: h.log, Resources: map[string]resource.Resource{"a": nil}},
		"are the same":                  {Log: h.log, Resources: map[string]resource.Resource{"a": h.stores["a"], "b": h.stores["a"]}},
		"Config.FinishWait is negative": {Log: h.log, Resources: good, FinishWait: -1},
	} {
		if _, err := assent.Open(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// TestHeuristicIsReported: somebody finishes a branch the other way between the vote and the
// decision. It is never reported as success, stays on record, and can be resolved.
func TestHeuristicIsReported(t *testing.T) {
	meddler := &observer{}
	h := newHouse(t, func(c *assent.Config) { c.Observer = meddler })
	meddler.at("coordinator: emit Propose(commit)", func(id string) {
		outcome, err := h.stores["b"].Rollback(context.Background(), resource.Prepared{
			ID: resource.ID{Owner: h.log.Owner(), Transaction: id, Branch: "b"}})
		if err != nil || outcome != commit.RolledBack {
			t.Errorf("the meddler: %v, %v", outcome, err)
		}
	})
	ctx := context.Background()
	var id string
	err := h.m.Run(ctx, func(ctx context.Context, tx *assent.Tx) error {
		id = tx.ID()
		return errors.Join(put(ctx, tx, h.stores["a"], "k", "v"), put(ctx, tx, h.stores["b"], "k", "v"))
	})
	var heuristic *assent.HeuristicError
	if !errors.As(err, &heuristic) || !heuristic.Mixed() || heuristic.Branches[0].Resource != "b" {
		t.Fatalf("got %v", err)
	}
	if errors.Is(err, assent.ErrAborted) || h.get("a", "k") != "v" || h.get("b", "k") != "" {
		t.Errorf("report %v; a %q, b %q", err, h.get("a", "k"), h.get("b", "k"))
	}
	h.reopen()
	h.settled()
	info, err := h.m.Transaction(ctx, id)
	if err != nil || info.State != assent.StateHeuristic {
		t.Fatalf("after a restart: %+v, %v", info, err)
	}
	if _, err := h.m.Resolve(ctx, assent.Resolution{ID: id}); err == nil {
		t.Error("resolved without a reason")
	}
	info, err = h.m.Resolve(ctx, assent.Resolution{ID: id, By: "ann", Reason: "put k back by hand", Outcome: commit.Committed})
	if err != nil || info.State != assent.StateCommitted {
		t.Fatalf("resolve: %+v, %v", info, err)
	}
	last := info.Notes[len(info.Notes)-1]
	if last.Kind != decision.Resolved || last.By != "ann" || last.Branch != "b" {
		t.Errorf("audit trail: %+v", last)
	}
	if _, err := h.m.Resolve(ctx, assent.Resolution{ID: id, By: "ann", Reason: "again"}); err == nil {
		t.Error("resolved twice")
	}
}

func TestUnknownTransaction(t *testing.T) {
	h := newHouse(t, nil)
	if _, err := h.m.Transaction(context.Background(), "nobody"); !errors.Is(err, assent.ErrUnknown) {
		t.Errorf("got %v", err)
	}
}

func TestEarlyReply(t *testing.T) {
	h := newHouse(t, func(c *assent.Config) { c.EarlyReply = true })
	ctx := context.Background()
	for i := range 50 {
		err := h.m.Run(ctx, func(ctx context.Context, tx *assent.Tx) error {
			return errors.Join(put(ctx, tx, h.stores["a"], "k", fmt.Sprint(i)), put(ctx, tx, h.stores["b"], "k", fmt.Sprint(i)))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	h.settled()
	if h.get("a", "k") != "49" || h.get("b", "k") != "49" {
		t.Errorf("a %q, b %q", h.get("a", "k"), h.get("b", "k"))
	}
}

// die ends this life of the house as a crash would and begins the next: whatever hangs in a step
// goes on only when its manager has no life left.
func (h *house) die(release chan struct{}) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		h.m.Close(ctx)
	}()
	assent.WaitEnded(h.m)
	close(release)
	<-closed
	h.reopen()
}

// TestRenamedResourceIsSettled: branches in doubt are found also when their resource was given
// another name meanwhile, whether abort is presumed or commit is on record.
func TestRenamedResourceIsSettled(t *testing.T) {
	for _, point := range []string{"coordinator: emit Propose(commit)", "coordinator: deliver Decided(commit)"} {
		scout := &observer{}
		h := newHouse(t, func(c *assent.Config) {
			c.Observer = scout
			if scout.point == "" {
				return
			}
			for _, name := range storeNames { // in the second life only
				c.Resources["new-"+name] = c.Resources[name]
				delete(c.Resources, name)
			}
		})
		stopped, release := make(chan struct{}), make(chan struct{})
		scout.at(point, func(string) { close(stopped); <-release })
		result := make(chan error, 1)
		go func() {
			_, err := h.changeAll(context.Background(), "v")
			result <- err
		}()
		<-stopped
		h.die(release)
		err := <-result
		h.settled()
		want := ""
		if strings.Contains(point, "Decided") {
			want = "v"
		}
		// Who hears of the decision in the last moment is told it; nobody is told anything else.
		if !errors.Is(err, assent.ErrInDoubt) && (err != nil || want == "") {
			t.Errorf("stopped at %q: %v", point, err)
		}
		for _, name := range storeNames {
			if got := h.get(name, "k"); got != want {
				t.Errorf("stopped at %q: %s has %q, want %q", point, name, got, want)
			}
		}
	}
}

// TestCloseLeavesNothingUnprepared: also when Close may not wait, the branches that no next manager
// could find are undone.
func TestCloseLeavesNothingUnprepared(t *testing.T) {
	h := newHouse(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	tx, err := h.m.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := put(ctx, tx, h.stores["a"], "k", "v"); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := h.m.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if value, ok, err := h.stores["a"].Peek([]byte("k")); ok || err != nil {
		t.Errorf("the branch is still there: %q, %v, %v", value, ok, err)
	}
	h.manage()
}
