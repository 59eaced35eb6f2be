package commit

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"assent/protocol"
)

var rewriteDocs = flag.Bool("rewrite-docs", false, "write docs/commit-table.md anew")

const tablePath = "../../docs/commit-table.md"

// named is an event, or a state, with its name in the table.
type named[T any] struct {
	name string
	of   T
}

// TestTable writes down what every state does with every event, from the machines themselves,
// and compares it with docs/commit-table.md.
func TestTable(t *testing.T) {
	var b strings.Builder
	b.WriteString("# What each state does with each event\n\n" +
		"Generated from the machines of `protocol/commit` by `make docs`; a test keeps it true.\n" +
		"The coordinator is `c`, its participants are `a` (which has voted, where votes are in) and `b`.\n" +
		"Each cell has the next state, where it changes, and the effects in their order: what is\n" +
		"**forced**, timers (`+` armed, `−` disarmed), messages (`→`) and what is emitted (`↑`).\n" +
		"An empty cell means that the event has no effect. Messages of other transactions never have one.\n")
	b.WriteString("\n## Coordinator\n\n")
	table(&b, coordinatorStates(), coordinatorEvents())
	b.WriteString("\n## Participant\n\n")
	table(&b, participantStates(), participantEvents())
	if *rewriteDocs {
		if err := os.WriteFile(tablePath, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(tablePath)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("docs/commit-table.md is not what the machines do; run `make docs`:\n%s", diff)
	}
}

func table(b *strings.Builder, states []named[func() protocol.Machine], events []named[protocol.Event]) {
	for _, s := range states {
		fmt.Fprintf(b, "### %s\n\n| event | what follows |\n|---|---|\n", s.name)
		ignored := 0
		for _, ev := range events {
			m := s.of()
			var out protocol.Effects
			before := state(m)
			m.Step(ev.of, &out)
			cell := effects(&out)
			if after := state(m); after != before {
				cell = strings.TrimSpace("*" + after + "* " + cell)
			}
			if cell == "" {
				ignored++
			}
			fmt.Fprintf(b, "| %s | %s |\n", ev.name, cell)
		}
		fmt.Fprintf(b, "\n%d of %d events have no effect.\n\n", ignored, len(events))
	}
}

func effects(e *protocol.Effects) string {
	var parts []string
	for _, w := range e.Writes {
		if w.Record == nil {
			parts = append(parts, "**forget**")
			continue
		}
		parts = append(parts, "**"+describe(w.Record)+"**")
	}
	for _, t := range e.Timers {
		sign := "+"
		if t.After <= 0 {
			sign = "−"
		}
		parts = append(parts, sign+t.Name)
	}
	for _, s := range e.Sends {
		parts = append(parts, fmt.Sprintf("%s → %s", describe(s.Message), s.To))
	}
	for _, v := range e.Emits {
		parts = append(parts, "↑ "+describe(v))
	}
	return strings.Join(parts, "; ")
}

func coordinatorStates() []named[func() protocol.Machine] {
	after := func(nodes []protocol.NodeID, o Options, events ...protocol.Event) func() protocol.Machine {
		return func() protocol.Machine {
			m := NewCoordinator("t1", nodes, o)
			for _, ev := range events {
				m.Step(ev, &protocol.Effects{})
			}
			return m
		}
	}
	ab, one := []protocol.NodeID{"a", "b"}, []protocol.NodeID{"a"}
	aYes := protocol.Receive{From: "a", Message: Voted{ID: "t1", Vote: Yes}}
	bYes := protocol.Receive{From: "b", Message: Voted{ID: "t1", Vote: Yes}}
	stands := func(d Decision) protocol.Event { return protocol.Input{Value: Decided{Decision: d}} }
	ack := func(n protocol.NodeID, o Outcome) protocol.Event {
		return protocol.Receive{From: n, Message: Acknowledge{ID: "t1", Outcome: o}}
	}
	start, cancel := protocol.Start{}, protocol.Input{Value: Cancel{}}
	return []named[func() protocol.Machine]{
		{"idle", after(ab, Options{})},
		{"voting, a has voted yes", after(ab, Options{}, start, aYes)},
		{"voting, a has voted yes, asks again before it gives up", after(ab, Options{VoteRetries: 1}, start, aYes)},
		{"one-phase", after(one, Options{}, start)},
		{"proposing commit", after(ab, Options{}, start, aYes, bYes)},
		{"proposing abort", after(nil, Options{}, protocol.Recover{}, aYes)},
		{"committing, a has reported", after(ab, Options{}, start, aYes, bYes, stands(Commit), ack("a", Committed))},
		{"aborting, a has reported", after(ab, Options{}, start, aYes, cancel, ack("a", RolledBack))},
		{"committed", after(ab, Options{}, start, aYes, bYes, stands(Commit), ack("a", Committed), ack("b", Committed))},
		{"aborted", after(ab, Options{}, start, aYes, cancel, ack("a", RolledBack), ack("b", RolledBack))},
		{"unsure", after(one, Options{}, start, ack("a", Hazard))},
		{"recovered", after(nil, Options{}, protocol.Recover{})},
	}
}

func coordinatorEvents() []named[protocol.Event] {
	receive := func(m protocol.Message) protocol.Event { return protocol.Receive{From: "b", Message: m} }
	input := func(v protocol.Value) protocol.Event { return protocol.Input{Value: v} }
	return []named[protocol.Event]{
		{"Start", protocol.Start{}},
		{"Recover", protocol.Recover{}},
		{"Voted(yes) from b", receive(Voted{ID: "t1", Vote: Yes})},
		{"Voted(no) from b", receive(Voted{ID: "t1", Vote: No})},
		{"Voted(read-only) from b", receive(Voted{ID: "t1", Vote: ReadOnly})},
		{"Voted(yes) from a, again", protocol.Receive{From: "a", Message: Voted{ID: "t1", Vote: Yes}}},
		{"Voted(yes) from a stranger", protocol.Receive{From: "z", Message: Voted{ID: "t1", Vote: Yes}}},
		{"Acknowledge(committed) from b", receive(Acknowledge{ID: "t1", Outcome: Committed})},
		{"Acknowledge(rolled back) from b", receive(Acknowledge{ID: "t1", Outcome: RolledBack})},
		{"Acknowledge(hazard) from b", receive(Acknowledge{ID: "t1", Outcome: Hazard})},
		{"Acknowledge(committed) from a, the only one", protocol.Receive{From: "a", Message: Acknowledge{ID: "t1", Outcome: Committed}}},
		{"Decided(commit)", input(Decided{Decision: Commit})},
		{"Decided(abort)", input(Decided{Decision: Abort})},
		{"ProposeFailed", input(ProposeFailed{})},
		{"Cancel", input(Cancel{})},
		{"timer vote", protocol.Expire{Timer: VoteTimer}},
		{"timer propose", protocol.Expire{Timer: ProposeTimer}},
		{"timer resend", protocol.Expire{Timer: ResendTimer}},
	}
}

func participantStates() []named[func() protocol.Machine] {
	after := func(events ...protocol.Event) func() protocol.Machine {
		return func() protocol.Machine {
			m := NewParticipant("t1", "c", Options{})
			for _, ev := range events {
				m.Step(ev, &protocol.Effects{})
			}
			return m
		}
	}
	prepare := protocol.Receive{From: "c", Message: Prepare{ID: "t1"}}
	onePhase := protocol.Receive{From: "c", Message: OnePhase{ID: "t1"}}
	yes := protocol.Input{Value: BranchPrepared{Vote: Yes}}
	told := func(d Decision) protocol.Event {
		return protocol.Receive{From: "c", Message: Finish{ID: "t1", Decision: d}}
	}
	done := func(o Outcome) protocol.Event { return protocol.Input{Value: BranchFinished{Outcome: o}} }
	return []named[func() protocol.Machine]{
		{"working", after()},
		{"working, made anew without a record", after(protocol.Recover{})},
		{"preparing", after(prepare)},
		{"prepared: in doubt", after(prepare, yes)},
		{"one-phase", after(onePhase)},
		{"committing", after(prepare, yes, told(Commit))},
		{"rolling back", after(prepare, yes, told(Abort))},
		{"finished, committed", after(prepare, yes, told(Commit), done(Committed))},
		{"finished, rolled back", after(prepare, yes, told(Abort), done(RolledBack))},
		{"left: voted read-only", after(prepare, protocol.Input{Value: BranchPrepared{Vote: ReadOnly}})},
	}
}

func participantEvents() []named[protocol.Event] {
	receive := func(m protocol.Message) protocol.Event { return protocol.Receive{From: "c", Message: m} }
	input := func(v protocol.Value) protocol.Event { return protocol.Input{Value: v} }
	recovered := func(r protocol.Record) protocol.Event {
		return protocol.Recover{Records: protocol.Records{BranchKey: r}}
	}
	return []named[protocol.Event]{
		{"Start", protocol.Start{}},
		{"Recover, no record", protocol.Recover{}},
		{"Recover, PreparedRecord", recovered(PreparedRecord{ID: "t1", Coordinator: "c"})},
		{"Recover, Tombstone", recovered(Tombstone{ID: "t1"})},
		{"Recover, FinishedRecord", recovered(FinishedRecord{ID: "t1", Decision: Commit, Outcome: Committed})},
		{"Prepare", receive(Prepare{ID: "t1"})},
		{"OnePhase", receive(OnePhase{ID: "t1"})},
		{"Finish(commit)", receive(Finish{ID: "t1", Decision: Commit})},
		{"Finish(abort)", receive(Finish{ID: "t1", Decision: Abort})},
		{"Inquire from peer b", protocol.Receive{From: "b", Message: Inquire{ID: "t1"}}},
		{"BranchPrepared(yes)", input(BranchPrepared{Vote: Yes})},
		{"BranchPrepared(no)", input(BranchPrepared{Vote: No})},
		{"BranchPrepared(read-only)", input(BranchPrepared{Vote: ReadOnly})},
		{"BranchFinished(committed)", input(BranchFinished{Outcome: Committed})},
		{"BranchFinished(rolled back)", input(BranchFinished{Outcome: RolledBack})},
		{"BranchFinished(hazard)", input(BranchFinished{Outcome: Hazard})},
		{"BranchFailed", input(BranchFailed{})},
		{"Abandon", input(Abandon{})},
		{"Forget", input(Forget{})},
		{"timer inquire", protocol.Expire{Timer: InquireTimer}},
		{"timer branch", protocol.Expire{Timer: BranchTimer}},
	}
}
