package commit

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/google/go-cmp/cmp"

	"assent/protocol"
	"assent/protocol/protocoltest"
)

const peerTablePath = "../../docs/peer-table.md"

// TestPeerTable writes down what a peer does with every event in every state, as TestTable does for
// the machines with a coordinator.
func TestPeerTable(t *testing.T) {
	var b strings.Builder
	b.WriteString("# What each state of a peer does with each event\n\n" +
		"Generated from the machine of decentralised commit in `protocol/commit` by `make docs`; a test keeps\n" +
		"it true. The site is `b`, the others are `a`, which becomes backup before it, and `c`, which comes\n" +
		"after it. The cells read as in [commit-table.md](commit-table.md).\n")
	for _, phases := range []int{2, 3} {
		fmt.Fprintf(&b, "\n## In %d phases\n\n", phases)
		table(&b, peerStates(phases), peerEvents())
	}
	if *rewriteDocs {
		if err := os.WriteFile(peerTablePath, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(peerTablePath)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("docs/peer-table.md is not what the machine does; run `make docs`:\n%s", diff)
	}
}

var threeSites = []protocol.NodeID{"a", "b", "c"}

func peerGets(from protocol.NodeID, m protocol.Message) protocol.Event {
	return protocol.Receive{From: from, Message: m}
}

func peerStates(phases int) []named[func() protocol.Machine] {
	after := func(events ...protocol.Event) func() protocol.Machine {
		return func() protocol.Machine {
			m := NewPeer("t1", "b", threeSites, phases, Options{})
			for _, ev := range events {
				m.Step(ev, &protocol.Effects{})
			}
			return m
		}
	}
	input := func(v protocol.Value) protocol.Event { return protocol.Input{Value: v} }
	start, yes, out := protocol.Start{}, input(BranchPrepared{Vote: Yes}), protocol.Expire{Timer: TerminateTimer}
	aYes, cYes := peerGets("a", PeerVoted{ID: "t1", Vote: Yes}), peerGets("c", PeerVoted{ID: "t1", Vote: Yes})
	finish := func(d Decision) protocol.Event { return peerGets("a", Finish{ID: "t1", Decision: d}) }
	record := func(ready bool) protocol.Event {
		return protocol.Recover{Records: protocol.Records{BranchKey: PeerRecord{ID: "t1", Sites: threeSites, Phases: phases, Ready: ready}}}
	}
	all := []named[func() protocol.Machine]{
		{"working", after()},
		{"preparing, a has voted yes", after(start, aYes)},
		{"waiting, a has voted yes", after(start, yes, aYes)},
		{"waiting, made anew after a crash", after(record(false))},
		{"committing", after(start, yes, finish(Commit))},
		{"rolling back", after(start, yes, finish(Abort))},
		{"finished, committed", after(start, yes, finish(Commit), input(BranchFinished{Outcome: Committed}))},
		{"finished, rolled back", after(start, yes, finish(Abort), input(BranchFinished{Outcome: RolledBack}))},
	}
	if phases == 3 {
		stands := peerGets("c", PeerStands{ID: "t1"})
		all = append(all,
			named[func() protocol.Machine]{"waiting, electing", after(start, yes, aYes, out)},
			named[func() protocol.Machine]{"waiting, electing, a has answered", after(start, yes, out, peerGets("a", PeerStands{ID: "t1"}))},
			named[func() protocol.Machine]{"waiting, asking", after(start, yes, aYes, out, out)},
			named[func() protocol.Machine]{"pre-committed, a is ready", after(start, yes, aYes, cYes, peerGets("a", PeerReady{ID: "t1"}))},
			named[func() protocol.Machine]{"pre-committed, asking, c waits", after(start, yes, aYes, cYes, out, out, stands)},
			named[func() protocol.Machine]{"pre-committed, moving c", after(start, yes, aYes, cYes, out, out, stands, out)},
			named[func() protocol.Machine]{"pre-committed, made anew after a crash", after(record(true))},
		)
	}
	return all
}

func peerEvents() []named[protocol.Event] {
	input := func(v protocol.Value) protocol.Event { return protocol.Input{Value: v} }
	recovered := func(r protocol.Record) protocol.Event {
		return protocol.Recover{Records: protocol.Records{BranchKey: r}}
	}
	return []named[protocol.Event]{
		{"Start", protocol.Start{}},
		{"Recover, no record", protocol.Recover{}},
		{"Recover, PeerRecord", recovered(PeerRecord{ID: "t1", Sites: threeSites, Phases: 2})},
		{"Recover, Tombstone", recovered(Tombstone{ID: "t1"})},
		{"Recover, FinishedRecord", recovered(FinishedRecord{ID: "t1", Decision: Commit, Outcome: Committed})},
		{"PeerVoted(yes) from a", peerGets("a", PeerVoted{ID: "t1", Vote: Yes})},
		{"PeerVoted(yes) from c", peerGets("c", PeerVoted{ID: "t1", Vote: Yes})},
		{"PeerVoted(no) from c", peerGets("c", PeerVoted{ID: "t1", Vote: No})},
		{"PeerVoted(no) from a stranger", peerGets("z", PeerVoted{ID: "t1", Vote: No})},
		{"PeerReady from c", peerGets("c", PeerReady{ID: "t1"})},
		{"PeerStands from c", peerGets("c", PeerStands{ID: "t1"})},
		{"PeerStands(ready) from c", peerGets("c", PeerStands{ID: "t1", Ready: true})},
		{"PeerMove from a", peerGets("a", PeerMove{ID: "t1"})},
		{"Inquire from c", peerGets("c", Inquire{ID: "t1"})},
		{"Finish(commit) from a", peerGets("a", Finish{ID: "t1", Decision: Commit})},
		{"Finish(abort) from a", peerGets("a", Finish{ID: "t1", Decision: Abort})},
		{"BranchPrepared(yes)", input(BranchPrepared{Vote: Yes})},
		{"BranchPrepared(no)", input(BranchPrepared{Vote: No})},
		{"BranchPrepared(read-only)", input(BranchPrepared{Vote: ReadOnly})},
		{"BranchFinished(committed)", input(BranchFinished{Outcome: Committed})},
		{"BranchFinished(rolled back)", input(BranchFinished{Outcome: RolledBack})},
		{"BranchFinished(hazard)", input(BranchFinished{Outcome: Hazard})},
		{"BranchFailed", input(BranchFailed{})},
		{"Abandon", input(Abandon{})},
		{"Forget", input(Forget{})},
		{"timer terminate", protocol.Expire{Timer: TerminateTimer}},
		{"timer branch", protocol.Expire{Timer: BranchTimer}},
	}
}

// TestPeersAreData holds the peer to the kernel's terms, with every message in every state.
func TestPeersAreData(t *testing.T) {
	var events []protocol.Event
	for _, e := range peerEvents() {
		events = append(events, e.of)
	}
	for _, from := range []protocol.NodeID{"a", "b", "stranger"} {
		for _, id := range []TransactionID{"t1", "t2"} {
			events = append(events, peerGets(from, PeerVoted{ID: id, Vote: Yes}), peerGets(from, PeerReady{ID: id}),
				peerGets(from, PeerStands{ID: id, Ready: true}), peerGets(from, PeerMove{ID: id}),
				peerGets(from, Inquire{ID: id}), peerGets(from, Finish{ID: id, Decision: Abort}))
		}
	}
	var fresh []func() protocol.Machine
	for _, phases := range []int{2, 3} {
		fresh = append(fresh,
			func() protocol.Machine { return NewPeer("t1", "b", threeSites, phases, Options{}) },
			func() protocol.Machine {
				return &PeerNode{Peer: *NewPeer("t1", "a", threeSites, phases, Options{}), Branch: Branch{Vote: ReadOnly}}
			})
	}
	protocoltest.Run(t, protocoltest.Subject{New: fresh, Events: events, Codec: codec(t)})
}

func TestDecentralisedSystemsAreBounded(t *testing.T) {
	for _, d := range []Decentralised{{Sites: 1}, {Sites: 9}, {Sites: 3, Phases: 1}, {Sites: 3, Phases: 4}} {
		if _, err := d.Nodes(); err == nil {
			t.Errorf("%+v can be made", d)
		}
	}
}

// TestPeerScenarios runs the scripts of testdata/peers. The trace is the golden output; `go test
// -rewrite` writes it anew.
func TestPeerScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/peers", func(t *testing.T, path string) {
		w := &peerWorld{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return w.command(t, d) })
	})
}

