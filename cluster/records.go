package cluster

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/internal/journal"
	"assent/protocol"
)

// records is the stable storage of a node's membership machine: a small map of keys to records, kept in a
// journal. Its layout is described in docs/format/membership.md. Of its methods force and close are safe
// for concurrent use.
type records struct {
	cfg     recordsConfig
	lock    io.Closer
	storage string // its name, drawn when it was made
	journal *journal.Journal

	values   map[string][]byte // what the codec made of each record
	bytes    int               // of values and their keys
	written  int               // since all was written in one
	segments []uint64          // the numbers of their first records
	group    []byte

	mu     sync.Mutex // held by force and close
	failed error
}

// recordsConfig says where records are kept, and whose they are.
type recordsConfig struct {
	fs    vfs.FS
	dir   string
	owner string
	node  protocol.NodeID
	codec *protocol.Codec
	// remains names what else the node has kept, if it is still there: then a directory that is empty is
	// one that was lost.
	remains string
}

const (
	recordsMagic   = "assentMR"
	recordsSegment = 1 << 20
	// recordsSlack is how many bytes are written, beyond twice those that count, before all is written
	// in one and the segments before are dropped.
	recordsSlack = 256 << 10
)

// The kinds of a journal's record.
const (
	someRecords = 1 // changes what was before
	allRecords  = 2 // takes its place
)

// openRecords opens the records in a directory, and makes them where it is empty.
func openRecords(cfg recordsConfig) (r *records, err error) {
	for _, dir := range []string{cfg.fs.PathDir(cfg.dir), cfg.dir} { // the names of both are stable then
		if err := journal.MakeDir(cfg.fs, dir); err != nil {
			return nil, err
		}
	}
	lock, err := journal.Lock(cfg.fs, cfg.fs.PathJoin(cfg.dir, lockName))
	if err != nil {
		return nil, err
	}
	r = &records{cfg: cfg, lock: lock, values: map[string][]byte{}, group: make([]byte, journal.GroupHeader, 4<<10)}
	if r.storage, err = r.identify(); err == nil {
		err = r.read()
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return r, nil
}

func (r *records) path(name string) string { return r.cfg.fs.PathJoin(r.cfg.dir, name) }

func (r *records) journalConfig(storage string) journal.Config {
	return journal.Config{FS: r.cfg.fs, Dir: r.path(segmentsName),
		Format: journal.Format{Magic: recordsMagic, Owner: storage}, SegmentBytes: recordsSegment}
}

// create makes an empty storage. The file FORMAT comes last: a directory without it holds nothing that was
// ever relied on, unless something else remains.
func (r *records) create() (storage string, err error) {
	if r.cfg.remains != "" {
		return "", fmt.Errorf("%w: %s is empty or gone, but %s is there", errLostInPart, r.cfg.dir, r.cfg.remains)
	}
	storage = rand.Text()
	segments := r.path(segmentsName)
	if err := r.cfg.fs.RemoveAll(segments); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return "", err
	}
	if err := journal.MakeDir(r.cfg.fs, segments); err != nil {
		return "", err
	}
	j, err := journal.Begin(r.journalConfig(storage), 1)
	if err != nil {
		return "", err
	}
	if err := j.Close(); err != nil {
		return "", err
	}
	return storage, journal.WriteFile(r.cfg.fs, r.path(formatName), r.path(formatTemp), r.formatText(storage))
}

// read takes back what the journal holds, and goes on behind it.
func (r *records) read() error {
	cfg := r.journalConfig(r.storage)
	c, err := journal.Read(r.cfg.fs, cfg.Dir, cfg.Format, 0)
	if err != nil {
		return err
	}
	whole := c.First == 1
	for _, g := range c.Groups {
		kind, err := r.replay(g.Records)
		if err != nil {
			return g.Damage(err)
		}
		whole = whole || kind == allRecords
		r.written += len(g.Records)
	}
	if !whole {
		return &journal.DamageError{Path: cfg.Dir, Offset: -1, Reason: fmt.Sprintf("the segments before record %d are not there", c.First)}
	}
	for key, value := range r.values {
		r.bytes += len(key) + len(value)
	}
	r.segments = c.Segments
	r.journal, err = journal.Resume(cfg, c)
	return err
}

var errRecord = errors.New("it is not a record of this format")

