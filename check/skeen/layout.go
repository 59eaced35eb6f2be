package skeen

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// The sizes of a drawing, in pixels.
const (
	lineHeight  = 15.0
	charWidth   = 6.8 // of a label
	titleHeight = 34.0
	bigChar     = 8.6 // of a node's name
	gapAcross   = 18.0
	gapDown     = 32.0
	margin      = 20.0
)

// box is a place in a drawing, by its middle.
type box struct{ x, y, w, h float64 }

// layout is where everything is drawn.
type layout struct {
	width, height float64
	nodes         []*box
	labels        []*box   // by edge; nil where there is none
	ways          [][]*box // by edge: the boxes that it goes through, its ends included
}

// item is what stands in a layer: a node, or a bend or the label of an edge that passes.
type item struct {
	box
	near []*item // in the layers above and below
	rank int
	key  float64
}

// layOut arranges a diagram in layers (Sugiyama, Tagawa and Toda 1981): ranks by the longest way from
// the start, bends where an edge passes a layer, an order within each layer by the mean of the
// neighbours and then by crossings, and then places. It is deterministic.
func layOut(d Diagram) *layout {
	ranks := d.ranks()
	labelled := slices.ContainsFunc(d.edges, func(e edge) bool { return len(e.labels) > 0 })
	if labelled {
		for i := range ranks {
			ranks[i] *= 2 // labels stand in the layers between
		}
	}
	nodes := make([]*item, len(d.nodes))
	var layers [][]*item
	put := func(it *item) {
		for len(layers) <= it.rank {
			layers = append(layers, nil)
		}
		layers[it.rank] = append(layers[it.rank], it)
	}
	l := &layout{labels: make([]*box, len(d.edges))}
	for i, n := range d.nodes {
		width := bigChar * float64(utf8.RuneCountInString(n.label))
		for _, note := range n.notes {
			width = max(width, charWidth*float64(utf8.RuneCountInString(note)))
		}
		width, height := width+20, 28+lineHeight*float64(len(n.notes))
		nodes[i] = &item{box: box{w: max(width, 44), h: height}, rank: ranks[i]}
		l.nodes = append(l.nodes, &nodes[i].box)
		put(nodes[i])
	}
	for i, e := range d.edges {
		last := nodes[e.from]
		way := []*box{&last.box}
		for rank := ranks[e.from] + 1; rank < ranks[e.to]; rank++ {
			bend := &item{rank: rank}
			if rank == ranks[e.from]+1 && len(e.labels) > 0 {
				bend.w, bend.h = labelSize(e.labels)
				l.labels[i] = &bend.box
			}
			join(last, bend)
			put(bend)
			way = append(way, &bend.box)
			last = bend
		}
		join(last, nodes[e.to])
		l.ways = append(l.ways, append(way, &nodes[e.to].box))
	}
	l.place(best(layers))
	return l
}

func join(a, b *item) { a.near, b.near = append(a.near, b), append(b.near, a) }

func labelSize(lines []string) (w, h float64) {
	for _, line := range lines {
		w = max(w, charWidth*float64(utf8.RuneCountInString(line)))
	}
	return w + 6, lineHeight * float64(len(lines))
}

// ranks are the lengths of the longest ways from the start. A graph with a cycle has none that are
// longest: there they stop growing at the number of nodes, and edges back are drawn as they fall.
func (d Diagram) ranks() []int {
	ranks := make([]int, len(d.nodes))
	for range d.nodes {
		changed := false
		for _, e := range d.edges {
			if ranks[e.to] <= ranks[e.from] && ranks[e.from]+1 < len(d.nodes) {
				ranks[e.to], changed = ranks[e.from]+1, true
			}
		}
		if !changed {
			break
		}
	}
	return ranks
}

// best orders the layers from the order of the diagram and from the contrary one, downwards first and
// upwards first, and returns the first of these with the fewest crossings.
func best(layers [][]*item) (chosen [][]*item) {
	fewest := -1
	for try := range 4 {
		var tried [][]*item
		for _, layer := range layers {
			layer = slices.Clone(layer)
			if try&1 != 0 {
				slices.Reverse(layer)
			}
			tried = append(tried, layer)
		}
		order(tried, try>>1)
		uncross(tried)
		crossed := 0
		for _, layer := range tried {
			for k, a := range layer {
				for _, b := range layer[k+1:] {
					crossed += crossings(a, b)
				}
			}
		}
		if fewest < 0 || crossed < fewest {
			chosen, fewest = tried, crossed
		}
	}
	for _, layer := range chosen {
		spaceOut(layer)
	}
	return chosen
}

