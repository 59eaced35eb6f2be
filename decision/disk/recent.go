package disk

import (
	"hash/maphash"
	"sync"

	"assent/decision"
	"assent/protocol/commit"
)

// recent holds the entries that were changed lately, as they are now, in front of the index. What is
// changed several times within a short time, as most entries are, is written to the index once, and
// what comes and goes is not written at all. Nothing is lost with it: its records are in segments.
type recent struct {
	sync.RWMutex
	census census
	// active is what the writing goroutine changes, frozen what is on its way into the index; nil if
	// nothing is. What is in neither is in the index, if anywhere.
	active, frozen *generation
	// dropped is how many generations were frozen, written and dropped. While it is the same, what the
	// index says of entries that are neither in active nor in frozen is the same.
	dropped uint64
}

// generation holds the entries that were changed between two moments.
type generation struct {
	items map[commit.TransactionID]item
	size  int    // the memory that it takes, roughly
	done  int    // how many more Done entries there are at its end than at its beginning
	last  uint64 // the sequence number of the last record applied; 0 if there is none
}

// item is an entry that was changed.
type item struct {
	was place   // where the index will find it when it holds all older generations
	now *stored // as it is; nil if it is gone
}

func newGeneration(entries int) *generation {
	return &generation{items: make(map[commit.TransactionID]item, entries)}
}

func newRecent(c census) *recent { return &recent{census: c, active: newGeneration(0)} }

// A generation is left to the index when it has so many entries or takes so much memory, at the latest
// after careTime. When the index is behind, it grows up to maxGrowth times as large before writers wait.
const (
	generationEntries = 8192
	generationBytes   = 8 << 20
	maxGrowth         = 2
)

// full reports whether g has n times the size of a generation.
func (g *generation) full(n int) bool {
	return len(g.items) >= n*generationEntries || g.size >= n*generationBytes
}

// get returns what stands of id; elsewhere says that the index knows. The caller holds r.
func (r *recent) get(id commit.TransactionID) (s *stored, elsewhere bool) {
	if !r.census.has(id) {
		return nil, false
	}
	if it, ok := r.active.items[id]; ok {
		return it.now, false
	}
	if r.frozen != nil {
		if it, ok := r.frozen.items[id]; ok {
			return it.now, false
		}
	}
	return nil, true
}

// find is get for those who do not hold r.
func (r *recent) find(id commit.TransactionID) (s *stored, elsewhere bool) {
	r.RLock()
	defer r.RUnlock()
	return r.get(id)
}

// set replaces in the active generation what stands of id, cur, by now; either may be nil. The caller
// holds r.
func (r *recent) set(id commit.TransactionID, cur, now *stored) {
	g := r.active
	it, ok := g.items[id]
	if !ok {
		it.was = cur.place()
		g.size += itemSize
	} else {
		g.size -= it.now.size()
	}
	it.now = now
	g.size += now.size()
	g.done += done(now) - done(cur)
	r.census.add(id, here(now)-here(cur))
	if it.was == (place{}) && now == nil {
		// Come and gone: the index need not hear of it.
		delete(g.items, id)
		g.size -= itemSize
		return
	}
	g.items[id] = it
}

func here(s *stored) int {
	if s == nil {
		return 0
	}
	return 1
}

func done(s *stored) int {
	if s == nil || s.done == 0 {
		return 0
	}
	return 1
}

// freeze ends the active generation; the one before must have been dropped.
func (r *recent) freeze() *generation {
	r.Lock()
	defer r.Unlock()
	r.frozen, r.active = r.active, newGeneration(len(r.active.items))
	return r.frozen
}

// retire marks entries of the index as gone, in the frozen generation, up to the first that was
// changed lately. It returns how many.
func (r *recent) retire(old []stored) (n int) {
	for len(old) > 0 {
		some := old[:min(retireBatch, len(old))]
		gone := r.retireSome(some)
		if n += gone; gone < len(some) {
			break
		}
		old = old[gone:]
	}
	return n
}

func (r *recent) retireSome(old []stored) int {
	r.Lock()
	defer r.Unlock()
	for i := range old {
		s := &old[i]
		if _, elsewhere := r.get(s.id); !elsewhere {
			return i
		}
		r.frozen.items[s.id] = item{was: s.place()}
		r.frozen.done--
		r.census.add(s.id, -1)
	}
	return len(old)
}

// drop forgets the frozen generation, which the index holds now.
func (r *recent) drop() {
	r.Lock()
	defer r.Unlock()
	r.frozen = nil
	r.dropped++
}

// version is a value of dropped.
func (r *recent) version() uint64 {
	r.RLock()
	defer r.RUnlock()
	return r.dropped
}

// census counts the entries, in memory and in the index, by a hash of their ids: where there is none,
// nobody need look. It takes some 40 bytes of memory for an entry.
type census struct {
	seed   maphash.Seed
	counts map[uint64]int
}

func newCensus() census { return census{maphash.MakeSeed(), map[uint64]int{}} }

// has reports whether there may be an entry of id.
func (c census) has(id commit.TransactionID) bool {
	return c.counts[maphash.String(c.seed, string(id))] > 0
}

// add counts n entries of id more.
func (c census) add(id commit.TransactionID, n int) {
	if n == 0 {
		return
	}
	h := maphash.String(c.seed, string(id))
	if now := c.counts[h] + n; now > 0 {
		c.counts[h] = now
	} else {
		delete(c.counts, h)
	}
}

// itemSize is the memory of an item without what it leads to, roughly.
const itemSize = 128

// size is the memory that s takes, roughly.
func (s *stored) size() int {
	if s == nil {
		return 0
	}
	n := 2*len(s.id) + len(s.raw) + 256
	if e := s.known; e != nil {
		n += len(e.By) + len(e.Reason)
		for i := range e.Branches {
			n += 64 + len(e.Branches[i].Resource) + len(e.Branches[i].Evidence)
		}
		for i := range e.Notes {
			n += 160 + len(e.Notes[i].Branch) + len(e.Notes[i].By) + len(e.Notes[i].Reason)
		}
	}
	return n
}

// place says under which keys the index holds an entry. The zero value says that it does not.
type place struct {
	status  decision.Status
	decided uint64
	done    uint64
}

func (s *stored) place() place {
	if s == nil {
		return place{}
	}
	return place{s.status, s.decided, s.done}
}
