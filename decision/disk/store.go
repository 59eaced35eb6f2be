package disk

import (
	"context"
	"fmt"
	"sync"
	"time"

	"assent/decision"
	"assent/protocol/commit"
)

// group is a set of requests that share one write and one sync.
type group struct {
	seq      uint64 // of the first change
	at       int64
	changes  []*change  // what is to be recorded
	requests []*request // whose changes these are
	late     []*request // decides of transactions that this group decides
	forced   bool
	rotated  bool // it is the first of a segment
}

// store is an open log. One goroutine writes and forces groups of requests, applies them to what is
// recent, and answers the callers; a second writes to the index what was recent, behind it. After
// the first failure a store decides nothing any more; a new one takes its place (Log.Reopen).
type store struct {
	log    *Log
	fs     *fence
	idx    *index
	recent *recent
	intake *intake
	jobs   chan job
	free   chan struct{} // has a value while no generation is on its way into the index
	quit   chan struct{} // closed by close

	failed  chan struct{} // closed after the first failure
	once    sync.Once
	cause   error // valid once failed is closed
	stopped sync.WaitGroup
	ending  sync.Once
	ended   chan struct{} // closed when everything is released
	endErr  error
	gone    bool // nothing of it can change the disk any more; whoever calls close knows

	// The writing goroutine's own.
	salt     uint32
	seg      *segment
	spare    chan spare
	next     uint64    // the next record's sequence number
	last     time.Time // when the last group was written
	unforced time.Time // when the oldest group that is not forced was written, if there is one
	group    group
	forming  map[commit.TransactionID]bool // what the group decides
	buf      []byte

	// live lists the segments that hold records which may not be in the index's tables, oldest
	// first; the last one is being written.
	live struct {
		sync.Mutex
		segments []liveSegment
	}
	flushing <-chan struct{} // the indexing goroutine's own
}

type liveSegment struct {
	path  string
	first uint64
}

// find returns the entry of id, or nil. It is not to be changed.
func (s *store) find(id commit.TransactionID) (*decision.Entry, error) {
	found, elsewhere := s.recent.find(id)
	if elsewhere {
		var err error
		if found, err = s.idx.get(id); err != nil {
			return nil, err
		}
	}
	if found == nil {
		return nil, nil
	}
	return found.known, nil
}

// seek is find for a caller who may go when ctx ends.
func (s *store) seek(ctx context.Context, id commit.TransactionID) (*decision.Entry, error) {
	if found, elsewhere := s.recent.find(id); found != nil {
		return found.known, nil
	} else if !elsewhere {
		return nil, nil
	}
	return apart(ctx, s, func() (*decision.Entry, error) { return s.find(id) })
}

// apart returns what f returns, unless ctx ends before. Of a store that has failed it expects an answer no
// longer than lateTime: the engine keeps its locks after some failures, and whoever read at that moment and
// would give back a version of the index that nobody else holds waits for them for ever.
func apart[T any](ctx context.Context, s *store, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	answer := make(chan result, 1)
	go func() {
		value, err := f()
		answer <- result{value, err}
	}()
	var none T
	var late <-chan time.Time
	for failed := s.failed; ; {
		select {
		case r := <-answer:
			return r.value, r.err
		case <-ctx.Done():
			return none, context.Cause(ctx)
		case <-failed:
			failed, late = nil, time.After(lateTime)
		case <-late:
			return none, fmt.Errorf("the index does not answer: %w", s.cause)
		}
	}
}

// lateTime is for how long a store that has failed may answer.
const lateTime = time.Second

// careTime is how often retention by age and the removal of old segments are looked at.
const careTime = time.Second

// fail stops the store. It never blocks, and only the first call has an effect.
func (s *store) fail(err error) {
	if s.halt(err) {
		s.log.stats.failures.Add(1)
		s.log.cfg.Logger.Error("the decision log has stopped", "dir", s.log.dir, "cause", err)
	}
}

// halt is fail without telling. It reports whether this call was the first.
func (s *store) halt(err error) (first bool) {
	s.once.Do(func() {
		s.cause, first = err, true
		close(s.failed)
		s.intake.close(err)
	})
	return first
}

// failure returns why the store has stopped, or nil.
func (s *store) failure() error {
	select {
	case <-s.failed:
		return s.cause
	default:
		return nil
	}
}

// failIndex stops the store because of its index. Without a writer the engine would try again and
// again, so it is closed at once.
func (s *store) failIndex(err error) {
	s.fail(err)
	s.end()
}

// start begins to serve requests.
func (s *store) start() {
	s.prepareSpare()
	s.stopped.Add(2)
	go s.write()
	go s.keepIndex()
	s.stopped.Done() // for whoever has opened it
}

// end begins to end the store: what waits is served, if the store has not failed, and then its
// files are released.
func (s *store) end() {
	s.ending.Do(func() {
		s.intake.close(decision.ErrClosed)
		close(s.quit)
		go func() {
			defer close(s.ended)
			s.stopped.Wait()
			s.endErr = s.release()
		}()
	})
}

// close ends the store. A store that has failed, or fails while it ends, is given patience to end; what
// is left of it then is cut off from the disk. An error of a store that has failed means that not even
// that was possible; close may then be called again.
func (s *store) close(patience time.Duration) error {
	s.end()
	select {
	case <-s.ended:
		if s.failure() == nil {
			return s.endErr
		}
	case <-s.failed:
	}
	if s.gone {
		return nil
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	stuck := s.idx.stuck.Load()
	if !stuck {
		select {
		case <-s.ended: // whatever else went wrong: why it failed is known
			s.gone = true
			return nil
		case <-timer.C:
		}
	}
	if !s.fs.raise(patience) {
		return fmt.Errorf("the disk has not answered for %v; the process must be started again", patience)
	}
	s.gone = true
	if left := s.log.abandoned.Add(1); left > maxAbandoned {
		return fmt.Errorf("the index has failed %d times without ending; the process must be started again", left)
	}
	return nil
}

// maxAbandoned bounds the number of engines that will not end. Each holds some goroutines and up
// to some tens of megabytes.
const maxAbandoned = 8

func (s *store) release() error {
	var err error
	if s.seg != nil {
		err = s.seg.file.Close()
	}
	if s.spare != nil {
		if sp := <-s.spare; sp.path != "" {
			_ = s.fs.Remove(sp.path) // the next open makes a new one in its place
		}
	}
	if ierr := s.idx.close(); err == nil {
		err = ierr
	}
	return err
}
