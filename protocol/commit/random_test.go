package commit

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"assent/protocol"
	"assent/protocol/protocoltest"
)

// TestRandomSchedules runs the machines through loss, repetition, reordering, and crashes at every
// place, and then lets the world heal: AC1 to AC3 hold throughout, and in the end nobody is in
// doubt (AC5 after repair), the register agrees with the branches, and AC4 held if all was quiet.
//
// `make soak` runs it with -rapid.checks in the hundreds of thousands.
func TestRandomSchedules(t *testing.T) {
	for range 20 {
		rapid.Check(t, randomSchedule)
	}
}

func randomSchedule(t *rapid.T) {
	names := []protocol.NodeID{"p1", "p2", "p3"}[:rapid.IntRange(1, 3).Draw(t, "participants")]
	w := newWorld(names, Options{
		VoteRetries: rapid.IntRange(0, 2).Draw(t, "retries"),
		Cooperative: rapid.Bool().Draw(t, "cooperative"),
		NoOnePhase:  rapid.Bool().Draw(t, "no one-phase"),
	})
	var lines []string
	w.log = func(f string, a ...any) { lines = append(lines, fmt.Sprintf(f, a...)) }
	for _, n := range names {
		w.branches[n].vote = rapid.SampledFrom([]Vote{Yes, Yes, Yes, No, ReadOnly}).Draw(t, "vote")
		w.branches[n].intended = rapid.Bool().Draw(t, "intended")
	}
	defer func() {
		if t.Failed() {
			t.Log(strings.Join(lines, "\n"))
		}
	}()
	w.step(coordinator, protocol.Start{}, whole)
	for range rapid.IntRange(0, 60).Draw(t, "steps") {
		misfortune(t, w)
		w.check(t)
	}
	heal(t, w)
}

// misfortune lets one thing happen, good or bad.
func misfortune(t *rapid.T, w *world) {
	cut := whole
	if rapid.IntRange(0, 7).Draw(t, "crash during?") == 0 {
		cut = rapid.IntRange(0, 4).Draw(t, "cut")
	}
	pick := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "which") }
	switch kind := rapid.IntRange(0, 11).Draw(t, "kind"); {
	case kind <= 3 && len(w.inFlight) > 0:
		w.deliver(pick(len(w.inFlight)), cut)
	case kind <= 6 && len(w.pending) > 0:
		w.answer(pick(len(w.pending)), cut)
	case kind == 7 && len(w.inFlight) > 0: // lost
		i := pick(len(w.inFlight))
		w.inFlight = append(w.inFlight[:i:i], w.inFlight[i+1:]...)
	case kind == 8 && len(w.inFlight) > 0 && len(w.inFlight) < 50: // repeated
		w.inFlight = append(w.inFlight, w.inFlight[pick(len(w.inFlight))])
	case kind == 9:
		if armed := w.armed(); len(armed) > 0 {
			a := armed[pick(len(armed))]
			w.expire(protocol.NodeID(a[0]), a[1], cut)
		}
	case kind == 10:
		all := append([]protocol.NodeID{coordinator}, w.names...)
		node := all[pick(len(all))]
		if w.machines[node] == nil {
			w.restart(node)
		} else {
			w.crash(node)
		}
	case kind == 11:
		switch pick(4) {
		case 0:
			w.step(coordinator, protocol.Input{Value: Cancel{}}, cut)
		case 1:
			w.refusing = !w.refusing
		default:
			b := w.branches[w.names[pick(len(w.names))]]
			b.deaf = !b.deaf
		}
	}
}

func heal(t *rapid.T, w *world) {
	w.refusing = false
	for _, b := range w.branches {
		b.deaf = false
	}
	for _, n := range append([]protocol.NodeID{coordinator}, w.names...) {
		if w.machines[n] == nil {
			w.restart(n)
		}
	}
	for range 200 {
		w.run()
		w.check(t)
		armed := w.armed()
		if len(armed) == 0 {
			break
		}
		for _, a := range armed {
			w.expire(protocol.NodeID(a[0]), a[1], whole)
		}
	}
	if left := w.armed(); len(left) > 0 {
		t.Fatalf("after healing, timers go on for ever: %v", left)
	}
	for _, n := range w.names {
		if s := w.branches[n].state; s == "prepared" {
			t.Fatalf("%s is in doubt for ever", n)
		} else if s == "committed" && w.register != Commit && len(w.names) > 1 {
			t.Fatalf("%s is committed and the register says %v", n, w.register)
		} else if s == "rolled back" && w.register == Commit {
			t.Fatalf("%s is rolled back and the register says commit", n)
		}
	}
}

