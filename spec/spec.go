// Package spec says what a correct run is: named properties of global states, one implementation for
// whoever explores, simulates or watches.
//
// It promises that a property judges nothing but what it is shown, so it can be used on states
// from any executor, and on any machine that shows where it stands. It finds no states by itself.
package spec

import "assent/protocol"

// View is a global state: the machine at each node, and what is in its stable storage.
type View interface {
	// Nodes returns the number of nodes.
	Nodes() int
	// Machine returns the machine at node i, or nil while the node is down. It must not be changed.
	Machine(i int) protocol.Machine
	// Record returns what node i has in stable storage under key, up or down, or nil.
	Record(i int, key string) protocol.Record
}

// Property is a named claim about single states.
type Property struct {
	Name string
	// Holds judges one state. It depends on nothing else and may be called concurrently.
	Holds func(View) bool
}

// Termination is a named claim about where every run can end.
type Termination struct {
	Name string
	// Decided reports whether the machine m at a node, which is up, has come to its end. It
	// depends on nothing else and may be called concurrently.
	Decided func(node int, m protocol.Machine) bool
}
