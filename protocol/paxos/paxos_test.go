package paxos_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"assent/protocol"
	"assent/protocol/paxos"
	"assent/protocol/protocoltest"
	"assent/protocol/quorum"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

type value = string

func b(round uint64, node protocol.NodeID) paxos.Ballot {
	return paxos.Ballot{Round: round, Node: node}
}

func step(m protocol.Machine, ev protocol.Event) protocol.Effects {
	var out protocol.Effects
	m.Step(ev, &out)
	return out
}

func from(node protocol.NodeID, m protocol.Message) protocol.Event {
	return protocol.Receive{From: node, Message: m}
}

func proposer(owner bool, options paxos.Options) *paxos.Proposer[value] {
	return &paxos.Proposer[value]{Instance: paxos.Topic, Self: "p", System: quorum.Majority("a", "b", "c"), Owner: owner, Options: options}
}

// targets returns to whom messages go, in order.
func targets(e protocol.Effects) []protocol.NodeID {
	var to []protocol.NodeID
	for _, s := range e.Sends {
		to = append(to, s.To)
	}
	return to
}

func TestBallotsAreOrdered(t *testing.T) {
	order := []paxos.Ballot{{}, b(0, "a"), b(0, "b"), b(1, "a"), b(1, "b"), b(2, "a")}
	for i, x := range order {
		for j, y := range order {
			if got, want := x.Compare(y), compare(i, j); got != want {
				t.Errorf("%v against %v: %d, want %d", x, y, got, want)
			}
		}
	}
	if got := order[5].String() + " " + order[0].String(); got != "2.a none" {
		t.Error(got)
	}
}

func compare(i, j int) int {
	switch {
	case i < j:
		return -1
	case i > j:
		return 1
	}
	return 0
}

