package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	iofs "io/fs"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/decision"
	"assent/protocol/commit"
)

// Index keys. Every value is bound to its key (bindValue).
//
//	e <id>                      the entry
//	s <status> <decided> <id>   nothing: the entries of one status, in the order of decision
//	r <done>                    doneAt, decided, id: the Done entries, in the order of finishing
//	m applied                   the sequence number of the last record applied
const (
	entryPrefix  = 'e'
	metaPrefix   = 'm'
	donePrefix   = 'r'
	statusPrefix = 's'
)

var appliedKey = []byte("mapplied")

// formatVersion pins the engine's own format, so that a newer engine does not make the log
// unreadable to an older Assent unasked. FormatTableFormatV6 is the first whose table footers
// carry a checksum.
const formatVersion = pebble.FormatTableFormatV6

func appendEntryKey(b []byte, id commit.TransactionID) []byte {
	return append(append(b, entryPrefix), id...)
}

func appendStatusKey(b []byte, s decision.Status, decided uint64, id commit.TransactionID) []byte {
	return append(binary.BigEndian.AppendUint64(append(b, statusPrefix, byte(s)), decided), id...)
}

func appendDoneKey(b []byte, done uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, donePrefix), done)
}

func entryKey(id commit.TransactionID) []byte { return appendEntryKey(nil, id) }

func statusKey(s decision.Status, decided uint64, id commit.TransactionID) []byte {
	return appendStatusKey(nil, s, decided, id)
}

func doneKey(done uint64) []byte { return appendDoneKey(nil, done) }

// index is the store of what was decided: the records of the log, applied. It runs without a
// write-ahead log of its own; what it has not flushed is in the segments.
type index struct {
	db   *pebble.DB
	path string

	// gate is held shared by whoever reads, and once exclusively when closed is set, so that nobody
	// meets a closed engine.
	gate   sync.RWMutex
	closed atomic.Bool
	// handover is held while opening ends, and while somebody is told of a failure.
	handover sync.Mutex
	// broken is set when nothing more may be written, stuck when the engine will not end, and
	// opening until it is open.
	broken, stuck, opening atomic.Bool

	// The rest belongs to whoever writes generations; one goroutine.
	applied uint64 // the sequence number of the last record applied
	done    int    // how many Done entries there are
	oldest  uint64 // no Done entry has a smaller done number
	census  census // of its entries, when it was read whole
}

// engineLog receives the engine's messages. Its Fatalf must not end the process.
type engineLog struct {
	logger *slog.Logger
	x      *index
	fail   func(error)
}

// Infof drops the message: the engine is talkative.
func (e engineLog) Infof(string, ...any) {}

// Errorf passes the message on as a warning.
func (e engineLog) Errorf(format string, args ...any) {
	e.logger.Warn("decision log index", "message", fmt.Sprintf(format, args...))
}

// Fatalf stops the log. The engine calls it where it will not go on, a failed write of its
// manifest above all, and its state is not to be trusted from then on: it panics if it is let go
// on. Where it is being opened the goroutine ends, which makes the engine clean up behind itself.
// Later the goroutine stays here for ever, with the engine's locks, so that nothing else in the
// engine goes on either; the fence makes that harmless and Log.abandoned bounds it.
func (e engineLog) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	for _, arg := range args {
		if cause, ok := arg.(error); ok {
			err = cause
		}
	}
	e.x.stuck.Store(true)
	e.fail(fmt.Errorf("index: %w", err))
	if e.x.opening.Load() {
		runtime.Goexit()
	}
	select {}
}

func (x *index) options(fs vfs.FS, logger *slog.Logger, fail func(error)) *pebble.Options {
	log := engineLog{logger: logger, x: x, fail: fail}
	// There are no Bloom filters: the census says at once of what there is no entry, and filters are the one
	// part of a table that is not read, and so not checked, when the index is read whole.
	opts := &pebble.Options{
		FS:                 fs,
		FormatMajorVersion: formatVersion,
		DisableWAL:         true,
		MemTableSize:       32 << 20,
		CacheSize:          8 << 20,
		MaxOpenFiles:       256,
		// The log flushes the index itself and waits for it (store.settle). The engine must never
		// make a writer wait, because after a failure it would wait for ever.
		MemTableStopWritesThreshold: 1000,
		L0StopWritesThreshold:       1000,
		L0CompactionThreshold:       4,
		Logger:                      log,
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { fail(fmt.Errorf("index: %w", err)) },
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				fail(&DamageError{Path: info.Path, Offset: -1, Reason: info.Details.Error(), Err: info.Details})
			},
		},
	}
	return opts
}

