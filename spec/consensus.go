package spec

import (
	"slices"

	"assent/protocol"
	"assent/protocol/paxos"
	"assent/protocol/quorum"
)

// Learned is a machine that may come to know what is decided.
type Learned interface {
	// Learned returns what the machine knows to be decided, and whether it knows. The value can be
	// compared with ==.
	Learned() (value any, ok bool)
}

// Agreement says that no two nodes that are up know different decisions.
func Agreement() Property {
	return Property{Name: "agreement", Holds: func(v View) bool {
		var first any
		for i := range v.Nodes() {
			value, ok := learned(v.Machine(i))
			if !ok {
				continue
			}
			if first != nil && value != first {
				return false
			}
			first = value
		}
		return true
	}}
}

// Validity says that only what was proposed is decided.
func Validity(proposed ...any) Property {
	return Property{Name: "validity", Holds: func(v View) bool {
		for i := range v.Nodes() {
			if value, ok := learned(v.Machine(i)); ok && !slices.Contains(proposed, value) {
				return false
			}
		}
		return true
	}}
}

// Learns says that some node knows that value is decided: a good thing that must be possible.
func Learns(value any) Property {
	return Property{Name: "somebody learns the decision", Holds: func(v View) bool {
		for i := range v.Nodes() {
			if got, ok := learned(v.Machine(i)); ok && got == value {
				return true
			}
		}
		return false
	}}
}

// Network is a View that shows what is under way, too, as that of the checker does.
type Network interface {
	View
	// UnderWay calls yield with every message that may still arrive: the places of its sender and its
	// receiver, and the message.
	UnderWay(yield func(from, to int, m protocol.Message))
}

// ChosenAgreement says that no two values are decided in a register whose acceptors change, whether anybody
// learns them or not: what an acceptor has accepted in a ballot it has said, and a value is decided when a write
// quorum of the ballot's epoch has. It is judged by what is under way, so nothing may get lost: for the checker,
// where Duplicates is Unlimited. The nodes are the system's, strings its values.
func ChosenAgreement(nodes []protocol.Node) Property {
	places := map[protocol.NodeID]int{}
	for i, n := range nodes {
		places[n.ID] = i
	}
	return Property{Name: "agreement of what is decided", Holds: func(v View) bool {
		decided := ""
		for _, x := range votesOf(v) {
			if x.decided(places) {
				if decided != "" && x.value != decided {
					return false
				}
				decided = x.value
			}
		}
		return true
	}}
}

// Chooses says that a value is decided: a good thing that must be possible. It is judged as ChosenAgreement is.
func Chooses(nodes []protocol.Node, value string) Property {
	places := map[protocol.NodeID]int{}
	for i, n := range nodes {
		places[n.ID] = i
	}
	return Property{Name: "decided is " + value, Holds: func(v View) bool {
		return slices.ContainsFunc(votesOf(v), func(x votes) bool { return x.value == value && x.decided(places) })
	}}
}

// votes are the places of those who have accepted a value in a ballot, as bits.
type votes struct {
	ballot paxos.Ballot
	epoch  paxos.Epoch
	value  string
	by     uint64
}

// votesOf returns what acceptors have said, ballot by ballot.
func votesOf(v View) (all []votes) {
	v.(Network).UnderWay(func(from, _ int, m protocol.Message) {
		d, ok := m.(paxos.Dated[string])
		if !ok || d.Phase2b == nil {
			return
		}
		i := slices.IndexFunc(all, func(x votes) bool { return x.ballot == d.Phase2b.Ballot })
		if i < 0 {
			i, all = len(all), append(all, votes{ballot: d.Phase2b.Ballot, epoch: d.Epoch, value: d.Phase2b.Value})
		}
		all[i].by |= 1 << from
	})
	return all
}

// decided reports whether those who have accepted are a write quorum of the epoch.
func (x votes) decided(places map[protocol.NodeID]int) bool {
	return x.epoch.Joint().Write(func(n protocol.NodeID) quorum.Answer {
		if x.by>>places[n]&1 == 1 {
			return quorum.Granted
		}
		return quorum.Silent
	}) == quorum.Reached
}

func learned(m protocol.Machine) (any, bool) {
	l, ok := m.(Learned)
	if !ok {
		return nil, false
	}
	return l.Learned()
}
