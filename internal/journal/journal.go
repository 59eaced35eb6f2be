// Package journal writes records to files that many callers force together: segments of groups,
// each group with a checksum, a number and a testimony of what was stable before it.
//
// The package promises that whatever was forced is read again after any crash of the process or the
// machine, in order and without a gap; that a group which a crash tore is left out only where nothing
// testifies that it was ever stable; and that any other damage is reported with its place. It does not
// say what the records mean, does not share itself between goroutines, and does not survive the loss
// of the disk. After an error nothing more may be written: read again and begin anew.
package journal

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Config says where a journal is kept. All fields are required.
type Config struct {
	FS     vfs.FS
	Dir    string
	Format Format
	// SegmentBytes is the size of the files.
	SegmentBytes int64
	// Stop, when it is closed, ends a Write that waits for the next file to be made.
	Stop <-chan struct{}
}

// Journal is a journal that is being written. Its methods are for one goroutine at a time.
type Journal struct {
	cfg   Config
	salt  uint32
	seg   *segment
	spare chan spare
	next  uint64
}

// Begin begins a journal in a new segment whose first record has the number next. Where Read has found
// something, call Remove before the first Write, or Resume in place of Begin.
func Begin(cfg Config, next uint64) (*Journal, error) {
	j := &Journal{cfg: cfg, salt: cfg.Format.salt(), next: next}
	sp := makeSpare(cfg)
	seg, err := sp.begin(cfg, next, nil)
	if err != nil {
		return nil, err
	}
	j.seg = seg
	return j, nil
}

// Prepare begins to make the next segment's file in the background, because zeroing it takes a while.
func (j *Journal) Prepare() {
	if j.spare != nil {
		return
	}
	j.spare = make(chan spare, 1)
	go func(to chan<- spare) { to <- makeSpare(j.cfg) }(j.spare)
}

// Remove removes the segments that c was read from, but for the one that is being written.
func (j *Journal) Remove(c *Contents) error {
	for _, path := range c.paths {
		if path == j.seg.path {
			continue // it was empty, and the new one took its name
		}
		if err := j.cfg.FS.Remove(path); err != nil {
			return err
		}
	}
	return SyncDir(j.cfg.FS, j.cfg.Dir)
}

// Resume goes on with what c was read from. What a failed sync may have left in memory alone, although it
// can be read, is written again to a new file, and a tail that was torn is left out; the new file then
// takes the old one's place, and what is written next goes behind.
func Resume(cfg Config, c *Contents) (*Journal, error) {
	j := &Journal{cfg: cfg, salt: cfg.Format.salt(), next: c.Next}
	files := c.files[len(c.files)-1:]
	if len(files[0].groups) == 0 && len(c.files) > 1 {
		files = c.files[len(c.files)-2:] // its end may not be stable either
	}
	for i, f := range files {
		seg, err := j.rewrite(f)
		if err != nil {
			return nil, err
		}
		if i < len(files)-1 {
			if err := seg.file.Close(); err != nil {
				return nil, err
			}
			continue
		}
		j.seg = seg
	}
	for _, path := range c.paths {
		if path > j.seg.path { // a crash fell between the making of it and its first use
			if err := cfg.FS.Remove(path); err != nil {
				return nil, errors.Join(err, j.seg.file.Close())
			}
		}
	}
	return j, SyncDir(cfg.FS, cfg.Dir)
}

// rewrite makes a segment anew, with the same groups.
func (j *Journal) rewrite(f *file) (*segment, error) {
	sp := makeSpare(j.cfg)
	return sp.begin(j.cfg, f.first, func(seg *segment) error {
		for _, g := range f.groups {
			h := groupHeader{kind: recordGroup, count: g.Count, seq: g.Seq, at: g.At}
			if err := seg.write(append(make([]byte, GroupHeader), g.Records...), h, j.salt); err != nil {
				return err
			}
		}
		if !f.ended {
			return nil
		}
		return seg.write(make([]byte, GroupHeader), groupHeader{kind: endGroup, seq: f.next}, j.salt)
	})
}

// Next returns the number of the record that is written next.
func (j *Journal) Next() uint64 { return j.next }

// Segment returns the number of the first record in the segment that is being written: its name.
func (j *Journal) Segment() uint64 { return j.seg.first }

