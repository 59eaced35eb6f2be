package main

import (
	"strings"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/spec"
)

// system is a protocol that check, sim and replay know by name.
type system struct {
	name  string
	about string // one line
	// make makes the system's nodes, with what is claimed of them.
	make func(parameters) (composition, error)
}

// parameters are what a command line may say of a system. The zero values mean the defaults of the
// protocol's own package, but for the number of participants.
type parameters struct {
	participants int
	votes        []commit.Vote // that each branch may give
	cooperative  bool          // participants in doubt ask one another
	voteRetries  int
	steadfast    bool // participants do not give up by themselves
}

// composition is a system made.
type composition struct {
	nodes []protocol.Node
	codec *protocol.Codec
	// always hold in every state of every run within the protocol's assumptions.
	always []spec.Property
	// quiet hold, beside always, in runs without a fault in which no timer runs out early and
	// everybody is steadfast.
	quiet []spec.Property
	// sometimes hold in a state of some run.
	sometimes []spec.Property
	// done says when the machine of a node has reached its end.
	done func(node int, m protocol.Machine) bool
}

// systems are all there are, in the order in which they are shown.
func systems() []system {
	return []system{
		{"2pc", "two-phase commit with presumed abort, over a decision log of its own", makeTwoPhase},
		{"2pc-peers", "two-phase commit in which participants in doubt ask one another", func(p parameters) (composition, error) {
			p.cooperative = true
			return makeTwoPhase(p)
		}},
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
	nodes, err := commit.TwoPhase{Participants: p.participants, Votes: p.votes, Steadfast: p.steadfast,
		Options: commit.Options{Cooperative: p.cooperative, VoteRetries: p.voteRetries}}.Nodes()
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
	}, nil
}
