package sim

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"

	"assent/protocol"
	"assent/trace"
)

// Run is a run under way, for those who simulate: its plan, its time, its network, and what was seen so far. It is
// for one goroutine, but for Clock.
type Run struct {
	Plan Plan
	Line Timeline
	Net  Network
	// Arriving is the number of the packet that is being delivered, or 0.
	Arriving uint64
	// Smooth says that no call takes long now and then: what Pause is told to draw.
	Smooth bool

	observer trace.Observer
	pauses   map[string]uint64 // how many calls were made, by scope and node
	events   uint64
	fired    map[Class]int
	reached  map[string]int
	failure  *Failure
	err      error
}

// NewRun returns a run of the plan among nodes whose links can be cut. Events are told to the observer, if there is
// one; arrive takes a packet that has arrived, and reports whether anybody was there.
func NewRun(plan Plan, observer trace.Observer, codec *protocol.Codec, nodes []protocol.NodeID, arrive func(Packet) bool) *Run {
	plan.Faults = slices.Clone(plan.Faults) // Heal shortens them
	r := &Run{Plan: plan, observer: observer, pauses: map[string]uint64{}, fired: map[Class]int{}, reached: map[string]int{}}
	r.Net = Network{Line: &r.Line, Plan: &r.Plan, Codec: codec, Nodes: nodes, Arrive: arrive, Observe: r.Tell, Fired: r.fired}
	return r
}

// Begin plans the faults: the network's, and those for which strike is called when they begin.
func (r *Run) Begin(strike func(*Fault)) {
	r.Net.Start()
	for i := range r.Plan.Faults {
		f := &r.Plan.Faults[i]
		r.Line.After(f.At, func() { strike(f) })
	}
}

// Heal ends the phase of safety: no fault lasts any longer.
func (r *Run) Heal() {
	for i := range r.Plan.Faults {
		f := &r.Plan.Faults[i]
		f.For = min(f.For, max(r.Plan.Safety-f.At, 0))
	}
}

// Going reports whether nothing was found wrong so far, and nothing has failed.
func (r *Run) Going() bool { return r.failure == nil && r.err == nil }

// Finish goes on, with judge after whatever happens, until the run has ended or the time is up, and then says what is
// unfinished. To find out whether it has ended may be dear, so that is done once in every step of time.
func (r *Run) Finish(end, step time.Duration, judge func(), ended func() bool, unfinished func() string) {
	for r.Going() && !ended() {
		if r.Line.Now() >= end {
			r.Broken(Ended, unfinished())
			return
		}
		next := min(r.Line.Now()+step, end)
		for r.Going() && r.Line.Next(next) {
			judge()
		}
	}
}

// Active returns a fault of the class that the node has now, or nil.
func (r *Run) Active(c Class, id protocol.NodeID) *Fault {
	for i := range r.Plan.Faults {
		if f := &r.Plan.Faults[i]; f.Class == c && f.Node == id && f.active(r.Line.Now()) {
			return f
		}
	}
	return nil
}

// Outage returns how long a node that has crashed stays down: as long as the last fault says that could have been the
// cause, or else so long, and not beyond the phase of safety.
func (r *Run) Outage(id protocol.NodeID, otherwise time.Duration) time.Duration {
	d := otherwise
	for i := range r.Plan.Faults {
		f := &r.Plan.Faults[i]
		switch f.Class {
		case Crash, DiskFull, FailedSync, TornWrite, Corruption:
			if f.Node == id && f.At <= r.Line.Now() {
				d = f.For
			}
		}
	}
	return min(d, max(r.Plan.Safety-r.Line.Now(), 0))
}

// Pause is how long a call of a node's disk or store takes, or its answer: short, now and then long, and longer where
// the node is slow. It depends on whose call it is and on how many there were before it, and not on what others do.
func (r *Run) Pause(scope string, id protocol.NodeID) time.Duration {
	key := scope + " " + string(id)
	r.pauses[key]++
	h := fnv.New64a()
	_, _ = h.Write([]byte(key)) // it never fails
	d := rand.New(rand.NewPCG(r.Plan.Seed^h.Sum64(), r.pauses[key]))
	pause := time.Duration(200+d.IntN(3000)) * time.Microsecond
	if d.IntN(30) == 0 && !r.Smooth {
		pause = time.Duration(d.IntN(400)) * time.Millisecond
	}
	if f := r.Active(Slow, id); f != nil {
		pause += time.Duration(d.Int64N(int64(f.By/16) + 1))
	}
	return pause
}

// Chance draws the chance of that number.
func (r *Run) Chance(n uint64) uint64 { return rand.New(rand.NewPCG(r.Plan.Seed, n)).Uint64() }

// Clock is the time by which nodes date what they keep. It may be called by any goroutine.
func (r *Run) Clock() time.Time { return time.Unix(1_000_000_000, int64(r.Line.Now())).UTC() }

// Say sends a message that is no machine's: loops tell of their own.
func (r *Run) Say(scope string, from, to protocol.NodeID, message protocol.Message) {
	r.Tell(trace.Event{Scope: scope, Node: from, Kind: trace.Send, Peer: to, Value: message, Message: r.Net.Number()})
	r.Carry(Packet{Scope: scope, From: from, To: to, Message: message})
}

// Heard tells that such a message has arrived.
func (r *Run) Heard(p Packet) {
	r.Tell(trace.Event{Scope: p.Scope, Node: p.To, Kind: trace.Deliver, Message: p.Number,
		Value: protocol.Receive{From: p.From, Message: p.Message}})
}

// Carry hands a packet to the network.
func (r *Run) Carry(p Packet) { r.Fail(r.Net.Send(p)) }

// Tell counts an event, dates it, and tells the observer.
func (r *Run) Tell(e trace.Event) {
	r.events++
	if r.observer != nil {
		e.At = r.Line.Now()
		r.observer.Observe(e)
	}
}

// Fire notes that a fault has had an effect.
func (r *Run) Fire(c Class) { r.fired[c]++ }

// Reach notes that something was reached that should be at times.
func (r *Run) Reach(what string) { r.reached[what]++ }

// Broken notes that a claim does not hold; the first one stays.
func (r *Run) Broken(claim, detail string) {
	if r.failure == nil {
		r.failure = &Failure{Claim: claim, At: r.Line.Now(), Detail: detail}
	}
}

// Fail ends the run because what is simulated cannot be run; the first error stays. It does nothing where err is nil.
func (r *Run) Fail(err error) {
	if r.err == nil && err != nil {
		r.err = fmt.Errorf("seed %d, after %v: %w", r.Plan.Seed, r.Line.Now(), err)
	}
}

// Bound fails a run of more than so many events: machines that send without end must not.
func (r *Run) Bound(most uint64) {
	if r.events > most {
		r.Fail(fmt.Errorf("%w: more than %d events", ErrSystem, most))
	}
}

// Report says what has happened.
func (r *Run) Report() Report {
	return Report{Plan: r.Plan, Failure: r.failure, Events: r.events, Messages: r.Net.count,
		Simulated: r.Line.Now(), Fired: r.fired, Reached: r.reached}
}

// Err returns why what is simulated cannot be run, or nil.
func (r *Run) Err() error { return r.err }
