package assent_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"assent"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/kv"
)

// later is a store whose branches are asked to prepare and to commit first and answer later.
type later struct {
	*kv.Resource
	// answer is called by whoever waits for an answer, before it comes.
	answer func(ctx context.Context, what string) error
	split  *atomic.Int64 // counts what was asked so
}

type laterBranch struct {
	*kv.Tx
	of *later
}

var _ resource.Split = laterBranch{}

func (r *later) Begin(ctx context.Context, id resource.ID) (resource.Branch, error) {
	b, err := r.Resource.Begin(ctx, id)
	if err != nil {
		return nil, err
	}
	return laterBranch{b.(*kv.Tx), r}, nil
}

func (b laterBranch) StartPrepare(ctx context.Context) func() (resource.Vote, error) {
	b.of.split.Add(1)
	return func() (resource.Vote, error) {
		if err := b.of.answer(ctx, "prepare"); err != nil {
			return resource.Vote{Vote: commit.No}, err
		}
		return b.Prepare(ctx)
	}
}

func (b laterBranch) StartCommit(ctx context.Context) func() (commit.Outcome, error) {
	b.of.split.Add(1)
	return func() (commit.Outcome, error) {
		if err := b.of.answer(ctx, "commit"); err != nil {
			return 0, err
		}
		return b.Commit(ctx)
	}
}

// laterHouse is a house in which the stores a and b answer later.
type laterHouse struct {
	*house
	later map[string]*later
	asked atomic.Int64 // counts the requests
	// patience is the FinishTimeout of managers to come; 0 is the default.
	patience time.Duration
}

// newLaterHouse makes a house in which answer is called by whoever waits for an answer, with the store's name.
func newLaterHouse(t *testing.T, answer func(ctx context.Context, store, what string) error) *laterHouse {
	h := &laterHouse{later: map[string]*later{}}
	h.house = newHouse(t, func(c *assent.Config) {
		c.FinishTimeout = h.patience
		for _, name := range []string{"a", "b"} {
			h.later[name] = &later{c.Resources[name].(*kv.Resource), func(ctx context.Context, what string) error { return answer(ctx, name, what) }, &h.asked}
			c.Resources[name] = h.later[name]
		}
	})
	return h
}

// changeBoth changes a key in both stores and commits under commitCtx.
func (h *laterHouse) changeBoth(commitCtx context.Context, value string) error {
	ctx := context.Background()
	tx, err := h.m.Begin(ctx)
	if err != nil {
		return err
	}
	for _, name := range []string{"a", "b"} {
		b, err := tx.Join(ctx, h.later[name])
		if err == nil {
			err = b.(laterBranch).Put(ctx, []byte("k"), []byte(value))
		}
		if err != nil {
			return errors.Join(err, tx.Rollback(ctx))
		}
	}
	return tx.Commit(commitCtx)
}

func (h *laterHouse) holds(t *testing.T, want string) {
	t.Helper()
	h.settled()
	for _, store := range []string{"a", "b"} {
		if got := h.get(store, "k"); got != want {
			t.Errorf("%s holds %q; want %q", store, got, want)
		}
	}
}

// Both branches have been asked before anybody waits for an answer.
func TestAllAreAskedBeforeOneAnswers(t *testing.T) {
	var h *laterHouse
	h = newLaterHouse(t, func(_ context.Context, store, what string) error {
		least := map[string]int64{"prepare": 2, "commit": 4}[what]
		if n := h.asked.Load(); n < least {
			t.Errorf("%s of %s is waited for when %d requests are out; want %d", what, store, n, least)
		}
		return nil
	})
	if err := h.changeBoth(context.Background(), "v"); err != nil {
		t.Error(err)
	}
	h.holds(t, "v")
}

// A branch that does not answer keeps nobody from hearing the other's no, which ends its own prepare.
func TestNoIsHeardBesideABranchThatHangs(t *testing.T) {
	for _, hangs := range []string{"a", "b"} {
		refused := errors.New("refused")
		h := newLaterHouse(t, func(ctx context.Context, store, what string) error {
			if what == "prepare" && store == hangs {
				<-ctx.Done()
				return ctx.Err()
			}
			return refused
		})
		if err := h.changeBoth(context.Background(), "v"); !errors.Is(err, assent.ErrAborted) || !errors.Is(err, refused) {
			t.Errorf("%s hangs: %v; want aborted by the other", hangs, err)
		}
		h.holds(t, "")
	}
}

