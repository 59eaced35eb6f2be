package cluster

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/sim"
	"assent/sim/bank"
	"assent/trace"
)

// node is a machine of the cluster: what of it outlives a crash, and the parts of its present life.
type node struct {
	sim.Process
	w     *world
	index int
	disk  *sim.Disk
	gone  bool // for good
	// absent says that it has not been started yet: it is to join.
	absent bool
	// refused says that it has found its disk damaged and stays down.
	refused bool

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

// defaultOutage is how long a node stays down that no fault of the plan has taken down.
const defaultOutage = 100 * time.Millisecond

// errDisk says that the simulated disk has failed a write.
var errDisk = errors.New("the disk has failed")

// start brings the node up over its disk. A damaged disk keeps it down.
func (n *node) start() {
	if n.Up || n.gone || n.absent || n.refused {
		return
	}
	records, err := n.disk.Read()
	if err != nil {
		n.refused = true
		n.w.Fire(sim.Corruption)
		return
	}
	n.Rise()
	n.soft = nil
	n.prefix, n.minted = prefixOf(n.ID, n.Life), 0
	if n.w.c.flaw == reusesName {
		n.prefix = prefixOf(n.ID, 1)
	}
	n.coordinations, n.branches = map[commit.TransactionID]*coordination{}, map[commit.TransactionID]*branch{}
	n.jobs, n.begun = map[commit.TransactionID]*job{}, map[string]commit.TransactionID{}
	n.peers, n.strange = map[protocol.NodeID]*peer{}, map[string]time.Duration{}
	for _, o := range n.w.nodes {
		if o != n {
			n.peers[o.ID] = &peer{}
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
	if !n.Up {
		return
	}
	n.Fall(sent)
	n.member.actor.Stop()
	n.registers.stop()
	for _, t := range n.coordinations {
		t.actor.Stop()
	}
	for _, b := range n.branches {
		b.actor.Stop()
	}
	n.w.Line.After(n.w.Outage(n.ID, defaultOutage), n.start)
}

// force makes the writes stable, and with them all that was written before. A disk that fails takes the node
// down.
func (n *node) force(part string, writes []protocol.Write) error {
	n.write(part, writes)
	writes, n.soft = n.soft, nil
	met, err := n.disk.Force(writes)
	switch {
	case err != nil:
		n.w.Fail(err)
	case met == 0:
		return nil
	default:
		n.w.Fire(met)
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

// every does it now and then, each time after a pause that differs from node to node.
func (n *node) every(d time.Duration, do func()) {
	n.After(d+d*time.Duration(n.index)/16, func() {
		do()
		n.every(d, do)
	})
}

// transmit hands a machine's message to the network, or to this node itself.
func (n *node) transmit(scope string, to protocol.NodeID, message protocol.Message) {
	if to != n.ID {
		n.w.Carry(sim.Packet{Scope: scope, From: n.ID, To: to, Message: message})
		return
	}
	n.After(n.w.Pause(scope, n.ID), func() { n.receive(sim.Packet{Scope: scope, From: n.ID, To: to, Message: message}) })
}

// send sends a message that is no machine's.
func (n *node) send(scope string, to protocol.NodeID, message protocol.Message) {
	if to != n.ID {
		n.w.Say(scope, n.ID, to, message)
		return
	}
	n.w.Tell(trace.Event{Scope: scope, Node: n.ID, Kind: trace.Send, Peer: to, Value: message})
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
			n.member.actor.Deliver(protocol.Receive{From: p.From, Message: m})
			return
		}
		n.w.Heard(p)
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
	case bank.Worked:
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
