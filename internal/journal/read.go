package journal

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// DamageError says that what the journal holds is not what was written.
type DamageError struct {
	// Path is the file or the directory.
	Path string
	// Offset is the place in the file, in bytes; -1 where it is not known.
	Offset int64
	// Reason says what was found.
	Reason string
	// Err is the cause. It may be nil.
	Err error
}

// Error returns the place and what was found there.
func (e *DamageError) Error() string {
	text := "damage in " + e.Path
	if e.Offset >= 0 {
		text += fmt.Sprintf(" at byte %d", e.Offset)
	}
	return text + ": " + e.Reason
}

// Unwrap returns the cause.
func (e *DamageError) Unwrap() error { return e.Err }

// Group is a group of records that was written together.
type Group struct {
	// Seq is the number of its first record, Count how many there are.
	Seq   uint64
	Count int
	// At is when it was written, in Unix milliseconds by the owner's clock.
	At int64
	// Records are the records as they were given to Journal.Write.
	Records []byte
	// Path and Offset are where it stands.
	Path   string
	Offset int64
	// Segment is the number of the first record in the group's segment.
	Segment uint64
}

// Damage returns an error that says that the group's records cannot be understood, and why.
func (g Group) Damage(err error) error {
	return &DamageError{Path: g.Path, Offset: g.Offset, Reason: err.Error(), Err: err}
}

// Contents are what the segments of a directory hold.
type Contents struct {
	// Groups are the groups from the one that was asked for on, in order.
	Groups []Group
	// First and Next are the number of the first record that is there, and of the one after the last.
	First, Next uint64
	// Segments are the segments that were read: the numbers of their first records.
	Segments []uint64
	paths    []string // of all segments, also of those before
	files    []*file  // that follow each other
}

// file is what one segment holds.
type file struct {
	path   string
	first  uint64 // the number of its first record
	next   uint64 // and of the record after its last
	end    int64  // the offset after the last whole group
	ended  bool   // an endGroup was read
	groups []Group
}

// readBytes reads a segment that holds data. A last group that is not whole, and of which nothing in
// the file testifies that it was ever stable, is a torn tail: it is left out. Anything else that does
// not fit is a *DamageError.
func readBytes(path string, data []byte, format Format) (*file, error) {
	first, size, err := format.decodeHeader(data)
	if err != nil {
		return nil, &DamageError{Path: path, Offset: 0, Reason: err.Error()}
	}
	if int64(len(data)) < max(size, groupsOffset) {
		return nil, &DamageError{Path: path, Offset: int64(len(data)),
			Reason: fmt.Sprintf("the file ends here but was made with %d bytes", size)}
	}
	c := &file{path: path, first: first, next: first, end: groupsOffset}
	s := format.salt()
	for c.end <= int64(len(data)) {
		h, body, ok := decodeGroup(data[c.end:], first, s)
		if !ok {
			break
		}
		if err := c.add(h, body); err != nil {
			return nil, &DamageError{Path: path, Offset: c.end, Reason: err.Error()}
		}
		if c.ended {
			return c, nil
		}
	}
	for i := range int64(2) {
		at := sealOffset * (i + 1)
		if h, _, ok := decodeGroup(data[at:groupsOffset], first, s); ok && h.kind == seal && h.proven > c.end {
			return nil, &DamageError{Path: path, Offset: c.end, Reason: fmt.Sprintf(
				"no group can be read here, but the seal at byte %d testifies that %d bytes were stable", at, h.proven)}
		}
	}
	if at, found := findProof(data, c.end, first, s); found {
		return nil, &DamageError{Path: path, Offset: c.end, Reason: fmt.Sprintf(
			"no group can be read here, but the one at byte %d testifies that this place was stable", at)}
	}
	return c, nil
}

// add takes a group that was read at c.end.
func (c *file) add(h groupHeader, body []byte) error {
	if h.seq != c.next {
		return fmt.Errorf("record %d stands where record %d belongs", h.seq, c.next)
	}
	switch h.kind {
	case recordGroup:
		c.groups = append(c.groups, Group{Seq: h.seq, Count: h.count, At: h.at, Records: body,
			Path: c.path, Offset: c.end, Segment: c.first})
		c.next += uint64(h.count)
	case endGroup:
		c.ended = true
	default:
		return fmt.Errorf("group kind %d does not exist", h.kind)
	}
	c.end += GroupHeader + int64(h.length)
	return nil
}

// findProof looks behind the offset bad for a whole group that testifies that bad was stable.
func findProof(data []byte, bad int64, segment uint64, salt uint32) (at int64, found bool) {
	for at = bad + 1; at < int64(len(data)); at++ {
		i := bytes.Index(data[at:], groupMagic)
		if i < 0 {
			return 0, false
		}
		at += int64(i)
		if h, _, ok := decodeGroup(data[at:], segment, salt); ok && h.proven > bad {
			return at, true
		}
	}
	return 0, false
}

// ReadFile returns what the file at path holds.
func ReadFile(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, nil
}

// Read reads the segments in dir from the one that holds the record from, and checks that they follow
// each other without a gap. A last group that a crash tore, of which nothing testifies that it was
// ever stable, is left out. Anything else that does not fit is a *DamageError with its place, and a
// file that is none of a journal's an error that wraps ErrForeign. Where from is zero all are read.
func Read(fs vfs.FS, dir string, format Format, from uint64) (*Contents, error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, &DamageError{Path: dir, Offset: -1, Reason: err.Error(), Err: err}
	}
	slices.Sort(names)
	c := &Contents{}
	var firsts []uint64
	for _, name := range names {
		path := fs.PathJoin(dir, name)
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
		c.paths, firsts = append(c.paths, path), append(firsts, first)
	}
	start := -1
	for i, first := range firsts {
		if first <= from || from == 0 && i == 0 {
			start = i
		}
	}
	if start < 0 {
		return nil, &DamageError{Path: dir, Offset: -1, Reason: fmt.Sprintf(
			"the segment that holds record %d is not there", max(from, 1))}
	}
	var last *file
	for i := start; i < len(firsts); i++ {
		if last, err = c.read(fs, c.paths[i], firsts[i], format, last); err != nil {
			return nil, err
		}
	}
	if last.ended {
		return nil, &DamageError{Path: last.path, Offset: last.end, Reason: fmt.Sprintf(
			"the log goes on with record %d in a segment that is not there", last.next)}
	}
	c.First, c.Next = firsts[start], last.next
	for _, f := range c.files {
		c.Segments = append(c.Segments, f.first)
	}
	return c, nil
}

// read reads one more segment, which follows before.
func (c *Contents) read(fs vfs.FS, path string, first uint64, format Format, before *file) (*file, error) {
	data, err := ReadFile(fs, path)
	if err != nil {
		return nil, err
	}
	f, err := readBytes(path, data, format)
	if err != nil {
		return nil, err
	}
	if f.first != first {
		return nil, &DamageError{Path: path, Offset: 0, Reason: fmt.Sprintf("the file begins with record %d", f.first)}
	}
	if before != nil {
		if !before.ended {
			if len(f.groups) > 0 {
				return nil, &DamageError{Path: before.path, Offset: before.end, Reason: fmt.Sprintf(
					"no group can be read here, but the log goes on in %s", path)}
			}
			return before, nil // a crash fell between the making of this file and the end of the other
		}
		if f.first != before.next {
			return nil, &DamageError{Path: path, Offset: 0, Reason: fmt.Sprintf(
				"it begins with record %d where record %d belongs", f.first, before.next)}
		}
	}
	c.Groups = append(c.Groups, f.groups...)
	c.files = append(c.files, f)
	return f, nil
}
