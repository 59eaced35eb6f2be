package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/membership"
	"assent/sim"
	"assent/sim/bank"
	"assent/spec"
	"assent/trace"
)

// world is one run.
type world struct {
	*sim.Run
	c        Cluster
	codec    *protocol.Codec
	options  commit.Options
	founders membership.State

	nodes   []*node
	byID    map[protocol.NodeID]*node
	clients map[protocol.NodeID]*client
	book    *bank.Book
	stamps  map[commit.TransactionID]uint64 // of the values that stand
	views   map[uint64]membership.View
	states  map[uint64][]byte // the cluster's own state, by epoch
	epoch   uint64            // the last of these
	pending int               // pieces of work that are not at their end
	keys    []string          // of the configuration, that clients were told are set
	left    []protocol.NodeID // that clients were told have left
	healed  bool
}

func newWorld(c Cluster, plan sim.Plan, observer trace.Observer) *world {
	w := &world{c: c, codec: newCodec(),
		options: commit.Options{Vote: time.Second, VoteRetries: int(plan.Seed % 3), Retry: 100 * time.Millisecond,
			RetryMost: 2 * time.Second, Cooperative: plan.Seed%2 == 1, NoOnePhase: true},
		byID: map[protocol.NodeID]*node{}, clients: map[protocol.NodeID]*client{},
		stamps: map[commit.TransactionID]uint64{}, views: map[uint64]membership.View{}, states: map[uint64][]byte{}}
	w.Run = sim.NewRun(plan, observer, w.codec, c.names(), w.arrive)
	w.book = bank.NewBook(w.Run)
	w.Smooth = len(plan.Faults) == 0
	var all []membership.Member
	for _, m := range c.Members {
		all = append(all, membership.Member{Node: m.Node, Votes: m.Votes, Address: string(m.Node) + ":1"})
	}
	var err error
	if w.founders, err = membership.Found(Name, all...); err != nil {
		w.Fail(err)
	}
	for _, id := range c.names() {
		if len(w.nodes) == len(c.Members)+max(c.Changes, 0) {
			w.clients[id] = newClient(w, id)
			continue
		}
		n := &node{Process: sim.Process{Run: w.Run, ID: id}, w: w, index: len(w.nodes), disk: sim.NewDisk(w.codec),
			absent: len(w.nodes) >= len(c.Members)}
		n.Die = n.crash
		w.nodes = append(w.nodes, n)
		w.byID[id] = n
	}
	return w
}

// run takes the world through its two phases.
func (w *world) run() {
	for _, n := range w.nodes {
		w.open(n)
		n.start()
	}
	w.Begin(w.strike)
	w.assign()
	for w.Going() && w.Line.Next(w.Plan.Safety) {
		w.judge()
	}
	w.heal()
	w.finish(w.Plan.Safety + w.Plan.Bound)
	if w.Going() && w.Plan.Seed%4 == 0 {
		// Once more from what is stable alone: nothing that was said may depend on what a crash undoes.
		for _, n := range w.nodes {
			n.crash(-1)
		}
		w.finish(w.Line.Now() + w.Plan.Bound)
	}
	if w.Going() {
		w.settle()
		w.away()
	}
}

// open puts the opening balances on the node's disk.
func (w *world) open(n *node) {
	var writes []protocol.Write
	for a := range n.accounts() {
		writes = append(writes, protocol.Write{Key: storePart + accountKey(a), Record: Balance{Amount: bank.Opening}})
	}
	_, err := n.disk.Force(writes)
	w.Fail(err)
}

// finish goes on until nothing is left to do, or the time is up.
func (w *world) finish(end time.Duration) {
	w.Finish(end, 250*time.Millisecond, w.judge, w.ended, w.unfinished)
}

// strike lets a fault begin that is a node's.
func (w *world) strike(f *sim.Fault) {
	n := w.byID[f.Node]
	switch {
	case n == nil:
		return
	case f.Class == sim.Gone && !w.founded():
		// At the very first start all must have been up once: without this one the others could not begin.
		if !w.healed {
			w.Line.After(100*time.Millisecond, func() { w.strike(f) })
		}
		return
	case f.Class == sim.Gone && !n.gone:
		w.leave(n)
		return
	case !n.Up:
		return
	}
	switch f.Class {
	case sim.Crash:
		if f.Sends >= 0 {
			n.Fuse.Set(f.Sends)
			break
		}
		w.Fire(sim.Crash)
		n.crash(-1)
	case sim.DiskFull, sim.FailedSync, sim.TornWrite:
		n.disk.Ail(f)
		w.Tell(trace.Event{Node: n.ID, Kind: trace.Damage, Value: f.Class.String()})
	case sim.Corruption:
		n.crash(-1)
		if n.disk.Corrupt(w.Chance(uint64(f.At))) {
			w.Tell(trace.Event{Node: n.ID, Kind: trace.Damage, Value: f.Class.String()})
		}
	}
}

// leave takes a node away for good, and its disk with it.
func (w *world) leave(n *node) {
	w.Fire(sim.Gone)
	n.crash(-1)
	n.gone, n.disk = true, nil
	w.Tell(trace.Event{Node: n.ID, Kind: trace.Damage, Value: sim.Gone.String()})
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

// heal ends the phase of safety: faults are over, disks repaired, and whoever is down comes back, but for
// those that are gone for good.
func (w *world) heal() {
	w.healed = true
	w.Smooth = true
	w.Heal()
	for _, n := range w.nodes {
		if w.c.outage {
			n.crash(-1)
		}
	}
	for _, n := range w.nodes {
		n.Fuse = sim.Fuse{}
		if n.gone {
			continue
		}
		if n.disk.Repair() {
			n.refused = false
			w.Tell(trace.Event{Node: n.ID, Kind: trace.Damage, Value: "repaired"})
			w.Line.After(0, n.start)
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
	return w.pending == 0 && !slices.ContainsFunc(w.present(), func(n *node) bool { return !n.Up || n.busy() != "" })
}

// unfinished says who is not at the end, and with what.
func (w *world) unfinished() string {
	parts := []string{fmt.Sprintf("%d pieces of work", w.pending)}
	for _, n := range w.present() {
		switch {
		case !n.Up:
			parts = append(parts, string(n.ID)+" is down")
		case n.busy() != "":
			parts = append(parts, string(n.ID)+": "+n.busy())
		}
	}
	return strings.Join(parts, "; ")
}

// arrive delivers a packet.
func (w *world) arrive(p sim.Packet) bool {
	w.Arriving = p.Number
	defer func() { w.Arriving = 0 }()
	if c := w.clients[p.To]; c != nil {
		w.Heard(p)
		c.receive(p)
		return true
	}
	n := w.byID[p.To]
	if !n.Up {
		return false
	}
	n.receive(p)
	return true
}

// maxEvents bounds a run: machines that send without end must not.
const maxEvents = 5_000_000

// judge puts the claims to the test for what has changed.
func (w *world) judge() {
	w.book.Judge(w.claims())
	w.Bound(maxEvents)
}

var (
	safety = []spec.Property{spec.AC1(), spec.AC2(), spec.AC3()}
	quiet  = append(slices.Clip(safety), spec.AC4())
)

// claims are those about each transaction. AC4 is claimed of runs without faults and changes of members.
func (w *world) claims() []spec.Property {
	if len(w.Plan.Faults) == 0 && still(w.Plan) {
		return quiet
	}
	return safety
}
