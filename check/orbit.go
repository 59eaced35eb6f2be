package check

import (
	"fmt"
	"math/bits"

	"assent/protocol"
)

// orbits finds representatives, and remembers what parts become.
type orbits struct {
	y      *symmetry
	w      *worker // makes renamed states
	looks  []uint64
	images map[renaming]*images
}

// images are what parts become, by part and by number: one more than the number of the renamed part, or
// 0 where it is not known yet.
type images [parts][]uint32

type part uint8

const (
	localPart part = iota
	messagePart
	worldPart
	parts
)

func newOrbits(y *symmetry) *orbits {
	return &orbits{y: y, w: y.x.newWorker(), looks: make([]uint64, len(y.nodes)), images: map[renaming]*images{}}
}

// representative returns the state that stands for all that differ from s in the names of
// interchangeable nodes only, and the renaming that leads there. It is valid until the next call.
func (o *orbits) representative(s state) (state, renaming, error) {
	clear(o.looks)
	x, n := o.y.x, len(o.y.place)
	for _, l := range s.tuple[:n] {
		for i, look := range o.w.local(l).looks {
			o.looks[i] += look
		}
	}
	if v := x.worlds.get(s.tuple[n]); v.cut != nil {
		for i := range o.looks {
			o.looks[i] += o.y.looksOfWorld(v, i)
		}
	}
	x.eachMessage(s, func(m uint32) {
		for i, look := range o.w.message(m).looks {
			o.looks[i] += look
		}
	})
	r := o.y.order(o.looks)
	if r == sameNames {
		return s, r, nil
	}
	renamed, err := o.rename(s, r)
	return renamed, r, err
}

// rename returns s with other names, in scratch memory.
func (o *orbits) rename(s state, r renaming) (state, error) {
	x, w, n := o.y.x, o.w, len(o.y.place)
	known := o.images[r]
	if known == nil {
		known = new(images)
		o.images[r] = known
	}
	w.tuple, w.sum = append(w.tuple[:0], s.tuple[:n+1]...), 0
	for i, l := range s.tuple[:n] {
		number, err := o.image(known, localPart, l, r)
		if err != nil {
			return state{}, err
		}
		w.tuple[o.y.node(i, r)] = number
		w.sum += w.local(number).hash
	}
	v, err := o.image(known, worldPart, s.tuple[n], r)
	if err != nil {
		return state{}, err
	}
	w.tuple[n] = v
	w.sum += x.worlds.get(v).hash
	x.eachMessage(s, func(m uint32) {
		number, bad := o.image(known, messagePart, m, r)
		if bad != nil {
			err = bad
			return
		}
		w.add(number)
	})
	return w.now(), err
}

// image returns the number of a part when it is renamed.
func (o *orbits) image(known *images, p part, number uint32, r renaming) (uint32, error) {
	for int(number) >= len(known[p]) {
		known[p] = append(known[p], 0)
	}
	if n := known[p][number]; n != 0 {
		return n - 1, nil
	}
	n, err := o.y.image(p, number, r)
	known[p][number] = n + 1
	return n, err
}

func (y *symmetry) image(p part, number uint32, r renaming) (uint32, error) {
	x := y.x
	rename := func(id protocol.NodeID) protocol.NodeID {
		if place, ok := y.places[id]; ok {
			return x.sys.Nodes[y.nodes[r.of(place)]].ID
		}
		return id
	}
	switch p {
	case localPart:
		s := x.local(number).snapshot
		s, err := y.renameSnapshot(s, y.node(s.node, r), rename)
		if err != nil {
			return 0, err
		}
		return x.intern(s)
	case messagePart:
		m := x.messages.get(number)
		value, err := y.rename(m.value, rename)
		if err != nil {
			return 0, err
		}
		return x.internMessage(y.node(m.from, r), y.node(m.to, r), value)
	}
	v := x.worlds.get(number)
	if v.cut == nil {
		return number, nil
	}
	cut := make([]uint32, len(v.cut))
	for to, senders := range v.cut {
		for ; senders != 0; senders &= senders - 1 {
			cut[y.node(to, r)] |= 1 << y.node(bits.TrailingZeros32(senders), r)
		}
	}
	return x.internWorld(v.used, cut), nil
}

// eachMessage calls f with the number of each message under way, as often as it is.
func (x *explorer) eachMessage(s state, f func(uint32)) {
	rest := s.tuple[len(x.sys.Nodes)+1:]
	if !x.forever {
		for _, m := range rest {
			f(m)
		}
		return
	}
	for k, word := range rest {
		for ; word != 0; word &= word - 1 {
			f(uint32(k<<5 + bits.TrailingZeros32(word)))
		}
	}
}

// verify reports nodes that are said to be interchangeable and begin otherwise: exchanging two
// neighbours of a group must lead from initial states to initial states.
func (y *symmetry) verify(beginnings [][]uint32) error {
	for p := 1; p < len(y.nodes); p++ {
		if y.group[p] != y.group[p-1] {
			continue
		}
		r := sameNames.with(p, p-1).with(p-1, p)
		for i, locals := range beginnings {
			j := y.node(i, r)
			known := map[uint32]bool{}
			for _, l := range beginnings[j] {
				known[l] = true
			}
			for _, l := range locals {
				n, err := y.image(localPart, l, r)
				if err != nil {
					return err
				}
				if !known[n] {
					return fmt.Errorf("%w: %s and %s are not interchangeable: the beginnings of %s tell them apart", ErrSystem,
						y.x.sys.Nodes[y.nodes[p-1]].ID, y.x.sys.Nodes[y.nodes[p]].ID, y.x.sys.Nodes[i].ID)
				}
			}
		}
	}
	return nil
}
