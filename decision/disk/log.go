package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/decision"
	"assent/protocol/commit"
)

var (
	_ decision.Log     = (*Log)(nil)
	_ decision.Batcher = (*Log)(nil)
)

// Log is a decision log in a directory of this machine. All methods are safe for concurrent use.
type Log struct {
	dir   string
	cfg   Config
	fs    vfs.FS
	owner string
	lock  io.Closer
	stats counters

	// current is what serves requests; nil once the log is closed.
	current atomic.Pointer[store]
	// turn is held by whoever replaces or removes current.
	turn chan struct{}
	// last is about reopening on demand: when it was last begun, whether it is under way, and
	// whether it is over for good.
	last struct {
		sync.Mutex
		at           time.Time
		busy, closed bool
	}
	reopening sync.WaitGroup
	// abandoned counts the stores whose index would not end.
	abandoned atomic.Int32
}

// Open opens the decision log in dir, creating it where there is none, and finishes what a crash
// interrupted. It holds a lock on dir until Close.
//
// Open reads the whole log and checks it, which takes some seconds for a million entries. It
// fails, and changes nothing, where dir belongs to something else (ErrForeign), is in use
// (ErrLocked), was written by a newer Assent (ErrFormat), or is damaged (a *DamageError). Errors
// carry a hint (resource.HintOf).
func Open(dir string, cfg Config) (*Log, error) {
	const op = "open decision log"
	if err := cfg.validate(); err != nil {
		return nil, invalid(op, err)
	}
	l := &Log{dir: dir, cfg: cfg, fs: cfg.FS, turn: make(chan struct{}, 1)}
	l.last.at = time.Now() // this is an attempt, too
	if err := l.open(); err != nil {
		return nil, l.explain(op, err)
	}
	return l, nil
}

func (l *Log) open() (err error) {
	if err := makeDir(l.fs, l.dir); err != nil {
		return err
	}
	if l.lock, err = lockDir(l.fs, l.dir); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = l.lock.Close()
		}
	}()
	if err := l.identify(); err != nil {
		return err
	}
	s, err := openStore(l)
	if err != nil {
		return err
	}
	l.current.Store(s)
	s.start()
	return nil
}

// Close serves what was asked before and closes the log. It is not an error to close it twice. Where the
// log has stopped, or stops over it, Close returns why: what nobody asked to be forced may be lost.
func (l *Log) Close() error {
	const op = "close decision log"
	l.last.Lock()
	l.last.closed = true
	l.last.Unlock()
	l.turn <- struct{}{}
	s := l.current.Swap(nil)
	<-l.turn
	l.reopening.Wait()
	if s == nil {
		return nil
	}
	err := s.close(patience)
	if cause := s.failure(); cause != nil {
		if err = errors.Join(cause, err); !s.gone {
			return l.stop(op, err) // a write may still reach the disk, so nobody else may have the directory
		}
		err = l.stop(op, err)
	}
	return errors.Join(err, l.lock.Close())
}

// patience is how long the parts of a store that has failed are given to end.
const patience = 10 * time.Second

// Reopen makes a log that has stopped decide again, if its storage lets it. It does what Open
// does: everything that was decided is read again and made stable once more; what a failed write
// left is found and stands. It does nothing to a log that has not stopped.
//
// A log that has stopped also reopens itself, in the background, when it is used; see
// Config.RetryInterval.
func (l *Log) Reopen(ctx context.Context) error {
	const op = "reopen decision log"
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", op, context.Cause(ctx))
	}
	s := l.current.Load()
	if s == nil {
		return fmt.Errorf("%s: %w", op, decision.ErrClosed)
	}
	if s.failure() == nil {
		return nil
	}
	if err := s.close(patience); err != nil {
		return l.stop(op, fmt.Errorf("%w; since then %w", s.cause, err))
	}
	fresh, err := openStore(l)
	if err != nil {
		return l.stop(op, err)
	}
	l.current.Store(fresh)
	fresh.start()
	l.stats.reopens.Add(1)
	l.cfg.Logger.Info("the decision log decides again", "dir", l.dir)
	return nil
}