// peerWorld is peers over their branches, with every message held until it is let go.
type peerWorld struct {
	phases   int
	sites    []protocol.NodeID
	votes    map[protocol.NodeID]Vote
	nodes    map[protocol.NodeID]*PeerNode
	stable   map[protocol.NodeID]protocol.Records
	inFlight []envelope
	trace    strings.Builder
}

// The commands. A cut is written crash=K: the node crashes after K parts of what the step entails,
// where the stable writes are the first part and each message is one.
//
//	sites a b c [phases=3] [no=a]   make the sites; that of no= votes no
//	start NODE [crash=K]            the transaction arrives
//	run                             all messages on their way arrive, and what follows from them
//	get TO FROM [crash=K]           TO receives the first message on its way from FROM
//	lose TO FROM                    that message is lost
//	expire NODE [crash=K]           the timer runs out
//	crash|restart NODE
//	show                            states, and what is under way
func (w *peerWorld) command(t *testing.T, d *datadriven.TestData) string {
	w.trace.Reset()
	cut := whole
	if d.HasArg("crash") {
		d.ScanArgs(t, "crash", &cut)
	}
	var names []protocol.NodeID
	for _, a := range d.CmdArgs {
		if a.Key != "crash" && len(a.Vals) == 0 {
			names = append(names, protocol.NodeID(a.Key))
		}
	}
	switch d.Cmd {
	case "sites":
		w.phases, w.sites, w.votes, w.nodes, w.stable, w.inFlight = 2, names, map[protocol.NodeID]Vote{}, map[protocol.NodeID]*PeerNode{}, map[protocol.NodeID]protocol.Records{}, nil
		if d.HasArg("phases") {
			d.ScanArgs(t, "phases", &w.phases)
		}
		for _, n := range names {
			w.votes[n], w.stable[n] = Yes, protocol.Records{}
		}
		if d.HasArg("no") {
			var n string
			d.ScanArgs(t, "no", &n)
			w.votes[protocol.NodeID(n)] = No
		}
		for _, n := range names {
			w.nodes[n] = w.fresh(n)
		}
	case "start":
		w.step(names[0], protocol.Start{}, cut)
	case "run":
		for len(w.inFlight) > 0 {
			w.deliver(0, whole)
		}
	case "get", "lose":
		i := slices.IndexFunc(w.inFlight, func(e envelope) bool { return e.to == names[0] && e.from == names[1] })
		if i < 0 {
			d.Fatalf(t, "no message from %s is on its way to %s", names[1], names[0])
		}
		if d.Cmd == "get" {
			w.deliver(i, cut)
			break
		}
		w.inFlight = slices.Delete(w.inFlight, i, i+1)
	case "expire":
		w.step(names[0], protocol.Expire{Timer: TerminateTimer}, cut)
	case "crash":
		w.crash(names[0])
	case "restart":
		w.nodes[names[0]] = w.fresh(names[0])
		w.step(names[0], protocol.Recover{Records: w.stable[names[0]]}, cut)
	case "show":
		w.show()
	default:
		d.Fatalf(t, "unknown command %q", d.Cmd)
	}
	if w.trace.Len() == 0 {
		return "ok\n"
	}
	return w.trace.String()
}

