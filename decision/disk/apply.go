package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"assent/decision"
	"assent/protocol/commit"
)

// change is a record on its way into the index, with what its caller will be told.
type change struct {
	record
	status decision.Status // of a decide record's entry
	entry  *decision.Entry // a decide record's, where it is at hand
	note   decision.Note   // of a note record
	err    error
}

// parse fills in what a change that was read from the log lacks.
func (c *change) parse() error {
	switch c.kind {
	case decideRecord:
		e, err := decision.DecodeEntry(c.body)
		if err != nil {
			return err
		}
		if e.ID != c.id {
			return fmt.Errorf("record of %q holds the entry of %q", c.id, e.ID)
		}
		c.status = e.Status()
	case noteRecord:
		n, err := decision.DecodeNote(c.body)
		if err != nil {
			return err
		}
		c.note = n
	}
	return nil
}

// retention says which Done entries are kept.
type retention struct {
	age   time.Duration
	count int
}

// applier is one group's way into the index: a batch, and the entries that it has touched.
type applier struct {
	x       *index
	batch   *pebble.Batch
	touched map[commit.TransactionID]*stored // nil for an entry that was dropped
	fresh   bool                             // decide records are known to meet no entry
}

// apply applies the changes, which were recorded from seq on at the time at (Unix milliseconds),
// as one. fresh says that no decide record meets an entry of its transaction.
func (x *index) apply(seq uint64, at int64, changes []*change, fresh bool, keep retention) (err error) {
	defer func() {
		// The engine panics on a broken invariant; the log stops, the process goes on.
		if r := recover(); r != nil {
			err = fmt.Errorf("index: %v", r)
		}
	}()
	a := applier{x: x, batch: x.db.NewBatch(), fresh: fresh}
	defer a.batch.Close()
	for _, c := range changes {
		if !fresh || c.kind != decideRecord {
			a.touched = map[commit.TransactionID]*stored{}
			break
		}
	}
	for i, c := range changes {
		if err := a.change(c, seq+uint64(i), at); err != nil {
			return err
		}
	}
	if err := a.retire(at, keep, len(changes)); err != nil {
		return err
	}
	if len(changes) > 0 {
		x.applied = seq + uint64(len(changes)) - 1
		value := binary.BigEndian.AppendUint64(make([]byte, 4, 12), x.applied)
		bindValue(appliedKey, value)
		if err := a.batch.Set(appliedKey, value, nil); err != nil {
			return fmt.Errorf("index: %w", err)
		}
	}
	if a.batch.Empty() {
		return nil
	}
	if err := a.batch.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	return nil
}

func (a *applier) load(id commit.TransactionID) (*stored, error) {
	if s, ok := a.touched[id]; ok {
		return s, nil
	}
	if s, ok := a.x.unfinished[id]; ok {
		return s, nil
	}
	return getStored(a.x.db, a.x.path, id)
}

// remember keeps what is stored of an unfinished transaction at hand, for it is soon to be finished.
func (a *applier) remember(id commit.TransactionID, s *stored) {
	x := a.x
	if was, ok := x.unfinished[id]; ok {
		x.unfinishedBytes -= was.footprint()
		delete(x.unfinished, id)
	}
	if s == nil || s.known == nil || s.status != decision.Unfinished {
		return
	}
	n := s.footprint()
	if len(x.unfinished) >= recentSize || x.unfinishedBytes+n > maxUnfinishedBytes {
		clear(x.unfinished)
		x.unfinishedBytes = 0
	}
	x.unfinished[id] = s
	x.unfinishedBytes += n
}

// maxUnfinishedBytes bounds the memory of the unfinished entries at hand; the others are in the index.
const maxUnfinishedBytes = 16 << 20

// footprint is the memory that s takes, roughly: its bytes, and the same again decoded.
func (s *stored) footprint() int { return 2*(len(s.id)+len(s.raw)) + 256 }

func (a *applier) change(c *change, seq uint64, at int64) error {
	var was *stored
	var err error
	if a.touched != nil && !(c.kind == decideRecord && a.fresh) {
		if was, err = a.load(c.id); err != nil {
			return err
		}
	}
	var now *stored
	switch c.kind {
	case decideRecord:
		now = &stored{id: c.id, status: c.status, decided: seq, raw: c.body, known: c.entry}
	case noteRecord:
		if now, err = a.annotated(was, c.note); err != nil {
			c.err = err
			return nil
		}
	case forgetRecord:
		if was == nil {
			c.err = decision.ErrNotFound
			return nil
		}
	}
	if now != nil && now.status == decision.Done && now.done == 0 {
		now.done, now.doneAt = seq, at
	}
	if a.touched != nil {
		a.touched[c.id] = now
	}
	a.remember(c.id, now)
	return a.put(c.id, was, now)
}

