// Package spec says what a correct run is: named properties of global states, one implementation for
// whoever explores, simulates or watches.
//
// It promises that a property judges nothing but what it is shown, so it can be used on states
// from any executor. It finds no states by itself.
package spec

import (
	"assent/protocol"
	"assent/protocol/commit"
)

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

// The properties of atomic commitment (Bernstein, Hadzilacos and Goodman 1987, 7.3) for systems
// whose node 0 is a commit.CoordinatorNode and whose other nodes are commit.ParticipantNodes.

// AC1 says that no branch is committed while another is rolled back.
func AC1() Property {
	return Property{"AC1: all who decide, decide alike", func(v View) bool {
		n := tally(v)
		return n.committed == 0 || n.rolledBack == 0
	}}
}

// AC2 says that no decision is reversed: the register never says otherwise than a branch has done.
func AC2() Property {
	return Property{"AC2: no decision is reversed", func(v View) bool {
		n, d := tally(v), registered(v)
		return (n.committed == 0 || d == commit.Commit) && (n.rolledBack == 0 || d != commit.Commit)
	}}
}

// AC3 says that commit stands only if nobody voted no and nobody has yet to vote.
func AC3() Property {
	return Property{"AC3: commit only if all voted yes", func(v View) bool {
		if registered(v) != commit.Commit {
			return true
		}
		for i := 1; i < v.Nodes(); i++ {
			p, ok := v.Machine(i).(*commit.ParticipantNode)
			if ok && (p.Branch.Vote == commit.No || p.Branch.State == commit.BranchWorking) {
				return false
			}
		}
		return true
	}}
}

// AC4 says that abort is not decided when all vote yes. It is claimed only of runs without a fault, in
// which no timer runs out early.
func AC4() Property {
	return Property{"AC4: if all voted yes and nothing failed, commit", func(v View) bool {
		for i := 1; i < v.Nodes(); i++ {
			if p, ok := v.Machine(i).(*commit.ParticipantNode); !ok || p.Branch.Vote != commit.Yes {
				return true
			}
		}
		c, ok := v.Machine(0).(*commit.CoordinatorNode)
		return registered(v) != commit.Abort && tally(v).rolledBack == 0 &&
			(!ok || c.Coordinator.State != commit.CoordinatorAborting && c.Coordinator.State != commit.CoordinatorAborted)
	}}
}

// AllCommit is reached when every branch is committed and everybody has said so.
func AllCommit() Property {
	return Property{"every branch is committed", func(v View) bool {
		c, ok := v.Machine(0).(*commit.CoordinatorNode)
		return tally(v).committed == v.Nodes()-1 && ok && c.Coordinator.State == commit.CoordinatorCommitted
	}}
}

// PromiseUndone is reached when a branch that had voted yes is rolled back.
func PromiseUndone() Property {
	return Property{"a yes vote is followed by abort", func(v View) bool {
		for i := 1; i < v.Nodes(); i++ {
			p, ok := v.Machine(i).(*commit.ParticipantNode)
			if ok && p.Branch.State == commit.BranchRolledBack && p.Branch.Vote == commit.Yes && registered(v) == commit.Abort {
				return true
			}
		}
		return false
	}}
}

// ParticipantDone reports whether the machine is a participant that has come to its end, or no
// participant at all: AC5 asks about participants.
func ParticipantDone(_ int, m protocol.Machine) bool {
	p, ok := m.(*commit.ParticipantNode)
	return !ok || p.Participant.State.Done()
}

// registered returns what stands in the register.
func registered(v View) commit.Decision {
	record, _ := v.Record(0, commit.RegisterKey).(commit.DecisionRecord)
	return record.Decision
}

type count struct{ committed, rolledBack int }

// tally counts how branches have ended, by stable storage where the node is down.
func tally(v View) (n count) {
	for i := 1; i < v.Nodes(); i++ {
		record, _ := v.Record(i, commit.ResourceKey).(commit.BranchRecord)
		state := record.State
		if p, ok := v.Machine(i).(*commit.ParticipantNode); ok {
			state = p.Branch.State
		}
		switch state {
		case commit.BranchCommitted:
			n.committed++
		case commit.BranchRolledBack:
			n.rolledBack++
		}
	}
	return n
}
