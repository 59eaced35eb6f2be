package disk

import (
	"fmt"
	"testing"

	"assent/protocol/commit"
)

// Everything decided after the floor is found, however many are forgotten.
func TestRecentFindsEverythingAboveItsFloor(t *testing.T) {
	r := recent{now: map[commit.TransactionID]uint64{}, before: map[commit.TransactionID]uint64{}}
	const perGroup = 37
	id := func(i int) commit.TransactionID { return commit.TransactionID(fmt.Sprint("tx", i)) }
	for i := range 5 * recentSize {
		r.add(id(i), uint64(i/perGroup)+1)
		if i%1001 != 0 {
			continue
		}
		for j := range i + 1 {
			group := uint64(j/perGroup) + 1
			if got, ok := r.find(id(j)); group > r.floor && (!ok || got != group) {
				t.Fatalf("after %d: %q of group %d, above the floor %d, is found as %d, %v", i, id(j), group, r.floor, got, ok)
			}
		}
		if len(r.now)+len(r.before) > 2*recentSize {
			t.Fatalf("%d are remembered", len(r.now)+len(r.before))
		}
	}
	if r.floor == 0 {
		t.Error("nothing was ever forgotten")
	}
}