// annotated returns the entry was with one more note.
func (a *applier) annotated(was *stored, n decision.Note) (*stored, error) {
	if was == nil {
		return nil, decision.ErrNotFound
	}
	e, err := was.entry()
	if err != nil {
		return nil, a.x.damage(entryKey(was.id), err)
	}
	if len(e.Notes) >= decision.MaxNotes {
		return nil, invalid("annotate", fmt.Errorf("%q has %d notes; no more are allowed", was.id, len(e.Notes)))
	}
	e.Notes = append(e.Notes[:len(e.Notes):len(e.Notes)], n)
	now := *was
	now.known = &e
	if now.status = e.Status(); now.status != decision.Done {
		now.done, now.doneAt = 0, 0
	}
	now.raw, err = e.Encode()
	return &now, err
}

// put replaces was by now; either may be nil.
func (a *applier) put(id commit.TransactionID, was, now *stored) error {
	var errs [6]error
	moved := was != nil && (now == nil || now.status != was.status || now.decided != was.decided)
	if moved {
		// Each status key is set once before it is deleted, so that a pair of both vanishes when
		// it is flushed: nobody who lists the unfinished walks over the graves of the done.
		errs[0] = a.batch.SingleDelete(statusKey(was.status, was.decided, id), nil)
	}
	if was != nil && was.done != 0 && (now == nil || now.done != was.done) {
		errs[1] = a.batch.Delete(doneKey(was.done), nil)
		a.x.done--
	}
	key := entryKey(id)
	if now == nil {
		errs[2] = a.batch.Delete(key, nil)
		return errors.Join(errs[:]...)
	}
	if was == nil || moved {
		sk := statusKey(now.status, now.decided, id)
		value := make([]byte, 4)
		bindValue(sk, value)
		errs[3] = a.batch.Set(sk, value, nil)
	}
	if now.done != 0 && (was == nil || now.done != was.done) {
		dk := doneKey(now.done)
		value := binary.BigEndian.AppendUint64(make([]byte, 4, 20+len(id)), uint64(now.doneAt))
		value = append(binary.BigEndian.AppendUint64(value, now.decided), id...)
		bindValue(dk, value)
		errs[4] = a.batch.Set(dk, value, nil)
		a.x.done++
	}
	errs[5] = a.batch.Set(key, appendStored(make([]byte, 0, storedHeader+len(now.raw)), key, now), nil)
	return errors.Join(errs[:]...)
}

// retireBatch is the number of entries above which retention by count begins to work, so that it
// does not work on every group.
const retireBatch = 256

// retire drops Done entries that are too old or too many, oldest first: a bounded number, but
// more than n, so that it keeps up with n new ones.
func (a *applier) retire(at int64, keep retention, n int) error {
	if n > 0 && a.x.done < keep.count+retireBatch || a.x.done == 0 {
		return nil
	}
	it, err := a.x.db.NewIter(&pebble.IterOptions{
		LowerBound: doneKey(a.x.oldest), UpperBound: []byte{donePrefix + 1},
	})
	if err != nil {
		return indexError(a.x.path, err)
	}
	defer it.Close()
	limit, young := retireBatch+2*n, at-keep.age.Milliseconds()
	for ok := it.First(); ok && limit > 0; ok = it.Next() {
		key, value := it.Key(), it.Value()
		if err := checkValue(key, value); err != nil || len(value) < 20 || len(key) != 9 {
			return a.x.damage(key, errors.Join(err, errors.New("value cannot be read")))
		}
		s := stored{
			id: commit.TransactionID(value[20:]), status: decision.Done,
			done: binary.BigEndian.Uint64(key[1:]), doneAt: int64(binary.BigEndian.Uint64(value[4:])),
			decided: binary.BigEndian.Uint64(value[12:]),
		}
		if a.x.done <= keep.count && s.doneAt > young {
			break
		}
		if _, ok := a.touched[s.id]; ok {
			break // this very group has changed it; the next one will see how
		}
		if err := a.put(s.id, &s, nil); err != nil {
			return err
		}
		a.x.oldest = s.done + 1
		limit--
	}
	return it.Error()
}
