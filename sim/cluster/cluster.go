// Package cluster simulates a whole cluster from one seed. Each node is one machine with one disk: it is a
// member (failure detector, election and the cluster's own replicated log), keeps copies of the decision
// registers, coordinates transactions, hosts a store with participants of its own, and finishes what nodes
// have begun that are gone. Clients move money, set keys of the configuration, and ask any node what became
// of a transaction.
//
// It promises that the machines and the engine that runs them are the production ones, that a node's
// disk loses what was not forced, and that one plan makes one run, event for event. The hands that join the
// machines are its own: docs/simulator.md says which live code each stands for. It does not run package
// assent, package cluster, nor decision/paxos beyond its machine, because these read clocks and wait in
// goroutines of their own.
package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	register "assent/decision/paxos"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/membership"
	"assent/protocol/paxos"
	"assent/protocol/quorum"
	"assent/sim"
	"assent/trace"
)

// Name is what the cluster is called in traces and on the command line.
const Name = "cluster"

// The logs in which decisions are kept.
const (
	// Paxos keeps each decision at all nodes, in a register.
	Paxos = "paxos"
	// Disk keeps the decisions of a node on its own disk: while it is down, nobody else knows them.
	Disk = "disk"
)

// Member is a node as the configuration of a cluster has it.
type Member struct {
	Node protocol.NodeID
	// Votes is its weight in quorums: 1 unless set.
	Votes int
}

// Cluster is a simulated cluster. It is a sim.Subject. The zero value has the defaults; it must not be
// changed once it is used.
type Cluster struct {
	// Members are the nodes: a, b and c unless set, at most 9.
	Members []Member
	// Log is where decisions are kept, Paxos unless set.
	Log string
	// Clients is how many there are, Jobs how many pieces of work they have, and Accounts how many accounts
	// the store of each node has: 2, 6 and 3 unless set, at most 8, 1000 and 64.
	Clients, Jobs, Accounts int
	// Changes is how often the members change, by nodes that join, leave, are excluded or weighed: twice unless set,
	// never where it is negative, at most 8 times.
	Changes int
	// Safety is how long faults happen, 6 s unless set; Bound how long all may take to come to its end
	// after that, 5 min unless set.
	Safety, Bound time.Duration

	// flaw, in tests, makes one thing go wrong.
	flaw flaw
	// outage, in tests, has all nodes start again at once when the faults are over, without those that have joined and
	// left: they are switched off as soon as they may be.
	outage bool
}

// flaw is a known fault, which the simulator must find.
type flaw uint8

const (
	// unknownIsAbort makes recovery take what the registers do not know for aborted, without having abort
	// decided.
	unknownIsAbort flaw = iota + 1
	// forgetsRecord makes an acceptor forget what it has promised and accepted when it comes back.
	forgetsRecord
	// smallQuorum reads one vote less than must be read.
	smallQuorum
	// ignoresAnswer makes a coordinator abide by what it has proposed, and not by what stands.
	ignoresAnswer
	// tellsEarly makes a coordinator tell commit when it has proposed it.
	tellsEarly
	// reusesName gives every life of a node the same name, so that ballot 0 has several owners.
	reusesName
	// votesUnforced lets votes leave the acceptors before they are stable.
	votesUnforced
	// movesUnread lets the registers move to other members without those having what the ones before held.
	movesUnread
	// dropsHeld has members that stay drop what they hold when an epoch begins, as one does that comes back.
	dropsHeld
	// votesLate has acceptors vote in an epoch that they have left.
	votesLate
)

var _ sim.Subject = (*Cluster)(nil)

// filled returns c with the defaults.
func (c *Cluster) filled() Cluster {
	z := *c
	if len(z.Members) == 0 {
		z.Members = []Member{{Node: "a"}, {Node: "b"}, {Node: "c"}}
	}
	z.Members = slices.Clone(z.Members)
	for i := range z.Members {
		z.Members[i].Votes = cmp.Or(z.Members[i].Votes, 1)
	}
	z.Log = cmp.Or(z.Log, Paxos)
	z.Clients, z.Jobs, z.Accounts = cmp.Or(z.Clients, 2), cmp.Or(z.Jobs, 6), cmp.Or(z.Accounts, 3)
	z.Changes = cmp.Or(z.Changes, 2)
	z.Safety, z.Bound = cmp.Or(z.Safety, 6*time.Second), cmp.Or(z.Bound, 5*time.Minute)
	return z
}

