package check

import (
	"fmt"
	"math/bits"
	"slices"
)

// maxAnySends bounds the distinct messages of one step of which any set may leave: 2 to that power are tried.
const maxAnySends = 16

// departures calls yield with each set of sends, as bits, that may have left before a crash within
// the step: the first few, or any where nodes are interchangeable, for the order in which a machine
// turns to them would tell them apart. A step that wrote nothing leaves nothing behind without a
// send, and one whose sends have all left has not crashed within. Of equal sends the first few
// leave: which of them makes no difference.
func (x *explorer) departures(sends []uint32, wrote bool, yield func(sent uint64)) error {
	if wrote {
		yield(0)
	}
	if x.symmetry == nil || len(sends) < 2 {
		for k := 1; k < len(sends); k++ {
			yield(1<<k - 1)
		}
		return nil
	}
	places := map[uint32][]int{}
	distinct, sets := []uint32(nil), 1.0
	for i, m := range sends {
		if places[m] == nil {
			distinct = append(distinct, m)
		}
		if places[m] = append(places[m], i); len(places[m]) == 1 || !x.forever {
			sets *= float64(len(places[m])+1) / float64(len(places[m]))
		}
	}
	if sets > 1<<maxAnySends+0.5 {
		return fmt.Errorf("%w: a step sends %d messages, %d different ones; at most %d, or as many sets of them, are allowed where nodes are interchangeable and may crash",
			ErrSystem, len(sends), len(distinct), maxAnySends)
	}
	var all []uint64
	x.leave(distinct, places, 0, len(sends), func(sent uint64) { all = append(all, sent) })
	slices.Sort(all)
	for _, sent := range all {
		yield(sent)
	}
	return nil
}

// leave calls yield with sent and each number of each of the rest, but not with none or all of the sends.
func (x *explorer) leave(rest []uint32, places map[uint32][]int, sent uint64, all int, yield func(sent uint64)) {
	if len(rest) == 0 {
		if n := bits.OnesCount64(sent); n > 0 && n < all {
			yield(sent)
		}
		return
	}
	x.leave(rest[1:], places, sent, all, yield)
	for _, place := range places[rest[0]] {
		sent |= 1 << place
		x.leave(rest[1:], places, sent, all, yield)
		if x.forever {
			break // however many of them there are
		}
	}
}
