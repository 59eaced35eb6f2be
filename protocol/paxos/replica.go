package paxos

import (
	"maps"
	"slices"

	"assent/protocol"
	"assent/protocol/quorum"
)

// LogTimer is the one timer of a Replica.
const LogTimer = "log"

// ReplicaState is where a replica stands.
type ReplicaState uint8

// The states of a replica.
const (
	// Following leaves it to others to lead.
	Following ReplicaState = iota
	// Preparing is in phase 1, for all slots at once.
	Preparing
	// Leading is in phase 2.
	Leading
	// Displaced has lost its ballot and waits before it begins a higher one.
	Displaced
)

var replicaStateNames = [...]string{"following", "preparing", "leading", "displaced"}

// String returns the state's name.
func (s ReplicaState) String() string {
	if int(s) < len(replicaStateNames) {
		return replicaStateNames[s]
	}
	return "invalid"
}

// MarshalText returns the state's name.
func (s ReplicaState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText sets s from its name. It fails on any other text.
func (s *ReplicaState) UnmarshalText(text []byte) error { return named(replicaStateNames[:], text, s) }

// Replica is one node's part in a replicated log: Multi-Paxos (Lamport 1998, 3; 2001, 3). It is an
// acceptor, a learner and, while it is told to, a leader of every slot at once. What stands in a slot
// is emitted in the order of slots, each once in an incarnation.
//
// It promises what the single decree promises, for every slot, whoever leads and however many do. Who
// agrees on a slot is decided by the log itself: a configuration in slot i reigns from i + Window on,
// and no slot is tried before the one Window before it stands. Memory is bounded by Window, by the
// bounds of Options and by how many entries the owner lets pass between two Compacts.
type Replica[V, S any] struct {
	Self protocol.NodeID
	// Storage is the id of the node's stable storage, empty where ids are not used. A node that has
	// lost its storage must come back with another.
	Storage string `cbor:",omitempty" json:",omitempty"`
	// Window is how many slots may be open. It must be the same at all replicas, for ever. Defaults
	// to DefaultWindow; MaxWindow is the most.
	Window  Slot
	Options LogOptions
	// Reigns are the configurations known for slots after Base, in order. A new log is given its first,
	// with From 1; a node that joins one is given none, and Seeds.
	Reigns []Reign
	// Seeds are nodes to ask while no configuration is known.
	Seeds []protocol.NodeID `cbor:",omitempty" json:",omitempty"`

	// Promised is the acceptor's promise, for all slots.
	Promised Ballot
	// Log holds what is accepted and what stands, sorted by slot, without what a snapshot has replaced.
	Log []SlotRecord[V] `cbor:",omitempty" json:",omitempty"`
	// Base is the last snapshot.
	Base SnapshotRecord[S]
	// Chosen is the slot up to which what stands is known and emitted.
	Chosen Slot
	// Leader is who is taken to lead; empty where nobody is known.
	Leader protocol.NodeID `cbor:",omitempty" json:",omitempty"`
	// Asked is the place of the peer that is asked next for what stands.
	Asked int `cbor:",omitempty" json:",omitempty"`

	State ReplicaState
	// Wanted says that the replica is to lead.
	Wanted bool `cbor:",omitempty" json:",omitempty"`
	// Ballot is the replica's own, while it prepares or leads; Round the highest heard of.
	Ballot  Ballot
	Round   uint64 `cbor:",omitempty" json:",omitempty"`
	Attempt int    `cbor:",omitempty" json:",omitempty"`
	// Promises are those who have promised Ballot, sorted by node.
	Promises []Storage `cbor:",omitempty" json:",omitempty"`
	// Bound holds for each slot that is not yet tried in Ballot what was accepted there in the highest
	// ballot below it, among all who have promised. The leader is bound to it.
	Bound []SlotRecord[V] `cbor:",omitempty" json:",omitempty"`
	// Next is the next slot to be tried, and Open are those that are being tried.
	Next Slot          `cbor:",omitempty" json:",omitempty"`
	Open []OpenSlot[V] `cbor:",omitempty" json:",omitempty"`
	// Queue are entries that wait for a slot.
	Queue []Entry[V] `cbor:",omitempty" json:",omitempty"`
}

// OpenSlot is a slot in phase 2.
type OpenSlot[V any] struct {
	Slot  Slot
	Entry Entry[V]
	// Accepted are those who have accepted, sorted by node.
	Accepted []Storage `cbor:",omitempty" json:",omitempty"`
	// Settled says that a write quorum has.
	Settled bool `cbor:",omitempty" json:",omitempty"`
	// Old says that a beat has passed since it was tried.
	Old bool `cbor:",omitempty" json:",omitempty"`
}

// Step takes Start and Recover, Lead, Follow, Submit, Compact and Swear as inputs, the messages of a log, and
// its timer.
func (r *Replica[V, S]) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Start:
		if len(r.Reigns) > 0 {
			r.Base.Reigns = r.Reigns
			out.Put(SnapshotKey, r.Base)
		}
		r.rest(out)
	case protocol.Recover:
		r.recover(ev.Records, out)
		r.rest(out)
	case protocol.Input:
		r.input(ev.Value, out)
	case protocol.Receive:
		r.receive(ev.From, ev.Message, out)
	case protocol.Expire:
		if ev.Timer == LogTimer {
			r.expire(out)
		}
	}
}

