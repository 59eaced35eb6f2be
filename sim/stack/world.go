package stack

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/sim"
	"assent/spec"
	"assent/trace"
)

// world is one run.
type world struct {
	stack    Size
	plan     sim.Plan
	observer trace.Observer
	line     sim.Timeline
	net      sim.Network
	options  commit.Options
	pauses   map[string]uint64 // how many calls were made, by scope and node

	processes    map[protocol.NodeID]*process
	order        []*process
	coordinators []*coordinator
	sites        []*site
	owners       map[string]protocol.NodeID // of branches: where their decision log is
	transactions map[commit.TransactionID]*transaction
	touched      []*transaction // since the claims were judged last
	pending      int            // tasks that have not begun
	arriving     uint64         // the number of the packet that is being delivered
	// date is the time of the call that is being made of a store or a log, for their own goroutines.
	date atomic.Int64

	events  uint64
	fired   map[sim.Class]int
	reached map[string]int
	failure *sim.Failure
	err     error
}

// The claims of the stack, besides AC1 to AC3 and sim.Ended.
const (
	claimHeuristic = "no outcome is heuristic"
	claimTold      = "what a client was told stands"
	claimMoney     = "money is conserved at every consistent read"
	claimPlace     = "money is where the decisions have put it"
	claimDamage    = "nobody starts over a changed record"
)

// entropy are random bytes from the seed.
type entropy struct{ *rand.ChaCha8 }

func newEntropy(seed uint64, n int) *entropy {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	key[8], key[9] = byte(n), byte(n>>8)
	return &entropy{rand.NewChaCha8(key)}
}

func newWorld(s *Stack, plan sim.Plan, observer trace.Observer) *world {
	plan.Faults = slices.Clone(plan.Faults) // heal shortens them
	size := s.size()
	w := &world{stack: size, plan: plan, observer: observer, pauses: map[string]uint64{},
		options: commit.Options{Vote: time.Second, VoteRetries: int(plan.Seed % 3), Retry: 100 * time.Millisecond,
			RetryMost: 2 * time.Second, Cooperative: plan.Seed%2 == 1},
		processes: map[protocol.NodeID]*process{}, owners: map[string]protocol.NodeID{},
		transactions: map[commit.TransactionID]*transaction{}, fired: map[sim.Class]int{}, reached: map[string]int{}}
	for i, id := range s.nodes() {
		p := &process{w: w, id: id}
		if i < size.Coordinators {
			p.disk = newMedium(s.logs.made[i].CrashClone(vfs.CrashCloneCfg{}), logSuffix)
			c := &coordinator{process: p, random: newEntropy(plan.Seed, i)}
			p.role = c
			w.coordinators = append(w.coordinators, c)
		} else {
			p.disk = newMedium(vfs.NewCrashableMem(), storeSuffix)
			c := &site{process: p, random: newEntropy(plan.Seed, i)}
			p.role = c
			w.sites = append(w.sites, c)
		}
		w.processes[id] = p
		w.order = append(w.order, p)
	}
	w.net = sim.Network{Line: &w.line, Plan: &w.plan, Codec: s.Types(), Nodes: s.nodes(),
		Arrive: w.arrive, Observe: w.tell, Fired: w.fired}
	return w
}

// run takes the world through its two phases.
func (w *world) run() {
	for _, p := range w.order {
		p.start()
	}
	for _, s := range w.sites {
		if w.err == nil {
			w.fail(s.fill())
		}
	}
	w.net.Start()
	for i := range w.plan.Faults {
		f := &w.plan.Faults[i]
		w.line.After(f.At, func() { w.strike(f) })
	}
	for n := range w.stack.Jobs {
		if slices.Contains(w.plan.Skip, n) {
			continue
		}
		k := w.draw(n)
		w.pending++
		w.line.After(k.at, func() {
			w.pending--
			w.coordinators[n%len(w.coordinators)].begin(k, 1)
		})
	}
	for w.going() && w.line.Next(w.plan.Safety) {
		w.judge()
	}
	w.heal()
	w.finish(w.plan.Safety + w.plan.Bound)
	if !w.going() {
		return
	}
	if w.plan.Seed%4 == 0 {
		// Once more from what is stable alone: nothing that was said may depend on what a crash undoes.
		for _, p := range w.order {
			p.crash(-1, 0)
		}
		w.finish(w.line.Now() + w.plan.Bound)
	}
	if w.going() {
		w.settle()
	}
}

// finish goes on until nothing is left to do, or the time is up.
func (w *world) finish(end time.Duration) {
	for w.going() && !w.ended() {
		if w.line.Now() >= end {
			w.broken(sim.Ended, w.unfinished())
			return
		}
		// Looking into every store is dear, so it is done twice a second.
		next := min(w.line.Now()+500*time.Millisecond, end)
		for w.going() && w.line.Next(next) {
			w.judge()
		}
	}
}

