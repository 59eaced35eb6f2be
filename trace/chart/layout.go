package chart

import (
	"math"
	"slices"
	"strings"

	"assent/protocol"
	"assent/trace"
)

// part is a machine: a node's in one scope.
type part struct {
	scope string
	node  protocol.NodeID
}

// layout is a chart in the making.
type layout struct {
	c       *Chart
	o       Options
	laneOf  map[protocol.NodeID]int
	open    map[part]int // the row of the step that a machine is in
	stands  map[part]standing
	origin  map[int]end // where the copy begins that left with the event
	landed  map[int]bool
	sends   []int // in their order
	cuts    map[[2]int]int
	timers  map[timerKey]int // index in spans
	crashed map[int]bool
}

type timerKey struct {
	part
	name string
}

func newLayout(h trace.Header, events []trace.Event, o Options) *layout {
	l := &layout{
		c: &Chart{title: o.Title, header: h, events: events, causes: trace.Causes(events)}, o: o,
		laneOf: map[protocol.NodeID]int{}, open: map[part]int{}, stands: map[part]standing{},
		origin: map[int]end{}, landed: map[int]bool{}, cuts: map[[2]int]int{},
		timers: map[timerKey]int{}, crashed: map[int]bool{},
	}
	seen := map[protocol.NodeID]bool{}
	scopes := map[string]bool{}
	for _, e := range events {
		seen[e.Node] = true
		if e.Scope != "" && !scopes[e.Scope] {
			scopes[e.Scope] = true
			l.c.scopes = append(l.c.scopes, e.Scope)
		}
	}
	for _, n := range h.Nodes {
		if seen[n] {
			l.addLane(n)
		}
	}
	for _, e := range events {
		l.addLane(e.Node)
	}
	return l
}

func (l *layout) addLane(n protocol.NodeID) {
	if _, ok := l.laneOf[n]; !ok {
		l.laneOf[n] = len(l.c.lanes)
		l.c.lanes = append(l.c.lanes, lane{node: n, segments: []segment{{standing: working}}})
	}
}

// take puts event i in its place.
func (l *layout) take(i int) {
	e := l.c.events[i]
	p := part{e.Scope, e.Node}
	at, isOpen := l.open[p]
	switch {
	case e.Kind == trace.Crash:
		l.crash(i, e)
		return
	case e.Kind == trace.Deliver || e.Kind >= trace.Crash || !isOpen:
		at = l.newRow(i)
	default:
		l.c.rows[at].events = append(l.c.rows[at].events, i)
	}
	switch e.Kind {
	case trace.Deliver:
		l.open[p] = at
		l.deliver(i, e, at)
	case trace.Send:
		l.origin[i] = end{row: at, lane: l.laneOf[e.Node]}
		l.sends = append(l.sends, i)
	case trace.Timer:
		if t, ok := e.Value.(protocol.Timer); ok {
			l.timer(p, t, at)
		}
	case trace.Stepped, trace.Failed:
		delete(l.open, p)
	case trace.Lose, trace.Duplicate, trace.Alter:
		l.network(i, e, at)
	case trace.Cut, trace.Heal:
		l.cut(e, at)
	}
	if s, ok := tells(e); ok {
		l.stand(p, s, at)
	}
}

func (l *layout) newRow(i int) int {
	number := i + 1
	if i < len(l.o.Numbers) {
		number = l.o.Numbers[i]
	}
	l.c.rows = append(l.c.rows, row{number: number, events: []int{i}, lanes: []int{l.laneOf[l.c.events[i].Node]}})
	return len(l.c.rows) - 1
}

