package membership

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"assent/protocol"
)

// Cluster is a whole system for the simulator: founders n1, n2 … and nodes that join. Each sets keys of its
// own, "n1/1", "n1/2" …, one after the other.
type Cluster struct {
	// Founders and Joiners are how many there are, 1 to 9 in all.
	Founders, Joiners int
	// Keys is how many keys each sets.
	Keys int
	// Leaving are founders, by number, that n1 asks to leave when it has set its keys.
	Leaving []int
	// Forgetful are nodes, by number, that lose their disk in every crash.
	Forgetful []int
	Options   Options
}

// ErrSystem says that a system cannot be made; the text says why.
var ErrSystem = errors.New("no such system")

// ChronicleKey is the key under which a Citizen keeps its Chronicle, so that what it has once been told is
// seen while it is down. It outlasts the loss of the disk.
const ChronicleKey = "chronicle"

// Chronicle is what a node was told: the views of its incarnations, and which changes were refused.
type Chronicle struct {
	Views   []View
	Refused []Session `cbor:",omitempty" json:",omitempty"`
	// Lives counts the disks that the node has had.
	Lives int
}

// Chronicles returns the views.
func (c Chronicle) Chronicles() []View { return c.Views }

// Denied returns the changes that were refused.
func (c Chronicle) Denied() []Session { return c.Refused }

// Applied returns nothing: a Chronicle does not say.
func (c Chronicle) Applied() []Session { return nil }

// deny notes that a change was refused.
func (c *Chronicle) deny(x Change, why string) {
	s := Session{Node: x.By, Storage: x.Storage, Number: x.Number, Refused: why}
	if !slices.Contains(c.Refused, s) {
		c.Refused = append(slices.Clone(c.Refused), s)
	}
}

// denied adds to all the last change of each node where it was refused.
func (s *State) denied(all []Session) []Session {
	for _, x := range s.Sessions {
		if x.Refused != "" {
			all = append(all, x)
		}
	}
	return all
}

// applied returns the changes of the trail.
func (s *State) applied() (all []Session) {
	for _, n := range s.Trail {
		all = append(all, Session{Node: n.Change.By, Storage: n.Change.Storage, Number: n.Change.Number})
	}
	return all
}

// workTimer is the pace of a Citizen's own work.
const workTimer = "work"

const workPause = 300 * time.Millisecond

// Citizen is a node of a Cluster: a Node with its owner.
type Citizen struct {
	Node Node
	// Seen are the views of this incarnation, Kept those of all.
	Seen []View `cbor:",omitempty" json:",omitempty"`
	Kept Chronicle
	// Wishes are the changes that the owner wants, Next the place of the one that it asks for; Waits
	// says that it has asked.
	Wishes    []Change          `cbor:",omitempty" json:",omitempty"`
	Next      int               `cbor:",omitempty" json:",omitempty"`
	Waits     bool              `cbor:",omitempty" json:",omitempty"`
	Forgetful bool              `cbor:",omitempty" json:",omitempty"`
	Seeds     []protocol.NodeID `cbor:",omitempty" json:",omitempty"`
	Founded   *State            `cbor:",omitempty" json:",omitempty"` // by this node and others
	Released  bool              `cbor:",omitempty" json:",omitempty"`
}

// Chronicles returns the views of this incarnation.
func (c *Citizen) Chronicles() []View { return c.Seen }

// Denied returns the changes of which the owner was told that they were refused, and those that the state has
// as refused.
func (c *Citizen) Denied() []Session { return c.Node.State.denied(slices.Clip(c.Kept.Refused)) }

// Applied returns the last changes that the state has as applied, of those that have an operator.
func (c *Citizen) Applied() []Session { return c.Node.State.applied() }

// Content reports whether all that the owner wanted is done, and the node is what it wants to be: a
// member with a vote on the side that goes on, or retired.
func (c *Citizen) Content() bool {
	m, _ := c.Node.State.Member(c.Node.Self.Node)
	return c.Next == len(c.Wishes) && (c.Released || m.Votes > 0 && c.Node.standing().Primary && !c.Node.State.Trails())
}

