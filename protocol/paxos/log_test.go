package paxos_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"assent/protocol"
	"assent/protocol/paxos"
	"assent/protocol/protocoltest"
	"assent/protocol/quorum"

	"github.com/google/go-cmp/cmp"
)

type (
	replica = paxos.Replica[value, paxos.History]
	entry   = paxos.Entry[value]
	record  = paxos.SlotRecord[value]
)

func majority(number uint64, nodes ...protocol.NodeID) paxos.Configuration {
	return paxos.Configuration{Number: number, System: quorum.Majority(nodes...)}
}

// newReplica returns a replica of a log that a, b and c agree on.
func newReplica(self protocol.NodeID, window paxos.Slot) *replica {
	return &replica{Self: self, Window: window, Reigns: []paxos.Reign{{From: 1, Configuration: majority(1, "a", "b", "c")}}}
}

func command(v value) entry { return entry{Kind: paxos.Command, Value: v} }

func submit(e entry) protocol.Event {
	return protocol.Input{Value: paxos.Submit[value]{Entry: e}}
}

// messages writes what is sent as "to type".
func messages(e protocol.Effects) (all []string) {
	for _, s := range e.Sends {
		switch m := s.Message.(type) {
		case paxos.LogPhase1a[value]:
			all = append(all, fmt.Sprintf("%s 1a %v", s.To, m.Ballot))
		case paxos.LogPhase1b[value]:
			all = append(all, fmt.Sprintf("%s 1b %v %d+%d", s.To, m.Ballot, m.Chosen, len(m.Accepted)))
		case paxos.LogPhase2a[value]:
			all = append(all, fmt.Sprintf("%s 2a %d %d%s", s.To, m.Slot, m.Entry.Kind, m.Entry.Value))
		case paxos.LogPhase2b[value]:
			all = append(all, fmt.Sprintf("%s 2b %d", s.To, m.Slot))
		case paxos.Heartbeat[value]:
			all = append(all, fmt.Sprintf("%s beat %d", s.To, m.Chosen))
		case paxos.Fetch[value]:
			all = append(all, fmt.Sprintf("%s fetch %d", s.To, m.From))
		default:
			all = append(all, fmt.Sprintf("%s %T", s.To, m))
		}
	}
	return all
}

// appended writes what is emitted as "slot value".
func appended(e protocol.Effects) (all []string) {
	for _, v := range e.Emits {
		switch v := v.(type) {
		case paxos.Appended[value]:
			all = append(all, fmt.Sprintf("%d %d%s", v.Slot, v.Entry.Kind, v.Entry.Value))
		case paxos.Restored[paxos.History]:
			all = append(all, fmt.Sprintf("restored %d", v.Slot))
		}
	}
	return all
}

func want(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s:\n%s", what, d)
	}
}

// leading returns a as a leader of the log, elected by b with what b has accepted.
func leading(t *testing.T, window paxos.Slot, accepted ...record) (*replica, protocol.Effects) {
	t.Helper()
	r := newReplica("a", window)
	step(r, protocol.Start{})
	out := step(r, protocol.Input{Value: paxos.Lead[value]{}})
	want(t, "phase 1", messages(out), "b 1a 1.a", "c 1a 1.a")
	out = step(r, from("b", paxos.LogPhase1b[value]{Ballot: b(1, "a"), Accepted: accepted}))
	if r.State != paxos.Leading {
		t.Fatalf("%+v", r)
	}
	return r, out
}

// acceptedBy gives the leader the acceptances of one node.
func acceptedBy(r *replica, node protocol.NodeID, slots ...paxos.Slot) (all []string) {
	for _, s := range slots {
		all = append(all, appended(step(r, from(node, paxos.LogPhase2b[value]{Ballot: r.Ballot, Slot: s})))...)
	}
	return all
}

