// Package protocol is the kernel of Assent: what a protocol is, apart from how it is run.
//
// A protocol is a deterministic state machine. It takes one event and adds to a list of effects.
// It reads no clock, draws no random number, starts no goroutine, takes no lock and touches
// neither disk nor network. The same value is run live (package engine), in a simulated world
// (package sim) and through every reachable state (package check).
//
// The package promises that an executor which obeys the rules written on Effects gives a machine
// everything its protocol assumes of a process with stable storage. It runs nothing itself.
package protocol

import "time"

// NodeID names a process that runs machines. It is opaque: machines compare ids and nothing else.
type NodeID string

// Message is what one machine sends to another: a plain struct whose fields are all exported.
type Message any

// Record is a value in stable storage: a plain struct whose fields are all exported.
type Record any

// Value passes between a machine and what stands above or below it on the same node:
// a plain struct whose fields are all exported.
type Value any

// Machine is a protocol role: a pointer to a struct whose exported fields are its whole state.
type Machine interface {
	// Step takes one event and adds to out what must follow from it. It never fails: an event
	// that means nothing in the present state has no effect. It must depend on nothing but the
	// machine's fields and ev. Step is called by one goroutine at a time.
	Step(ev Event, out *Effects)
}

// Node is a place in a system where a machine runs. The simulator and the checker take systems made
// of nodes.
type Node struct {
	ID NodeID
	// New makes the machine. Each of the functions is a way to begin; the checker tries all
	// combinations with the ways of the other nodes, the simulator draws one.
	New []func() Machine
	// Anew makes the machine after a crash; it is then given Recover. Defaults to New's first.
	Anew func() Machine
	// Inputs are values that the world outside may give the machine at any time, any number of
	// times. At most 8.
	Inputs []Value
}

// Event is one thing that happens to a machine. The set is closed: Start, Recover, Receive,
// Expire and Input.
type Event interface{ event() }

// Start is the first event of a machine that is made for the first time.
type Start struct{}

// Recover is the first event of a machine that is made anew after a crash. Records is what its
// stable storage holds; everything else it knew is gone.
type Recover struct{ Records Records }

// Receive delivers a message. The network may lose, delay, repeat and reorder messages; it does
// not change them.
type Receive struct {
	From    NodeID
	Message Message
}

// Expire says that an armed timer has run out. A timer that was disarmed may still expire once,
// when the disarming and the expiry cross.
type Expire struct{ Timer string }

// Input carries a value from the part above or below on the same node.
type Input struct{ Value Value }

func (Start) event()   {}
func (Recover) event() {}
func (Receive) event() {}
func (Expire) event()  {}
func (Input) event()   {}

// Records is the content of a machine's stable storage: a small map of keys to records.
type Records map[string]Record

// Effects is what must follow from one Step. The executor carries it out as follows, and in no
// other order:
//
//  1. all Writes, atomically, and forced to stable storage;
//  2. then Timers, then Sends, then Emits, each in the order in which they stand.
//
// If the writes fail, nothing else of the Step may leave the node: the machine is as good as
// crashed and is made anew with Recover. This is the lectures' "log before you act".
type Effects struct {
	// Writes are applied together and forced BEFORE any of Sends or Emits leaves the node.
	Writes []Write
	// Timers are armed and disarmed in order.
	Timers []Timer
	// Sends leave after Writes are stable. Each may be lost.
	Sends []Send
	// Emits go up (or down) to the other part on the same node, after Writes are stable.
	Emits []Value
}

// Write puts Record under Key or, where Record is nil, deletes Key.
type Write struct {
	Key    string
	Record Record
}

// Timer arms the timer Name to expire once, After from now, or disarms it where After is zero.
// Arming an armed timer replaces it. The exhaustive checker ignores the duration.
type Timer struct {
	Name  string
	After time.Duration
}

// Send sends Message to the node To.
type Send struct {
	To      NodeID
	Message Message
}

// Put adds a stable write of record under key.
func (e *Effects) Put(key string, record Record) {
	e.Writes = append(e.Writes, Write{Key: key, Record: record})
}

// Delete adds a stable delete of key.
func (e *Effects) Delete(key string) { e.Writes = append(e.Writes, Write{Key: key}) }

// Send adds a message to the node to.
func (e *Effects) Send(to NodeID, message Message) {
	e.Sends = append(e.Sends, Send{To: to, Message: message})
}

// Arm adds the arming of a timer. A duration of zero or less is taken as one nanosecond.
func (e *Effects) Arm(timer string, after time.Duration) {
	e.Timers = append(e.Timers, Timer{Name: timer, After: max(after, 1)})
}

// Disarm adds the disarming of a timer.
func (e *Effects) Disarm(timer string) { e.Timers = append(e.Timers, Timer{Name: timer}) }

// Emit adds a value for the other part on the same node.
func (e *Effects) Emit(value Value) { e.Emits = append(e.Emits, value) }

// Empty reports whether nothing follows.
func (e *Effects) Empty() bool {
	return len(e.Writes)+len(e.Timers)+len(e.Sends)+len(e.Emits) == 0
}

// Reset empties e and keeps its memory for the next Step.
func (e *Effects) Reset() {
	clear(e.Writes)
	clear(e.Sends)
	clear(e.Emits)
	e.Writes, e.Timers, e.Sends, e.Emits = e.Writes[:0], e.Timers[:0], e.Sends[:0], e.Emits[:0]
}
