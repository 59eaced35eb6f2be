package museum

import (
	"slices"

	"assent/check"
	"assent/protocol"
	"assent/protocol/membership"
	"assent/protocol/paxos"
	"assent/sim"
	"assent/spec"
)

const (
	acceptor    = "protocol/paxos/acceptor.go"
	proposer    = "protocol/paxos/proposer.go"
	epoch       = "protocol/paxos/epoch.go"
	replica     = "protocol/paxos/replica.go"
	logAcceptor = "protocol/paxos/replica_acceptor.go"
	logLeader   = "protocol/paxos/replica_leader.go"
	tally       = "protocol/quorum/tally.go"
	memberNode  = "protocol/membership/node.go"
)

// agreement are Paxos, the log, and the membership upon it.
func agreement() []System {
	steady := func(rounds uint64) paxos.Options { return paxos.Options{Rounds: rounds, Retry: 1, RetryMost: 1} }
	short := func(last paxos.Slot, rounds uint64) paxos.LogOptions {
		return paxos.LogOptions{Poll: -1, Beat: -1, Last: last, Queue: 1, Ballots: steady(rounds)}
	}
	reordered, crash := check.Faults{Duplicates: check.Unlimited}, check.Faults{Duplicates: check.Unlimited, Crashes: 1, Restarts: 1}
	one := []spec.Property{spec.Agreement(), spec.Validity("v1", "v2", "v3", "w1", "w2", "w3")}
	log := []spec.Property{spec.LogAgreement()}
	oneTypes, logTypes := append(paxos.Types[string]("string"), paxos.EpochTypes[string]("string")...), paxos.ReplicatedLogTypes()
	quiet := slices.DeleteFunc(sim.Classes(), func(c sim.Class) bool { return c == sim.Whim })
	always := func(int, protocol.Machine) bool { return true }
	return []System{
		{Name: "paxos", Small: paxos.Consensus{Proposers: 2, Acceptors: 2, Options: steady(1)},
			Large:  paxos.Consensus{Proposers: 3, Acceptors: 3, Learner: true, Fickle: true},
			Faults: reordered, Classes: sim.Classes(), Always: one, Types: oneTypes, Done: always},
		{Name: "paxos, a crash", Small: paxos.Consensus{Proposers: 2, Acceptors: 1, Fickle: true, Options: steady(1)},
			Large:  paxos.Consensus{Proposers: 3, Acceptors: 3, Learner: true, Fickle: true},
			Faults: crash, Classes: sim.Classes(), Always: one, Types: oneTypes, Done: always},
		{Name: "paxos, three acceptors", Small: paxos.Consensus{Proposers: 2, Acceptors: 3, Options: steady(1)},
			Large:  paxos.Consensus{Proposers: 2, Acceptors: 3, Learner: true, Fickle: true},
			Faults: reordered, Classes: sim.Classes(), Always: one, Types: oneTypes, Done: always},
		{Name: "other acceptors", Small: paxos.Moving{Proposers: 2, Old: []int{1}, New: []int{2}, Movers: 1, Silent: true, Options: steady(1)},
			Large:  paxos.Moving{Proposers: 3, Old: []int{1}, New: []int{2}, Movers: 1, Silent: true},
			Faults: reordered, Classes: append(sim.Classes(), sim.Whim, sim.Whim, sim.Whim), Always: one, Types: oneTypes, Done: always},
		{Name: "log", Small: paxos.ReplicatedLog{Size: 3, Leaders: 2, Window: 2, Options: short(2, 1)},
			Large:  paxos.ReplicatedLog{Size: 3, Values: 3, Window: 3},
			Faults: reordered, Classes: quiet, Always: log, Types: logTypes, Done: always, Slow: true},
		{Name: "log, a crash", Small: paxos.ReplicatedLog{Size: 1, Leaders: 1, Window: 2, Fickle: true, Every: 1, Options: short(2, 2)},
			Large:  paxos.ReplicatedLog{Size: 3, Values: 4, Window: 2, Every: 1},
			Faults: crash, Classes: quiet, Always: log, Types: logTypes, Done: always, Slow: true},
		{Name: "log, other acceptors", Small: paxos.ReplicatedLog{Size: 3, Leaders: 2, Window: 2, Moves: [][]int{{1}}, Options: short(2, 1)},
			Large:  paxos.ReplicatedLog{Size: 3, Values: 3, Window: 4, Moves: [][]int{{1}, {2}, {1, 2, 3}, {3}}},
			Faults: reordered, Classes: quiet, Always: log, Types: logTypes, Done: always, Slow: true},
		{Name: "log, other votes", Small: paxos.ReplicatedLog{Size: 3, Leaders: 2, Window: 1, Heavier: true, Options: short(2, 1)},
			Large:  paxos.ReplicatedLog{Size: 3, Values: 4, Window: 2, Heavier: true},
			Faults: reordered, Classes: quiet, Always: log, Types: logTypes, Done: always, Slow: true},
		{Name: "membership", Small: membership.Assembly{Members: 2, Leaders: 2, Rounds: 2, Every: 2, Changes: []membership.Change{
			{Kind: membership.Weigh, Node: "n2", Votes: 3}, {Kind: membership.Leave, Node: "n1"}}},
			Large:  membership.Cluster{Founders: 3, Joiners: 2, Keys: 3, Options: membership.Options{Every: 2}},
			Faults: reordered, Classes: quiet, Always: []spec.Property{spec.LinearMembership()}, Types: membership.ClusterTypes(), Done: always, Slow: true},
	}
}

