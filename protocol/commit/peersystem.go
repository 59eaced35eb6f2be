package commit

import (
	"time"

	"assent/protocol"
)

// PeerNode is a peer over its branch.
type PeerNode struct {
	Peer   Peer
	Branch Branch
}

// Step routes the event to the parts, and what they say to each other between them. What the peer
// emits for its user stays in out.
func (n *PeerNode) Step(ev protocol.Event, out *protocol.Effects) {
	var branch protocol.Effects
	if _, ok := ev.(protocol.Recover); ok {
		n.Branch.Step(ev, &branch)
	}
	n.Peer.Step(ev, out)
	var kept []protocol.Value
	for len(out.Emits) > 0 {
		emits := out.Emits
		out.Emits = nil
		for _, v := range emits {
			switch v.(type) {
			case PrepareBranch, CommitBranch, RollbackBranch:
				n.Branch.Step(protocol.Input{Value: v}, &branch)
			default:
				kept = append(kept, v)
			}
		}
		merge(out, &branch, func(v protocol.Value) { n.Peer.Step(protocol.Input{Value: v}, out) })
	}
	out.Emits = kept
}

// Standing returns what the peer knows and where its branch stands.
func (n *PeerNode) Standing() Standing {
	return Standing{Decision: n.Peer.Decision, Participant: true, Branch: n.Branch.State,
		Vote: n.Branch.Vote, Done: n.Peer.State == PeerFinished}
}

// Decentralised describes a system that runs one transaction by a decentralised commit protocol:
// every site is a peer over a branch.
type Decentralised struct {
	// Sites is their number, 2 to 8.
	Sites int
	// Phases is 2 or 3. Defaults to 2.
	Phases int
	// Votes are those that each branch may give: ways to begin. Defaults to yes, no and read-only.
	Votes []Vote
	// Options are the machines'.
	Options Options
	// Steadfast sites do not give up by themselves before they vote.
	Steadfast bool
}

// Nodes returns the system: sites p1, p2 and so on. Its pauses are of one length, so that a machine
// does not count them in its state. It returns an ErrSystem if a number is out of bounds.
func (d Decentralised) Nodes() ([]protocol.Node, error) {
	ids, phases, err := sites(d.Sites, d.Phases)
	if err != nil {
		return nil, err
	}
	d.Phases, d.Options.Retry, d.Options.RetryMost = phases, time.Second, time.Second
	return participants(ids, votesOr(d.Votes), d.Steadfast, func(id protocol.NodeID, v Vote) protocol.Machine {
		return &PeerNode{Peer: *NewPeer("t", id, ids, phases, d.Options), Branch: Branch{Vote: v}}
	}), nil
}