// openIndex opens the index for use. fail is told of every failure in the background and must not
// block.
func openIndex(fs vfs.FS, path string, logger *slog.Logger, fail func(error)) (*index, error) {
	x := &index{path: path}
	x.opening.Store(true)
	failed := make(chan error, 1)
	opts := x.options(fs, logger, func(err error) {
		x.broken.Store(true)
		x.handover.Lock()
		defer x.handover.Unlock()
		if !x.opening.Load() {
			fail(err)
			return
		}
		select {
		case failed <- err:
		default:
		}
	})
	return x, x.open(opts, failed)
}

// open opens the engine in a goroutine of its own, because the engine may end or keep it. After an error
// some of the engine may be left, which is to be cut off from the disk.
func (x *index) open(opts *pebble.Options, failed chan error) error {
	opened := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				opened <- fmt.Errorf("index: %v", r)
			}
		}()
		var err error
		x.db, err = pebble.Open(x.path, opts)
		opened <- err
	}()
	select {
	case err := <-failed:
		return indexError(x.path, err)
	case err := <-opened:
		x.handover.Lock()
		x.opening.Store(false)
		x.handover.Unlock()
		select {
		case cause := <-failed: // in the background, before the opening had ended
			if err == nil && !x.stuck.Load() {
				err = x.db.Close()
			}
			return indexError(x.path, errors.Join(cause, err))
		default:
		}
		if err != nil {
			return indexError(x.path, err)
		}
		return nil
	}
}

// indexError tells damage from everything else that the engine may answer.
func indexError(path string, err error) error {
	switch {
	case errors.Is(err, pebble.ErrDBDoesNotExist):
		return goneIndex(path, err)
	case pebble.IsCorruptionError(err):
		return &DamageError{Path: path, Offset: -1, Reason: err.Error(), Err: err}
	}
	return fmt.Errorf("index %s: %w", path, err)
}

// goneIndex says that the directory of the index is not there, or is empty.
func goneIndex(path string, err error) error {
	return &DamageError{Path: path, Offset: -1, Reason: "the index is gone, and the segments alone may not hold all that was decided", Err: err}
}

// verifyIndex reads the whole index without changing anything and returns what it holds.
func verifyIndex(fs vfs.FS, path string, logger *slog.Logger) (*index, error) {
	if _, err := fs.Stat(path); errors.Is(err, iofs.ErrNotExist) {
		return nil, goneIndex(path, err)
	}
	x := &index{path: path, census: newCensus()}
	x.opening.Store(true)
	failed := make(chan error, 1)
	opts := x.options(fs, logger, func(err error) {
		select {
		case failed <- err:
		default:
		}
	})
	opts.EventListener = &pebble.EventListener{DataCorruption: func(pebble.DataCorruptionInfo) {}}
	opts.ReadOnly = true
	if err := x.open(opts, failed); err != nil {
		return nil, err
	}
	err := x.survey()
	if cerr := x.db.Close(); err == nil && cerr != nil {
		err = indexError(path, cerr)
	}
	return x, err
}

