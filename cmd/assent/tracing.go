package main

import (
	"errors"
	"fmt"

	"assent"
	"assent/trace"
)

// openTrace opens the trace that the server writes, if it is to write one.
func (s *site) openTrace() (trace.Observer, error) {
	if s.cfg.trace == "" {
		return nil, nil
	}
	f, err := assent.OpenTrace(s.cfg.trace, s.resources)
	if err != nil {
		return nil, &failure{exit: exitError, err: err, text: fmt.Sprintf("cannot write the trace: %v", err),
			hint: "give --trace the name of a new file, or of one that an earlier server wrote"}
	}
	s.closers = append(s.closers, closer{"the trace", func() error {
		if f.Truncated() {
			return errors.Join(f.Close(), fmt.Errorf("it has hit its limit of %d bytes; the rest of the run is not in it", int64(trace.DefaultLimit)))
		}
		return f.Close()
	}})
	return f, nil
}
