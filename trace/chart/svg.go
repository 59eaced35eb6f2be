package chart

import (
	"bytes"
	_ "embed" // for the style sheet
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"assent/protocol"
)

//go:embed chart.css
var styles string

// The measures of a chart, in pixels.
const (
	rowHeight = 34
	headTop   = 58 // where the boxes with the nodes' names are
	headSize  = 26
	firstRow  = headTop + headSize + 30
	charWidth = 6.3
	legendRow = 24

	legendColumn = 176
)

// boxes are the signs of stable writes.
var boxes = [...]string{
	stable: `<path class="stable" d="M-4.5-4.5h9v9h-9Z"/>`,
	failed: `<path class="unstable" d="M-4.5-4.5h9v9h-9ZM-4.5-4.5l9 9"/>`,
}

// drawing is an SVG in the making.
type drawing struct {
	c             *Chart
	margin        float64 // where numbers and times are
	b             bytes.Buffer
	x             []float64 // of the lanes
	gap           float64
	width, height float64
	bottom        float64 // of the lanes
	legend        []entry
	columns       int // of the legend
}

func (d *drawing) printf(format string, args ...any) { fmt.Fprintf(&d.b, format, args...) }

// WriteSVG writes the chart as an SVG that needs nothing else. Colours follow the reader's choice of
// a light or a dark screen; in print they are light.
func (c *Chart) WriteSVG(w io.Writer) error {
	d := c.draw()
	_, err := w.Write(d.b.Bytes())
	if err != nil {
		return fmt.Errorf("chart: %w", err)
	}
	return nil
}

func (c *Chart) draw() *drawing {
	d := &drawing{c: c}
	d.measure()
	summary := fmt.Sprintf("%d nodes, %d steps, %d messages. Time goes down.", len(c.lanes), len(c.rows), len(c.arrows))
	d.printf(`<svg xmlns="http://www.w3.org/2000/svg" class="assent-chart" role="img" width="%s" height="%s" viewBox="0 0 %[1]s %s">`+"\n",
		num(d.width), num(d.height), num(d.height))
	d.printf("<title>%s</title>\n<desc>%s</desc>\n<style>\n%s</style>\n", escape(c.title), summary, styles)
	d.printf(`<defs><pattern id="assent-cut" width="8" height="8" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path class="hatch" d="M0 0V8"/></pattern></defs>` + "\n")
	d.printf(`<rect class="paper" width="%s" height="%s"/>`+"\n", num(d.width), num(d.height))
	d.printf(`<text class="title" x="16" y="24">%s</text>`+"\n", escape(clip(c.title, int(d.width/9))))
	d.printf(`<text class="subtitle" x="16" y="43">%s</text>`+"\n", escape(clip(c.subtitle(), int(d.width/charWidth)-4)))
	d.rules()
	for _, b := range c.bands {
		d.band(b)
	}
	for i := range c.lanes {
		d.lane(i)
	}
	for _, s := range c.spans {
		d.span(s)
	}
	for _, a := range c.arrows {
		d.arrow(a)
	}
	for i := range c.rows {
		for _, m := range c.rows[i].marks {
			d.mark(m, d.y(i))
		}
	}
	d.drawLegend()
	d.printf("</svg>\n")
	return d
}

// measure finds the places of everything.
func (d *drawing) measure() {
	label, left, right, middle := 0, 0, 0, 0
	for _, a := range d.c.arrows {
		label = max(label, utf8.RuneCountInString(a.label))
	}
	for _, r := range d.c.rows {
		for _, m := range r.marks {
			n := utf8.RuneCountInString(m.text())
			switch {
			case m.lane == 0 && len(d.c.lanes) > 1:
				left = max(left, n)
			case m.lane == len(d.c.lanes)-1:
				right = max(right, n)
			default:
				middle = max(middle, n)
			}
		}
	}
	d.gap = min(310, max(180, float64(label)*charWidth+80, float64(middle)*charWidth+50))
	d.margin = 88 + 6.5*float64(len(strconv.Itoa(d.c.rows[len(d.c.rows)-1].number)))
	at := d.margin + min(360, max(70, float64(left)*charWidth+34))
	for range d.c.lanes {
		d.x = append(d.x, at)
		at += d.gap
	}
	d.width = math.Ceil(at - d.gap + min(360, max(90, float64(right)*charWidth+40)))
	d.bottom = d.y(len(d.c.rows)-1) + rowHeight
	d.legend = d.entries()
	d.width = max(d.width, 480)
	d.columns = max(1, int((d.width-32)/legendColumn))
	rows := (len(d.legend) + d.columns - 1) / d.columns
	d.height = d.bottom + 22 + float64(rows*legendRow)
}

