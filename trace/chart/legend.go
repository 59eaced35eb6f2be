package chart

import "slices"

// entry is a line of the legend.
type entry struct {
	text string
	draw func(d *drawing, x, y float64)
}

// entries explains what occurs in the chart, and nothing else.
func (d *drawing) entries() (all []entry) {
	var glyphs []glyph
	var writes [failed + 1]bool
	for _, r := range d.c.rows {
		for _, m := range r.marks {
			glyphs = append(glyphs, m.glyph)
			for _, n := range m.notes {
				writes[n.write] = true
			}
		}
	}
	for g := glyphStep; g <= glyphCrash; g++ {
		if slices.Contains(glyphs, g) {
			all = append(all, entry{g.meaning(), g.draw})
		}
	}
	add := func(ok bool, text, shape string) {
		if ok {
			all = append(all, entry{text, func(d *drawing, x, y float64) {
				d.printf(`<g transform="translate(%s %s)">%s</g>`, num(x), num(y), shape)
			}})
		}
	}
	add(writes[stable], "stable write", boxes[stable])
	add(writes[failed], "failed write", boxes[failed])
	add(len(d.c.spans) > 0, "timer runs", `<path class="span" d="M0-9V9"/>`)
	fates := map[fate]bool{}
	for _, a := range d.c.arrows {
		fates[a.fate] = true
	}
	way := `<path class="way" d="M-14 0H10"/>`
	add(fates[arrives], "message", `<g class="message">`+way+`<path class="tip" d="M12 0l-8-4v8Z"/></g>`)
	add(fates[lost], "lost", `<g class="message lost">`+way+`<path class="cross" d="M6-5l10 10m0-10l-10 10"/></g>`)
	add(fates[copied], "copy by the network", `<g class="message copied">`+way+`<path class="tip" d="M12 0l-8-4v8Z"/></g>`)
	add(fates[altered], "altered on its way", `<g class="message altered">`+way+`<path class="tip" d="M12 0l-8-4v8Z"/></g>`)
	add(fates[pending], "still on its way", `<g class="message pending">`+way+`<circle class="cross" cx="12" r="3"/></g>`)
	add(fates[strange], "sender not shown", `<g class="message strange">`+way+`<path class="tip" d="M12 0l-8-4v8Z"/></g>`)
	add(len(d.c.bands) > 0, "cut: nothing gets through", `<path class="cut" d="M-12-8h24v16h-24Z"/>`)
	return all
}

func (d *drawing) drawLegend() {
	for i, e := range d.legend {
		x := 34 + float64(i%d.columns)*legendColumn
		y := d.bottom + 22 + float64(i/d.columns)*legendRow
		e.draw(d, x, y)
		d.printf(`<text class="note" x="%s" y="%s">%s</text>`+"\n", num(x+20), num(y+4), e.text)
	}
}