// "the leader can execute phase 1 for infinitely many instances at once" and from then on phase 2 alone
// (Lamport 2001, 3). Up to Window slots are open, and what stands is told in order.
func TestLeaderNeedsPhaseTwoAlone(t *testing.T) {
	r, _ := leading(t, 2)
	want(t, "the first", messages(step(r, submit(command("x")))), "b 2a 1 1x", "c 2a 1 1x")
	want(t, "the second, at once", messages(step(r, submit(command("y")))), "b 2a 2 1y", "c 2a 2 1y")
	want(t, "the third waits", messages(step(r, submit(command("z")))))
	want(t, "the second is accepted first", acceptedBy(r, "b", 2))
	out := step(r, from("b", paxos.LogPhase2b[value]{Ballot: r.Ballot, Slot: 1}))
	want(t, "both stand", appended(out), "1 1x", "2 1y")
	want(t, "the window moves", messages(out), "b 2a 3 1z", "c 2a 3 1z")
	want(t, "nobody else's ballot counts", appended(step(r, from("b", paxos.LogPhase2b[value]{Ballot: b(9, "b"), Slot: 3}))))
	want(t, "twice is once", append(acceptedBy(r, "c", 3), acceptedBy(r, "b", 3)...), "3 1z")
}

// A new leader proposes again what may have been chosen, the highest ballot's, and fills gaps with no-ops
// (Lamport 2001, 3).
func TestNewLeaderFillsGaps(t *testing.T) {
	r := newReplica("a", 8)
	step(r, protocol.Start{})
	step(r, from("b", paxos.LogPhase2a[value]{Ballot: b(1, "b"), Slot: 1, Entry: command("x")}))
	step(r, from("c", paxos.LogPhase2a[value]{Ballot: b(2, "c"), Slot: 4, Entry: command("y")}))
	step(r, protocol.Input{Value: paxos.Lead[value]{}})
	out := step(r, from("c", paxos.LogPhase1b[value]{Ballot: b(3, "a"), Accepted: []record{
		{Slot: 1, Ballot: b(2, "c"), Entry: command("z")}, {Slot: 4, Ballot: b(1, "b"), Entry: command("w")}}}))
	want(t, "phase 2", messages(out), "b 2a 1 1z", "c 2a 1 1z", "b 2a 2 0", "c 2a 2 0", "b 2a 3 0", "c 2a 3 0", "b 2a 4 1y", "c 2a 4 1y")
}

// A leader that knows less than those who elect it finds out what stands, before it tries anything.
func TestLeaderCatchesUpFirst(t *testing.T) {
	r := newReplica("a", 8)
	step(r, protocol.Start{})
	step(r, protocol.Input{Value: paxos.Lead[value]{}})
	out := step(r, from("b", paxos.LogPhase1b[value]{Ballot: b(1, "a"), Chosen: 2}))
	want(t, "it asks", messages(out), "b fetch 1")
	out = step(r, from("b", paxos.Fetched[value]{Chosen: 2, Entries: []record{{Slot: 1, Entry: command("x")}, {Slot: 2, Entry: command("y")}}}))
	want(t, "it learns", appended(out), "1 1x", "2 1y")
	want(t, "and asks again for promises", messages(out), "b 1a 1.a", "c 1a 1.a")
	step(r, from("b", paxos.LogPhase1b[value]{Ballot: b(1, "a"), Chosen: 2}))
	want(t, "then it leads", messages(step(r, submit(command("z")))), "b 2a 3 1z", "c 2a 3 1z")
}

// A replica that nobody promises anything, though they answer, may have missed that there are other
// members, of whom one leads; it hears of them by asking what stands.
func TestWhoTriesToLeadAsks(t *testing.T) {
	r := newReplica("a", 4)
	step(r, protocol.Start{})
	step(r, protocol.Input{Value: paxos.Lead[value]{}})
	for _, peer := range []string{"b", "c"} {
		out := step(r, protocol.Expire{Timer: paxos.LogTimer})
		if sent := messages(out); r.State != paxos.Preparing || !slices.Contains(sent, peer+" fetch 1") {
			t.Errorf("%v sends %q", r.State, sent)
		}
	}
}

