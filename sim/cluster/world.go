package cluster

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/membership"
	"assent/sim"
	"assent/spec"
	"assent/trace"
)

// world is one run.
type world struct {
	c        Cluster
	plan     sim.Plan
	observer trace.Observer
	line     sim.Timeline
	net      sim.Network
	codec    *protocol.Codec
	options  commit.Options
	founders membership.State
	pauses   map[string]uint64 // how many calls were made, by scope and node

	nodes        []*node
	byID         map[protocol.NodeID]*node
	clients      map[protocol.NodeID]*client
	transactions map[commit.TransactionID]*transaction
	names        []commit.TransactionID // of transactions, in the order in which they began
	touched      []*transaction         // since the claims were judged last
	views        map[uint64]membership.View
	states       map[uint64][]byte // the cluster's own state, by epoch
	epoch        uint64            // the last of these
	pending      int               // pieces of work that are not at their end
	arriving     uint64            // the number of the packet that is being delivered
	keys         []string          // of the configuration, that clients were told are set
	left         []protocol.NodeID // that clients were told have left
	healed       bool

	events  uint64
	fired   map[sim.Class]int
	reached map[string]int
	failure *sim.Failure
	err     error
}

func newWorld(c Cluster, plan sim.Plan, observer trace.Observer) *world {
	plan.Faults = slices.Clone(plan.Faults) // heal shortens them
	w := &world{c: c, plan: plan, observer: observer, codec: newCodec(), pauses: map[string]uint64{},
		options: commit.Options{Vote: time.Second, VoteRetries: int(plan.Seed % 3), Retry: 100 * time.Millisecond,
			RetryMost: 2 * time.Second, Cooperative: plan.Seed%2 == 1, NoOnePhase: true},
		byID: map[protocol.NodeID]*node{}, clients: map[protocol.NodeID]*client{},
		transactions: map[commit.TransactionID]*transaction{}, views: map[uint64]membership.View{},
		states: map[uint64][]byte{}, fired: map[sim.Class]int{}, reached: map[string]int{}}
	var all []membership.Member
	for _, m := range c.Members {
		all = append(all, membership.Member{Node: m.Node, Votes: m.Votes, Address: string(m.Node) + ":1"})
	}
	var err error
	if w.founders, err = membership.Found(Name, all...); err != nil {
		w.fail(err)
	}
	for _, id := range c.names() {
		if len(w.nodes) == len(c.Members)+max(c.Changes, 0) {
			w.clients[id] = newClient(w, id)
			continue
		}
		n := &node{w: w, id: id, index: len(w.nodes), disk: sim.NewDisk(w.codec), absent: len(w.nodes) >= len(c.Members)}
		w.nodes = append(w.nodes, n)
		w.byID[id] = n
	}
	w.net = sim.Network{Line: &w.line, Plan: &w.plan, Codec: w.codec, Nodes: c.names(),
		Arrive: w.arrive, Observe: w.tell, Fired: w.fired}
	return w
}

// run takes the world through its two phases.
func (w *world) run() {
	for _, n := range w.nodes {
		w.open(n)
		n.start()
	}
	w.net.Start()
	for i := range w.plan.Faults {
		f := &w.plan.Faults[i]
		w.line.After(f.At, func() { w.strike(f) })
	}
	w.assign()
	for w.going() && w.line.Next(w.plan.Safety) {
		w.judge()
	}
	w.heal()
	w.finish(w.plan.Safety + w.plan.Bound)
	if w.going() && w.plan.Seed%4 == 0 {
		// Once more from what is stable alone: nothing that was said may depend on what a crash undoes.
		for _, n := range w.nodes {
			n.crash(-1)
		}
		w.finish(w.line.Now() + w.plan.Bound)
	}
	if w.going() {
		w.settle()
		w.away()
	}
}

// open puts the opening balances on the node's disk.
func (w *world) open(n *node) {
	var writes []protocol.Write
	for a := range n.accounts() {
		writes = append(writes, protocol.Write{Key: storePart + accountKey(a), Record: Balance{Amount: opening}})
	}
	_, err := n.disk.Force(writes)
	w.fail(err)
}

// finish goes on until nothing is left to do, or the time is up.
func (w *world) finish(end time.Duration) {
	for w.going() && !w.ended() {
		if w.line.Now() >= end {
			w.broken(sim.Ended, w.unfinished())
			return
		}
		next := min(w.line.Now()+250*time.Millisecond, end)
		for w.going() && w.line.Next(next) {
			w.judge()
		}
	}
}

