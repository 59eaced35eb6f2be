// Package bank is what the clients of simulated deployments do, and the book that is kept of it. They move money between
// the accounts of several nodes, and now and then read all of them.
//
// It promises that a book holds a run to the claims that are made of every transaction, and at the end of every account,
// by what stores, registers and coordinators have answered. It draws no work, and runs none.
package bank

import (
	"slices"

	"assent/protocol"
	"assent/protocol/commit"
)

// Opening is what each account holds at first.
const Opening = 100

// What a transaction does.
type (
	// Part is what it does at one node's store.
	Part struct {
		Node       protocol.NodeID
		Operations []Operation
	}
	// Operation reads an account or changes it.
	Operation struct {
		Account int
		// Change is added; 0 reads.
		Change int64 `cbor:",omitempty" json:",omitempty"`
		// Spoil makes the branch unable to prepare.
		Spoil bool `cbor:",omitempty" json:",omitempty"`
	}
)

// Worked is a store's answer to whoever has asked it to do its part.
type Worked struct {
	ID     commit.TransactionID
	Done   bool
	Reason string  `cbor:",omitempty" json:",omitempty"`
	Values []int64 `cbor:",omitempty" json:",omitempty"`
}

// Idle reports whether a transaction of these parts only reads.
func Idle(parts []Part) bool {
	return !slices.ContainsFunc(parts, func(p Part) bool {
		return slices.ContainsFunc(p.Operations, func(o Operation) bool { return o.Change != 0 })
	})
}
