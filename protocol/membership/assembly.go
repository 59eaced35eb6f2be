package membership

import (
	"fmt"
	"slices"

	"assent/protocol"
	"assent/protocol/detector"
	"assent/protocol/paxos"
)

// Assembly is a whole system for the checker: members n1, n2 … without failure detectors and elections, of
// which some may be told to lead at any time, and be asked for changes.
type Assembly struct {
	// Members is how many there are, 1 to 5, and Leaders how many of them may lead.
	Members, Leaders int
	// Changes are what those who lead may be asked for, at any time: at most 6.
	Changes []Change
	// Shared says that it is one node that asks all of them, for the same changes. Else each asks for its own.
	Shared bool
	// Wary are those members, by number, that suspect all others, and refuse what these would be needed for.
	Wary []int
	// Rounds bounds the ballots. Every is as in Options.
	Rounds uint64
	Every  paxos.Slot
}

// Delegate is a node of an Assembly.
type Delegate struct {
	Node Node
	Seen []View `cbor:",omitempty" json:",omitempty"`
	Kept Chronicle
}

// Chronicles returns the views of this incarnation.
func (d *Delegate) Chronicles() []View { return d.Seen }

// Denied returns the changes that the node has refused, and those that its state has as refused.
func (d *Delegate) Denied() []Session { return d.Node.State.denied(slices.Clip(d.Kept.Refused)) }

// Applied returns the last changes that the node's state has as applied, of those that have an operator.
func (d *Delegate) Applied() []Session { return d.Node.State.applied() }

// Step takes the events of the log, and changes as input.
func (d *Delegate) Step(ev protocol.Event, out *protocol.Effects) {
	n := &d.Node
	kept := len(d.Kept.Views)
	switch e := ev.(type) {
	case protocol.Start, protocol.Recover:
		if r, ok := ev.(protocol.Recover); ok {
			d.Kept, _ = r.Records[ChronicleKey].(Chronicle)
			kept = len(d.Kept.Views)
		}
		n.installed(out)
		n.log(ev, out)
	case protocol.Input:
		if c, ok := e.Value.(Change); ok {
			if n.Log.State == paxos.Leading {
				if why := n.propose(c, false, out); why != "" {
					d.Kept.deny(c, why)
					out.Put(ChronicleKey, d.Kept)
				}
			}
			break
		}
		n.log(ev, out)
	default:
		n.log(ev, out)
	}
	for _, v := range out.Emits {
		if i, ok := v.(Installed); ok {
			d.Seen = append(slices.Clone(d.Seen), i.View)
			if !slices.ContainsFunc(d.Kept.Views, func(k View) bool { return k.Number == i.View.Number }) {
				d.Kept.Views = append(slices.Clone(d.Kept.Views), i.View)
			}
		}
	}
	if len(d.Kept.Views) > kept {
		out.Put(ChronicleKey, d.Kept)
	}
}

// Nodes returns the nodes.
func (a Assembly) Nodes() ([]protocol.Node, error) {
	if a.Members < 1 || a.Members > 5 || a.Leaders < 0 || a.Leaders > a.Members || len(a.Changes) > 6 {
		return nil, fmt.Errorf("%w: %d members, %d of which lead, and %d changes: give 1 to 5 members and at most 6 changes",
			ErrSystem, a.Members, a.Leaders, len(a.Changes))
	}
	var founders []Member
	for i := range a.Members {
		n := protocol.NodeID(fmt.Sprintf("n%d", i+1))
		founders = append(founders, Member{Node: n, Storage: string(n)})
	}
	state, err := Found("assembly", founders...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSystem, err)
	}
	o := Options{Every: a.Every, Log: paxos.LogOptions{Poll: -1, Beat: -1, Queue: 1, Ballots: paxos.Options{Rounds: a.Rounds, Retry: 1, RetryMost: 1}}}
	var nodes []protocol.Node
	for i, m := range founders {
		node := protocol.Node{ID: m.Node, New: []func() protocol.Machine{func() protocol.Machine {
			d := &Delegate{Node: *Founder(m, state, o)}
			d.Node.Log.Window, d.Node.Log.Storage = 1, m.Storage
			for _, x := range founders {
				if x.Node != m.Node && slices.Contains(a.Wary, i+1) {
					d.Node.Detector.Peers = append(d.Node.Detector.Peers, detector.Peer{Node: x.Node, Suspected: true})
				}
			}
			return d
		}}}
		if i < a.Leaders {
			node.Inputs = append(node.Inputs, paxos.Lead[Change]{})
			for k, c := range a.Changes {
				c.By, c.Number = m.Node, uint64(k+1)
				if a.Shared {
					c.By = founders[0].Node
				}
				node.Inputs = append(node.Inputs, c)
			}
		}
		nodes = append(nodes, node)
	}
	return nodes, nil
}
