package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A segment file is a header and then groups of records, each written by one write and forced by
// one sync. The file is made of zeros first, so that forcing a group changes no metadata of the
// file system and needs no space. See docs/format/decision-log.md.
const (
	segmentMagic      = "assentDL"
	segmentVersion    = 1
	segmentHeaderSize = 72
	sealOffset        = 512  // of the first of two seals, each in a sector of its own
	groupsOffset      = 4096 // of the first group
	groupHeaderSize   = 56
	maxOwner          = 32
)

var groupMagic = []byte("AGrp")

// groupKind says what a group is for.
type groupKind byte

const (
	// recordGroup holds records.
	recordGroup groupKind = iota + 1
	// endGroup is empty: the log goes on in the segment whose first record is the next one.
	endGroup
	// seal is empty and stands in one of two fixed places at the beginning of the file, far from
	// what it speaks of: it only testifies that everything below its proven offset was stable.
	seal
)

// groupHeader precedes a group's records.
type groupHeader struct {
	kind    groupKind
	length  int // of the records, in bytes
	count   int // of the records
	segment uint64
	seq     uint64 // of the first record, or of the one that would come next
	proven  int64  // everything below this offset was stable when the group was written
	at      int64  // Unix milliseconds by the log's clock
}

// salt binds every checksum to the log's owner.
func salt(owner string) uint32 { return crc32.Checksum([]byte(owner), castagnoli) }

func encodeSegmentHeader(first uint64, size int64, owner string) []byte {
	b := make([]byte, segmentHeaderSize)
	copy(b, segmentMagic)
	binary.BigEndian.PutUint32(b[8:], segmentVersion)
	copy(b[16:16+maxOwner], owner)
	binary.BigEndian.PutUint64(b[48:], first)
	binary.BigEndian.PutUint64(b[56:], uint64(size))
	binary.BigEndian.PutUint32(b[68:], crc32.Checksum(b[:68], castagnoli))
	return b
}

func decodeSegmentHeader(b []byte, owner string) (first uint64, size int64, err error) {
	switch {
	case len(b) < segmentHeaderSize:
		return 0, 0, fmt.Errorf("file of %d bytes is too short for its header", len(b))
	case string(b[:8]) != segmentMagic:
		return 0, 0, fmt.Errorf("header begins with %q", b[:8])
	case binary.BigEndian.Uint32(b[68:]) != crc32.Checksum(b[:68], castagnoli):
		return 0, 0, fmt.Errorf("header: %w", errChecksum)
	case binary.BigEndian.Uint32(b[8:]) != segmentVersion:
		return 0, 0, fmt.Errorf("segment version %d is not known", binary.BigEndian.Uint32(b[8:]))
	}
	if got := string(bytes.TrimRight(b[16:16+maxOwner], "\x00")); got != owner {
		return 0, 0, fmt.Errorf("segment is of the log %q", got)
	}
	return binary.BigEndian.Uint64(b[48:]), int64(binary.BigEndian.Uint64(b[56:])), nil
}

// putGroupHeader writes h into the first groupHeaderSize bytes of group, whose rest are the
// records.
func putGroupHeader(group []byte, h groupHeader, salt uint32) {
	copy(group, groupMagic)
	binary.BigEndian.PutUint32(group[8:], uint32(h.length))
	binary.BigEndian.PutUint32(group[12:], uint32(h.kind))
	binary.BigEndian.PutUint32(group[16:], uint32(h.count))
	binary.BigEndian.PutUint32(group[20:], 0)
	binary.BigEndian.PutUint64(group[24:], h.segment)
	binary.BigEndian.PutUint64(group[32:], h.seq)
	binary.BigEndian.PutUint64(group[40:], uint64(h.proven))
	binary.BigEndian.PutUint64(group[48:], uint64(h.at))
	binary.BigEndian.PutUint32(group[4:], crc32.Update(salt, castagnoli, group[8:]))
}

