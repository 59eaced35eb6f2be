package journal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A segment file is a header and then groups of records, each written by one write and forced by
// one sync. The file is made of zeros first, so that forcing a group changes no metadata of the
// file system and needs no space. See docs/format/decision-log.md.
const (
	segmentVersion = 1
	headerSize     = 72
	sealOffset     = 512  // of the first of two seals, each in a sector of its own
	groupsOffset   = 4096 // of the first group
	maxOwner       = 32

	// GroupHeader is the number of bytes that a caller of Journal.Write leaves free before its
	// records.
	GroupHeader = 56
)

var groupMagic = []byte("AGrp")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Format tells the segments of one user and owner from all others.
type Format struct {
	// Magic are the first eight bytes of every segment.
	Magic string
	// Owner names whose journal it is, in at most 32 bytes. Every checksum is bound to it.
	Owner string
}

// groupKind says what a group is for.
type groupKind byte

const (
	// recordGroup holds records.
	recordGroup groupKind = iota + 1
	// endGroup is empty: the journal goes on in the segment whose first record is the next one.
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
	at      int64  // Unix milliseconds by the owner's clock
}

// salt binds every checksum to the owner.
func (f Format) salt() uint32 { return crc32.Checksum([]byte(f.Owner), castagnoli) }

func (f Format) encodeHeader(first uint64, size int64) []byte {
	b := make([]byte, headerSize)
	copy(b, f.Magic)
	binary.BigEndian.PutUint32(b[8:], segmentVersion)
	copy(b[16:16+maxOwner], f.Owner)
	binary.BigEndian.PutUint64(b[48:], first)
	binary.BigEndian.PutUint64(b[56:], uint64(size))
	binary.BigEndian.PutUint32(b[68:], crc32.Checksum(b[:68], castagnoli))
	return b
}

func (f Format) decodeHeader(b []byte) (first uint64, size int64, err error) {
	switch {
	case len(b) < headerSize:
		return 0, 0, fmt.Errorf("file of %d bytes is too short for its header", len(b))
	case string(b[:8]) != f.Magic:
		return 0, 0, fmt.Errorf("header begins with %q", b[:8])
	case binary.BigEndian.Uint32(b[68:]) != crc32.Checksum(b[:68], castagnoli):
		return 0, 0, fmt.Errorf("header: checksum does not match")
	case binary.BigEndian.Uint32(b[8:]) != segmentVersion:
		return 0, 0, fmt.Errorf("segment version %d is not known", binary.BigEndian.Uint32(b[8:]))
	}
	if got := string(bytes.TrimRight(b[16:16+maxOwner], "\x00")); got != f.Owner {
		return 0, 0, fmt.Errorf("segment is of the log %q", got)
	}
	return binary.BigEndian.Uint64(b[48:]), int64(binary.BigEndian.Uint64(b[56:])), nil
}

// putGroupHeader writes h into the first GroupHeader bytes of group, whose rest are the records.
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
// whole group of this segment and this owner.
func decodeGroup(data []byte, segment uint64, salt uint32) (h groupHeader, records []byte, ok bool) {
	if len(data) < GroupHeader || !bytes.Equal(data[:4], groupMagic) {
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
	end := GroupHeader + h.length
	if h.segment != segment || end > len(data) ||
		binary.BigEndian.Uint32(data[4:]) != crc32.Update(salt, castagnoli, data[8:end]) {
		return h, nil, false
	}
	return h, data[GroupHeader:end], true
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

// write writes a group and does not force it.
func (g *segment) write(group []byte, h groupHeader, salt uint32) error {
	h.segment, h.proven, h.length = g.first, g.proven, len(group)-GroupHeader
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
	b := make([]byte, GroupHeader)
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
