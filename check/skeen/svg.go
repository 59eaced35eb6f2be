package skeen

import (
	_ "embed" // the style
	"fmt"
	"html"
	"strings"
)

//go:embed style.css
var style string

// SVG draws the diagrams one below the other, each in layers by the distance from the start. The picture
// needs nothing else and is readable in print and on a dark screen. It returns ErrTooLarge where one
// has more than MaxDrawn nodes.
func SVG(diagrams ...Diagram) (string, error) {
	var body strings.Builder
	width, y := 0.0, 0.0
	for _, d := range diagrams {
		if len(d.nodes) > MaxDrawn {
			return "", fmt.Errorf("%w: %s has %d nodes, and %d are the most", ErrTooLarge, d.Name, len(d.nodes), MaxDrawn)
		}
		l := layOut(d)
		fmt.Fprintf(&body, "  <g transform=\"translate(0 %.0f)\">\n    <text class=\"title\" x=\"%.0f\" y=\"%.0f\">%s</text>\n", y, margin, margin+8, html.EscapeString(d.Title))
		fmt.Fprintf(&body, "    <g transform=\"translate(0 %.0f)\">\n", titleHeight)
		l.draw(&body, d)
		body.WriteString("    </g>\n  </g>\n")
		width = max(width, l.width, charWidth*1.1*float64(len(d.Title))+2*margin)
		y += titleHeight + l.height
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\" class=\"assent-skeen\" role=\"img\">\n", width, y, width, y)
	title := ""
	if len(diagrams) > 0 {
		title = diagrams[0].Title
	}
	fmt.Fprintf(&b, "  <title>%s</title>\n  <style>\n%s  </style>\n", html.EscapeString(title), style)
	b.WriteString("  <defs><marker id=\"assent-skeen-tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0 8 4 0 8z\"/></marker></defs>\n")
	fmt.Fprintf(&b, "  <rect class=\"paper\" width=\"%.0f\" height=\"%.0f\"/>\n", width, y)
	return b.String() + body.String() + "</svg>\n", nil
}

// draw writes the edges, then the labels, then the nodes.
func (l *layout) draw(b *strings.Builder, d Diagram) {
	for i := range d.edges {
		fmt.Fprintf(b, "      <path class=\"edge\" d=\"%s\"/>\n", l.path(i))
	}
	for i, e := range d.edges {
		if at := l.labels[i]; at != nil {
			for j, label := range e.labels {
				fmt.Fprintf(b, "      <text class=\"label\" x=\"%.0f\" y=\"%.0f\">%s</text>\n",
					at.x, at.y-at.h/2+lineHeight*(float64(j)+0.75), html.EscapeString(label))
			}
		}
	}
	for i, n := range d.nodes {
		at := l.nodes[i]
		fmt.Fprintf(b, "      <g class=\"node %s\"><rect x=\"%.0f\" y=\"%.0f\" width=\"%.0f\" height=\"%.0f\" rx=\"6\"/>", n.look, at.x-at.w/2, at.y-at.h/2, at.w, at.h)
		y := at.y - at.h/2 + 19
		fmt.Fprintf(b, "<text class=\"name\" x=\"%.0f\" y=\"%.0f\">%s</text>", at.x, y, html.EscapeString(n.label))
		for _, note := range n.notes {
			y += lineHeight
			fmt.Fprintf(b, "<text class=\"note\" x=\"%.0f\" y=\"%.0f\">%s</text>", at.x, y, html.EscapeString(note))
		}
		b.WriteString("</g>\n")
	}
}
