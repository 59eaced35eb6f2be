// Package paxos agrees on one value among nodes of which some may fail: the single-decree Synod
// (Lamport 1998 and 2001), with ballot 0 owned by one proposer, so that it decides in one round
// trip when nothing fails (Gray and Lamport 2006).
//
// It promises that at most one value is ever decided and that it was proposed, whatever is lost,
// repeated, reordered or late, whoever crashes and comes back with its stable records, and however
// many proposers there are. It promises an end only while a read quorum and a write quorum of
// acceptors are up and one proposer is left alone long enough. It does not tell who should
// propose (package election does), and it assumes that nodes do not lie.
package paxos

import (
	"cmp"
	"fmt"
	"math/bits"
	"time"

	"assent/protocol"
)

// Instance names one agreement. It is unique for ever.
type Instance string

// Ballot is a numbered attempt at agreement. Ballots are ordered by epoch, by round, then by node, so that
// no two proposers have one in common. The zero value is no ballot, and is less than every other.
type Ballot struct {
	// Epoch is that of the acceptors, where they change (see Epoch). What was accepted in an earlier one by
	// an acceptor that was away since is so outranked by what was decided in a later one.
	Epoch uint64 `cbor:",omitempty" json:",omitempty"`
	Round uint64
	Node  protocol.NodeID
}

// Compare returns -1, 0 or 1: which of the ballots is the higher.
func (b Ballot) Compare(o Ballot) int {
	return cmp.Or(cmp.Compare(b.Epoch, o.Epoch), cmp.Compare(b.Round, o.Round), cmp.Compare(b.Node, o.Node))
}

// yields reports whether an acceptor that has promised the other ballot must not accept in b. Ballot 0 has no
// phase 1, in which it would find out what was decided, so it yields to every other, also of an earlier epoch.
func (b Ballot) yields(promised Ballot) bool {
	if b.Round == 0 {
		return !promised.IsZero() && promised != b
	}
	return b.Compare(promised) < 0
}

// IsZero reports whether b is no ballot.
func (b Ballot) IsZero() bool { return b == Ballot{} }

// String returns the ballot as "3.b", or "2:3.b" in epoch 2; "none" for no ballot.
func (b Ballot) String() string {
	if b.IsZero() {
		return "none"
	}
	if b.Epoch > 0 {
		return fmt.Sprintf("%d:%d.%s", b.Epoch, b.Round, b.Node)
	}
	return fmt.Sprintf("%d.%s", b.Round, b.Node)
}

// The messages. Every one carries its instance, by which misdirected ones are told apart. The names
// are those of Gray and Lamport's specification: phase 1 reads from a quorum, phase 2 writes to one.
type (
	// Phase1a asks for the promise to take no part in lower ballots. Proposer → acceptor.
	Phase1a[V any] struct {
		Instance Instance
		Ballot   Ballot
	}

	// Phase1b promises, and says what the acceptor has accepted so far. Acceptor → proposer.
	Phase1b[V any] struct {
		Instance Instance
		Ballot   Ballot
		// Accepted is the highest ballot in which the acceptor has accepted, and Value what.
		Accepted Ballot
		Value    V
	}

	// Phase2a asks to accept a value. Proposer → acceptor.
	Phase2a[V any] struct {
		Instance Instance
		Ballot   Ballot
		Value    V
	}

	// Phase2b says that the value is accepted in the ballot. Acceptor → proposer and learners.
	Phase2b[V any] struct {
		Instance Instance
		Ballot   Ballot
		Value    V
	}

	// Refused says that the acceptor has promised a higher ballot than the one that it was asked
	// about, or does not know the ballot's owner. Acceptor → proposer.
	Refused[V any] struct {
		Instance Instance
		Ballot   Ballot
		Promised Ballot
	}

	// Chosen says what is decided, by somebody who knows it. It makes ballots needless. Anybody who
	// has learned → proposer and learners.
	Chosen[V any] struct {
		Instance Instance
		Value    V
	}
)

// Propose is what a proposer takes as input: a value that may be decided.
type Propose[V any] struct{ Value V }

// Decided is what proposers and learners emit: the value that stands for ever. It is emitted
// again when it is asked for again.
type Decided[V any] struct{ Value V }

// Options are the times of a proposer. They are part of its state. The zero value means the defaults.
type Options struct {
	// Retry is the first pause before what was not answered is sent again, and before a higher
	// ballot. Each further pause is twice as long. Defaults to 100 ms.
	Retry time.Duration `cbor:",omitempty" json:",omitempty"`
	// RetryMost bounds the pauses. Defaults to 5 s.
	RetryMost time.Duration `cbor:",omitempty" json:",omitempty"`
	// Rounds is the highest round that a proposer begins. It keeps the state space finite for
	// the checker; a proposer may then give up. Defaults to 0: no bound.
	Rounds uint64 `cbor:",omitempty" json:",omitempty"`
}

// pause returns the pause that follows attempt earlier ones, and the attempt to remember, which stops
// growing when the pause does. It is longer by up to a half, which depends on the node alone, so
// that two proposers that have refused each other do not go on to do so in step.
func (o Options) pause(attempt int, node protocol.NodeID) (time.Duration, int) {
	first, most := o.Retry, o.RetryMost
	if first <= 0 {
		first = 100 * time.Millisecond
	}
	if most <= 0 {
		most = 5 * time.Second
	}
	most = max(most, first)
	doublings := bits.Len64(uint64(most/first)) - 1
	wait := most
	if attempt < doublings {
		wait = first << attempt
		attempt++
	}
	spread := uint32(2166136261) // FNV-1a
	for _, c := range []byte(node) {
		spread = (spread ^ uint32(c)) * 16777619
	}
	return wait + wait*time.Duration(spread%64)/128, attempt
}

// Types returns the encodings of the states, messages, values and records of an agreement on values of
// type V. Name is V's name in them, such as "decision".
func Types[V any](name string) []protocol.Type {
	name = "[" + name + "]"
	return []protocol.Type{
		{Name: "paxos.Proposer" + name, Zero: Proposer[V]{}},
		{Name: "paxos.Acceptor" + name, Zero: Acceptor[V]{}},
		{Name: "paxos.Learner" + name, Zero: Learner[V]{}},
		{Name: "paxos.Phase1a" + name, Zero: Phase1a[V]{}},
		{Name: "paxos.Phase1b" + name, Zero: Phase1b[V]{}},
		{Name: "paxos.Phase2a" + name, Zero: Phase2a[V]{}},
		{Name: "paxos.Phase2b" + name, Zero: Phase2b[V]{}},
		{Name: "paxos.Refused" + name, Zero: Refused[V]{}},
		{Name: "paxos.Chosen" + name, Zero: Chosen[V]{}},
		{Name: "paxos.Propose" + name, Zero: Propose[V]{}},
		{Name: "paxos.Decided" + name, Zero: Decided[V]{}},
		{Name: "paxos.AcceptorRecord" + name, Zero: AcceptorRecord[V]{}},
		{Name: "paxos.RoundRecord" + name, Zero: RoundRecord[V]{}},
	}
}
