// Package chart draws a run as a space-time chart: nodes are lines, time goes down, messages are
// arrows. As SVG it stands by itself and reads in print and on a dark screen; as HTML it can also
// be stepped through, backwards and forwards.
//
// The package promises that equal events give equal bytes, and that whatever is told by colour is
// told by shape too. It takes what it shows from the events alone: where a node stands is read from
// the decisions, votes and outcomes in its messages and records, and machines are not run again.
package chart

import (
	"errors"
	"fmt"

	"assent/protocol"
	"assent/trace"
)

// DefaultMaxSteps is how many steps are drawn at most, unless Options say otherwise.
const DefaultMaxSteps = 1500

// ErrTooLong says that a run has more steps than are drawn.
var ErrTooLong = errors.New("too many steps to draw")

// ErrEmpty says that there is nothing to draw.
var ErrEmpty = errors.New("nothing to draw")

// Options say what is drawn of a run.
type Options struct {
	// Title stands above the chart. Defaults to what the header says.
	Title string
	// Numbers are the events' numbers in the whole run, in the order of the events. Defaults to
	// 1, 2, 3 and so on.
	Numbers []int
	// MaxSteps bounds the steps that are drawn. Defaults to DefaultMaxSteps.
	MaxSteps int
}

// Chart is a run laid out. It is immutable and safe for concurrent use.
type Chart struct {
	title  string
	header trace.Header
	scopes []string
	lanes  []lane
	rows   []row
	arrows []arrow
	bands  []band
	spans  []span
	events []trace.Event
	causes []int
}

// lane is the line of a node.
type lane struct {
	node     protocol.NodeID
	segments []segment
}

// segment is a part of a lane during which the node stands in one place.
type segment struct {
	from, to int // rows
	standing standing
}

// row is a step of a node, or something that the world does. Rows go down in the order of events.
type row struct {
	number int   // of its first event
	events []int // indices
	lanes  []int // those that it happens in: several only where they crash together
	marks  []mark
}

// mark is what stands at a row in a lane.
type mark struct {
	lane   int
	glyph  glyph
	notes  []note
	detail string // all of it, for those who ask
}

// note is a text beside a mark.
type note struct {
	text  string
	write writeKind
}

// writeKind says whether a note is about stable storage.
type writeKind uint8

const (
	noWrite writeKind = iota
	stable
	failed
)

// arrow is a message, or a part of its way.
type arrow struct {
	from, to end
	label    string
	detail   string
	fate     fate
}

// end is an end of an arrow: at a lane, or at a place between two lanes.
type end struct {
	row  int
	lane int
	// part is how far the end is on the way to the other lane: 0 at the lane itself.
	part  float64
	other int
}

// fate is what becomes of a message.
type fate uint8

const (
	arrives fate = iota
	lost
	pending // it has not arrived when the chart ends
	copied  // a copy that the network made
	altered // what somebody made of it
	strange // it arrives from a node, or a time, that is not in the chart
)

// band is a time during which nothing gets from one node to another.
type band struct {
	from, to int // lanes
	row, end int
}

// span is a timer from its arming to its end.
type span struct {
	lane, slot int
	row, end   int
	name       string
	expired    bool
}

// New lays out the events of a run, which must be untyped (trace.Untyped). It fails with ErrEmpty
// where there are none and with ErrTooLong where there are too many steps.
func New(h trace.Header, events []trace.Event, o Options) (*Chart, error) {
	if o.MaxSteps <= 0 {
		o.MaxSteps = DefaultMaxSteps
	}
	if len(events) == 0 {
		return nil, ErrEmpty
	}
	l := newLayout(h, events, o)
	for i := range events {
		l.take(i)
		if len(l.c.rows) > o.MaxSteps {
			return nil, fmt.Errorf("%w: more than %d", ErrTooLong, o.MaxSteps)
		}
	}
	return l.finish(), nil
}
