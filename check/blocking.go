package check

import "slices"

// blocking finds the states from which a node that is up can no longer come to its end, whatever
// happens short of another fault: it goes through all states once more, notes which leads to which
// without a fault, and walks back from the ends.
func (x *explorer) blocking(r *Report) error {
	g, err := x.graph()
	if err != nil {
		return err
	}
	blocked := make([]bool, len(g.tuples))
	for node := range x.sys.Nodes {
		can := make([]bool, len(g.tuples))
		var stack []uint32
		for i, tuple := range g.tuples {
			l := x.local(tuple[node])
			if !l.up || x.claims.Decided(node, l.machine) {
				can[i] = true
				stack = append(stack, uint32(i))
			}
		}
		for len(stack) > 0 {
			i := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			for _, from := range g.before[i] {
				if !can[from] {
					can[from] = true
					stack = append(stack, from)
				}
			}
		}
		for i := range can {
			if !can[i] {
				blocked[i] = true
			}
		}
	}
	first := -1
	for i, b := range blocked {
		if b {
			r.Blocking++
			if first < 0 {
				first = i // states are in order of depth
			}
		}
	}
	if first < 0 {
		return nil
	}
	c, err := x.path("every node that is up can come to its end", x.fingerprint(g.tuples[first]))
	if err != nil {
		return err
	}
	r.Blocked = &c
	return nil
}

// graph is the whole of the states, with what leads where without a fault.
type graph struct {
	tuples [][]uint32
	before [][]uint32 // for each state, those that lead to it without a fault
}

func (x *explorer) graph() (*graph, error) {
	g := &graph{}
	numbers := map[uint64]uint32{}
	add := func(tuple []uint32) uint32 {
		h := x.fingerprint(tuple)
		n, ok := numbers[h]
		if !ok {
			n = uint32(len(g.tuples))
			numbers[h] = n
			g.tuples = append(g.tuples, slices.Clone(tuple))
			g.before = append(g.before, nil)
		}
		return n
	}
	beginnings, err := x.beginnings()
	if err != nil {
		return nil, err
	}
	for _, tuple := range beginnings {
		add(tuple)
	}
	w := &worker{x: x, memo: memo{}}
	for i := 0; i < len(g.tuples); i++ {
		err := x.successors(w, g.tuples[i], func(a action, next []uint32) {
			to := add(next)
			if !a.faulty() {
				g.before[to] = append(g.before[to], uint32(i))
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return g, nil
}
