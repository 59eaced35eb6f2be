package trace

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"assent/protocol"
)

// mostScopes bounds what a Digest remembers.
const mostScopes = 1 << 20

// Digest sums up the scopes of a trace.
type Digest struct {
	scopes map[string]*ScopeDigest
	downs  map[protocol.NodeID]int // how often each node has crashed
	seen   int
}

// ScopeDigest sums up one scope.
type ScopeDigest struct {
	Name string
	// Events counts them; First is the number of the first.
	Events, First int
	// Began and Ended are the times of the first and the last.
	Began, Ended time.Duration
	// Nodes counts the nodes.
	Nodes int
	// Crashed says that a node of the scope crashed between two of its events.
	Crashed bool
	// Said is the last thing that was said of how it ended: a brief value that was emitted.
	Said string

	nodes map[protocol.NodeID]int // with the crashes of the node when it was seen first
}

// NewDigest returns a digest of no events.
func NewDigest() *Digest {
	return &Digest{scopes: map[string]*ScopeDigest{}, downs: map[protocol.NodeID]int{}}
}

// Add takes the next event.
func (d *Digest) Add(e Event) {
	d.seen++
	if e.Kind == Crash {
		d.downs[e.Node]++
	}
	if e.Scope == "" {
		return
	}
	s := d.scopes[e.Scope]
	if s == nil {
		if len(d.scopes) >= mostScopes {
			return
		}
		s = &ScopeDigest{Name: e.Scope, First: d.seen, Began: e.At, nodes: map[protocol.NodeID]int{}}
		d.scopes[e.Scope] = s
	}
	s.Events++
	s.Ended = e.At
	if downs, ok := s.nodes[e.Node]; !ok {
		s.nodes[e.Node] = d.downs[e.Node]
		s.Nodes++
	} else if downs != d.downs[e.Node] {
		s.Crashed = true
	}
	if e.Kind == Emit {
		if said := Brief(e.Value); strings.HasPrefix(said, "Concluded") || strings.HasPrefix(said, "Contradicted") {
			s.Said = said
		}
	}
}

// Scopes returns the scopes in the order of their first events.
func (d *Digest) Scopes() []*ScopeDigest {
	all := make([]*ScopeDigest, 0, len(d.scopes))
	for _, s := range d.scopes {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *ScopeDigest) int { return cmp.Compare(a.First, b.First) })
	return all
}

// Remark tells what is worth knowing of the scope, in words.
func (s *ScopeDigest) Remark() string {
	if s.Crashed {
		return strings.TrimSuffix(fmt.Sprintf("crossed by a crash, %s", s.Said), ", ")
	}
	return s.Said
}
