package sim

import (
	"hash/fnv"
	"time"

	"assent/protocol"
	"assent/trace"
)

// Packet is one copy of a message on its way.
type Packet struct {
	// Number is its own, from 1.
	Number   uint64
	Scope    string
	From, To protocol.NodeID
	Message  protocol.Message
}

// Network carries packets between nodes, as well as the faults of a plan let it. Without a fault a
// packet takes 1 to 10 milliseconds, and the packets of one link arrive in the order in which they
// left. It is for one goroutine.
type Network struct {
	Line  *Timeline
	Plan  *Plan
	Codec *protocol.Codec
	// Nodes are those whose links can be cut.
	Nodes []protocol.NodeID
	// Arrive takes a packet that has arrived and reports whether anybody was there.
	Arrive func(Packet) bool
	// Observe is told what the network does to packets and links.
	Observe func(trace.Event)
	// Fired counts what faults have done, by class.
	Fired map[Class]int

	count uint64
	links map[link]*linkState
}

type link struct{ from, to protocol.NodeID }

type linkState struct {
	hash      uint64
	count     uint64
	last      time.Duration // when the last packet in order arrives
	delivered uint64        // the greatest number of a packet that has arrived
	cut       bool
}

// The times that a packet takes without a fault.
const (
	leastLatency = time.Millisecond
	mostLatency  = 10 * time.Millisecond
)

// mostCopies bounds the copies of a packet, whatever the number of faults: each may be answered, and the
// answers be repeated again.
const mostCopies = 4

// Start plans the cuts.
func (n *Network) Start() {
	n.links = map[link]*linkState{}
	for i := range n.Plan.Faults {
		f := &n.Plan.Faults[i]
		if f.Class != Partition && f.Class != OneWay && f.Class != Flapping {
			continue
		}
		step := f.For
		if f.Class == Flapping {
			step = f.period()
		}
		for at := f.At; at < f.At+f.For; at += max(step, time.Millisecond) {
			n.Line.After(at-n.Line.Now(), n.recut)
		}
		n.Line.After(f.At+f.For-n.Line.Now(), n.recut)
	}
}

// recut finds out which links are cut now, and tells of those for which that is new.
func (n *Network) recut() {
	for _, from := range n.Nodes {
		for _, to := range n.Nodes {
			if from == to {
				continue
			}
			state, cut := n.state(from, to), n.cutNow(from, to) != 0
			if cut == state.cut {
				continue
			}
			state.cut = cut
			kind := trace.Heal
			if cut {
				kind = trace.Cut
			}
			n.Observe(trace.Event{Kind: kind, Node: to, Peer: from})
		}
	}
}

// cutNow returns the class of the fault that cuts the link, or 0.
func (n *Network) cutNow(from, to protocol.NodeID) Class {
	for i := range n.Plan.Faults {
		if f := &n.Plan.Faults[i]; f.cuts(from, to, n.Line.Now()) {
			return f.Class
		}
	}
	return 0
}

func (n *Network) state(from, to protocol.NodeID) *linkState {
	s := n.links[link{from, to}]
	if s == nil {
		h := fnv.New64a()
		_, _ = h.Write([]byte(from + "\x00" + to)) // it never fails
		s = &linkState{hash: mix(h.Sum64() ^ mix(n.Plan.Seed))}
		n.links[link{from, to}] = s
	}
	return s
}

// Number returns the number of the next packet that is sent.
func (n *Network) Number() uint64 { return n.count + 1 }

// Send sends p, whose number it sets. What becomes of it is found out when the step of its sender is
// over. Where the message cannot be encoded Send returns an error.
func (n *Network) Send(p Packet) error {
	copied, err := Copy(n.Codec, p.Message)
	if err != nil {
		return err
	}
	n.count++
	p.Number, p.Message = n.count, copied
	n.Line.After(0, func() { n.forward(p) })
	return nil
}

