package paxos

import "assent/protocol"

// AcceptorKey is the key of an acceptor's one stable record.
const AcceptorKey = "acceptor"

// AcceptorRecord is what an acceptor keeps: its promise, and what it has accepted.
type AcceptorRecord[V any] struct {
	Promised Ballot
	Accepted Ballot
	Value    V
}

// Acceptor gives its vote to ballots, the highest first. It never takes back a promise or an
// acceptance, for both are stable before they are told (Lamport 2001, P1a and P2c).
type Acceptor[V any] struct {
	Instance Instance
	// Owner is the proposer that owns ballot 0 and needs no phase 1 for it. Nobody owns it where
	// Owner is empty. All acceptors of an instance must be given the same one.
	Owner protocol.NodeID
	// Learners are told what is accepted, besides the ballot's proposer.
	Learners []protocol.NodeID `cbor:",omitempty" json:",omitempty"`
	Promised Ballot
	Accepted Ballot
	Value    V
}

// Step takes Recover, and Phase1a and Phase2a as messages. Anything else has no effect.
func (a *Acceptor[V]) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Recover:
		if r, ok := ev.Records[AcceptorKey].(AcceptorRecord[V]); ok {
			a.Promised, a.Accepted, a.Value = r.Promised, r.Accepted, r.Value
		}
	case protocol.Receive:
		switch m := ev.Message.(type) {
		case Phase1a[V]:
			if m.Instance == a.Instance {
				a.promise(ev.From, m.Ballot, out)
			}
		case Phase2a[V]:
			if m.Instance == a.Instance {
				a.accept(ev.From, m, out)
			}
		}
	}
}

func (a *Acceptor[V]) promise(from protocol.NodeID, b Ballot, out *protocol.Effects) {
	// Ballot 0 has no phase 1: it would let a second value in beside its owner's.
	if b.Round == 0 || b.Node != from || b.Compare(a.Promised) < 0 {
		a.refuse(from, b, out)
		return
	}
	if b != a.Promised {
		a.Promised = b
		a.put(out)
	}
	out.Send(from, Phase1b[V]{Instance: a.Instance, Ballot: b, Accepted: a.Accepted, Value: a.Value})
}

func (a *Acceptor[V]) accept(from protocol.NodeID, m Phase2a[V], out *protocol.Effects) {
	if m.Ballot.Node != from || m.Ballot.Round == 0 && from != a.Owner || m.Ballot.yields(a.Promised) {
		a.refuse(from, m.Ballot, out)
		return
	}
	if m.Ballot != a.Accepted {
		a.Promised, a.Accepted, a.Value = m.Ballot, m.Ballot, m.Value
		a.put(out)
	}
	told := Phase2b[V]{Instance: a.Instance, Ballot: a.Accepted, Value: a.Value}
	out.Send(from, told)
	for _, l := range a.Learners {
		if l != from {
			out.Send(l, told)
		}
	}
}

func (a *Acceptor[V]) put(out *protocol.Effects) {
	out.Put(AcceptorKey, AcceptorRecord[V]{Promised: a.Promised, Accepted: a.Accepted, Value: a.Value})
}

func (a *Acceptor[V]) refuse(to protocol.NodeID, b Ballot, out *protocol.Effects) {
	out.Send(to, Refused[V]{Instance: a.Instance, Ballot: b, Promised: a.Promised})
}
