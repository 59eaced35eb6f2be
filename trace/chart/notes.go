package chart

import (
	"fmt"
	"slices"
	"strings"

	"assent/protocol"
	"assent/trace"
)

// annotate writes the marks and notes of a row, once all of its events are known.
func (l *layout) annotate(r *row) {
	c := l.c
	for i, at := range r.events {
		e := c.events[at]
		lane := l.laneOf[e.Node]
		m := r.mark(lane)
		if e.Kind != trace.Stepped && e.Kind != trace.Force {
			m.detail += trace.Describe(e) + "\n"
		}
		if i == 0 || e.Kind == trace.Crash {
			m.glyph = max(m.glyph, glyphOf(e))
		}
		m.notes = append(m.notes, notesOf(e)...)
	}
	if len(c.scopes) > 1 {
		if scope := c.events[r.events[0]].Scope; scope != "" {
			m := r.mark(r.lanes[0])
			m.notes = append([]note{{text: tail(scope)}}, m.notes...)
		}
	}
}

// tail is the end of a scope's name, which is where the names of a run differ.
func tail(scope string) string {
	const most = 8
	if r := []rune(scope); len(r) > most {
		return "…" + string(r[len(r)-most+1:])
	}
	return scope
}

// mark returns the mark in a lane, made if there is none.
func (r *row) mark(lane int) *mark {
	i := slices.IndexFunc(r.marks, func(m mark) bool { return m.lane == lane })
	if i < 0 {
		i = len(r.marks)
		r.marks = append(r.marks, mark{lane: lane})
	}
	return &r.marks[i]
}

// glyphOf returns the shape of the event that a row begins with.
func glyphOf(e trace.Event) glyph {
	switch e.Kind {
	case trace.Crash:
		return glyphCrash
	case trace.Lose, trace.Duplicate, trace.Alter, trace.Cut, trace.Heal:
		return glyphNone
	case trace.Damage:
		return glyphDamage
	}
	switch e.Value.(type) {
	case protocol.Expire:
		if e.Kind == trace.Deliver {
			return glyphTimer
		}
	case protocol.Recover:
		return glyphRecover
	}
	return glyphStep
}

// notesOf returns what is written beside the line about e.
func notesOf(e trace.Event) []note {
	switch v := e.Value.(type) {
	case protocol.Start:
		if e.Kind == trace.Deliver {
			return []note{{text: "starts"}}
		}
	case protocol.Recover:
		if e.Kind == trace.Deliver {
			return []note{{text: "recovers"}}
		}
	case protocol.Expire:
		if e.Kind == trace.Deliver {
			return []note{{text: v.Timer + " expires"}}
		}
	case protocol.Input:
		if e.Kind == trace.Deliver {
			return []note{{text: "← " + trace.Brief(v.Value)}}
		}
	case []protocol.Write:
		return writeNotes(e.Kind, v)
	}
	switch e.Kind {
	case trace.Crash:
		return []note{{text: "crashes"}}
	case trace.Damage:
		return []note{{text: trace.Describe(e)}}
	case trace.Cut, trace.Heal:
		return []note{{text: trace.Describe(e)}}
	case trace.Emit:
		return []note{{text: "→ " + trace.Brief(e.Value)}}
	}
	return nil
}

func writeNotes(kind trace.Kind, writes []protocol.Write) (notes []note) {
	if kind != trace.Forced && kind != trace.Failed {
		return nil
	}
	for _, w := range writes {
		n := note{write: stable, text: "deletes " + w.Key}
		if w.Record != nil {
			n.text = trace.Brief(w.Record)
		}
		if kind == trace.Failed {
			n.write, n.text = failed, "not stable: "+n.text
		}
		notes = append(notes, n)
	}
	return notes
}

// text returns the notes as one line.
func (m mark) text() string {
	all := make([]string, len(m.notes))
	for i, n := range m.notes {
		all[i] = n.text
	}
	return strings.Join(all, "  ")
}

// content returns the name and JSON of a value, for those who ask.
func content(v any) string {
	if raw, ok := v.(trace.Raw); ok {
		return fmt.Sprintf("%s %s", raw.Name, raw.JSON)
	}
	return ""
}
