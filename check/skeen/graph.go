package skeen

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"assent/check"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/trace"
)

// graph is the machines' reachable states, projected.
type graph struct {
	roles               []string
	groups              [][]int // of interchangeable sites
	states, transitions int
	begin               map[vector]bool
	steps               map[vector]map[vector]int // from and to, with the site that moves
	seen                map[inRole]*seen
	moves               map[moved]map[string]bool // what happens, as text
}

// inRole is a local state of a role.
type inRole struct {
	role   string
	letter commit.Letter
}

// moved is a transition of a role.
type moved struct {
	role     string
	from, to commit.Letter
}

// vector is one local state for each site, 0 where there is none.
type vector [maxSites]byte

// String writes the vector as the papers do, the sites numbered from 1: "w1 w2 a3".
func (v vector) String() string {
	var b strings.Builder
	for i, l := range v {
		if l != 0 {
			fmt.Fprintf(&b, " %c%d", l, i+1)
		}
	}
	return strings.TrimPrefix(b.String(), " ")
}

func (v vector) letter(site int) commit.Letter { return commit.Letter(v[site : site+1]) }

// exchanged returns the vector in which two sites have changed places.
func (v vector) exchanged(i, j int) vector {
	v[i], v[j] = v[j], v[i]
	return v
}

// seen is what was seen of a role's local state.
type seen struct {
	machine     map[string]bool
	committable bool
	beside      map[string]map[commit.Letter]bool
}

// projection is what is left of a global state: the letters, and whether all who vote have voted yes.
type projection struct {
	letters vector
	allYes  bool
}

// explore goes through all states of the quiet system. Of states that differ only in which of the
// sites of a role is which it sees one at least, and adds the others' vectors in the end.
func explore(ctx context.Context, p Protocol, limits check.Limits) (*graph, error) {
	g := &graph{roles: p.Roles, begin: map[vector]bool{}, steps: map[vector]map[vector]int{}, seen: map[inRole]*seen{}, moves: map[moved]map[string]bool{}}
	if p.Alike {
		g.groups = alike(p.Roles)
	}
	var strange error
	known := map[projection]bool{}
	sys := check.System{Nodes: p.Quiet, Codec: p.Codec, Model: check.Synchronous, Symmetric: g.groups}
	states, err := check.Walk(ctx, sys, limits, func(from, to check.State, m check.Move) {
		if strange != nil {
			return
		}
		var after projection
		if after, strange = g.project(to); strange != nil {
			return
		}
		if !known[after] {
			known[after] = true
			g.look(after)
		}
		if m.Initial {
			g.begin[after.letters] = true
			g.reach(after.letters)
			for i := range p.Roles {
				g.name(i, to, after.letters)
			}
			return
		}
		g.transitions++
		g.name(m.Node, to, after.letters)
		before := after.letters // but for the site that moves
		before[m.Node] = from.Machine(m.Node).(Site).Letter()[0]
		if before != after.letters {
			g.reach(before)[after.letters] = m.Node
			g.reach(after.letters)
			g.move(m, before, after.letters)
		}
	})
	if err == nil {
		err = strange
	}
	g.states = states
	g.complete()
	return g, err
}

// alike groups the places of the sites of each role.
func alike(roles []string) (groups [][]int) {
	for _, role := range distinct(roles) {
		var group []int
		for i, r := range roles {
			if r == role {
				group = append(group, i)
			}
		}
		if len(group) > 1 {
			groups = append(groups, group)
		}
	}
	return groups
}

// project returns what is left of a global state.
func (g *graph) project(s check.State) (r projection, err error) {
	r.allYes = true
	for i := range g.roles {
		m, ok := s.Machine(i).(Site)
		if !ok {
			return r, fmt.Errorf("%w: the machine of a %s shows no letter: %T", ErrProtocol, g.roles[i], s.Machine(i))
		}
		l := m.Letter()
		if len(l) != 1 {
			return r, fmt.Errorf("%w: a %s is in no local state of the papers: %s", ErrProtocol, g.roles[i], m.StateName())
		}
		r.letters[i] = l[0]
		at := m.Standing()
		r.allYes = r.allYes && (!at.Participant || at.Branch == commit.BranchInDoubt || at.Branch == commit.BranchCommitted)
	}
	return r, nil
}

// at returns what was seen of the local state of a site.
func (g *graph) at(site int, v vector) *seen {
	at := inRole{g.roles[site], v.letter(site)}
	if g.seen[at] == nil {
		g.seen[at] = &seen{machine: map[string]bool{}, committable: true, beside: map[string]map[commit.Letter]bool{}}
	}
	return g.seen[at]
}