func (w *world) going() bool { return w.failure == nil && w.err == nil }

// strike lets a fault begin that is a node's.
func (w *world) strike(f *sim.Fault) {
	p := w.processes[f.Node]
	if p == nil {
		return
	}
	switch f.Class {
	case sim.Crash:
		if f.Sends >= 0 {
			p.fuse.Set(f.Sends)
			break
		}
		if p.up {
			w.fire(sim.Crash)
			p.crash(-1, 0)
		}
	case sim.DiskFull, sim.FailedSync, sim.TornWrite:
		if p.up && p.ailment == nil {
			p.ailment = f
			w.tell(trace.Event{Node: p.id, Kind: trace.Damage, Value: f.Class.String()})
		}
	case sim.Corruption:
		if p.up && slices.ContainsFunc(w.coordinators, func(c *coordinator) bool { return c.process == p }) {
			p.corrupt = true
			p.crash(-1, 0)
		}
	}
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

// heal ends the phase of safety: faults are over, disks repaired, and whoever is down comes back.
func (w *world) heal() {
	for i := range w.plan.Faults {
		f := &w.plan.Faults[i]
		f.For = min(f.For, max(w.plan.Safety-f.At, 0))
	}
	for _, p := range w.order {
		p.fuse, p.ailment, p.corrupt = sim.Fuse{}, nil, false
		if p.repair != nil {
			if err := p.repair(); err != nil {
				w.fail(err)
			}
			p.repair = nil
			w.tell(trace.Event{Node: p.id, Kind: trace.Damage, Value: "repaired"})
			w.line.After(0, p.start)
		}
	}
}

// ended reports whether nothing is left to do.
func (w *world) ended() bool {
	if w.pending > 0 {
		return false
	}
	for _, p := range w.order {
		if !p.up {
			return false
		}
	}
	for _, c := range w.coordinators {
		if c.busy() {
			return false
		}
	}
	for _, s := range w.sites {
		if s.busy() {
			return false
		}
	}
	return true
}

// unfinished says who is not at the end, and with what.
func (w *world) unfinished() string {
	var b strings.Builder
	for _, c := range w.coordinators {
		fmt.Fprintf(&b, "%s up %v, busy %v, %d transactions; ", c.id, c.up, c.up && c.busy(), len(c.active)+len(c.jobs))
	}
	for _, s := range w.sites {
		fmt.Fprintf(&b, "%s up %v, busy %v, %v; ", s.id, s.up, s.up && s.busy(), s.ids())
	}
	return strings.TrimSuffix(b.String(), "; ")
}

// arrive delivers a packet.
func (w *world) arrive(p sim.Packet) bool {
	to := w.processes[p.To]
	if !to.up {
		return false
	}
	w.arriving = p.Number
	to.role.receive(p)
	return true
}

func (w *world) send(p sim.Packet) {
	if err := w.net.Send(p); err != nil {
		w.fail(err)
	}
}

// pause is how long a call of a store takes, or its answer: short, now and then long, and longer where
// the node is slow. It depends on whose call it is and on how many there were before it, and not on what
// others do.
func (w *world) pause(scope string, id protocol.NodeID) time.Duration {
	key := scope + " " + string(id)
	w.pauses[key]++
	h := fnv.New64a()
	_, _ = h.Write([]byte(key)) // it never fails
	d := rand.New(rand.NewPCG(w.plan.Seed^h.Sum64(), w.pauses[key]))
	pause := time.Duration(200+d.IntN(3000)) * time.Microsecond
	if d.IntN(30) == 0 {
		pause = time.Duration(d.IntN(400)) * time.Millisecond
	}
	if f := w.active(sim.Slow, id); f != nil {
		pause += time.Duration(d.Int64N(int64(f.By/16) + 1))
	}
	return pause
}

func (w *world) chance(n uint64) uint64 {
	return rand.New(rand.NewPCG(w.plan.Seed, n)).Uint64()
}

// clock is the time by which stores and logs date what they keep.
func (w *world) clock() time.Time { return time.Unix(1_000_000_000, w.date.Load()).UTC() }

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

func (w *world) close() {
	for _, p := range w.order {
		p.role.close()
	}
}

func (w *world) report() sim.Report {
	r := sim.Report{Plan: w.plan, Failure: w.failure, Events: w.events, Messages: w.net.Number() - 1,
		Simulated: w.line.Now(), Fired: w.fired, Reached: w.reached}
	return r
}

// judge puts the claims to the test for what has changed.
func (w *world) judge() {
	for _, t := range w.touched {
		for _, p := range safety {
			if w.failure == nil && !p.Holds(t) {
				w.broken(p.Name, string(t.id))
			}
		}
	}
	w.touched = w.touched[:0]
}

// safety are the claims about each transaction.
var safety = []spec.Property{spec.AC1(), spec.AC2(), spec.AC3()}