// spaceOut spaces out the items of a layer evenly.
func spaceOut(layer []*item) {
	for i, it := range layer {
		it.x = float64(i) - float64(len(layer)-1)/2
	}
}

// order sorts each layer by the mean place of the neighbours in the layer before, downwards and
// upwards in turn; first is 0 to begin downwards, and 1 upwards.
func order(layers [][]*item, first int) {
	for _, layer := range layers {
		spaceOut(layer)
	}
	for sweep := first; sweep < first+12; sweep++ {
		for i := range layers {
			step := 1
			if sweep%2 == 1 {
				i, step = len(layers)-1-i, -1
			}
			for _, it := range layers[i] {
				it.key = it.mean(func(other *item) bool { return (other.rank-it.rank)*step < 0 })
			}
			slices.SortStableFunc(layers[i], func(a, b *item) int { return cmp.Compare(a.key, b.key) })
			spaceOut(layers[i])
		}
	}
}

// uncross lets neighbours in a layer change places where fewer edges cross then, until none want to.
func uncross(layers [][]*item) {
	for changed, left := true, 50; changed && left > 0; left-- {
		changed = false
		for _, layer := range layers {
			for i := 1; i < len(layer); i++ {
				a, b := layer[i-1], layer[i]
				if crossings(b, a) < crossings(a, b) {
					layer[i-1], layer[i] = b, a
					a.x, b.x = b.x, a.x
					changed = true
				}
			}
		}
	}
}

// crossings counts those between the edges of a and those of b, when a stands left of b.
func crossings(a, b *item) (n int) {
	for _, p := range a.near {
		for _, q := range b.near {
			if p.rank == q.rank && p.x > q.x {
				n++
			}
		}
	}
	return n
}

// mean is the mean place of those neighbours that count, or the own one.
func (it *item) mean(counts func(*item) bool) float64 {
	sum, n := 0.0, 0.0
	for _, other := range it.near {
		if counts(other) {
			sum, n = sum+other.x, n+1
		}
	}
	if n == 0 {
		return it.x
	}
	return sum / n
}

// place gives every item its middle: as near to its neighbours as the others in its layer allow.
func (l *layout) place(layers [][]*item) {
	y := margin
	for _, layer := range layers {
		height := 0.0
		for _, it := range layer {
			height = max(height, it.h)
		}
		for _, it := range layer {
			it.x, it.y = it.x*60, y+height/2
			if it.w == 0 {
				it.h = height // an edge that passes goes straight down beside its neighbours
			}
		}
		y += height + gapDown
	}
	for sweep := range 24 {
		for i := range layers {
			if sweep%2 == 1 {
				i = len(layers) - 1 - i
			}
			spread(layers[i])
		}
	}
	left, right := 0.0, 0.0
	for _, layer := range layers {
		for _, it := range layer {
			left, right = min(left, it.x-it.w/2), max(right, it.x+it.w/2)
		}
	}
	for _, layer := range layers {
		for _, it := range layer {
			it.x += margin - left
		}
	}
	l.width, l.height = right-left+2*margin, y-gapDown+margin
}

// spread moves the items of a layer towards the mean of their neighbours, keeps their order and gaps,
// and shifts them all so that they are off by nothing on the whole.
func spread(layer []*item) {
	wanted := make([]float64, len(layer))
	for i, it := range layer {
		wanted[i] = it.mean(func(*item) bool { return true })
	}
	off := 0.0
	for i, it := range layer {
		it.x = wanted[i]
		if i > 0 {
			before := layer[i-1]
			it.x = max(it.x, before.x+(before.w+it.w)/2+gapAcross)
		}
		off += it.x - wanted[i]
	}
	for _, it := range layer {
		it.x -= off / float64(len(layer))
	}
}

// path is the way of an edge, as SVG writes it.
func (l *layout) path(edge int) string {
	way := l.ways[edge]
	var b strings.Builder
	x, y := way[0].x, way[0].y+way[0].h/2
	fmt.Fprintf(&b, "M%.0f %.0f", x, y)
	for _, next := range way[1:] {
		top := next.y - next.h/2
		middle := (y + top) / 2
		fmt.Fprintf(&b, "C%.0f %.0f %.0f %.0f %.0f %.0f", x, middle, next.x, middle, next.x, top)
		x, y = next.x, next.y+next.h/2
		if next.h > 0 && next != way[len(way)-1] {
			fmt.Fprintf(&b, "V%.0f", y)
		}
	}
	return b.String()
}