// name takes in what the machine of a site calls its state.
func (g *graph) name(site int, s check.State, v vector) {
	g.at(site, v).machine[s.Machine(site).(Site).StateName()] = true
}

// look takes in what each site is beside.
func (g *graph) look(r projection) {
	for i := range g.roles {
		s := g.at(i, r.letters)
		s.committable = s.committable && r.allYes
		for j, other := range g.roles {
			if j == i {
				continue
			}
			if s.beside[other] == nil {
				s.beside[other] = map[commit.Letter]bool{}
			}
			s.beside[other][r.letters.letter(j)] = true
		}
	}
}

// reach takes in a vector and returns what follows it.
func (g *graph) reach(v vector) map[vector]int {
	if g.steps[v] == nil {
		g.steps[v] = map[vector]int{}
	}
	return g.steps[v]
}

// move takes in that a site goes from one letter to another.
func (g *graph) move(m check.Move, from, to vector) {
	key := moved{g.roles[m.Node], from.letter(m.Node), to.letter(m.Node)}
	if g.moves[key] == nil {
		g.moves[key] = map[string]bool{}
	}
	g.moves[key][happening(m)] = true
}

// complete adds what follows from what was seen when sites of one role change places.
func (g *graph) complete() {
	queue := slices.Collect(maps.Keys(g.steps))
	for len(queue) > 0 {
		v := queue[0]
		queue = queue[1:]
		for _, group := range g.groups {
			for k, i := range group[1:] {
				j := group[k]
				w := v.exchanged(i, j)
				_, known := g.steps[w]
				if g.begin[v] && !g.begin[w] {
					g.begin[w], known = true, false
				}
				next := g.reach(w)
				before := len(next)
				for to, site := range g.steps[v] {
					switch site {
					case i:
						site = j
					case j:
						site = i
					}
					next[to.exchanged(i, j)] = site
				}
				if !known || len(next) > before {
					queue = append(queue, w)
				}
			}
		}
	}
}

// global lists the vectors, by their distance from the initial ones and then in order, and the edges.
func (g *graph) global() (all Graph) {
	numbers := map[vector]int{}
	for level := ordered(g.begin); len(level) > 0; {
		for _, v := range level {
			numbers[v] = len(all.Vectors)
			all.Vectors = append(all.Vectors, v.String())
		}
		level = g.beyond(level, numbers)
	}
	for from, next := range g.steps {
		for to, site := range next {
			all.Edges = append(all.Edges, Edge{From: numbers[from], To: numbers[to], Site: site + 1})
		}
	}
	slices.SortFunc(all.Edges, func(a, b Edge) int { return cmp.Or(a.From-b.From, a.To-b.To) })
	return all
}

// beyond returns what follows the vectors of a level and is not numbered yet, in order.
func (g *graph) beyond(level []vector, numbers map[vector]int) (next []vector) {
	found := map[vector]bool{}
	for _, v := range level {
		for to := range g.steps[v] {
			if _, known := numbers[to]; !known {
				found[to] = true
			}
		}
	}
	return ordered(found)
}

func ordered(set map[vector]bool) []vector {
	return slices.SortedFunc(maps.Keys(set), func(a, b vector) int {
		for i := range a {
			if a[i] != b[i] {
				return strings.IndexByte(inVectors, a[i]) - strings.IndexByte(inVectors, b[i])
			}
		}
		return 0
	})
}

// inVectors is the order of the letters in vectors: 0 stands where there is no site.
const inVectors = "\x00qwpac"

// diagram lists the transitions of a role, in order.
func (g *graph) diagram(role string) (all []Move) {
	for _, from := range commit.Letters() {
		for _, to := range commit.Letters() {
			if on := g.moves[moved{role, from, to}]; on != nil {
				all = append(all, Move{From: from, To: to, On: sorted(on)})
			}
		}
	}
	return all
}

func sorted(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }

// happening tells a transition as state diagrams do: what is taken, a slash, what is sent.
func happening(m check.Move) string {
	text := ""
	switch ev := m.Event.(type) {
	case protocol.Start:
		text = "start"
	case protocol.Receive:
		text = trace.Brief(ev.Message)
	case protocol.Expire:
		text = "timer " + ev.Timer
	case protocol.Input:
		text = trace.Brief(ev.Value)
	}
	var sent []string
	for _, s := range m.Sends {
		if word := trace.Brief(s.Message); !slices.Contains(sent, word) {
			sent = append(sent, word)
		}
	}
	if len(sent) == 0 {
		return text
	}
	return text + " / " + strings.Join(sent, ", ")
}