func agreements() []Exhibit {
	return []Exhibit{
		{Name: "an acceptance below the promise", System: "paxos",
			Why:  "The acceptor has promised a higher ballot, whose proposer takes it that nothing more will be accepted in this one.",
			File: acceptor, Func: "Acceptor.accept",
			Old: "if m.Ballot.Node != from || m.Ballot.Round == 0 && from != a.Owner || m.Ballot.yields(a.Promised) {",
			New: "if m.Ballot.Node != from || m.Ballot.Round == 0 && from != a.Owner {"},
		{Name: "a quorum that is one vote short", System: "paxos",
			Why:  "Two quorums need not have an acceptor in common, so one does not see what the other has decided.",
			File: tally, Func: "Tally.Verdict",
			Old: "case t.For >= t.Needed:",
			New: "case t.For+1 >= t.Needed:"},
		{Name: "what phase 1 has read is not looked at", System: "paxos, three acceptors",
			Why:  "The proposer has its own value accepted where another may be decided already.",
			File: proposer, Func: "Proposer.promised",
			Old: "highest, value = a.Ballot, a.Value",
			New: "highest = a.Ballot"},
		{Name: "a promise is given and is not on record", System: "paxos, a crash",
			Why:  "After a crash the acceptor accepts in a ballot below the one that it has promised.",
			File: acceptor, Func: "Acceptor.promise",
			Old: "a.put(out)"},
		{Name: "ballot 0 is used once more after a restart", System: "paxos, a crash",
			Why:  "The owner does not know what it has asked for in ballot 0, and asks for something else: one ballot has two values, as if it had two owners.",
			File: proposer, Func: "Proposer.Step",
			Old: "p.Owner = false"},
	}
}

func logs() []Exhibit {
	return []Exhibit{
		{Name: "a leader does not catch up first", System: "log",
			Why:  "An acceptor does not repeat what it knows to stand. A leader that lags takes those slots for free.",
			File: logLeader, Func: "Replica.promised",
			Old: "if m.Chosen > r.Chosen {",
			New: "if m.Chosen > r.Chosen+9 {"},
		{Name: "a gap is passed over", System: "log",
			Why:  "The leader counts the slots that are settled, and takes the one in the gap for settled, too.",
			File: logLeader, Func: "Replica.settled",
			Old: "if o.Settled && o.Slot == s+1 {",
			New: "if o.Settled {"},
		{Name: "entries are dropped and the snapshot is not on record", System: "log, a crash",
			Why:  "After a crash the replica has neither, and accepts something else in slots in which it has accepted.",
			File: replica, Func: "Replica.compact",
			Old: "out.Put(SnapshotKey, r.Base)"},
		{Name: "a configuration reigns at once", System: "log, other acceptors",
			Why:  "The old acceptors are still agreeing on the slots of the window. Who knows of the change asks the new ones about the same slots.",
			File: logAcceptor, Func: "Replica.append",
			Old: "r.Reigns = append(slices.Clone(r.Reigns), Reign{From: r.Chosen + r.window(), Configuration: *c})",
			New: "r.Reigns = append(slices.Clone(r.Reigns), Reign{From: r.Chosen + 1, Configuration: *c})"},
		{Name: "votes change and quorums do not", System: "log, other votes",
			Why:  "With three votes instead of one, one acceptor is a quorum, and so are the two others.",
			File: logLeader, Func: "Replica.judge",
			Old: "if c == nil || c.Number != last.Configuration.Number+1 || c.System.Validate() != nil {",
			New: "if c == nil || c.Number != last.Configuration.Number+1 {"},
	}
}

func changes() []Exhibit {
	return []Exhibit{
		{Name: "views are skipped in a state transfer", System: "membership",
			Why:  "A node that is given the state is told the view in it alone. Its owner never hears of those between.",
			File: memberNode, Func: "Node.installed",
			Old: "for _, v := range n.State.Views {",
			New: "for _, v := range []View{n.State.View} {"},
		{Name: "old acceptors are not fenced", System: "other acceptors",
			Why:  "A proposer that knows only the old acceptors has them decide when the new ones have taken over.",
			File: epoch, Func: "Epoch.Over",
			Old: "return number < e.Number",
			New: "return number+9 < e.Number"},
		{Name: "acceptors change and the state is not transferred", System: "other acceptors",
			Why:  "The new acceptors know nothing of what the old ones have decided.",
			File: epoch, Func: "Mover.begun",
			Old: "if !m.Found {",
			New: "if m.State == MoverFencing {"},
		{Name: "in the epoch of both one set is enough", System: "other acceptors",
			Why:  "What is settled is settled by the old acceptors, and has not reached the new ones.",
			File: epoch, Func: "EpochProposer.turn",
			Old: "p.Proposer.Also = quorum.Joint{*e.Next}"},
	}
}