// Dirty reports whether something was written that is not forced.
func (j *Journal) Dirty() bool { return j.seg.proven < j.seg.off }

// Write writes count records, which stand in group behind GroupHeader bytes that are free for Write
// to use, at the time at (Unix milliseconds). It does not force them. Where the segment is full it
// goes on in a new one, and says so; everything in the old one is then stable.
func (j *Journal) Write(group []byte, count int, at int64) (rotated bool, err error) {
	// The group that ends the segment must fit behind it.
	if j.seg.off+int64(len(group))+GroupHeader > j.seg.size && j.seg.off > groupsOffset {
		if err := j.rotate(at); err != nil {
			return false, err
		}
		rotated = true
	}
	h := groupHeader{kind: recordGroup, count: count, seq: j.next, at: at}
	if err := j.seg.write(group, h, j.salt); err != nil {
		return rotated, err
	}
	j.next += uint64(count)
	return rotated, nil
}

// Sync forces everything written.
func (j *Journal) Sync() error { return j.seg.sync() }

// Rest forces what was written without being forced, and testifies to what is stable with a seal that
// is not itself forced: without it, damage to the last group could not be told from a write that a
// crash interrupted.
func (j *Journal) Rest(at int64) error {
	if j.Dirty() {
		if err := j.Sync(); err != nil {
			return err
		}
	}
	if j.seg.sealed == j.seg.proven {
		return nil
	}
	return j.seg.seal(j.next, at, j.salt)
}

// Drop removes the segment whose first record has the number first.
func (j *Journal) Drop(first uint64) error {
	return j.cfg.FS.Remove(j.cfg.FS.PathJoin(j.cfg.Dir, segmentName(first)))
}

// Close releases the files. It forces nothing.
func (j *Journal) Close() error {
	err := j.seg.file.Close()
	if j.spare != nil {
		if sp := <-j.spare; sp.path != "" {
			_ = j.cfg.FS.Remove(sp.path) // whoever begins anew makes another in its place
		}
		j.spare = nil
	}
	return err
}

// rotate goes on in a new segment. The new file stands before the old one ends in an endGroup,
// and nothing is written to the new one before that is stable.
func (j *Journal) rotate(at int64) error {
	j.Prepare()
	var sp spare
	select {
	case sp = <-j.spare:
		j.spare = nil
	case <-j.cfg.Stop:
		return fmt.Errorf("begin a segment of %s: stopped", j.cfg.Dir)
	}
	seg, err := sp.begin(j.cfg, j.next, nil)
	if err != nil {
		return err
	}
	end := groupHeader{kind: endGroup, seq: j.next, at: at}
	err = j.seg.write(make([]byte, GroupHeader), end, j.salt)
	if err == nil {
		err = j.seg.sync()
	}
	if cerr := j.seg.file.Close(); err == nil {
		err = cerr
	}
	j.seg = seg
	j.Prepare()
	return err
}

// spare is a file of zeros that will be a segment.
type spare struct {
	path string
	size int64
	err  error
}

func makeSpare(cfg Config) spare {
	sp := spare{path: cfg.FS.PathJoin(cfg.Dir, spareName), size: cfg.SegmentBytes}
	sp.err = sp.fill(cfg.FS)
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
// when its header, and what fill writes, is stable.
func (sp *spare) begin(cfg Config, first uint64, fill func(*segment) error) (*segment, error) {
	if sp.err != nil {
		return nil, sp.err
	}
	fs := cfg.FS
	path := fs.PathJoin(cfg.Dir, segmentName(first))
	seg := &segment{path: path, first: first, size: sp.size, off: groupsOffset, proven: groupsOffset, sealed: groupsOffset}
	f, err := fs.OpenReadWrite(sp.path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteAt(cfg.Format.encodeHeader(first, sp.size), 0)
	if err == nil && fill != nil {
		seg.file = f
		err = fill(seg)
	}
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
		err = SyncDir(fs, cfg.Dir)
	}
	if err == nil {
		seg.file, err = fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	}
	if err != nil {
		return nil, fmt.Errorf("begin the segment %s: %w", path, err)
	}
	seg.proven = seg.off
	return seg, nil
}