func (r *Replica[V, S]) input(value protocol.Value, out *protocol.Effects) {
	switch v := value.(type) {
	case Lead[V]:
		r.Wanted = true
		if r.State == Following {
			r.begin(out)
		}
	case Follow[V]:
		r.Wanted = false
		if r.State != Following {
			r.yield(out)
		}
	case Submit[V]:
		r.submit(v.Entry, out)
	case Compact[S]:
		r.compact(v, out)
	case Swear[V]:
		if r.Base.Joined {
			r.Base.Joined = false
			out.Put(SnapshotKey, r.Base)
		}
	}
}

func (r *Replica[V, S]) receive(from protocol.NodeID, message protocol.Message, out *protocol.Effects) {
	switch m := message.(type) {
	case LogPhase1a[V]:
		r.promise(from, m.Ballot, out)
	case LogPhase2a[V]:
		r.accept(from, m, out)
	case LogPhase1b[V]:
		r.promised(from, m, out)
	case LogPhase2b[V]:
		r.accepted(from, m, out)
	case LogRefused[V]:
		r.refused(from, m, out)
	case Heartbeat[V]:
		r.heartbeat(from, m, out)
	case Fetch[V]:
		r.tell(from, m, out)
	case Fetched[V]:
		r.fetched(from, m, out)
	case Transfer[S]:
		r.transferred(from, m, out)
	}
}

// recover takes up what is stable. What stands after the snapshot is known where it was written as
// such; of the rest the leader tells.
func (r *Replica[V, S]) recover(records protocol.Records, out *protocol.Effects) {
	if p, ok := records[PromiseKey].(PromiseRecord[V]); ok {
		r.Promised = p.Promised
	}
	if base, ok := records[SnapshotKey].(SnapshotRecord[S]); ok {
		r.Base, r.Reigns, r.Chosen = base, base.Reigns, base.Slot
		if base.State != nil {
			out.Emit(Restored[S]{Slot: base.Slot, State: *base.State})
		}
	} else {
		r.Base.Reigns = r.Reigns
	}
	for _, key := range slices.Sorted(maps.Keys(records)) {
		if s, ok := records[key].(SlotRecord[V]); ok {
			r.Log = append(r.Log, s)
			r.Round = max(r.Round, s.Ballot.Round) // of what it was told, too, which it has not promised
		}
	}
	r.goOn(Ballot{}, r.Chosen, out)
}

// window returns how many slots may be open.
func (r *Replica[V, S]) window() Slot {
	if r.Window == 0 {
		return DefaultWindow
	}
	return min(r.Window, MaxWindow)
}

// configuration returns who agrees on a slot: nobody that is known in a blank replica. It must not be
// asked about slots more than a window after Chosen.
func (r *Replica[V, S]) configuration(s Slot) *Configuration {
	for i := len(r.Reigns) - 1; i >= 0; i-- {
		if r.Reigns[i].From <= s {
			return &r.Reigns[i].Configuration
		}
	}
	return &Configuration{}
}

// reigning returns the configurations of the slots after Chosen, as far as they are known.
func (r *Replica[V, S]) reigning() []Reign {
	for i := len(r.Reigns) - 1; i > 0; i-- {
		if r.Reigns[i].From <= r.Chosen+1 {
			return r.Reigns[i:]
		}
	}
	return r.Reigns
}

