package disk

import (
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/decision"
	"assent/protocol/commit"
)

// write is the writing goroutine: it forms groups of what has come in, writes and forces them,
// and answers the callers.
func (s *store) write() {
	defer s.stopped.Done()
	defer close(s.jobs)
	idle, care := time.NewTimer(s.log.cfg.IdleTime), time.NewTicker(careTime)
	defer idle.Stop()
	defer care.Stop()
	for running := true; ; {
		var err error
		select {
		case <-s.intake.wake:
			if err = s.serve(s.intake.take()); !running {
				running = true
				idle.Reset(s.log.cfg.IdleTime)
			}
		case <-idle.C:
			// To set it behind every group would cost more than to look again.
			if left := s.log.cfg.IdleTime - time.Since(s.last); left > 0 {
				idle.Reset(left)
			} else {
				running = false
				err = s.rest()
			}
		case <-care.C:
			err = s.freeze(false, false)
		case <-s.quit:
			err = s.finishUp()
			if err == nil {
				return
			}
		case <-s.failed:
			err = s.cause
		}
		if err != nil {
			s.fail(err)
			s.refuse()
			return
		}
	}
}

// refuse answers whatever waits with why the store has stopped.
func (s *store) refuse() {
	for {
		waiting := s.intake.take()
		if len(waiting) == 0 {
			return
		}
		for _, r := range waiting {
			r.finish(s.cause)
		}
	}
}

// finishUp serves what is left and leaves behind, forced, the testimony that everything is stable.
func (s *store) finishUp() error {
	for {
		left := s.intake.take()
		if len(left) == 0 {
			break
		}
		if err := s.serve(left); err != nil {
			return err
		}
	}
	if err := s.rest(); err != nil {
		return err
	}
	return s.sync()
}

// rest forces what was written without being forced, and testifies to what is stable with a seal
// that is not itself forced: without it, damage to the last group could not be told from a write
// that a crash interrupted.
func (s *store) rest() error {
	if s.seg.dirty() {
		if err := s.sync(); err != nil {
			return err
		}
	}
	if s.seg.sealed == s.seg.proven {
		return nil
	}
	return s.seg.seal(s.next, s.log.now(), s.salt)
}

func (s *store) sync() error {
	s.log.stats.syncs.Add(1)
	return s.seg.sync()
}

// serve forms, writes, applies and answers one group. When it fails, it has answered all of requests.
func (s *store) serve(requests []*request) error {
	if len(requests) == 0 {
		return nil
	}
	g := s.form(requests)
	err := s.failure()
	if err == nil {
		err = s.force(g)
	}
	if err == nil {
		err = s.apply(g.changes, g.seq, g.at)
	}
	if err != nil {
		s.fail(err)
		s.answer(g, s.cause)
		return err
	}
	s.answer(g, nil)
	s.last = time.Now()
	switch {
	case g.rotated:
		return s.freeze(true, true)
	case s.recent.active.full(maxGrowth):
		return s.freeze(true, false)
	case s.recent.active.full(1):
		return s.freeze(false, false)
	}
	return nil
}

// form sorts requests into those that make records and those that are told what stands. The group is
// valid until the next one is formed.
func (s *store) form(requests []*request) *group {
	g := &s.group
	clear(g.changes)
	clear(g.requests)
	clear(g.late)
	*g = group{seq: s.next, at: s.log.now(), changes: g.changes[:0], requests: g.requests[:0], late: g.late[:0]}
	clear(s.forming)
	for _, r := range requests {
		if r.decides() {
			id := r.changes[0].id
			if s.forming[id] {
				g.late = append(g.late, r)
				continue
			}
			if s.answerFromEntry(r) {
				continue
			}
			if len(requests) > 1 {
				s.forming[id] = true
			}
			r.changes[0].fresh = true
		}
		g.requests = append(g.requests, r)
		for i := range r.changes {
			g.changes = append(g.changes, &r.changes[i])
		}
		g.forced = g.forced || r.forced
	}
	return g
}

// answerFromEntry tells r, a decide, what stands. It reports whether there was anything to tell.
func (s *store) answerFromEntry(r *request) bool {
	stands, err := s.find(r.changes[0].id)
	if stands == nil && err == nil {
		return false
	}
	if err == nil {
		r.stands = clone(*stands)
	}
	r.finish(err)
	return true
}

// force writes the records of g. If one of them asks for it, or if something has been waiting for IdleTime
// because more keeps coming, it forces them and everything before.
func (s *store) force(g *group) error {
	if len(g.changes) == 0 {
		return nil
	}
	decisions := 0
	buf := append(s.buf[:0], make([]byte, groupHeaderSize)...)
	for _, c := range g.changes {
		buf = appendRecord(buf, c.record)
		if c.kind == decideRecord {
			decisions++
		}
	}
	if cap(buf) <= 2*maxGroupBytes {
		s.buf = buf
	}
	// An endGroup must fit behind it.
	if s.seg.off+int64(len(buf))+groupHeaderSize > s.seg.size && s.seg.off > groupsOffset {
		if err := s.rotate(); err != nil {
			return err
		}
		g.rotated = true
	}
	h := groupHeader{kind: recordGroup, count: len(g.changes), seq: s.next, at: g.at}
	dirty := s.seg.dirty()
	if err := s.seg.write(buf, h, s.salt); err != nil {
		return err
	}
	switch {
	case g.forced, dirty && time.Since(s.unforced) >= s.log.cfg.IdleTime:
		if err := s.sync(); err != nil {
			return err
		}
	case !dirty:
		s.unforced = time.Now()
	}
	s.next += uint64(len(g.changes))
	s.log.stats.groups.Add(1)
	s.log.stats.bytes.Add(uint64(len(buf)))
	s.log.stats.decisions.Add(uint64(decisions))
	return nil
}

