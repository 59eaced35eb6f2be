package check

import "fmt"

// action is what leads from one global state to the next.
type action struct {
	kind kind
	node int
	t    trigger
	// sent has a bit for each send of the step that left before a crash within it.
	sent uint64
	// lie is the message that takes the place of the one that t numbers.
	lie uint32
	// turn is the place among the turns of the world.
	turn int
}

type kind uint8

const (
	stepped     kind = iota
	cut              // stepped, and crashed after the writes and some sends
	crashed          // between steps
	lost             // a message is lost
	dropped          // a message reached a node that is down
	duplicated       // a message was delivered and stays under way
	altered          // a liar's message is another one
	partitioned      // the network splits
	severed          // a link is cut
	healed           // all links are whole again
)

// describe tells an action that happens in the state tuple.
func (x *explorer) describe(a action, tuple []uint32) string {
	id, before := x.sys.Nodes[a.node].ID, x.local(tuple[a.node])
	var what string
	switch {
	case a.kind == partitioned || a.kind == severed || a.kind == healed:
		return x.turnsOf(tuple[len(x.sys.Nodes)])[a.turn].what
	case a.kind == crashed:
		return fmt.Sprintf("%s crashes", id)
	case a.t == triggerStart:
		what = fmt.Sprintf("%s starts", id)
	case a.t == triggerRestart:
		what = fmt.Sprintf("%s is made anew", id)
	case a.t.input():
		what = fmt.Sprintf("%s is given %s", id, text(x.sys.Nodes[a.node].Inputs[triggerInput-a.t]))
	case a.t.timer():
		what = fmt.Sprintf("%s: timer %s runs out", id, before.timers[triggerTimer-a.t])
	default:
		what = x.describeMessage(a)
	}
	if a.kind == cut {
		what += x.describeCut(a, before)
	}
	return what
}

func (x *explorer) describeMessage(a action) string {
	m := x.messages.get(uint32(a.t))
	from, to := x.sys.Nodes[m.from].ID, x.sys.Nodes[m.to].ID
	gets := fmt.Sprintf("%s gets %s from %s", to, text(m.value), from)
	switch a.kind {
	case lost:
		return fmt.Sprintf("%s from %s to %s is lost", text(m.value), from, to)
	case dropped:
		return gets + ", which is down"
	case duplicated:
		return gets + ", and will again"
	case altered:
		return fmt.Sprintf("%s says %s to %s instead of %s", from, text(x.messages.get(a.lie).value), to, text(m.value))
	}
	return gets
}

// describeCut tells which messages of a step left before the crash within it.
func (x *explorer) describeCut(a action, before *local) string {
	r, err := x.step(before, a.t)
	if err != nil || a.sent == 0 {
		return ", and crashes before a message has left"
	}
	what := ", and crashes when it has sent"
	for i, m := range r.sends {
		if a.sent>>i&1 != 0 {
			message := x.messages.get(m)
			what += fmt.Sprintf(" %s to %s", text(message.value), x.sys.Nodes[message.to].ID)
		}
	}
	return what
}