// A caller that waits no longer aborts what hangs in phase 1, and leaves phase 2 to the manager.
func TestCallerLeavesABranchThatHangs(t *testing.T) {
	for what, want := range map[string]string{"prepare": "", "commit": "v"} {
		ctx, cancel := context.WithCancel(context.Background())
		var let atomic.Bool
		h := newLaterHouse(t, func(branch context.Context, store, at string) error {
			if at != what || store != "a" || let.Load() {
				return nil
			}
			cancel()
			if at == "commit" { // which nobody cancels: it fails, and is tried again
				let.Store(true)
				return errors.New("not now")
			}
			<-branch.Done()
			return branch.Err()
		})
		err := h.changeBoth(ctx, "v")
		if aborted := errors.Is(err, assent.ErrAborted); aborted != (want == "") || !aborted && err != nil {
			t.Errorf("%s hangs: %v", what, err)
		}
		h.holds(t, want)
	}
}

// A manager that is closed while branches are asked leaves nothing half done.
func TestCloseBesideAnAnswer(t *testing.T) {
	for _, what := range []string{"prepare", "commit"} {
		waits := make(chan struct{}, 8)
		var over atomic.Bool
		h := newLaterHouse(t, func(ctx context.Context, _, at string) error {
			if at != what || over.Load() {
				return nil
			}
			waits <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		})
		told := make(chan error, 1)
		go func() { told <- h.changeBoth(context.Background(), "v") }()
		<-waits
		closing, cancel := context.WithCancel(context.Background())
		cancel()
		if err := h.m.Close(closing); err != nil {
			t.Error(err)
		}
		want := map[string]string{"prepare": "", "commit": "v"}[what]
		if err := <-told; errors.Is(err, assent.ErrAborted) != (want == "") {
			t.Errorf("%s: %v", what, err)
		}
		over.Store(true)
		h.manage()
		h.holds(t, want)
	}
}

// A branch that hangs although its context has ended keeps nobody from hearing the others when the manager
// is closed at once.
func TestCloseHearsTheOthersBesideABranchThatHangs(t *testing.T) {
	for _, hangs := range []string{"a", "b"} {
		asked, let, heard := make(chan struct{}), make(chan struct{}), make(chan struct{})
		var once sync.Once
		h := newLaterHouse(t, func(_ context.Context, store, _ string) error {
			if store != hangs {
				once.Do(func() { close(heard) })
				return nil
			}
			close(asked)
			<-let
			return errors.New("at last")
		})
		if err := h.m.Close(over); err != nil {
			t.Fatal(err)
		}
		h.patience = 40 * time.Millisecond
		h.manage()
		told := make(chan error, 1)
		go func() { told <- h.changeBoth(context.Background(), "v") }()
		<-asked
		if err := h.m.Close(over); err == nil || !strings.Contains(err.Error(), " in "+hangs) {
			t.Errorf("%s hangs: close: %v; want an error that names the call", hangs, err)
		}
		select {
		case <-heard:
		case <-time.After(time.Minute):
			t.Errorf("%s hangs: the other is not heard", hangs)
		}
		close(let)
		if err := <-told; err == nil {
			t.Errorf("%s hangs: committed", hangs)
		}
		h.patience = 0
		h.manage()
		h.holds(t, "")
	}
}

// Close undoes a branch that answers late, also where no worker waits for the answer, since the manager's
// life had ended when somebody was wanted to.
func TestCloseUndoesABranchThatAnswersLast(t *testing.T) {
	asked := make(chan string, 2)
	let := map[string]chan struct{}{"a": make(chan struct{}), "b": make(chan struct{})}
	h := newLaterHouse(t, func(_ context.Context, store, _ string) error {
		asked <- store
		<-let[store]
		return errors.New("at last")
	})
	told := make(chan error, 1)
	go func() { told <- h.changeBoth(context.Background(), "v") }()
	first := <-asked
	closed := make(chan error, 1)
	go func() { closed <- h.m.Close(over) }()
	second := <-asked
	assent.WaitEnded(h.m)
	close(let[first])
	var err error
	select {
	case err = <-closed:
		close(let[second])
	case <-time.After(50 * time.Millisecond): // by now it would have given up
		close(let[second])
		err = <-closed
	}
	if err != nil {
		t.Error(err)
	}
	for _, store := range []string{"a", "b"} {
		if _, _, err := h.stores[store].Peek([]byte("k")); err != nil {
			t.Errorf("%s is left with an open branch: %v", store, err)
		}
	}
	if err := <-told; !errors.Is(err, assent.ErrAborted) {
		t.Errorf("%v; want aborted", err)
	}
}
