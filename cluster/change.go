package cluster

import (
	"context"
	"errors"
	"fmt"

	"assent/protocol"
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
// fields By, Storage and Number are set by the node. It fails with ErrRefused, with ErrUnsure after some ten
// seconds without an answer, and with ctx's error beside ErrUnsure when that ends first.
func (n *Node) Change(ctx context.Context, c membership.Change) (epoch uint64, err error) {
	n.mu.Lock()
	n.asked++
	ref, answer := n.asked, make(chan membership.Answered, 1)
	n.waiting[ref] = answer
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.waiting, ref)
	}()
	n.life.Load().loop.Deliver(protocol.Input{Value: membership.Ask{Ref: ref, Change: c}})
	select {
	case a := <-answer:
		switch a.Result {
		case membership.Applied:
			return a.Epoch, nil
		case membership.Refused:
			return a.Epoch, fmt.Errorf("%w: %s", ErrRefused, a.Why)
		}
		return a.Epoch, fmt.Errorf("%w: %s", ErrUnsure, n.whyUnsure(a.Why))
	case <-ctx.Done():
		return n.State().Epoch, errors.Join(fmt.Errorf("%w: %s", ErrUnsure, n.whyUnsure("no answer yet")), ctx.Err())
	case <-n.quit:
		return n.State().Epoch, fmt.Errorf("%w: the node is being closed", ErrUnsure)
	}
}

// whyUnsure says why there is no answer, as far as this node knows.
func (n *Node) whyUnsure(why string) string {
	if s := n.life.Load().machine.status(); s.Why != "" {
		return why + ": " + s.Why
	}
	return why
}

// answered hands an answer to whoever waits for it.
func (n *Node) answered(a membership.Answered) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if answer := n.waiting[a.Ref]; answer != nil {
		delete(n.waiting, a.Ref)
		answer <- a
	}
}

// unsure answers all who wait that nobody will.
func (n *Node) unsure(why string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for ref, answer := range n.waiting {
		delete(n.waiting, ref)
		answer <- membership.Answered{Ref: ref, Result: membership.Unsure, Why: why}
	}
}

// Barrier returns a state of the cluster that is no older than the call. It fails as Change does.
func (n *Node) Barrier(ctx context.Context) (membership.State, error) {
	_, err := n.Change(ctx, membership.Change{Kind: membership.Barrier})
	return n.State(), err
}

// State returns what this node knows of the cluster's state: its members, settings and resources. Another
// node may know a later one. It may be shared, and must not be changed.
func (n *Node) State() membership.State { return n.life.Load().machine.state() }

// Members returns the present members as this node knows them, sorted by name. They must not be changed.
func (n *Node) Members() []membership.Member { return n.State().Members }
