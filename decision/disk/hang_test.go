package disk

import (
	"context"
	"errors"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"assent/decision"
	"assent/resource"
)

// holder holds up whoever reads an entry or a page from a table, and may let the manifest fail.
type holder struct {
	sync.Mutex
	hold bool
	held chan struct{} // has a value for everybody who is
	let  chan struct{} // closed when they may go on
	bad  bool          // the manifest cannot be written
}

func (h *holder) MaybeError(op errorfs.Op) error {
	h.Lock()
	hold, bad := h.hold, h.bad
	h.Unlock()
	switch {
	case bad && op.Kind == errorfs.OpFileWrite && strings.Contains(op.Path, "MANIFEST"):
		return syscall.ENOSPC
	case hold && op.Kind == errorfs.OpFileReadAt && strings.HasSuffix(op.Path, ".sst") && forEntries(string(debug.Stack())):
		select {
		case h.held <- struct{}{}:
		case <-h.let:
		}
		<-h.let
	}
	return nil
}

func forEntries(stack string) bool {
	return strings.Contains(stack, "(*index).get(") || strings.Contains(stack, "(*index).page")
}

func (h *holder) String() string { return "holder" }

func (h *holder) set(hold, bad bool) {
	h.Lock()
	defer h.Unlock()
	h.hold, h.bad = hold, bad
}

const sought = 50 // the entry that is read

// openHolder opens a log whose entries are in a table, of which little has been read.
func openHolder(t *testing.T) (*Log, *holder) {
	t.Helper()
	h := &holder{held: make(chan struct{}, 8), let: make(chan struct{})}
	cfg := Config{FS: errorfs.Wrap(vfs.NewMem(), h), SegmentBytes: smallSegment, RetryInterval: time.Hour}
	l := mustOpen(t, "log", cfg)
	for i := range 2 * sought {
		e := entry(i)
		e.Reason = strings.Repeat("r", 1000)
		if _, err := l.Decide(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return mustOpen(t, "log", cfg), h
}

var lookingUp = map[string]func(context.Context, *Log) error{
	"look up": func(ctx context.Context, l *Log) error {
		_, err := l.Lookup(ctx, entry(sought).ID)
		return err
	},
	"decide": func(ctx context.Context, l *Log) error {
		_, err := l.Decide(ctx, entry(sought))
		return err
	},
	"list": func(ctx context.Context, l *Log) (err error) {
		for _, err = range l.List(ctx, 0) {
			break
		}
		return err
	},
}

// Who reads while the engine fails holds a version of the index that nobody else does, and cannot give it back:
// the engine has stopped with the lock for that. The caller is told in time that the log has stopped, and the log
// recovers.
func TestReaderOfAFailedIndex(t *testing.T) {
	for what, read := range lookingUp {
		t.Run(what, func(t *testing.T) {
			t.Parallel() // each waits for a second
			l, h := openHolder(t)
			h.set(true, false)
			answer := make(chan error, 1)
			go func() { answer <- read(context.Background(), l) }()
			select {
			case <-h.held:
			case err := <-answer:
				t.Fatalf("answered without the table: %v", err)
			}
			h.set(false, true)
			s := l.current.Load()
			if err := s.idx.db.Set([]byte("x"), nil, pebble.NoSync); err != nil {
				t.Fatal(err)
			}
			if _, err := s.idx.flush(); err != nil {
				t.Fatal(err)
			}
			<-s.failed
			close(h.let)
			select {
			case err := <-answer:
				if err != nil {
					stops(t, what, err, syscall.ENOSPC, resource.Capacity)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("who reads from an index that has failed waits for ever")
			}
			h.set(false, false)
			if err := l.Reopen(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := read(t.Context(), l); err != nil {
				t.Error(err)
			}
		})
	}
}

// Who reads from a disk that does not answer can go when the context ends.
func TestReaderOfAHangingDiskGoes(t *testing.T) {
	for what, read := range lookingUp {
		t.Run(what, func(t *testing.T) {
			l, h := openHolder(t)
			h.set(true, false)
			ctx, cancel := context.WithCancelCause(t.Context())
			why := errors.New("nobody wants to know any more")
			answer := make(chan error, 1)
			go func() { answer <- read(ctx, l) }()
			<-h.held
			cancel(why)
			select {
			case err := <-answer:
				if !errors.Is(err, why) || errors.Is(err, decision.ErrStopped) {
					t.Errorf("got %v; want %v", err, why)
				}
			case <-time.After(5 * time.Second):
				t.Error("the caller cannot go")
			}
			close(h.let)
		})
	}
}

// The engine's merging of tables fails while the log is opened: Open says so, and the log can be opened again.
func TestIndexFailsWhileOpening(t *testing.T) {
	var bad atomic.Bool
	bad.Store(true)
	cfg := Config{SegmentBytes: smallSegment, Logger: quiet()}
	cfg.FS = errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if bad.Load() && op.Kind == errorfs.OpFileWrite && strings.Contains(op.Path, "MANIFEST") &&
			strings.Contains(string(debug.Stack()), "(*DB).compact1(") {
			return syscall.ENOSPC
		}
		return nil
	}))
	var err error
	for i := 0; i < 20 && err == nil; i++ { // until there are enough tables to be merged
		var l *Log
		if l, err = Open("log", cfg); err == nil {
			_, err = l.Decide(t.Context(), entry(i))
			err = errors.Join(err, l.Close())
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v; want %v", err, syscall.ENOSPC)
	}
	opened := make(chan error, 1)
	go func() {
		l, err := Open("log", cfg) // it goes on with merging at once
		if err == nil {
			err = l.Close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("got %v; want %v", err, syscall.ENOSPC)
		}
	case <-time.After(time.Minute):
		t.Fatal("who opens the log waits for ever")
	}
	bad.Store(false)
	if _, err := mustOpen(t, "log", cfg).Lookup(t.Context(), entry(0).ID); err != nil {
		t.Error(err)
	}
}