// stopped returns what a caller is told by a store that has failed, and begins to replace it.
func (l *Log) stopped(op string, s *store) error {
	l.last.Lock()
	defer l.last.Unlock()
	if now := time.Now(); !l.last.closed && !l.last.busy && now.Sub(l.last.at) >= l.cfg.RetryInterval {
		l.last.at, l.last.busy = now, true
		l.reopening.Go(l.reopenOnDemand)
	}
	return l.stop(op, s.cause)
}

func (l *Log) reopenOnDemand() {
	if err := l.Reopen(context.Background()); err != nil && !errors.Is(err, decision.ErrClosed) {
		l.cfg.Logger.Warn("the decision log stays stopped", "dir", l.dir, "cause", err)
	}
	l.last.Lock()
	defer l.last.Unlock()
	l.last.busy = false
}

// Owner implements decision.Log. It is 26 letters and digits.
func (l *Log) Owner() string { return l.owner }

// Decide implements decision.Log. Callers share syncs. When ctx ends first, what was asked may
// still be done.
func (l *Log) Decide(ctx context.Context, e decision.Entry) (decision.Entry, error) {
	const op = "decide"
	s, err := l.serving(ctx, op)
	if err != nil {
		return decision.Entry{}, err
	}
	if err := e.Check(); err != nil {
		return decision.Entry{}, invalid(op, err)
	}
	stands, err := s.seek(ctx, e.ID)
	if err != nil {
		return decision.Entry{}, l.unread(ctx, op, s, err)
	}
	if stands != nil {
		return *clone(*stands), nil
	}
	e = e.Normal()
	body, err := e.Encode()
	if err != nil {
		return decision.Entry{}, invalid(op, err)
	}
	r := newRequest(true, change{record: record{decideRecord, e.ID, body}, entry: clone(e)})
	if err := l.ask(ctx, op, s, r); err != nil {
		return decision.Entry{}, err
	}
	if r.stands != nil {
		return *r.stands, nil
	}
	return e, nil
}

// Lookup implements decision.Register. A log that has stopped still tells what it knows to be
// stable, but answers ErrStopped where it knows of nothing.
func (l *Log) Lookup(ctx context.Context, id commit.TransactionID) (decision.Entry, error) {
	const op = "look up"
	s, err := l.reading(ctx, op)
	if err != nil {
		return decision.Entry{}, err
	}
	if err := decision.CheckID(id); err != nil {
		return decision.Entry{}, invalid(op, err)
	}
	found, err := s.seek(ctx, id)
	switch {
	case err != nil:
		return decision.Entry{}, l.unread(ctx, op, s, err)
	case found != nil:
		return *clone(*found), nil
	case s.failure() != nil:
		return decision.Entry{}, l.stopped(op, s)
	}
	return decision.Entry{}, fmt.Errorf("%s %q: %w", op, id, decision.ErrNotFound)
}

// Annotate implements decision.Log. A note that is not Forced is stable within a few hundredths
// of a second, or together with the next decision.
func (l *Log) Annotate(ctx context.Context, id commit.TransactionID, n decision.Note) error {
	const op = "annotate"
	s, err := l.serving(ctx, op)
	if err != nil {
		return err
	}
	if err := errors.Join(decision.CheckID(id), n.Check()); err != nil {
		return invalid(op, err)
	}
	forced := n.Forced
	n = n.Normal()
	body, err := n.Encode()
	if err != nil {
		return invalid(op, err)
	}
	return l.ask(ctx, op, s, newRequest(forced, change{record: record{noteRecord, id, body}, note: &n}))
}

// AnnotateAll implements decision.Batcher.
func (l *Log) AnnotateAll(ctx context.Context, ids []commit.TransactionID, n decision.Note) error {
	const op = "annotate"
	s, err := l.serving(ctx, op)
	if err != nil {
		return err
	}
	err = n.Check()
	for _, id := range ids {
		err = errors.Join(err, decision.CheckID(id))
	}
	if err != nil {
		return invalid(op, err)
	}
	forced := n.Forced
	n = n.Normal()
	body, err := n.Encode()
	if err != nil {
		return invalid(op, err)
	}
	var requests []*request
	for some := range slices.Chunk(ids, annotateBatch) {
		changes := make([]change, len(some))
		for i, id := range some {
			changes[i] = change{record: record{noteRecord, id, body}, note: &n}
		}
		r := newRequest(forced, changes...)
		if err := s.intake.put(r, l.cfg.MaxWaiting); err != nil {
			return l.told(op, s, err)
		}
		requests = append(requests, r)
	}
	for _, r := range requests {
		if err := l.await(ctx, op, s, r); err != nil && !errors.Is(err, decision.ErrNotFound) {
			return err
		}
	}
	return nil
}

