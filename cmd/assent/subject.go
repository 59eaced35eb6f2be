package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/sim"
	simcluster "assent/sim/cluster"
	"assent/sim/stack"
	"assent/spec"
	"assent/trace"
	"assent/trace/chart"
)

// subject makes what the simulator runs under that name: the stack, the cluster, or a system.
func (p parameters) subject(name string) (sim.Subject, error) {
	if name == stack.Name {
		s := &stack.Stack{Size: stack.Size{Sites: p.participants}}
		if err := s.Validate(); err != nil || p.participants == 0 {
			return nil, misuse("see --participants", "the stack has %d sites; 1 to 8 are allowed", p.participants)
		}
		return s, nil
	}
	if name == simcluster.Name {
		return p.cluster()
	}
	system, err := findSystem(name)
	if err != nil {
		return nil, misuse("assent sim --help lists them", "there is no protocol %q to simulate", name)
	}
	made, err := system.make(p)
	if err != nil {
		return nil, err
	}
	return &sim.System{Name: name, Parameters: p.text(), Nodes: made.nodes, Codec: made.codec, Always: made.always,
		Sometimes: made.sometimes, Done: made.done, Excused: totalFailure, Safety: system.safety}, nil
}

// simulatedSafety is how long faults happen: longer than anybody waits before suspecting somebody, which
// is 20 s in three-phase commit, or a partition would be over when it is noticed.
const simulatedSafety = 2 * time.Minute

// totalFailure reports whether all sites of a decentralised commit have been down, so that, by its own
// account, nobody is left who may decide.
func totalFailure(v spec.View) bool {
	for i := range v.Nodes() {
		n, ok := v.Machine(i).(*commit.PeerNode)
		if !ok || !n.Peer.Outside || n.Standing().Done {
			return false
		}
	}
	return true
}

// untimely are the classes of faults under which a node may be suspected that is up.
var untimely = []sim.Class{sim.Loss, sim.Delay, sim.Slow, sim.Drift, sim.Reordering, sim.Partition, sim.OneWay,
	sim.Flapping, sim.Garbling}

// classesFor returns the classes of faults that a subject promises to bear.
func classesFor(name string, subject sim.Subject) (classes []sim.Class) {
	if name == simcluster.Name {
		return simcluster.Classes()
	}
	made, ok := subject.(*sim.System)
	whims := ok && inputs(made.Nodes)
	s, err := findSystem(name)
	for _, c := range sim.Classes() {
		if c == sim.Whim && !whims || err == nil && s.synchronous && slices.Contains(untimely, c) {
			continue
		}
		classes = append(classes, c)
	}
	return classes
}

// aimed is a subject some of whose faults strike a named node.
type aimed struct {
	sim.Subject
	at map[sim.Class]protocol.NodeID
}

// Draw implements sim.Subject.
func (a aimed) Draw(seed uint64, classes []sim.Class) sim.Plan {
	plan := a.Subject.Draw(seed, classes)
	for i := range plan.Faults {
		f := &plan.Faults[i]
		if n, ok := a.at[f.Class]; ok && len(f.Side) > 0 {
			f.Side = []protocol.NodeID{n}
		} else if ok {
			f.Node = n
		}
	}
	return plan
}

// subjectOf makes what the header of a trace names.
func subjectOf(h trace.Header) (sim.Subject, error) {
	if h.System == stack.Name {
		s, _, err := stack.FromHeader(h)
		if err != nil {
			return nil, fail("assent sim stack writes such files", "the header: %v", err)
		}
		return s, nil
	}
	if h.System == simcluster.Name {
		s, _, err := simcluster.FromHeader(h)
		if err != nil {
			return nil, fail("assent sim cluster writes such files", "the header: %v", err)
		}
		return s, nil
	}
	if h.Executor == trace.Live {
		return nil, fail("assent chart draws it", "this is a trace of a live run, which cannot be run again")
	}
	if _, err := findSystem(h.System); err != nil {
		return nil, fail("docs/simulator.md describes the header", "the header names the system %q, which is not known", h.System)
	}
	p, err := readParameters(h.Parameters)
	if err != nil {
		return nil, fail("docs/simulator.md lists the parameters", "the header: %v", err)
	}
	p.simulated = h.Executor == trace.Sim
	s, err := p.subject(h.System)
	if err != nil {
		return nil, fail("docs/simulator.md lists the parameters", "the header: %v", err)
	}
	return s, nil
}

// kept is an observer that keeps the events of a run.
type kept struct{ events []trace.Event }

// Observe implements trace.Observer.
func (k *kept) Observe(e trace.Event) {
	if w, ok := e.Value.([]protocol.Write); ok {
		e.Value = slices.Clone(w) // it is lent
	}
	k.events = append(k.events, e)
}

// writeEvents writes a trace as text, in the file or, where its name is -, on standard output.
func (p *program) writeEvents(name string, s sim.Subject, h trace.Header, events []trace.Event) (err error) {
	out := p.out
	if name != "-" {
		f, err := os.Create(name)
		if err != nil {
			return fail("", "cannot write the trace: %v", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	return writeTrace(out, s, h, events)
}

func writeTrace(out io.Writer, s sim.Subject, h trace.Header, events []trace.Event) error {
	w, err := trace.NewWriter(out, s.Types(), h, trace.Text())
	if err != nil {
		return err
	}
	for _, e := range events {
		w.Observe(e)
	}
	return w.Close()
}

// drawEvents draws a chart in the file, in the form that its name says. It is made from the trace as it
// is written, because from there a chart reads how the nodes stand. Without a title it has the usual one.
func (p *program) drawEvents(name, title string, s sim.Subject, h trace.Header, events []trace.Event) error {
	var text bytes.Buffer
	if err := writeTrace(&text, s, h, events); err != nil {
		return err
	}
	r, err := trace.NewReader(&text, nil)
	if err != nil {
		return err
	}
	written := make([]trace.Event, 0, len(events))
	for range events {
		e, err := r.Next()
		if err != nil {
			return err
		}
		written = append(written, e)
	}
	drawn, err := chart.New(h, written, chart.Options{Title: title})
	if errors.Is(err, chart.ErrTooLong) {
		return fail("write it with --trace, and choose a part with assent chart FILE --scope, --from and --to",
			"%s events are too much for one chart", thousands(len(events)))
	}
	if err != nil {
		return err
	}
	render := drawn.WriteSVG
	if strings.HasSuffix(name, ".html") {
		render = drawn.WriteHTML
	}
	var b bytes.Buffer
	if err := render(&b); err != nil {
		return err
	}
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		return fail("", "cannot write the chart: %v", err)
	}
	return nil
}

// title is what stands over the chart of a run.
func title(r sim.Report) string {
	if r.Failure == nil {
		return ""
	}
	return "not so: " + r.Failure.Claim
}

// chartName refuses a chart's file whose form is not known.
func chartName(name string) error {
	if name != "" && !strings.HasSuffix(name, ".svg") && !strings.HasSuffix(name, ".html") {
		return misuse("name a file that ends in .svg or .html", "there is no chart of the form of %q", name)
	}
	return nil
}