// forward lets the faults have their way with p, and carries what they leave.
func (n *Network) forward(p Packet) {
	state := n.state(p.From, p.To)
	state.count++
	c := chance{seed: state.hash, count: state.count}
	copies := 1
	for i := range n.Plan.Faults {
		f := &n.Plan.Faults[i]
		if !f.active(n.Line.Now()) || !f.on(p.From, p.To) {
			continue
		}
		switch f.Class {
		case Loss:
			if c.percent(i, f.Rate) {
				n.lose(Loss, p)
				return
			}
		case Garbling:
			if c.percent(i, f.Rate) {
				n.garble(p, c)
				return
			}
		case Lying:
			if lie, ok := lieAbout(p.Message, c.draw(1000+i)); ok && c.percent(i, f.Rate) {
				p.Message = lie
				n.fire(Lying)
				n.tell(trace.Alter, p)
			}
		case Duplication:
			if c.percent(i, f.Rate) {
				copies = min(copies+1, mostCopies)
			}
		}
	}
	n.carry(p, state, c)
	for k := 1; k < copies; k++ {
		n.count++
		p.Number = n.count
		n.fire(Duplication)
		n.tell(trace.Duplicate, p)
		n.carry(p, state, chance{seed: state.hash, count: state.count, copy: k})
	}
}

// carry plans the arrival of p.
func (n *Network) carry(p Packet, state *linkState, c chance) {
	now := n.Line.Now()
	takes := leastLatency + c.time(0, mostLatency-leastLatency)
	ordered := true
	for i := range n.Plan.Faults {
		f := &n.Plan.Faults[i]
		if !f.active(now) {
			continue
		}
		switch {
		case f.Class == Delay && f.on(p.From, p.To):
			takes += f.By/2 + c.time(2000+i, f.By/2)
			n.fire(Delay)
		case f.Class == Reordering && f.on(p.From, p.To):
			takes += c.time(3000+i, f.By)
			ordered = false
		case f.Class == Slow && f.Node == p.To:
			takes += c.time(4000+i, f.By)
			n.fire(Slow)
		}
	}
	at := now + takes
	if ordered {
		at = max(at, state.last)
		state.last = at
	}
	n.Line.After(at-now, func() { n.arrive(p, state) })
}

func (n *Network) arrive(p Packet, state *linkState) {
	if c := n.cutNow(p.From, p.To); c != 0 {
		n.lose(c, p)
		return
	}
	if p.Number < state.delivered {
		n.fire(Reordering)
	}
	state.delivered = max(state.delivered, p.Number)
	if !n.Arrive(p) {
		n.tell(trace.Lose, p)
	}
}

// garble damages the encoding of p and sees that nobody can take it for a message.
func (n *Network) garble(p Packet, c chance) {
	data, err := n.Codec.Encode(p.Message)
	if err == nil {
		data = data[:c.draw(5000)%uint64(len(data))]
	}
	v, err := n.Codec.Decode(data)
	if err != nil {
		n.lose(Garbling, p)
		return
	}
	p.Message = v // it is a message after all: whoever gets it must bear it
	n.fire(Garbling)
	n.tell(trace.Alter, p)
	n.carry(p, n.state(p.From, p.To), c)
}

func (n *Network) lose(c Class, p Packet) {
	n.fire(c)
	n.tell(trace.Lose, p)
}

func (n *Network) fire(c Class) { n.Fired[c]++ }

func (n *Network) tell(kind trace.Kind, p Packet) {
	n.Observe(trace.Event{Scope: p.Scope, Node: p.To, Kind: kind, Peer: p.From, Value: p.Message, Message: p.Number})
}

// chance draws what becomes of one packet. It depends on the seed, the link and the packet's place
// among the packets of the link alone, so that what happens elsewhere does not change it.
type chance struct {
	seed, count uint64
	copy        int
}

func (c chance) draw(what int) uint64 {
	return mix(c.seed ^ mix(c.count<<20^uint64(c.copy)<<16^uint64(what)))
}

func (c chance) percent(what, rate int) bool { return int(c.draw(what)%100) < rate }

// time draws a time up to most, in microseconds.
func (c chance) time(what int, most time.Duration) time.Duration {
	if most < time.Microsecond {
		return 0
	}
	return time.Duration(c.draw(what)%uint64(most/time.Microsecond)) * time.Microsecond
}

// mix is the final mix of splitmix64 (Steele, Lea and Flood 2014).
func mix(h uint64) uint64 {
	h += 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// Copy returns a value equal to v, of a registered type, that shares nothing with it.
func Copy(codec *protocol.Codec, v any) (any, error) {
	data, err := codec.Encode(v)
	if err != nil {
		return nil, err
	}
	return codec.Decode(data)
}