func (w *world) going() bool { return w.failure == nil && w.err == nil }

// strike lets a fault begin that is a node's.
func (w *world) strike(f *sim.Fault) {
	n := w.byID[f.Node]
	switch {
	case n == nil:
		return
	case f.Class == sim.Gone && !w.founded():
		// At the very first start all must have been up once: without this one the others could not begin.
		if !w.healed {
			w.line.After(100*time.Millisecond, func() { w.strike(f) })
		}
		return
	case f.Class == sim.Gone && !n.gone:
		w.leave(n)
		return
	case !n.up:
		return
	}
	switch f.Class {
	case sim.Crash:
		if f.Sends >= 0 {
			n.fuse.Set(f.Sends)
			break
		}
		w.fire(sim.Crash)
		n.crash(-1)
	case sim.DiskFull, sim.FailedSync, sim.TornWrite:
		n.disk.Ail(f)
		w.tell(trace.Event{Node: n.id, Kind: trace.Damage, Value: f.Class.String()})
	case sim.Corruption:
		n.crash(-1)
		if n.disk.Corrupt(w.chance(uint64(f.At))) {
			w.tell(trace.Event{Node: n.id, Kind: trace.Damage, Value: f.Class.String()})
		}
	}
}

// leave takes a node away for good, and its disk with it.
func (w *world) leave(n *node) {
	w.fire(sim.Gone)
	n.crash(-1)
	n.gone, n.disk = true, nil
	w.tell(trace.Event{Node: n.id, Kind: trace.Damage, Value: sim.Gone.String()})
}

// founded reports whether every node knows, and has on disk, that it has a vote.
func (w *world) founded() bool {
	return !slices.ContainsFunc(w.present(), func(n *node) bool {
		if !n.founder() {
			return false
		}
		life, ok := n.disk.Record(memberPart + membership.LifeKey).(membership.LifeRecord)
		return !ok || life.Blank
	})
}

// outage returns how long a node stays down: as long as the last fault says that could have been the
// cause.
func (w *world) outage(id protocol.NodeID) time.Duration {
	d := 100 * time.Millisecond
	for i := range w.plan.Faults {
		f := &w.plan.Faults[i]
		switch f.Class {
		case sim.Crash, sim.DiskFull, sim.FailedSync, sim.TornWrite, sim.Corruption:
			if f.Node == id && f.At <= w.line.Now() {
				d = f.For
			}
		}
	}
	return min(d, max(w.plan.Safety-w.line.Now(), 0))
}

// active returns a fault of the class that the node has now, or nil.
func (w *world) active(c sim.Class, id protocol.NodeID) *sim.Fault {
	for i := range w.plan.Faults {
		f := &w.plan.Faults[i]
		if f.Class == c && f.Node == id && f.At <= w.line.Now() && w.line.Now() < f.At+f.For {
			return f
		}
	}
	return nil
}

// heal ends the phase of safety: faults are over, disks repaired, and whoever is down comes back, but for
// those that are gone for good.
func (w *world) heal() {
	w.healed = true
	for i := range w.plan.Faults {
		f := &w.plan.Faults[i]
		f.For = min(f.For, max(w.plan.Safety-f.At, 0))
	}
	for _, n := range w.nodes {
		n.fuse = sim.Fuse{}
		if n.gone {
			continue
		}
		if n.disk.Repair() {
			n.refused = false
			w.tell(trace.Event{Node: n.id, Kind: trace.Damage, Value: "repaired"})
			w.line.After(0, n.start)
		}
	}
}

// present are the nodes that were started and are not gone for good.
func (w *world) present() (all []*node) {
	for _, n := range w.nodes {
		if !n.gone && !n.absent {
			all = append(all, n)
		}
	}
	return all
}

// ended reports whether nothing is left to do.
func (w *world) ended() bool {
	return w.pending == 0 && !slices.ContainsFunc(w.present(), func(n *node) bool { return !n.up || n.busy() != "" })
}

// unfinished says who is not at the end, and with what.
func (w *world) unfinished() string {
	parts := []string{fmt.Sprintf("%d pieces of work", w.pending)}
	for _, n := range w.present() {
		switch {
		case !n.up:
			parts = append(parts, string(n.id)+" is down")
		case n.busy() != "":
			parts = append(parts, string(n.id)+": "+n.busy())
		}
	}
	return strings.Join(parts, "; ")
}