// That a slot is chosen says what stands in it only to those who have accepted it in the leader's ballot.
func TestFollowerGoesByTheLeadersBallot(t *testing.T) {
	r := newReplica("b", 8)
	step(r, protocol.Start{})
	step(r, from("c", paxos.LogPhase2a[value]{Ballot: b(1, "c"), Slot: 1, Entry: command("old")}))
	out := step(r, from("a", paxos.LogPhase2a[value]{Ballot: b(2, "a"), Slot: 2, Entry: command("y"), Chosen: 1}))
	want(t, "it has another's", appended(out))
	out = step(r, from("a", paxos.Heartbeat[value]{Ballot: b(2, "a"), Chosen: 2}))
	want(t, "it asks", messages(out), "a fetch 1")
	out = step(r, from("a", paxos.Fetched[value]{Chosen: 3, Entries: []record{{Slot: 1, Ballot: b(2, "a"), Entry: command("x")}}}))
	want(t, "it learns", appended(out), "1 1x")
	want(t, "and asks for more", messages(out), "a fetch 2")
	want(t, "a copy", append(messages(step(r, from("a", paxos.Fetched[value]{Chosen: 3, Entries: []record{{Slot: 1, Entry: command("x")}}}))), appended(out)...), "1 1x")
	want(t, "the leader's own", appended(step(r, from("a", paxos.Heartbeat[value]{Ballot: b(2, "a"), Chosen: 2}))), "2 1y")
}

// Promises and acceptances are stable before they are told; what stands is told anew after a restart.
func TestReplicaRemembers(t *testing.T) {
	r, records := newReplica("b", 8), protocol.Records{}
	keep := func(out protocol.Effects) protocol.Effects {
		for _, w := range out.Writes {
			if records[w.Key] = w.Record; w.Record == nil {
				delete(records, w.Key)
			}
		}
		return out
	}
	keep(step(r, protocol.Start{}))
	keep(step(r, from("a", paxos.LogPhase1a[value]{Ballot: b(3, "a")})))
	keep(step(r, from("a", paxos.LogPhase2a[value]{Ballot: b(3, "a"), Slot: 1, Entry: command("x")})))
	keep(step(r, from("a", paxos.LogPhase2a[value]{Ballot: b(3, "a"), Slot: 2, Entry: command("y"), Chosen: 1})))
	again := newReplica("b", 8)
	step(again, protocol.Recover{Records: records})
	for name, m := range map[string]protocol.Message{
		"1a": paxos.LogPhase1a[value]{Ballot: b(2, "c")}, "2a": paxos.LogPhase2a[value]{Ballot: b(2, "c"), Slot: 1}} {
		out := step(again, from("c", m))
		if _, refused := out.Sends[0].Message.(paxos.LogRefused[value]); !refused || len(out.Writes) > 0 {
			t.Errorf("%s below the promise: %+v", name, out)
		}
	}
	want(t, "both are told", messages(step(again, from("c", paxos.LogPhase1a[value]{Ballot: b(4, "c")}))), "c 1b 4.c 0+2")

	keep(step(r, protocol.Input{Value: paxos.Compact[paxos.History]{Slot: 1, State: paxos.History{Values: []string{"x"}}}}))
	if _, left := records[paxos.SlotKey(1)]; left {
		t.Error("the entry is still there")
	}
	again = newReplica("b", 8)
	want(t, "the snapshot", appended(step(again, protocol.Recover{Records: records})), "restored 1")
	want(t, "and what follows", messages(step(again, from("c", paxos.LogPhase1a[value]{Ballot: b(4, "c")}))), "c 1b 4.c 1+1")
	again = newReplica("b", 8)
	step(again, protocol.Recover{Records: records})
	step(again, protocol.Input{Value: paxos.Lead[value]{}})
	if again.Ballot != b(4, "b") {
		t.Errorf("ballot %v after a promise of 3.a", again.Ballot)
	}
}

// A replica that lags behind the snapshot is given the state, and goes on from there.
func TestStateTransfer(t *testing.T) {
	far := newReplica("b", 2)
	step(far, protocol.Start{})
	var entries []record
	for s := paxos.Slot(1); s <= 4; s++ {
		entries = append(entries, record{Slot: s, Entry: command(fmt.Sprint(s))})
	}
	step(far, from("a", paxos.Fetched[value]{Entries: entries, Chosen: 4}))
	step(far, protocol.Input{Value: paxos.Compact[paxos.History]{Slot: 3, State: paxos.History{Values: []string{"1", "2", "3"}}}})
	for name, near := range map[string]*replica{"lagging": newReplica("c", 2), "blank": {Self: "d", Window: 2, Seeds: []protocol.NodeID{"b"}}} {
		step(near, protocol.Start{})
		step(near, from("b", paxos.LogPhase2a[value]{Ballot: b(1, "b"), Slot: 1, Entry: command("other")}))
		blank := len(near.Reigns) == 0
		answer := step(far, from(near.Self, paxos.Fetch[value]{From: 1, Blank: blank}))
		transfer := answer.Sends[0].Message
		out := step(near, from("b", transfer))
		want(t, name, appended(out), "restored 3")
		want(t, name, messages(out), "b fetch 4")
		if len(near.Reigns) != 1 || near.Chosen != 3 || len(near.Log) > 0 {
			t.Errorf("%s: %+v", name, near)
		}
		want(t, name+", a copy", appended(step(near, from("b", transfer))))
		out = step(near, from("b", step(far, from(near.Self, paxos.Fetch[value]{From: 4})).Sends[0].Message))
		want(t, name+", the rest", appended(out), "4 14")
	}
}

