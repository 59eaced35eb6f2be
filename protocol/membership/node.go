// Package membership keeps the cluster's own state on all its nodes: who is a member, with how many votes
// and at which address; the resources that are registered; a configuration of keys and values.
//
// It promises linear membership: all members see the same views in the same order, and the same state in
// each. It promises a primary partition: one side of a split at most, one that holds a majority of the
// votes, goes on; the others say that they do not. Nothing of that rests on a suspicion being right
// or on who leads. It promises progress while a majority of the votes is up and connected, and that it
// does not by itself give a majority away. It carries out nothing: connections, resources and disks are the
// owner's.
package membership

import (
	"slices"
	"time"

	"assent/protocol"
	"assent/protocol/detector"
	"assent/protocol/election"
	"assent/protocol/paxos"
)

// LifeKey is the key of a node's own stable record. The others are those of paxos.Replica.
const LifeKey = "membership/life"

// LifeRecord names a node's storage and counts the incarnations upon it.
type LifeRecord struct {
	Storage     string
	Incarnation uint64
	// Founder says that it is the storage with which the cluster was founded. Where it is Blank, too, that
	// is not certain: it may be the successor of one that was lost. It has no vote until enough of the
	// others have said that they have met no other.
	Founder bool `cbor:",omitempty" json:",omitempty"`
	Blank   bool `cbor:",omitempty" json:",omitempty"`
	// Lost says that the node founded a cluster alone, and that there was one already of which it is a member: the
	// storage is the successor of one that was lost. The node has stopped for good.
	Lost bool `cbor:",omitempty" json:",omitempty"`
}

// MetKey is the key of the record of the founders whose storages the node has met.
const MetKey = "membership/met"

// MetRecord holds the first storage that each of the other founders has shown.
type MetRecord struct{ Storages []paxos.Storage }

// The messages, besides those of detector, election and paxos.Replica.
type (
	// Request hands a change to whoever leads. A node that does not passes it on, once. Own says that the node
	// asks by itself.
	Request struct {
		Change    Change
		Own       bool `cbor:",omitempty" json:",omitempty"`
		Forwarded bool `cbor:",omitempty" json:",omitempty"`
	}
	// Refusal says that a change will not be tried, and why. Leader → asker.
	Refusal struct {
		Number uint64
		Why    string
	}
	// Report tells the leader how far a node is. Anybody → leader.
	Report struct {
		Storage string
		Chosen  paxos.Slot
		Founder bool `cbor:",omitempty" json:",omitempty"`
	}
	// Meet shows the storage of a founder that is blank. Founder → founders.
	Meet struct{ Storage string }
	// Met tells it which storage of its the sender knows. Founder → founder.
	Met struct{ Storage string }
	// Dismissed tells a node that is a member no more that it is not needed. Leader → former member.
	Dismissed struct{ View uint64 }
)

// What a node takes as input.
type (
	// Ask has a change made. Answered follows, with the same Ref, once in an incarnation. Any node may be asked.
	Ask struct {
		Ref    uint64
		Change Change
	}
	// Moved says that all that the registers hold has come to the epoch of that number, so that the next
	// may begin.
	Moved struct{ Number uint64 }
	// Describe asks for a Status.
	Describe struct{}
)

// What a node emits.
type (
	// Installed tells the next view. Where many were missed, and there was a state transfer, the first
	// ones may be left out; Number says so.
	Installed struct{ View View }
	// Changed tells the state, whenever it has changed.
	Changed struct{ State State }
	// Answered says what came of an Ask.
	Answered struct {
		Ref    uint64
		Result Result
		// Why says why it was refused.
		Why string `cbor:",omitempty" json:",omitempty"`
		// Epoch is the state's when the answer was known.
		Epoch uint64
	}
	// Retired says that the node is a member no more and that the others can do without it: it may be
	// stopped for good.
	Retired struct{ View uint64 }
)

// Result is what came of a change.
type Result uint8

// The results.
const (
	// Applied: the state has it.
	Applied Result = iota + 1
	// Refused: the state does not have it and will not.
	Refused
	// Unsure: there was no answer for Options.Patience. It may be applied or not, now or later.
	Unsure
)

var resultNames = [...]string{"", "applied", "refused", "unsure"}

// String returns the result's name.
func (r Result) String() string {
	if int(r) < len(resultNames) {
		return resultNames[r]
	}
	return "invalid"
}

// MarshalText returns the result's name.
func (r Result) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText sets r from its name. It fails on any other text.
func (r *Result) UnmarshalText(text []byte) error { return named(resultNames[:], text, r) }

