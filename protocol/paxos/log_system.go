package paxos

import (
	"fmt"
	"slices"
	"time"

	"assent/protocol"
	"assent/protocol/quorum"
)

// ReplicatedLog is a whole system for the simulator and the checker: nodes n1, n2 … that each have a
// replica of a log, and an owner that keeps what is in it.
type ReplicatedLog struct {
	// Nodes is how many there are, 1 to 9. The first Voters agree, all unless it is set; the rest join
	// by Moves, if at all.
	Size, Voters int
	// Leaders may be told to lead, and given a value "vi" each, at any time: so many, from the first.
	Leaders int
	// Values are how many values each node submits by itself, and whoever hears of no leader tries to
	// lead: for the simulator, where inputs are rare.
	Values int
	// Moves are the voters of the configurations that follow the first, by number. Whoever leads submits
	// them, one after the other.
	Moves [][]int
	// Heavier adds a configuration in which n1 has three votes and the quorums are what they were: they do
	// not meet, so it must be refused.
	Heavier bool
	// Fickle lets a leader be given another value, "wi", too.
	Fickle bool
	// Every is the number of slots after which the owner hands over its state. Defaults to 0: never.
	Every   Slot
	Window  Slot
	Options LogOptions
}

// HistoryKey is the key under which a LogNode keeps its History, so that what it has once been told is seen
// while it is down.
const HistoryKey = "history"

// History is what stands in the slots of a log, from the first on, as text: "-" for a no-op, a value, or
// "c2" for configuration number 2.
type History struct{ Values []string }

// Standing returns the history: a machine's, or a record's.
func (h History) Standing() []string { return h.Values }

// Forward is a value on its way to whoever leads.
type Forward struct{ Value string }

// workTimer is the pace of a LogNode's own work.
const workTimer = "work"

const workPause = 200 * time.Millisecond

// LogNode is a node of a ReplicatedLog: a replica with its owner.
type LogNode struct {
	Replica Replica[string, History]
	// History is what the owner was told since the node came up, and Kept how much is on record.
	History History
	Kept    int  `cbor:",omitempty" json:",omitempty"`
	Every   Slot `cbor:",omitempty" json:",omitempty"`
	// Wishes are values that the node wants in the log, by itself.
	Wishes []string        `cbor:",omitempty" json:",omitempty"`
	Moves  []Configuration `cbor:",omitempty" json:",omitempty"`
	// Alone counts how long no leader was heard of.
	Alone int `cbor:",omitempty" json:",omitempty"`
}

// Standing returns the history.
func (n *LogNode) Standing() []string { return n.History.Values }

// Content reports whether all that the node wished for is in the log.
func (n *LogNode) Content() bool {
	return !slices.ContainsFunc(n.Wishes, func(v string) bool { return !slices.Contains(n.History.Values, v) })
}

// Step hands events to the replica, and what that emits to the owner.
func (n *LogNode) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Start:
		n.pace(out)
	case protocol.Recover:
		if h, ok := ev.Records[HistoryKey].(History); ok {
			n.Kept = len(h.Values)
		}
		n.pace(out)
	case protocol.Expire:
		if ev.Timer == workTimer {
			n.work(out)
			return
		}
	case protocol.Receive:
		if f, ok := ev.Message.(Forward); ok {
			n.give(protocol.Input{Value: Submit[string]{Entry: Entry[string]{Kind: Command, Value: f.Value}}}, out)
			return
		}
	}
	n.give(ev, out)
}

// give steps the replica and takes what it emits.
func (n *LogNode) give(ev protocol.Event, out *protocol.Effects) {
	before, told := len(out.Emits), len(n.History.Values)
	n.Replica.Step(ev, out)
	for _, v := range out.Emits[before:] {
		switch v := v.(type) {
		case Restored[History]:
			n.History.Values = slices.Clone(v.State.Values)
		case Appended[string]:
			n.History.Values = append(slices.Clone(n.History.Values), text(v.Entry))
		}
	}
	if len(n.History.Values) == told {
		return
	}
	if len(n.History.Values) > n.Kept {
		n.Kept = len(n.History.Values)
		out.Put(HistoryKey, n.History)
	}
	if at := Slot(len(n.History.Values)); n.Every > 0 && at >= n.Replica.Base.Slot+n.Every {
		n.Replica.Step(protocol.Input{Value: Compact[History]{Slot: at, State: n.History}}, out)
	}
}

// text is an entry as History has it.
func text(e Entry[string]) string {
	switch {
	case e.Kind == NoOp:
		return "-"
	case e.Kind == Reconfiguration && e.Configuration != nil:
		return fmt.Sprintf("c%d", e.Configuration.Number)
	}
	return e.Value
}

func (n *LogNode) pace(out *protocol.Effects) {
	if len(n.Wishes) > 0 {
		out.Arm(workTimer, workPause)
	}
}

