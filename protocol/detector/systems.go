package detector

import (
	"errors"
	"fmt"

	"assent/protocol"
)

// Watch is a whole system for the simulator: nodes n1, n2 … that all watch one another.
type Watch struct {
	// Size is the number of nodes, 2 to 16.
	Size    int
	Options Options
}

// ErrSystem says that a system cannot be made; the text says why.
var ErrSystem = errors.New("no such system")

// Nodes returns the nodes.
func (w Watch) Nodes() ([]protocol.Node, error) {
	if w.Size < 2 || w.Size > 16 {
		return nil, fmt.Errorf("%w: %d nodes: give 2 to 16", ErrSystem, w.Size)
	}
	nodes := make([]protocol.Node, w.Size)
	for i := range nodes {
		var others []protocol.NodeID
		for j := range w.Size {
			if j != i {
				others = append(others, protocol.NodeID(fmt.Sprintf("n%d", j+1)))
			}
		}
		nodes[i] = protocol.Node{ID: protocol.NodeID(fmt.Sprintf("n%d", i+1)),
			New: []func() protocol.Machine{func() protocol.Machine { return New(others, w.Options) }}}
	}
	return nodes, nil
}