// Step hands events to the node, and what that emits to the owner.
func (c *Citizen) Step(ev protocol.Event, out *protocol.Effects) {
	switch e := ev.(type) {
	case protocol.Start:
		c.Kept.Lives = 1
		out.Put(ChronicleKey, c.Kept)
		out.Arm(workTimer, workPause)
	case protocol.Recover:
		c.Kept, _ = e.Records[ChronicleKey].(Chronicle)
		ev = c.forget(e, out)
		out.Arm(workTimer, workPause)
	case protocol.Expire:
		if e.Timer == workTimer {
			out.Arm(workTimer, workPause)
			if !c.Waits && c.Next < len(c.Wishes) {
				c.Waits = true
				ev = protocol.Input{Value: Ask{Ref: uint64(c.Next), Change: c.Wishes[c.Next]}}
			}
		}
	}
	kept, asked := len(c.Kept.Views)+len(c.Kept.Refused), c.Node.Asks
	c.Node.Step(ev, out)
	for i := 0; i < len(out.Emits); i++ {
		switch v := out.Emits[i].(type) {
		case Installed:
			c.Seen = append(slices.Clone(c.Seen), v.View)
			if !slices.ContainsFunc(c.Kept.Views, func(k View) bool { return k.Number == v.View.Number }) {
				c.Kept.Views = append(slices.Clone(c.Kept.Views), v.View)
			}
		case Answered:
			if c.Waits = false; v.Result == Applied || v.Result == Refused {
				c.Next++
			}
			for _, a := range asked {
				if v.Result == Refused && !a.Own && a.Ref == v.Ref {
					c.Kept.deny(a.Change, v.Why)
				}
			}
		case Retired:
			c.Released = true
		case Changed: // the owner's registers are empty, and so have moved at once
			if r := v.State.Registers; r.Next != nil {
				c.Node.Step(protocol.Input{Value: Moved{Number: r.Number}}, out)
			}
		}
	}
	if len(c.Kept.Views)+len(c.Kept.Refused) > kept {
		out.Put(ChronicleKey, c.Kept)
	}
}

// forget loses the disk of a node that is forgetful: it begins anew, as one that joins, or as what it was in
// the beginning.
func (c *Citizen) forget(e protocol.Recover, out *protocol.Effects) protocol.Event {
	if !c.Forgetful {
		return e
	}
	for key := range e.Records {
		if key != ChronicleKey {
			out.Delete(key)
		}
	}
	slices.SortFunc(out.Writes, func(a, b protocol.Write) int { return compareKeys(a.Key, b.Key) })
	c.Kept.Lives++
	out.Put(ChronicleKey, c.Kept)
	self := c.Node.Self
	self.Storage = fmt.Sprintf("%s/%d", self.Node, c.Kept.Lives)
	if c.Founded != nil {
		c.Node = *Founder(self, *c.Founded, c.Node.Options)
	} else {
		c.Node = *Joiner(self, c.Seeds, c.Node.Options)
	}
	return protocol.Start{}
}

func compareKeys(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Nodes returns the nodes.
func (c Cluster) Nodes() ([]protocol.Node, error) {
	if c.Founders < 1 || c.Joiners < 0 || c.Founders+c.Joiners > 9 {
		return nil, fmt.Errorf("%w: %d founders and %d that join: give 1 to 9 in all", ErrSystem, c.Founders, c.Joiners)
	}
	self := func(i int) Member {
		n := protocol.NodeID(fmt.Sprintf("n%d", i))
		return Member{Node: n, Storage: string(n) + "/1", Wanted: 1, Address: string(n) + ":1"}
	}
	var founders []Member
	var seeds []protocol.NodeID
	for i := range c.Founders {
		m := self(i + 1)
		m.Storage = "" // the founders do not know of one another's
		founders = append(founders, m)
		seeds = append(seeds, m.Node)
	}
	state, err := Found("cluster", founders...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSystem, err)
	}
	var nodes []protocol.Node
	for i := 1; i <= c.Founders+c.Joiners; i++ {
		m := self(i)
		nodes = append(nodes, protocol.Node{ID: m.Node, New: []func() protocol.Machine{func() protocol.Machine {
			x := &Citizen{Seeds: seeds, Forgetful: slices.Contains(c.Forgetful, i)}
			if i <= c.Founders {
				x.Node, x.Founded = *Founder(m, state, c.Options), &state
			} else {
				x.Node = *Joiner(m, seeds, c.Options)
			}
			for k := range c.Keys {
				x.Wishes = append(x.Wishes, Change{Kind: Set, Key: fmt.Sprintf("%s/%d", m.Node, k+1), Value: "set", Operator: "owner"})
			}
			for _, l := range c.Leaving {
				if i == 1 {
					x.Wishes = append(x.Wishes, Change{Kind: Leave, Node: protocol.NodeID(fmt.Sprintf("n%d", l)), Operator: "owner"})
				}
			}
			return x
		}}})
	}
	return nodes, nil
}

// ClusterTypes returns the encodings of a Cluster, and of an Assembly.
func ClusterTypes() []protocol.Type {
	return append(Types(), protocol.Type{Name: "membership.Citizen", Zero: Citizen{}}, protocol.Type{Name: "membership.Delegate", Zero: Delegate{}},
		protocol.Type{Name: "membership.Change", Zero: Change{}},
		protocol.Type{Name: "membership.Chronicle", Zero: Chronicle{}})
}