// replay takes back one record of the journal.
func (r *records) replay(data []byte) (kind byte, err error) {
	take := func(n uint64) []byte {
		if n > uint64(len(data)) {
			err, n = errRecord, uint64(len(data))
		}
		part := data[:n]
		data = data[n:]
		return part
	}
	number := func() uint64 {
		n, size := binary.Uvarint(data)
		if size <= 0 {
			err = errRecord
			return 0
		}
		data = data[size:]
		return n
	}
	if len(data) == 0 || data[0] != someRecords && data[0] != allRecords {
		return 0, errRecord
	}
	if kind = take(1)[0]; kind == allRecords {
		clear(r.values)
	}
	for count := number(); count > 0 && err == nil; count-- {
		key := string(take(number()))
		if length := number(); length > 0 {
			r.values[key] = slices.Clone(take(length - 1))
		} else {
			delete(r.values, key)
		}
	}
	if len(data) > 0 {
		err = errRecord
	}
	return kind, err
}

// load returns the records as they are.
func (r *records) load() (protocol.Records, error) {
	all := protocol.Records{}
	for key, value := range r.values {
		record, err := r.cfg.codec.Decode(value)
		if err != nil {
			return nil, &journal.DamageError{Path: r.cfg.dir, Offset: -1, Reason: fmt.Sprintf("the record %q: %v", key, err), Err: err}
		}
		all[key] = record
	}
	return all, nil
}

// force applies the writes together and returns when they are stable. After an error nothing more may be
// written: close, and open again.
func (r *records) force(writes []protocol.Write) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		r.failed = r.write(writes)
	}
	return r.failed
}

func (r *records) write(writes []protocol.Write) error {
	group := append(r.group[:journal.GroupHeader], someRecords)
	group = binary.AppendUvarint(group, uint64(len(writes)))
	for _, w := range writes {
		r.bytes -= r.size(w.Key)
		if w.Record == nil {
			delete(r.values, w.Key)
			group = appendRecord(group, w.Key, nil, false)
			continue
		}
		value, err := r.cfg.codec.Encode(w.Record)
		if err != nil {
			return fmt.Errorf("the record %q: %w", w.Key, err)
		}
		r.values[w.Key] = value
		r.bytes += r.size(w.Key)
		group = appendRecord(group, w.Key, value, true)
	}
	whole := r.written > 2*r.bytes+recordsSlack
	if whole {
		group = append(group[:journal.GroupHeader], allRecords)
		group = binary.AppendUvarint(group, uint64(len(r.values)))
		for _, key := range slices.Sorted(maps.Keys(r.values)) {
			group = appendRecord(group, key, r.values[key], true)
		}
		r.written = 0
	}
	r.written += len(group) - journal.GroupHeader
	if r.group = group; cap(group) > 4*recordsSlack {
		r.group = make([]byte, journal.GroupHeader, 4<<10)
	}
	now := time.Now().UnixMilli()
	rotated, err := r.journal.Write(group, 1, now)
	if rotated {
		r.segments = append(r.segments, r.journal.Segment())
	}
	if err == nil {
		err = r.journal.Rest(now)
	}
	if err == nil && whole {
		err = r.drop()
	}
	return err
}

// size returns the bytes of a record and its key, 0 where there is none.
func (r *records) size(key string) int {
	value, ok := r.values[key]
	if !ok {
		return 0
	}
	return len(key) + len(value)
}

// appendRecord adds a record, or that there is none.
func appendRecord(b []byte, key string, value []byte, there bool) []byte {
	b = append(binary.AppendUvarint(b, uint64(len(key))), key...)
	if !there {
		return binary.AppendUvarint(b, 0)
	}
	return append(binary.AppendUvarint(b, uint64(len(value))+1), value...)
}

// drop removes the segments before the present one, which holds all.
func (r *records) drop() error {
	last := len(r.segments) - 1
	for _, first := range r.segments[:last] {
		if err := r.journal.Drop(first); err != nil {
			return err
		}
	}
	r.segments = r.segments[last:]
	return nil
}

// close waits for a write that is under way. After it nothing is written any more.
func (r *records) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if errors.Is(r.failed, errClosed) {
		return nil
	}
	r.failed = errClosed
	return errors.Join(r.journal.Close(), r.lock.Close())
}

var errClosed = errors.New("the records are closed")
