package cluster

import (
	"context"
	"errors"
	"fmt"

	"assent/protocol/membership"
)

// Errors of changes. Each is wrapped with the reason.
var (
	// ErrRefused says that a change was not made and will not be.
	ErrRefused = errors.New("the change is refused")
	// ErrUnsure says that nobody has answered: the change may have been made, or be made yet. Look at the
	// state, after a barrier, before asking again.
	ErrUnsure = errors.New("it is not known whether the change was made")
)

// Change has the cluster make a change of its state and returns the state's epoch when it was made. Of c, the
// fields By, Storage and Number are set by the node. It fails with ErrRefused, with ErrUnsure, and with
// ctx's error beside ErrUnsure when that ends first.
func (n *Node) Change(ctx context.Context, c membership.Change) (epoch uint64, err error) {
	if err := ctx.Err(); err != nil {
		return n.State().Epoch, errors.Join(ErrUnsure, err)
	}
	return n.State().Epoch, fmt.Errorf("%w: %s: the members are those of the configuration", ErrRefused, c.Kind)
}

// Barrier returns a state of the cluster that is no older than the call. It fails as Change does.
func (n *Node) Barrier(ctx context.Context) (membership.State, error) {
	_, err := n.Change(ctx, membership.Change{Kind: membership.Barrier})
	return n.State(), err
}

// State returns what this node knows of the cluster's state: its members, settings and resources. Another
// node may know a later one. It may be shared, and must not be changed.
func (n *Node) State() membership.State { return n.state }

// Members returns the present members as this node knows them, sorted by name. They must not be changed.
func (n *Node) Members() []membership.Member { return n.State().Members }