func (w *peerWorld) fresh(n protocol.NodeID) *PeerNode {
	return &PeerNode{Peer: *NewPeer("t1", n, w.sites, w.phases, Options{}), Branch: Branch{Vote: w.votes[n]}}
}

func (w *peerWorld) log(format string, args ...any) { fmt.Fprintf(&w.trace, format+"\n", args...) }

func (w *peerWorld) step(n protocol.NodeID, ev protocol.Event, cut int) {
	m := w.nodes[n]
	if m == nil {
		w.log("%s is down", n)
		return
	}
	var out protocol.Effects
	before := state(&m.Peer)
	m.Step(ev, &out)
	w.log("%s: %s → %s, branch %v", n, before, state(&m.Peer), m.Branch.State)
	for _, write := range out.Writes {
		if write.Key == BranchKey {
			w.log("  force %s", describe(write.Record))
		}
		w.stable[n][write.Key] = write.Record
	}
	for i, s := range out.Sends {
		if cut == 1+i {
			break
		}
		w.log("  send %s to %s", describe(s.Message), s.To)
		w.inFlight = append(w.inFlight, envelope{from: n, to: s.To, message: s.Message})
	}
	if cut >= 1 {
		w.crash(n)
	}
}

func (w *peerWorld) deliver(i int, cut int) {
	e := w.inFlight[i]
	w.inFlight = slices.Delete(w.inFlight, i, i+1)
	w.log("%s gets %s from %s", e.to, describe(e.message), e.from)
	w.step(e.to, protocol.Receive{From: e.from, Message: e.message}, cut)
}

func (w *peerWorld) crash(n protocol.NodeID) {
	w.log("%s crashes", n)
	w.nodes[n] = nil
}

func (w *peerWorld) show() {
	for _, n := range w.sites {
		if m := w.nodes[n]; m != nil {
			w.log("%s: %s, branch %v", n, state(&m.Peer), m.Branch.State)
		} else {
			w.log("%s: down", n)
		}
	}
	for _, e := range w.inFlight {
		w.log("under way: %s from %s to %s", describe(e.message), e.from, e.to)
	}
}