// TestQuietRunCommits is AC4: all vote yes, nothing fails, so the transaction commits, with one
// proposal, and everybody reports.
func TestQuietRunCommits(t *testing.T) {
	for n := range 5 {
		names := []protocol.NodeID{"p1", "p2", "p3", "p4"}[:n]
		w := newWorld(names, Options{NoOnePhase: true})
		sends := 0
		w.log = func(f string, _ ...any) {
			if strings.HasPrefix(f, "  send") {
				sends++
			}
		}
		w.step(coordinator, protocol.Start{}, whole)
		w.run()
		w.check(t)
		if len(w.concluded) != 1 || w.concluded[0].Decision != Commit || w.completed != 1 {
			t.Fatalf("%d participants: concluded %v, completed %d times", n, w.concluded, w.completed)
		}
		for name, b := range w.branches {
			if b.state != "committed" {
				t.Errorf("%d participants: %s is %s", n, name, b.state)
			}
		}
		if sends != 4*n { // prepare, vote, decision, acknowledgement
			t.Errorf("%d participants: %d messages, want %d", n, sends, 4*n)
		}
	}
}

// TestMachinesAreData holds the machines to the kernel's terms, with every message in every
// state, sensible or not.
func TestMachinesAreData(t *testing.T) {
	const id, other = TransactionID("t1"), TransactionID("t2")
	var events []protocol.Event
	for _, from := range []protocol.NodeID{"c", "p1", "p2", "stranger"} {
		for _, tx := range []TransactionID{id, other} {
			for _, m := range []protocol.Message{
				Prepare{ID: tx, Peers: []protocol.NodeID{"p1", "p2"}}, OnePhase{ID: tx},
				Voted{ID: tx, Vote: Yes, Evidence: []byte{1}}, Voted{ID: tx, Vote: No, Reason: "full"},
				Voted{ID: tx, Vote: ReadOnly}, Finish{ID: tx, Decision: Commit}, Finish{ID: tx, Decision: Abort},
				Acknowledge{ID: tx, Outcome: Committed}, Acknowledge{ID: tx, Outcome: RolledBack},
				Acknowledge{ID: tx, Outcome: Hazard}, Inquire{ID: tx},
			} {
				events = append(events, protocol.Receive{From: from, Message: m})
			}
		}
	}
	for _, v := range []protocol.Value{
		Decided{Decision: Commit, Members: []Member{{Node: "p3", Evidence: []byte{3}}}}, Decided{Decision: Abort},
		ProposeFailed{}, Cancel{}, BranchPrepared{Vote: Yes, Evidence: []byte{2}}, BranchPrepared{Vote: No},
		BranchPrepared{Vote: ReadOnly}, BranchFinished{Outcome: Committed}, BranchFinished{Outcome: RolledBack},
		BranchFinished{Outcome: Hazard}, BranchFailed{}, Abandon{Reason: "lost"}, Forget{},
	} {
		events = append(events, protocol.Input{Value: v})
	}
	for _, timer := range []string{VoteTimer, ProposeTimer, ResendTimer, InquireTimer, BranchTimer, "other"} {
		events = append(events, protocol.Expire{Timer: timer})
	}
	events = append(events, protocol.Start{}, protocol.Recover{},
		protocol.Recover{Records: protocol.Records{BranchKey: PreparedRecord{ID: id, Coordinator: "c"}}},
		protocol.Recover{Records: protocol.Records{BranchKey: Tombstone{ID: id}}},
		protocol.Recover{Records: protocol.Records{BranchKey: FinishedRecord{ID: id, Decision: Commit, Outcome: Committed}}})
	both := []protocol.NodeID{"p1", "p2"}
	protocoltest.Run(t, protocoltest.Subject{
		New: []func() protocol.Machine{
			func() protocol.Machine { return NewCoordinator(id, both, Options{}) },
			func() protocol.Machine { return NewCoordinator(id, both[:1], Options{VoteRetries: 2}) },
			func() protocol.Machine { return NewCoordinator(id, nil, Options{}) },
			func() protocol.Machine { return NewParticipant(id, "c", Options{Cooperative: true}) },
		},
		Events: events, Codec: codec(t),
	})
}