// Options are a node's times and bounds. They are part of its state. The zero value means the defaults. Ticks
// are those of the detector.
type Options struct {
	Detector detector.Options
	Election election.Options
	Log      paxos.LogOptions
	// Exclude is for how many ticks on end a member must be suspected before the leader excludes it.
	// Defaults to 0: never. It is for a person to say, then.
	Exclude int `cbor:",omitempty" json:",omitempty"`
	// Patience is for how many ticks an Ask waits for its turn and its answer. Defaults to 100.
	Patience int `cbor:",omitempty" json:",omitempty"`
	// Every is the greatest number of entries between two snapshots. Defaults to 256.
	Every paxos.Slot `cbor:",omitempty" json:",omitempty"`
}

func (o Options) withDefaults() Options {
	if o.Patience <= 0 {
		o.Patience = 100
	}
	if o.Every <= 0 {
		o.Every = 256
	}
	if o.Election.Again <= 0 {
		o.Election.Again = time.Second
	}
	return o
}

// MaxAsks is how many Asks may wait at one node.
const MaxAsks = 64

// PendingAsk is an Ask that waits, with the change as it is numbered.
type PendingAsk struct {
	Ref    uint64
	Change Change
	Ticks  int `cbor:",omitempty" json:",omitempty"`
	// Own says that the node asks by itself and wants no answer.
	Own bool `cbor:",omitempty" json:",omitempty"`
}

// Heard is what a member has last reported, and for how many ticks on end it is suspected.
type Heard struct {
	Node      protocol.NodeID
	Storage   string     `cbor:",omitempty" json:",omitempty"`
	Chosen    paxos.Slot `cbor:",omitempty" json:",omitempty"`
	Founder   bool       `cbor:",omitempty" json:",omitempty"`
	Suspected int        `cbor:",omitempty" json:",omitempty"`
}

// Node is one node of a cluster: failure detector, election, replicated log and the state upon it.
type Node struct {
	// Self is the node as it would have itself be a member: its name, storage, addresses, and the votes
	// that it wants. One that wants none, and is no member, does not try to become one.
	Self    Member
	Options Options
	// State is what the log has made of the founders' state.
	State    State
	Detector detector.Detector
	Elector  election.Elector
	Log      paxos.Replica[Change, State]
	// Life is what is on record about the storage.
	Life LifeRecord
	// Told is the number of the last view that was emitted.
	Told uint64 `cbor:",omitempty" json:",omitempty"`
	// Asks wait, the first for its answer. Asked is the number of the last one.
	// Pressed is the number of the one that was brought before a leader last.
	Asks    []PendingAsk `cbor:",omitempty" json:",omitempty"`
	Asked   uint64       `cbor:",omitempty" json:",omitempty"`
	Pressed uint64       `cbor:",omitempty" json:",omitempty"`
	Peers   []Heard      `cbor:",omitempty" json:",omitempty"`
	Ticks   int          `cbor:",omitempty" json:",omitempty"`
	// Met are the founders whose storages the node has met. Welcomes are those who have met the node's own,
	// while it is blank.
	Met      []paxos.Storage   `cbor:",omitempty" json:",omitempty"`
	Welcomes []protocol.NodeID `cbor:",omitempty" json:",omitempty"`
	// Moved is the last epoch to which the registers have come, as far as the owner has said; Trails is for how
	// many ticks on end they have not been those of the members, while this node leads.
	Moved  uint64 `cbor:",omitempty" json:",omitempty"`
	Trails int    `cbor:",omitempty" json:",omitempty"`
	// Leaderless is for how many ticks on end nobody has led.
	Leaderless int `cbor:",omitempty" json:",omitempty"`
	// Denied says why the node was not let in, when it asked last.
	Denied string `cbor:",omitempty" json:",omitempty"`
	// Retired says that the node was dismissed.
	Retired bool `cbor:",omitempty" json:",omitempty"`
	// Last is the last Status that was emitted by itself.
	Last Standing
}

// Founder returns a node of a cluster that is founded: self is one of the founders in state. Where the state
// does not name its storage it is blank, as is any node that is called a founder and has an empty storage: it
// has a vote when more than half of the others' votes have met no other storage of its.
func Founder(self Member, state State, o Options) *Node {
	n := newNode(self, o)
	n.State, n.Life.Founder = state, true
	m, _ := state.Member(self.Node)
	n.Life.Blank = m.Storage == "" && state.View.Quorums().Total() > m.Votes
	n.Log.Base.Joined = n.Life.Blank
	n.Log.Reigns = []paxos.Reign{{From: 1, Configuration: state.View.configuration()}}
	n.Log.Base.State = &state
	return n
}

// Joiner returns a node that becomes a member of a cluster of which it knows some nodes.
func Joiner(self Member, seeds []protocol.NodeID, o Options) *Node {
	n := newNode(self, o)
	n.Log.Seeds = seeds
	return n
}

