package cluster

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"assent/engine"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/sim"
	"assent/trace"
)

// node is a machine of the cluster: what of it outlives a crash, and the parts of its present life.
type node struct {
	w     *world
	id    protocol.NodeID
	index int
	disk  *sim.Disk
	up    bool
	gone  bool // for good
	// absent says that it has not been started yet: it is to join.
	absent bool
	// refused says that it has found its disk damaged and stays down.
	refused bool
	life    int // how often it has come up
	since   time.Duration
	fuse    sim.Fuse

	// Of this life:

	// soft is what was written since the disk was forced last: a crash loses it.
	soft          []protocol.Write
	prefix        string // names this life, and begins the ids of its transactions
	minted        int
	member        *member
	registers     *registers
	store         *store
	coordinations map[commit.TransactionID]*coordination
	branches      map[commit.TransactionID]*branch
	jobs          map[commit.TransactionID]*job
	begun         map[string]commit.TransactionID // by client and reference
	peers         map[protocol.NodeID]*peer
	strange       map[string]time.Duration // when prefixes were first seen that nobody has announced
}

// The parts of a node's disk: what the keys of its records begin with.
const (
	memberPart   = "member/"
	registerPart = "register/"
	storePart    = "store/"
)

// errDisk says that the simulated disk has failed a write.
var errDisk = errors.New("the disk has failed")

// start brings the node up over its disk. A damaged disk keeps it down.
func (n *node) start() {
	if n.up || n.gone || n.absent || n.refused {
		return
	}
	records, err := n.disk.Read()
	if err != nil {
		n.refused = true
		n.w.fire(sim.Corruption)
		return
	}
	n.life++
	n.up, n.since, n.soft = true, n.w.line.Now(), nil
	n.prefix, n.minted = prefixOf(n.id, n.life), 0
	if n.w.c.flaw == reusesName {
		n.prefix = prefixOf(n.id, 1)
	}
	n.coordinations, n.branches = map[commit.TransactionID]*coordination{}, map[commit.TransactionID]*branch{}
	n.jobs, n.begun = map[commit.TransactionID]*job{}, map[string]commit.TransactionID{}
	n.peers, n.strange = map[protocol.NodeID]*peer{}, map[string]time.Duration{}
	for _, o := range n.w.nodes {
		if o != n {
			n.peers[o.id] = &peer{}
		}
	}
	n.store = openStore(n, part(records, storePart))
	n.registers = openRegisters(n, part(records, registerPart))
	n.member = newMember(n, part(records, memberPart))
	n.resume()
	n.member.begin(part(records, memberPart))
	n.tend()
	n.every(tendTime, n.tend)
	n.every(newsTime, n.announce)
	n.every(scanTime, n.scanBranches)
	n.every(logScanTime, n.scanLog)
}

// founder reports whether the node is one of those that the cluster begins with. These have accounts.
func (n *node) founder() bool { return n.index < len(n.w.c.Members) }

// accounts is how many accounts the node's store has.
func (n *node) accounts() int {
	if n.founder() {
		return n.w.c.Accounts
	}
	return 0
}

// part returns the records of one part of the disk, without its name.
func part(all protocol.Records, name string) protocol.Records {
	own := protocol.Records{}
	for key, r := range all {
		if rest, ok := strings.CutPrefix(key, name); ok {
			own[rest] = r
		}
	}
	return own
}

// prefixLength is that of the registers: an id's first 20 bytes say who owns its ballot 0.
const prefixLength = 20

func prefixOf(id protocol.NodeID, life int) string {
	return fmt.Sprintf("%s-%0*d", id, prefixLength-1-len(id), life)
}

// nodeOf returns the node of a life, or of a transaction that began there.
func (w *world) nodeOf(prefix string) *node {
	id, _, _ := strings.Cut(prefix, "-")
	return w.byID[protocol.NodeID(id)]
}

// crash takes the node down. sent says where within a step it falls; it is negative between steps.
func (n *node) crash(sent int) {
	if !n.up {
		return
	}
	n.up = false
	n.member.actor.loop.Stop()
	n.registers.stop()
	for _, t := range n.coordinations {
		t.actor.loop.Stop()
	}
	for _, b := range n.branches {
		b.actor.loop.Stop()
	}
	e := trace.Event{Node: n.id, Kind: trace.Crash}
	if sent >= 0 {
		e.Value = trace.Sent(sent)
	}
	n.w.tell(e)
	n.w.line.After(n.w.outage(n.id), n.start)
}

// force makes the writes stable, and with them all that was written before. A disk that fails takes the node
// down.
func (n *node) force(part string, writes []protocol.Write) error {
	n.write(part, writes)
	writes, n.soft = n.soft, nil
	met, err := n.disk.Force(writes)
	switch {
	case err != nil:
		n.w.fail(err)
	case met == 0:
		return nil
	default:
		n.w.fire(met)
		n.crash(-1)
	}
	return errDisk
}

// write leaves the writes to be forced with the next ones that must be.
func (n *node) write(part string, writes []protocol.Write) {
	for _, w := range writes {
		n.soft = append(n.soft, protocol.Write{Key: part + w.Key, Record: w.Record})
	}
}

