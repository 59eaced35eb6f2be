package check

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"assent/protocol"
)

// fault is a kind of fault, or of repair, that has a budget.
type fault uint8

const (
	crash fault = iota
	restart
	loss
	duplication
	partition
	cutting
	healing
	lying
	faultKinds
)

func (f Faults) budgets() [faultKinds]int {
	return [faultKinds]int{crash: f.Crashes, restart: f.Restarts, loss: f.Losses, duplication: f.Duplicates,
		partition: f.Partitions, cutting: f.Cuts, healing: f.Heals, lying: f.Lies}
}

// world is what belongs to no node: the faults used up, as far as their budgets are counted, and the
// links that are cut. It is never changed.
type world struct {
	used [faultKinds]uint8
	// cut has, by receiver, the nodes from which nothing gets through. It is nil where no link
	// is cut.
	cut  []uint32
	hash uint64

	spent [faultKinds]atomic.Uint32 // one more than the number of the world with one fault more
	once  sync.Once
	turns []turn
}

// turn is something that can happen to the links.
type turn struct {
	kind kind
	what string
	to   uint32   // the number of the world then
	cut  []uint32 // as in world
}

// severed reports whether nothing gets through from one node to another.
func (w *world) severed(from, to int) bool { return w.cut != nil && w.cut[to]>>from&1 != 0 }

func (x *explorer) internWorld(used [faultKinds]uint8, cut []uint32) uint32 {
	if !slices.ContainsFunc(cut, func(from uint32) bool { return from != 0 }) {
		cut = nil
	}
	key := fmt.Sprint(used, cut)
	return x.worlds.put(key, func(uint32) *world {
		return &world{used: used, cut: cut, hash: hash("world " + key)}
	})
}

// spend returns the world with one more fault of a kind, and whether the budget allows it.
func (x *explorer) spend(number uint32, f fault) (uint32, bool) {
	switch x.budget[f] {
	case 0:
		return number, false
	case Unlimited:
		return number, true
	}
	w := x.worlds.get(number)
	if int(w.used[f]) >= x.budget[f] {
		return number, false
	}
	if n := w.spent[f].Load(); n != 0 {
		return n - 1, true
	}
	used := w.used
	used[f]++
	n := x.internWorld(used, w.cut)
	w.spent[f].Store(n + 1)
	return n, true
}

// turnsOf returns what can happen to the links in a world. Under a partition two groups of nodes are
// cut off from each other; a cut breaks one link in one direction; healing repairs all links.
func (x *explorer) turnsOf(number uint32) []turn {
	w := x.worlds.get(number)
	w.once.Do(func() {
		n := len(x.sys.Nodes)
		if after, ok := x.spend(number, partition); ok {
			for side := uint32(1); side < 1<<n-1; side += 2 { // the side of node 0
				x.turn(w, partitioned, fmt.Sprintf("the network splits: %s", x.sides(side)), after, split(n, side))
			}
		}
		if after, ok := x.spend(number, cutting); ok {
			for i := range n * n {
				from, to := i/n, i%n
				if from == to {
					continue
				}
				links := make([]uint32, n)
				links[to] = 1 << from
				what := fmt.Sprintf("nothing gets through from %s to %s any more", x.sys.Nodes[from].ID, x.sys.Nodes[to].ID)
				x.turn(w, severed, what, after, links)
			}
		}
		if after, ok := x.spend(number, healing); ok && w.cut != nil {
			used := x.worlds.get(after).used
			w.turns = append(w.turns, turn{kind: healed, what: "the network is whole again", to: x.internWorld(used, nil)})
		}
	})
	return w.turns
}

// turn adds to what can happen in w that links are cut, where this changes anything.
func (x *explorer) turn(w *world, k kind, what string, after uint32, links []uint32) {
	for to := range links {
		if w.cut != nil {
			links[to] |= w.cut[to]
		}
	}
	if slices.Equal(links, w.cut) {
		return
	}
	w.turns = append(w.turns, turn{k, what, x.internWorld(x.worlds.get(after).used, links), links})
}

// split cuts all links between a side and the rest of n nodes.
func split(n int, side uint32) []uint32 {
	links := make([]uint32, n)
	for to := range links {
		links[to] = side
		if side>>to&1 != 0 {
			links[to] = ^side & (1<<n - 1)
		}
	}
	return links
}

func (x *explorer) sides(side uint32) string {
	var sides [2][]protocol.NodeID
	for i, node := range x.sys.Nodes {
		s := 1 - side>>i&1
		sides[s] = append(sides[s], node.ID)
	}
	return fmt.Sprintf("%v here, %v there", sides[0], sides[1])
}
