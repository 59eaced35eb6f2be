package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"assent/protocol"
	"assent/trace"
	"assent/trace/chart"
)

// charting is one run of assent chart.
type charting struct {
	p        *program
	out      string
	format   string
	filter   trace.Filter
	from, to string
	nodes    []string
	list     bool
	choices  bool
	most     int
}

func (p *program) chartCommand() *cobra.Command {
	c := charting{p: p}
	cmd := &cobra.Command{
		Use:   "chart FILE",
		Short: "draw a trace: what every process did, and which messages passed between them",
		Long: `Draw the trace in FILE as a space-time chart: processes are lines, time goes down, messages are
arrows. FILE is what assent serve --trace, assent demo --trace, assent sim and assent check write;
- is standard input.

The name after -o says what is made of it:
  .svg     a picture that needs nothing else, in print and on light and dark screens
  .html    the same, to be stepped through forwards and backwards
  .txt     the trace as text, a line for each event
  .jsonl   the trace as JSON lines
  .shiviz  a log with vector clocks, for ShiViz
Without -o the text goes to standard output.

A server's trace holds many transactions. --list lists them, --scope chooses one; those that a
crash has cut through are marked. docs/format/trace.md is the legend of the text.`,
		Example: `  assent chart run.trace --list
  assent chart run.trace --scope 01K9ZQ6M4T8D3N5V7X2B1C0FGH-1a -o transfer.html
  assent chart run.trace --from 2.5s --to 3s --nodes coordinator,orders -o part.svg
  assent sim 2pc --seed 7 --trace - | assent chart - -o seven.svg
  assent chart run.trace --choices -o script.txt`,
		Args: exactlyOne("trace, or - for standard input"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.InOrStdin(), args[0]) },
	}
	f := cmd.Flags()
	f.StringVarP(&c.out, "output", "o", "", "write to this `file`; its end says in what form")
	f.StringVar(&c.format, "format", "", "the form, where the file's name does not say it: svg, html, txt, jsonl or shiviz")
	f.StringVar(&c.filter.Scope, "scope", "", "only this transaction, by its `ID` or the end or beginning of it")
	f.StringSliceVar(&c.nodes, "nodes", nil, "only these nodes, and what passes between them")
	f.StringVar(&c.from, "from", "", "begin with this event: its `number`, or a time such as 2.5s")
	f.StringVar(&c.to, "to", "", "end with this event: its `number`, or a time such as 2.5s")
	f.BoolVar(&c.list, "list", false, "list the transactions of the trace instead")
	f.BoolVar(&c.choices, "choices", false, "only what does not follow from the rest: a script for assent replay")
	f.IntVar(&c.most, "max-steps", chart.DefaultMaxSteps, "draw at most `N` steps")
	return cmd
}

// forms are what can be made of a trace, by the ends of files' names.
var forms = []string{"svg", "html", "txt", "jsonl", "shiviz"}

func (c *charting) run(stdin io.Reader, name string) error {
	if err := c.parse(); err != nil {
		return err
	}
	in, from := stdin, "standard input"
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return fail("assent serve --trace FILE writes one", "cannot read the trace: %v", err)
		}
		defer file.Close()
		in, from = file, name
	}
	r, err := trace.NewReader(in, nil)
	if err != nil {
		return fail("assent serve --trace FILE writes one", "%s: %v", from, err)
	}
	if c.list {
		return c.listScopes(r, from)
	}
	s, err := c.read(r, from)
	if err != nil {
		return err
	}
	return c.write(func(w io.Writer) error { return c.render(w, r.Header(), s) })
}

// parse reads the flags.
func (c *charting) parse() (err error) {
	if c.format == "" {
		c.format = strings.TrimPrefix(filepath.Ext(c.out), ".")
		if c.out == "" {
			c.format = "txt"
		}
	}
	if !slices.Contains(forms, c.format) {
		return misuse("name a file that ends in ."+strings.Join(forms, ", .")+", or say --format", "there is no form %q", c.format)
	}
	for _, n := range c.nodes {
		c.filter.Nodes = append(c.filter.Nodes, protocol.NodeID(n))
	}
	c.filter.Choices = c.choices
	if c.filter.From, c.filter.Since, err = bound("--from", c.from); err != nil {
		return err
	}
	if c.filter.To, c.filter.Until, err = bound("--to", c.to); err != nil {
		return err
	}
	if c.most < 1 || c.most > 100_000 {
		return misuse("", "--max-steps is %d; 1 to 100000 are allowed", c.most)
	}
	return nil
}

