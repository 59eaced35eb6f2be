package museum

import (
	"fmt"
	"slices"
	"time"

	"assent/check"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/sim"
	"assent/spec"
)

// System is a protocol as the two tools look at it: the checker at few nodes under a budget of faults, the
// simulator at as many or one more under classes of faults. As the machines are, nothing is wrong with it.
type System struct {
	Name         string
	Small, Large Noder
	Faults       check.Faults
	Model        check.Model
	Classes      []sim.Class
	Always       []spec.Property
	// Types are those of the machines; the types of package commit where there are none.
	Types []protocol.Type
	// Done says when a machine is at its end. Defaults to spec.ParticipantDone.
	Done func(node int, m protocol.Machine) bool
	// Slow says that a seed takes long: the machines as they are run through fewer.
	Slow bool
	// Nonblocking says that nobody who is up is ever blocked, whatever the faults.
	Nonblocking bool
	// Open says that not everybody need come to the end when the faults are over.
	Open bool
}

// Noder makes the nodes of one of the protocols: commit.TwoPhase, say.
type Noder interface {
	Nodes() ([]protocol.Node, error)
}

// Systems returns the systems in which bugs are looked for.
func Systems() []System { return slices.Concat(commitment(), agreement()) }

// commitment are the protocols of atomic commitment.
func commitment() []System {
	yes, yesNo := []commit.Vote{commit.Yes}, []commit.Vote{commit.Yes, commit.No}
	safe := []spec.Property{spec.AC1(), spec.AC2(), spec.AC3()}
	two := append(safe[:len(safe):len(safe)], toldAll())
	// In the simulator waits are short beside the time for which a node is down, so that what a wait
	// is for happens; a hundred milliseconds are still ten times as long as a message takes.
	quick, cooperative := commit.Options{Vote: 100 * time.Millisecond}, commit.Options{Vote: 100 * time.Millisecond, Cooperative: true}
	// Three-phase commit without quorums bears crashes, but no message that is late or lost.
	crashes := []sim.Class{sim.Crash, sim.Crash, sim.Duplication, sim.FailedSync, sim.TornWrite, sim.Whim}
	worst := check.Faults{Duplicates: check.Unlimited, Crashes: 1, Restarts: 1}
	twice := check.Faults{Crashes: 2, Restarts: 2}
	return []System{
		{Name: "2pc", Small: commit.TwoPhase{Participants: 2}, Large: commit.TwoPhase{Participants: 3, Options: quick},
			Faults: worst, Classes: sim.Classes(), Always: two},
		{Name: "2pc, cooperative", Small: commit.TwoPhase{Participants: 2, Options: cooperative}, Large: commit.TwoPhase{Participants: 3, Options: cooperative},
			Faults: worst, Classes: sim.Classes(), Always: two},
		{Name: "3pc", Small: commit.ThreePhase{Participants: 2, Votes: yesNo}, Large: commit.ThreePhase{Participants: 3, Options: quick},
			Faults: check.Faults{Crashes: 1, Restarts: 1}, Model: check.Synchronous, Classes: crashes, Always: safe, Nonblocking: true},
		{Name: "3pc, two crashes", Small: commit.ThreePhase{Participants: 2, Votes: yes, Steadfast: true}, Large: commit.ThreePhase{Participants: 3, Options: quick},
			Faults: twice, Model: check.Synchronous, Classes: crashes, Always: safe, Nonblocking: true},
		{Name: "3pc, three sites", Small: commit.ThreePhase{Participants: 3, Votes: yes, Steadfast: true}, Large: commit.ThreePhase{Participants: 3, Options: quick},
			Faults: check.Faults{Crashes: 2}, Model: check.Synchronous, Classes: crashes, Always: safe, Nonblocking: true},
		{Name: "3pc by quorums", Small: commit.QuorumThreePhase{Participants: 3, Votes: yes, Steadfast: true, Options: commit.Options{Rounds: 2}},
			Large:  commit.QuorumThreePhase{Participants: 3, Options: quick},
			Faults: check.Faults{Partitions: 1, Heals: 1}, Model: check.Synchronous, Classes: sim.Classes(), Always: safe},
		{Name: "3pc by quorums, a crash", Small: commit.QuorumThreePhase{Participants: 3, Votes: yes, Steadfast: true, Options: commit.Options{Rounds: 3}},
			Large:  commit.QuorumThreePhase{Participants: 3, Options: quick},
			Faults: check.Faults{Partitions: 1, Crashes: 1, Restarts: 1}, Model: check.Synchronous, Classes: sim.Classes(), Always: safe},
		{Name: "decentralised 2pc", Small: commit.Decentralised{Sites: 2}, Large: commit.Decentralised{Sites: 3, Options: quick},
			Faults: worst, Classes: sim.Classes(), Always: safe},
		{Name: "decentralised 3pc", Small: commit.Decentralised{Sites: 2, Phases: 3, Votes: yesNo}, Large: commit.Decentralised{Sites: 3, Phases: 3, Options: quick},
			Faults: twice, Model: check.Synchronous, Classes: crashes, Always: safe, Open: true},
		{Name: "decentralised 3pc, three sites", Small: commit.Decentralised{Sites: 3, Phases: 3, Votes: yes}, Large: commit.Decentralised{Sites: 3, Phases: 3, Options: quick},
			Faults: check.Faults{Crashes: 2, Restarts: 1}, Model: check.Synchronous, Classes: crashes, Always: safe, Nonblocking: true, Open: true},
	}
}

// FindSystem returns the one of that name.
func FindSystem(name string) (System, error) {
	all := Systems()
	i := slices.IndexFunc(all, func(s System) bool { return s.Name == name })
	if i < 0 {
		return System{}, fmt.Errorf("no system is called %q", name)
	}
	return all[i], nil
}

// toldAll is the claim that a coordinator is at the end of a commit only when no branch waits for it: else
// what it may forget is still needed.
func toldAll() spec.Property {
	return spec.Property{Name: "a commit is forgotten when all have done it", Holds: func(v spec.View) bool {
		ended, waiting := false, false
		for i := range v.Nodes() {
			site, ok := v.Machine(i).(spec.Site)
			if !ok {
				continue
			}
			s := site.Standing()
			ended = ended || !s.Participant && s.Done && s.Decision == commit.Commit
			waiting = waiting || s.Participant && s.Branch == commit.BranchInDoubt
		}
		return !ended || !waiting
	}}
}
