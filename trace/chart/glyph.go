package chart

import "fmt"

// glyph is a shape on a lane. A greater one covers a lesser one.
type glyph uint8

const (
	glyphNone glyph = iota
	glyphStep
	glyphTimer
	glyphRecover
	glyphDamage
	glyphInDoubt
	glyphPreAborted
	glyphPreCommitted
	glyphAborted
	glyphCommitted
	glyphHazard
	glyphCrash
)

func standingGlyph(s standing) glyph {
	switch s {
	case inDoubt:
		return glyphInDoubt
	case preAborted:
		return glyphPreAborted
	case preCommitted:
		return glyphPreCommitted
	case aborted:
		return glyphAborted
	case committed:
		return glyphCommitted
	case hazard:
		return glyphHazard
	}
	return glyphNone
}

// meaning is what the legend says of the glyph.
func (g glyph) meaning() string {
	return [...]string{"", "step", "timer expires", "restart", "damage", "in doubt", "pre-aborted", "pre-committed",
		"abort", "commit", "hazard: not known", "crash"}[g]
}

// draw draws the glyph with its centre at x, y.
func (g glyph) draw(d *drawing, x, y float64) {
	var shape string
	switch g {
	case glyphNone:
		return
	case glyphStep:
		shape = `<circle class="step" r="3.5"/>`
	case glyphTimer:
		shape = `<circle class="timer" r="6"/><path class="hand" d="M0-4V0L3 2"/>`
	case glyphRecover:
		shape = `<path class="recover" d="M-6-6H6L0 6Z"/>`
	case glyphDamage:
		shape = `<path class="damage" d="M-6-6H6V6H-6Z"/><path class="sign" d="M-3-6L1-1L-2 1L2 6"/>`
	case glyphInDoubt:
		shape = `<path class="in-doubt" d="M0-10L10 0L0 10L-10 0Z"/><text class="sign-text" y="4">?</text>`
	case glyphPreAborted:
		shape = `<path class="pre-aborted" d="M0-10L10 0L0 10L-10 0Z"/><path class="sign" d="M-4 0H4"/>`
	case glyphPreCommitted:
		shape = `<path class="pre-committed" d="M0-10L10 0L0 10L-10 0Z"/><path class="sign" d="M-4 0H4M0-4V4"/>`
	case glyphAborted:
		shape = `<path class="aborted" d="M-8-8H8V8H-8Z"/><path class="sign" d="M-4-4L4 4M4-4L-4 4"/>`
	case glyphCommitted:
		shape = `<circle class="committed" r="9"/><path class="sign" d="M-4 0L-1 3.5L4.5-3.5"/>`
	case glyphHazard:
		shape = `<path class="hazard" d="M0-10L10 8H-10Z"/><path class="sign" d="M0-4V2M0 4.5V5.5"/>`
	case glyphCrash:
		shape = `<path class="crash" d="M-7-7L7 7M7-7L-7 7"/>`
	}
	d.printf(`<g class="glyph" transform="translate(%s %s)">%s</g>`+"\n", num(x), num(y), shape)
}

// num writes a coordinate with at most one decimal.
func num(x float64) string {
	s := fmt.Sprintf("%.1f", x)
	if s[len(s)-1] == '0' {
		s = s[:len(s)-2]
	}
	if s == "-0" {
		s = "0"
	}
	return s
}