func newNode(self Member, o Options) *Node {
	o = o.withDefaults()
	return &Node{Self: self, Options: o, Detector: *detector.New(nil, o.Detector),
		Elector: election.Elector{Self: self.Node, Options: o.Election},
		Log:     paxos.Replica[Change, State]{Self: self.Node, Options: o.Log}}
}

// Step takes Start, Recover, Ask and Describe as input, the messages, and the timers of its parts.
func (n *Node) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Start:
		n.live(LifeRecord{Storage: n.Self.Storage, Founder: n.Life.Founder, Blank: n.Life.Blank}, out)
		n.begin(ev, out)
	case protocol.Recover:
		life, ok := ev.Records[LifeKey].(LifeRecord)
		if !ok {
			life = LifeRecord{Storage: n.Self.Storage, Founder: n.Life.Founder, Blank: n.Life.Blank}
		}
		if met, ok := ev.Records[MetKey].(MetRecord); ok {
			n.Met = met.Storages
		}
		n.live(life, out)
		n.begin(ev, out)
	case protocol.Expire:
		n.expire(ev, out)
	case protocol.Receive:
		n.receive(ev, out)
	case protocol.Input:
		switch v := ev.Value.(type) {
		case Ask:
			n.ask(v, out)
		case Moved:
			n.Moved = max(n.Moved, v.Number)
		case Describe:
			out.Emit(n.Status())
		}
	}
	n.goOn(out)
	n.hush(out)
}

// live begins an incarnation. Changes are numbered anew in each, above all earlier ones.
func (n *Node) live(life LifeRecord, out *protocol.Effects) {
	n.Self.Storage, n.Log.Storage = life.Storage, life.Storage
	life.Incarnation++
	n.Life = life
	n.Asked = n.Life.Incarnation << 32
	out.Put(LifeKey, n.Life)
}

func (n *Node) begin(ev protocol.Event, out *protocol.Effects) {
	if n.State.View.Number > 0 {
		n.installed(out)
	}
	n.log(ev, out)
	n.Detector.Step(ev, out)
	n.elect(ev, out)
}

func (n *Node) expire(ev protocol.Expire, out *protocol.Effects) {
	if n.Life.Lost {
		return
	}
	switch ev.Timer {
	case detector.Timer:
		n.detect(ev, out)
		n.tick(out)
	case election.Timer:
		n.elect(ev, out)
	case paxos.LogTimer:
		n.log(ev, out)
	}
}

func (n *Node) receive(ev protocol.Receive, out *protocol.Effects) {
	if n.Life.Lost || n.contradicts(ev, out) {
		return
	}
	n.detect(ev, out) // whatever it is, it is a sign of life
	switch m := ev.Message.(type) {
	case detector.Heartbeat, detector.Probe:
	case election.Election, election.Answer, election.Leader:
		n.elect(ev, out)
	case Request:
		n.requested(ev.From, m, out)
	case Refusal:
		if len(n.Asks) > 0 && n.Asks[0].Change.Number == m.Number {
			n.answer(Refused, m.Why, out)
		}
	case Report:
		n.reported(ev.From, m, out)
	case Dismissed:
		n.dismissed(m, out)
	case Meet:
		n.meet(ev.From, m.Storage, out)
	case Met:
		n.metBy(ev.From, m.Storage, out)
	case paxos.LogPhase1a[Change]:
		// Who hears of a leader helps nobody else to become one: it would only disturb.
		if leader := n.Log.Leader; leader == "" || leader == ev.From {
			n.log(ev, out)
		}
	default:
		n.log(ev, out)
	}
}

// detect steps the detector, and tells the elector whom it suspects.
func (n *Node) detect(ev protocol.Event, out *protocol.Effects) {
	var lower protocol.Effects
	n.Detector.Step(ev, &lower)
	out.Timers, out.Sends = append(out.Timers, lower.Timers...), append(out.Sends, lower.Sends...)
	for _, v := range lower.Emits {
		if s, ok := v.(detector.Suspect); ok {
			n.elect(protocol.Input{Value: election.Suspect{Node: s.Node}}, out)
		}
	}
}

// elect steps the elector of a voter. What it finds is looked at with the next tick.
func (n *Node) elect(ev protocol.Event, out *protocol.Effects) {
	if !n.voter() {
		return
	}
	var lower protocol.Effects
	n.Elector.Step(ev, &lower)
	out.Timers, out.Sends = append(out.Timers, lower.Timers...), append(out.Sends, lower.Sends...)
}

// voter reports whether the node has a vote, under the storage that it has.
func (n *Node) voter() bool {
	i := slices.IndexFunc(n.State.View.Members, func(v Voter) bool { return v.Node == n.Self.Node })
	return i >= 0 && n.State.View.Members[i].Votes > 0 && n.fits(n.State.View.Members[i].Storage) && !n.Life.Blank && !n.Life.Lost
}

