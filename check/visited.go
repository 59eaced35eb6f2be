package check

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// visited is the set of states seen, as fingerprints in a table with open addressing. Adding takes no
// lock. Whoever adds holds mu for reading, and has room; to make room takes mu for writing, so that
// the table grows while nobody adds.
//
// A fingerprint's place is its share of all fingerprints. So a longer table has its entries in the same
// order, and growing reads and writes memory from front to back; and the table may have any length.
type visited struct {
	mu       sync.RWMutex
	slots    []uint64 // 0 is free
	reserved int      // slots that are used or for which a worker has room
}

const (
	fewestSlots = 1 << 12
	roomAtOnce  = 256
)

// fingerprint makes the sum of a state's hashes a fingerprint: 0 marks a free slot.
func fingerprint(sum uint64) uint64 {
	if sum == 0 {
		return 1
	}
	return sum
}

// recent holds some of the fingerprints that one worker has added lately, each in the place of an earlier
// one. Of the states that lead to the same state most are expanded soon after one another, so that
// most duplicates are found here, and the table is not asked.
type recent [1 << recentBits]uint64

const recentBits = 12 // 32 KiB, which stay near the processor

// has reports whether h is there.
func (r *recent) has(h uint64) bool { return r[h>>(64-recentBits)] == h }

// add puts h there.
func (r *recent) add(h uint64) { r[h>>(64-recentBits)] = h }

// room reserves slots for one worker, who must not hold mu: at least as many as are needed. It
// returns how many.
func (v *visited) room(needed int) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	// To lock it all workers must stop, so the more there is the more is taken at once.
	needed = max(needed, roomAtOnce, len(v.slots)/32)
	for 4*(v.reserved+needed) > 3*len(v.slots) {
		v.grow()
	}
	v.reserved += needed
	return needed
}

func (v *visited) grow() {
	old := v.slots
	v.slots = make([]uint64, max(fewestSlots, len(old)+len(old)/2))
	for _, h := range old {
		if h != 0 {
			v.slots[v.find(h)] = h
		}
	}
}

// place returns where to look for h first.
func (v *visited) place(h uint64) int {
	place, _ := bits.Mul64(h, uint64(len(v.slots)))
	return int(place)
}

// touch brings the slot where h is likely to be near the processor. The slots for several
// fingerprints are fetched at once, where add waits for each.
func (v *visited) touch(h uint64) uint64 { return atomic.LoadUint64(&v.slots[v.place(h)]) }

// add puts a fingerprint in the set and reports whether it is new.
func (v *visited) add(h uint64) bool {
	for i := v.place(h); ; i++ {
		if i == len(v.slots) {
			i = 0
		}
		there := atomic.LoadUint64(&v.slots[i])
		if there == 0 {
			if atomic.CompareAndSwapUint64(&v.slots[i], 0, h) {
				return true
			}
			there = atomic.LoadUint64(&v.slots[i])
		}
		if there == h {
			return false
		}
	}
}

// find returns the slot where h is, or belongs. Nobody adds meanwhile.
func (v *visited) find(h uint64) int {
	for i := v.place(h); ; i++ {
		if i == len(v.slots) {
			i = 0
		}
		if v.slots[i] == h || v.slots[i] == 0 {
			return i
		}
	}
}

// bytes is the memory that the set takes.
func (v *visited) bytes() int {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return 8 * len(v.slots)
}
