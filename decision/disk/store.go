package disk

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"assent/decision"
	"assent/protocol/commit"
)

// request is one call of a Log's method on its way through a store.
type request struct {
	change
	entry  decision.Entry // what a decide proposes
	forced bool
	// seen is the number of the last group that was applied before the caller found no entry of
	// this transaction in the index.
	seen   uint64
	stands *decision.Entry // what a decide is answered
	done   chan struct{}   // closed when stands and err are set
}

func (r *request) finish(err error) {
	if r.err == nil {
		r.err = err
	}
	close(r.done)
}

// group is a set of requests that share one write and one sync.
type group struct {
	number   uint64
	seq      uint64
	at       int64
	requests []*request // each with a record
	waiters  []*request // decides of transactions that this group or an earlier one decides
	flush    bool       // the segment is full: flush the index behind this group
}

// store is an open log: one goroutine writes and forces groups, a second applies them to the
// index and answers the callers, so that applying one group and forcing the next overlap. Where there is
// no next one the first does both. After
// the first failure a store decides nothing any more; a new one takes its place (Log.Reopen).
type store struct {
	log    *Log
	fs     *fence
	idx    *index
	intake *intake
	apply  chan *group
	quit   chan struct{} // closed by close

	failed  chan struct{} // closed after the first failure
	once    sync.Once
	cause   error // valid once failed is closed
	stopped sync.WaitGroup
	ending  sync.Once
	ended   chan struct{} // closed when everything is released
	endErr  error
	gone    bool // nothing of it can change the disk any more; whoever calls close knows

	// appliedGroup is the number of the last group applied.
	appliedGroup atomic.Uint64

	// The writing goroutine's own.
	salt   uint32
	seg    *segment
	spare  chan spare
	number uint64 // of the last group formed
	handed uint64 // the number of the last one that the applying goroutine was given
	next   uint64 // the next record's sequence number
	recent recent
	buf    []byte

	// live lists the segments that hold records which may not be in the index's tables, oldest
	// first; the last one is being written.
	live struct {
		sync.Mutex
		segments []liveSegment
	}
	// applying is held by whoever applies a group: the applying goroutine, or the writing one for it.
	applying sync.Mutex
	flushing <-chan struct{} // guarded by applying
}

type liveSegment struct {
	path  string
	first uint64
}

// intake is where callers leave their requests for the writing goroutine.
type intake struct {
	sync.Mutex
	requests []*request
	closed   error // why nothing is taken any more
	wake     chan struct{}
	later    *time.Timer // signals for requests that can wait
}

func newIntake() *intake {
	q := &intake{wake: make(chan struct{}, 1)}
	q.later = time.AfterFunc(time.Hour, func() {
		q.Lock()
		defer q.Unlock()
		q.signal()
	})
	q.later.Stop()
	return q
}

// Requests that need not be forced wait this long, or until there are so many, for one that must
// be: then they share its write.
const (
	laterTime = time.Millisecond
	laterMost = 64
)

// put adds r. It fails when the store has stopped and when most requests wait already.
func (q *intake) put(r *request, most int) error {
	q.Lock()
	defer q.Unlock()
	if q.closed != nil {
		return q.closed
	}
	if len(q.requests) >= most {
		return busy(most)
	}
	q.requests = append(q.requests, r)
	switch {
	case r.forced || len(q.requests) >= laterMost:
		q.signal()
	case len(q.requests) == 1:
		q.later.Reset(laterTime)
	}
	return nil
}

// empty reports whether nothing waits.
func (q *intake) empty() bool {
	q.Lock()
	defer q.Unlock()
	return len(q.requests) == 0
}

func (q *intake) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns waiting requests, in the order in which they came, at most maxGroupRequests and
// not many more bytes than maxGroupBytes.
func (q *intake) take() []*request {
	q.Lock()
	defer q.Unlock()
	n, bytes := 0, 0
	for n < len(q.requests) && n < maxGroupRequests && bytes < maxGroupBytes {
		bytes += len(q.requests[n].body)
		n++
	}
	taken := q.requests[:n:n]
	q.later.Stop()
	if q.requests = q.requests[n:]; len(q.requests) > 0 {
		q.signal()
	}
	return taken
}

// close makes put fail with err from now on.
func (q *intake) close(err error) {
	q.Lock()
	defer q.Unlock()
	if q.closed == nil {
		q.closed = err
	}
	q.signal()
}

