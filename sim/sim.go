// Package sim is the simulated executor: it runs machines in the live engine's own loops, over
// simulated disks, a simulated network and simulated time, among faults that a seed has drawn.
//
// It promises that one plan makes one run, event for event: everything happens in one goroutine, and
// every chance is drawn from the plan's seed. A run has a phase of safety, in which faults happen, and
// a phase of liveness, in which all is healed and everything must come to its end. It says nothing
// about how fast live runs are: simulated time passes as the plan says.
//
// The faults and how to read a seed that fails are described in docs/simulator.md. A System is of machines alone. What
// has more, as packages stack and cluster below this one have, is built of Run, Process and Disk.
package sim

import (
	"errors"
	"fmt"
	"time"

	"assent/protocol"
	"assent/spec"
	"assent/trace"
)

// Subject is what can be simulated. Its methods may be called concurrently.
type Subject interface {
	// Draw makes a plan from the seed, with faults of the given classes. It never fails: Run refuses the
	// plan of a subject that cannot be run.
	Draw(seed uint64, classes []Class) Plan
	// Run runs the plan and tells the observer, if there is one, of every event. It fails where the
	// subject cannot be run; what breaks a claim is in the report.
	Run(plan Plan, observer trace.Observer) (Report, error)
	// Header describes the run of a plan, so that it can be had again.
	Header(plan Plan) trace.Header
	// Types knows the values in the subject's traces.
	Types() *protocol.Codec
}

// Report says what happened in a run.
type Report struct {
	Plan Plan
	// Failure is what was found wrong first, or nil.
	Failure *Failure
	// Events counts the events of the trace, Messages the packets that were sent.
	Events, Messages uint64
	// Simulated is how long the run took, by its own clock.
	Simulated time.Duration
	// Unfinished are the nodes that were not at their end when the run was over.
	Unfinished []protocol.NodeID
	// Fired counts what faults have done, by class: a message lost, a node crashed.
	Fired map[Class]int
	// Reached counts what was reached that should be at times, by name: the Sometimes of a System, the
	// outcomes and the ways of recovery of the stack.
	Reached map[string]int
}

// Failure is a claim that did not hold.
type Failure struct {
	// Claim names it.
	Claim string
	// At is when it was found broken.
	At time.Duration
	// Detail says what was seen; it may be empty.
	Detail string
}

// String returns the failure in one line.
func (f *Failure) String() string {
	if f.Detail == "" {
		return fmt.Sprintf("after %v: not so: %s", f.At, f.Claim)
	}
	return fmt.Sprintf("after %v: not so: %s (%s)", f.At, f.Claim, f.Detail)
}

// Ended is the claim of liveness.
const Ended = "after the faults everything comes to its end"

// ErrSystem says that a system cannot be simulated; the text says why.
var ErrSystem = errors.New("system cannot be simulated")

// System is what the simulator runs: the same nodes that the checker takes. It is a Subject. Fields
// that are missing make no claim.
type System struct {
	// Name and Parameters go into the header of traces, by which a replay makes the system again.
	Name       string
	Parameters map[string]string
	Nodes      []protocol.Node
	Codec      *protocol.Codec
	// Always hold in every state of every run.
	Always []spec.Property
	// Sometimes hold in a state of some run.
	Sometimes []spec.Property
	// Done says when the machine at a node has come to its end, as every one must after the faults.
	Done func(node int, m protocol.Machine) bool
	// Excused says that in the state shown the protocol promises nobody an end, as after the failure of
	// all sites some do. The claim Ended is then not made. Defaults to never.
	Excused func(spec.View) bool
	// Safety is how long the phase of faults lasts, 20 s unless it is set; Bound is how long the phase
	// of liveness may last, 5 min unless it is set.
	Safety, Bound time.Duration
}

var _ Subject = (*System)(nil)

const (
	defaultSafety = 20 * time.Second
	defaultBound  = 5 * time.Minute
	// busyTime is in which most systems do most of what they do: a few rounds of messages.
	busyTime = 60 * time.Millisecond
	maxNodes = 64
	// maxEvents bounds a run: a machine that sends without end must not.
	maxEvents = 2_000_000
)

// Draw implements Subject.
func (s *System) Draw(seed uint64, classes []Class) Plan {
	scale := Scale{Nodes: s.Nodes, Busy: busyTime, Safety: s.Safety, Bound: s.Bound}
	if scale.Safety <= 0 {
		scale.Safety = defaultSafety
	}
	if scale.Bound <= 0 {
		scale.Bound = defaultBound
	}
	return scale.Draw(seed, classes)
}

// Run implements Subject.
func (s *System) Run(plan Plan, observer trace.Observer) (Report, error) {
	w, err := newWorld(s, plan, observer)
	if err != nil {
		return Report{}, err
	}
	w.run()
	return w.report(), w.err
}

// Header implements Subject.
func (s *System) Header(plan Plan) trace.Header {
	h := trace.Header{System: s.Name, Parameters: map[string]string{}}
	for name, value := range s.Parameters {
		h.Parameters[name] = value
	}
	for _, n := range s.Nodes {
		h.Nodes = append(h.Nodes, n.ID)
	}
	plan.Describe(&h)
	return h
}

// Types implements Subject.
func (s *System) Types() *protocol.Codec { return s.Codec }

func (s *System) validate(p Plan) error {
	if err := p.Validate(); err != nil {
		return err
	}
	if len(s.Nodes) == 0 || len(s.Nodes) > maxNodes || s.Codec == nil {
		return fmt.Errorf("%w: %d nodes and the codec %v; 1 to %d nodes and a codec are needed",
			ErrSystem, len(s.Nodes), s.Codec, maxNodes)
	}
	seen := map[protocol.NodeID]bool{}
	for i, n := range s.Nodes {
		switch {
		case n.ID == "" || seen[n.ID]:
			return fmt.Errorf("%w: node id %q is empty or given twice", ErrSystem, n.ID)
		case len(n.New) == 0:
			return fmt.Errorf("%w: node %s has no machine", ErrSystem, n.ID)
		case i < len(p.Begin) && (p.Begin[i] < 0 || p.Begin[i] >= len(n.New)):
			return fmt.Errorf("%w: node %s has no way %d to begin", ErrSystem, n.ID, p.Begin[i])
		}
		seen[n.ID] = true
	}
	for _, f := range p.Faults {
		if f.Node != "" && !seen[f.Node] {
			return fmt.Errorf("%w: the plan speaks of a node %q", ErrSystem, f.Node)
		}
	}
	return nil
}
