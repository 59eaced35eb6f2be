package commit

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"assent/protocol"
	"assent/protocol/protocoltest"
)

const threePhaseTablePath = "../../docs/three-phase-table.md"

// TestThreePhaseTable writes down what the machines of three-phase commit do with every event in every
// state, as TestTable does for those of two-phase commit.
func TestThreePhaseTable(t *testing.T) {
	var b strings.Builder
	b.WriteString("# What each state of three-phase commit does with each event\n\n" +
		"Generated from the machines of `protocol/commit` by `make docs`; a test keeps it true. The\n" +
		"coordinator is `c`; its participants are `a` and `b`, in the order in which they succeed it, and the\n" +
		"participant shown is `b`. A letter in parentheses is Skeen's. The cells read as in\n" +
		"[commit-table.md](commit-table.md).\n")
	for _, part := range []struct {
		title  string
		states []named[func() protocol.Machine]
		events []named[protocol.Event]
	}{
		{"Coordinator", threePhaseCoordinatorStates(nil), threePhaseCoordinatorEvents()},
		{"Coordinator, by quorums", threePhaseCoordinatorStates(twoOfTwo()), threePhaseCoordinatorEvents()},
		{"Participant", threePhaseStates(), threePhaseEvents(nil)},
		{"Participant, by quorums", quorumStates(), threePhaseEvents(twoOfTwo())},
	} {
		b.WriteString("\n## " + part.title + "\n\n")
		table(&b, part.states, part.events)
	}
	if *rewriteDocs {
		if err := os.WriteFile(threePhaseTablePath, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(threePhaseTablePath)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("docs/three-phase-table.md is not what the machines do; run `make docs`:\n%s", diff)
	}
}

func twoOfTwo() *Quorums { q := Majority(2); return &q }

var twoSites = []protocol.NodeID{"a", "b"}

func gets(from protocol.NodeID, m protocol.Message) protocol.Event {
	return protocol.Receive{From: from, Message: m}
}

func given(v protocol.Value) protocol.Event { return protocol.Input{Value: v} }

// made makes a machine and takes it through events.
func made(fresh func() protocol.Machine, events ...protocol.Event) func() protocol.Machine {
	return func() protocol.Machine {
		m := fresh()
		for _, ev := range events {
			m.Step(ev, &protocol.Effects{})
		}
		return m
	}
}

func preCommitted(q *Quorums) protocol.Event {
	return protocol.Recover{Records: protocol.Records{BranchKey: SiteRecord{ID: "t1", Coordinator: "c", State: SitePreCommitted, Peers: twoSites, Quorums: q}}}
}

func threePhaseCoordinatorStates(q *Quorums) []named[func() protocol.Machine] {
	fresh := func() protocol.Machine {
		c := NewThreePhaseCoordinator("t1", twoSites, Options{})
		c.Quorums = q
		return c
	}
	start, timeout := protocol.Start{}, protocol.Expire{Timer: VoteTimer}
	aYes, bYes := gets("a", Voted{ID: "t1", Vote: Yes}), gets("b", Voted{ID: "t1", Vote: Yes})
	aMoved, bMoved := gets("a", PreAcknowledge{ID: "t1"}), gets("b", PreAcknowledge{ID: "t1"})
	acknowledge := func(o Outcome) protocol.Event { return gets("a", Acknowledge{ID: "t1", Outcome: o}) }
	return []named[func() protocol.Machine]{
		{"idle (q)", made(fresh)},
		{"voting, a has voted yes (w)", made(fresh, start, aYes)},
		{"pre-committing, a has moved (p)", made(fresh, start, aYes, bYes, aMoved)},
		{"made anew after it began to pre-commit (p)", made(fresh, preCommitted(q))},
		{"committing, a has reported (c)", made(fresh, start, aYes, bYes, aMoved, bMoved, acknowledge(Committed))},
		{"aborting, a has reported (a)", made(fresh, start, aYes, timeout, acknowledge(RolledBack))},
	}
}

func threePhaseCoordinatorEvents() []named[protocol.Event] {
	return []named[protocol.Event]{
		{"Start", protocol.Start{}},
		{"Recover, no record", protocol.Recover{}},
		{"Recover, DecisionRecord(commit)", protocol.Recover{Records: protocol.Records{RegisterKey: DecisionRecord{Decision: Commit, Members: []Member{{Node: "a"}, {Node: "b"}}}}}},
		{"Voted(yes) from b", gets("b", Voted{ID: "t1", Vote: Yes})},
		{"Voted(no) from b", gets("b", Voted{ID: "t1", Vote: No})},
		{"Voted(yes) from a stranger", gets("z", Voted{ID: "t1", Vote: Yes})},
		{"PreAcknowledge from b", gets("b", PreAcknowledge{ID: "t1"})},
		{"Acknowledge(committed) from b", gets("b", Acknowledge{ID: "t1", Outcome: Committed})},
		{"Acknowledge(hazard) from b", gets("b", Acknowledge{ID: "t1", Outcome: Hazard})},
		{"Finish(commit) from b", gets("b", Finish{ID: "t1", Decision: Commit})},
		{"Finish(abort) from b", gets("b", Finish{ID: "t1", Decision: Abort})},
		{"Inquire from b", gets("b", Inquire{ID: "t1"})},
		{"StateRequest(round 2) from b", gets("b", StateRequest{ID: "t1", Round: 2})},
		{"Cancel", given(Cancel{})},
		{"timer vote", protocol.Expire{Timer: VoteTimer}},
		{"timer pre-commit", protocol.Expire{Timer: PreCommitTimer}},
		{"timer inquire", protocol.Expire{Timer: InquireTimer}},
		{"timer resend", protocol.Expire{Timer: ResendTimer}},
	}
}

func threePhaseStates() []named[func() protocol.Machine] {
	fresh := func() protocol.Machine { return NewThreePhaseParticipant("t1", "b", "c", Options{}) }
	asked, yes, timeout := gets("c", Prepare{ID: "t1", Peers: twoSites}), given(BranchPrepared{Vote: Yes}), protocol.Expire{Timer: WaitTimer}
	report := gets("a", StateReport{ID: "t1", Round: 2, State: SitePrepared})
	moved := gets("c", PreCommit{ID: "t1"})
	prepared := protocol.Recover{Records: protocol.Records{BranchKey: SiteRecord{ID: "t1", Coordinator: "c", State: SitePrepared, Peers: twoSites}}}
	alone := func() protocol.Machine { return NewThreePhaseParticipant("t1", "b", "c", Options{Unilateral: true}) }
	return append(siteStates(fresh, asked), []named[func() protocol.Machine]{
		{"prepared, probing (w)", made(fresh, asked, yes, timeout)},
		{"prepared, collecting, a is prepared (w)", made(fresh, asked, yes, timeout, timeout, report)},
		{"pre-committed (p)", made(fresh, asked, yes, moved)},
		{"pre-committed, collecting, a is prepared (p)", made(fresh, asked, yes, moved, timeout, timeout, report)},
		{"pre-committed, moving a (p)", made(fresh, asked, yes, moved, timeout, timeout, report, timeout)},
		{"prepared, made anew (w)", made(fresh, prepared)},
		{"pre-committed, made anew (p)", made(fresh, preCommitted(nil))},
		{"prepared, unilateral (w)", made(alone, asked, yes)},
		{"pre-committed, unilateral (p)", made(alone, asked, yes, moved)},
	}...)
}

// siteStates are those that both participants share.
func siteStates(fresh func() protocol.Machine, asked protocol.Event) []named[func() protocol.Machine] {
	yes, no := given(BranchPrepared{Vote: Yes}), given(BranchPrepared{Vote: No})
	commit := gets("a", Finish{ID: "t1", Decision: Commit})
	return []named[func() protocol.Machine]{
		{"working (q)", made(fresh)},
		{"preparing (q)", made(fresh, asked)},
		{"prepared (w)", made(fresh, asked, yes)},
		{"committing (c)", made(fresh, asked, yes, commit)},
		{"rolling back (a)", made(fresh, asked, no)},
		{"finished, committed (c)", made(fresh, asked, yes, commit, given(BranchFinished{Outcome: Committed}))},
		{"finished, rolled back (a)", made(fresh, asked, no, given(BranchFinished{Outcome: RolledBack}))},
	}
}

func quorumStates() []named[func() protocol.Machine] {
	fresh := func() protocol.Machine { return NewQuorumParticipant("t1", "b", "c", Options{}) }
	asked, yes, timeout := gets("c", Prepare{ID: "t1", Peers: twoSites, Quorums: twoOfTwo()}), given(BranchPrepared{Vote: Yes}), protocol.Expire{Timer: WaitTimer}
	report := gets("a", StateReport{ID: "t1", Round: 2, State: SitePrepared})
	return append(siteStates(fresh, asked), []named[func() protocol.Machine]{
		{"prepared, promised round 3 to a (w)", made(fresh, asked, yes, gets("a", StateRequest{ID: "t1", Round: 3}))},
		{"prepared, collecting in round 2 (w)", made(fresh, asked, yes, timeout)},
		{"pre-committed in round 0 (pc)", made(fresh, asked, yes, gets("c", PreCommit{ID: "t1"}))},
		{"pre-aborted in round 1 (pa)", made(fresh, asked, yes, gets("a", PreAbort{ID: "t1", Round: 1}))},
		{"pre-aborted, moving a in round 2 (pa)", made(fresh, asked, yes, timeout, report)},
		{"pre-committed, made anew (pc)", made(fresh, preCommitted(twoOfTwo()))},
	}...)
}

func threePhaseEvents(q *Quorums) []named[protocol.Event] {
	return []named[protocol.Event]{
		{"Start", protocol.Start{}},
		{"Recover, no record", protocol.Recover{}},
		{"Recover, SiteRecord(pre-committed)", preCommitted(q)},
		{"Recover, DecisionRecord(commit)", protocol.Recover{Records: protocol.Records{RegisterKey: DecisionRecord{Decision: Commit}}}},
		{"Recover, FinishedRecord", protocol.Recover{Records: protocol.Records{BranchKey: FinishedRecord{ID: "t1", Decision: Commit, Outcome: Committed}}}},
		{"Prepare", gets("c", Prepare{ID: "t1", Peers: twoSites, Quorums: q})},
		{"PreCommit(round 0) from c", gets("c", PreCommit{ID: "t1"})},
		{"PreCommit(round 1) from a", gets("a", PreCommit{ID: "t1", Round: 1})},
		{"PreAbort(round 1) from a", gets("a", PreAbort{ID: "t1", Round: 1})},
		{"PreAcknowledge(round 2) from a", gets("a", PreAcknowledge{ID: "t1", Round: 2})},
		{"Finish(commit) from c", gets("c", Finish{ID: "t1", Decision: Commit})},
		{"Finish(abort) from a", gets("a", Finish{ID: "t1", Decision: Abort})},
		{"Inquire from a", gets("a", Inquire{ID: "t1"})},
		{"StateRequest(round 1) from a", gets("a", StateRequest{ID: "t1", Round: 1})},
		{"StateRequest(round 3) from a", gets("a", StateRequest{ID: "t1", Round: 3})},
		{"StateReport(prepared) from a", gets("a", StateReport{ID: "t1", State: SitePrepared})},
		{"StateReport(pre-committed, recovered) from a", gets("a", StateReport{ID: "t1", State: SitePreCommitted, Recovered: true})},
		{"StateReport(pre-committed, round 2) from a", gets("a", StateReport{ID: "t1", State: SitePreCommitted, Round: 2})},
		{"BranchPrepared(yes)", given(BranchPrepared{Vote: Yes})},
		{"BranchPrepared(no)", given(BranchPrepared{Vote: No})},
		{"BranchPrepared(read-only)", given(BranchPrepared{Vote: ReadOnly})},
		{"BranchFinished(committed)", given(BranchFinished{Outcome: Committed})},
		{"BranchFinished(rolled back)", given(BranchFinished{Outcome: RolledBack})},
		{"BranchFinished(hazard)", given(BranchFinished{Outcome: Hazard})},
		{"BranchFailed", given(BranchFailed{})},
		{"Abandon", given(Abandon{})},
		{"Forget", given(Forget{})},
		{"timer wait", protocol.Expire{Timer: WaitTimer}},
		{"timer branch", protocol.Expire{Timer: BranchTimer}},
	}
}

// TestThreePhaseMachinesAreData holds the machines to the kernel's terms, with every message in every
// state, sensible or not.
func TestThreePhaseMachinesAreData(t *testing.T) {
	var events []protocol.Event
	for _, ev := range append(append(threePhaseCoordinatorEvents(), threePhaseEvents(nil)...), threePhaseEvents(twoOfTwo())...) {
		events = append(events, ev.of)
		if r, ok := ev.of.(protocol.Receive); ok {
			events = append(events, gets("a", r.Message), gets("b", r.Message), gets("stranger", r.Message))
		}
	}
	for _, id := range []TransactionID{"t1", "t2"} {
		for _, m := range []protocol.Message{Prepare{ID: id}, Prepare{ID: id, Peers: []protocol.NodeID{"x"}, Quorums: &Quorums{Votes: []int{-1}}},
			PreCommit{ID: id, Round: 9}, PreAbort{ID: id}, StateRequest{ID: id, Round: -1}, StateReport{ID: id, State: 99},
			PreAcknowledge{ID: id, Round: 1}, Finish{ID: id}, Acknowledge{ID: id}, Voted{ID: id, Vote: ReadOnly}} {
			events = append(events, gets("c", m), gets("a", m))
		}
	}
	quorum := func() protocol.Machine {
		c := NewThreePhaseCoordinator("t1", twoSites, Options{VoteRetries: 1})
		c.Quorums = twoOfTwo()
		return c
	}
	protocoltest.Run(t, protocoltest.Subject{New: []func() protocol.Machine{
		func() protocol.Machine { return NewThreePhaseCoordinator("t1", twoSites, Options{}) },
		func() protocol.Machine { return NewThreePhaseCoordinator("t1", nil, Options{Unilateral: true}) },
		quorum,
		func() protocol.Machine { return NewThreePhaseParticipant("t1", "b", "c", Options{}) },
		func() protocol.Machine { return NewThreePhaseParticipant("t1", "a", "c", Options{Unilateral: true}) },
		func() protocol.Machine { return NewQuorumParticipant("t1", "b", "c", Options{}) },
		func() protocol.Machine { return NewQuorumParticipant("t1", "stranger", "c", Options{Rounds: 2}) },
		func() protocol.Machine {
			return &ThreePhaseNode{Participant: *NewThreePhaseParticipant("t1", "a", "c", Options{}), Branch: Branch{Vote: ReadOnly}}
		},
		func() protocol.Machine {
			return &QuorumNode{Participant: *NewQuorumParticipant("t1", "a", "c", Options{}), Branch: Branch{Vote: Yes}}
		},
	}, Events: events, Codec: codec(t), Steps: 40})
}