// work submits the wishes that are not in the log, and the next configuration where this node leads. A
// node that hears of no leader for a while tries to lead; one that hears of another does not.
func (n *LogNode) work(out *protocol.Effects) {
	n.pace(out)
	r := &n.Replica
	switch {
	case r.Leader == "":
		if n.Alone++; n.Alone > 2 {
			n.Alone = 0
			n.give(protocol.Input{Value: Lead[string]{}}, out)
		}
		return
	case r.Leader != r.Self:
		n.Alone = 0
		n.give(protocol.Input{Value: Follow[string]{}}, out)
	}
	for _, v := range n.Wishes {
		switch {
		case slices.Contains(n.History.Values, v):
		case r.Leader != r.Self:
			out.Send(r.Leader, Forward{Value: v})
		default:
			n.give(protocol.Input{Value: Submit[string]{Entry: Entry[string]{Kind: Command, Value: v}}}, out)
		}
	}
	n.move(out)
}

// move submits the configuration that follows the one in force.
func (n *LogNode) move(out *protocol.Effects) {
	r := &n.Replica
	if r.State != Leading || len(r.Reigns) == 0 {
		return
	}
	last := r.Reigns[len(r.Reigns)-1].Configuration.Number
	for _, c := range n.Moves {
		if c.Number == last+1 {
			n.give(protocol.Input{Value: Submit[string]{Entry: Entry[string]{Kind: Reconfiguration, Configuration: &c}}}, out)
		}
	}
}

// Nodes returns the nodes.
func (l ReplicatedLog) Nodes() ([]protocol.Node, error) {
	if l.Size < 1 || l.Size > 9 || l.Voters < 0 || l.Voters > l.Size || l.Leaders < 0 || l.Leaders > l.Size {
		return nil, fmt.Errorf("%w: %d nodes, of which %d vote and %d may lead: give 1 to 9 nodes", ErrSystem, l.Size, l.Voters, l.Leaders)
	}
	name := func(i int) protocol.NodeID { return protocol.NodeID(fmt.Sprintf("n%d", i)) }
	configuration := func(number uint64, voters []int) Configuration {
		var ids []protocol.NodeID
		for _, v := range voters {
			ids = append(ids, name(v))
		}
		return Configuration{Number: number, System: quorum.Majority(ids...)}
	}
	var first []int
	for i := range l.Size {
		if l.Voters == 0 || i < l.Voters {
			first = append(first, i+1)
		}
	}
	reigns := []Reign{{From: 1, Configuration: configuration(1, first)}}
	var moves []Configuration
	for i, voters := range l.Moves {
		c := configuration(uint64(i)+2, voters)
		if err := c.System.Validate(); err != nil {
			return nil, fmt.Errorf("%w: configuration %d: %w", ErrSystem, c.Number, err)
		}
		moves = append(moves, c)
	}
	if l.Heavier {
		moves = append(moves, heavier(reigns[0].Configuration, uint64(len(moves))+2))
	}
	var nodes []protocol.Node
	for i := range l.Size {
		make := func() *LogNode {
			n := &LogNode{Every: l.Every, Replica: Replica[string, History]{Self: name(i + 1), Window: l.Window, Options: l.Options}}
			if i < len(first) || l.Options.Poll < 0 { // who may not ask must know
				n.Replica.Reigns = reigns
			} else {
				n.Replica.Seeds = []protocol.NodeID{name(1), name(2)}
			}
			for k := range l.Values {
				n.Wishes = append(n.Wishes, fmt.Sprintf("n%d.%d", i+1, k+1))
			}
			if l.Values > 0 {
				n.Moves = moves
			}
			return n
		}
		node := protocol.Node{ID: name(i + 1), New: []func() protocol.Machine{func() protocol.Machine { return make() }}}
		if i < l.Leaders {
			node.Inputs = append(node.Inputs, Lead[string]{}, Submit[string]{Entry: Entry[string]{Kind: Command, Value: fmt.Sprintf("v%d", i+1)}})
			if l.Fickle {
				node.Inputs = append(node.Inputs, Submit[string]{Entry: Entry[string]{Kind: Command, Value: fmt.Sprintf("w%d", i+1)}})
			}
			for k := range moves {
				node.Inputs = append(node.Inputs, Submit[string]{Entry: Entry[string]{Kind: Reconfiguration, Configuration: &moves[k]}})
			}
		}
		nodes = append(nodes, node)
	}
	return nodes, nil
}

// heavier returns the configuration with more votes for its first member, and a number.
func heavier(c Configuration, number uint64) Configuration {
	c.Number = number
	c.System.Members = slices.Clone(c.System.Members)
	c.System.Members[0].Votes = 3
	return c
}

// ReplicatedLogTypes returns the encodings of a ReplicatedLog.
func ReplicatedLogTypes() []protocol.Type {
	return append(LogTypes[string, History]("string"), protocol.Type{Name: "paxos.LogNode", Zero: LogNode{}},
		protocol.Type{Name: "paxos.History", Zero: History{}}, protocol.Type{Name: "paxos.Forward", Zero: Forward{}})
}
