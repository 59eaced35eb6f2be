package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"assent/decision"
	"assent/protocol/commit"
)

// retention says which Done entries are kept.
type retention struct {
	age   time.Duration
	count int
}

// job is a generation on its way into the index.
type job struct {
	generation *generation
	at         int64 // when it was frozen, Unix milliseconds by the log's clock
	flush      bool  // a segment has ended: its records are to be in the index's tables
}

// keepIndex is the indexing goroutine: it writes generations to the index, one after the other, and
// looks after the index and the segments.
func (s *store) keepIndex() {
	defer s.stopped.Done()
	for j := range s.jobs {
		err := s.failureOfIndex()
		if err == nil {
			err = s.settle(j)
		}
		if err != nil {
			s.idx.broken.Store(true)
			s.fail(err)
			continue // to the end, so that nobody waits
		}
		s.free <- struct{}{}
	}
}

// failureOfIndex returns why nothing can be written to the index any more, or nil.
func (s *store) failureOfIndex() error {
	if s.idx.broken.Load() {
		return s.failure()
	}
	return nil
}

// settle retires entries, writes the frozen generation to the index, and removes segments.
func (s *store) settle(j job) error {
	old, err := s.idx.retirable(j.at, s.log.retention(), j.generation)
	if err != nil {
		return err
	}
	old = old[:s.recent.retire(old)]
	if err := s.put(j.generation); err != nil {
		return err
	}
	if n := len(old); n > 0 {
		s.idx.oldest = old[n-1].done + 1
	}
	if j.flush {
		// At most one flush is under way. Waiting for it here is what holds writers back when the
		// index cannot keep up.
		if s.flushing != nil {
			select {
			case <-s.flushing:
			case <-s.failed:
				return nil
			}
		}
		if s.flushing, err = s.idx.flush(); err != nil {
			return err
		}
	}
	return s.dropSegments()
}

// put writes the frozen generation to the index and drops it.
func (s *store) put(g *generation) error {
	if err := s.idx.write(g); err != nil {
		return err
	}
	s.recent.drop()
	return nil
}

// dropSegments removes the segments whose records are all in the index's tables on disk.
func (s *store) dropSegments() error {
	s.live.Lock()
	defer s.live.Unlock()
	if len(s.live.segments) == 1 {
		return nil
	}
	flushed, err := s.idx.flushedUpTo()
	if err != nil {
		return err
	}
	for len(s.live.segments) > 1 && s.live.segments[1].first <= flushed+1 {
		if err := s.fs.Remove(s.live.segments[0].path); err != nil {
			return err
		}
		s.live.segments = s.live.segments[1:]
	}
	return nil
}

// retireBatch is how many entries are retired at once.
const retireBatch = 256

// retirable returns Done entries that are too old at the time at (Unix milliseconds), or that will be
// too many when g is written, oldest first: a bounded number, but more than g can bring.
func (x *index) retirable(at int64, keep retention, g *generation) (old []stored, err error) {
	if x.done == 0 {
		return nil, nil
	}
	err = x.read(func(db *pebble.DB) error {
		it, err := db.NewIter(&pebble.IterOptions{
			LowerBound: doneKey(x.oldest), UpperBound: []byte{donePrefix + 1},
		})
		if err != nil {
			return indexError(x.path, err)
		}
		defer it.Close()
		old, err = x.retire(it, at, keep, g)
		return err
	})
	return old, err
}