// Validate returns a sim.ErrSystem if there cannot be such a cluster. Run makes the same check.
func (c *Cluster) Validate() error {
	z := c.filled()
	for _, f := range []struct {
		what        string
		value, most int
	}{{"nodes", len(z.Members), 9}, {"clients", z.Clients, 8}, {"jobs", z.Jobs, 1000}, {"accounts", z.Accounts, 64}} {
		if f.value < 1 || f.value > f.most {
			return fmt.Errorf("%w: %d %s; 1 to %d are allowed", sim.ErrSystem, f.value, f.what, f.most)
		}
	}
	if z.Changes > 8 {
		return fmt.Errorf("%w: %d changes of members; at most 8 are allowed", sim.ErrSystem, z.Changes)
	}
	if z.Log != Paxos && z.Log != Disk {
		return fmt.Errorf("%w: there is no log %q; the logs are %s and %s", sim.ErrSystem, z.Log, Paxos, Disk)
	}
	for i, m := range z.Members {
		if !named(m.Node) || slices.ContainsFunc(z.Members[:i], func(o Member) bool { return o.Node == m.Node }) {
			return fmt.Errorf("%w: the node's name %q is given twice, a client's, or not 1 to %d letters and digits",
				sim.ErrSystem, m.Node, maxName)
		}
	}
	if err := z.system().Validate(); err != nil {
		return fmt.Errorf("%w: %w", sim.ErrSystem, err)
	}
	return nil
}

// maxName leaves room for the number of a life in a prefix of the registers' length.
const maxName = 12

// named reports whether a node may be called so: client1 is a client's name.
func named(n protocol.NodeID) bool {
	fits := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' }
	return n != "" && len(n) <= maxName && strings.IndexFunc(string(n), func(r rune) bool { return !fits(r) }) < 0 &&
		!strings.HasPrefix(string(n), "client")
}

// system are the nodes with their votes; both quorums are a majority.
func (c *Cluster) system() quorum.System {
	var s quorum.System
	for _, m := range c.Members {
		s.Members = append(s.Members, quorum.Member{Node: m.Node, Votes: m.Votes})
	}
	s.Write = s.Total()/2 + 1
	s.Read = s.Write
	return s
}

// Work returns the number of pieces of work, which sim.Shrink may leave out.
func (c *Cluster) Work() int {
	z := c.filled()
	return z.Jobs + max(z.Changes, 0)
}

// names are those of the nodes, of the nodes that may join, and of the clients.
func (c *Cluster) names() (ids []protocol.NodeID) {
	for _, m := range c.Members {
		ids = append(ids, m.Node)
	}
	ids = append(ids, c.newcomers()...)
	for i := range c.Clients {
		ids = append(ids, protocol.NodeID("client"+strconv.Itoa(i+1)))
	}
	return ids
}

// Draw implements sim.Subject. Every sixteenth seed has no faults. Where decisions are replicated, some nodes
// may be gone for good in other seeds, as many as the others can do without.
func (c *Cluster) Draw(seed uint64, classes []sim.Class) sim.Plan {
	z := c.filled()
	if c.Validate() != nil {
		return sim.Plan{Seed: seed, Safety: z.Safety, Bound: z.Bound} // Run says what is wrong
	}
	scale := sim.Scale{Busy: z.Safety / 4, Safety: z.Safety, Bound: z.Bound}
	for _, id := range z.names() {
		scale.Nodes = append(scale.Nodes, protocol.Node{ID: id})
	}
	p := scale.Draw(seed, classes)
	p.Begin = nil
	if seed%16 == 0 {
		p.Faults = nil
	}
	gone := map[protocol.NodeID]bool{}
	p.Faults = slices.DeleteFunc(p.Faults, func(f sim.Fault) bool {
		return f.Class == sim.Gone && !z.spares(gone, f.Node)
	})
	for i := range p.Faults {
		f := &p.Faults[i]
		switch f.Class {
		case sim.Crash, sim.Slow, sim.Drift, sim.DiskFull, sim.FailedSync, sim.TornWrite, sim.Corruption:
			f.Node = z.names()[i%(len(z.Members)+max(z.Changes, 0))]
		}
	}
	return p
}

