package demo

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// progress tells how far the demonstration is: a bar on a terminal, elsewhere a line now and then.
type progress struct {
	out   io.Writer
	bar   bool
	began time.Time
	last  time.Time
}

// lineEvery is the pause between two lines where there is no terminal.
const lineEvery = 5 * time.Second

func newProgress(out io.Writer, o options) *progress {
	p := &progress{out: out, began: time.Now(), last: time.Now()}
	if f, ok := out.(*os.File); ok {
		p.bar = term.IsTerminal(int(f.Fd()))
	}
	fmt.Fprintf(out, "seed %d: killing the registrar %d times while students enrol; Ctrl-C ends it early\n", o.seed, o.kills)
	return p
}

const barWidth = 24

func (p *progress) show(share float64, text string) {
	seconds := time.Since(p.began).Seconds()
	if p.bar {
		full := int(share * barWidth)
		fmt.Fprintf(p.out, "\r\x1b[K[%s%s] %s, %.0f s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), text, seconds)
		return
	}
	if time.Since(p.last) >= lineEvery {
		p.last = time.Now()
		fmt.Fprintf(p.out, "%3.0f %% after %.0f s: %s\n", 100*share, seconds, text)
	}
}

// say shows what comes after the kills, on a terminal.
func (p *progress) say(text string) {
	if p.bar {
		fmt.Fprintf(p.out, "\r\x1b[K%s", text)
	}
}

// done clears the bar.
func (p *progress) done() { p.say("") }
