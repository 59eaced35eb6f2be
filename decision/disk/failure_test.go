package disk

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"assent/decision"
	"assent/protocol/commit"
	"assent/resource"
)

// faults decides which operations on a file system fail.
type faults struct {
	sync.Mutex
	fail func(errorfs.Op) error // nil: none
	hits int
}

func (f *faults) MaybeError(op errorfs.Op) error {
	f.Lock()
	defer f.Unlock()
	if f.fail == nil {
		return nil
	}
	err := f.fail(op)
	if err != nil {
		f.hits++
	}
	return err
}

func (f *faults) String() string { return "faults" }

func (f *faults) set(fail func(errorfs.Op) error) {
	f.Lock()
	defer f.Unlock()
	f.fail, f.hits = fail, 0
}

func isSegment(op errorfs.Op) bool { return strings.HasSuffix(op.Path, segmentSuffix) }

// needsSpace reports whether an operation may need room on the disk. Writing within a segment
// does not: it was filled with zeros.
func needsSpace(op errorfs.Op) bool {
	switch op.Kind {
	case errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpMkdirAll, errorfs.OpFilePreallocate, errorfs.OpLink:
		return true
	}
	return false
}

// open opens a log on a file system with faults, in a directory of the operating system.
func openFaulty(t *testing.T) (*Log, *faults) {
	t.Helper()
	f := &faults{}
	fs := errorfs.Wrap(vfs.Default, f)
	l := mustOpen(t, t.TempDir()+"/log", Config{FS: fs, SegmentBytes: smallSegment, RetryInterval: time.Millisecond})
	return l, f
}

// stops checks that err is the answer of a log that has stopped.
func stops(t *testing.T, what string, err error, cause error, code resource.Code) {
	t.Helper()
	if !errors.Is(err, decision.ErrStopped) || !errors.Is(err, cause) {
		t.Errorf("%s: got %v; want %v because of %v", what, err, decision.ErrStopped, cause)
	}
	if resource.CodeOf(err) != code || resource.HintOf(err) == "" {
		t.Errorf("%s: got code %q and hint %q; want code %q and some hint", what, resource.CodeOf(err), resource.HintOf(err), code)
	}
}

func TestSyncFailureStopsAndRecovers(t *testing.T) {
	ctx := t.Context()
	l, f := openFaulty(t)
	fill(t, l, 0, 20)
	f.set(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData && isSegment(op) {
			return syscall.EIO
		}
		return nil
	})
	_, err := l.Decide(ctx, entry(20))
	stops(t, "decide", err, syscall.EIO, resource.Unavailable)
	_, err = l.Decide(ctx, entry(21))
	stops(t, "the next decide", err, syscall.EIO, resource.Unavailable)
	stops(t, "annotate", l.Annotate(ctx, entry(1).ID, decision.Note{Kind: decision.Finished}), syscall.EIO, resource.Unavailable)
	stops(t, "forget", l.Forget(ctx, entry(1).ID), syscall.EIO, resource.Unavailable)

	f.set(nil)
	if err := l.Reopen(ctx); err != nil {
		t.Fatal(err)
	}
	if err := missing(l, 20); err != nil {
		t.Error(err)
	}
	// What the failed call wrote may stand or not, but it stands from now on.
	other := entry(20)
	other.Decision = commit.Abort
	first, err := l.Decide(ctx, other)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := l.Decide(ctx, entry(20)); err != nil || again.Decision != first.Decision {
		t.Errorf("told %v, and then %v, %v", first.Decision, again.Decision, err)
	}
	if s := l.Stats(); s.Failures != 1 || s.Reopens != 1 {
		t.Errorf("got %+v; want one failure and one reopening", s)
	}
	if err := l.Reopen(ctx); err != nil {
		t.Errorf("reopening a log that works: %v", err)
	}
}

