package check

import "sync"

// visited is the set of states seen, as fingerprints, each with the fingerprint of the state that
// it was first reached from. A fingerprint of 0 is written as 1.
type visited struct {
	shards [256]shard
}

type shard struct {
	mu    sync.Mutex
	table []seen // a power of two long, with open addressing
	used  int
}

type seen struct{ state, parent uint64 }

func fingerprint(h uint64) uint64 {
	if h == 0 {
		return 1
	}
	return h
}

// add puts state in the set and reports whether it is new. A parent of 0 marks an initial state.
func (v *visited) add(state, parent uint64) bool {
	s := &v.shards[state>>56]
	s.mu.Lock()
	defer s.mu.Unlock()
	if 4*(s.used+1) > 3*len(s.table) {
		s.grow()
	}
	i := s.find(state)
	if s.table[i].state == state {
		return false
	}
	s.table[i] = seen{state, parent}
	s.used++
	return true
}

// parent returns the fingerprint of the state from which state was first reached.
func (v *visited) parent(state uint64) uint64 {
	s := &v.shards[state>>56]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table[s.find(state)].parent
}

// find returns where state is, or belongs.
func (s *shard) find(state uint64) int {
	mask := len(s.table) - 1
	for i := int(state) & mask; ; i = (i + 1) & mask {
		if s.table[i].state == state || s.table[i].state == 0 {
			return i
		}
	}
}

func (s *shard) grow() {
	old := s.table
	s.table = make([]seen, max(64, 2*len(old)))
	for _, e := range old {
		if e.state != 0 {
			s.table[s.find(e.state)] = e
		}
	}
}

// bytes is the memory that the set takes.
func (v *visited) bytes() (n int) {
	for i := range v.shards {
		s := &v.shards[i]
		s.mu.Lock()
		n += 16 * len(s.table)
		s.mu.Unlock()
	}
	return n
}