func (d *drawing) y(row int) float64 { return firstRow + float64(row)*rowHeight }

func (c *Chart) subtitle() string {
	var parts []string
	if c.header.Seed != 0 {
		parts = append(parts, fmt.Sprintf("seed %d", c.header.Seed))
	}
	if first := c.events[0].At; c.timed() && first > 0 {
		parts = append(parts, "times from the first event shown, "+clock(first)+" into the run")
	}
	parts = append(parts, "time goes down; one line for each step")
	return strings.Join(parts, " · ")
}

// timed reports whether the run has a clock.
func (c *Chart) timed() bool { return c.events[len(c.events)-1].At > 0 }

// rules writes numbers and times, and a faint line for each row.
func (d *drawing) rules() {
	first := d.c.events[0].At
	for i, r := range d.c.rows {
		y := d.y(i)
		d.printf(`<path class="rule" d="M16 %s H%s"/>`, num(y), num(d.width-12))
		d.printf(`<text class="number" x="16" y="%s">%d</text>`, num(y+4), r.number)
		if d.c.timed() {
			d.printf(`<text class="time" x="%s" y="%s">%s</text>`, num(d.margin-4), num(y+4), clock(d.c.events[r.events[0]].At-first))
		}
		d.printf("\n")
	}
}

// clock writes a time with as many digits as it deserves.
func clock(t time.Duration) string {
	switch {
	case t >= time.Second:
		return fmt.Sprintf("%.3f s", t.Seconds())
	case t >= time.Millisecond:
		return fmt.Sprintf("%.2f ms", float64(t)/1e6)
	}
	return fmt.Sprintf("%.0f µs", float64(t)/1e3)
}

// lane draws a node's name and line. How the line is drawn says where the node stands.
func (d *drawing) lane(i int) {
	n, x := d.c.lanes[i], d.x[i]
	name := nodeName(n.node)
	for _, s := range n.segments {
		from, to := d.y(s.from), d.y(s.to)
		if s.from == 0 && s.standing == working {
			from = headTop + headSize
		}
		if to = min(to, d.bottom); to > from {
			d.printf(`<path class="lane %s" d="M%s %s V%s"/>`, s.standing.class(), num(x), num(from), num(to))
			if s.standing == aborted { // a double line
				d.printf(`<path class="inner" d="M%s %s V%s"/>`, num(x), num(from), num(to))
			}
		}
	}
	half := max(26, float64(utf8.RuneCountInString(name))*3.8+12)
	half = min(half, d.gap/2-4)
	d.printf(`<rect class="head" x="%s" y="%d" width="%s" height="%d" rx="5"/>`, num(x-half), headTop, num(2*half), headSize)
	d.printf(`<text class="head-name" x="%s" y="%d">%s</text>`+"\n", num(x), headTop+17, escape(clip(name, int(half/3.6))))
}

// nodeName is a node's name as it is shown.
func nodeName(n protocol.NodeID) string { return strings.TrimSuffix(string(n), ":") }

// span draws a timer beside its lane.
func (d *drawing) span(s span) {
	x := d.x[s.lane] + 5 + 3*float64(s.slot)
	y, end := d.y(s.row)+4, d.y(s.end)-4
	if end <= y {
		return
	}
	d.printf(`<path class="span" d="M%s %s V%s"><title>timer %s</title></path>`, num(x), num(y), num(end), escape(s.name))
	if !s.expired && s.end < len(d.c.rows) {
		d.printf(`<path class="span-end" d="M%s %s h4"/>`, num(x-2), num(end))
	}
	d.printf("\n")
}

