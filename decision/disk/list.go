package disk

import (
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"assent/decision"
	"assent/protocol/commit"
)

// A page of a listing is small, so that a slow reader holds no view of the index open.
const (
	pageEntries = 256
	pageBytes   = 1 << 20
)

// cursor is a place in a listing: for each status that is listed, the key to go on from.
type cursor struct {
	from map[decision.Status][]byte
	over bool
}

func newCursor(status decision.Status) *cursor {
	c := &cursor{from: map[decision.Status][]byte{}}
	for s := decision.Unfinished; s <= decision.Done; s++ {
		if status == 0 || status == s {
			c.from[s] = []byte{statusPrefix, byte(s)}
		}
	}
	c.over = len(c.from) == 0
	return c
}

// page returns the next entries, those decided first first, and moves the cursor behind them. It
// sees one moment of the index. An entry whose status changes between two pages may be missing.
func (x *index) page(c *cursor) (entries []decision.Entry, err error) {
	err = x.read(func(db *pebble.DB) error {
		snap := db.NewSnapshot()
		defer snap.Close()
		its := map[decision.Status]*pebble.Iterator{}
		defer func() {
			for _, it := range its {
				err = errors.Join(err, it.Close())
			}
		}()
		for s, from := range c.from {
			it, err := snap.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: []byte{statusPrefix, byte(s) + 1}})
			if err != nil {
				return indexError(x.path, err)
			}
			its[s] = it
			it.First()
		}
		entries, err = x.merge(snap, its, c)
		return err
	})
	return entries, err
}

// merge takes entries off the iterators in the order of decision until a page is full.
func (x *index) merge(snap *pebble.Snapshot, its map[decision.Status]*pebble.Iterator, c *cursor) ([]decision.Entry, error) {
	var entries []decision.Entry
	for bytes := 0; len(entries) < pageEntries && bytes < pageBytes; {
		var first *pebble.Iterator
		var status decision.Status
		for s, it := range its {
			if !it.Valid() {
				if err := it.Error(); err != nil {
					return nil, indexError(x.path, err)
				}
				continue
			}
			if len(it.Key()) < 10 {
				return nil, x.damage(it.Key(), errors.New("key is too short"))
			}
			if first == nil || binary.BigEndian.Uint64(it.Key()[2:]) < binary.BigEndian.Uint64(first.Key()[2:]) {
				first, status = it, s
			}
		}
		if first == nil {
			c.over = true
			return entries, nil
		}
		id := commit.TransactionID(first.Key()[10:])
		s, err := getStored(snap, x.path, id)
		if err != nil {
			return nil, err
		}
		if s == nil || s.status != status {
			return nil, x.damage(first.Key(), errors.New("key leads to no entry of this status"))
		}
		e, err := s.entry()
		if err != nil {
			return nil, x.damage(entryKey(id), err)
		}
		entries = append(entries, e)
		bytes += len(s.raw)
		c.from[status] = append(append([]byte(nil), first.Key()...), 0)
		first.Next()
	}
	return entries, nil
}