// fits reports whether a storage id may be the node's own.
func (n *Node) fits(storage string) bool {
	return storage == n.Self.Storage || storage == "" && n.Life.Founder
}

// founder reports whether the storage is certain to be the founder's.
func (n *Node) founder() bool { return n.Life.Founder && !n.Life.Blank }

// member reports whether the node is a member, under the storage that it has.
func (n *Node) member() bool {
	m, ok := n.State.Member(n.Self.Node)
	return ok && n.fits(m.Storage)
}

// log steps the replica and applies what it tells.
func (n *Node) log(ev protocol.Event, out *protocol.Effects) {
	var lower protocol.Effects
	n.Log.Step(ev, &lower)
	out.Writes, out.Timers, out.Sends = append(out.Writes, lower.Writes...), append(out.Timers, lower.Timers...), append(out.Sends, lower.Sends...)
	epoch := n.State.Epoch
	for _, v := range lower.Emits {
		switch v := v.(type) {
		case paxos.Restored[State]:
			n.State = v.State
			n.installed(out)
		case paxos.Appended[Change]:
			n.applied(v.Entry, out)
		}
	}
	if n.State.Epoch != epoch {
		out.Emit(Changed{State: n.State})
	}
	n.say(out)
	if n.due() {
		n.log(protocol.Input{Value: paxos.Compact[State]{Slot: n.Log.Chosen, State: n.State}}, out)
	}
}

// applied takes an entry that stands.
func (n *Node) applied(e paxos.Entry[Change], out *protocol.Effects) {
	view := n.State.View.Number
	n.State.apply(e)
	if n.State.View.Number != view {
		n.installed(out)
	}
	if c := e.Value; e.Kind != paxos.NoOp && c.By == n.Self.Node && c.Storage == n.Self.Storage &&
		len(n.Asks) > 0 && n.Asks[0].Change.Number == c.Number {
		if refused, settled := n.State.settled(c); settled {
			n.settle(refused, out)
		}
	}
}

// installed tells the views that are new, and has the parts know the members.
func (n *Node) installed(out *protocol.Effects) {
	for _, v := range n.State.Views {
		if v.Number > n.Told {
			n.Told = v.Number
			out.Emit(Installed{View: v})
		}
	}
	was := n.Elector.Nodes
	n.Elector.Nodes = nil
	var peers []detector.Peer
	var heard []Heard
	for _, m := range n.State.View.Members {
		if m.Votes > 0 {
			n.Elector.Nodes = append(n.Elector.Nodes, m.Node)
		}
		if m.Node == n.Self.Node {
			continue
		}
		p, h := detector.Peer{Node: m.Node}, Heard{Node: m.Node}
		for _, x := range n.Detector.Peers {
			if x.Node == m.Node {
				p = x
			}
		}
		for _, x := range n.Peers {
			if x.Node == m.Node {
				h = x
			}
		}
		peers, heard = append(peers, p), append(heard, h)
	}
	n.Detector.Peers, n.Peers = peers, heard
	if n.Retired = n.Retired && !n.member(); !slices.Equal(was, n.Elector.Nodes) && was != nil {
		n.elect(protocol.Input{Value: election.Hold{}}, out)
	}
}

// Types returns the encodings of this package's states, messages, records and values, and of those of the parts.
func Types() []protocol.Type {
	return slices.Concat(detector.Types(), election.Types(), paxos.LogTypes[Change, State]("membership"), []protocol.Type{
		{Name: "membership.Node", Zero: Node{}},
		{Name: "membership.State", Zero: State{}},
		{Name: "membership.LifeRecord", Zero: LifeRecord{}},
		{Name: "membership.MetRecord", Zero: MetRecord{}},
		{Name: "membership.Meet", Zero: Meet{}},
		{Name: "membership.Met", Zero: Met{}},
		{Name: "membership.Moved", Zero: Moved{}},
		{Name: "membership.Request", Zero: Request{}},
		{Name: "membership.Refusal", Zero: Refusal{}},
		{Name: "membership.Report", Zero: Report{}},
		{Name: "membership.Dismissed", Zero: Dismissed{}},
		{Name: "membership.Ask", Zero: Ask{}},
		{Name: "membership.Describe", Zero: Describe{}},
		{Name: "membership.Installed", Zero: Installed{}},
		{Name: "membership.Changed", Zero: Changed{}},
		{Name: "membership.Answered", Zero: Answered{}},
		{Name: "membership.Retired", Zero: Retired{}},
		{Name: "membership.Status", Zero: Status{}},
	})
}
