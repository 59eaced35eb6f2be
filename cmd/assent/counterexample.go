package main

import (
	"fmt"

	"assent/check"
	"assent/sim"
	"assent/trace"
)

// shown is a report with the parameters of the system that it is about.
type shown struct {
	params parameters
	report check.Report
}

// first returns the first of the shortest runs that break something, or nil: in the order in which
// they are printed, but for AC5, which comes last.
func first(reports ...shown) (*check.Counterexample, parameters) {
	for _, s := range reports {
		for i, c := range s.report.Broken {
			if len(c.Steps) > 0 {
				return &s.report.Broken[i], s.params
			}
		}
	}
	for _, s := range reports {
		if s.report.Blocked != nil && len(s.report.Blocked.Steps) > 0 {
			return s.report.Blocked, s.params
		}
	}
	return nil, parameters{}
}

// files writes the trace and the chart that were asked for.
func (c *checking) files(sys system, whole composition, reports ...shown) error {
	if c.trace == "" && c.chart == "" {
		return nil
	}
	run, params := first(reports...)
	if run == nil {
		fmt.Fprintln(c.p.err, "note: no run is known that breaks anything, so there is none to write")
		return nil
	}
	// The header is the simulator's, so that a replay makes the system from it and begins as it did.
	s := &sim.System{Name: sys.name, Parameters: params.text(), Nodes: whole.nodes, Codec: whole.codec}
	h := s.Header(sim.Plan{Begin: run.Begin})
	h.Executor = trace.Check
	if c.chart != "" {
		if err := c.p.drawEvents(c.chart, "not so: "+run.Claim, s, h, run.Trace()); err != nil {
			return err
		}
	}
	if c.trace == "" {
		return nil
	}
	return c.p.writeEvents(c.trace, s, h, run.Trace())
}
