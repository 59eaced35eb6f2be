package check

import (
	"context"
	"errors"
	"fmt"

	"assent/protocol"
)

// ErrLimit says that a limit was hit before all states were seen.
var ErrLimit = errors.New("not all states were seen")

// Move is what leads from one state to the next.
type Move struct {
	// Initial says that nothing leads to the state: it is one to begin with.
	Initial bool
	// Node is the place of the node to which it happens. It is -1 for an initial state, and for
	// what happens to links.
	Node int
	// Event is what the node's machine is given: nil where it is given nothing, as in a crash
	// between two steps.
	Event protocol.Event
	// Sends are the messages that leave.
	Sends []protocol.Send
}

// Walk goes through all states of sys and calls visit with every move between two of them and, first,
// with each initial state as both from and to. The calls come one at a time, in an order that is the
// same every time. It returns the number of states; ErrSystem as Run does; the error of ctx; and
// ErrLimit.
func Walk(ctx context.Context, sys System, limits Limits, visit func(from, to State, m Move)) (states int, err error) {
	if err := sys.validate(); err != nil {
		return 0, err
	}
	limits.Workers = 1
	x := newExplorer(sys, Claims{}, limits)
	x.visit = visit
	_, _, complete, err := x.search(ctx)
	switch states = int(x.found.Load()); {
	case err != nil:
		return states, err
	case ctx.Err() != nil:
		return states, ctx.Err()
	case !complete:
		return states, fmt.Errorf("%w: %d are known", ErrLimit, states)
	}
	return states, nil
}

// show hands a move to the visitor of Walk.
func (k *seeker) show(a action, s state) {
	x := k.x
	from, to := State{x, k.from.tuple}, State{x, s.tuple}
	if k.from.tuple == nil {
		x.visit(to, to, Move{Initial: true, Node: -1})
		return
	}
	m := Move{Node: a.node}
	before := x.local(k.from.tuple[a.node])
	switch a.kind {
	case partitioned, severed, healed:
		m.Node = -1
	case stepped, cut, duplicated:
		m.Event = x.event(before, a.t, &snapshot{})
		r, err := x.step(before, a.t)
		if err != nil {
			k.err = err
			return
		}
		for i, number := range r.sends {
			if a.kind != cut || a.sent>>i&1 != 0 {
				message := x.messages.get(number)
				m.Sends = append(m.Sends, protocol.Send{To: x.sys.Nodes[message.to].ID, Message: message.value})
			}
		}
	}
	x.visit(from, to, m)
}
