package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// bar shows how far long work is: on a terminal in one line that is written over, elsewhere in a line
// after a second and then now and then. Work that takes less than a second shows nothing. One goroutine
// at a time uses it.
type bar struct {
	out      io.Writer
	terminal bool
	began    time.Time
	last     time.Time
}

// The width of a bar, and the pause between two lines where there is no terminal.
const (
	barWidth = 24
	barLines = 5 * time.Second
)

func newBar(out io.Writer) *bar {
	b := &bar{out: out, began: time.Now()}
	if f, ok := out.(*os.File); ok {
		b.terminal = term.IsTerminal(int(f.Fd()))
	}
	return b
}

// show says that so many parts of the whole are done.
func (b *bar) show(share float64, text string) {
	switch {
	case b.terminal && time.Since(b.began) >= time.Second:
		full := int(min(max(share, 0), 1) * barWidth)
		fmt.Fprintf(b.out, "\r\x1b[K[%s%s] %s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), text)
	case !b.terminal && time.Since(b.began) >= time.Second && time.Since(b.last) >= barLines:
		b.last = time.Now()
		fmt.Fprintf(b.out, "%3.0f %%: %s\n", 100*share, text)
	}
}

// done clears the line.
func (b *bar) done() {
	if b.terminal {
		fmt.Fprint(b.out, "\r\x1b[K")
	}
}