// survey reads every key and value, checks them, and sets what x knows of itself.
func (x *index) survey() error {
	it, err := x.db.NewIter(nil)
	if err != nil {
		return indexError(x.path, err)
	}
	defer it.Close()
	var entries, statuses, done int
	x.oldest = ^uint64(0)
	for ok := it.First(); ok; ok = it.Next() {
		key, value := it.Key(), it.Value()
		if err := checkValue(key, value); err != nil {
			return x.damage(key, err)
		}
		switch key[0] {
		case entryPrefix:
			s, err := decodeStored(key, value)
			if err != nil {
				return x.damage(key, err)
			}
			entries++
			x.census.add(s.id, 1)
			if s.status == decision.Done {
				done++
			}
		case statusPrefix:
			statuses++
		case donePrefix:
			x.done++
			x.oldest = min(x.oldest, binary.BigEndian.Uint64(key[1:]))
		case metaPrefix:
			x.applied = binary.BigEndian.Uint64(value[4:])
		default:
			return x.damage(key, errors.New("key of no known kind"))
		}
	}
	if err := it.Error(); err != nil {
		return indexError(x.path, err)
	}
	if x.done == 0 {
		x.oldest = 0
	}
	if entries != statuses || done != x.done {
		return &DamageError{Path: x.path, Offset: -1, Reason: fmt.Sprintf(
			"%d entries, of which %d done, but %d and %d keys to find them by", entries, done, statuses, x.done)}
	}
	return nil
}

func (x *index) damage(key []byte, err error) error {
	return &DamageError{Path: x.path, Offset: -1, Key: string(key), Reason: err.Error(), Err: err}
}

var errIndexClosed = errors.New("the index is closed")

// caught, deferred, makes an error of a panic. The engine panics on a broken invariant; the log stops, the
// process goes on.
func caught(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("index: %v", r)
	}
}

// read calls f with the engine, unless it is closed. A panic of the engine becomes an error.
func (x *index) read(f func(db *pebble.DB) error) (err error) {
	defer caught(&err)
	if x.closed.Load() { // whoever closes it may wait for the gate for ever
		return errIndexClosed
	}
	x.gate.RLock()
	defer x.gate.RUnlock()
	if x.closed.Load() {
		return errIndexClosed
	}
	return f(x.db)
}

// get returns what is stored of id, or nil.
func (x *index) get(id commit.TransactionID) (s *stored, err error) {
	err = x.read(func(db *pebble.DB) error {
		s, err = getStored(db, x.path, id)
		return err
	})
	if s == nil || err != nil {
		return nil, err
	}
	if err := s.decode(); err != nil {
		return nil, x.damage(entryKey(id), err)
	}
	return s, nil
}

func getStored(r pebble.Reader, path string, id commit.TransactionID) (*stored, error) {
	key := entryKey(id)
	value, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, indexError(path, err)
	}
	s, err := decodeStored(key, append([]byte(nil), value...))
	if cerr := closer.Close(); err == nil && cerr != nil {
		return nil, indexError(path, cerr)
	}
	if err != nil {
		return nil, &DamageError{Path: path, Offset: -1, Key: string(key), Reason: err.Error(), Err: err}
	}
	return s, nil
}

// flushedUpTo returns the sequence number of the last record whose effects are in tables on disk.
func (x *index) flushedUpTo() (applied uint64, err error) {
	err = x.read(func(db *pebble.DB) error {
		it, err := db.NewIter(&pebble.IterOptions{
			LowerBound: appliedKey, UpperBound: append(appliedKey[:len(appliedKey):len(appliedKey)], 0),
			OnlyReadGuaranteedDurable: true,
		})
		if err != nil {
			return indexError(x.path, err)
		}
		if it.First() {
			if err := checkValue(it.Key(), it.Value()); err != nil {
				return errors.Join(x.damage(appliedKey, err), it.Close())
			}
			applied = binary.BigEndian.Uint64(it.Value()[4:])
		}
		return it.Close()
	})
	return applied, err
}

// flush begins to write what is only in memory into tables; done is closed when they are stable.
func (x *index) flush() (done <-chan struct{}, err error) {
	err = x.read(func(db *pebble.DB) error {
		if done, err = db.AsyncFlush(); err != nil {
			return indexError(x.path, err)
		}
		return nil
	})
	return done, err
}

// close closes the engine. It waits for who reads and for the engine's background work, for ever where the
// engine is stuck: who begins to read meanwhile is told at once that the index is closed.
func (x *index) close() (err error) {
	if x.closed.Swap(true) {
		return nil
	}
	x.gate.Lock()
	//lint:ignore SA2001 whoever read before has read
	x.gate.Unlock()
	defer caught(&err) // after a panic the engine may find its own books wrong
	return x.db.Close()
}
