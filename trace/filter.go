package trace

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"assent/protocol"
)

// ErrNothing says that no event of a trace is in the part that was asked for.
var ErrNothing = errors.New("no event is in this part of the trace")

// Filter describes a part of a trace. The zero value is all of it.
type Filter struct {
	// Scope is the scope's name, or what it begins or ends with. What happens to whole nodes belongs
	// to every scope, while events of the scope come after it.
	Scope string
	// Nodes are the nodes, with what passes between them. A ':' at the end may be left out.
	Nodes []protocol.NodeID
	// From and To are the numbers of the first and the last event, from 1; zero for no bound.
	From, To int
	// Since and Until bound the time; zero for no bound.
	Since, Until time.Duration
	// Choices leaves out what follows from the rest.
	Choices bool
}

// Select returns an empty selection.
func (f Filter) Select() *Selection {
	return &Selection{filter: f, scopes: map[string]bool{}}
}

// Selection collects the part of a trace that a Filter describes.
type Selection struct {
	// Events are those that were selected, with their numbers in the whole trace, and Scopes counts
	// their scopes.
	Events  []Event
	Numbers []int
	Scopes  int

	filter  Filter
	scopes  map[string]bool
	seen    int
	waiting []int // numbers of events of whole nodes, which count if the scope goes on
	held    []Event
}

// mostHeld bounds the events of whole nodes that are kept for later.
const mostHeld = 1 << 16

// Add takes the next event of the trace. It must be untyped where the selection is to be drawn.
func (s *Selection) Add(e Event) {
	s.seen++
	f := s.filter
	if f.From > 0 && s.seen < f.From || f.To > 0 && s.seen > f.To || e.At < f.Since || f.Until > 0 && e.At > f.Until ||
		f.Choices && !e.Choice() || !f.hasNode(e.Node) || e.Kind >= Crash && e.Peer != "" && !f.hasNode(e.Peer) {
		return
	}
	if f.Scope != "" && e.Scope == "" {
		if len(s.held) < mostHeld && (len(s.Events) > 0 || e.Kind == Cut || e.Kind == Heal) {
			s.held, s.waiting = append(s.held, e), append(s.waiting, s.seen)
		}
		return
	}
	if !strings.HasPrefix(e.Scope, f.Scope) && !strings.HasSuffix(e.Scope, f.Scope) {
		return
	}
	s.Events, s.Numbers = append(s.Events, s.held...), append(s.Numbers, s.waiting...)
	s.held, s.waiting = s.held[:0], s.waiting[:0]
	s.Events, s.Numbers = append(s.Events, e), append(s.Numbers, s.seen)
	if e.Scope != "" && !s.scopes[e.Scope] {
		s.scopes[e.Scope] = true
		s.Scopes++
	}
}

func (f Filter) hasNode(n protocol.NodeID) bool {
	return len(f.Nodes) == 0 || slices.Contains(f.Nodes, n) ||
		slices.Contains(f.Nodes, protocol.NodeID(strings.TrimSuffix(string(n), ":")))
}

// End reports, when all events have been added, what is wrong with the selection: that it is empty,
// or that the name of the scope fits several.
func (s *Selection) End() error {
	switch {
	case len(s.Events) == 0:
		return fmt.Errorf("%w, which has %d events", ErrNothing, s.seen)
	case s.filter.Scope != "" && s.Scopes > 1 && !s.scopes[s.filter.Scope]:
		return fmt.Errorf("%d scopes begin or end with %q; give more of the name", s.Scopes, s.filter.Scope)
	}
	return nil
}

// Write writes the selection as a trace of its own.
func (s *Selection) Write(w io.Writer, h Header, text bool) error {
	var options []Option
	if text {
		options = append(options, Text())
	}
	t, err := NewWriter(w, nil, h, options...)
	if err != nil {
		return err
	}
	for _, e := range s.Events {
		t.Observe(e)
	}
	return t.Close()
}