// apply makes changes that were recorded from seq on at the time at visible.
func (s *store) apply(changes []*change, seq uint64, at int64) error {
	for {
		version := s.recent.version()
		loaded, err := s.load(changes)
		if err != nil {
			return err
		}
		if s.recent.apply(changes, seq, at, loaded, version) {
			return nil
		}
	}
}

// load returns what the index says of entries that are not recent and that changes may meet.
func (s *store) load(changes []*change) (loaded map[commit.TransactionID]*stored, err error) {
	for _, c := range changes {
		if c.fresh {
			continue
		}
		if _, elsewhere := s.recent.find(c.id); !elsewhere {
			continue
		}
		found, err := s.idx.get(c.id)
		if err != nil {
			return nil, err
		}
		if found == nil {
			continue
		}
		if loaded == nil {
			loaded = map[commit.TransactionID]*stored{}
		}
		loaded[c.id] = found
	}
	return loaded, nil
}

// answer tells the callers of g what has become of their requests.
func (s *store) answer(g *group, err error) {
	for _, r := range g.requests {
		if err != nil {
			r.finish(err)
		} else {
			r.finish(r.outcome())
		}
	}
	for _, r := range g.late {
		switch {
		case err != nil:
			r.finish(err)
		case !s.answerFromEntry(r):
			// Decided and forgotten in the same group.
			r.finish(fmt.Errorf("decide %q: %w", r.changes[0].id, decision.ErrNotFound))
		}
	}
}

// freeze leaves what the active generation holds to the index. When an earlier one is still on its way, it
// does nothing, or waits if it must.
func (s *store) freeze(must, flush bool) error {
	select {
	case <-s.free:
	default:
		if !must {
			return nil
		}
		select {
		case <-s.free:
		case <-s.failed:
			return s.cause
		}
	}
	s.jobs <- job{generation: s.recent.freeze(), at: s.log.now(), flush: flush}
	return nil
}

// rotate goes on in a new segment. The new file stands before the old one ends in an endGroup,
// and nothing is written to the new one before that is stable.
func (s *store) rotate() error {
	var sp spare
	select {
	case sp = <-s.spare:
	case <-s.failed:
		return s.cause
	}
	seg, err := sp.begin(s.fs, s.log, s.next)
	if err != nil {
		return err
	}
	end := groupHeader{kind: endGroup, seq: s.next, at: s.log.now()}
	err = s.seg.write(make([]byte, groupHeaderSize), end, s.salt)
	if err == nil {
		err = s.sync()
	}
	if cerr := s.seg.file.Close(); err == nil {
		err = cerr
	}
	s.seg = seg
	s.live.Lock()
	s.live.segments = append(s.live.segments, liveSegment{seg.path, seg.first})
	s.live.Unlock()
	s.prepareSpare()
	return err
}

// spare is a file of zeros that will be a segment.
type spare struct {
	path string
	size int64
	err  error
}

// prepareSpare makes the next segment's file in the background, because zeroing it takes a while.
func (s *store) prepareSpare() {
	s.spare = make(chan spare, 1)
	go func(to chan<- spare) {
		to <- makeSpare(s.fs, s.log)
		close(to)
	}(s.spare)
}

func makeSpare(fs vfs.FS, l *Log) spare {
	sp := spare{path: fs.PathJoin(l.segmentDir(), spareName), size: l.cfg.SegmentBytes}
	sp.err = sp.fill(fs)
	if sp.err != nil {
		sp.err = fmt.Errorf("make the next segment %s: %w", sp.path, sp.err)
	}
	return sp
}

// fill makes a file of zeros and forces it, so that writing into it later needs no space.
func (sp *spare) fill(fs vfs.FS) error {
	f, err := fs.Create(sp.path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	zeros := make([]byte, min(sp.size, 256<<10))
	for done := int64(0); err == nil && done < sp.size; done += int64(len(zeros)) {
		clear(zeros) // the file system may have changed them
		_, err = f.Write(zeros[:min(int64(len(zeros)), sp.size-done)])
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// begin turns the spare into the segment whose first record is first. The file has its name only
// when its header is stable.
func (sp *spare) begin(fs vfs.FS, l *Log, first uint64) (*segment, error) {
	if sp.err != nil {
		return nil, sp.err
	}
	path := fs.PathJoin(l.segmentDir(), segmentName(first))
	f, err := fs.OpenReadWrite(sp.path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteAt(encodeSegmentHeader(first, sp.size, l.owner), 0)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fs.Rename(sp.path, path)
	}
	if err == nil {
		err = syncDir(fs, l.segmentDir())
	}
	if err == nil {
		f, err = fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	}
	if err != nil {
		return nil, fmt.Errorf("begin the segment %s: %w", path, err)
	}
	return &segment{file: f, path: path, first: first, size: sp.size, off: groupsOffset,
		proven: groupsOffset, sealed: groupsOffset}, nil
}
