package check

import (
	"maps"
	"slices"

	"assent/protocol"
	"assent/trace"
)

// rerun makes a way into a trace. It runs the machines anew, without what the search remembers of
// them, so the trace is of the machines themselves.
type rerun struct {
	x        *explorer
	machines []protocol.Machine // nil while down
	records  []protocol.Records
	copies   map[uint32][]uint64 // of the messages under way, by number: the numbers of their copies
	last     uint64              // number of a copy
	events   []trace.Event
	err      error
}

func (x *explorer) rerun(initial state, begins []int, steps []moved) ([]trace.Event, error) {
	r := &rerun{x: x, copies: map[uint32][]uint64{}, machines: make([]protocol.Machine, len(begins)),
		records: make([]protocol.Records, len(begins))}
	for i, way := range begins {
		r.machines[i] = x.sys.Nodes[i].New[way]()
		if x.local(initial.tuple[i]).started { // to which Start means nothing
			r.step(i, protocol.Start{}, 0, nil)
		}
	}
	for _, s := range steps {
		r.move(s)
		r.lose(s.after)
	}
	return r.events, r.err
}

func (r *rerun) tell(node int, kind trace.Kind, peer protocol.NodeID, value any, message uint64) {
	r.events = append(r.events, trace.Event{Node: r.x.sys.Nodes[node].ID, Kind: kind, Peer: peer, Value: value, Message: message})
}

func (r *rerun) move(s moved) {
	a := s.action
	switch a.kind {
	case partitioned, severed, healed:
		r.turn(s)
	case crashed:
		r.tell(a.node, trace.Crash, "", nil, 0)
		r.machines[a.node] = nil
	case lost, dropped: // lose will find it
	case altered:
		r.alter(a)
	default:
		r.take(s)
	}
}

// turn tells which links are cut or whole now.
func (r *rerun) turn(s moved) {
	n := len(r.machines)
	before, after := r.x.worlds.get(s.before.tuple[n]), r.x.worlds.get(s.after.tuple[n])
	for to := range n {
		for from := range n {
			was, is := before.severed(from, to), after.severed(from, to)
			switch {
			case is && !was:
				r.tell(to, trace.Cut, r.x.sys.Nodes[from].ID, nil, 0)
			case was && !is:
				r.tell(to, trace.Heal, r.x.sys.Nodes[from].ID, nil, 0)
			}
		}
	}
}

// copyOf returns the number of a copy of a message that is under way, and takes it off the network.
// Where messages stay under way for ever, a copy is made if there is none.
func (r *rerun) copyOf(number uint32) uint64 {
	if all := r.copies[number]; len(all) > 0 {
		r.copies[number] = all[1:]
		return all[0]
	}
	r.duplicate(number)
	return r.copyOf(number)
}

func (r *rerun) duplicate(number uint32) {
	m := r.x.messages.get(number)
	r.last++
	r.copies[number] = append(r.copies[number], r.last)
	r.tell(m.to, trace.Duplicate, r.x.sys.Nodes[m.from].ID, m.value, r.last)
}

func (r *rerun) alter(a action) {
	number := uint32(a.t)
	if r.x.forever {
		r.duplicate(number) // the true one stays
	}
	all := r.copies[number]
	altered := all[len(all)-1]
	r.copies[number] = all[:len(all)-1]
	r.copies[a.lie] = append(r.copies[a.lie], altered)
	m := r.x.messages.get(a.lie)
	r.tell(m.to, trace.Alter, r.x.sys.Nodes[m.from].ID, m.value, altered)
}

// take gives a machine the event that an action stands for.
func (r *rerun) take(s moved) {
	x, a := r.x, s.action
	before := x.local(s.before.tuple[a.node])
	var number uint64
	var ev protocol.Event
	switch {
	case a.t.message():
		if a.kind == duplicated {
			r.duplicate(uint32(a.t))
		}
		number = r.copyOf(uint32(a.t))
		m := x.messages.get(uint32(a.t))
		ev = protocol.Receive{From: x.sys.Nodes[m.from].ID, Message: m.value}
	case a.t == triggerRestart:
		r.machines[a.node] = x.anew(a.node)
		ev = protocol.Recover{Records: maps.Clone(r.records[a.node])}
	default:
		ev = x.event(before, a.t, &snapshot{})
	}
	if a.kind != cut {
		r.step(a.node, ev, number, nil)
		return
	}
	result, err := x.step(before, a.t)
	if err != nil {
		r.err = err
		return
	}
	r.step(a.node, ev, number, func(m uint32) bool {
		i := slices.Index(result.sends, m)
		return i >= 0 && a.sent>>i&1 != 0
	})
}

// step steps a machine and tells of it. When left is given, the node crashes within the step: when
// the last of the messages has left for which left holds. Those before it for which it does not hold
// are lost on their way, which comes to the same.
func (r *rerun) step(node int, ev protocol.Event, number uint64, left func(uint32) bool) {
	var out protocol.Effects
	r.tell(node, trace.Deliver, "", ev, number)
	r.machines[node].Step(ev, &out)
	r.records[node] = applyWrites(r.records[node], out.Writes)
	sends := make([]uint32, len(out.Sends))
	sent := len(sends)
	if left != nil {
		sent = 0
	}
	for i, s := range out.Sends {
		sends[i], r.err = r.x.internSend(node, s)
		if r.err != nil {
			return
		}
		if left != nil && left(sends[i]) {
			sent = i + 1
		}
	}
	if len(out.Writes) > 0 {
		r.tell(node, trace.Force, "", out.Writes, 0)
		r.tell(node, trace.Forced, "", out.Writes, 0)
	}
	for _, t := range out.Timers {
		r.tell(node, trace.Timer, "", t, 0)
	}
	for i, s := range out.Sends[:sent] {
		r.last++
		r.tell(node, trace.Send, s.To, s.Message, r.last)
		r.copies[sends[i]] = append(r.copies[sends[i]], r.last)
	}
	if left != nil && sent < len(sends) {
		r.tell(node, trace.Crash, "", trace.Sent(sent), 0)
		r.machines[node] = nil
		return
	}
	for _, v := range out.Emits {
		r.tell(node, trace.Emit, "", v, 0)
	}
	r.tell(node, trace.Stepped, "", ev, 0)
	if left != nil { // all have left, though some will be lost
		r.tell(node, trace.Crash, "", nil, 0)
		r.machines[node] = nil
	}
}

// lose tells of the copies that are on their way no more in the state that was reached.
func (r *rerun) lose(s state) {
	there := map[uint32]int{}
	r.x.eachMessage(s, func(m uint32) { there[m]++ })
	for _, number := range slices.Sorted(maps.Keys(r.copies)) {
		m := r.x.messages.get(number)
		for r.x.forever && there[number] == 0 && len(r.copies[number]) > 0 || !r.x.forever && len(r.copies[number]) > there[number] {
			all := r.copies[number]
			r.copies[number] = all[1:]
			r.tell(m.to, trace.Lose, r.x.sys.Nodes[m.from].ID, m.value, all[0])
		}
	}
}
