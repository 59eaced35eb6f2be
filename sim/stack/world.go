package stack

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/sim"
	"assent/sim/bank"
	"assent/spec"
	"assent/trace"
)

// world is one run.
type world struct {
	*sim.Run
	stack   Size
	options commit.Options

	processes    map[protocol.NodeID]*process
	order        []*process
	coordinators []*coordinator
	sites        []*site
	owners       map[string]protocol.NodeID      // of branches: where their decision log is
	homes        map[commit.TransactionID]string // of transactions: the owner of their decision log
	book         *bank.Book
	pending      int // tasks that have not begun
}

// claimDamage is a claim of the stack, besides AC1 to AC3, sim.Ended and those of a bank.Book.
const claimDamage = "nobody starts over a changed record"

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
	size := s.size()
	w := &world{stack: size,
		options: commit.Options{Vote: time.Second, VoteRetries: int(plan.Seed % 3), Retry: 100 * time.Millisecond,
			RetryMost: 2 * time.Second, Cooperative: plan.Seed%2 == 1},
		processes: map[protocol.NodeID]*process{}, owners: map[string]protocol.NodeID{},
		homes: map[commit.TransactionID]string{}}
	w.Run = sim.NewRun(plan, observer, s.Types(), s.nodes(), w.arrive)
	w.book = bank.NewBook(w.Run)
	for i, id := range s.nodes() {
		p := &process{Process: sim.Process{Run: w.Run, ID: id}, w: w}
		p.Die = func(sent int) { p.crash(sent, 0) }
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
	return w
}

// run takes the world through its two phases.
func (w *world) run() {
	for _, p := range w.order {
		p.start()
	}
	for _, s := range w.sites {
		if w.Going() {
			w.Fail(s.fill())
		}
	}
	w.Begin(w.strike)
	for n := range w.stack.Jobs {
		if slices.Contains(w.Plan.Skip, n) {
			continue
		}
		k := w.draw(n)
		w.pending++
		w.Line.After(k.at, func() {
			w.pending--
			w.coordinators[n%len(w.coordinators)].begin(k, 1)
		})
	}
	for w.Going() && w.Line.Next(w.Plan.Safety) {
		w.judge()
	}
	w.heal()
	w.finish(w.Plan.Safety + w.Plan.Bound)
	if !w.Going() {
		return
	}
	if w.Plan.Seed%4 == 0 {
		// Once more from what is stable alone: nothing that was said may depend on what a crash undoes.
		for _, p := range w.order {
			p.crash(-1, 0)
		}
		w.finish(w.Line.Now() + w.Plan.Bound)
	}
	if w.Going() {
		w.settle()
	}
}

// finish goes on until nothing is left to do, or the time is up. Looking into every store is dear.
func (w *world) finish(end time.Duration) {
	w.Finish(end, 500*time.Millisecond, w.judge, w.ended, w.unfinished)
}

// strike lets a fault begin that is a node's.
func (w *world) strike(f *sim.Fault) {
	p := w.processes[f.Node]
	if p == nil {
		return
	}
	switch f.Class {
	case sim.Crash:
		if f.Sends >= 0 {
			p.Fuse.Set(f.Sends)
			break
		}
		if p.Up {
			w.Fire(sim.Crash)
			p.crash(-1, 0)
		}
	case sim.DiskFull, sim.FailedSync, sim.TornWrite:
		if p.Up && p.ailment == nil {
			p.ailment = f
			w.Tell(trace.Event{Node: p.ID, Kind: trace.Damage, Value: f.Class.String()})
		}
	case sim.Corruption:
		if p.Up && slices.ContainsFunc(w.coordinators, func(c *coordinator) bool { return c.process == p }) {
			p.corrupt = true
			p.crash(-1, 0)
		}
	}
}

// heal ends the phase of safety: faults are over, disks repaired, and whoever is down comes back.
func (w *world) heal() {
	w.Heal()
	for _, p := range w.order {
		p.Fuse, p.ailment, p.corrupt = sim.Fuse{}, nil, false
		if p.repair != nil {
			if err := p.repair(); err != nil {
				w.Fail(err)
			}
			p.repair = nil
			w.Tell(trace.Event{Node: p.ID, Kind: trace.Damage, Value: "repaired"})
			w.Line.After(0, p.start)
		}
	}
}

// ended reports whether nothing is left to do.
func (w *world) ended() bool {
	if w.pending > 0 {
		return false
	}
	for _, p := range w.order {
		if !p.Up {
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
		fmt.Fprintf(&b, "%s up %v, busy %v, %d transactions; ", c.ID, c.Up, c.Up && c.busy(), len(c.active)+len(c.jobs))
	}
	for _, s := range w.sites {
		fmt.Fprintf(&b, "%s up %v, busy %v, %v; ", s.ID, s.Up, s.Up && s.busy(), s.ids())
	}
	return strings.TrimSuffix(b.String(), "; ")
}

// arrive delivers a packet.
func (w *world) arrive(p sim.Packet) bool {
	to := w.processes[p.To]
	if !to.Up {
		return false
	}
	w.Arriving = p.Number
	to.role.receive(p)
	return true
}

func (w *world) close() {
	for _, p := range w.order {
		p.role.close()
	}
}

// judge puts the claims to the test for what has changed.
func (w *world) judge() { w.book.Judge(safety) }

// stands notes what the log has answered.
func (w *world) stands(id commit.TransactionID, d commit.Decision) {
	w.Reach("the log holds " + d.String())
	w.book.Decided(id, d)
}

// safety are the claims about each transaction.
var safety = []spec.Property{spec.AC1(), spec.AC2(), spec.AC3()}