// The reference's "Promise (1b): the acceptor promises to forget previous leaders".
func TestAcceptorKeepsItsPromise(t *testing.T) {
	a := &paxos.Acceptor[value]{Instance: paxos.Topic, Owner: "p"}
	out := step(a, from("q", paxos.Phase1a[value]{Instance: paxos.Topic, Ballot: b(2, "q")}))
	if len(out.Writes) != 1 || !slices.Equal(targets(out), []protocol.NodeID{"q"}) {
		t.Fatalf("a promise: %+v", out)
	}
	for name, m := range map[string]protocol.Message{
		"a lower read":      paxos.Phase1a[value]{Instance: paxos.Topic, Ballot: b(1, "p")},
		"a lower write":     paxos.Phase2a[value]{Instance: paxos.Topic, Ballot: b(1, "p"), Value: "v"},
		"ballot 0":          paxos.Phase2a[value]{Instance: paxos.Topic, Ballot: b(0, "p"), Value: "v"},
		"phase 1 of 0":      paxos.Phase1a[value]{Instance: paxos.Topic, Ballot: b(0, "p")},
		"another's ballot":  paxos.Phase2a[value]{Instance: paxos.Topic, Ballot: b(2, "q"), Value: "v"},
		"another's promise": paxos.Phase1a[value]{Instance: paxos.Topic, Ballot: b(3, "q")},
	} {
		before := *a
		out := step(a, from("p", m))
		if _, refused := out.Sends[0].Message.(paxos.Refused[value]); !refused || len(out.Writes) > 0 {
			t.Errorf("%s: %+v", name, out)
		}
		if diff := cmp.Diff(before, *a); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if out := step(a, from("q", paxos.Phase1a[value]{Instance: "another", Ballot: b(9, "q")})); !out.Empty() {
		t.Errorf("another instance: %+v", out)
	}
}

func TestAcceptorRemembers(t *testing.T) {
	a := &paxos.Acceptor[value]{Instance: paxos.Topic, Owner: "p", Learners: []protocol.NodeID{"l", "p"}}
	write := from("p", paxos.Phase2a[value]{Instance: paxos.Topic, Ballot: b(0, "p"), Value: "v"})
	out := step(a, write)
	if len(out.Writes) != 1 || !slices.Equal(targets(out), []protocol.NodeID{"p", "l"}) {
		t.Fatalf("an acceptance: %+v", out)
	}
	if again := step(a, write); len(again.Writes) > 0 || !cmp.Equal(again.Sends, out.Sends) {
		t.Errorf("the same once more: %+v", again)
	}
	twin := &paxos.Acceptor[value]{Instance: a.Instance, Owner: a.Owner, Learners: a.Learners}
	step(twin, protocol.Recover{Records: protocol.Records{out.Writes[0].Key: out.Writes[0].Record}})
	if diff := cmp.Diff(a, twin); diff != "" {
		t.Error(diff)
	}
	second := step(&paxos.Acceptor[value]{Instance: paxos.Topic}, write)
	if _, refused := second.Sends[0].Message.(paxos.Refused[value]); !refused {
		t.Errorf("ballot 0 that nobody owns: %+v", second)
	}
}

// With nothing failing the owner of ballot 0 decides in one round trip (Gray and Lamport 2006, 4.2).
func TestOwnerNeedsOneRoundTrip(t *testing.T) {
	p := proposer(true, paxos.Options{})
	out := step(p, protocol.Input{Value: paxos.Propose[value]{Value: "v"}})
	if len(out.Writes) > 0 || !slices.Equal(targets(out), []protocol.NodeID{"a", "b", "c"}) {
		t.Fatalf("%+v", out)
	}
	ask := out.Sends[0].Message.(paxos.Phase2a[value])
	if ask.Ballot != b(0, "p") || ask.Value != "v" {
		t.Fatalf("%+v", ask)
	}
	told := paxos.Phase2b[value]{Instance: paxos.Topic, Ballot: ask.Ballot, Value: "v"}
	if out := step(p, from("a", told)); !out.Empty() {
		t.Errorf("one of three: %+v", out)
	}
	if out := step(p, from("x", told)); !out.Empty() {
		t.Errorf("a stranger: %+v", out)
	}
	out = step(p, from("c", told))
	if !cmp.Equal(out.Emits, []protocol.Value{paxos.Decided[value]{Value: "v"}}) {
		t.Errorf("%+v", out)
	}
	out = step(p, protocol.Input{Value: paxos.Propose[value]{Value: "w"}})
	if !cmp.Equal(out.Emits, []protocol.Value{paxos.Decided[value]{Value: "v"}}) {
		t.Errorf("asked again: %+v", out)
	}
}

// A Leader "uses the value read or, if none, its own opinion" (reference, Paxos).
func TestProposerTakesTheHighestValueRead(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers []paxos.Acceptance[value]
		want    value
	}{
		{"none", []paxos.Acceptance[value]{{Node: "a"}, {Node: "b"}}, "own"},
		{"one", []paxos.Acceptance[value]{{Node: "a"}, {Node: "b", Ballot: b(0, "q"), Value: "v"}}, "v"},
		{"two", []paxos.Acceptance[value]{{Node: "c", Ballot: b(0, "r"), Value: "w"}, {Node: "b", Ballot: b(0, "q"), Value: "v"}}, "w"},
	} {
		p := proposer(false, paxos.Options{})
		out := step(p, protocol.Input{Value: paxos.Propose[value]{Value: "own"}})
		if len(out.Writes) != 1 {
			t.Fatalf("%s: a ballot that is not stable: %+v", c.name, out)
		}
		for _, a := range c.answers {
			out = step(p, from(a.Node, paxos.Phase1b[value]{Instance: paxos.Topic, Ballot: b(1, "p"), Accepted: a.Ballot, Value: a.Value}))
		}
		if len(out.Sends) != 3 {
			t.Fatalf("%s: %+v", c.name, out)
		}
		if got := out.Sends[0].Message.(paxos.Phase2a[value]); got.Value != c.want || got.Ballot != b(1, "p") {
			t.Errorf("%s: %+v, want %s", c.name, got, c.want)
		}
	}
}

// What a write quorum has accepted in one ballot is decided already, and need not be written again.
func TestReadingADecisionIsEnough(t *testing.T) {
	p := proposer(false, paxos.Options{})
	step(p, protocol.Input{Value: paxos.Propose[value]{Value: "own"}})
	told := paxos.Phase1b[value]{Instance: paxos.Topic, Ballot: b(1, "p"), Accepted: b(0, "q"), Value: "v"}
	step(p, from("a", told))
	out := step(p, from("b", told))
	if !cmp.Equal(out.Emits, []protocol.Value{paxos.Decided[value]{Value: "v"}}) || len(out.Sends) > 0 {
		t.Errorf("%+v", out)
	}
}