// A configuration in slot i reigns from i + Window on (Lamport 2001, 3). Until then the old acceptors agree,
// and from then on the new ones; the leader brings the moment about with no-ops.
func TestConfigurationReignsLater(t *testing.T) {
	r, _ := leading(t, 2)
	next := majority(2, "a", "d", "e")
	change := entry{Kind: paxos.Reconfiguration, Configuration: &next}
	step(r, submit(change))
	out := step(r, submit(change))
	if v, ok := out.Emits[0].(paxos.Rejected[value]); !ok || v.Why != paxos.Busy {
		t.Errorf("two changes at a time: %+v", out.Emits)
	}
	out = step(r, from("b", paxos.LogPhase2b[value]{Ballot: r.Ballot, Slot: 1}))
	want(t, "the old agree on slot 2, and the new are asked for promises", messages(out),
		"c 1a 1.a", "d 1a 1.a", "e 1a 1.a", "b 2a 2 0", "c 2a 2 0")
	step(r, submit(command("x")))
	want(t, "the old are not enough", acceptedBy(r, "d", 2))
	want(t, "the old agree", acceptedBy(r, "c", 2), "2 0")
	want(t, "nobody has promised for slot 3", messages(step(r, from("c", paxos.LogPhase1b[value]{Ballot: r.Ballot}))))
	out = step(r, from("d", paxos.LogPhase1b[value]{Ballot: r.Ballot}))
	want(t, "the new are asked", messages(out), "d 2a 3 1x", "e 2a 3 1x")
	want(t, "the old do not count", acceptedBy(r, "c", 3))
	want(t, "the new agree", acceptedBy(r, "e", 3), "3 1x")
}

// A leader that the new configuration leaves out leads to the last of the old one's slots.
func TestLeaderThatIsLeftOutYields(t *testing.T) {
	r, _ := leading(t, 2)
	next := majority(2, "b", "c")
	step(r, submit(entry{Kind: paxos.Reconfiguration, Configuration: &next}))
	step(r, from("b", paxos.LogPhase1b[value]{Ballot: r.Ballot}))
	step(r, submit(command("x")))
	acceptedBy(r, "b", 1)
	if r.State != paxos.Leading {
		t.Fatalf("%+v", r)
	}
	out := step(r, from("b", paxos.LogPhase2b[value]{Ballot: r.Ballot, Slot: 2}))
	want(t, "the last", appended(out), "2 1x")
	if r.State != paxos.Following {
		t.Errorf("it is %v", r.State)
	}
}

