package assent_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"assent"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/kv"
)

// slow is a store whose calls first do what a test says.
type slow struct {
	*kv.Resource
	begin    func(context.Context) error
	prepare  func(context.Context) error
	onePhase func(context.Context) error
}

type slowBranch struct {
	*kv.Tx
	of *slow
}

func (s *slow) Begin(ctx context.Context, id resource.ID) (resource.Branch, error) {
	if s.begin != nil {
		if err := s.begin(ctx); err != nil {
			return nil, err
		}
	}
	b, err := s.Resource.Begin(ctx, id)
	if err != nil {
		return nil, err
	}
	return &slowBranch{b.(*kv.Tx), s}, nil
}

func (b *slowBranch) Prepare(ctx context.Context) (resource.Vote, error) {
	if b.of.prepare != nil {
		if err := b.of.prepare(ctx); err != nil {
			return resource.Vote{Vote: commit.No}, err
		}
	}
	return b.Tx.Prepare(ctx)
}

func (b *slowBranch) CommitOnePhase(ctx context.Context) (commit.Outcome, error) {
	if b.of.onePhase != nil {
		if err := b.of.onePhase(ctx); err != nil {
			outcome, undone := b.Rollback(context.WithoutCancel(ctx))
			return outcome, errors.Join(err, undone)
		}
	}
	return b.Tx.CommitOnePhase(ctx)
}

// put writes in s's branch of tx.
func (s *slow) put(ctx context.Context, tx *assent.Tx, key, value string) error {
	b, err := tx.Join(ctx, s)
	if err != nil {
		return err
	}
	return b.(*slowBranch).Put(ctx, []byte(key), []byte(value))
}

// newSlowHouse is a house in which the store b is slow.
func newSlowHouse(t *testing.T, s *slow, change func(*assent.Config)) *house {
	return newHouse(t, func(c *assent.Config) {
		if s.Resource == nil { // the stores stay, and a call that hangs may read this
			s.Resource = c.Resources["b"].(*kv.Resource)
		}
		c.Resources["b"] = s
		if change != nil {
			change(c)
		}
	})
}

var over = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// A call into a resource that never returns keeps Close for a bounded time, and is named.
func TestCloseLeavesAHungCallBehind(t *testing.T) {
	asked, let := make(chan struct{}), make(chan struct{})
	s := &slow{prepare: func(context.Context) error { close(asked); <-let; return nil }}
	patience := 40 * time.Millisecond
	h := newSlowHouse(t, s, func(c *assent.Config) { c.FinishTimeout = patience })
	told := make(chan error, 1)
	go func() {
		told <- h.m.Run(context.Background(), func(ctx context.Context, tx *assent.Tx) error {
			return errors.Join(put(ctx, tx, h.stores["a"], "k", "v"), s.put(ctx, tx, "k", "v"))
		})
	}()
	<-asked
	if err := h.m.Close(over); err == nil || !strings.Contains(err.Error(), " in b") {
		t.Errorf("close: %v; want an error that names the call", err)
	}
	if err := <-told; !errors.Is(err, assent.ErrInDoubt) && !errors.Is(err, assent.ErrAborted) {
		t.Errorf("run: %v; want in doubt, or aborted where Close came before the other's vote", err)
	}
	close(let) // the branch is rolled back when the call has returned
	s.prepare, patience = nil, 0
	h.manage()
	h.settled()
	for _, store := range []string{"a", "b"} {
		if got := h.get(store, "k"); got != "" {
			t.Errorf("%s holds %q after an abort", store, got)
		}
	}
}

// A commit that meets Close before anything is proposed is undone, and its caller is told so.
func TestCommitThatMeetsCloseIsAborted(t *testing.T) {
	for _, alone := range []bool{false, true} {
		asked := make(chan struct{})
		wait := func(ctx context.Context) error { close(asked); <-ctx.Done(); return ctx.Err() }
		s := &slow{prepare: wait, onePhase: wait}
		h := newSlowHouse(t, s, nil)
		told := make(chan error, 1)
		var id string
		go func() {
			told <- h.m.Run(context.Background(), func(ctx context.Context, tx *assent.Tx) error {
				id = tx.ID()
				if !alone {
					if err := put(ctx, tx, h.stores["a"], "k", "v"); err != nil {
						return err
					}
				}
				return s.put(ctx, tx, "k", "v")
			})
		}()
		<-asked
		if err := h.m.Close(over); err != nil {
			t.Error(err)
		}
		if err := <-told; !errors.Is(err, assent.ErrAborted) || !errors.Is(err, assent.ErrClosed) {
			t.Errorf("alone %v: run: %v; want aborted, closed", alone, err)
		}
		h.manage()
		h.settled()
		if info, err := h.m.Transaction(context.Background(), id); err == nil && info.State != assent.StateAborted {
			t.Errorf("alone %v: %+v", alone, info)
		}
		for _, store := range []string{"a", "b"} {
			if got := h.get(store, "k"); got != "" {
				t.Errorf("alone %v: %s holds %q", alone, store, got)
			}
		}
	}
}

