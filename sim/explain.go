package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"assent/trace"
)

// Explanation is a run that failed, made small.
type Explanation struct {
	// Report is of the run of the shrunk plan, which was found in so many Runs.
	Report
	Runs int
	// Script is a trace in text that runs it again and breaks the same claim: of a System the choices, as
	// few as can be found. Where something never happens, and of other subjects, it is the header with the
	// plan alone, which makes the whole run.
	Script []byte
}

// Explain shrinks a run that failed and makes a script of it, for ReplayText and assent replay. work is
// how many pieces of work the subject has that may be left out. When ctx ends, what is returned may be
// longer than it need be. It fails where the subject cannot be run.
func Explain(ctx context.Context, s Subject, failed Report, work int) (Explanation, error) {
	small, runs, err := Shrink(ctx, s, failed, work)
	if err != nil {
		return Explanation{}, err
	}
	plan, choices := small.Plan, []trace.Event(nil)
	if system, ok := s.(*System); ok && small.Failure != nil && small.Failure.Claim != Ended {
		all := &recording{}
		if _, err := s.Run(plan, all); err != nil {
			return Explanation{}, err
		}
		if choices, err = system.Script(ctx, plan, all.events, small.Failure.Claim); err != nil {
			return Explanation{}, fmt.Errorf("make a script of seed %d: %w", plan.Seed, err)
		}
		plan.Faults = nil // the choices say what they did
	}
	var text bytes.Buffer
	w, err := trace.NewWriter(&text, s.Types(), s.Header(plan), trace.Text())
	if err != nil {
		return Explanation{}, err
	}
	for _, e := range choices {
		w.Observe(e)
	}
	err = w.Close()
	return Explanation{Report: small, Runs: runs, Script: text.Bytes()}, err
}

// ReplayText reads a script, or a whole trace, of this system and runs it again: as Replay does or, where
// there is nothing but a header with a plan, as Run. The header must name the nodes of the system.
func (s *System) ReplayText(in io.Reader, observer trace.Observer) (Report, error) {
	r, err := trace.NewReader(in, s.Codec)
	if err != nil {
		return Report{}, err
	}
	h := r.Header()
	plan, err := ReadPlan(h)
	if err != nil {
		return Report{}, err
	}
	if nodes := s.Header(plan).Nodes; !slices.Equal(nodes, h.Nodes) {
		return Report{}, fmt.Errorf("%w: its header names the nodes %v; those of the system are %v", ErrScript, h.Nodes, nodes)
	}
	var events []trace.Event
	for {
		e, err := r.Next()
		switch {
		case errors.Is(err, io.EOF) && len(events) == 0 && len(plan.Faults) > 0:
			return s.Run(plan, observer)
		case errors.Is(err, io.EOF):
			return s.Replay(plan, events, observer)
		case err != nil:
			return Report{}, err
		}
		events = append(events, e)
	}
}
