package trace

import (
	"errors"
	"fmt"

	"assent/protocol"
)

// Version is the version of both encodings of a trace.
const Version = 1

// The bounds of a trace file. What is beyond is refused.
const (
	// MaxLine is the greatest length of a line in bytes.
	MaxLine = 4 << 20
	// MaxHeader is the greatest number of nodes, and of parameters.
	MaxHeader = 4096
	// DefaultLimit is the size in bytes that a Writer gives a trace unless it is told otherwise.
	DefaultLimit = 1 << 30
)

// The executors that a Header names.
const (
	Live  = "live"
	Sim   = "sim"
	Check = "check"
)

// Header says what run a trace is of. All of it may be missing in a trace written by hand.
type Header struct {
	// Executor is Live, Sim or Check.
	Executor string
	// System names what was run: "2pc". A replay makes its nodes from it and from Parameters.
	System string
	// Parameters are the system's, by name.
	Parameters map[string]string
	// Seed is what a simulated run drew its chances from.
	Seed uint64
	// Nodes are the nodes in the order in which they are shown.
	Nodes []protocol.NodeID
}

func (h Header) validate() error {
	if len(h.Nodes) > MaxHeader || len(h.Parameters) > MaxHeader {
		return fmt.Errorf("the header has %d nodes and %d parameters; at most %d are allowed",
			len(h.Nodes), len(h.Parameters), MaxHeader)
	}
	for _, n := range h.Nodes {
		if n == "" {
			return errors.New("the header names a node without a name")
		}
	}
	return nil
}