func TestRefusedProposerComesBackHigher(t *testing.T) {
	p := proposer(true, paxos.Options{})
	step(p, protocol.Input{Value: paxos.Propose[value]{Value: "v"}})
	no := func(round uint64) protocol.Message {
		return paxos.Refused[value]{Instance: paxos.Topic, Ballot: b(0, "p"), Promised: b(round, "q")}
	}
	if out := step(p, from("a", no(7))); !out.Empty() {
		t.Errorf("one of three: %+v", out)
	}
	out := step(p, from("b", no(4)))
	if p.State != paxos.ProposerRefused || len(out.Timers) != 1 || len(out.Sends) > 0 {
		t.Fatalf("%v: %+v", p.State, out)
	}
	out = step(p, protocol.Expire{Timer: paxos.RetryTimer})
	if got := out.Sends[0].Message.(paxos.Phase1a[value]); got.Ballot != b(8, "p") {
		t.Errorf("%+v", got)
	}
}

// A proposer that comes back never uses a ballot again, not even ballot 0, for what it sent then may
// still arrive.
// Of three acceptors one has promised a higher ballot and one is silent for good. That leaves a quorum, so the
// ballot is not lost, but nobody will complete it: the proposer must begin another when its timer runs out.
func TestRefusedProposerDoesNotWaitForTheSilent(t *testing.T) {
	for name, phase := range map[string]protocol.Message{
		"phase 1": paxos.Phase1b[value]{Instance: paxos.Topic, Ballot: b(1, "p")},
		"phase 2": paxos.Phase2b[value]{Instance: paxos.Topic, Ballot: b(0, "p"), Value: "v"},
	} {
		p := proposer(name == "phase 2", paxos.Options{})
		step(p, protocol.Input{Value: paxos.Propose[value]{Value: "v"}})
		step(p, from("a", phase))
		step(p, from("b", paxos.Refused[value]{Instance: paxos.Topic, Ballot: p.Ballot, Promised: b(7, "q")}))
		out := step(p, protocol.Expire{Timer: paxos.RetryTimer})
		if p.Ballot != b(8, "p") || p.State != paxos.ProposerReading {
			t.Errorf("%s: it goes on in ballot %v, %v", name, p.Ballot, p.State)
		}
		if d := cmp.Diff([]protocol.NodeID{"a", "b", "c"}, targets(out)); d != "" {
			t.Errorf("%s: who is asked (- want, + got):\n%s", name, d)
		}
	}
}

func TestRecoveredProposerUsesANewBallot(t *testing.T) {
	for _, records := range []protocol.Records{nil, {paxos.RoundKey: paxos.RoundRecord[value]{Round: 4}}} {
		p := proposer(true, paxos.Options{})
		step(p, protocol.Recover{Records: records})
		out := step(p, protocol.Input{Value: paxos.Propose[value]{Value: "w"}})
		want := uint64(1)
		if records != nil {
			want = 5
		}
		if got := out.Sends[0].Message.(paxos.Phase1a[value]); got.Ballot != b(want, "p") {
			t.Errorf("%+v, want round %d", got, want)
		}
	}
}

func TestPausesGrowToABound(t *testing.T) {
	p := proposer(false, paxos.Options{Retry: time.Second, RetryMost: 8 * time.Second})
	out := step(p, protocol.Input{Value: paxos.Propose[value]{Value: "v"}})
	last := time.Duration(0)
	for i := range 8 {
		pause := out.Timers[len(out.Timers)-1].After
		if pause < time.Second<<min(i, 3) || pause >= 3*time.Second/2<<min(i, 3) || pause < last {
			t.Errorf("pause %d is %v after %v", i, pause, last)
		}
		last = pause
		out = step(p, protocol.Expire{Timer: paxos.RetryTimer})
		if len(out.Sends) != 3 {
			t.Errorf("sent again: %+v", out)
		}
	}
	q := proposer(false, paxos.Options{Retry: time.Second})
	q.Self = "q"
	if other := step(q, protocol.Input{Value: paxos.Propose[value]{Value: "v"}}); other.Timers[0].After == time.Second+(last-8*time.Second)/8 {
		t.Error("two proposers wait equally long")
	}
}

