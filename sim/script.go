package sim

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"assent/protocol"
	"assent/trace"
)

// script brings about what the choices of a trace say, where a plan would have drawn it.
type script struct {
	w       *world
	pending []Packet // on their way
	history []Packet // all that were ever sent
	timers  []scripted
	cut     map[link]bool
}

// scripted is an armed timer.
type scripted struct {
	life *life
	name string
	fire func()
}

// ErrScript says that a choice of a script cannot be made where it stands; the text says which and
// why.
var ErrScript = errors.New("the script cannot be followed")

// Replay runs the choices among the events, in their order, and nothing else: messages arrive, timers
// run out and nodes crash when the script says so. Of plan only Begin counts. Where events holds more
// than choices, all else must come out the same. It stops with ErrScript at the first event for which
// that is not so. A choice that the world could not make is one: a message delivered that was never
// sent, or over a link that is cut, an input that is not among the node's, records that are not on its
// disk.
func (s *System) Replay(plan Plan, events []trace.Event, observer trace.Observer) (Report, error) {
	made := &recording{next: observer}
	w, err := s.scripted(plan, made)
	if err != nil {
		return Report{}, err
	}
	choices := choicesOf(events)
	for i := 0; i < len(choices) && w.err == nil; i++ {
		used, err := w.script.choose(choices[i:])
		if err != nil {
			return w.report(), fmt.Errorf("%w: choice %d, %s: %w", ErrScript, i+1, choices[i].Point(), err)
		}
		i += used - 1
		w.judgeOn()
	}
	if w.err == nil && len(choices) < len(events) {
		return w.report(), s.compare(events, made.events)
	}
	return w.report(), w.err
}

// scripted returns a world that waits for choices.
func (s *System) scripted(plan Plan, observer trace.Observer) (*world, error) {
	plan.Faults = nil
	w, err := newWorld(s, plan, observer)
	if err != nil {
		return nil, err
	}
	w.script = &script{w: w, cut: map[link]bool{}}
	return w, nil
}

// judgeOn judges the present state, and goes on after a failure: the first one stays.
func (w *world) judgeOn() {
	if w.failure == nil {
		w.judge()
	}
}

func choicesOf(events []trace.Event) (choices []trace.Event) {
	for _, e := range events {
		if e.Choice() {
			choices = append(choices, e)
		}
	}
	return choices
}

// recording keeps the events of a run.
type recording struct {
	next   trace.Observer
	events []trace.Event
}

// Observe implements trace.Observer.
func (r *recording) Observe(e trace.Event) {
	if w, ok := e.Value.([]protocol.Write); ok {
		e.Value = slices.Clone(w) // it is lent
	}
	r.events = append(r.events, e)
	if r.next != nil {
		r.next.Observe(e)
	}
}

// compare finds the first event that did not come out as it stands in the trace. Times are not
// compared, nor are messages' numbers.
func (s *System) compare(want, got []trace.Event) error {
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(got):
			return fmt.Errorf("%w: event %d, %s, does not follow", ErrScript, i+1, want[i].Point())
		case i >= len(want):
			return fmt.Errorf("%w: event %d, %s, follows and is not in the trace", ErrScript, i+1, got[i].Point())
		}
		a, b := want[i], got[i]
		if a.Node != b.Node || a.Kind != b.Kind || a.Peer != b.Peer || !s.same(a, b) {
			return fmt.Errorf("%w: event %d comes out as %s; in the trace it is %s", ErrScript, i+1, b.Point(), a.Point())
		}
	}
	return nil
}