const (
	maxGroupRequests = 4096
	maxGroupBytes    = 1 << 20

	// careTime is how often retention by age and the removal of old segments are looked at.
	careTime = time.Second
)

// recent remembers which transactions were decided in the latest groups. A caller looks into the
// index before it leaves its request; what was decided in between is found here.
type recent struct {
	now, before map[commit.TransactionID]uint64 // to the group's number
	// Everything decided in groups after floor is in now or before; since is the floor that holds
	// when before is dropped.
	floor, since uint64
}

const recentSize = 8192

func (r *recent) find(id commit.TransactionID) (number uint64, ok bool) {
	if number, ok = r.now[id]; !ok {
		number, ok = r.before[id]
	}
	return number, ok
}

func (r *recent) add(id commit.TransactionID, number uint64) {
	if len(r.now) >= recentSize {
		r.now, r.before = r.before, r.now
		clear(r.now)
		r.floor, r.since = r.since, number
	}
	r.now[id] = number
}

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
	go s.applyGroups()
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

// close ends the store. A store that has failed is given patience to end; what is left of it then
// is cut off from the disk. An error means that not even that was possible; close may then be
// called again.
func (s *store) close(patience time.Duration) error {
	s.end()
	if s.failure() == nil {
		<-s.ended
		return s.endErr
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

// applyGroups is the applying goroutine.
func (s *store) applyGroups() {
	defer s.stopped.Done()
	for g := range s.apply {
		s.applying.Lock()
		s.applyGroup(g)
		s.applying.Unlock()
	}
}

// applyGroup applies g and answers its callers. The caller holds s.applying, and every group before g has
// been applied.
func (s *store) applyGroup(g *group) {
	if err := s.failureOfIndex(); err != nil {
		s.answer(g, err)
		return
	}
	changes := make([]*change, len(g.requests))
	for i, r := range g.requests {
		changes[i] = &r.change
	}
	err := s.idx.apply(g.seq, g.at, changes, true, s.log.retention())
	if err != nil {
		s.idx.broken.Store(true)
		s.fail(err)
		s.answer(g, s.cause)
		return
	}
	s.appliedGroup.Store(g.number)
	s.answer(g, nil)
	if err := s.care(g); err != nil {
		s.fail(err)
	}
}

// failureOfIndex returns why nothing can be applied any more, or nil.
func (s *store) failureOfIndex() error {
	if s.idx.broken.Load() {
		return s.failure()
	}
	return nil
}

// answer tells the callers of g what has become of their requests.
func (s *store) answer(g *group, err error) {
	for _, r := range g.requests {
		if err == nil && r.kind == decideRecord {
			r.stands = &r.entry
		}
		r.finish(err)
	}
	for _, r := range g.waiters {
		if err != nil {
			r.finish(err)
			continue
		}
		s.answerFromIndex(r)
	}
}

// answerFromIndex tells r what stands. It reports whether there was anything to tell.
func (s *store) answerFromIndex(r *request) bool {
	found, err := s.idx.get(r.id)
	if err == nil && found == nil {
		// Decided and forgotten while r was waiting.
		r.finish(fmt.Errorf("decide %q: %w", r.id, decision.ErrNotFound))
		return false
	}
	if err == nil {
		var e decision.Entry
		if e, err = found.entry(); err == nil {
			r.stands = &e
		}
	}
	r.finish(err)
	return err == nil
}

// care looks after the index and the segments behind the group g.
func (s *store) care(g *group) error {
	if g.flush {
		// At most one flush is under way. Waiting for it here is what holds writers back when the
		// index cannot keep up.
		if s.flushing != nil {
			select {
			case <-s.flushing:
			case <-s.failed:
				return nil
			}
		}
		var err error
		if s.flushing, err = s.idx.flush(); err != nil {
			return err
		}
	}
	if g.flush || len(g.requests)+len(g.waiters) == 0 {
		return s.dropSegments()
	}
	return nil
}

// dropSegments removes the segments whose records are all in the index's tables on disk.
func (s *store) dropSegments() error {
	flushed, err := s.idx.flushedUpTo()
	if err != nil {
		return err
	}
	s.live.Lock()
	defer s.live.Unlock()
	for len(s.live.segments) > 1 && s.live.segments[1].first <= flushed+1 {
		if err := s.fs.Remove(s.live.segments[0].path); err != nil {
			return err
		}
		s.live.segments = s.live.segments[1:]
	}
	return nil
}