// bound reads the number of an event or a time.
func bound(flag, text string) (number int, at time.Duration, err error) {
	if text == "" {
		return 0, 0, nil
	}
	if number, err := strconv.Atoi(text); err == nil && number > 0 {
		return number, 0, nil
	}
	if at, err := time.ParseDuration(text); err == nil && at > 0 {
		return 0, at, nil
	}
	return 0, 0, misuse("give the number of an event, such as 120, or a time in the run, such as 2.5s", "%s is %q", flag, text)
}

// mostEvents bounds what a selection may hold in memory.
const mostEvents = 2_000_000

// read reads the part of the trace that was asked for.
func (c *charting) read(r *trace.Reader, from string) (*trace.Selection, error) {
	s := c.filter.Select()
	for {
		e, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			if r.Truncated() {
				fmt.Fprintf(c.p.err, "note: %s was cut off when it hit its limit; the rest of the run is not in it\n", from)
			}
			return s, s.End()
		case errors.Is(err, io.ErrUnexpectedEOF):
			fmt.Fprintf(c.p.err, "note: %s ends within a line, as a process leaves it that dies; what comes before is used\n", from)
			return s, s.End()
		case err != nil:
			return nil, fail("docs/format/trace.md describes the form", "%s: %v", from, err)
		}
		s.Add(e)
		if len(s.Events) > mostEvents {
			return nil, fail("choose a part with --scope, --nodes, --from and --to; --list lists the transactions",
				"%s: more than %d events", from, mostEvents)
		}
	}
}

// render makes what was asked for of what was selected.
func (c *charting) render(w io.Writer, h trace.Header, s *trace.Selection) error {
	switch c.format {
	case "txt", "jsonl":
		return s.Write(w, h, c.format == "txt")
	case "shiviz":
		return trace.WriteShiViz(w, s.Events)
	}
	drawn, err := chart.New(h, s.Events, chart.Options{Numbers: s.Numbers, MaxSteps: c.most})
	switch {
	case errors.Is(err, chart.ErrTooLong):
		hint := "choose a part with --scope, --nodes, --from and --to, or raise --max-steps"
		if s.Scopes > 1 {
			hint = "choose a transaction with --scope; --list lists them"
		}
		return fail(hint, "%d events of %d transactions are too much for one chart: more than %d steps", len(s.Events), s.Scopes, c.most)
	case err != nil:
		return err
	case c.format == "html":
		return drawn.WriteHTML(w)
	}
	return drawn.WriteSVG(w)
}

// write hands over standard output, or the file, which is there only if all went well.
func (c *charting) write(render func(io.Writer) error) error {
	if c.out == "" {
		return render(c.p.out)
	}
	var b strings.Builder
	if err := render(&b); err != nil {
		return err
	}
	if err := os.WriteFile(c.out, []byte(b.String()), 0o644); err != nil {
		return fail("", "cannot write the chart: %v", err)
	}
	return nil
}

// listScopes prints the transactions of a trace.
func (c *charting) listScopes(r *trace.Reader, from string) error {
	digest := trace.NewDigest()
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return fail("docs/format/trace.md describes the form", "%s: %v", from, err)
		}
		digest.Add(e)
	}
	var t table
	t.add(cell{text: "SCOPE"}, cell{text: "EVENTS"}, cell{text: "FROM"}, cell{text: "SECONDS"}, cell{text: "NODES"}, cell{text: "REMARK"})
	for _, s := range digest.Scopes() {
		t.add(cell{text: orDash(s.Name)}, cell{text: strconv.Itoa(s.Events)}, cell{text: strconv.Itoa(s.First)},
			cell{text: fmt.Sprintf("%.6f", (s.Ended - s.Began).Seconds())}, cell{text: strconv.Itoa(s.Nodes)}, cell{text: s.Remark()})
	}
	return t.write(c.p.out)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