// after plans do, which a crash of the node prevents. A clock that drifts makes it later or sooner.
func (n *node) after(d time.Duration, do func()) (cancel func()) {
	life := n.life
	if f := n.w.active(sim.Drift, n.id); f != nil {
		n.w.fire(sim.Drift)
		d = d * 100 / time.Duration(max(f.Rate, 1))
	}
	return n.w.line.After(d, func() {
		if n.up && n.life == life {
			do()
		}
	})
}

// every does it now and then, each time after a pause that differs from node to node.
func (n *node) every(d time.Duration, do func()) {
	n.after(d+d*time.Duration(n.index)/16, func() {
		do()
		n.every(d, do)
	})
}

// work plans a call of the store, and then what follows from its answer: a crash may fall before the call, or
// between the call and what follows.
func (n *node) work(scope string, call func() (then func())) {
	n.after(n.w.pause(scope, n.id), func() {
		if then := call(); n.up && then != nil {
			n.after(n.w.pause(scope, n.id), then)
		}
	})
}

// transmit hands a machine's message to the network, or to this node itself.
func (n *node) transmit(scope string, to protocol.NodeID, message protocol.Message) {
	if to != n.id {
		n.w.carry(sim.Packet{Scope: scope, From: n.id, To: to, Message: message})
		return
	}
	n.after(n.w.pause(scope, n.id), func() { n.receive(sim.Packet{Scope: scope, From: n.id, To: to, Message: message}) })
}

// send sends a message that is no machine's.
func (n *node) send(scope string, to protocol.NodeID, message protocol.Message) {
	if to != n.id {
		n.w.send(scope, n.id, to, message)
		return
	}
	n.w.tell(trace.Event{Scope: scope, Node: n.id, Kind: trace.Send, Peer: to, Value: message})
	n.transmit(scope, to, message)
}

// receive takes a packet to the part that it is for.
func (n *node) receive(p sim.Packet) {
	id := commit.TransactionID(p.Scope)
	switch m := p.Message.(type) {
	case Dated:
		n.registers.take(p, m)
	case commit.Voted, commit.Acknowledge:
		n.coordinate(id, p)
	case commit.Prepare, commit.OnePhase, commit.Finish, commit.Inquire:
		n.participate(id, p)
	default:
		if p.Scope == memberScope {
			n.member.actor.deliver(protocol.Receive{From: p.From, Message: m})
			return
		}
		n.w.received(p)
		n.serve(id, p)
	}
}

// serve takes a message that no machine understands.
func (n *node) serve(id commit.TransactionID, p sim.Packet) {
	switch m := p.Message.(type) {
	case Begin:
		n.begin(p.From, m)
	case Inquiry:
		n.inquired(p.From, m.ID)
	case Configure:
		n.member.configure(p.From, m)
	case Work:
		n.worked(p.From, m)
	case Worked:
		if j := n.jobs[id]; j != nil {
			j.worked(p.From, m)
		}
	case News:
		n.heard(p.From, m)
	}
}

// busy says what the node is not done with, or nothing.
func (n *node) busy() string {
	for _, id := range slices.Sorted(maps.Keys(n.coordinations)) {
		if !n.registers.outside() && !n.coordinations[id].over() { // others finish what one that is no member has begun
			return "coordinates " + string(id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(n.branches)) {
		if b := n.branches[id]; !b.machine.State.Done() && !b.machine.Blank {
			return "takes part in " + string(id)
		}
	}
	if list := n.store.prepared(); len(list) > 0 {
		return fmt.Sprintf("%v in doubt", list)
	}
	if what := n.registers.busy(); what != "" {
		return what
	}
	return n.member.busy()
}

// actor runs one machine at a node: it is the clock and the observer of its loop.
type actor struct {
	n     *node
	life  int
	scope string
	loop  *engine.Loop
}

var (
	_ engine.Clock   = (*actor)(nil)
	_ trace.Observer = (*actor)(nil)
)

func (n *node) actor(scope string, m protocol.Machine, hands engine.Hands) *actor {
	a := &actor{n: n, life: n.life, scope: scope}
	a.loop = engine.New(engine.Config{Scope: scope, Node: n.id, Machine: m, Hands: hands, Clock: a, Observer: a})
	return a
}

func (a *actor) alive() bool { return a.n.up && a.n.life == a.life }

// deliver gives the machine an event, unless its node is down.
func (a *actor) deliver(ev protocol.Event) {
	if a.alive() {
		a.loop.Deliver(ev)
	}
}

// AfterFunc implements engine.Clock.
func (a *actor) AfterFunc(d time.Duration, f func()) (stop func()) { return a.n.after(d, f) }

// Observe implements trace.Observer: it passes events on, and is where the node dies within a step.
func (a *actor) Observe(e trace.Event) {
	if !a.alive() {
		return
	}
	if sent, now := a.n.fuse.Blows(e); now {
		a.n.w.fire(sim.Crash)
		a.n.crash(sent)
		return
	}
	switch e.Kind {
	case trace.Send:
		if e.Peer != a.n.id {
			e.Message = a.n.w.net.Number()
		}
	case trace.Deliver:
		if _, ok := e.Value.(protocol.Receive); ok {
			e.Message = a.n.w.arriving
		}
	}
	a.n.w.tell(e)
}
