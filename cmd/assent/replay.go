package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"assent/sim"
	simcluster "assent/sim/cluster"
	"assent/sim/stack"
	"assent/trace"
)

// replaying is one run of assent replay.
type replaying struct {
	p            *program
	chart, trace string
}

func (p *program) replayCommand() *cobra.Command {
	c := replaying{p: p}
	cmd := &cobra.Command{
		Use:   "replay FILE",
		Short: "run a trace or a script again",
		Long: `Run again what FILE holds: a trace of the simulator or the checker, or a script, which is a trace's
choices alone. The machines are made from the header. They are given the choices in their order:
messages arrive, timers run out and nodes crash when the file says so. All else must come out as it
stands in the file. Of the whole stack, the header alone makes the run.

Where a claim is broken, as in the script of a seed that fails, that is said and the exit code is 7.
Where FILE cannot be followed, because it was changed or its machines were, the exit code is 1.
- is standard input.`,
		Example: `  assent sim 2pc --faults lie > script.txt
  assent replay script.txt
  assent replay script.txt --trace - | assent chart - -o script.html
  assent replay script.txt --chart script.svg`,
		Args: exactlyOne("trace or script"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.InOrStdin(), args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&c.chart, "chart", "", "draw what happened in this `file`: .svg or .html")
	f.StringVar(&c.trace, "trace", "", "write all that happened to this `file`; - is standard output")
	return cmd
}

// mostScript bounds the bytes of a file that is replayed.
const mostScript = 256 << 20

func (c *replaying) run(stdin io.Reader, name string) error {
	if err := cmp.Or(chartName(c.chart), writable(c.trace, c.chart)); err != nil {
		return err
	}
	in, from := stdin, "standard input"
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return fail("assent sim writes scripts", "cannot read the script: %v", err)
		}
		defer f.Close()
		in, from = f, name
	}
	data, err := io.ReadAll(io.LimitReader(in, mostScript+1))
	if err == nil && len(data) > mostScript {
		err = fmt.Errorf("it has more than %d bytes", mostScript)
	}
	if err != nil {
		return fail("", "cannot read %s: %v", from, err)
	}
	s, h, events, err := readScript(data, from)
	if err != nil {
		return err
	}
	var made kept
	report, err := again(s, h, events, &made)
	if errors.Is(err, sim.ErrScript) {
		return fail("the file was changed, or is of other machines", "%s: %v", from, err)
	}
	if err != nil {
		return err
	}
	return c.tell(s, h, report, made.events)
}

// readScript reads the header of a file, makes the subject from it, and reads the events.
func readScript(data []byte, from string) (s sim.Subject, h trace.Header, events []trace.Event, err error) {
	const hint = "docs/format/trace.md describes the form"
	r, err := trace.NewReader(bytes.NewReader(data), nil)
	if err != nil {
		return nil, h, nil, fail(hint, "%s: %v", from, err)
	}
	h = r.Header()
	if s, err = subjectOf(h); err != nil {
		return nil, h, nil, err
	}
	// The nodes end a header: where they are all there, so is what comes before.
	if nodes := s.Header(sim.Plan{}).Nodes; !slices.Equal(h.Nodes, nodes) {
		return nil, h, nil, fail("the file is cut off within its header, or was changed; it needs the header as it was written",
			"%s: the header names the nodes %v; those of the system are %v", from, h.Nodes, nodes)
	}
	if r, err = trace.NewReader(bytes.NewReader(data), s.Types()); err != nil {
		return nil, h, nil, fail(hint, "%s: %v", from, err)
	}
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return s, h, events, nil
		}
		if err != nil {
			return nil, h, nil, fail(hint, "%s: %v", from, err)
		}
		events = append(events, e)
	}
}

// again runs the file once more.
func again(s sim.Subject, h trace.Header, events []trace.Event, o *kept) (sim.Report, error) {
	plan, err := sim.ReadPlan(h)
	if err != nil {
		return sim.Report{}, fail("docs/simulator.md lists the parameters", "the header: %v", err)
	}
	if system, ok := s.(*sim.System); ok && (len(events) > 0 || len(plan.Faults) == 0) {
		return system.Replay(plan, events, o)
	}
	r, err := s.Run(plan, o)
	if err != nil || len(events) == 0 {
		return r, err
	}
	return r, sameEvents(s, events, o.events)
}

// sameEvents finds the first line in which two traces differ.
func sameEvents(s sim.Subject, want, got []trace.Event) error {
	x, err1 := lines(s, want)
	y, err2 := lines(s, got)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	for i := range max(len(x), len(y)) {
		switch {
		case i >= len(x) || i >= len(y):
			return fmt.Errorf("%w: the trace has %d lines, and the run %d", sim.ErrScript, len(x), len(y))
		case x[i] != y[i]:
			return fmt.Errorf("%w: event %d comes out as %q; in the trace it is %q", sim.ErrScript, i+1, y[i], x[i])
		}
	}
	return nil
}

// lines returns the trace of the events, a line for each.
func lines(s sim.Subject, events []trace.Event) ([]string, error) {
	var b strings.Builder
	err := writeTrace(&b, s, trace.Header{}, events)
	var body []string
	for line := range strings.SplitSeq(b.String(), "\n") {
		if !strings.HasPrefix(line, "#") {
			body = append(body, line)
		}
	}
	return body, err
}

// tell prints how the run ended.
func (c *replaying) tell(s sim.Subject, h trace.Header, r sim.Report, events []trace.Event) error {
	if c.trace != "" {
		if err := c.p.writeEvents(c.trace, s, h, events); err != nil {
			return err
		}
	}
	if c.chart != "" {
		if err := c.p.drawEvents(c.chart, title(r), s, h, events); err != nil {
			return err
		}
	}
	choices := 0
	for _, e := range events {
		if e.Choice() {
			choices++
		}
	}
	out := c.p.out
	if c.trace == "-" {
		out = c.p.err
	}
	fmt.Fprintf(out, "%s choices, %s events\n", thousands(choices), thousands(len(events)))
	if len(r.Unfinished) > 0 {
		fmt.Fprintf(out, "not at their end: %v\n", r.Unfinished)
	}
	if r.Failure == nil {
		_, err := fmt.Fprintln(out, "no claim is broken")
		return err
	}
	f := &failure{text: r.Failure.String(), exit: exitUnsound}
	if (h.System == stack.Name || h.System == simcluster.Name) && c.trace == "" {
		f.hint = "--trace FILE writes the run; assent chart FILE --scope draws a transaction of it"
	}
	return f
}