// Who asks while what has failed is being replaced is told that the log has stopped, and not that it is closed.
func TestReplacedIsNotClosed(t *testing.T) {
	l, _ := openFaulty(t)
	s := l.current.Load()
	s.intake.close(decision.ErrClosed) // as whoever replaces it may do before fail has done so
	s.fail(syscall.EIO)
	_, err := l.Decide(t.Context(), entry(1))
	stops(t, "decide", err, syscall.EIO, resource.Unavailable)
	r := newRequest(true, change{record: record{kind: decideRecord, id: entry(1).ID}})
	stops(t, "decide, begun before", l.ask(t.Context(), "decide", s, r), syscall.EIO, resource.Unavailable)
	if err := l.Reopen(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Decide(t.Context(), entry(1)); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.ask(t.Context(), "decide", s, r); !errors.Is(err, decision.ErrClosed) {
		t.Errorf("when the log is closed: %v; want %v", err, decision.ErrClosed)
	}
}

// A stopped log reopens itself when it is used, and the process has lost nothing for good.
func TestRecoversByItselfManyTimes(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l, f := openFaulty(t)
	var before int
	const rounds = 12
	for round := range rounds {
		kind := []errorfs.OpKind{errorfs.OpFileSyncData, errorfs.OpFileWriteAt}[round%2]
		f.set(func(op errorfs.Op) error {
			if isSegment(op) && op.Kind == kind {
				return syscall.EIO
			}
			return nil
		})
		if _, err := l.Decide(ctx, entry(round)); !errors.Is(err, decision.ErrStopped) {
			t.Fatalf("round %d: got %v; want %v", round, err, decision.ErrStopped)
		}
		f.set(nil)
		for {
			_, err := l.Decide(ctx, entry(round))
			if err == nil {
				break
			}
			if !errors.Is(err, decision.ErrStopped) {
				t.Fatalf("round %d: %v", round, err)
			}
			runtime.Gosched()
		}
		if round == 2 {
			before = runtime.NumGoroutine()
		}
	}
	if got := l.Stats().Reopens; got < rounds {
		t.Errorf("%d reopenings; want at least %d", got, rounds)
	}
	eventually(t, "there are no more goroutines than after three rounds", func() bool { return runtime.NumGoroutine() <= before+8 })
	for i := range rounds {
		if e, err := l.Lookup(ctx, entry(i).ID); err != nil || e.Decision != commit.Commit {
			t.Errorf("entry %d: %v, %v", i, e.Decision, err)
		}
	}
}

// The disk fills up at some point of a busy life, and later has room again. Nobody hangs, nothing
// that was told is lost, and the log goes on.
func TestFullDiskAtAnyPoint(t *testing.T) {
	for point := 0; point < 60; point += 4 {
		t.Run(fmt.Sprint(point), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			l, f := openFaulty(t)
			var left atomic.Int64
			left.Store(int64(point))
			f.set(func(op errorfs.Op) error {
				if needsSpace(op) && left.Add(-1) < 0 {
					return syscall.ENOSPC
				}
				return nil
			})
			told := decideUntilStopped(ctx, t, l, syscall.ENOSPC)
			if err := l.Reopen(ctx); !errors.Is(err, decision.ErrStopped) || resource.CodeOf(err) != resource.Capacity {
				t.Errorf("reopen on a full disk: got %v; want %v", err, decision.ErrStopped)
			}
			f.set(nil)
			if err := l.Reopen(ctx); err != nil {
				t.Fatal(err)
			}
			for id, want := range told {
				if e, err := l.Lookup(ctx, id); err != nil || e.Decision != want {
					t.Errorf("%q: told %v; found %v, %v", id, want, e.Decision, err)
				}
			}
			if _, err := l.Decide(ctx, decision.Entry{ID: "new", Decision: commit.Commit}); err != nil {
				t.Error(err)
			}
		})
	}
}