// same compares values by their form in a trace.
func (s *System) same(a, b trace.Event) bool {
	x, err1 := s.line(a)
	y, err2 := s.line(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

func (s *System) line(e trace.Event) ([]byte, error) {
	e.At, e.Message, e.Scope = 0, 0, ""
	var b bytes.Buffer
	w, err := trace.NewWriter(&b, s.Codec, trace.Header{})
	if err != nil {
		return nil, err
	}
	w.Observe(e)
	return b.Bytes(), errors.Join(w.Close())
}

// choose makes the first of the choices. It returns how many it has made: a step and the crash within
// it are made together.
func (x *script) choose(choices []trace.Event) (used int, err error) {
	e := choices[0]
	w := x.w
	n := w.byID[e.Node]
	if n == nil {
		return 0, fmt.Errorf("no node is named %q", e.Node)
	}
	w.Line.Pass(e.At)
	switch e.Kind {
	case trace.Deliver:
		return x.deliver(n, e, choices[1:])
	case trace.Crash:
		n.began = true
		if n.life != nil {
			n.crash(-1)
		}
	case trace.Lose, trace.Alter:
		i, err := x.find(e.Peer, e.Node, e)
		if err != nil {
			return 0, err
		}
		if e.Kind == trace.Lose {
			w.Tell(x.take(i, e))
			break
		}
		if _, err := w.sys.Codec.Encode(e.Value); err != nil {
			return 0, err
		}
		x.pending[i].Message = e.Value
		w.Tell(e)
	case trace.Duplicate:
		i := x.match(x.history, e.Peer, e.Node, e)
		if i < 0 {
			return 0, errors.New("no such message was sent")
		}
		p := x.history[i]
		w.Net.count++
		p.Number = w.Net.count
		x.pending = append(x.pending, p)
		e.Value, e.Message = p.Message, p.Number
		w.Tell(e)
	case trace.Damage:
		return 1, x.damage(n, e)
	case trace.Cut, trace.Heal:
		if w.byID[e.Peer] == nil {
			return 0, fmt.Errorf("no node is named %q", e.Peer)
		}
		x.cut[link{e.Peer, e.Node}] = e.Kind == trace.Cut
		w.Tell(e)
	default:
		return 0, fmt.Errorf("an event of the kind %s is no choice", e.Kind)
	}
	return 1, nil
}

// take takes a packet off the network and returns the event that says so.
func (x *script) take(i int, e trace.Event) trace.Event {
	e.Value, e.Message = x.pending[i].Message, x.pending[i].Number
	x.pending = slices.Delete(x.pending, i, i+1)
	return e
}

func (x *script) deliver(n *node, e trace.Event, rest []trace.Event) (used int, err error) {
	do, err := x.delivery(n, e)
	if err != nil {
		return 0, err
	}
	used = 1
	if len(rest) > 0 && rest[0].Node == e.Node {
		if sent, within := trace.SentBefore(rest[0]); within {
			n.fuse.Set(sent)
			used = 2
		}
	}
	do()
	if used == 2 && n.life != nil { // the step did nothing that could be cut
		n.crash(n.fuse.sent)
	}
	n.fuse = Fuse{}
	return used, nil
}

// delivery returns what delivers the event, if it can be delivered.
func (x *script) delivery(n *node, e trace.Event) (do func(), err error) {
	switch e.Value.(type) {
	case protocol.Start, protocol.Recover:
	default:
		x.w.begin(n, nil) // the start meant nothing to it, so the trace may leave it out
		if n.life == nil {
			return nil, errors.New("the node is down")
		}
	}
	switch ev := e.Value.(type) {
	case protocol.Start:
		if n.began {
			return nil, errors.New("the node has started before")
		}
		return func() { x.w.begin(n, ev) }, nil
	case protocol.Recover:
		if n.life != nil || n.refused {
			return nil, errors.New("the node is up, or its disk is damaged")
		}
		return n.revive, x.recovers(n, ev)
	case protocol.Receive:
		if x.cut[link{ev.From, n.decl.ID}] {
			return nil, fmt.Errorf("the link from %s is cut", ev.From)
		}
		e.Value = ev.Message
		i, err := x.find(ev.From, n.decl.ID, e)
		if err != nil {
			return nil, err
		}
		p := x.pending[i]
		x.pending = slices.Delete(x.pending, i, i+1)
		return func() { x.w.arrive(p) }, nil
	case protocol.Expire:
		i := slices.IndexFunc(x.timers, func(t scripted) bool { return t.life == n.life && t.name == ev.Timer })
		if i < 0 {
			return nil, fmt.Errorf("the timer %s is not armed", ev.Timer)
		}
		t := x.timers[i]
		x.timers = slices.Delete(x.timers, i, i+1)
		return t.fire, nil
	case protocol.Input:
		if !slices.ContainsFunc(n.decl.Inputs, func(v protocol.Value) bool { return x.equal(v, ev.Value) }) {
			return nil, errors.New("the node has no such input")
		}
		return func() { n.life.loop.Deliver(ev) }, nil
	}
	return nil, fmt.Errorf("no node takes a %T", e.Value)
}

// recovers reports whether the node can read its disk, and finds there what the event says. A node
// recovers from its disk in any case, so a script may leave the records out.
func (x *script) recovers(n *node, ev protocol.Recover) error {
	records, err := n.disk.Read()
	if err != nil || len(ev.Records) == 0 {
		return err
	}
	if !maps.EqualFunc(records, ev.Records, func(a, b protocol.Record) bool { return x.equal(a, b) }) {
		return errors.New("these records are not on the node's disk")
	}
	return nil
}

// equal compares values by their encoding.
func (x *script) equal(a, b any) bool {
	p, err1 := x.w.sys.Codec.Encode(a)
	q, err2 := x.w.sys.Codec.Encode(b)
	return err1 == nil && err2 == nil && bytes.Equal(p, q)
}

// find returns which packet on its way the event is about.
func (x *script) find(from, to protocol.NodeID, e trace.Event) (int, error) {
	if i := x.match(x.pending, from, to, e); i >= 0 {
		return i, nil
	}
	if e.Kind == trace.Alter {
		for i, p := range x.pending {
			if p.From == from && p.To == to && (e.Message == 0 || p.Number == e.Message) {
				return i, nil
			}
		}
	}
	return -1, fmt.Errorf("no such message from %s is on its way", from)
}

// match returns the packet of that value, and of that number where there are several; or -1.
func (x *script) match(packets []Packet, from, to protocol.NodeID, e trace.Event) int {
	found := -1
	var want []byte
	if e.Value != nil {
		want, _ = x.w.sys.Codec.Encode(e.Value)
	}
	for i, p := range packets {
		if p.From != from || p.To != to {
			continue
		}
		if want != nil {
			if data, err := x.w.sys.Codec.Encode(p.Message); err != nil || !bytes.Equal(data, want) {
				continue
			}
		}
		if p.Number == e.Message {
			return i
		}
		if found < 0 {
			found = i
		}
	}
	return found
}

// damage does to the node's disk what a Damage event says.
func (x *script) damage(n *node, e trace.Event) error {
	text, _ := e.Value.(string)
	name, value, _ := strings.Cut(text, " ")
	c, _ := ParseClass(name)
	number, err := strconv.Atoi(value)
	switch {
	case text == repaired:
		n.disk.Repair()
		n.refused = false
	case err != nil || number < 0:
		return fmt.Errorf("no damage is called %q", text)
	case c == Corruption:
		if n.life != nil || !n.disk.Corrupt(uint64(number)) {
			return errors.New("there is nothing to change, or the node is up")
		}
	case (c == DiskFull || c == FailedSync || c == TornWrite) && number <= 100:
		n.disk.Ail(&Fault{Class: c, Rate: number})
	default:
		return fmt.Errorf("no damage is called %q", text)
	}
	x.w.Tell(e)
	return nil
}

// sent keeps a packet until the script delivers it.
func (x *script) sent(p Packet) error {
	copied, err := Copy(x.w.sys.Codec, p.Message)
	if err != nil {
		return err
	}
	x.w.Net.count++
	p.Number, p.Message = x.w.Net.count, copied
	x.pending = append(x.pending, p)
	x.history = append(x.history, p)
	return nil
}

// armed keeps a timer until the script lets it run out.
func (x *script) armed(l *life, name string, fire func()) (cancel func()) {
	x.timers = append(x.timers, scripted{l, name, fire})
	return func() {
		x.timers = slices.DeleteFunc(x.timers, func(t scripted) bool { return t.life == l && t.name == name })
	}
}