// Who agrees on the next slots may have left by what stands in them. It promises nothing any more, and knows what
// stands: a leader that needs it there asks, and goes on.
func TestLeaderLearnsFromWhoHasLeft(t *testing.T) {
	a := &replica{Self: "a", Window: 2, Reigns: []paxos.Reign{{From: 1, Configuration: majority(1, "a")}}}
	c := &replica{Self: "c", Storage: "sc", Window: 2, Seeds: []protocol.NodeID{"a"}}
	change := func(next paxos.Configuration) protocol.Event {
		return submit(entry{Kind: paxos.Reconfiguration, Configuration: &next})
	}
	for _, r := range []*replica{a, c} {
		step(r, protocol.Start{})
	}
	step(a, protocol.Input{Value: paxos.Lead[value]{}})
	heavy := quorum.System{Members: []quorum.Member{{Node: "a", Votes: 1}, {Node: "c", Votes: 3}}, Read: 3, Write: 3}
	out := step(a, change(paxos.Configuration{Number: 2, System: heavy, Storages: []paxos.Storage{{Node: "c", ID: "sc"}}}))
	want(t, "c joins, with most of the votes", appended(out), "1 2", "2 0")
	step(c, from("a", paxos.Transfer[paxos.History]{Snapshot: a.Base, Chosen: 2}))
	step(c, from("a", paxos.Fetched[value]{Chosen: 2, Entries: a.Log}))
	step(c, protocol.Input{Value: paxos.Lead[value]{}}) // a is cut off: all that it and c say to each other is lost
	want(t, "c leaves, as it has agreed alone", appended(step(c, change(majority(3, "a")))), "3 2", "4 0")

	var learned []string
	for range 3 {
		for _, asked := range step(a, protocol.Expire{Timer: paxos.LogTimer}).Sends {
			for _, said := range step(c, from("a", asked.Message)).Sends {
				learned = append(learned, appended(step(a, from("c", said.Message)))...)
			}
		}
	}
	want(t, "a learns what stands", learned, "3 2", "4 0")
	want(t, "and goes on alone", appended(step(a, submit(command("x")))), "5 1x")
}

// A leader asks for promises until it has enough for each of the configurations to come, not for the last alone.
func TestLeaderNeedsPromisesForEachReign(t *testing.T) {
	r := &replica{Self: "a", Window: 3, Reigns: []paxos.Reign{{From: 1, Configuration: majority(1, "a")},
		{From: 2, Configuration: majority(2, "a", "c")}, {From: 3, Configuration: majority(3, "a")}}}
	step(r, protocol.Start{})
	want(t, "the first slot needs nobody else", appended(step(r, protocol.Input{Value: paxos.Lead[value]{}})), "1 0")
	step(r, submit(command("x")))
	want(t, "the second does", messages(step(r, protocol.Expire{Timer: paxos.LogTimer})), "c beat 1", "c 1a 1.a", "c fetch 2")
	step(r, from("c", paxos.LogPhase1b[value]{Ballot: r.Ballot}))
	want(t, "it has promised", acceptedBy(r, "c", 2), "2 1x")
	want(t, "and is needed no more", messages(step(r, protocol.Expire{Timer: paxos.LogTimer})))
}

// A member that has lost its storage, and what it had promised on it, is asked again when it votes with another.
func TestLeaderAsksTheSuccessor(t *testing.T) {
	known := func(number uint64, storages []paxos.Storage, nodes ...protocol.NodeID) paxos.Configuration {
		c := majority(number, nodes...)
		c.Storages = storages
		return c
	}
	old, anew := []paxos.Storage{{Node: "d", ID: "d1"}}, []paxos.Storage{{Node: "d", ID: "d2"}}
	r := &replica{Self: "a", Window: 1, Reigns: []paxos.Reign{{From: 1, Configuration: known(1, old, "a", "b", "c", "d")}}}
	step(r, protocol.Start{})
	step(r, protocol.Input{Value: paxos.Lead[value]{}})
	step(r, from("b", paxos.LogPhase1b[value]{Ballot: r.Ballot}))
	step(r, from("d", paxos.LogPhase1b[value]{Ballot: r.Ballot, Storage: "d1"}))
	for slot, c := range []paxos.Configuration{known(2, nil, "a", "b", "c"), known(3, anew, "a", "b", "c", "d")} { // d joins anew
		step(r, submit(entry{Kind: paxos.Reconfiguration, Configuration: &c}))
		for _, n := range []string{"b", "c"} {
			step(r, from(protocol.NodeID(n), paxos.LogPhase2b[value]{Ballot: r.Ballot, Slot: paxos.Slot(slot) + 1}))
		}
	}
	step(r, submit(command("x"))) // c is down from now on
	want(t, "the successor is asked", messages(step(r, protocol.Expire{Timer: paxos.LogTimer})),
		"b beat 2", "c beat 2", "d beat 2", "c 1a 1.a", "d 1a 1.a", "b fetch 3")
	out := step(r, from("d", paxos.LogPhase1b[value]{Ballot: r.Ballot, Storage: "d2"}))
	want(t, "it promises", messages(out), "b 2a 3 1x", "c 2a 3 1x", "d 2a 3 1x")
	step(r, from("b", paxos.LogPhase2b[value]{Ballot: r.Ballot, Slot: 3}))
	want(t, "and accepts", appended(step(r, from("d", paxos.LogPhase2b[value]{Ballot: r.Ballot, Slot: 3, Storage: "d2"}))), "3 1x")
}