// band shades what nothing passes: the space between neighbours, or what is next to two lanes that
// have others between them, for those are not cut off.
func (d *drawing) band(b band) {
	const strip = 34
	x1, x2 := d.x[min(b.from, b.to)]+10, d.x[max(b.from, b.to)]-10
	y1, y2 := d.y(b.row), min(d.y(b.end), d.bottom)
	areas := [][2]float64{{x1, x2}}
	if b.from-b.to > 1 || b.to-b.from > 1 {
		areas = [][2]float64{{x1, x1 + strip}, {x2 - strip, x2}}
	}
	for _, a := range areas {
		d.printf(`<rect class="cut" x="%s" y="%s" width="%s" height="%s"><title>cut: nothing gets from %s to %s</title></rect>`+"\n",
			num(a[0]), num(y1), num(a[1]-a[0]), num(y2-y1),
			escape(nodeName(d.c.lanes[b.from].node)), escape(nodeName(d.c.lanes[b.to].node)))
	}
}

// place returns where an end is.
func (d *drawing) place(e end) (x, y float64) {
	x = d.x[e.lane]
	return x + e.part*(d.x[e.other]-x), d.y(e.row)
}

// arrow draws a message.
func (d *drawing) arrow(a arrow) {
	x1, y1 := d.place(a.from)
	x2, y2 := d.place(a.to)
	if a.fate == pending {
		y2 += rowHeight / 3
	}
	class := [...]string{"message", "message lost", "message pending", "message copied", "message altered", "message strange"}[a.fate]
	d.printf(`<g class="%s"><title>%s</title>`, class, escape(a.detail))
	if a.from.lane == a.to.lane && a.from.part == a.to.part { // to itself
		d.printf(`<path class="way" d="M%s %s C%s %s %s %s %s %s"/>`, num(x1), num(y1),
			num(x1+46), num(y1), num(x1+46), num(y2), num(x2+5), num(y2))
		d.tip(x2+4, y2, math.Pi)
		d.printf(`<text class="label" x="%s" y="%s">%s</text></g>`+"\n", num(x1+40), num((y1+y2)/2+4), escape(a.label))
		return
	}
	w := d.way(a, x1, y1, x2, y2)
	angle := w.slope(1)
	if a.to.part == 0 { // leave room for the mark
		w.x2, w.y2 = x2-5*math.Cos(angle), y2-5*math.Sin(angle)
		x2, y2 = w.x2, w.y2
	}
	d.printf(`<path class="way" d="M%s %s Q%s %s %s %s"/>`, num(x1), num(y1), num(w.cx), num(w.cy), num(x2), num(y2))
	switch a.fate {
	case lost:
		d.printf(`<path class="cross" d="M%s %s l12 12 m0-12 l-12 12"/>`, num(x2-6), num(y2-6))
	case pending:
		d.printf(`<circle class="cross" cx="%s" cy="%s" r="3"/>`, num(x2), num(y2))
	default:
		d.tip(x2, y2, angle)
	}
	if a.fate == copied || a.fate == altered {
		d.printf(`<path class="branch" d="M%s %s l6 6 l-6 6 l-6-6 Z"/>`, num(x1), num(y1-6))
	}
	d.label(a, w)
	d.printf("</g>\n")
}

// tip draws an arrow's head.
func (d *drawing) tip(x, y, angle float64) {
	const size, open = 9, 0.38
	d.printf(`<path class="tip" d="M%s %s L%s %s L%s %s Z"/>`, num(x), num(y),
		num(x-size*math.Cos(angle-open)), num(y-size*math.Sin(angle-open)),
		num(x-size*math.Cos(angle+open)), num(y-size*math.Sin(angle+open)))
}

// way is the line of an arrow: straight between neighbours, and a flat bow over the lanes between
// others, so that messages that leave together do not lie upon one another.
type way struct{ x1, y1, cx, cy, x2, y2 float64 }

func (d *drawing) way(a arrow, x1, y1, x2, y2 float64) way {
	w := way{x1, y1, (x1 + x2) / 2, (y1 + y2) / 2, x2, y2}
	if lanes := math.Abs(x2-x1) / d.gap; lanes > 1.1 {
		w.cy -= min(24+8*lanes, 60)
	}
	return w
}

