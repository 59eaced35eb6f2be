package chart

import (
	_ "embed" // for the page
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strings"

	"assent/protocol"
	"assent/trace"
)

//go:embed page.html
var page string

// step is a row as the page steps through it.
type step struct {
	Number int      `json:"number"`
	At     string   `json:"at,omitempty"`
	Y      float64  `json:"y"`
	What   string   `json:"what"`
	Events []happen `json:"events"`
	// Changes are applied in order when the step is taken.
	Changes []change `json:"changes,omitempty"`
}

// happen is an event in words, with what it carries.
type happen struct {
	Text  string `json:"text"`
	Value string `json:"value,omitempty"`
}

// change is what a step changes in what is known of a machine.
type change struct {
	Part string `json:"part"`
	// Stands is where the machine stands from now on, and Class its class in the style sheet.
	Stands string `json:"stands,omitempty"`
	Class  string `json:"class,omitempty"`
	// Down says that the machine's memory and timers are gone.
	Down bool `json:"down,omitempty"`
	// Put and Delete are stable writes.
	Put    map[string]string `json:"put,omitempty"`
	Delete []string          `json:"delete,omitempty"`
	// Arm and Disarm are timers.
	Arm    string `json:"arm,omitempty"`
	After  string `json:"after,omitempty"`
	Disarm string `json:"disarm,omitempty"`
}

// WriteHTML writes the chart as a page that can be stepped through. It needs nothing else, and no
// network.
func (c *Chart) WriteHTML(w io.Writer) error {
	t, err := template.New("chart").Parse(page)
	if err != nil {
		return fmt.Errorf("chart: %w", err)
	}
	d := c.draw()
	err = t.Execute(w, map[string]any{
		"Title": c.title, "SVG": template.HTML(d.b.String()), // made here, with everything escaped
		"Data": map[string]any{"steps": c.steps(d), "bottom": d.bottom, "width": d.width, "rowHeight": rowHeight,
			"parts": c.parts()},
	})
	if err != nil {
		return fmt.Errorf("chart: %w", err)
	}
	return nil
}

// parts names the machines in the order of the lanes.
func (c *Chart) parts() (all []string) {
	for _, n := range c.lanes {
		for _, e := range c.events {
			if name := c.partName(e); e.Node == n.node && (e.Scope != "" || len(c.scopes) == 0) && !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	return all
}

// partName names a machine: the node, with the scope where there are several.
func (c *Chart) partName(e trace.Event) string {
	name := nodeName(e.Node)
	if len(c.scopes) > 1 && e.Scope != "" {
		name += " · " + e.Scope
	}
	return name
}

func (c *Chart) steps(d *drawing) []step {
	first := c.events[0].At
	all := make([]step, len(c.rows))
	for i, r := range c.rows {
		s := step{Number: r.number, Y: d.y(i)}
		if c.timed() {
			s.At = clock(c.events[r.events[0]].At - first)
		}
		for _, at := range r.events {
			e := c.events[at]
			if s.What == "" {
				s.What = c.partName(e) + " " + trace.Describe(e)
			}
			if e.Kind != trace.Stepped && e.Kind != trace.Force {
				s.Events = append(s.Events, happen{c.partName(e) + " " + trace.Describe(e), contents(e)})
			}
			s.Changes = append(s.Changes, c.changes(e)...)
		}
		all[i] = s
	}
	return all
}

// changes returns what e changes in what is known.
func (c *Chart) changes(e trace.Event) (all []change) {
	name := c.partName(e)
	if e.Kind == trace.Crash {
		for _, part := range c.parts() {
			if node, _, _ := strings.Cut(part, " · "); part == name || e.Scope == "" && node == name {
				all = append(all, change{Part: part, Down: true, Stands: down.String(), Class: down.class()})
			}
		}
		return all
	}
	switch v := e.Value.(type) {
	case protocol.Timer:
		if v.After == 0 {
			all = append(all, change{Part: name, Disarm: v.Name})
		} else {
			all = append(all, change{Part: name, Arm: v.Name, After: v.After.String()})
		}
	case protocol.Expire:
		if e.Kind == trace.Deliver {
			all = append(all, change{Part: name, Disarm: v.Timer})
		}
	case protocol.Recover:
		if e.Kind == trace.Deliver {
			all = append(all, change{Part: name, Stands: working.String(), Class: working.class(), Put: contentsOf(v.Records)})
		}
	case []protocol.Write:
		if e.Kind == trace.Forced {
			all = append(all, writes(name, v))
		}
	}
	if s, ok := tells(e); ok {
		all = append(all, change{Part: name, Stands: s.String(), Class: s.class()})
	}
	return all
}

func writes(part string, all []protocol.Write) change {
	c := change{Part: part, Put: map[string]string{}}
	for _, w := range all {
		if w.Record == nil {
			c.Delete = append(c.Delete, w.Key)
			delete(c.Put, w.Key)
			continue
		}
		c.Put[w.Key] = content(w.Record)
		c.Delete = slices.DeleteFunc(c.Delete, func(key string) bool { return key == w.Key })
	}
	return c
}

func contentsOf(records protocol.Records) map[string]string {
	all := map[string]string{}
	for key, r := range records {
		all[key] = content(r)
	}
	return all
}

// contents returns what an event carries, in full.
func contents(e trace.Event) string {
	switch v := e.Value.(type) {
	case trace.Raw:
		return content(v)
	case protocol.Receive:
		return content(v.Message)
	case protocol.Input:
		return content(v.Value)
	case protocol.Recover:
		return lines(contentsOf(v.Records))
	case []protocol.Write:
		w := writes("", v)
		for _, key := range w.Delete {
			w.Put[key] = "deleted"
		}
		return lines(w.Put)
	}
	return ""
}

func lines(records map[string]string) string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(records)) {
		all = append(all, key+": "+records[key])
	}
	return strings.Join(all, "\n")
}