// peers returns the others of the configurations of the slots after Chosen: those with votes first.
func (r *Replica[V, S]) peers(learners bool) []protocol.NodeID {
	var all []protocol.NodeID
	add := func(n protocol.NodeID) {
		if n != r.Self && !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	for _, reign := range r.reigning() {
		for _, m := range reign.Configuration.System.Members {
			add(m.Node)
		}
	}
	if !learners {
		return all
	}
	for _, reign := range r.reigning() {
		for _, n := range reign.Configuration.Learners {
			add(n)
		}
	}
	return all
}

// self returns the replica as a voter.
func (r *Replica[V, S]) self() Storage { return Storage{Node: r.Self, ID: r.Storage} }

// mayLead reports whether the replica votes on the next slot.
func (r *Replica[V, S]) mayLead() bool {
	return r.configuration(r.Chosen+1).has(r.self()) && r.sworn()
}

// rest waits for somebody else's sign of life.
func (r *Replica[V, S]) rest(out *protocol.Effects) {
	if poll := r.Options.withDefaults().Poll; poll > 0 {
		out.Arm(LogTimer, poll)
	} else {
		out.Disarm(LogTimer)
	}
}

func (r *Replica[V, S]) expire(out *protocol.Effects) {
	switch r.State {
	case Following:
		if r.mayLead() { // others are told of the leader only when they ask
			r.follow("", out)
		}
		if r.Wanted {
			r.begin(out)
		}
		if r.State == Following {
			r.ask(out)
			r.rest(out)
		}
	case Displaced:
		r.begin(out)
	case Preparing:
		r.prepare(out)
		if r.Options.withDefaults().Poll > 0 {
			r.ask(out) // the members may have changed: who leads may be one of whom it has not heard
		}
	case Leading:
		r.beat(out)
	}
}

// ask asks one peer after the other for what stands.
func (r *Replica[V, S]) ask(out *protocol.Effects) {
	peers := r.peers(true)
	for _, n := range r.Seeds {
		if n != r.Self && !slices.Contains(peers, n) {
			peers = append(peers, n)
		}
	}
	if len(peers) == 0 {
		return
	}
	r.Asked %= len(peers)
	r.fetch(peers[r.Asked], out)
	r.Asked = (r.Asked + 1) % len(peers)
}

func (r *Replica[V, S]) fetch(from protocol.NodeID, out *protocol.Effects) {
	out.Send(from, Fetch[V]{From: r.Chosen + 1, Blank: len(r.Reigns) == 0})
}

// follow notes who leads.
func (r *Replica[V, S]) follow(leader protocol.NodeID, out *protocol.Effects) {
	if leader != r.Leader {
		r.Leader = leader
		out.Emit(LeaderIs[V]{Leader: leader})
	}
}

// compact replaces entries by the owner's state, in one stable write.
func (r *Replica[V, S]) compact(c Compact[S], out *protocol.Effects) {
	if c.Slot <= r.Base.Slot || c.Slot > r.Chosen {
		return
	}
	reigns := slices.DeleteFunc(slices.Clone(r.Reigns), func(x Reign) bool { return x.From > c.Slot+r.window() })
	for len(reigns) > 1 && reigns[1].From <= c.Slot+1 {
		reigns = reigns[1:]
	}
	r.Base = SnapshotRecord[S]{Slot: c.Slot, State: &c.State, Reigns: reigns, Joined: r.Base.Joined}
	for len(r.Reigns) > 1 && r.Reigns[1].From <= c.Slot+1 {
		r.Reigns = r.Reigns[1:]
	}
	out.Put(SnapshotKey, r.Base)
	r.truncate(c.Slot-min(c.Slot, r.Options.Keep), out)
}

// truncate drops the entries up to a slot.
func (r *Replica[V, S]) truncate(upTo Slot, out *protocol.Effects) {
	rest := after(r.Log, upTo)
	for _, s := range r.Log[:len(r.Log)-len(rest)] {
		out.Delete(SlotKey(s.Slot))
	}
	r.Log = slices.Clone(rest)
}

// votes counts the members of a configuration that are among given.
func votes(given []Storage, c *Configuration, tally func(quorum.System, func(protocol.NodeID) quorum.Answer) quorum.Tally) bool {
	return len(c.System.Members) > 0 && tally(c.System, c.count(given)).Verdict() == quorum.Reached
}