// Safety is put to random schedules of up to four proposers and five acceptors with weights, flexible
// quorums and crashes. Afterwards one proposer is left alone and comes to an end.
func TestRandomSchedules(t *testing.T) {
	for range 20 {
		rapid.Check(t, randomSchedule)
	}
}

func randomSchedule(t *rapid.T) {
	n := rapid.IntRange(1, 5).Draw(t, "acceptors")
	var system quorum.System
	for i := range n {
		system.Members = append(system.Members, quorum.Member{
			Node: protocol.NodeID("a" + string(rune('1'+i))), Votes: rapid.IntRange(1, 3).Draw(t, "votes")})
	}
	system.Write = rapid.IntRange(1, system.Total()).Draw(t, "write")
	system.Read = system.Total() + 1 - system.Write
	c := paxos.Consensus{Proposers: rapid.IntRange(1, 4).Draw(t, "proposers"), Acceptors: n, Quorums: system, Learner: true, Fickle: true,
		Unowned: rapid.Bool().Draw(t, "unowned")}
	nodes, err := c.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(nodes)
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	for range rapid.IntRange(0, 400).Draw(t, "steps") {
		w.randomly(rng)
		w.judge(t)
	}
	w.settle(t)
}

func TestSystemsThatCannotBeAreRefused(t *testing.T) {
	for want, c := range map[string]paxos.Consensus{
		"0 proposers and 3 acceptors": {Acceptors: 3},
		"2 proposers and 9 acceptors": {Proposers: 2, Acceptors: 9},
		"raise one of them by 1":      {Proposers: 1, Acceptors: 2, Quorums: quorum.System{Members: quorum.Majority("a1", "a2").Members, Read: 1, Write: 1}},
	} {
		if _, err := c.Nodes(); !errors.Is(err, paxos.ErrSystem) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestMachines(t *testing.T) {
	codec, err := protocol.NewCodec(paxos.Types[value]("string")...)
	if err != nil {
		t.Fatal(err)
	}
	events := []protocol.Event{protocol.Start{}, protocol.Expire{Timer: paxos.RetryTimer}, protocol.Expire{Timer: "another"},
		protocol.Recover{}, protocol.Recover{Records: protocol.Records{paxos.RoundKey: paxos.RoundRecord[value]{Round: 3},
			paxos.AcceptorKey: paxos.AcceptorRecord[value]{Promised: b(2, "p"), Accepted: b(1, "q"), Value: "r"}}},
		protocol.Input{Value: paxos.Propose[value]{Value: "v"}}, protocol.Input{Value: paxos.Propose[value]{Value: "w"}}}
	for _, node := range []protocol.NodeID{"p", "q", "a", "b", "c"} {
		for _, ballot := range []paxos.Ballot{b(0, "p"), b(1, "p"), b(2, "q")} {
			for _, m := range []protocol.Message{
				paxos.Phase1a[value]{Instance: paxos.Topic, Ballot: ballot},
				paxos.Phase1b[value]{Instance: paxos.Topic, Ballot: ballot, Accepted: b(0, "p"), Value: "u"},
				paxos.Phase2a[value]{Instance: paxos.Topic, Ballot: ballot, Value: "v"},
				paxos.Phase2b[value]{Instance: paxos.Topic, Ballot: ballot, Value: "v"},
				paxos.Refused[value]{Instance: paxos.Topic, Ballot: ballot, Promised: b(2, "q")},
				paxos.Phase2b[value]{Instance: "another", Ballot: ballot, Value: "v"},
			} {
				events = append(events, from(node, m))
			}
		}
	}
	protocoltest.Run(t, protocoltest.Subject{
		New: []func() protocol.Machine{
			func() protocol.Machine { return proposer(true, paxos.Options{}) },
			func() protocol.Machine { return proposer(false, paxos.Options{Rounds: 1}) },
			func() protocol.Machine {
				return &paxos.Acceptor[value]{Instance: paxos.Topic, Owner: "p", Learners: []protocol.NodeID{"l"}}
			},
			func() protocol.Machine {
				return &paxos.Learner[value]{Instance: paxos.Topic, System: quorum.Majority("a", "b", "c")}
			},
		},
		Events: events, Codec: codec,
	})
}