// What a leader has settled out of turn stands as soon as it knows what stands before it, whoever tells.
func TestSettledOutOfTurn(t *testing.T) {
	r, _ := leading(t, 4)
	step(r, submit(command("x")))
	step(r, submit(command("y")))
	want(t, "the second is accepted first", acceptedBy(r, "b", 2))
	out := step(r, from("c", paxos.Fetched[value]{Chosen: 1, Entries: []record{{Slot: 1, Ballot: r.Ballot, Entry: command("x")}}}))
	want(t, "c tells what stands in the first", appended(out), "1 1x", "2 1y")
}

// A leader may be told what stands in a slot that it has tried itself, by somebody who knows it of a higher ballot: other
// than what it has tried. It must not say in its own ballot that the slot stands, for who has accepted what it has tried
// would take that for what stands.
func TestWhoIsToldOfAHigherBallotLeadsNoMore(t *testing.T) {
	heavy := paxos.Configuration{Number: 1, System: quorum.System{Members: []quorum.Member{{Node: "a", Votes: 1}, {Node: "b", Votes: 1},
		{Node: "c", Votes: 3}}, Read: 3, Write: 3}}
	for name, compacts := range map[string]bool{"entries": false, "a snapshot": true} {
		t.Run(name, func(t *testing.T) {
			nodes := map[protocol.NodeID]*replica{}
			for _, n := range []protocol.NodeID{"a", "b", "c"} {
				nodes[n] = &replica{Self: n, Window: 4, Reigns: []paxos.Reign{{From: 1, Configuration: heavy}}}
				step(nodes[n], protocol.Start{})
			}
			// hear gives a node what another sends to it, and returns what follows.
			hear := func(to, by protocol.NodeID, sent protocol.Effects) (all protocol.Effects) {
				for _, s := range sent.Sends {
					if s.To == to {
						out := step(nodes[to], from(by, s.Message))
						all.Sends, all.Emits = append(all.Sends, out.Sends...), append(all.Emits, out.Emits...)
					}
				}
				return all
			}
			a := nodes["a"]
			step(a, protocol.Expire{Timer: paxos.LogTimer}) // it asks b
			late := step(a, protocol.Expire{Timer: paxos.LogTimer})
			want(t, "a asks c what stands, which takes its time", messages(late), "c fetch 1")
			hear("a", "c", hear("c", "a", step(a, protocol.Input{Value: paxos.Lead[value]{}})))
			want(t, "b alone accepts what a tries", messages(hear("b", "a", step(a, submit(command("x"))))), "a 2b 1")
			step(nodes["c"], protocol.Input{Value: paxos.Lead[value]{}}) // it has most of the votes
			want(t, "c leads", appended(step(nodes["c"], submit(command("y")))), "1 1y")
			told := "1 1y"
			if compacts {
				step(nodes["c"], protocol.Input{Value: paxos.Compact[paxos.History]{Slot: 1, State: paxos.History{Values: []string{"y"}}}})
				told = "restored 1"
			}
			want(t, "a is answered", appended(hear("a", "c", hear("c", "a", late))), told)
			var learned []string
			for range 4 { // a and b hear each other, and c hears nobody
				for out := step(a, protocol.Expire{Timer: paxos.LogTimer}); len(out.Sends) > 0; {
					back := hear("b", "a", out)
					learned = append(learned, appended(back)...)
					out = hear("a", "b", back)
				}
			}
			want(t, "a says nothing of what stands to b", learned)
			for i := 0; i < 2 && a.State != paxos.Leading; i++ { // c hears a, and promises a higher ballot
				hear("a", "c", hear("c", "a", step(a, protocol.Expire{Timer: paxos.LogTimer})))
			}
			beat := step(a, protocol.Expire{Timer: paxos.LogTimer})
			want(t, "a leads again", messages(beat), "b beat 1", "c beat 1")
			want(t, "b learns what stands", appended(hear("b", "a", hear("a", "b", hear("b", "a", beat)))), told)
		})
	}
}

