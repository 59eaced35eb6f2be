package disk

import (
	"fmt"
	"testing"

	"assent/decision"
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

// What is kept at hand of unfinished transactions is bounded in number and in bytes, and forgetting it
// loses nothing but time.
func TestUnfinishedAtHandIsBounded(t *testing.T) {
	for _, size := range []int{10, 100 << 10} {
		x := &index{unfinished: map[commit.TransactionID]*stored{}}
		a := &applier{x: x}
		kept := func() (n int) {
			for _, s := range x.unfinished {
				n += s.footprint()
			}
			return n
		}
		most := 0
		for i := range 3 * recentSize {
			id := commit.TransactionID(fmt.Sprint("tx", i%(2*recentSize)))
			s := &stored{id: id, status: decision.Unfinished, raw: make([]byte, size+i%7), known: &decision.Entry{}}
			if i%5 == 0 {
				s.status = decision.Done
			}
			a.remember(id, s)
			if x.unfinishedBytes > maxUnfinishedBytes || len(x.unfinished) > recentSize {
				t.Fatalf("%d entries of %d bytes are at hand", len(x.unfinished), x.unfinishedBytes)
			}
			if got, want := x.unfinished[id] != nil, s.status == decision.Unfinished; got != want {
				t.Fatalf("%s is at hand: %v", id, got)
			}
			most = max(most, len(x.unfinished))
		}
		if x.unfinishedBytes != kept() {
			t.Errorf("%d bytes are counted, and %d are kept", x.unfinishedBytes, kept())
		}
		if most < 10 {
			t.Errorf("only %d entries are ever at hand", most)
		}
	}
}
