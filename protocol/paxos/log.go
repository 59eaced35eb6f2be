package paxos

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"assent/protocol"
	"assent/protocol/quorum"
)

// Slot is a place in a replicated log. The first is 1; 0 is before all.
type Slot uint64

// EntryKind says what stands in a slot.
type EntryKind uint8

// The kinds.
const (
	// NoOp fills a slot of which nobody needs anything.
	NoOp EntryKind = iota
	// Command holds a value.
	Command
	// Reconfiguration holds a value, and who agrees from Window slots later on.
	Reconfiguration
)

// Entry is what replicas agree on for one slot.
type Entry[V any] struct {
	Kind  EntryKind
	Value V
	// Configuration is there where Kind is Reconfiguration.
	Configuration *Configuration `cbor:",omitempty" json:",omitempty"`
}

// Configuration is who agrees on a range of slots.
type Configuration struct {
	// Number is one more than that of the configuration which this one follows. An entry with
	// another number changes nothing.
	Number uint64
	// System are the acceptors.
	System quorum.System
	// Learners are told what is chosen and have no votes.
	Learners []protocol.NodeID `cbor:",omitempty" json:",omitempty"`
	// Storages are the storage ids of the acceptors of which they are known, sorted by node. A node
	// with another id there has lost what it promised, and is not counted.
	Storages []Storage `cbor:",omitempty" json:",omitempty"`
}

// Storage is a node with the id of its stable storage: an id that is drawn when the storage is made.
type Storage struct {
	Node protocol.NodeID
	ID   string `cbor:",omitempty" json:",omitempty"`
}

// has reports whether s may vote.
func (c *Configuration) has(s Storage) bool {
	if !slices.ContainsFunc(c.System.Members, func(m quorum.Member) bool { return m.Node == s.Node }) {
		return false
	}
	return !c.replaces(s)
}

// replaces reports whether the node is known to have another storage than s.
func (c *Configuration) replaces(s Storage) bool {
	return slices.ContainsFunc(c.Storages, func(known Storage) bool { return known.Node == s.Node && known.ID != s.ID })
}

// names reports whether s is known to be an acceptor's.
func (c *Configuration) names(s Storage) bool {
	return c.has(s) && (s.ID == "" || slices.Contains(c.Storages, s))
}

// count says of each member whether it is among given.
func (c *Configuration) count(given []Storage) func(protocol.NodeID) quorum.Answer {
	return func(n protocol.NodeID) quorum.Answer {
		if slices.ContainsFunc(given, func(s Storage) bool { return s.Node == n && c.has(s) }) {
			return quorum.Granted
		}
		return quorum.Silent
	}
}

// Reign is a configuration with the first slot that is its own. It ends where the next begins.
type Reign struct {
	From          Slot
	Configuration Configuration
}

// The stable records of a replica, by key: PromiseKey, SnapshotKey, and SlotKey for each slot.
type (
	// PromiseRecord is the highest ballot that the replica has promised, or begun.
	PromiseRecord[V any] struct{ Promised Ballot }

	// SlotRecord is what the replica has accepted in a slot, or, where it is Chosen, what it knows to
	// stand there.
	SlotRecord[V any] struct {
		Slot   Slot
		Ballot Ballot
		Chosen bool `cbor:",omitempty" json:",omitempty"`
		Entry  Entry[V]
	}

	// SnapshotRecord is the owner's state after Slot, instead of the entries up to there.
	SnapshotRecord[S any] struct {
		Slot   Slot
		State  *S `cbor:",omitempty" json:",omitempty"`
		Reigns []Reign
		// Joined says that the replica was blank once, and may be the successor of one that was lost. It is
		// each replica's own.
		Joined bool `cbor:",omitempty" json:",omitempty"`
	}
)

// The keys of a replica's records.
const (
	PromiseKey  = "log/promise"
	SnapshotKey = "log/snapshot"
)

// SlotKey returns the key of a slot's record.
func SlotKey(s Slot) string { return fmt.Sprintf("log/slot/%016x", uint64(s)) }

