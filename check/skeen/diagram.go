package skeen

import (
	"errors"
	"fmt"
	"strings"

	"assent/protocol/commit"
)

// Diagram is a graph to be drawn: a role's states, or the global states.
type Diagram struct {
	// Name is that of the role, or GlobalName.
	Name string
	// Title is for people.
	Title string

	nodes []node
	edges []edge
}

// GlobalName is the name of the diagram of the global states.
const GlobalName = "global"

// node is drawn as a box with a label and smaller notes below it.
type node struct {
	label string
	notes []string
	look  look
}

// edge leads from one node to another; its labels stand on it, a line each.
type edge struct {
	from, to int
	labels   []string
}

// look tells what a node is: a class of the SVG, and a colour of the DOT.
type look string

const (
	lookPlain     look = "plain"
	lookCommitted look = "committed"
	lookAborted   look = "aborted"
	lookBlocking  look = "blocking"
)

// MaxDrawn is the greatest number of nodes in a diagram that SVG draws.
const MaxDrawn = 300

// ErrTooLarge says that a diagram has too many nodes to be drawn here.
var ErrTooLarge = errors.New("diagram is too large to draw")

// Diagrams returns the state diagram of each role and, last, the global state graph.
func (a *Analysis) Diagrams() []Diagram {
	var all []Diagram
	for _, r := range a.Roles {
		all = append(all, r.diagram(a))
	}
	return append(all, a.Global.diagram(a))
}

func (r Role) diagram(a *Analysis) Diagram {
	d := Diagram{Name: r.Name, Title: fmt.Sprintf("%s, %d sites: states of a %s with their concurrency sets", a.Protocol, a.Sites, r.Name)}
	places := map[commit.Letter]int{}
	for i, s := range r.States {
		places[s.Letter] = i
		n := node{label: string(s.Letter), notes: []string{"{" + words(s.Concurrency) + "}"}, look: lookPlain}
		switch {
		case !s.Nonblocking:
			n.look = lookBlocking
			n.notes = append(n.notes, "blocking")
		case s.Letter == commit.LetterCommitted:
			n.look = lookCommitted
		case s.Letter == commit.LetterAborted:
			n.look = lookAborted
		}
		if s.Committable {
			n.notes = append(n.notes, "committable")
		}
		d.nodes = append(d.nodes, n)
	}
	for _, m := range r.Moves {
		d.edges = append(d.edges, edge{from: places[m.From], to: places[m.To], labels: m.On})
	}
	return d
}

func (g Graph) diagram(a *Analysis) Diagram {
	d := Diagram{Name: GlobalName, Title: fmt.Sprintf("%s, %d sites: the reachable vectors of local states", a.Protocol, a.Sites)}
	for _, v := range g.Vectors {
		n := node{label: v, look: lookPlain}
		switch letters := strings.Map(lettersOnly, v); {
		case strings.Trim(letters, "c") == "":
			n.look = lookCommitted
		case strings.Trim(letters, "a") == "":
			n.look = lookAborted
		}
		d.nodes = append(d.nodes, n)
	}
	for _, e := range g.Edges {
		d.edges = append(d.edges, edge{from: e.From, to: e.To})
	}
	return d
}

func lettersOnly(r rune) rune {
	if r >= 'a' && r <= 'z' {
		return r
	}
	return -1
}

// words lists letters with spaces between them.
func words(letters []commit.Letter) string {
	var b strings.Builder
	for i, l := range letters {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(string(l))
	}
	return b.String()
}

var dotColours = map[look]string{lookPlain: "#f6f8fa", lookCommitted: "#dafbe1", lookAborted: "#ffebe9", lookBlocking: "#fff8c5"}

// DOT returns the diagram in the language of Graphviz. It has no bound.
func (d Diagram) DOT() string {
	var b strings.Builder
	fmt.Fprintf(&b, "digraph %q {\n  label=%q; labelloc=t; rankdir=TB;\n", d.Name, d.Title)
	b.WriteString("  node [shape=box, style=\"rounded,filled\", fontname=\"monospace\"];\n  edge [fontname=\"monospace\", fontsize=10];\n")
	for i, n := range d.nodes {
		fmt.Fprintf(&b, "  n%d [label=%q, fillcolor=%q];\n", i, strings.Join(append([]string{n.label}, n.notes...), "\n"), dotColours[n.look])
	}
	for _, e := range d.edges {
		fmt.Fprintf(&b, "  n%d -> n%d", e.from, e.to)
		if len(e.labels) > 0 {
			fmt.Fprintf(&b, " [label=%q]", strings.Join(e.labels, "\n"))
		}
		b.WriteString(";\n")
	}
	b.WriteString("}\n")
	return b.String()
}
