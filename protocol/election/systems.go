package election

import (
	"errors"
	"fmt"

	"assent/protocol"
)

// Bully is a whole system for the simulator and the checker: nodes n1, n2 … of which the last is the
// highest. Each may be told at any time that the highest is suspected.
type Bully struct {
	// Size is the number of nodes, 1 to 9.
	Size    int
	Options Options
}

// ErrSystem says that a system cannot be made; the text says why.
var ErrSystem = errors.New("no such system")

// Nodes returns the nodes, the lowest first.
func (b Bully) Nodes() ([]protocol.Node, error) {
	if b.Size < 1 || b.Size > 9 {
		return nil, fmt.Errorf("%w: %d nodes: give 1 to 9", ErrSystem, b.Size)
	}
	var ids []protocol.NodeID
	for i := range b.Size {
		ids = append(ids, protocol.NodeID(fmt.Sprintf("n%d", i+1)))
	}
	var nodes []protocol.Node
	for _, id := range ids {
		node := protocol.Node{ID: id, New: []func() protocol.Machine{func() protocol.Machine {
			return &Elector{Self: id, Nodes: ids, Options: b.Options}
		}}}
		if highest := ids[len(ids)-1]; id != highest {
			node.Inputs = []protocol.Value{Suspect{Node: highest}}
		}
		nodes = append(nodes, node)
	}
	return nodes, nil
}