// crash ends whatever the node was doing. Nodes that crash one after the other share a row.
func (l *layout) crash(i int, e trace.Event) {
	at := len(l.c.rows) - 1
	if last := at; last >= 0 && l.c.events[l.c.rows[last].events[0]].Kind == trace.Crash {
		l.c.rows[last].events = append(l.c.rows[last].events, i)
		l.c.rows[last].lanes = append(l.c.rows[last].lanes, l.laneOf[e.Node])
	} else {
		at = l.newRow(i)
	}
	for p := range l.open {
		if p.node == e.Node && (e.Scope == "" || p.scope == e.Scope) {
			delete(l.open, p)
		}
	}
	for k, n := range l.timers {
		if k.node == e.Node && (e.Scope == "" || k.scope == e.Scope) {
			l.c.spans[n].end = at
			delete(l.timers, k)
		}
	}
	lane := l.laneOf[e.Node]
	l.crashed[lane] = true
	for p := range l.stands {
		if p.node == e.Node {
			delete(l.stands, p)
		}
	}
	l.begin(lane, at, down)
}

// deliver draws the message's arrow, and ends the timer that expires.
func (l *layout) deliver(i int, e trace.Event, at int) {
	lane := l.laneOf[e.Node]
	if l.crashed[lane] {
		delete(l.crashed, lane)
		l.begin(lane, at, working)
	}
	switch v := e.Value.(type) {
	case protocol.Expire:
		k := timerKey{part{e.Scope, e.Node}, v.Timer}
		if n, ok := l.timers[k]; ok {
			l.c.spans[n].end, l.c.spans[n].expired = at, true
			delete(l.timers, k)
		}
	case protocol.Receive:
		l.arrive(i, v.From, end{row: at, lane: lane}, v.Message, arrives)
	}
}

// arrive draws the arrow that ends with event i.
func (l *layout) arrive(i int, from protocol.NodeID, to end, message any, f fate) {
	a := arrow{to: to, label: trace.Brief(message), detail: content(message), fate: f}
	cause := l.c.causes[i]
	start, ok := l.origin[cause]
	switch {
	case cause < 0 || !ok:
		a.fate = strange
		sender, known := l.laneOf[from]
		if !known {
			sender = to.lane
		}
		a.from = end{row: to.row, lane: to.lane, part: 0.3, other: sender}
	default:
		l.landed[cause] = true
		a.from = start
		if f == arrives {
			switch l.c.events[cause].Kind {
			case trace.Duplicate:
				a.fate = copied
			case trace.Alter:
				a.fate = altered
			}
		}
	}
	l.c.arrows = append(l.c.arrows, a)
}

// network draws what the network does to a message between two lanes.
func (l *layout) network(i int, e trace.Event, at int) {
	from, ok := l.laneOf[e.Peer]
	to := l.laneOf[e.Node]
	if !ok {
		from = to
	}
	place := end{row: at, lane: from, part: before(from, to, 0.5), other: to}
	switch e.Kind {
	case trace.Lose:
		place.part = before(from, to, 0.35)
		l.arrive(i, e.Peer, place, l.message(i, e), lost)
	case trace.Duplicate:
		l.origin[i] = place
		l.sends = append(l.sends, i)
	case trace.Alter:
		l.arrive(i, e.Peer, place, l.unaltered(i, e), arrives)
		l.origin[i] = place
		l.sends = append(l.sends, i)
	}
}

// before returns the part of a way that ends the given part of a gap before the lane to.
func before(from, to int, gap float64) float64 {
	if from == to {
		return 0
	}
	return 1 - gap/math.Abs(float64(to-from))
}

// message returns what event i is about.
func (l *layout) message(i int, e trace.Event) any {
	if e.Value != nil || l.c.causes[i] < 0 {
		return e.Value
	}
	return l.c.events[l.c.causes[i]].Value
}

// unaltered returns what a message was before it was altered.
func (l *layout) unaltered(i int, e trace.Event) any {
	if c := l.c.causes[i]; c >= 0 {
		return l.c.events[c].Value
	}
	return e.Value
}

