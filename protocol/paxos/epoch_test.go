package paxos_test

import (
	"errors"
	"testing"

	"assent/protocol"
	"assent/protocol/paxos"
	"assent/protocol/protocoltest"
	"assent/protocol/quorum"
)

// dated returns a message of a register as it is sent.
func dated(e paxos.Epoch, m protocol.Message) paxos.Dated[value] {
	return paxos.Dated[value]{Epoch: e, Said: paxos.Say[value](m)}
}

func epochs() (first, both, last paxos.Epoch) {
	before, after := quorum.Majority("a", "b", "c"), quorum.Majority("b", "c", "d")
	return paxos.Epoch{Number: 1, System: before}, paxos.Epoch{Number: 2, System: before, Next: &after}, paxos.Epoch{Number: 3, System: after}
}

// in returns the ballot in an epoch.
func in(e paxos.Epoch, b paxos.Ballot) paxos.Ballot {
	b.Epoch = e.Number
	return b
}

func epochProposer(e paxos.Epoch) *paxos.EpochProposer[value] {
	p := paxos.NewEpochProposer(paxos.Proposer[value]{Instance: paxos.Topic, Self: "p", Owner: true}, e)
	return &p
}

// Of two sets of acceptors each must agree; who is in both is asked once.
func TestProposerOfTwoSets(t *testing.T) {
	_, both, _ := epochs()
	p := epochProposer(both)
	out := step(p, protocol.Input{Value: paxos.Propose[value]{Value: "v"}})
	if got := targets(out); len(got) != 4 {
		t.Fatalf("asked: %v", got)
	}
	told := dated(both, paxos.Phase2b[value]{Instance: paxos.Topic, Ballot: in(both, b(0, "p")), Value: "v"})
	for _, n := range []protocol.NodeID{"a", "b"} {
		if out := step(p, from(n, told)); len(out.Emits) > 0 {
			t.Errorf("the old set and one of the new: %+v", out)
		}
	}
	if out := step(p, from("d", told)); len(out.Emits) != 1 {
		t.Errorf("both sets: %+v", out)
	}
}

// A ballot belongs to an epoch: when that is over, the proposer begins a higher ballot among the acceptors of
// the next, and answers of the old epoch do not count.
func TestBallotsBelongToEpochs(t *testing.T) {
	first, both, last := epochs()
	p := epochProposer(first)
	step(p, protocol.Input{Value: paxos.Propose[value]{Value: "v"}})
	if out := step(p, from("b", paxos.Outdated[value]{Epoch: last})); len(out.Sends) != 3 || out.Sends[0].To != "b" || p.Proposer.Ballot != in(last, b(1, "p")) {
		t.Errorf("%+v", out)
	}
	if out := step(p, from("b", paxos.Outdated[value]{Epoch: both})); !out.Empty() {
		t.Errorf("an epoch that is over: %+v", out)
	}
	old := dated(both, paxos.Phase1b[value]{Instance: paxos.Topic, Ballot: in(last, b(1, "p"))})
	step(p, from("b", old))
	if out := step(p, from("c", old)); !out.Empty() {
		t.Errorf("promises of another epoch: %+v", out)
	}
}

// An acceptor refuses what is of an earlier epoch than it knows, after a restart, too.
func TestAcceptorKnowsTheEpoch(t *testing.T) {
	first, both, _ := epochs()
	a := &paxos.EpochAcceptor[value]{Acceptor: paxos.Acceptor[value]{Instance: paxos.Topic, Owner: "p"}}
	out := step(a, from("m", paxos.Begin[value]{Epoch: both}))
	if len(out.Writes) != 1 || len(out.Sends) != 1 {
		t.Fatalf("%+v", out)
	}
	again := &paxos.EpochAcceptor[value]{Acceptor: paxos.Acceptor[value]{Instance: paxos.Topic, Owner: "p"}}
	step(again, protocol.Recover{Records: protocol.Records{out.Writes[0].Key: out.Writes[0].Record}})
	write := dated(first, paxos.Phase2a[value]{Instance: paxos.Topic, Ballot: b(0, "p"), Value: "v"})
	for _, x := range []*paxos.EpochAcceptor[value]{a, again} {
		out := step(x, from("p", write))
		if _, ok := out.Sends[0].Message.(paxos.Outdated[value]); !ok || len(out.Writes) > 0 {
			t.Errorf("%+v", out)
		}
	}
}

// The mover waits for a read quorum of the old acceptors, has decided what they have accepted, and only then
// has the last epoch begun.
func TestMoverSettlesFirst(t *testing.T) {
	first, both, last := epochs()
	m := &paxos.Mover[value]{Both: both, After: last, Proposer: paxos.NewEpochProposer(paxos.Proposer[value]{Instance: paxos.Topic, Self: "m"}, both)}
	step(m, protocol.Input{Value: paxos.Move[value]{}})
	step(m, from("a", paxos.Begun[value]{Epoch: both}))
	if out := step(m, protocol.Expire{Timer: paxos.MoveTimer}); len(out.Sends) != 2 {
		t.Errorf("it repeats what was not answered: %+v", out)
	}
	out := step(m, from("b", paxos.Begun[value]{Epoch: both, Accepted: in(first, b(0, "p")), Value: "v"}))
	if m.State != paxos.MoverSettling || len(out.Sends) != 4 {
		t.Fatalf("%v: %+v", m.State, out)
	}
	promise := dated(both, paxos.Phase1b[value]{Instance: paxos.Topic, Ballot: in(both, b(1, "m"))})
	accept := dated(both, paxos.Phase2b[value]{Instance: paxos.Topic, Ballot: in(both, b(1, "m")), Value: "v"})
	for _, n := range []protocol.NodeID{"b", "c"} {
		step(m, from(n, promise))
	}
	step(m, from("b", accept))
	out = step(m, from("c", accept))
	if m.State != paxos.MoverDone || len(out.Sends) != 3 {
		t.Errorf("%v: %+v", m.State, out)
	}
	if v, _ := m.Learned(); v != "v" {
		t.Errorf("decided %v", v)
	}
}