// Whoever waits for another goroutine's Join is let go when the resource panics there.
func TestJoinBesideAPanic(t *testing.T) {
	asked, let := make(chan struct{}), make(chan struct{})
	s := &slow{begin: func(context.Context) error { close(asked); <-let; panic("broken") }}
	h := newSlowHouse(t, s, nil)
	tx, err := h.m.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic did not go on")
			}
		}()
		_, _ = tx.Join(context.Background(), s)
	})
	<-asked
	waited := make(chan error, 1)
	group.Go(func() {
		_, err := tx.Join(context.Background(), s)
		waited <- err
	})
	s.begin = nil // for a second that comes when the first is gone
	close(let)
	if err := <-waited; err != nil && !strings.Contains(err.Error(), "panicked") {
		t.Errorf("the second join: %v", err)
	}
	group.Wait()
	if err := tx.Rollback(context.Background()); err != nil {
		t.Error(err)
	}
}

// A context that ends fails its own Join and no other.
func TestJoinBesideACancelledOne(t *testing.T) {
	asked := make(chan struct{}, 2)
	s := &slow{}
	var mu sync.Mutex
	first := true
	s.begin = func(ctx context.Context) error {
		mu.Lock()
		mine := first
		first = false
		mu.Unlock()
		if mine {
			asked <- struct{}{}
			<-ctx.Done()
		}
		return ctx.Err()
	}
	h := newSlowHouse(t, s, nil)
	tx, err := h.m.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		if _, err := tx.Join(ctx, s); !errors.Is(err, context.Canceled) {
			t.Errorf("the first join: %v", err)
		}
	})
	<-asked
	group.Go(func() {
		if _, err := tx.Join(context.Background(), s); err != nil {
			t.Errorf("the second join: %v", err)
		}
	})
	cancel()
	group.Wait()
	if err := tx.Rollback(context.Background()); err != nil {
		t.Error(err)
	}
}

// A transaction that is under way is in every list: one that goes from open to active while a list is
// made is in one of the two. The list and the commit are held up together and let go in this order.
func TestListMissesNothingUnderWay(t *testing.T) {
	let := make(chan struct{})
	wait := func(ctx context.Context) error {
		select {
		case <-let:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	s := &slow{onePhase: wait}
	h := newSlowHouse(t, s, nil)
	ctx := context.Background()
	var group sync.WaitGroup
	defer group.Wait()
	defer close(let)
	for range 5 {
		tx, err := h.m.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Join(ctx, s); err != nil {
			t.Fatal(err)
		}
		release := assent.HoldTransactions(h.m)
		listed := make(chan bool)
		go func() {
			infos, err := h.m.Transactions(ctx, assent.Filter{})
			listed <- err == nil && slices.ContainsFunc(infos, func(i assent.Info) bool { return i.ID == tx.ID() })
		}()
		time.Sleep(5 * time.Millisecond)
		group.Go(func() {
			if err := tx.Commit(ctx); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(5 * time.Millisecond)
		release()
		if !<-listed {
			t.Error("a transaction that is under way is not listed")
		}
	}
}

// A transaction that has ended and is not yet being driven is not open any more.
func TestEndedIsNotOpen(t *testing.T) {
	asked, let := make(chan struct{}), make(chan struct{})
	s := &slow{begin: func(context.Context) error { close(asked); <-let; return nil }}
	h := newSlowHouse(t, s, nil)
	ctx := context.Background()
	tx, err := h.m.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() { _, _ = tx.Join(ctx, s) })
	<-asked
	group.Go(func() {
		if err := tx.Rollback(ctx); err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(30 * time.Second); ; {
		info, err := h.m.Transaction(ctx, tx.ID())
		if time.Now().After(deadline) {
			t.Fatal("it is open for ever")
		}
		if err != nil {
			t.Fatal(err)
		}
		if info.State == assent.StateAborting {
			break
		}
		if info.State != assent.StateOpen {
			t.Fatalf("%+v", info)
		}
	}
	close(let)
	group.Wait()
}

// Work that ends its transaction itself is told the outcome there; Run only says that it has ended.
func TestRunAfterItsOwnEnd(t *testing.T) {
	h := newHouse(t, nil)
	ctx := context.Background()
	failed := errors.New("failed later")
	for value, later := range map[string]error{"one": nil, "two": failed} {
		var told error
		err := h.m.Run(ctx, func(ctx context.Context, tx *assent.Tx) error {
			if err := put(ctx, tx, h.stores["a"], "k", value); err != nil {
				return err
			}
			told = tx.Commit(ctx)
			return later
		})
		if told != nil || !errors.Is(err, assent.ErrNotOpen) || errors.Is(err, assent.ErrAborted) || later != nil && !errors.Is(err, later) {
			t.Errorf("commit: %v; run: %v", told, err)
		}
		if got := h.get("a", "k"); got != value {
			t.Errorf("the store holds %q; want %q", got, value)
		}
	}
}
