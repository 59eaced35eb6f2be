package skeen

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// paper is a commit protocol in the shape of Skeen's model (1981, section 3): a site is a finite
// automaton; a transition reads messages and writes messages in one step; a global state is the
// vector of the sites' local states with the messages outstanding.
//
// The published numbers of global states come out where: whoever is asked votes either way; a site
// aborts on one no and reads no other message then; what nobody reads stays outstanding; in the
// central protocols the coordinator votes last, when it has read a yes from everybody, and tells
// everybody when it aborts, those too who have aborted already.
type paper struct {
	sites   int
	phases  int
	central bool
	// voteless: the coordinator of the central protocol has no vote of its own.
	voteless bool
}

// paperState is a global state: the vector, and the outstanding messages, sorted.
type paperState struct {
	letters  vector
	messages string
}

// note names a message: what it says, from and to, as one word.
func note(what byte, from, to int) string { return fmt.Sprintf("%c%d%d", what, from, to) }

// move is a transition of one site that is possible: what it reads, where it goes, what it writes.
type move struct {
	site   int
	to     byte
	reads  []string
	writes []string
}

func (p paper) initial() paperState {
	var s paperState
	for i := range p.sites {
		s.letters[i] = 'q'
	}
	return s
}

// from is one message of a kind from each of the other sites, or from those after the first.
func (p paper) from(what byte, to int) (all []string) {
	for j := range p.sites {
		if j != to {
			all = append(all, note(what, j, to))
		}
	}
	return all
}

func (p paper) toOthers(what byte, from int) (all []string) {
	for j := range p.sites {
		if j != from {
			all = append(all, note(what, from, j))
		}
	}
	return all
}

func (p paper) moves(s paperState) (all []move) {
	for i := range p.sites {
		l := s.letters[i]
		switch {
		case !p.central:
			all = append(all, p.peer(i, l)...)
		case i == 0:
			all = append(all, p.coordinator(l)...)
		default:
			all = append(all, p.participant(i, l)...)
		}
	}
	return slices.DeleteFunc(all, func(m move) bool {
		return slices.ContainsFunc(m.reads, func(r string) bool { return !strings.Contains(s.messages, r+" ") })
	})
}

// peer: y and n are the votes, k says that the sender is in p.
func (p paper) peer(i int, l byte) (all []move) {
	switch l {
	case 'q':
		return []move{{i, 'w', nil, p.toOthers('y', i)}, {i, 'a', nil, p.toOthers('n', i)}}
	case 'w':
		for _, no := range p.from('n', i) {
			all = append(all, move{i, 'a', []string{no}, nil})
		}
		if p.phases == 3 {
			return append(all, move{i, 'p', p.from('y', i), p.toOthers('k', i)})
		}
		return append(all, move{i, 'c', p.from('y', i), nil})
	case 'p':
		return []move{{i, 'c', p.from('k', i), nil}}
	}
	return nil
}

// coordinator: x asks for votes, P, A and C move to p, a and c.
func (p paper) coordinator(l byte) (all []move) {
	switch l {
	case 'q':
		return []move{{0, 'w', nil, p.toOthers('x', 0)}}
	case 'w':
		for _, no := range p.from('n', 0) {
			all = append(all, move{0, 'a', []string{no}, p.toOthers('A', 0)})
		}
		if !p.voteless {
			all = append(all, move{0, 'a', p.from('y', 0), p.toOthers('A', 0)})
		}
		if p.phases == 3 {
			return append(all, move{0, 'p', p.from('y', 0), p.toOthers('P', 0)})
		}
		return append(all, move{0, 'c', p.from('y', 0), p.toOthers('C', 0)})
	case 'p':
		return []move{{0, 'c', p.from('k', 0), p.toOthers('C', 0)}}
	}
	return nil
}

func (p paper) participant(i int, l byte) []move {
	gets := func(what byte) []string { return []string{note(what, 0, i)} }
	says := func(what byte) []string { return []string{note(what, i, 0)} }
	switch l {
	case 'q':
		return []move{{i, 'w', gets('x'), says('y')}, {i, 'a', gets('x'), says('n')}}
	case 'w':
		next := move{i, 'c', gets('C'), nil}
		if p.phases == 3 {
			next = move{i, 'p', gets('P'), says('k')}
		}
		return []move{{i, 'a', gets('A'), nil}, next}
	case 'p':
		return []move{{i, 'c', gets('C'), nil}}
	}
	return nil
}

func (s paperState) after(m move) paperState {
	words := strings.Fields(s.messages)
	words = slices.DeleteFunc(words, func(w string) bool { return slices.Contains(m.reads, w) })
	words = append(words, m.writes...)
	slices.Sort(words)
	s.letters[m.site] = m.to
	s.messages = ""
	for _, w := range words {
		s.messages += w + " "
	}
	return s
}

// behaviour is what a model can do: its vectors, and which follows which.
type behaviour struct {
	states  int
	vectors map[vector]bool
	edges   map[[2]vector]bool
}

func (p paper) explore() behaviour {
	b := behaviour{vectors: map[vector]bool{}, edges: map[[2]vector]bool{}}
	seen := map[paperState]bool{p.initial(): true}
	queue := slices.Collect(maps.Keys(seen))
	for len(queue) > 0 {
		s := queue[0]
		queue = queue[1:]
		b.vectors[s.letters] = true
		for _, m := range p.moves(s) {
			next := s.after(m)
			b.edges[[2]vector{s.letters, next.letters}] = true
			if !seen[next] {
				seen[next] = true
				queue = append(queue, next)
			}
		}
	}
	b.states = len(seen)
	return b
}
