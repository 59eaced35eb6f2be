package disk

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"assent/decision"
	"assent/protocol/commit"
)

// A page of a listing is small, so that a slow reader holds no view of the index open.
const (
	pageEntries = 256
	pageBytes   = 1 << 20
)

// cursor is a place in a listing: behind the record after.
type cursor struct {
	status decision.Status // 0: any
	after  uint64
	over   bool
}

// leaf is page for a caller who may go when ctx ends, and then has done with the cursor.
func (s *store) leaf(ctx context.Context, c *cursor) ([]decision.Entry, error) {
	return apart(ctx, s, func() ([]decision.Entry, error) { return s.page(c) })
}

// page returns the next entries, those decided first first, and moves the cursor behind them. It
// sees one moment of the log. An entry whose status changes between two pages may be missing.
func (s *store) page(c *cursor) (entries []decision.Entry, err error) {
	for {
		version := s.recent.version()
		next := *c
		found, err := s.idx.page(&next)
		if err != nil {
			return nil, err
		}
		if found, ok := s.recent.page(found, c, &next, version); ok {
			for _, f := range found {
				entries = append(entries, *clone(*f.known))
			}
			*c = next
			return entries, nil
		}
	}
}

// page corrects a page of the index, which lies between the cursors c and next, by what is recent. When
// version is not that of r any more, the index may say something else by now, and page reports false.
func (r *recent) page(found []*stored, c, next *cursor, version uint64) ([]*stored, bool) {
	r.RLock()
	defer r.RUnlock()
	if r.dropped != version {
		return nil, false
	}
	found = slices.DeleteFunc(found, func(s *stored) bool {
		_, elsewhere := r.get(s.id)
		return !elsewhere
	})
	add := func(s *stored) {
		if s != nil && (c.status == 0 || c.status == s.status) && s.decided > c.after && s.decided <= next.after {
			found = append(found, s)
		}
	}
	for _, it := range r.active.items {
		add(it.now)
	}
	if r.frozen != nil {
		for id, it := range r.frozen.items {
			if _, ok := r.active.items[id]; !ok {
				add(it.now)
			}
		}
	}
	slices.SortFunc(found, func(a, b *stored) int { return cmp.Compare(a.decided, b.decided) })
	for i, size := 0, 0; i < len(found); i++ {
		if i == pageEntries || size >= pageBytes {
			found, next.after, next.over = found[:i], found[i-1].decided, false
		} else {
			size += found[i].size()
		}
	}
	return found, true
}

// page returns what the index holds behind c, and moves c behind that.
func (x *index) page(c *cursor) (found []*stored, err error) {
	err = x.read(func(db *pebble.DB) error {
		// Clones see the same moment. A snapshot would too, but making one waits for a lock that a
		// failed engine does not release.
		byID, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{entryPrefix}, UpperBound: []byte{entryPrefix + 1}})
		if err != nil {
			return indexError(x.path, err)
		}
		var its []*pebble.Iterator
		for s := decision.Unfinished; s <= decision.Done && err == nil; s++ {
			if c.status != 0 && c.status != s {
				continue
			}
			var it *pebble.Iterator
			if it, err = byID.Clone(pebble.CloneOptions{IterOptions: &pebble.IterOptions{
				LowerBound: statusKey(s, c.after+1, ""), UpperBound: []byte{statusPrefix, byte(s) + 1},
			}}); err == nil {
				its = append(its, it)
				it.First()
			}
		}
		if err == nil {
			found, err = x.merge(byID, its, c)
		} else {
			err = indexError(x.path, err)
		}
		for _, it := range its {
			err = errors.Join(err, it.Close())
		}
		return errors.Join(err, byID.Close())
	})
	return found, err
}

// merge takes entries off the iterators in the order of decision until a page is full.
func (x *index) merge(byID *pebble.Iterator, its []*pebble.Iterator, c *cursor) ([]*stored, error) {
	var found []*stored
	for size := 0; len(found) < pageEntries && size < pageBytes; {
		var first *pebble.Iterator
		for _, it := range its {
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
				first = it
			}
		}
		if first == nil {
			c.after, c.over = math.MaxUint64, true
			return found, nil
		}
		id := commit.TransactionID(first.Key()[10:])
		key := entryKey(id)
		if !byID.SeekGE(key) || !bytes.Equal(byID.Key(), key) {
			return nil, x.damage(first.Key(), errors.Join(errors.New("key leads to no entry"), byID.Error()))
		}
		s, err := decodeStored(key, append([]byte(nil), byID.Value()...))
		if err == nil && !bytes.Equal(first.Key(), statusKey(s.status, s.decided, id)) {
			err = errors.New("entry has another status or number than the key by which it was found")
		}
		if err == nil {
			err = s.decode()
		}
		if err != nil {
			return nil, x.damage(key, err)
		}
		found = append(found, s)
		size += len(s.raw)
		c.after = s.decided
		first.Next()
	}
	return found, nil
}