// arrive delivers a packet.
func (w *world) arrive(p sim.Packet) bool {
	w.arriving = p.Number
	defer func() { w.arriving = 0 }()
	if c := w.clients[p.To]; c != nil {
		w.received(p)
		c.receive(p)
		return true
	}
	n := w.byID[p.To]
	if !n.up {
		return false
	}
	n.receive(p)
	return true
}

// received tells that a message arrived that is no machine's: loops tell of their own.
func (w *world) received(p sim.Packet) {
	w.tell(trace.Event{Scope: p.Scope, Node: p.To, Kind: trace.Deliver, Message: p.Number,
		Value: protocol.Receive{From: p.From, Message: p.Message}})
}

// send sends a message that is no machine's.
func (w *world) send(scope string, from, to protocol.NodeID, message protocol.Message) {
	w.tell(trace.Event{Scope: scope, Node: from, Kind: trace.Send, Peer: to, Value: message, Message: w.net.Number()})
	w.carry(sim.Packet{Scope: scope, From: from, To: to, Message: message})
}

// carry hands a packet to the network.
func (w *world) carry(p sim.Packet) { w.fail(w.net.Send(p)) }

// pause is how long a call of a disk or a store takes: short, in runs with faults now and then long, and
// longer where the node is slow. It depends on whose call it is and on how many there were before it, and
// not on what others do.
func (w *world) pause(scope string, id protocol.NodeID) time.Duration {
	key := scope + " " + string(id)
	w.pauses[key]++
	h := fnv.New64a()
	_, _ = h.Write([]byte(key)) // it never fails
	d := rand.New(rand.NewPCG(w.plan.Seed^h.Sum64(), w.pauses[key]))
	pause := time.Duration(200+d.IntN(3000)) * time.Microsecond
	if d.IntN(30) == 0 && len(w.plan.Faults) > 0 && !w.healed {
		pause = time.Duration(d.IntN(400)) * time.Millisecond
	}
	if f := w.active(sim.Slow, id); f != nil {
		pause += time.Duration(d.Int64N(int64(f.By/16) + 1))
	}
	return pause
}

func (w *world) chance(n uint64) uint64 { return rand.New(rand.NewPCG(w.plan.Seed, n)).Uint64() }

// clock is the time by which nodes date what they keep.
func (w *world) clock() time.Time { return time.Unix(1_000_000_000, int64(w.line.Now())).UTC() }

func (w *world) tell(e trace.Event) {
	w.events++
	if w.observer != nil {
		e.At = w.line.Now()
		w.observer.Observe(e)
	}
}

func (w *world) fire(c sim.Class) { w.fired[c]++ }

func (w *world) reach(what string) { w.reached[what]++ }

// broken notes that a claim does not hold; the first one stays.
func (w *world) broken(claim, detail string) {
	if w.failure == nil {
		w.failure = &sim.Failure{Claim: claim, At: w.line.Now(), Detail: detail}
	}
}

func (w *world) fail(err error) {
	if w.err == nil && err != nil {
		w.err = fmt.Errorf("seed %d, after %v: %w", w.plan.Seed, w.line.Now(), err)
	}
}

func (w *world) report() sim.Report {
	return sim.Report{Plan: w.plan, Failure: w.failure, Events: w.events, Messages: w.net.Number() - 1,
		Simulated: w.line.Now(), Fired: w.fired, Reached: w.reached}
}

// maxEvents bounds a run: machines that send without end must not.
const maxEvents = 5_000_000

// judge puts the claims to the test for what has changed.
func (w *world) judge() {
	for _, t := range w.touched {
		for _, p := range w.claims() {
			if w.failure == nil && !p.Holds(t) {
				w.broken(p.Name, string(t.id))
			}
		}
	}
	w.touched = w.touched[:0]
	if w.events > maxEvents {
		w.fail(fmt.Errorf("%w: more than %d events", sim.ErrSystem, maxEvents))
	}
}

var (
	safety = []spec.Property{spec.AC1(), spec.AC2(), spec.AC3()}
	quiet  = append(slices.Clip(safety), spec.AC4())
)

// claims are those about each transaction. AC4 is claimed of runs without faults and changes of members.
func (w *world) claims() []spec.Property {
	if len(w.plan.Faults) == 0 && still(w.plan) {
		return quiet
	}
	return safety
}
