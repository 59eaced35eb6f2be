// Package detector suspects processes that have failed, by their silence (Chandra and Toueg 1996).
//
// It promises completeness: a node that stays down comes to be suspected by every node that watches
// it and is up. Its accuracy is eventual: it may suspect a node that is merely slow, takes that
// back when it hears of the node, and is then more patient with it; so if delays are bounded at
// all, mistakes come to an end. Nothing may rest on a suspicion being right: it only says who is
// worth waiting for.
//
// A machine reads no clock. It counts ticks of its own timer, and all times are rounded to them.
package detector

import (
	"slices"
	"time"

	"assent/protocol"
)

// The messages.
type (
	// Heartbeat says that the sender is up. Everybody → everybody.
	Heartbeat struct{}
	// Probe asks whether the receiver is up.
	Probe struct{}
)

// Suspect is emitted when a node has been silent for too long.
type Suspect struct{ Node protocol.NodeID }

// Trust is emitted when a suspected node is heard of again: the suspicion was a mistake, or the
// node is back.
type Trust struct{ Node protocol.NodeID }

// Timer is the one timer of a Detector.
const Timer = "tick"

// MaxPeers is the greatest number of peers that one Detector watches.
const MaxPeers = 256

// window is how many of the last intervals between signs of life are remembered.
const window = 32

// Options are a detector's times. They are part of its state. The zero value means the defaults.
type Options struct {
	// Tick is how often a detector looks: the grain of all its times. Defaults to 100 ms.
	Tick time.Duration `cbor:",omitempty" json:",omitempty"`
	// Beat is the number of ticks from one heartbeat to the next. Defaults to 5.
	Beat int `cbor:",omitempty" json:",omitempty"`
	// Probe sends probes instead of heartbeats: only those that are watched then need to answer,
	// and those that nobody watches send nothing.
	Probe bool `cbor:",omitempty" json:",omitempty"`
	// Timeout is the number of silent ticks after which a node is suspected. Defaults to four
	// times Beat.
	Timeout int `cbor:",omitempty" json:",omitempty"`
	// Phi, if it is not 0, adapts the timeout to the intervals seen: a node is suspected when the
	// level of suspicion (see Phi) reaches it. Usual values are 8 to 12. Until four intervals
	// have been seen, and never for less than one Beat, Timeout applies.
	Phi int `cbor:",omitempty" json:",omitempty"`
	// Widen is the number of ticks by which the timeout of a node grows with each mistake about
	// it. Defaults to Beat.
	Widen int `cbor:",omitempty" json:",omitempty"`
	// Most bounds the timeout, in ticks, however many the mistakes. Defaults to 100 times Beat.
	// Delays beyond it are mistaken for failures again and again.
	Most int `cbor:",omitempty" json:",omitempty"`
}

func (o Options) withDefaults() Options {
	set := func(n *int, to int) {
		if *n <= 0 {
			*n = to
		}
	}
	if o.Tick <= 0 {
		o.Tick = 100 * time.Millisecond
	}
	set(&o.Beat, 5)
	set(&o.Timeout, 4*o.Beat)
	set(&o.Widen, o.Beat)
	set(&o.Most, 100*o.Beat)
	o.Most = max(o.Most, o.Timeout)
	return o
}

// Peer is what a detector knows of one node.
type Peer struct {
	Node protocol.NodeID
	// Silent is the number of ticks since the last sign of life. It stops at Options.Most + 1.
	Silent    int  `cbor:",omitempty" json:",omitempty"`
	Suspected bool `cbor:",omitempty" json:",omitempty"`
	// Mistakes is how often a suspicion was taken back. It stops where the timeout does.
	Mistakes int `cbor:",omitempty" json:",omitempty"`
	// Intervals are the last intervals between signs of life, in ticks, oldest first. They are
	// kept where Options.Phi is set.
	Intervals []int `cbor:",omitempty" json:",omitempty"`
}

// Detector watches peers, and lets them watch its node.
type Detector struct {
	Peers   []Peer
	Options Options
	// Beats counts down the ticks to the next heartbeat.
	Beats int `cbor:",omitempty" json:",omitempty"`
}

// New returns a detector that watches nodes.
func New(nodes []protocol.NodeID, options Options) *Detector {
	d := &Detector{Options: options}
	for _, n := range nodes {
		d.Peers = append(d.Peers, Peer{Node: n})
	}
	return d
}

