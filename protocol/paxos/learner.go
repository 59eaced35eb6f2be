package paxos

import (
	"slices"

	"assent/protocol"
	"assent/protocol/quorum"
)

// Acceptance is what one acceptor is known to have accepted last.
type Acceptance[V any] struct {
	Node   protocol.NodeID
	Ballot Ballot
	Value  V
}

// Learner finds out what is decided from what acceptors tell it: a value is decided when a write
// quorum has accepted it in one ballot. It has no stable storage and asks nobody.
type Learner[V any] struct {
	Instance Instance
	System   quorum.System
	// Accepted holds the highest ballot of each acceptor heard of, sorted by node.
	Accepted []Acceptance[V] `cbor:",omitempty" json:",omitempty"`
	Decided  bool            `cbor:",omitempty" json:",omitempty"`
	Value    V
}

// Step takes Phase2b and Chosen as messages. Anything else has no effect.
func (l *Learner[V]) Step(ev protocol.Event, out *protocol.Effects) {
	r, ok := ev.(protocol.Receive)
	if !ok || l.Decided {
		return
	}
	if m, ok := r.Message.(Chosen[V]); ok && m.Instance == l.Instance {
		l.Decided, l.Value, l.Accepted = true, m.Value, nil
		out.Emit(Decided[V]{Value: m.Value})
		return
	}
	m, ok := r.Message.(Phase2b[V])
	if !ok || m.Instance != l.Instance {
		return
	}
	l.Accepted = accepted(l.Accepted, Acceptance[V]{Node: r.From, Ballot: m.Ballot, Value: m.Value})
	if value, ok := chosen(l.System, l.Accepted); ok {
		l.Decided, l.Value, l.Accepted = true, value, nil
		out.Emit(Decided[V]{Value: value})
	}
}

// accepted returns all with a added, unless its node is known to have accepted in a higher ballot.
func accepted[V any](all []Acceptance[V], a Acceptance[V]) []Acceptance[V] {
	i, found := slices.BinarySearchFunc(all, a.Node, func(x Acceptance[V], node protocol.NodeID) int {
		return compareNodes(x.Node, node)
	})
	if !found {
		return slices.Insert(all, i, a)
	}
	if a.Ballot.Compare(all[i].Ballot) > 0 {
		all[i] = a
	}
	return all
}

// chosen returns the value that a write quorum has accepted in one ballot.
func chosen[V any](s quorum.System, all []Acceptance[V]) (value V, ok bool) {
	for _, candidate := range all {
		if candidate.Ballot.IsZero() {
			continue
		}
		verdict := s.Writing(func(n protocol.NodeID) quorum.Answer {
			if slices.ContainsFunc(all, func(a Acceptance[V]) bool { return a.Node == n && a.Ballot == candidate.Ballot }) {
				return quorum.Granted
			}
			return quorum.Silent
		})
		if verdict == quorum.Reached {
			return candidate.Value, true
		}
	}
	return value, false
}

func compareNodes(a, b protocol.NodeID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