// The messages of a replicated log. A leader has one ballot for all slots.
type (
	// LogPhase1a asks for the promise to take no part in lower ballots, in any slot. Leader → acceptor.
	LogPhase1a[V any] struct{ Ballot Ballot }

	// LogPhase1b promises. Acceptor → leader.
	LogPhase1b[V any] struct {
		Ballot  Ballot
		Storage string `cbor:",omitempty" json:",omitempty"`
		// Chosen is the slot up to which the acceptor knows what stands, and Accepted what it has
		// accepted after that.
		Chosen   Slot
		Accepted []SlotRecord[V] `cbor:",omitempty" json:",omitempty"`
	}

	// LogPhase2a asks to accept an entry. Leader → acceptor.
	LogPhase2a[V any] struct {
		Ballot Ballot
		Slot   Slot
		Entry  Entry[V]
		// Chosen is the slot up to which the leader knows what stands.
		Chosen Slot
	}

	// LogPhase2b says that the entry is accepted. Acceptor → leader.
	LogPhase2b[V any] struct {
		Ballot  Ballot
		Slot    Slot
		Storage string `cbor:",omitempty" json:",omitempty"`
	}

	// LogRefused says that a higher ballot is promised. Acceptor → leader.
	LogRefused[V any] struct{ Ballot, Promised Ballot }

	// Heartbeat says who leads, and up to which slot the leader knows what stands. Leader → all.
	Heartbeat[V any] struct {
		Ballot Ballot
		Chosen Slot
	}

	// Fetch asks for what stands from a slot on. Anybody → anybody.
	Fetch[V any] struct {
		From Slot
		// Blank says that the sender does not even know who agreed in the beginning.
		Blank bool `cbor:",omitempty" json:",omitempty"`
	}

	// Fetched tells what stands in slots that follow one another. Chosen is as far as the sender knows.
	Fetched[V any] struct {
		Entries []SlotRecord[V]
		Chosen  Slot
	}

	// Transfer tells the state after a slot, because the sender has no entries any more, or because it was
	// asked by a node that is blank. Chosen is as far as the sender knows.
	Transfer[S any] struct {
		Snapshot SnapshotRecord[S]
		Chosen   Slot
	}
)

// What a replica takes as input.
type (
	// Lead makes the replica try to lead, until Follow. Who should is for an election to say.
	Lead[V any] struct{}
	// Follow makes it stop, and leave it to others. What is under way may still be chosen.
	Follow[V any] struct{}
	// Submit asks the leader to have an entry chosen. Rejected answers where it will not try. It may be
	// chosen although the replica is displaced in the meantime, and twice where it is submitted twice:
	// owners number what they submit.
	Submit[V any] struct{ Entry Entry[V] }
	// Swear says that the replica was never another's, so that it may promise and accept although no
	// configuration names its storage (SnapshotRecord.Joined).
	Swear[V any] struct{}
	// Compact hands over the owner's state after Slot. Entries up to there are not needed any more. How far a replica knows
	// the log is not stable beyond that, so where acceptors are to be done without for good, the others should have
	// handed over their state after the last slot on which those have voted.
	Compact[S any] struct {
		Slot  Slot
		State S
	}
)

// What a replica emits.
type (
	// Appended says what stands in a slot. All slots before it have been told, each once since the
	// replica was made, by Appended or by Restored.
	Appended[V any] struct {
		Slot  Slot
		Entry Entry[V]
	}
	// Restored hands the owner the state after Slot, instead of the entries up to there.
	Restored[S any] struct {
		Slot  Slot
		State S
	}
	// Rejected says that a submitted entry will not be tried here, and who might try it.
	Rejected[V any] struct {
		Entry  Entry[V]
		Leader protocol.NodeID
		Why    Rejection
	}
	// LeaderIs says who is taken to lead, as far as the replica knows: itself, another, or nobody.
	LeaderIs[V any] struct{ Leader protocol.NodeID }
)

// Rejection says why an entry was not taken.
type Rejection uint8

// The reasons.
const (
	// NotLeading: another leads, or nobody.
	NotLeading Rejection = iota + 1
	// Busy: too many entries wait, or another change of the configuration is under way.
	Busy
	// Invalid: the configuration does not follow the one in force, or its quorums do not meet.
	Invalid
)

var rejectionNames = [...]string{"", "not leading", "busy", "invalid"}

// String returns the reason's name.
func (r Rejection) String() string {
	if int(r) < len(rejectionNames) {
		return rejectionNames[r]
	}
	return "invalid"
}

// MarshalText returns the reason's name.
func (r Rejection) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText sets r from its name. It fails on any other text.
func (r *Rejection) UnmarshalText(text []byte) error { return named(rejectionNames[:], text, r) }