// retire is retirable with an iterator over the Done entries in the order of finishing.
func (x *index) retire(it *pebble.Iterator, at int64, keep retention, g *generation) (old []stored, err error) {
	limit, young := retireBatch+2*len(g.items), at-keep.age.Milliseconds()
	for ok := it.First(); ok && len(old) < limit; ok = it.Next() {
		key, value := it.Key(), it.Value()
		if err := checkValue(key, value); err != nil || len(value) < 20 || len(key) != 9 {
			return nil, x.damage(key, errors.Join(err, errors.New("value cannot be read")))
		}
		s := stored{
			id: commit.TransactionID(value[20:]), status: decision.Done,
			done: binary.BigEndian.Uint64(key[1:]), doneAt: int64(binary.BigEndian.Uint64(value[4:])),
			decided: binary.BigEndian.Uint64(value[12:]),
		}
		if x.done+g.done-len(old) <= keep.count && s.doneAt > young {
			break
		}
		old = append(old, s)
	}
	return old, it.Error()
}

// write writes g, as one.
func (x *index) write(g *generation) (err error) {
	if g.last == 0 && len(g.items) == 0 {
		return nil
	}
	defer caught(&err)
	batch := x.db.NewBatchWithSize(min(generationBytes, 512*len(g.items)))
	defer batch.Close()
	if err := g.fill(batch); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	if g.last > 0 {
		value := binary.BigEndian.AppendUint64(make([]byte, 4, 12), g.last)
		bindValue(appliedKey, value)
		if err := batch.Set(appliedKey, value, nil); err != nil {
			return fmt.Errorf("index: %w", err)
		}
	}
	if err := batch.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	x.applied = max(x.applied, g.last)
	x.done += g.done
	return nil
}

// fill adds to batch what the index is to hold of g's entries. They come sorted, which is what the engine
// does fastest.
func (g *generation) fill(batch *pebble.Batch) error {
	ids := slices.Sorted(maps.Keys(g.items))
	f := filler{batch: batch}
	for _, id := range ids {
		if err := f.put(id, g.items[id]); err != nil {
			return err
		}
	}
	return nil
}

// filler adds keys to a batch. It uses its buffers again and again, for the batch copies what it is given.
type filler struct {
	batch      *pebble.Batch
	key, value []byte
}

// put adds what has become of an entry.
func (f *filler) put(id commit.TransactionID, it item) error {
	var errs [6]error
	was, now, to := it.was, it.now, it.now.place()
	moved := was.status != to.status || was.decided != to.decided
	if was.status != 0 && moved {
		// Each status key is set once before it is deleted, so that a pair of both vanishes when
		// it is flushed: nobody who lists the unfinished walks over the graves of the done.
		f.key = appendStatusKey(f.key[:0], was.status, was.decided, id)
		errs[0] = f.batch.SingleDelete(f.key, nil)
	}
	if was.done != 0 && was.done != to.done {
		f.key = appendDoneKey(f.key[:0], was.done)
		errs[1] = f.batch.Delete(f.key, nil)
	}
	if now == nil {
		if was.status != 0 {
			f.key = appendEntryKey(f.key[:0], id)
			errs[2] = f.batch.Delete(f.key, nil)
		}
		return errors.Join(errs[:]...)
	}
	if moved {
		f.key = appendStatusKey(f.key[:0], to.status, to.decided, id)
		f.value = append(f.value[:0], 0, 0, 0, 0)
		errs[3] = f.set()
	}
	if to.done != 0 && was.done != to.done {
		f.key = appendDoneKey(f.key[:0], to.done)
		f.value = binary.BigEndian.AppendUint64(append(f.value[:0], 0, 0, 0, 0), uint64(now.doneAt))
		f.value = append(binary.BigEndian.AppendUint64(f.value, to.decided), id...)
		errs[4] = f.set()
	}
	full := *now
	if full.raw == nil {
		var err error
		if full.raw, err = now.known.Encode(); err != nil {
			return err
		}
	}
	f.key = appendEntryKey(f.key[:0], id)
	f.value = appendStored(f.value[:0], f.key, &full)
	errs[5] = f.batch.Set(f.key, f.value, nil)
	return errors.Join(errs[:]...)
}

// set binds the value to the key and adds both.
func (f *filler) set() error {
	bindValue(f.key, f.value)
	return f.batch.Set(f.key, f.value, nil)
}