// Step takes Start, Recover, its timer, and messages. Any message of a peer is a sign of life, so an
// executor may hand a detector what is meant for others, too.
func (d *Detector) Step(ev protocol.Event, out *protocol.Effects) {
	o := d.Options.withDefaults()
	switch ev := ev.(type) {
	case protocol.Start, protocol.Recover:
		d.tick(o, out)
	case protocol.Expire:
		if ev.Timer == Timer {
			for i := range d.Peers {
				d.wait(&d.Peers[i], o, out)
			}
			d.tick(o, out)
		}
	case protocol.Receive:
		if _, ok := ev.Message.(Probe); ok {
			out.Send(ev.From, Heartbeat{})
		}
		if i := d.place(ev.From); i >= 0 {
			d.heard(&d.Peers[i], o, out)
		}
	}
}

func (d *Detector) place(node protocol.NodeID) int {
	return slices.IndexFunc(d.Peers, func(p Peer) bool { return p.Node == node })
}

// tick arms the timer and, when it is time, gives a sign of life or asks for one.
func (d *Detector) tick(o Options, out *protocol.Effects) {
	out.Arm(Timer, o.Tick)
	if d.Beats--; d.Beats > 0 {
		return
	}
	d.Beats = o.Beat
	for _, p := range d.Peers {
		if o.Probe {
			out.Send(p.Node, Probe{})
		} else {
			out.Send(p.Node, Heartbeat{})
		}
	}
}

func (d *Detector) wait(p *Peer, o Options, out *protocol.Effects) {
	p.Silent = min(p.Silent+1, o.Most+1)
	if !p.Suspected && p.overdue(o) {
		p.Suspected = true
		out.Emit(Suspect{Node: p.Node})
	}
}

func (d *Detector) heard(p *Peer, o Options, out *protocol.Effects) {
	if o.Phi > 0 && p.Silent > 0 { // two signs within one tick tell nothing of the rhythm
		p.Intervals = append(slices.Clone(p.Intervals[max(0, len(p.Intervals)+1-window):]), p.Silent)
	}
	p.Silent = 0
	if !p.Suspected {
		return
	}
	p.Suspected = false
	if o.Timeout+p.Mistakes*o.Widen < o.Most {
		p.Mistakes++
	}
	out.Emit(Trust{Node: p.Node})
}

func (p *Peer) overdue(o Options) bool {
	slack := p.Mistakes * o.Widen
	if p.Silent > o.Most {
		return true
	}
	if o.Phi > 0 && len(p.Intervals) >= 4 {
		return p.Silent > o.Beat && p.level(p.Silent-slack) >= float64(o.Phi)
	}
	return p.Silent >= min(o.Timeout+slack, o.Most)
}

// level returns the level of suspicion after so many silent ticks.
func (p *Peer) level(silent int) float64 {
	mean, deviation := spread(p.Intervals)
	// A rhythm that is too even to be true would make the slightest delay suspicious.
	return Phi(float64(silent), mean, max(deviation, mean/4, 0.5))
}

// Suspected returns the peers that are suspected, in the order in which they were given.
func (d *Detector) Suspected() []protocol.NodeID {
	var nodes []protocol.NodeID
	for _, p := range d.Peers {
		if p.Suspected {
			nodes = append(nodes, p.Node)
		}
	}
	return nodes
}

// Level returns how suspicious the silence of node is, for people: the phi of accrual where
// Options.Phi is set and the rhythm is known, else the share of the timeout that has passed. It is
// 0 for nodes that are not watched.
func (d *Detector) Level(node protocol.NodeID) float64 {
	i := d.place(node)
	if i < 0 {
		return 0
	}
	o, p := d.Options.withDefaults(), d.Peers[i]
	slack := p.Mistakes * o.Widen
	if o.Phi > 0 && len(p.Intervals) >= 4 {
		return p.level(max(0, p.Silent-slack))
	}
	return float64(p.Silent) / float64(min(o.Timeout+slack, o.Most))
}

// Types returns the encodings of this package's states, messages and values.
func Types() []protocol.Type {
	return []protocol.Type{
		{Name: "detector.Detector", Zero: Detector{}},
		{Name: "detector.Heartbeat", Zero: Heartbeat{}},
		{Name: "detector.Probe", Zero: Probe{}},
		{Name: "detector.Suspect", Zero: Suspect{}},
		{Name: "detector.Trust", Zero: Trust{}},
	}
}
