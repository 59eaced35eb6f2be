// Package election chooses a leader among a fixed set of nodes by the bully algorithm
// (Garcia-Molina 1982): the highest node that is up leads.
//
// It promises that, once nodes stop failing and messages arrive before the timers run out, every
// node that is up comes to follow the highest one that is, if those that are down are suspected and
// leaders say again that they lead (Options.Again). Meanwhile there may be several leaders,
// or none. So it must only ever say who should try: safety is left to what the leader then does
// with ballots and quorums. Who has failed is for a failure detector to say.
package election

import (
	"slices"
	"time"

	"assent/protocol"
)

// The messages.
type (
	// Election asks every higher node whether it is up. Lower → higher.
	Election struct{}
	// Answer says that the sender is up and takes over the election. Higher → lower.
	Answer struct{}
	// Leader says that the sender leads. Leader → lower.
	Leader struct{}
)

// Suspect is an input: a failure detector takes node to be down. Suspicion of a node that is not
// followed has no effect.
type Suspect struct{ Node protocol.NodeID }

// Hold is an input: hold an election now.
type Hold struct{}

// Elected is emitted when the node follows another leader than before; Leader is empty where it knows
// of none.
type Elected struct{ Leader protocol.NodeID }

// Timer is the one timer of an Elector.
const Timer = "election"

// Options are an elector's times. They are part of its state. The zero value means the defaults.
type Options struct {
	// Answer is how long higher nodes are given to say that they are up: longer than a message
	// and its reply take. Defaults to 500 ms.
	Answer time.Duration `cbor:",omitempty" json:",omitempty"`
	// Leader is how long a higher node that is up is given to have a leader announced before the
	// election is held again. Defaults to four times Answer.
	Leader time.Duration `cbor:",omitempty" json:",omitempty"`
	// Again is how often a leader says again that it leads. Defaults to 0: never; a node that has
	// missed the news then goes on to follow whom it followed until the next election.
	Again time.Duration `cbor:",omitempty" json:",omitempty"`
}

func (o Options) answer() time.Duration {
	if o.Answer > 0 {
		return o.Answer
	}
	return 500 * time.Millisecond
}

func (o Options) leader() time.Duration {
	if o.Leader > 0 {
		return o.Leader
	}
	return 4 * o.answer()
}

// State is where an elector stands.
type State uint8

// The states of an elector.
const (
	// Following follows Leader, or nobody before its first event.
	Following State = iota
	// Electing has asked the higher nodes and waits for an answer.
	Electing
	// Waiting has had an answer and waits to be told who leads.
	Waiting
	// Leading leads.
	Leading
)

var stateNames = [...]string{"following", "electing", "waiting", "leading"}

// String returns the state's name.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "invalid"
}

// MarshalText returns the state's name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Elector is one node's part in elections. It has no stable storage: who comes back holds an
// election.
type Elector struct {
	Self protocol.NodeID
	// Nodes are all nodes that may lead, Self among them, the lowest first. All must be given the
	// same list.
	Nodes   []protocol.NodeID
	Options Options
	State   State
	// Leader is whom Self follows, or itself; empty where it knows of none.
	Leader protocol.NodeID `cbor:",omitempty" json:",omitempty"`
}

// Step takes Start and Recover, which hold an election, the messages, Suspect and Hold as input,
// and its timer.
func (e *Elector) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Start, protocol.Recover:
		e.hold(out)
	case protocol.Expire:
		if ev.Timer == Timer {
			e.expire(out)
		}
	case protocol.Input:
		switch v := ev.Value.(type) {
		case Hold:
			e.hold(out)
		case Suspect:
			if v.Node == e.Leader && v.Node != e.Self {
				e.hold(out)
			}
		}
	case protocol.Receive:
		e.receive(ev.From, ev.Message, out)
	}
}

func (e *Elector) receive(from protocol.NodeID, message protocol.Message, out *protocol.Effects) {
	rank := slices.Index(e.Nodes, from)
	if rank < 0 || from == e.Self {
		return
	}
	higher := rank > e.rank()
	switch message.(type) {
	case Election:
		if higher {
			return // it does not ask us
		}
		out.Send(from, Answer{})
		switch e.State {
		case Leading:
			out.Send(from, Leader{})
		case Following:
			e.hold(out)
		}
	case Answer:
		if higher && e.State == Electing {
			e.State = Waiting
			out.Arm(Timer, e.Options.leader())
		}
	case Leader:
		if !higher { // it does not know of us: bully it
			e.hold(out)
			return
		}
		e.State = Following
		out.Disarm(Timer)
		e.follow(from, out)
	}
}

func (e *Elector) rank() int { return slices.Index(e.Nodes, e.Self) }

// hold asks the higher nodes. A node that has none leads.
func (e *Elector) hold(out *protocol.Effects) {
	higher := e.Nodes[e.rank()+1:]
	if len(higher) == 0 {
		e.lead(out)
		return
	}
	e.State = Electing
	for _, n := range higher {
		out.Send(n, Election{})
	}
	out.Arm(Timer, e.Options.answer())
	e.follow("", out)
}

func (e *Elector) expire(out *protocol.Effects) {
	switch e.State {
	case Electing:
		e.lead(out)
	case Leading:
		e.announce(out)
	case Waiting: // who answered has failed since, or the news was lost
		e.hold(out)
	}
}

func (e *Elector) lead(out *protocol.Effects) {
	e.State = Leading
	out.Disarm(Timer)
	e.announce(out)
	e.follow(e.Self, out)
}

func (e *Elector) announce(out *protocol.Effects) {
	for _, n := range e.Nodes[:e.rank()] {
		out.Send(n, Leader{})
	}
	if e.Options.Again > 0 {
		out.Arm(Timer, e.Options.Again)
	}
}

func (e *Elector) follow(leader protocol.NodeID, out *protocol.Effects) {
	if leader != e.Leader {
		e.Leader = leader
		out.Emit(Elected{Leader: leader})
	}
}

// Types returns the encodings of this package's states, messages and values.
func Types() []protocol.Type {
	return []protocol.Type{
		{Name: "election.Elector", Zero: Elector{}},
		{Name: "election.Election", Zero: Election{}},
		{Name: "election.Answer", Zero: Answer{}},
		{Name: "election.Leader", Zero: Leader{}},
		{Name: "election.Suspect", Zero: Suspect{}},
		{Name: "election.Hold", Zero: Hold{}},
		{Name: "election.Elected", Zero: Elected{}},
	}
}