func (l *layout) cut(e trace.Event, at int) {
	from, ok := l.laneOf[e.Peer]
	if !ok {
		return
	}
	way := [2]int{from, l.laneOf[e.Node]}
	if e.Kind == trace.Cut {
		if _, ok := l.cuts[way]; !ok {
			l.cuts[way] = len(l.c.bands)
			l.c.bands = append(l.c.bands, band{from: way[0], to: way[1], row: at, end: -1})
		}
		return
	}
	if n, ok := l.cuts[way]; ok {
		l.c.bands[n].end = at
		delete(l.cuts, way)
	}
}

// timer begins or ends the line of a timer.
func (l *layout) timer(p part, t protocol.Timer, at int) {
	k := timerKey{p, t.Name}
	if n, ok := l.timers[k]; ok {
		l.c.spans[n].end = at
		delete(l.timers, k)
	}
	if t.After == 0 {
		return
	}
	lane := l.laneOf[p.node]
	var taken [4]bool
	for _, n := range l.timers {
		if s := l.c.spans[n]; s.lane == lane {
			taken[s.slot] = true
		}
	}
	slot := max(0, slices.Index(taken[:], false))
	l.timers[k] = len(l.c.spans)
	l.c.spans = append(l.c.spans, span{lane: lane, slot: slot, row: at, end: -1, name: t.Name})
}

// stand notes where a machine stands now. What is final is not left for what is not.
func (l *layout) stand(p part, s standing, at int) {
	old, known := l.stands[p]
	if known && (old == s || old.final() && !s.final()) || s == working && !known {
		return
	}
	l.stands[p] = s
	lane := l.laneOf[p.node]
	m := l.c.rows[at].mark(lane)
	m.glyph = max(m.glyph, standingGlyph(s))
	l.begin(lane, at, s)
}

// begin begins a segment. Where several scopes are drawn a line has no one standing.
func (l *layout) begin(lane, at int, s standing) {
	if len(l.c.scopes) > 1 && s != down {
		s = working
	}
	n := &l.c.lanes[lane]
	last := &n.segments[len(n.segments)-1]
	if last.standing == s {
		return
	}
	last.to = at
	n.segments = append(n.segments, segment{from: at, standing: s})
}

// finish closes what is open, draws what never arrived and writes the notes.
func (l *layout) finish() *Chart {
	c := l.c
	bottom := len(c.rows)
	for i := range c.lanes {
		c.lanes[i].segments[len(c.lanes[i].segments)-1].to = bottom
	}
	for i := range c.bands {
		if c.bands[i].end < 0 {
			c.bands[i].end = bottom
		}
	}
	for i := range c.spans {
		if c.spans[i].end < 0 {
			c.spans[i].end = bottom
		}
	}
	for _, i := range l.sends {
		e := c.events[i]
		if l.landed[i] || e.Kind == trace.Duplicate {
			continue
		}
		to := e.Peer
		if e.Kind != trace.Send {
			to = e.Node
		}
		start := l.origin[i]
		other, ok := l.laneOf[to]
		if !ok {
			other = start.lane
		}
		c.arrows = append(c.arrows, arrow{from: start, fate: pending, label: trace.Brief(e.Value), detail: content(e.Value),
			to: end{row: start.row, lane: start.lane, part: start.part + 0.45*(1-before(start.lane, other, 1)), other: other}})
	}
	for i := range c.rows {
		l.annotate(&c.rows[i])
	}
	if c.title == "" {
		c.title = titleOf(c.header, c.scopes)
	}
	c.title = printable(c.title)
	return c
}

// titleOf makes a title of what the header says.
func titleOf(h trace.Header, scopes []string) string {
	var parts []string
	if h.System != "" {
		parts = append(parts, h.System)
	}
	switch h.Executor {
	case trace.Live:
		parts = append(parts, "a live run")
	case trace.Sim:
		parts = append(parts, "a simulated run")
	case trace.Check:
		parts = append(parts, "a run of the checker")
	}
	if len(scopes) == 1 {
		parts = append(parts, "transaction "+scopes[0])
	}
	if len(parts) == 0 {
		return "a run"
	}
	return strings.Join(parts, ", ")
}