// A node whose storage is not the one that is known of it has forgotten what it promised, and does not count.
func TestOtherStorageDoesNotCount(t *testing.T) {
	r := newReplica("a", 2)
	r.Storage = "sa"
	r.Reigns[0].Configuration.Storages = []paxos.Storage{{Node: "a", ID: "sa"}, {Node: "b", ID: "sb"}}
	step(r, protocol.Start{})
	step(r, protocol.Input{Value: paxos.Lead[value]{}})
	step(r, from("b", paxos.LogPhase1b[value]{Ballot: r.Ballot, Storage: "new"}))
	if r.State != paxos.Preparing {
		t.Error("a promise from another storage counts")
	}
	step(r, from("c", paxos.LogPhase1b[value]{Ballot: r.Ballot, Storage: "any"})) // c's is not known
	step(r, submit(command("x")))
	want(t, "another storage", appended(step(r, from("b", paxos.LogPhase2b[value]{Ballot: r.Ballot, Slot: 1, Storage: "new"}))))
	want(t, "the known one", appended(step(r, from("b", paxos.LogPhase2b[value]{Ballot: r.Ballot, Slot: 1, Storage: "sb"}))), "1 1x")

	lost := newReplica("a", 2)
	lost.Storage, lost.Reigns = "other", r.Reigns
	if out := step(lost, protocol.Input{Value: paxos.Lead[value]{}}); len(out.Sends) > 0 {
		t.Errorf("it tries to lead: %+v", out)
	}
}

