package main

import (
	"strings"
	"time"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/spec"
)

// system is a protocol that check, sim and replay know by name.
type system struct {
	name  string
	about string // one line
	// synchronous says that what is claimed holds only where no timer runs out early: nobody is
	// taken to be down who is up, as under a partition, a loss or a late message.
	synchronous bool
	// rounds is where a search bounds its rounds unless it is told otherwise; 0 where there are none.
	rounds int
	// flags are those of check and sim that mean something to it, and not to every system.
	flags []string
	// calm says that a search has no crashes in it unless they are asked for: there are many states as it is.
	calm bool
	// safety is how long the simulator lets faults happen.
	safety time.Duration
	// make makes the system's nodes, with what is claimed of them.
	make func(parameters) (composition, error)
}

// composition is a system made.
type composition struct {
	nodes []protocol.Node
	codec *protocol.Codec
	// symmetric are groups of nodes of which it does not matter which is which.
	symmetric [][]int
	// always hold in every state of every run within the protocol's assumptions.
	always []spec.Property
	// quiet hold, beside always, in runs without a fault in which no timer runs out early and
	// everybody is steadfast.
	quiet []spec.Property
	// sometimes hold in a state of some run.
	sometimes []spec.Property
	// done says when the machine of a node has reached its end, as it must in the simulator when the faults are
	// over.
	done func(node int, m protocol.Machine) bool
	// ends is what the checker claims of ends: that everybody who is up can come to one while those that are
	// down stay down. Nothing is claimed where it is empty.
	ends string
}

// systems are all there are, in the order in which they are shown.
func systems() []system {
	two, three := []string{"participants", "votes", "vote-retries"}, []string{"participants", "votes"}
	agree := []string{"nodes", "proposers", "rounds"}
	return []system{
		{name: "2pc", about: "two-phase commit with presumed abort, over a decision log of its own",
			flags: append([]string{"cooperative"}, two...), safety: simulatedSafety, make: makeTwoPhase},
		{name: "2pc-peers", about: "two-phase commit without a coordinator: every site votes to every other",
			flags: three, safety: simulatedSafety, make: makePeers(2)},
		{name: "3pc", about: "three-phase commit with an elected successor; not safe under partition", synchronous: true,
			flags: append([]string{"unilateral"}, two...), safety: simulatedSafety, make: makeThreePhase},
		{name: "3pc-peers", about: "three-phase commit without a coordinator; not safe under partition", synchronous: true,
			flags: three, safety: simulatedSafety, make: makePeers(3)},
		{name: "q3pc", about: "three-phase commit by quorums, safe under partition", rounds: 1,
			flags: append([]string{"rounds"}, two...), safety: simulatedSafety, make: makeQuorum},
		{name: "paxos", about: "Paxos Commit: three acceptors agree on every vote, any one may fail", rounds: 3,
			flags: append([]string{"rounds"}, two...), safety: simulatedSafety, make: makePaxos},
		{name: "register", about: "one decision among acceptors, by Paxos", rounds: 1, calm: true,
			flags: agree, safety: shortSafety, make: makeRegister},
		{name: "moving", about: "a register whose acceptors change while it is being decided", rounds: 1, calm: true,
			flags: agree, safety: shortSafety, make: makeMoving},
		{name: "log", about: "a log that nodes agree on entry by entry, by Paxos with a leader", rounds: 1, calm: true,
			flags: []string{"nodes", "rounds"}, safety: shortSafety, make: makeLog},
		{name: "membership", about: "the cluster's own state: who is a member, in views that follow one another", rounds: 1, calm: true,
			flags: []string{"nodes", "rounds"}, safety: shortSafety, make: makeMembership},
	}
}

// findSystem returns the system of that name.
func findSystem(name string) (system, error) {
	all := systems()
	names := make([]string, len(all))
	for i, s := range all {
		if s.name == name {
			return s, nil
		}
		names[i] = s.name
	}
	return system{}, misuse("the protocols are "+strings.Join(names, ", "), "there is no protocol %q to check", name)
}

// listSystems shows all for a command's help.
func listSystems() string {
	var t table
	for _, s := range systems() {
		t.add(cell{text: "  " + s.name}, cell{text: s.about})
	}
	var b strings.Builder
	_ = t.write(&b) // a builder does not fail
	return b.String()
}

func makeTwoPhase(p parameters) (composition, error) {
	c, err := compose(commit.TwoPhase{Participants: p.participants, Votes: p.votes, Steadfast: p.steadfast, Options: p.options()})
	if err != nil {
		return c, err
	}
	if p.participants == 1 {
		c.always, c.sometimes = c.always[:1], c.sometimes[:1] // the only participant decides alone, without the register
	}
	return c.exchangeable(1), nil
}

func makePeers(phases int) func(parameters) (composition, error) {
	return func(p parameters) (composition, error) {
		c, err := compose(commit.Decentralised{Sites: p.participants, Phases: phases, Votes: p.votes, Steadfast: p.steadfast, Options: p.options()})
		c.sometimes = []spec.Property{spec.AllCommit()} // there is no register for the other
		if phases == 2 {                                // in three the sites have an order, in which they become backup
			c = c.exchangeable(0)
		}
		return c, err
	}
}

func makeThreePhase(p parameters) (composition, error) {
	return compose(commit.ThreePhase{Participants: p.participants, Votes: p.votes, Steadfast: p.steadfast, Options: p.options()})
}

func makeQuorum(p parameters) (composition, error) {
	return compose(commit.QuorumThreePhase{Participants: p.participants, Votes: p.votes, Steadfast: p.steadfast, Options: p.options()})
}

// makePaxos puts three acceptors on the nodes of the first participants.
func makePaxos(p parameters) (composition, error) {
	c, err := compose(commit.PaxosCommit{Participants: p.participants, F: 1, CoLocated: true, Votes: p.votes, Steadfast: p.steadfast, Options: p.options()})
	c.sometimes = []spec.Property{spec.AllCommit()} // there is no register in one place for the other
	return c, err
}

// compose makes a system of atomic commitment, with what is claimed of all of them.
func compose(of interface {
	Nodes() ([]protocol.Node, error)
}) (composition, error) {
	nodes, err := of.Nodes()
	if err != nil {
		return composition{}, misuse("see --participants", "%v", err)
	}
	codec, err := protocol.NewCodec(commit.Types()...)
	if err != nil {
		return composition{}, err
	}
	return composition{nodes: nodes, codec: codec,
		always:    []spec.Property{spec.AC1(), spec.AC2(), spec.AC3()},
		quiet:     []spec.Property{spec.AC4()},
		sometimes: []spec.Property{spec.AllCommit(), spec.PromiseUndone()},
		done:      spec.ParticipantDone,
		ends:      "AC5: every participant that is up can come to its end",
	}, nil
}

// exchangeable says that it does not matter which is which of the nodes from first on.
func (c composition) exchangeable(first int) composition {
	var group []int
	for i := first; i < len(c.nodes); i++ {
		group = append(group, i)
	}
	if len(group) > 1 {
		c.symmetric = [][]int{group}
	}
	return c
}