// LogOptions are a replica's times and bounds. They are part of its state. The zero value means the
// defaults.
type LogOptions struct {
	// Ballots are the pauses before phase 1 is repeated or a higher ballot begun, and a bound on rounds.
	Ballots Options
	// Beat is how often a leader says that it leads. What is not answered within one to two beats is sent
	// again. Defaults to 100 ms; less than 0 means never, which is for the checker.
	Beat time.Duration `cbor:",omitempty" json:",omitempty"`
	// Poll is after how long a replica that hears of no leader asks another what stands. Defaults to 1 s;
	// less than 0 means never.
	Poll time.Duration `cbor:",omitempty" json:",omitempty"`
	// Queue is how many entries may wait at a leader for a slot. Defaults to 1024.
	Queue int `cbor:",omitempty" json:",omitempty"`
	// Page is how many entries are told at a time to a replica that lags. Defaults to 64.
	Page int `cbor:",omitempty" json:",omitempty"`
	// Keep is how many entries before a snapshot are kept for those who lag. Defaults to none.
	Keep Slot `cbor:",omitempty" json:",omitempty"`
	// Last is the last slot that a leader uses of its own accord. It keeps the state space finite for
	// the checker. Defaults to 0: no bound.
	Last Slot `cbor:",omitempty" json:",omitempty"`
}

func (o LogOptions) withDefaults() LogOptions {
	if o.Beat == 0 {
		o.Beat = 100 * time.Millisecond
	}
	if o.Poll == 0 {
		o.Poll = time.Second
	}
	if o.Queue <= 0 {
		o.Queue = 1024
	}
	if o.Page <= 0 {
		o.Page = 64
	}
	return o
}

// DefaultWindow is the window of replicas that are given none.
const DefaultWindow Slot = 16

// MaxWindow is the greatest window.
const MaxWindow Slot = 1024

// search finds the record of a slot.
func search[V any](all []SlotRecord[V], s Slot) (int, bool) {
	return slices.BinarySearchFunc(all, s, func(r SlotRecord[V], s Slot) int { return cmp.Compare(r.Slot, s) })
}

// place returns all with r in its place.
func place[V any](all []SlotRecord[V], r SlotRecord[V]) []SlotRecord[V] {
	i, found := search(all, r.Slot)
	if found {
		all[i] = r
		return all
	}
	return slices.Insert(all, i, r)
}

// after returns those of slots after s.
func after[V any](all []SlotRecord[V], s Slot) []SlotRecord[V] {
	i, found := search(all, s)
	if found {
		i++
	}
	return all[i:]
}

// LogTypes returns the encodings of a replicated log of values of type V, whose owner's state is of type
// S. Name is V's and S's name in them, such as "membership".
func LogTypes[V, S any](name string) []protocol.Type {
	name = "[" + name + "]"
	return []protocol.Type{
		{Name: "paxos.Replica" + name, Zero: Replica[V, S]{}},
		{Name: "paxos.PromiseRecord" + name, Zero: PromiseRecord[V]{}},
		{Name: "paxos.SlotRecord" + name, Zero: SlotRecord[V]{}},
		{Name: "paxos.SnapshotRecord" + name, Zero: SnapshotRecord[S]{}},
		{Name: "paxos.LogPhase1a" + name, Zero: LogPhase1a[V]{}},
		{Name: "paxos.LogPhase1b" + name, Zero: LogPhase1b[V]{}},
		{Name: "paxos.LogPhase2a" + name, Zero: LogPhase2a[V]{}},
		{Name: "paxos.LogPhase2b" + name, Zero: LogPhase2b[V]{}},
		{Name: "paxos.LogRefused" + name, Zero: LogRefused[V]{}},
		{Name: "paxos.Heartbeat" + name, Zero: Heartbeat[V]{}},
		{Name: "paxos.Fetch" + name, Zero: Fetch[V]{}},
		{Name: "paxos.Fetched" + name, Zero: Fetched[V]{}},
		{Name: "paxos.Transfer" + name, Zero: Transfer[S]{}},
		{Name: "paxos.Lead" + name, Zero: Lead[V]{}},
		{Name: "paxos.Follow" + name, Zero: Follow[V]{}},
		{Name: "paxos.Submit" + name, Zero: Submit[V]{}},
		{Name: "paxos.Compact" + name, Zero: Compact[S]{}},
		{Name: "paxos.Swear" + name, Zero: Swear[V]{}},
		{Name: "paxos.Appended" + name, Zero: Appended[V]{}},
		{Name: "paxos.Restored" + name, Zero: Restored[S]{}},
		{Name: "paxos.Rejected" + name, Zero: Rejected[V]{}},
		{Name: "paxos.LeaderIs" + name, Zero: LeaderIs[V]{}},
	}
}
