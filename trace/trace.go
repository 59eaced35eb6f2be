// Package trace is the one event format of a run, whoever executes it: live, simulated or checked.
//
// The package promises that an event says which machine did what and why in a form that reads
// the same from all executors. It records nothing by itself: an Observer does.
package trace

import (
	"fmt"
	"strings"
	"time"

	"assent/protocol"
)

// Kind says what an Event is about. The zero value is invalid.
type Kind uint8

// The kinds, in the order in which they follow one another within one step.
const (
	// Deliver: an event is about to be given to the machine; Value is the protocol.Event.
	Deliver Kind = iota + 1
	// Force: the writes of the step are about to be forced; Value is a []protocol.Write.
	Force
	// Forced: the writes of the step are stable.
	Forced
	// Send: Value is about to leave for Peer.
	Send
	// Emit: Value is about to be handed to the other part on the same node.
	Emit
	// Stepped: everything that follows from the event has been carried out.
	Stepped
	// Failed: the writes could not be forced; nothing else of the step was carried out.
	Failed
	// Timer: a timer is armed or disarmed; Value is the protocol.Timer.
	Timer
)

// The kinds that only an executor with a world of its own reports, since it brings them about.
const (
	// Crash: the node goes down. All that it knew is gone, but for its stable storage. Value is what
	// Sent returns where the crash falls within a step.
	Crash Kind = iota + 16
	// Lose: the network loses Message on its way from Peer to Node; Value is the message.
	Lose
	// Duplicate: the network makes a further copy of Message on its way from Peer to Node.
	Duplicate
	// Alter: somebody changes Message on its way from Peer to Node; Value is what it becomes.
	Alter
	// Cut: nothing gets through from Peer to Node any more.
	Cut
	// Heal: messages get through from Peer to Node again.
	Heal
	// Damage: something happens to the node's stable storage; Value is a string that names it.
	Damage
)

var kindNames = [...]string{
	0: "invalid", Deliver: "deliver", Force: "force", Forced: "forced", Send: "send", Emit: "emit",
	Stepped: "stepped", Failed: "failed", Timer: "timer", Crash: "crash", Lose: "lose",
	Duplicate: "duplicate", Alter: "alter", Cut: "cut", Heal: "heal", Damage: "damage",
}

// String returns the kind's name.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("invalid(%d)", uint8(k))
}

// Event is one thing that a machine did or that was done to it.
type Event struct {
	// Scope names the run that the machine is part of: a transaction.
	Scope string
	Node  protocol.NodeID
	Kind  Kind
	Peer  protocol.NodeID
	Value any
	// At is the time since the run began, by the clock of the executor. The checker has none.
	At time.Duration
	// Message numbers a message within the run, from 1: the events of one copy of it carry the same
	// number. Zero where nobody counts.
	Message uint64
}

// Choice reports whether the event is a choice of the world: one that does not follow from those
// before it. A run can be had again from its choices alone, for machines are deterministic.
func (e Event) Choice() bool { return e.Kind == Deliver || e.Kind >= Crash }

// Observer is told of every event, before what it announces is done. It is called by many
// goroutines at once and must be quick: the run waits for it. Value is only lent: an Observer that
// keeps it makes a copy, or its encoding.
type Observer interface{ Observe(Event) }

// Point names the place of e in the protocol without the names of the transaction and without
// contents: "coordinator send Finish(commit) to orders". Equal points are the same crash point.
func (e Event) Point() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", e.Node, e.Kind)
	if e.Value != nil {
		b.WriteByte(' ')
		b.WriteString(Brief(e.Value))
	}
	if e.Peer != "" {
		fmt.Fprintf(&b, " to %s", e.Peer)
	}
	return b.String()
}
