package kv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"assent/resource"
)

// outcomes counts the outcomes on record. Their numbers lie from pruned+1 to last.
type outcomes struct {
	last    atomic.Uint64
	pruned  atomic.Uint64
	pruning atomic.Bool
	// looked is the value of last at which pruning was begun.
	looked atomic.Uint64
}

// recorded returns the outcome of the branch id that is on record.
func (r *Resource) recorded(id resource.ID) (o outcomeRecord, known bool, err error) {
	data, ok, err := r.engine.get(keyOf(outcomeKey, id.String()))
	if err != nil || !ok {
		return outcomeRecord{}, false, err
	}
	if o, err = r.codec.decodeOutcome(data); err != nil {
		return outcomeRecord{}, false, damaged("outcome", id.String(), err)
	}
	return o, true, nil
}

// putOutcome adds to b the record of what became of the branch id. The index, in the order of
// finishing, says which records are the oldest.
func (r *Resource) putOutcome(b *pebble.Batch, id resource.ID, committed bool, ballot uint64) error {
	n := r.outcomes.last.Add(1)
	at := r.cfg.Clock().UnixMilli()
	data, err := r.codec.enc.Marshal(outcomeRecord{Committed: committed, Ballot: ballot, At: at, Number: n})
	if err != nil {
		return err
	}
	name := id.String()
	return errors.Join(b.Set(keyOf(outcomeKey, name), data, nil), b.Set(indexKeyOf(n), entryValue(at, name), nil))
}

// entryValue is the value of an entry of the index: when the branch finished, and its id.
func entryValue(at int64, id string) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(at)), id...)
}

// entryOf reads an entry of the index.
func entryOf(key, value []byte) (number uint64, at time.Time, id string, err error) {
	if len(key) != 9 || key[0] != indexKey || len(value) < 9 {
		return 0, time.Time{}, "", fmt.Errorf("%.40q is no entry", value)
	}
	return binary.BigEndian.Uint64(key[1:]), time.UnixMilli(int64(binary.BigEndian.Uint64(value))), string(value[8:]), nil
}

func (r *Resource) loadOutcomes(pruned uint64) error {
	r.outcomes.pruned.Store(pruned)
	r.outcomes.last.Store(pruned)
	key, value, err := r.engine.last(indexKeyOf(pruned+1), []byte{indexKey + 1})
	if err != nil {
		return unavailable("open", err)
	}
	if key == nil {
		return nil
	}
	n, _, _, err := entryOf(key, value)
	if err != nil {
		return damaged("index", fmt.Sprintf("%x", key), err)
	}
	r.outcomes.last.Store(n)
	r.outcomes.looked.Store(n)
	return nil
}

// How many branches finish between two looks for outcomes to drop, and how many are dropped in
// one write.
const pruneEvery = 1024

// pruneSometimes starts pruning in the background now and then.
func (r *Resource) pruneSometimes() {
	last, looked := r.outcomes.last.Load(), r.outcomes.looked.Load()
	if last >= looked+pruneEvery && r.outcomes.looked.CompareAndSwap(looked, last) {
		go r.prune()
	}
}

// prune drops the outcomes that are too old or too many. A failure is left to the next call, or
// has stopped the store.
func (r *Resource) prune() {
	if !r.outcomes.pruning.CompareAndSwap(false, true) {
		return
	}
	defer r.outcomes.pruning.Store(false)
	for {
		n, err := r.pruneOnce()
		if err != nil {
			r.cfg.Logger.Warn("dropping old outcomes failed", "error", err)
		}
		if err != nil || n < pruneEvery {
			return
		}
	}
}

// pruneOnce drops up to pruneEvery outcomes and returns how many. The write is not forced: after
// a crash they are dropped again.
func (r *Resource) pruneOnce() (n int, err error) {
	if err := r.engine.enter(); err != nil {
		return 0, nil // the store is closed, or has stopped and said so
	}
	defer r.engine.leave()
	last, oldest := r.outcomes.last.Load(), r.cfg.Clock().Add(-r.cfg.KeepFor)
	pruned := r.outcomes.pruned.Load()
	b := r.engine.db.NewBatch()
	err = r.engine.each(indexKeyOf(pruned+1), []byte{indexKey + 1}, func(key, value []byte) (bool, error) {
		number, at, id, err := entryOf(key, value)
		if err != nil {
			return false, damaged("index", fmt.Sprintf("%x", key), err)
		}
		enough := last-min(last, number) < uint64(r.cfg.KeepOutcomes)
		if n == pruneEvery || enough && !at.Before(oldest) {
			return false, nil
		}
		pruned = number
		n++
		return true, errors.Join(b.Delete(keyOf(outcomeKey, id), nil), b.Delete(indexKeyOf(number), nil))
	})
	if err != nil || n == 0 {
		return 0, errors.Join(err, b.Close())
	}
	if err := r.putMeta(b, pruned); err != nil {
		return 0, err
	}
	if err := r.engine.apply(b, false); err != nil {
		return 0, err
	}
	r.outcomes.pruned.Store(pruned)
	return n, nil
}