// A ballot of a later epoch is the higher: what an acceptor that was away since has accepted in an earlier one
// is not what a proposer goes on with, however high its round.
func TestLaterEpochsOutrank(t *testing.T) {
	first, both, last := epochs()
	p := epochProposer(last)
	p.Proposer.Owner = false
	step(p, protocol.Input{Value: paxos.Propose[value]{Value: "own"}})
	promise := func(accepted paxos.Ballot, v value) paxos.Dated[value] {
		return dated(last, paxos.Phase1b[value]{Instance: paxos.Topic, Ballot: in(last, b(1, "p")), Accepted: accepted, Value: v})
	}
	step(p, from("b", promise(in(first, b(9, "old")), "stale")))
	step(p, from("c", promise(in(both, b(1, "new")), "decided")))
	if p.Proposer.State != paxos.ProposerWriting || p.Proposer.Value != "decided" {
		t.Errorf("%v of %q", p.Proposer.State, p.Proposer.Value)
	}
}

// Ballot 0 has no phase 1. An acceptor that has promised or accepted in an earlier epoch refuses it in a later
// one: what was decided may be with it alone.
func TestBallotZeroYields(t *testing.T) {
	first, both, _ := epochs()
	write := func(e paxos.Epoch) protocol.Event {
		return from("p", dated(e, paxos.Phase2a[value]{Instance: paxos.Topic, Ballot: in(e, b(0, "p")), Value: "v"}))
	}
	for what, before := range map[string]protocol.Event{
		"promised": from("q", dated(first, paxos.Phase1a[value]{Instance: paxos.Topic, Ballot: in(first, b(1, "q"))})),
		"accepted": write(first),
	} {
		a := &paxos.EpochAcceptor[value]{Acceptor: paxos.Acceptor[value]{Instance: paxos.Topic, Owner: "p"}}
		step(a, before)
		out := step(a, write(both))
		if d, ok := out.Sends[0].Message.(paxos.Dated[value]); !ok || d.Refused == nil || a.Acceptor.Accepted.Epoch == both.Number {
			t.Errorf("%s before: %+v", what, out)
		}
	}
	if got := in(both, b(3, "p")).String() + " " + b(3, "p").String(); got != "2:3.p 3.p" {
		t.Errorf("ballots are written %q", got)
	}
}

func TestEpochMachines(t *testing.T) {
	codec, err := protocol.NewCodec(append(paxos.Types[value]("string"), paxos.EpochTypes[value]("string")...)...)
	if err != nil {
		t.Fatal(err)
	}
	first, both, last := epochs()
	events := []protocol.Event{protocol.Start{}, protocol.Expire{Timer: paxos.RetryTimer}, protocol.Expire{Timer: paxos.MoveTimer},
		protocol.Recover{Records: protocol.Records{paxos.EpochKey: paxos.EpochRecord[value]{Epoch: both}}},
		protocol.Input{Value: paxos.Propose[value]{Value: "v"}}, protocol.Input{Value: paxos.Move[value]{}}}
	for _, node := range []protocol.NodeID{"p", "m", "a", "b", "d"} {
		for _, e := range []paxos.Epoch{first, both, last} {
			for _, ballot := range []paxos.Ballot{in(e, b(0, "p")), in(e, b(1, "p")), in(e, b(1, "m"))} {
				events = append(events, from(node, paxos.Begun[value]{Epoch: e, Accepted: ballot, Value: "u"}),
					from(node, dated(e, paxos.Phase1a[value]{Instance: paxos.Topic, Ballot: ballot})),
					from(node, dated(e, paxos.Phase1b[value]{Instance: paxos.Topic, Ballot: ballot})),
					from(node, dated(e, paxos.Phase2a[value]{Instance: paxos.Topic, Ballot: ballot, Value: "v"})),
					from(node, dated(e, paxos.Phase2b[value]{Instance: paxos.Topic, Ballot: ballot, Value: "v"})),
					from(node, dated(e, paxos.Refused[value]{Instance: paxos.Topic, Ballot: ballot, Promised: b(2, "q")})))
			}
			events = append(events, from(node, paxos.Begin[value]{Epoch: e}), from(node, paxos.Outdated[value]{Epoch: e}), from(node, paxos.Dated[value]{Epoch: e}))
		}
	}
	protocoltest.Run(t, protocoltest.Subject{
		New: []func() protocol.Machine{
			func() protocol.Machine { return epochProposer(first) },
			func() protocol.Machine {
				return &paxos.EpochAcceptor[value]{Acceptor: paxos.Acceptor[value]{Instance: paxos.Topic, Owner: "p"}}
			},
			func() protocol.Machine {
				return &paxos.Mover[value]{Both: both, After: last, Tells: []protocol.NodeID{"p"},
					Proposer: paxos.NewEpochProposer(paxos.Proposer[value]{Instance: paxos.Topic, Self: "m"}, both)}
			},
		},
		Events: events, Codec: codec,
	})
}

func TestMovingSystemsThatCannotBe(t *testing.T) {
	for _, m := range []paxos.Moving{{}, {Proposers: 1, Movers: 1}, {Proposers: 1, Movers: 5, Old: []int{1}, New: []int{2}},
		{Proposers: 1, Movers: 1, Old: []int{1}, New: []int{2}, Lean: true}} {
		if _, err := m.Nodes(); !errors.Is(err, paxos.ErrSystem) {
			t.Errorf("%+v: %v", m, err)
		}
	}
}
