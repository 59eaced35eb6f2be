package disk

import (
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// write is the writing goroutine: it forms groups of what has come in, writes and forces them,
// and hands them on to be applied.
func (s *store) write() {
	defer s.stopped.Done()
	defer close(s.apply)
	idle, care := time.NewTimer(s.log.cfg.IdleTime), time.NewTicker(careTime)
	defer idle.Stop()
	defer care.Stop()
	for {
		var err error
		select {
		case <-s.intake.wake:
			err = s.serve(s.intake.take())
			idle.Reset(s.log.cfg.IdleTime)
		case <-idle.C:
			err = s.rest()
		case <-care.C:
			s.number++
			err = s.hand(&group{number: s.number, at: s.log.now()})
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

// serve forms, writes and hands on one group. When it fails, it has answered all of requests.
func (s *store) serve(requests []*request) error {
	if len(requests) == 0 {
		return nil
	}
	g := s.form(requests)
	err := s.failure()
	if err == nil {
		err = s.force(g)
	}
	if err != nil {
		s.fail(err)
		s.answer(g, s.cause)
		return err
	}
	if len(g.requests)+len(g.waiters) == 0 {
		return nil
	}
	return s.hand(g)
}

// hand passes g on to be applied. Where nobody waits for the next group, and the applying goroutine has
// nothing to do, g is applied here, and that goroutine need not be woken.
func (s *store) hand(g *group) error {
	if !g.flush && s.appliedGroup.Load() >= s.handed && s.intake.empty() && s.applying.TryLock() {
		defer s.applying.Unlock()
		s.applyGroup(g)
		return s.failure()
	}
	s.handed = g.number
	select {
	case s.apply <- g:
		return nil
	case <-s.failed:
		s.answer(g, s.cause)
		return s.cause
	}
}

// form sorts requests into those that make a record and those that are told what stands.
func (s *store) form(requests []*request) *group {
	s.number++
	g := &group{number: s.number, seq: s.next, at: s.log.now(), requests: make([]*request, 0, len(requests))}
	for _, r := range requests {
		if r.kind != decideRecord {
			g.requests = append(g.requests, r)
			continue
		}
		number, hit := s.recent.find(r.id)
		if hit && number > s.appliedGroup.Load() {
			g.waiters = append(g.waiters, r)
			continue
		}
		if hit || r.seen < s.recent.floor {
			found, err := s.idx.get(r.id)
			if found != nil || err != nil {
				if err != nil {
					r.finish(err)
				} else {
					s.answerFromIndex(r)
				}
				continue
			}
		}
		s.recent.add(r.id, s.number)
		g.requests = append(g.requests, r)
	}
	return g
}

// force writes the records of g and, if one of them asks for it, forces them and everything
// before.
func (s *store) force(g *group) error {
	if len(g.requests) == 0 {
		return nil
	}
	forced, decisions := false, 0
	buf := append(s.buf[:0], make([]byte, groupHeaderSize)...)
	for _, r := range g.requests {
		buf = appendRecord(buf, r.record)
		forced = forced || r.forced
		if r.kind == decideRecord {
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
		g.flush = true
	}
	h := groupHeader{kind: recordGroup, count: len(g.requests), seq: s.next, at: g.at}
	if err := s.seg.write(buf, h, s.salt); err != nil {
		return err
	}
	if forced {
		if err := s.sync(); err != nil {
			return err
		}
	}
	s.next += uint64(len(g.requests))
	s.log.stats.groups.Add(1)
	s.log.stats.bytes.Add(uint64(len(buf)))
	s.log.stats.decisions.Add(uint64(decisions))
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