// at returns the point at the part t of the way.
func (w way) at(t float64) (x, y float64) {
	u := 1 - t
	return u*u*w.x1 + 2*u*t*w.cx + t*t*w.x2, u*u*w.y1 + 2*u*t*w.cy + t*t*w.y2
}

// slope returns the direction of the way at the part t of it.
func (w way) slope(t float64) float64 {
	return math.Atan2((1-t)*(w.cy-w.y1)+t*(w.y2-w.cy), (1-t)*(w.cx-w.x1)+t*(w.x2-w.cx))
}

// label writes a message's name along its way, in the gap before the lane where it arrives.
func (d *drawing) label(a arrow, w way) {
	text := a.label
	switch a.fate {
	case copied:
		text += " (copy)"
	case altered:
		text += " (altered)"
	case pending:
		text += " …"
	}
	part := 0.5
	if length := math.Hypot(w.x2-w.x1, w.y2-w.y1); math.Abs(w.y2-w.y1) < math.Abs(w.x2-w.x1) {
		// Every arrival has a row of its own, so names near to the arrows' heads do not meet.
		part = max(part, 1-(float64(utf8.RuneCountInString(text))*charWidth/2+20)/length)
	}
	x, y := w.at(part)
	angle := w.slope(part)
	anchor := ""
	if a.fate == pending || a.fate == strange {
		anchor = " start"
		x, y = w.x2, w.y2
		if w.x2 < w.x1 {
			anchor = " end"
		}
	}
	degrees := angle * 180 / math.Pi
	if degrees > 90 {
		degrees -= 180
	} else if degrees < -90 {
		degrees += 180
	}
	d.printf(`<text class="label%s" transform="translate(%s %s) rotate(%s)" y="-5">%s</text>`,
		anchor, num(x), num(y), num(degrees), escape(text))
}

// mark draws a mark and writes its notes: to the left of the first lane, to the right of the others.
func (d *drawing) mark(m mark, y float64) {
	x := d.x[m.lane]
	d.printf(`<g class="mark"><title>%s</title>`, escape(strings.TrimSpace(m.detail)))
	m.glyph.draw(d, x, y)
	side, class := 1.0, "note"
	room := int((d.gap - 40) / charWidth)
	if m.lane == 0 && len(d.c.lanes) > 1 {
		side, class = -1, "note end"
		room = int((d.x[0] - d.margin - 20) / charWidth)
	} else if m.lane == len(d.c.lanes)-1 {
		room = int((d.width - x - 24) / charWidth)
	}
	at := x + side*15
	for _, n := range m.inOrder(side) {
		if room <= 2 {
			break
		}
		if n.write != noWrite {
			room -= 2
		}
		text := clip(n.text, room)
		used := utf8.RuneCountInString(text) + 2
		if side > 0 {
			at += d.box(n.write, at+4.5, y)
		}
		d.printf(`<text class="%s" x="%s" y="%s">%s</text>`, class, num(at), num(y+4), escape(text))
		at += side * float64(used) * charWidth
		if side < 0 {
			at -= d.box(n.write, at+7, y)
		}
		room -= used
	}
	d.printf("</g>\n")
}

// box draws the sign of a stable write, and returns the room that it takes.
func (d *drawing) box(kind writeKind, x, y float64) float64 {
	if kind == noWrite {
		return 0
	}
	d.printf(`<g transform="translate(%s %s)">%s</g>`, num(x), num(y), boxes[kind])
	return 13
}

// inOrder returns the notes as they are laid from the lane outwards, so that they read from left to
// right.
func (m mark) inOrder(side float64) []note {
	all := slices.Clone(m.notes)
	if side < 0 {
		slices.Reverse(all)
	}
	return all
}

// escape makes text fit to stand in XML.
func escape(text string) string { return html.EscapeString(printable(text)) }

// printable replaces control characters, which have no place in XML.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r == 0x7f || r == 0xfffe || r == 0xffff {
			return utf8.RuneError
		}
		return r
	}, text)
}

// clip shortens a text to n characters.
func clip(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:max(1, n-1)]) + "…"
}
