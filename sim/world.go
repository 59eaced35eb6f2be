package sim

import (
	"fmt"
	"time"

	"assent/protocol"
	"assent/spec"
	"assent/trace"
)

// world is a run of a System.
type world struct {
	*Run
	sys   *System
	nodes []*node
	byID  map[protocol.NodeID]*node
	// script says that a script and not the plan brings about what happens.
	script *script
}

var _ spec.View = (*world)(nil)

func newWorld(sys *System, plan Plan, observer trace.Observer) (*world, error) {
	if err := sys.validate(plan); err != nil {
		return nil, err
	}
	w := &world{sys: sys, byID: map[protocol.NodeID]*node{}}
	var ids []protocol.NodeID
	for i, decl := range sys.Nodes {
		n := &node{w: w, decl: decl, index: i, disk: NewDisk(sys.Codec)}
		w.nodes = append(w.nodes, n)
		w.byID[decl.ID] = n
		ids = append(ids, decl.ID)
	}
	w.Run = NewRun(plan, observer, sys.Codec, ids, w.arrive)
	return w, nil
}

// run takes the world through its two phases.
func (w *world) run() {
	w.Begin(w.strike)
	for i, n := range w.nodes { // in this order
		w.Line.After(time.Duration(i), func() { w.begin(n, protocol.Start{}) })
	}
	for w.Going() && w.Line.Next(w.Plan.Safety) {
		w.judge()
	}
	w.heal()
	w.judge()
	end := w.Plan.Safety + w.Plan.Bound
	w.Line.After(w.Plan.Bound/3, w.nudge)
	for w.Going() && !w.ended() {
		if !w.Line.Next(end) {
			break
		}
		w.judge()
	}
	if w.Going() && !w.ended() && (w.sys.Excused == nil || !w.sys.Excused(w)) {
		w.Broken(Ended, fmt.Sprintf("not at their end: %v", w.unfinished()))
	}
}

// begin makes a node's machine for the first time, in the way that the plan says.
func (w *world) begin(n *node, first protocol.Event) {
	if n.began {
		return
	}
	way := 0
	if n.index < len(w.Plan.Begin) {
		way = w.Plan.Begin[n.index]
	}
	n.start(n.decl.New[way](), first)
}

// strike lets a fault that is a node's begin.
func (w *world) strike(f *Fault) {
	n := w.byID[f.Node]
	if n == nil {
		return
	}
	switch f.Class {
	case Crash:
		if f.Sends >= 0 {
			n.fuse.Set(f.Sends)
			break
		}
		if n.life != nil {
			w.Fire(Crash)
			w.down(n, -1)
		}
	case DiskFull, FailedSync, TornWrite:
		if n.life != nil {
			n.disk.Ail(f)
			w.Tell(trace.Event{Node: n.decl.ID, Kind: trace.Damage, Value: damageText(f)})
		}
	case Corruption:
		w.down(n, -1)
		if n.disk.Corrupt(mix(w.Plan.Seed ^ uint64(f.At))) {
			w.Tell(trace.Event{Node: n.decl.ID, Kind: trace.Damage, Value: fmt.Sprintf("corrupt %d", n.disk.damage)})
		}
	case Whim:
		if n.life != nil && f.Sends < len(n.decl.Inputs) {
			w.Fire(Whim)
			n.life.loop.Deliver(protocol.Input{Value: n.decl.Inputs[f.Sends]})
		}
	}
}

// damageText names what is wrong with a disk: the Value of a Damage event.
func damageText(f *Fault) string { return fmt.Sprintf("%s %d", f.Class, f.Rate) }

const repaired = "repaired"

// down crashes the node, which comes back after a while.
func (w *world) down(n *node, sent int) {
	if n.life == nil {
		return
	}
	n.crash(sent)
	if w.script != nil {
		return
	}
	w.Line.After(w.Outage(n.decl.ID, busyTime), func() { n.anew() })
}

// heal ends the phase of safety: faults are over, disks repaired, and whoever is down comes back.
func (w *world) heal() {
	w.Heal()
	w.Net.recut()
	for _, n := range w.nodes {
		n.fuse = Fuse{}
		if n.disk.Repair() {
			n.refused = false
			w.Tell(trace.Event{Node: n.decl.ID, Kind: trace.Damage, Value: repaired})
		}
		w.Line.After(0, func() { n.anew() })
	}
}

// ended reports whether every machine has come to its end.
func (w *world) ended() bool { return len(w.unfinished()) == 0 }

// nudge gives whoever is not at its end by now each of its inputs, once: what the world outside may do
// at any time it must do at last. A participant that nobody has asked for a vote is given up so.
func (w *world) nudge() {
	for i, n := range w.nodes {
		for _, v := range n.decl.Inputs {
			if n.life != nil && w.sys.Done != nil && !w.sys.Done(i, n.life.machine) {
				n.life.loop.Deliver(protocol.Input{Value: v})
			}
		}
	}
}

// unfinished names the nodes that have not come to their end.
func (w *world) unfinished() (ids []protocol.NodeID) {
	for i, n := range w.nodes {
		if w.sys.Done != nil && (n.life == nil || !w.sys.Done(i, n.life.machine)) {
			ids = append(ids, n.decl.ID)
		}
	}
	return ids
}

// judge puts the claims to the test in the present state.
func (w *world) judge() {
	if !w.Going() {
		return
	}
	for _, p := range w.sys.Always {
		if !p.Holds(w) {
			w.Broken(p.Name, "")
			return
		}
	}
	for _, p := range w.sys.Sometimes {
		if w.reached[p.Name] == 0 && p.Holds(w) {
			w.Reach(p.Name)
		}
	}
	w.Bound(maxEvents)
}

// send hands p to the network, or keeps it for the script.
func (w *world) send(p Packet) error {
	if w.script != nil {
		return w.script.sent(p)
	}
	return w.Net.Send(p)
}

// timer arms a timer, or keeps it for the script.
func (w *world) timer(l *life, name string, d time.Duration, fire func()) (cancel func()) {
	if w.script != nil {
		return w.script.armed(l, name, fire)
	}
	return w.Line.After(d, fire)
}

// arrive delivers a packet.
func (w *world) arrive(p Packet) bool {
	n := w.byID[p.To]
	if n.life == nil {
		return false
	}
	w.Arriving = p.Number
	n.life.loop.Deliver(protocol.Receive{From: p.From, Message: p.Message})
	return true
}

func (w *world) report() Report {
	r := w.Report()
	r.Unfinished = w.unfinished()
	return r
}

// Nodes implements spec.View.
func (w *world) Nodes() int { return len(w.nodes) }

// Machine implements spec.View.
func (w *world) Machine(i int) protocol.Machine {
	if l := w.nodes[i].life; l != nil {
		return l.machine
	}
	return nil
}

// Record implements spec.View.
func (w *world) Record(i int, key string) protocol.Record { return w.nodes[i].disk.Record(key) }