// annotateBatch is how many notes are one request.
const annotateBatch = 256

// Forget implements decision.Log. It is not forced: after a crash within a few hundredths of a
// second the entry may be back.
func (l *Log) Forget(ctx context.Context, id commit.TransactionID) error {
	const op = "forget"
	s, err := l.serving(ctx, op)
	if err != nil {
		return err
	}
	if err := decision.CheckID(id); err != nil {
		return invalid(op, err)
	}
	return l.ask(ctx, op, s, newRequest(false, change{record: record{kind: forgetRecord, id: id}}))
}

// List implements decision.Log. The work is in proportion to the entries of that status alone.
func (l *Log) List(ctx context.Context, status decision.Status) iter.Seq2[decision.Entry, error] {
	const op = "list"
	return func(yield func(decision.Entry, error) bool) {
		for c := (&cursor{status: status}); !c.over; {
			s, err := l.reading(ctx, op)
			var page []decision.Entry
			if err == nil {
				if page, err = s.leaf(ctx, c); err != nil {
					err = l.unread(ctx, op, s, err)
				}
			}
			if err != nil {
				yield(decision.Entry{}, err)
				return
			}
			for _, e := range page {
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// reading returns what serves reads.
func (l *Log) reading(ctx context.Context, op string) (*store, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	if s := l.current.Load(); s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("%s: %w", op, decision.ErrClosed)
}

// serving returns what serves writes.
func (l *Log) serving(ctx context.Context, op string) (*store, error) {
	s, err := l.reading(ctx, op)
	if err == nil && s.failure() != nil {
		return nil, l.stopped(op, s)
	}
	return s, err
}

// ask leaves r with s and waits until it is answered.
func (l *Log) ask(ctx context.Context, op string, s *store, r *request) error {
	if err := s.intake.put(r, l.cfg.MaxWaiting); err != nil {
		return l.told(op, s, err)
	}
	return l.await(ctx, op, s, r)
}

// await waits until r, which was left with s, is answered.
func (l *Log) await(ctx context.Context, op string, s *store, r *request) error {
	select {
	case <-r.done:
	case <-ctx.Done():
		return fmt.Errorf("%s %q: %w", op, r.changes[0].id, context.Cause(ctx))
	case <-s.failed:
		// Whoever should answer may hang in a disk that does not.
		select {
		case <-r.done:
		default:
			return l.stopped(op, s)
		}
	}
	if r.err != nil {
		return l.told(op, s, r.err)
	}
	return nil
}

// unread puts an error of reading from s, or the end of ctx, into the words of op.
func (l *Log) unread(ctx context.Context, op string, s *store, err error) error {
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, cause) {
		return fmt.Errorf("%s: %w", op, err)
	}
	return l.told(op, s, err)
}

// told puts an error of s into the words of op.
func (l *Log) told(op string, s *store, err error) error {
	switch {
	case errors.Is(err, decision.ErrNotFound):
		return fmt.Errorf("%s: %w", op, err)
	case s.failure() != nil && l.current.Load() != nil: // what is closed is what has failed, not the log
		return l.stopped(op, s)
	case errors.Is(err, decision.ErrClosed), errors.Is(err, errIndexClosed):
		return fmt.Errorf("%s: %w", op, decision.ErrClosed)
	}
	return l.explain(op, err)
}

// now is the log's clock in Unix milliseconds.
func (l *Log) now() int64 { return l.cfg.Clock().UnixMilli() }

func (l *Log) retention() retention { return retention{l.cfg.Retention, l.cfg.RetainCount} }
