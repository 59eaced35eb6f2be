package sim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"assent/protocol"
	"assent/trace"
)

// Plan is all that a run depends on besides what is run: the same plan makes the same run. Faults
// may be taken out of it, and the rest still has its own chances.
type Plan struct {
	// Seed is what all chances are drawn from.
	Seed uint64
	// Safety is how long faults may happen. Then all is healed, and the phase of liveness begins.
	Safety time.Duration
	// Bound is how long after that everything may take to come to its end.
	Bound time.Duration
	// Begin says in which way each node begins, by number; missing ones begin in the first.
	Begin []int
	// Faults are what goes wrong, in the order in which it begins.
	Faults []Fault
	// Skip are the pieces of work that are left out, by number, where the run has work to do.
	Skip []int
}

// Scale says what faults are drawn for: which nodes, and how quickly things happen among them.
type Scale struct {
	Nodes []protocol.Node
	// Busy is the time at the beginning in which most happens; a good part of the faults falls there.
	Busy time.Duration
	// Safety and Bound are the plan's.
	Safety, Bound time.Duration
}

// Draw makes a plan from the seed. Each seed draws first which of the classes it has at all, so that
// faults are also seen alone and in odd company (swarm testing: Groce and others 2012), and then how
// many of each, where, when and how bad. Where there are no nodes, there are no faults. Draw checks
// nothing: whoever runs the plan does.
func (s Scale) Draw(seed uint64, classes []Class) Plan {
	d := drawing{Rand: rand.New(rand.NewPCG(seed, 1)), Scale: s}
	p := Plan{Seed: seed, Safety: s.Safety, Bound: s.Bound}
	if len(s.Nodes) == 0 {
		return p
	}
	for _, n := range s.Nodes {
		p.Begin = append(p.Begin, d.begin(len(n.New)))
	}
	for _, c := range classes {
		if d.IntN(2) == 0 {
			continue
		}
		for range 1 + d.IntN(3) {
			if f, ok := d.fault(c); ok {
				p.Faults = append(p.Faults, f)
			}
		}
	}
	slices.SortStableFunc(p.Faults, func(a, b Fault) int { return cmp.Compare(a.At, b.At) })
	return p
}

type drawing struct {
	*rand.Rand
	Scale
}

// begin prefers the first way: a yes vote, say, without which little follows.
func (d drawing) begin(ways int) int {
	if ways < 2 || d.IntN(4) > 0 {
		return 0
	}
	return d.IntN(ways)
}

func (d drawing) node() protocol.Node { return d.Nodes[d.IntN(len(d.Nodes))] }

// between draws a time, in milliseconds. Where most is less than least, as where the phase of safety is
// short, it is least.
func (d drawing) between(least, most time.Duration) time.Duration {
	most = max(least, most)
	return least + time.Duration(d.Int64N(int64((most-least)/time.Millisecond)+1))*time.Millisecond
}

// moment draws when a fault begins: where most happens, or anywhere.
func (d drawing) moment() time.Duration {
	if d.IntN(3) > 0 {
		return d.between(0, min(d.Busy, d.Safety))
	}
	return d.between(0, d.Safety)
}

func (d drawing) fault(c Class) (f Fault, ok bool) {
	f = Fault{Class: c, At: d.moment()}
	f.For = min(d.between(d.Busy/20, d.Safety/2), d.Safety-f.At)
	switch c {
	case Crash:
		f.Node, f.Sends = d.node().ID, d.IntN(5)-1
	case Gone:
		f.Node, f.For = d.node().ID, d.Safety-f.At
	case Loss, Duplication:
		f.Rate = 10 + d.IntN(91)
		d.link(&f)
	case Delay, Reordering:
		f.By = d.between(d.Busy/10, d.Busy*4)
		d.link(&f)
	case Slow:
		f.Node, f.By = d.node().ID, d.between(d.Busy/10, d.Busy*4)
	case Drift:
		f.Node, f.Rate = d.node().ID, 25+d.IntN(400)
	case Partition, OneWay, Flapping:
		if len(d.Nodes) < 2 {
			return f, false
		}
		f.Side = d.side()
		f.By = max(d.between(d.Busy/3, d.Safety/10), f.For/mostFlaps)
	case DiskFull, TornWrite, Corruption:
		f.Node, f.Rate = d.node().ID, 1+d.IntN(99)
	case FailedSync:
		f.Node, f.Rate = d.node().ID, 100*d.IntN(2)
	case Garbling, Lying:
		f.Node, f.Rate = d.node().ID, 10+d.IntN(91)
	case Whim:
		n := d.node()
		if len(n.Inputs) == 0 {
			return f, false
		}
		f.Node, f.Sends = n.ID, d.IntN(len(n.Inputs))
	}
	return f, true
}