// decideUntilStopped lets several decide until all are told that the log has stopped. It returns
// what they were told before.
func decideUntilStopped(ctx context.Context, t *testing.T, l *Log, cause error) map[commit.TransactionID]commit.Decision {
	var mu sync.Mutex
	told := map[commit.TransactionID]commit.Decision{}
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			for i := 0; ; i++ {
				e := entry(i)
				e.ID = commit.TransactionID(fmt.Sprintf("w%d-%d", w, i))
				e.Reason = strings.Repeat("r", 900)
				stands, err := l.Decide(ctx, e)
				if err != nil {
					stops(t, "decide", err, cause, resource.Capacity)
					return
				}
				mu.Lock()
				told[e.ID] = stands.Decision
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return told
}

// The index fails too: its tables, its manifest, and the directory.
func TestIndexFailure(t *testing.T) {
	for what, bad := range map[string]func(errorfs.Op) bool{
		"manifest write": func(op errorfs.Op) bool {
			return op.Kind == errorfs.OpFileWrite && strings.Contains(op.Path, "MANIFEST")
		},
		"manifest sync": func(op errorfs.Op) bool {
			return op.Kind == errorfs.OpFileSync && strings.Contains(op.Path, "MANIFEST")
		},
		"table sync": func(op errorfs.Op) bool {
			return (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) && strings.HasSuffix(op.Path, ".sst")
		},
		"removal of a segment": func(op errorfs.Op) bool {
			return op.Kind == errorfs.OpRemove && isSegment(op)
		},
	} {
		t.Run(what, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			l, f := openFaulty(t)
			f.set(func(op errorfs.Op) error {
				if bad(op) {
					return syscall.ENOSPC
				}
				return nil
			})
			told := decideUntilStopped(ctx, t, l, syscall.ENOSPC)
			if strings.HasPrefix(what, "manifest") {
				readsAreAnswered(ctx, t, l, told)
			}
			f.set(nil)
			if err := l.Reopen(ctx); err != nil {
				t.Fatal(err)
			}
			for id := range told {
				if _, err := l.Lookup(ctx, id); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// readsAreAnswered reads from a log that has stopped while what has failed is cut off, and its engine, which may
// never end, is closed.
func readsAreAnswered(ctx context.Context, t *testing.T, l *Log, told map[commit.TransactionID]commit.Decision) {
	t.Helper()
	if err := l.Reopen(ctx); !errors.Is(err, decision.ErrStopped) {
		t.Errorf("reopen while the index fails: got %v; want %v", err, decision.ErrStopped)
	}
	read := make(chan error, 1)
	go func() {
		var errs error
		for round := 0; round < 100 && errs == nil; round++ {
			for _, err := range l.List(ctx, 0) {
				errs = errors.Join(errs, err)
			}
			for id := range told {
				_, err := l.Lookup(ctx, id)
				errs = errors.Join(errs, err)
			}
			runtime.Gosched()
		}
		read <- errs // nil, or that the index is closed
	}()
	select {
	case err := <-read:
		if err != nil && !errors.Is(err, decision.ErrStopped) {
			t.Errorf("reads from a log that has stopped: %v", err)
		}
	case <-ctx.Done():
		t.Fatal("who reads from a log that has stopped waits for ever")
	}
}

// The log stops over its closing: its caller is told, and the directory is free.
func TestCloseFails(t *testing.T) {
	l, f := openFaulty(t)
	if _, err := l.Decide(t.Context(), entry(0)); err != nil {
		t.Fatal(err)
	}
	f.set(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData && isSegment(op) {
			return syscall.EIO
		}
		return nil
	})
	stops(t, "close", l.Close(), syscall.EIO, resource.Unavailable)
	f.set(nil)
	if _, err := mustOpen(t, l.dir, Config{}).Lookup(t.Context(), entry(0).ID); err != nil {
		t.Error(err)
	}
}

// Whoever waits for the end of a store learns that its index will never end.
func TestIndexFailsWhileClosing(t *testing.T) {
	s := quietStore(t, vfs.NewMem(), 0)
	closed := make(chan error, 1)
	go func() { closed <- s.close(patience) }() // its goroutines never end
	<-s.quit
	s.idx.stuck.Store(true)
	s.fail(syscall.EIO)
	select {
	case err := <-closed:
		if err != nil || !s.gone {
			t.Errorf("got %v, gone: %v; want what is left to be cut off", err, s.gone)
		}
	case <-time.After(time.Minute):
		t.Fatal("close waits for ever")
	}
	s.stopped.Done()
	<-s.ended
}

// A panic of the engine stops the log, and not the process.
func TestEnginePanics(t *testing.T) {
	s := quietStore(t, vfs.NewMem(), 0)
	if _, err := s.decide(t, "tx", commit.Commit); err != nil {
		t.Fatal(err)
	}
	if err := s.note(t, decision.Finished, "tx"); err != nil {
		t.Fatal(err)
	}
	if err := s.settle(job{generation: s.recent.freeze()}); err != nil {
		t.Fatal(err)
	}
	db := s.idx.db
	s.idx.db = nil // whatever is asked of it panics
	if e, err := s.find("tx"); err == nil {
		t.Errorf("found %v", e)
	}
	if page, err := s.page(&cursor{}); err == nil {
		t.Errorf("listed %v", page)
	}
	if err := s.settle(job{generation: s.recent.freeze()}); err == nil {
		t.Error("an entry was retired")
	}
	s.idx.db = db
	s.leave(t)
}

// gate holds every sync of a segment up until it is opened.
type gate struct {
	held, open chan struct{}
}

func (g *gate) MaybeError(op errorfs.Op) error {
	if op.Kind == errorfs.OpFileSyncData && isSegment(op) {
		select {
		case g.held <- struct{}{}:
		case <-g.open:
		}
		<-g.open
	}
	return nil
}

func (g *gate) String() string { return "gate" }

// While a decision is written and not yet forced nobody sees it and nobody is told it.
func TestNobodyIsToldBeforeItIsStable(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	g := &gate{held: make(chan struct{}), open: make(chan struct{})}
	open := sync.OnceFunc(func() { close(g.open) })
	l := mustOpen(t, "log", Config{FS: errorfs.Wrap(vfs.NewMem(), g), SegmentBytes: smallSegment})
	abort := entry(1)
	abort.Decision = commit.Abort
	t.Cleanup(open) // before the log is closed
	type result struct {
		e   decision.Entry
		err error
	}
	results := make(chan result, 3)
	decide := func(e decision.Entry) {
		stands, err := l.Decide(ctx, e)
		results <- result{stands, err}
	}
	go decide(entry(1))
	select {
	case <-g.held:
	case r := <-results:
		t.Fatalf("told %+v without a sync", r)
	}
	go decide(abort)
	go decide(entry(1))
	short, stop := context.WithCancel(ctx)
	stop()
	if _, err := l.Decide(short, entry(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v; want %v", err, context.Canceled)
	}
	for range 200 {
		if e, err := l.Lookup(ctx, entry(1).ID); !errors.Is(err, decision.ErrNotFound) {
			t.Fatalf("a look-up sees %+v, %v, which is not stable", e, err)
		}
		for e := range l.List(ctx, 0) {
			t.Fatalf("a listing sees %+v, which is not stable", e)
		}
		select {
		case r := <-results:
			t.Fatalf("told %+v, which is not stable", r)
		default:
			runtime.Gosched()
		}
	}
	open()
	for range 3 {
		if r := <-results; r.err != nil || r.e.Decision != commit.Commit {
			t.Errorf("told %v, %v; want the first, commit", r.e.Decision, r.err)
		}
	}
}

// Many callers share a sync.
func TestCallersShareSyncs(t *testing.T) {
	var syncs atomic.Int64
	counted := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData && isSegment(op) {
			syncs.Add(1)
		}
		return nil
	}))
	l := mustOpen(t, "log", Config{FS: SlowSync(counted, 2*time.Millisecond)})
	const callers, decisions = 64, 64 * 20
	decideMany(t, l, callers, decisions, nil)
	s := l.Stats()
	t.Logf("%d decisions shared %d syncs: %.1f each", s.Decisions, s.Syncs, float64(s.Decisions)/float64(s.Syncs))
	if s.Decisions != decisions {
		t.Errorf("%d decisions counted; want %d", s.Decisions, decisions)
	}
	if got := syncs.Load(); uint64(got) < s.Syncs || got > decisions/8 {
		t.Errorf("%d syncs (%d counted) for %d decisions; want at most %d", got, s.Syncs, decisions, decisions/8)
	}
}