// decodeGroup reads the group at the beginning of data. ok is false for anything that is not a
// whole group of this segment and this log.
func decodeGroup(data []byte, segment uint64, salt uint32) (h groupHeader, records []byte, ok bool) {
	if len(data) < groupHeaderSize || !bytes.Equal(data[:4], groupMagic) {
		return h, nil, false
	}
	h = groupHeader{
		length:  int(binary.BigEndian.Uint32(data[8:])),
		kind:    groupKind(binary.BigEndian.Uint32(data[12:])),
		count:   int(binary.BigEndian.Uint32(data[16:])),
		segment: binary.BigEndian.Uint64(data[24:]),
		seq:     binary.BigEndian.Uint64(data[32:]),
		proven:  int64(binary.BigEndian.Uint64(data[40:])),
		at:      int64(binary.BigEndian.Uint64(data[48:])),
	}
	end := groupHeaderSize + h.length
	if h.segment != segment || end > len(data) ||
		binary.BigEndian.Uint32(data[4:]) != crc32.Update(salt, castagnoli, data[8:end]) {
		return h, nil, false
	}
	return h, data[groupHeaderSize:end], true
}

// replayed is a group read from a segment.
type replayed struct {
	seq     uint64
	at      int64
	records []record
}

// contents is what a segment file holds.
type contents struct {
	path   string
	first  uint64 // the sequence number of its first record
	next   uint64 // and of the record after its last
	end    int64  // the offset after the last whole group
	ended  bool   // an endGroup was read
	groups []replayed
}

// readSegment reads a segment file. A last group that is not whole, and of which nothing in the
// file testifies that it was ever stable, is a torn tail: it is left out. Anything else that does
// not fit is a *DamageError.
func readSegment(fs vfs.FS, path, owner string) (*contents, error) {
	data, err := readFile(fs, path)
	if err != nil {
		return nil, err
	}
	return readBytes(path, data, owner)
}

// readBytes is readSegment for a file that holds data.
func readBytes(path string, data []byte, owner string) (*contents, error) {
	first, size, err := decodeSegmentHeader(data, owner)
	if err != nil {
		return nil, &DamageError{Path: path, Offset: 0, Reason: err.Error()}
	}
	if int64(len(data)) < max(size, groupsOffset) {
		return nil, &DamageError{Path: path, Offset: int64(len(data)),
			Reason: fmt.Sprintf("the file ends here but was made with %d bytes", size)}
	}
	c := &contents{path: path, first: first, next: first, end: groupsOffset}
	s := salt(owner)
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
func (c *contents) add(h groupHeader, body []byte) error {
	if h.seq != c.next {
		return fmt.Errorf("record %d stands where record %d belongs", h.seq, c.next)
	}
	switch h.kind {
	case recordGroup:
		records, err := decodeRecords(body, h.count)
		if err != nil {
			return err
		}
		c.groups = append(c.groups, replayed{seq: h.seq, at: h.at, records: records})
		c.next += uint64(len(records))
	case endGroup:
		c.ended = true
	default:
		return fmt.Errorf("group kind %d does not exist", h.kind)
	}
	c.end += groupHeaderSize + int64(h.length)
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

func readFile(fs vfs.FS, path string) ([]byte, error) {
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

// segment is the file that is being written.
type segment struct {
	file   vfs.File
	path   string
	first  uint64
	size   int64 // with which it was made
	off    int64 // where the next group goes
	proven int64 // everything below is stable
	sealed int64 // what the last seal testifies
	seals  int64 // how many were written
}

// dirty reports whether something was written that is not forced.
func (g *segment) dirty() bool { return g.proven < g.off }

// write writes a group and does not force it.
func (g *segment) write(group []byte, h groupHeader, salt uint32) error {
	h.segment, h.proven, h.length = g.first, g.proven, len(group)-groupHeaderSize
	putGroupHeader(group, h, salt)
	if _, err := g.file.WriteAt(group, g.off); err != nil {
		return fmt.Errorf("write %d bytes at byte %d of %s: %w", len(group), g.off, g.path, err)
	}
	g.off += int64(len(group))
	return nil
}

// seal writes a seal and does not force it. The two places take turns, so that one is whole while
// the other is being written.
func (g *segment) seal(seq uint64, at int64, salt uint32) error {
	b := make([]byte, groupHeaderSize)
	putGroupHeader(b, groupHeader{kind: seal, segment: g.first, seq: seq, proven: g.proven, at: at}, salt)
	if _, err := g.file.WriteAt(b, sealOffset*(1+g.seals%2)); err != nil {
		return fmt.Errorf("write a seal of %s: %w", g.path, err)
	}
	g.sealed = g.proven
	g.seals++
	return nil
}

// sync forces everything written.
func (g *segment) sync() error {
	if err := g.file.SyncData(); err != nil {
		return fmt.Errorf("force %s: %w", g.path, err)
	}
	g.proven = g.off
	return nil
}
