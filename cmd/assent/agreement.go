package main

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"assent/protocol"
	"assent/protocol/membership"
	"assent/protocol/paxos"
	"assent/spec"
)

// The systems that agree on something else than the end of a transaction. The checker is given small ones,
// whose leaders and values come from outside at any time; the simulator larger ones, that run by themselves.

// shortSafety is how long faults happen in systems that send all the time.
const shortSafety = 20 * time.Second

// size returns how many nodes there are: as the command line says, or else what the executor can bear.
func (p parameters) size(checked, simulated int) int {
	switch {
	case p.nodes != 0:
		return p.nodes
	case p.simulated:
		return simulated
	}
	return checked
}

// pauses are a proposer's, with its rounds. For the checker how often one has waited is no part of a state.
func (p parameters) pauses() paxos.Options {
	if p.simulated {
		return paxos.Options{}
	}
	return paxos.Options{Rounds: uint64(p.rounds), Retry: 1, RetryMost: 1}
}

// values are what so many proposers propose.
func values(n int) (all []any) {
	for i := range n {
		all = append(all, "v"+strconv.Itoa(i+1))
	}
	return all
}

// agreed makes a system of a single register of text.
func agreed(of interface {
	Nodes() ([]protocol.Node, error)
}, proposers int, extra ...protocol.Type) (composition, error) {
	c, err := assembled(of, append(paxos.Types[string]("string"), extra...))
	c.always = []spec.Property{spec.Agreement(), spec.Validity(values(proposers)...)}
	for _, v := range values(proposers) {
		c.sometimes = append(c.sometimes, spec.Property{Name: "somebody learns " + v.(string), Holds: spec.Learns(v).Holds})
	}
	return c, err
}

// assembled makes a system of anything.
func assembled(of interface {
	Nodes() ([]protocol.Node, error)
}, types []protocol.Type) (composition, error) {
	nodes, err := of.Nodes()
	if err != nil {
		return composition{}, misuse("see --nodes and --proposers", "%s", strings.TrimPrefix(err.Error(), "no such system: "))
	}
	codec, err := protocol.NewCodec(types...)
	return composition{nodes: nodes, codec: codec}, err
}

// proposed reports whether a proposer knows what stands, or has nothing to propose.
func proposed(s paxos.ProposerState) bool {
	return s == paxos.ProposerIdle || s == paxos.ProposerDecided
}

func makeRegister(p parameters) (composition, error) {
	n := p.proposersOr(2)
	c, err := agreed(paxos.Consensus{Proposers: n, Acceptors: p.size(2, 5), Options: p.pauses()}, n)
	c.done = func(_ int, m protocol.Machine) bool {
		x, ok := m.(*paxos.Proposer[string])
		return !ok || proposed(x.State)
	}
	return c.exchangeable(n), err
}

// makeMoving moves a register from the acceptors 1 to n to 2 to n + 1.
func makeMoving(p parameters) (composition, error) {
	n, size := p.proposersOr(2), p.size(2, 3)
	m := paxos.Moving{Proposers: n, Movers: 1, Silent: !p.simulated, Options: p.pauses()}
	if p.simulated {
		m.Movers = 2
	}
	if size < 1 || size > 7 {
		return composition{}, misuse("see --nodes", "%d acceptors; 1 to 7 are allowed", size)
	}
	for i := range size {
		m.Old, m.New = append(m.Old, i+1), append(m.New, i+2)
	}
	c, err := agreed(m, n, paxos.EpochTypes[string]("string")...)
	c.done = func(_ int, m protocol.Machine) bool {
		x, ok := m.(*paxos.EpochProposer[string])
		return !ok || proposed(x.Proposer.State)
	}
	return c, err
}

func makeLog(p parameters) (composition, error) {
	size := p.size(3, 5)
	l := paxos.ReplicatedLog{Size: size, Leaders: min(2, size), Window: 1,
		Options: paxos.LogOptions{Poll: -1, Beat: -1, Last: 2, Queue: 1, Ballots: p.pauses()}}
	last := "v1"
	if p.simulated {
		l = paxos.ReplicatedLog{Size: size, Values: 4, Window: 3, Every: 6}
		last = "n1.4"
	}
	c, err := assembled(l, paxos.ReplicatedLogTypes())
	c.always = []spec.Property{spec.LogAgreement()}
	c.sometimes = []spec.Property{spec.LogHas(last)}
	c.done = func(_ int, m protocol.Machine) bool { return m.(*paxos.LogNode).Content() }
	return c, err
}

func makeMembership(p parameters) (composition, error) {
	size := p.size(3, 5)
	if p.simulated {
		c, err := assembled(membership.Cluster{Founders: size, Joiners: 1, Keys: 2, Options: membership.Options{Every: 4}}, membership.ClusterTypes())
		c.always = []spec.Property{spec.LinearMembership()}
		c.sometimes = []spec.Property{spec.ViewReached(size + 1)}
		c.done = func(_ int, m protocol.Machine) bool { return m.(*membership.Citizen).Content() }
		return c, err
	}
	c, err := assembled(membership.Assembly{Members: size, Leaders: min(2, size), Rounds: uint64(p.rounds),
		Changes: []membership.Change{{Kind: membership.Leave, Node: "n1"}}}, membership.ClusterTypes())
	c.always = []spec.Property{spec.LinearMembership()}
	if size > 1 {
		c.sometimes = []spec.Property{spec.ViewReached(size - 1)}
	}
	return c, err
}

// proposersOr returns how many propose.
func (p parameters) proposersOr(n int) int {
	if p.proposers != 0 {
		return p.proposers
	}
	return n
}

// inputs reports whether the world outside may give a node something.
func inputs(nodes []protocol.Node) bool {
	return slices.ContainsFunc(nodes, func(n protocol.Node) bool { return len(n.Inputs) > 0 })
}