func TestSubmissionsAreRejected(t *testing.T) {
	why := func(out protocol.Effects) (paxos.Rejection, protocol.NodeID) {
		for _, e := range out.Emits {
			if v, ok := e.(paxos.Rejected[value]); ok {
				return v.Why, v.Leader
			}
		}
		return 0, ""
	}
	f := newReplica("b", 2)
	step(f, from("a", paxos.Heartbeat[value]{Ballot: b(1, "a")}))
	if got, leader := why(step(f, submit(command("x")))); got != paxos.NotLeading || leader != "a" {
		t.Errorf("a follower: %v, ask %s", got, leader)
	}
	r, _ := leading(t, 1)
	r.Options.Queue = 1
	step(r, submit(command("x"))) // in slot 1
	step(r, submit(command("y"))) // waits
	if got, _ := why(step(r, submit(command("z")))); got != paxos.Busy {
		t.Errorf("a full queue: %v", got)
	}
	if got, leader := why(step(r, from("c", paxos.LogPhase1a[value]{Ballot: b(7, "c")}))); got != paxos.NotLeading || leader != "" {
		t.Errorf("what waits when the leader is displaced: %v, ask %s", got, leader)
	}
	r, _ = leading(t, 1)
	stale, split := majority(1, "a"), majority(2, "a", "b")
	split.System.Read, split.System.Write = 1, 1
	for name, c := range map[string]*paxos.Configuration{"none": nil, "the number in force": &stale, "quorums that do not meet": &split} {
		if got, _ := why(step(r, submit(entry{Kind: paxos.Reconfiguration, Configuration: c}))); got != paxos.Invalid {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// What is not answered is sent again; a leader that hears of a higher ballot begins a higher one yet, after
// a pause.
func TestLeaderTriesAgain(t *testing.T) {
	r, _ := leading(t, 4)
	step(r, submit(command("x")))
	want(t, "too early to repeat", messages(step(r, protocol.Expire{Timer: paxos.LogTimer})), "b beat 0", "c beat 0")
	want(t, "a beat later", messages(step(r, protocol.Expire{Timer: paxos.LogTimer})), "b beat 0", "c beat 0", "b 2a 1 1x", "c 2a 1 1x")
	step(r, from("c", paxos.LogRefused[value]{Ballot: b(1, "a"), Promised: b(5, "c")}))
	if r.State != paxos.Displaced {
		t.Fatalf("%v", r.State)
	}
	want(t, "a higher ballot", messages(step(r, protocol.Expire{Timer: paxos.LogTimer})), "b 1a 6.a", "c 1a 6.a")
	step(r, protocol.Input{Value: paxos.Follow[value]{}})
	want(t, "one that is to follow asks what stands", messages(step(r, protocol.Expire{Timer: paxos.LogTimer})), "b fetch 1")
	want(t, "one after the other", messages(step(r, protocol.Expire{Timer: paxos.LogTimer})), "c fetch 1")
}

func TestLogSystemsThatCannotBe(t *testing.T) {
	for _, l := range []paxos.ReplicatedLog{{}, {Size: 10}, {Size: 3, Voters: 4}, {Size: 3, Leaders: 4}, {Size: 3, Moves: [][]int{{1, 1}}}} {
		if _, err := l.Nodes(); !errors.Is(err, paxos.ErrSystem) {
			t.Errorf("%+v: %v", l, err)
		}
	}
}

func TestLogMachines(t *testing.T) {
	codec, err := protocol.NewCodec(append(paxos.ReplicatedLogTypes(), paxos.Types[value]("string")...)...)
	if err != nil {
		t.Fatal(err)
	}
	next := majority(2, "a", "b", "d")
	reigns := []paxos.Reign{{From: 1, Configuration: majority(1, "a", "b", "c")}}
	snapshot := paxos.SnapshotRecord[paxos.History]{Slot: 2, State: &paxos.History{Values: []string{"x", "y"}}, Reigns: reigns}
	events := []protocol.Event{protocol.Start{}, protocol.Recover{}, protocol.Expire{Timer: paxos.LogTimer}, protocol.Expire{Timer: "work"},
		protocol.Recover{Records: protocol.Records{paxos.PromiseKey: paxos.PromiseRecord[value]{Promised: b(2, "b")}, paxos.SnapshotKey: snapshot,
			paxos.SlotKey(3): record{Slot: 3, Ballot: b(1, "b"), Chosen: true, Entry: command("z")}}},
		protocol.Input{Value: paxos.Lead[value]{}}, protocol.Input{Value: paxos.Lead[value]{}}, protocol.Input{Value: paxos.Follow[value]{}},
		submit(command("v")), submit(command("w")), submit(entry{Kind: paxos.Reconfiguration, Configuration: &next}),
		protocol.Input{Value: paxos.Compact[paxos.History]{Slot: 2, State: *snapshot.State}}, from("b", paxos.Forward{Value: "f"})}
	for _, node := range []protocol.NodeID{"a", "b", "c"} {
		for _, ballot := range []paxos.Ballot{b(1, "a"), b(2, "b"), b(3, "a")} {
			for _, m := range []protocol.Message{
				paxos.LogPhase1a[value]{Ballot: ballot}, paxos.LogPhase1b[value]{Ballot: ballot},
				paxos.LogPhase1b[value]{Ballot: ballot, Chosen: 1, Accepted: []record{{Slot: 3, Ballot: b(1, "b"), Entry: command("z")}}},
				paxos.LogPhase2a[value]{Ballot: ballot, Slot: 1, Entry: command("x")},
				paxos.LogPhase2a[value]{Ballot: ballot, Slot: 2, Entry: entry{Kind: paxos.Reconfiguration, Configuration: &next}, Chosen: 1},
				paxos.LogPhase2b[value]{Ballot: ballot, Slot: 1}, paxos.LogPhase2b[value]{Ballot: ballot, Slot: 2},
				paxos.LogRefused[value]{Ballot: ballot, Promised: b(4, "c")}, paxos.Heartbeat[value]{Ballot: ballot, Chosen: 2},
			} {
				events = append(events, from(node, m))
			}
		}
		events = append(events, from(node, paxos.Fetch[value]{From: 1}), from(node, paxos.Fetch[value]{From: 2, Blank: true}),
			from(node, paxos.Fetched[value]{Chosen: 3, Entries: []record{{Slot: 1, Entry: command("x")}, {Slot: 2, Entry: command("y")}}}),
			from(node, paxos.Transfer[paxos.History]{Snapshot: snapshot, Chosen: 3}))
	}
	protocoltest.Run(t, protocoltest.Subject{
		New: []func() protocol.Machine{
			func() protocol.Machine { return newReplica("a", 2) },
			func() protocol.Machine { return &replica{Self: "d", Seeds: []protocol.NodeID{"a", "b"}} },
			func() protocol.Machine {
				return &paxos.LogNode{Replica: *newReplica("a", 1), Every: 2, Wishes: []string{"u"}}
			},
		},
		Events: events, Codec: codec, Steps: 60,
	})
}
