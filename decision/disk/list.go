package disk

import (
	"bytes"
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
		// Clones see the same moment. A snapshot would too, but making one waits for a lock that a
		// failed engine does not release.
		byID, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{entryPrefix}, UpperBound: []byte{entryPrefix + 1}})
		if err != nil {
			return indexError(x.path, err)
		}
		its := map[decision.Status]*pebble.Iterator{}
		for s, from := range c.from {
			it, err := byID.Clone(pebble.CloneOptions{IterOptions: &pebble.IterOptions{
				LowerBound: from, UpperBound: []byte{statusPrefix, byte(s) + 1},
			}})
			if err != nil {
				return errors.Join(indexError(x.path, err), byID.Close())
			}
			its[s] = it
			it.First()
		}
		entries, err = x.merge(byID, its, c)
		for _, it := range its {
			err = errors.Join(err, it.Close())
		}
		return errors.Join(err, byID.Close())
	})
	return entries, err
}

// merge takes entries off the iterators in the order of decision until a page is full.
func (x *index) merge(byID *pebble.Iterator, its map[decision.Status]*pebble.Iterator, c *cursor) ([]decision.Entry, error) {
	var entries []decision.Entry
	for size := 0; len(entries) < pageEntries && size < pageBytes; {
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
		key := entryKey(id)
		if !byID.SeekGE(key) || !bytes.Equal(byID.Key(), key) {
			return nil, x.damage(first.Key(), errors.Join(errors.New("key leads to no entry"), byID.Error()))
		}
		s, err := decodeStored(key, byID.Value())
		if err == nil && s.status != status {
			err = errors.New("entry has another status than the key by which it was found")
		}
		if err != nil {
			return nil, x.damage(key, err)
		}
		e, err := s.entry()
		if err != nil {
			return nil, x.damage(entryKey(id), err)
		}
		entries = append(entries, e)
		size += len(s.raw)
		c.from[status] = append(append([]byte(nil), first.Key()...), 0)
		first.Next()
	}
	return entries, nil
}
