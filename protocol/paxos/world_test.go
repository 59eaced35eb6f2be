package paxos_test

import (
	"math/rand/v2"
	"slices"

	"assent/protocol"
	"assent/protocol/paxos"

	"pgregory.net/rapid"
)

// letter is a message under way.
type letter struct {
	from, to protocol.NodeID
	message  protocol.Message
}

// world runs the nodes of a Consensus under a schedule that the test draws.
type world struct {
	nodes   []protocol.Node
	up      map[protocol.NodeID]protocol.Machine
	records map[protocol.NodeID]protocol.Records
	armed   map[protocol.NodeID]bool
	mail    []letter
	decided map[string]bool // every value that anybody ever emitted
}

func newWorld(nodes []protocol.Node) *world {
	w := &world{nodes: nodes, up: map[protocol.NodeID]protocol.Machine{}, records: map[protocol.NodeID]protocol.Records{},
		armed: map[protocol.NodeID]bool{}, decided: map[string]bool{}}
	for _, n := range nodes {
		w.up[n.ID] = n.New[0]()
		w.records[n.ID] = protocol.Records{}
		w.step(n.ID, protocol.Start{}, -1)
	}
	return w
}

// step carries out what follows, up to the given number of sends; a node that gets no further has
// crashed.
func (w *world) step(id protocol.NodeID, ev protocol.Event, sends int) {
	m := w.up[id]
	if m == nil {
		return
	}
	var out protocol.Effects
	m.Step(ev, &out)
	for _, write := range out.Writes {
		w.records[id][write.Key] = write.Record
	}
	for _, timer := range out.Timers {
		w.armed[id] = timer.After > 0
	}
	for i, s := range out.Sends {
		if i == sends {
			break
		}
		w.mail = append(w.mail, letter{from: id, to: s.To, message: s.Message})
	}
	if sends >= 0 {
		w.crash(id)
		return
	}
	for _, v := range out.Emits {
		w.decided[v.(paxos.Decided[value]).Value] = true
	}
}

func (w *world) crash(id protocol.NodeID) {
	w.up[id] = nil
	w.armed[id] = false
}

func (w *world) restart(n protocol.Node) {
	if w.up[n.ID] == nil {
		w.up[n.ID] = n.New[0]()
		w.step(n.ID, protocol.Recover{Records: w.records[n.ID]}, -1)
	}
}

// randomly lets one thing happen.
func (w *world) randomly(rng *rand.Rand) {
	n := w.nodes[rng.IntN(len(w.nodes))]
	sends := -1
	if rng.IntN(40) == 0 {
		sends = rng.IntN(3)
	}
	switch k := rng.IntN(100); {
	case k < 70 && len(w.mail) > 0:
		i := rng.IntN(len(w.mail))
		l := w.mail[i]
		if rng.IntN(10) > 0 { // else it arrives again
			w.mail = slices.Delete(w.mail, i, i+1)
		}
		if rng.IntN(10) > 0 { // else it is lost
			w.step(l.to, protocol.Receive{From: l.from, Message: l.message}, sends)
		}
	case k < 80 && w.armed[n.ID]:
		w.step(n.ID, protocol.Expire{Timer: paxos.RetryTimer}, sends)
	case k < 90 && len(n.Inputs) > 0:
		w.step(n.ID, protocol.Input{Value: n.Inputs[rng.IntN(len(n.Inputs))]}, sends)
	case k < 93:
		w.crash(n.ID)
	default:
		w.restart(n)
	}
}

// judge holds what was ever emitted and what anybody knows to be decided to be one value.
func (w *world) judge(t *rapid.T) {
	for _, n := range w.nodes {
		if l, ok := w.up[n.ID].(interface{ Learned() (any, bool) }); ok {
			if v, known := l.Learned(); known {
				w.decided[v.(value)] = true
			}
		}
	}
	if len(w.decided) > 1 {
		t.Fatalf("more than one decision: %v", w.decided)
	}
	for v := range w.decided {
		if v == "" {
			t.Fatal("decided what nobody proposed")
		}
	}
}

// settle brings everybody up, lets one proposer alone go on, and wants it and the learner to learn.
func (w *world) settle(t *rapid.T) {
	for _, n := range w.nodes {
		w.restart(n)
	}
	last := w.nodes[0]
	w.step(last.ID, protocol.Input{Value: last.Inputs[0]}, -1)
	for range 40 {
		for len(w.mail) > 0 {
			l := w.mail[0]
			w.mail = w.mail[1:]
			w.step(l.to, protocol.Receive{From: l.from, Message: l.message}, -1)
			w.judge(t)
		}
		if _, ok := w.up[last.ID].(*paxos.Proposer[value]).Learned(); ok {
			return
		}
		w.step(last.ID, protocol.Expire{Timer: paxos.RetryTimer}, -1)
	}
	t.Fatalf("%s came to no end: %+v", last.ID, w.up[last.ID])
}
