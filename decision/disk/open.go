package disk

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	iofs "io/fs"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/protocol/commit"
)

// The names in the directory of a log.
const (
	formatName    = "FORMAT"
	formatTemp    = "FORMAT.new"
	lockName      = "LOCK"
	indexName     = "index"
	segmentsName  = "segments"
	segmentSuffix = ".segment"
	spareName     = "spare"

	formatNumber = 1
)

func (l *Log) segmentDir() string { return l.fs.PathJoin(l.dir, segmentsName) }
func (l *Log) indexDir() string   { return l.fs.PathJoin(l.dir, indexName) }

func segmentName(first uint64) string { return fmt.Sprintf("%020d%s", first, segmentSuffix) }

// makeDir makes dir, for its owner's eyes only, and makes the making stable.
func makeDir(fs vfs.FS, dir string) error {
	if _, err := fs.Stat(dir); err == nil {
		return nil
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	return syncDir(fs, fs.PathDir(dir))
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err == nil {
		err = d.Sync()
		if cerr := d.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		return fmt.Errorf("force the directory %s: %w", dir, err)
	}
	return nil
}

func lockDir(fs vfs.FS, dir string) (io.Closer, error) {
	path := fs.PathJoin(dir, lockName)
	lock, err := fs.Lock(path)
	switch {
	case err == nil:
		return lock, nil
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EACCES) && !errors.Is(err, iofs.ErrPermission),
		strings.Contains(err.Error(), "lock held by current process"):
		return nil, fmt.Errorf("%w: %s is locked: %w", ErrLocked, path, err)
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// identify reads whose log this is, making a new log in an empty directory.
func (l *Log) identify() error {
	names, err := l.fs.List(l.dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", l.dir, err)
	}
	if slices.Contains(names, formatName) {
		path := l.fs.PathJoin(l.dir, formatName)
		text, err := readFile(l.fs, path)
		if err != nil {
			return err
		}
		l.owner, err = parseFormat(path, string(text))
		return err
	}
	for _, name := range names {
		if name != lockName && name != formatTemp && name != indexName && name != segmentsName {
			return fmt.Errorf("%w: %s holds %q and no %s", ErrForeign, l.dir, name, formatName)
		}
	}
	return l.create()
}

// newOwner draws a name of 26 letters and digits, 130 bits.
func newOwner(random io.Reader) (string, error) {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" // RFC 4648, base32
	var b [26]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("draw the owner's name: %w", err)
	}
	for i := range b {
		b[i] = letters[b[i]%32]
	}
	return string(b[:]), nil
}

// create makes a log. The file FORMAT comes last: a directory without it holds no decision.
func (l *Log) create() (err error) {
	if names, err := l.fs.List(l.segmentDir()); err == nil {
		for _, name := range names {
			if name != spareName && name != segmentName(1) {
				return &DamageError{Path: l.fs.PathJoin(l.dir, formatName), Offset: -1,
					Reason: "the file is gone, but there are segments"}
			}
		}
	}
	if l.owner, err = newOwner(l.cfg.Random); err != nil {
		return err
	}
	for _, dir := range []string{l.indexDir(), l.segmentDir()} {
		if err := l.fs.RemoveAll(dir); err != nil && !errors.Is(err, iofs.ErrNotExist) {
			return err
		}
		if err := makeDir(l.fs, dir); err != nil {
			return err
		}
	}
	idx, err := openIndex(newFence(l.fs), l.indexDir(), l.cfg.Logger, func(error) {})
	if err != nil {
		return err
	}
	if err := idx.close(); err != nil {
		return err
	}
	sp := makeSpare(l.fs, l)
	seg, err := sp.begin(l.fs, l, 1)
	if err != nil {
		return err
	}
	if err := seg.file.Close(); err != nil {
		return err
	}
	return l.writeFormat()
}

func (l *Log) writeFormat() error {
	temp, path := l.fs.PathJoin(l.dir, formatTemp), l.fs.PathJoin(l.dir, formatName)
	f, err := l.fs.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(formatText(l.owner)))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = l.fs.Rename(temp, path)
	}
	if err == nil {
		err = syncDir(l.fs, l.dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

const formatTitle = "assent decision log"

func formatText(owner string) string {
	text := fmt.Sprintf("%s\nformat %d\nowner %s\n", formatTitle, formatNumber, owner)
	return text + fmt.Sprintf("crc32c %08x\n", crc32.Checksum([]byte(text), castagnoli))
}

// parseFormat reads the file FORMAT. A newer format is reported as such even where the rest of
// the file has changed, its checksum too.
func parseFormat(path, text string) (owner string, err error) {
	lines := strings.Split(text, "\n")
	if number := statedFormat(lines); number > formatNumber {
		return "", fmt.Errorf("%w: %s says format %d, so a newer version of this program wrote it; this one knows up to %d",
			ErrFormat, path, number, formatNumber)
	}
	if len(lines) < 2 || lines[0] != formatTitle {
		return "", &DamageError{Path: path, Offset: 0, Reason: fmt.Sprintf("it begins with %.40q", text)}
	}
	if len(lines) == 5 {
		owner = strings.TrimPrefix(lines[2], "owner ")
	}
	if text != formatText(owner) {
		return "", &DamageError{Path: path, Offset: 0, Reason: errChecksum.Error()}
	}
	return owner, nil
}

// statedFormat returns the number of the format that the lines of a file FORMAT state: in the second line or,
// under another title of ours, at the end of the first. It is 0 where they state none.
func statedFormat(lines []string) uint64 {
	text, ok := strings.CutPrefix(lines[0], "assent log ")
	if !ok && len(lines) > 1 && lines[0] == formatTitle {
		text, ok = strings.CutPrefix(lines[1], "format ")
	}
	if number, err := strconv.ParseUint(text, 10, 32); ok && err == nil {
		return number
	}
	return 0
}

// openStore reads what the log holds, checks it, brings the index up to date with the segments
// and makes it stable, and begins a new segment.
func openStore(l *Log) (*store, error) {
	fs := newFence(l.fs)
	known, err := verifyIndex(fs, l.indexDir(), l.cfg.Logger)
	if err != nil {
		return nil, err
	}
	old, err := l.readSegments(known.applied)
	if err != nil {
		return nil, err
	}
	s := &store{
		log: l, fs: fs, ended: make(chan struct{}), quit: make(chan struct{}), failed: make(chan struct{}),
		recent: newRecent(known.census), intake: newIntake(), jobs: make(chan job, 1), free: make(chan struct{}, 1),
		salt: salt(l.owner), last: time.Now(), forming: map[commit.TransactionID]bool{},
	}
	s.free <- struct{}{}
	s.stopped.Add(1) // for whoever is opening it
	if s.idx, err = openIndex(fs, l.indexDir(), l.cfg.Logger, s.failIndex); err != nil {
		if !fs.raise(patience) {
			err = fmt.Errorf("%w; the disk has not answered for %v since then", err, patience)
		}
		return nil, err
	}
	s.idx.applied, s.idx.done, s.idx.oldest = known.applied, known.done, known.oldest
	if err := s.begin(old); err != nil {
		return nil, s.giveUp(err)
	}
	return s, nil
}

// giveUp releases a store that could not begin, because of err.
func (s *store) giveUp(err error) error {
	s.halt(err)
	s.stopped.Done()
	return errors.Join(err, s.close(patience))
}

// begin applies what the segments hold beyond the index, and replaces them by a new one.
func (s *store) begin(old *inventory) error {
	l := s.log
	for _, c := range old.contents {
		for _, g := range c.groups {
			if err := s.replay(g); err != nil {
				return err
			}
		}
	}
	if err := s.settle(job{generation: s.recent.freeze(), at: l.now()}); err != nil {
		return err
	}
	flushed, err := s.idx.flush()
	if err != nil {
		return err
	}
	select {
	case <-flushed:
	case <-s.failed:
		return s.cause
	}
	if up, err := s.idx.flushedUpTo(); err != nil || up != s.idx.applied {
		return fmt.Errorf("index holds %d after a flush of up to %d: %w", up, s.idx.applied, errors.Join(err, s.failure()))
	}
	s.next = s.idx.applied + 1
	sp := makeSpare(s.fs, l)
	seg, err := sp.begin(s.fs, l, s.next)
	if err != nil {
		return err
	}
	s.seg = seg
	s.live.segments = []liveSegment{{seg.path, seg.first}}
	for _, path := range old.paths {
		if path == seg.path {
			continue // it was empty, and the new one took its name
		}
		if err := s.fs.Remove(path); err != nil {
			return err
		}
	}
	return syncDir(s.fs, l.segmentDir())
}

// replay applies those records of g that the index does not have yet. Nothing is retired before all are
// applied, lest a note that was taken finds no entry.
func (s *store) replay(g replayed) error {
	var changes []*change
	seq := g.seq
	for i, r := range g.records {
		if g.seq+uint64(i) <= s.idx.applied {
			seq++
			continue
		}
		c := &change{record: r}
		if err := c.parse(); err != nil {
			return &DamageError{Path: s.log.segmentDir(), Offset: -1, Key: string(r.id), Reason: fmt.Sprintf(
				"record %d: %v", g.seq+uint64(i), err), Err: err}
		}
		changes = append(changes, c)
	}
	if err := s.apply(changes, seq, g.at); err != nil {
		return err
	}
	if s.recent.active.full(1) {
		return s.put(s.recent.freeze())
	}
	return nil
}

// inventory is what the segments hold that the index may lack.
type inventory struct {
	paths    []string // of all segments
	contents []*contents
}

// readSegments reads the segments from the first that holds records after applied, and checks
// that they follow each other without a gap.
func (l *Log) readSegments(applied uint64) (*inventory, error) {
	names, err := l.fs.List(l.segmentDir())
	if err != nil {
		return nil, &DamageError{Path: l.segmentDir(), Offset: -1, Reason: err.Error(), Err: err}
	}
	slices.Sort(names)
	v := &inventory{}
	var firsts []uint64
	for _, name := range names {
		path := l.fs.PathJoin(l.segmentDir(), name)
		number, isSegment := strings.CutSuffix(name, segmentSuffix)
		if !isSegment {
			if name != spareName {
				return nil, fmt.Errorf("%w: %s does not belong there", ErrForeign, path)
			}
			continue
		}
		first, err := strconv.ParseUint(number, 10, 64)
		if err != nil || segmentName(first) != name {
			return nil, fmt.Errorf("%w: %s does not belong there", ErrForeign, path)
		}
		v.paths, firsts = append(v.paths, path), append(firsts, first)
	}
	start := -1
	for i, first := range firsts {
		if first <= applied+1 {
			start = i
		}
	}
	if start < 0 {
		return nil, &DamageError{Path: l.segmentDir(), Offset: -1, Reason: fmt.Sprintf(
			"the index holds the records up to %d, but the segment that goes on with record %d is not there",
			applied, applied+1)}
	}
	for i := start; i < len(firsts); i++ {
		if err := v.read(l, v.paths[i], firsts[i]); err != nil {
			return nil, err
		}
	}
	if last := v.contents[len(v.contents)-1]; last.ended {
		return nil, &DamageError{Path: last.path, Offset: last.end, Reason: fmt.Sprintf(
			"the log goes on with record %d in a segment that is not there", last.next)}
	}
	return v, nil
}

// read reads one more segment.
func (v *inventory) read(l *Log, path string, first uint64) error {
	c, err := readSegment(l.fs, path, l.owner)
	if err != nil {
		return err
	}
	if c.first != first {
		return &DamageError{Path: path, Offset: 0, Reason: fmt.Sprintf("the file begins with record %d", c.first)}
	}
	if n := len(v.contents); n > 0 {
		before := v.contents[n-1]
		if !before.ended {
			if len(c.groups) > 0 {
				return &DamageError{Path: before.path, Offset: before.end, Reason: fmt.Sprintf(
					"no group can be read here, but the log goes on in %s", path)}
			}
			return nil // a crash fell between the making of this file and the end of the other
		}
		if c.first != before.next {
			return &DamageError{Path: path, Offset: 0, Reason: fmt.Sprintf(
				"it begins with record %d where record %d belongs", c.first, before.next)}
		}
	}
	v.contents = append(v.contents, c)
	return nil
}