// spares reports whether, after those that are gone, one more node may go, and notes that it does.
func (c *Cluster) spares(gone map[protocol.NodeID]bool, node protocol.NodeID) bool {
	left, s := 0, c.system()
	for _, m := range s.Members {
		if m.Node != node && !gone[m.Node] {
			left += m.Votes
		}
	}
	if c.Log != Paxos || left < s.Write || !s.Has(node) {
		return false
	}
	gone[node] = true
	return true
}

// Classes returns the classes of faults that a cluster bears.
func Classes() []sim.Class {
	return append(slices.DeleteFunc(sim.Classes(), func(c sim.Class) bool { return c == sim.Whim }), sim.Gone)
}

// Header implements sim.Subject.
func (c *Cluster) Header(plan sim.Plan) trace.Header {
	z := c.filled()
	h := trace.Header{System: Name, Nodes: z.names(), Parameters: map[string]string{
		"log": z.Log, "clients": strconv.Itoa(z.Clients), "jobs": strconv.Itoa(z.Jobs), "accounts": strconv.Itoa(z.Accounts),
		"changes": strconv.Itoa(max(z.Changes, 0))}}
	var votes []string
	for _, m := range z.Members {
		votes = append(votes, strconv.Itoa(m.Votes))
	}
	h.Parameters["votes"] = strings.Join(votes, ",")
	plan.Describe(&h)
	return h
}

// FromHeader returns the cluster and the plan of the run that a trace is of.
func FromHeader(h trace.Header) (*Cluster, sim.Plan, error) {
	c := &Cluster{Log: h.Parameters["log"]}
	plan, err := sim.ReadPlan(h)
	if err != nil {
		return nil, plan, err
	}
	for _, f := range []struct {
		name  string
		field *int
	}{{"clients", &c.Clients}, {"jobs", &c.Jobs}, {"accounts", &c.Accounts}} {
		if *f.field, err = strconv.Atoi(h.Parameters[f.name]); err != nil {
			return nil, plan, fmt.Errorf("parameter %s: %w", f.name, err)
		}
	}
	if text := h.Parameters["changes"]; text != "" { // an earlier version writes none
		if c.Changes, err = strconv.Atoi(text); err != nil {
			return nil, plan, fmt.Errorf("parameter changes: %w", err)
		}
	}
	c.Changes = cmp.Or(c.Changes, -1)
	for i, text := range strings.Split(h.Parameters["votes"], ",") {
		votes, err := strconv.Atoi(text)
		if err != nil {
			return nil, plan, fmt.Errorf("parameter votes: %w", err)
		}
		if i >= len(h.Nodes) {
			return nil, plan, fmt.Errorf("%w: the header has votes for more nodes than it names", sim.ErrSystem)
		}
		c.Members = append(c.Members, Member{Node: h.Nodes[i], Votes: votes})
	}
	return c, plan, c.Validate()
}

// Types implements sim.Subject.
func (c *Cluster) Types() *protocol.Codec { return newCodec() }

func newCodec() *protocol.Codec {
	codec, err := protocol.NewCodec(slices.Concat(commit.Types(), membership.Types(), paxos.Types[register.Value]("decision"), types())...)
	if err != nil {
		panic(fmt.Sprintf("types that are fixed: %v", err))
	}
	return codec
}

// Run implements sim.Subject.
func (c *Cluster) Run(plan sim.Plan, observer trace.Observer) (sim.Report, error) {
	if err := errors.Join(c.Validate(), plan.Validate()); err != nil {
		return sim.Report{}, err
	}
	if plan.Safety < time.Second {
		return sim.Report{}, fmt.Errorf("%w: the phase of safety is %v; at least a second is needed", sim.ErrSystem, plan.Safety)
	}
	w := newWorld(c.filled(), plan, observer)
	w.run()
	return w.Report(), w.Err()
}