// link draws one link, one way, or all links of a node, or all there are.
func (d drawing) link(f *Fault) {
	switch d.IntN(3) {
	case 0:
		f.Node, f.Peer = d.node().ID, d.node().ID
	case 1:
		f.Node = d.node().ID
	}
}

// side draws some nodes, and not all.
func (d drawing) side() (side []protocol.NodeID) {
	order := d.Perm(len(d.Nodes))
	for _, i := range order[:1+d.IntN(len(order)-1)] {
		side = append(side, d.Nodes[i].ID)
	}
	slices.Sort(side)
	return side
}

// The names of a plan's parts among the parameters of a trace.
const (
	beginParameter  = "begin"
	safetyParameter = "safety"
	boundParameter  = "bound"
	skipParameter   = "skip"
	faultParameter  = "fault."
)

// Describe adds the plan to the header of a trace.
func (p Plan) Describe(h *trace.Header) {
	if h.Parameters == nil {
		h.Parameters = map[string]string{}
	}
	h.Executor, h.Seed = trace.Sim, p.Seed
	h.Parameters[safetyParameter], h.Parameters[boundParameter] = p.Safety.String(), p.Bound.String()
	if len(p.Begin) > 0 {
		h.Parameters[beginParameter] = numbers(p.Begin)
	}
	if len(p.Skip) > 0 {
		h.Parameters[skipParameter] = numbers(p.Skip)
	}
	for i, f := range p.Faults {
		h.Parameters[fmt.Sprintf("%s%03d", faultParameter, i+1)] = f.String()
	}
}

// ReadPlan returns the plan that the header of a trace describes. It fails on one that is not as
// Describe makes it.
func ReadPlan(h trace.Header) (p Plan, err error) {
	p.Seed = h.Seed
	names := make([]string, 0, len(h.Parameters))
	for name := range h.Parameters {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		value := h.Parameters[name]
		switch {
		case name == safetyParameter:
			p.Safety, err = time.ParseDuration(value)
		case name == boundParameter:
			p.Bound, err = time.ParseDuration(value)
		case name == beginParameter:
			p.Begin, err = parseNumbers(value)
		case name == skipParameter:
			p.Skip, err = parseNumbers(value)
		case strings.HasPrefix(name, faultParameter):
			var f Fault
			f, err = ParseFault(value)
			p.Faults = append(p.Faults, f)
		}
		if err != nil {
			return p, fmt.Errorf("parameter %s: %w", name, err)
		}
	}
	return p, p.Validate()
}

// The bounds of a plan.
const (
	mostTime   = 24 * time.Hour
	mostFaults = 100
	mostCuts   = 20_000 // by all flapping partitions together
	// mostFlaps is how often one that is drawn comes and goes: three are drawn at most.
	mostFlaps = 5_000
	// mostSpeed is the greatest Rate of a Drift; that of the other classes is a share, of 100.
	mostSpeed = 1000
)

// Validate returns an ErrSystem if the plan is out of bounds: if it would take for ever, or has a fault
// that cannot be. ReadPlan and every Run make the same check.
func (p Plan) Validate() error {
	if !within(p.Safety) || !within(p.Bound) || len(p.Faults) > mostFaults {
		return fmt.Errorf("%w: phases of %v and %v, and %d faults; at most %v and %d are allowed",
			ErrSystem, p.Safety, p.Bound, len(p.Faults), mostTime, mostFaults)
	}
	cuts := 0
	for _, f := range p.Faults {
		if !f.valid() {
			return fmt.Errorf("%w: the fault %q is out of bounds", ErrSystem, f)
		}
		if f.Class == Flapping {
			cuts += int(f.For / f.period())
		}
	}
	if cuts > mostCuts {
		return fmt.Errorf("%w: partitions come and go %d times; at most %d are allowed", ErrSystem, cuts, mostCuts)
	}
	return nil
}

func within(d time.Duration) bool { return 0 <= d && d <= mostTime }

func numbers(list []int) string {
	texts := make([]string, len(list))
	for i, n := range list {
		texts[i] = strconv.Itoa(n)
	}
	return strings.Join(texts, ",")
}

func parseNumbers(text string) (list []int, err error) {
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, nil
}
