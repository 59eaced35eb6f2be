// Package stack simulates a deployment from one seed: coordinators with their decision logs, sites with
// their embedded stores, the machines of two-phase commit in the engine's loops, clients that move
// money, and recovery after every crash.
//
// It promises that the machines, loops, stores and logs are the production ones, on file systems in
// memory that lose what was not forced, and that one plan makes one run, event for event. It does not
// run package assent: the hands that join machine, store and log, the search for branches in doubt,
// retiring and forgetting are its own, for here a branch and its coordinator are on different nodes,
// and messages between them are lost. No call waits: a lock that is held is refused.
package stack

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/decision/disk"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/sim"
	"assent/sim/bank"
	"assent/trace"
)

// Name is what the stack is called in traces and on the command line.
const Name = "stack"

// Size says how much of everything there is. The zero value has the defaults.
type Size struct {
	// Coordinators, Sites and Accounts (at each site) are their numbers: 2, 3 and 4 unless set, at
	// most 8, 8 and 64.
	Coordinators, Sites, Accounts int
	// Jobs is how many pieces of work the clients have, most of them transfers: 8 unless set, at most
	// 1000.
	Jobs int
	// Safety is how long faults happen, 8 s unless set; Bound how long all may take to come to its end
	// after that, 12 min unless set: most of it passes until decisions may be forgotten.
	Safety, Bound time.Duration

	// flaw, in tests, makes the hands do one thing wrong.
	flaw flaw
}

// Stack is a simulated deployment. It is a sim.Subject. The zero value has the defaults; it must not
// be changed once it is used.
type Stack struct {
	Size
	logs logs
}

// logs are new decision logs, which are dear to make: each run has a copy.
type logs struct {
	once sync.Once
	made []*vfs.MemFS
	err  error
}

// flaw is a known fault of the hands, which the simulator must find.
type flaw uint8

const (
	// decidesEarly tells commit before the log has it.
	decidesEarly flaw = iota + 1
	// votesEarly votes yes before the branch is prepared.
	votesEarly
	// ignoresAnswer abides by what it has proposed, and not by what stands in the log.
	ignoresAnswer
	// forgetsEarly drops the decision when it is concluded, and not when nobody can ask any more.
	forgetsEarly
	// unknownIsDone takes a branch that its store does not know for committed.
	unknownIsDone
	// ageAbort rolls back a prepared branch that has been in doubt for a second.
	ageAbort
	// forgetsPrepared does not look for prepared branches when a site starts.
	forgetsPrepared
)

var _ sim.Subject = (*Stack)(nil)

func (s *Stack) size() Size {
	z := s.Size
	for _, f := range []struct {
		field *int
		value int
	}{{&z.Coordinators, 2}, {&z.Sites, 3}, {&z.Accounts, 4}, {&z.Jobs, 8}} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	if z.Safety == 0 {
		z.Safety = 8 * time.Second
	}
	if z.Bound == 0 {
		z.Bound = 12 * time.Minute
	}
	return z
}

// Validate returns a sim.ErrSystem if a number is out of bounds. Run makes the same check.
func (s *Stack) Validate() error {
	z := s.size()
	for _, f := range []struct {
		what        string
		value, most int
	}{{"coordinators", z.Coordinators, 8}, {"sites", z.Sites, 8}, {"accounts", z.Accounts, 64}, {"jobs", z.Jobs, 1000}} {
		if f.value < 1 || f.value > f.most {
			return fmt.Errorf("%w: %d %s; 1 to %d are allowed", sim.ErrSystem, f.value, f.what, f.most)
		}
	}
	return nil
}

// Work returns the number of pieces of work, which sim.Shrink may leave out.
func (s *Stack) Work() int { return s.size().Jobs }

// nodes names the coordinators and then the sites.
func (s *Stack) nodes() (ids []protocol.NodeID) {
	z := s.size()
	for i := range z.Coordinators {
		ids = append(ids, protocol.NodeID("c"+strconv.Itoa(i+1)))
	}
	for i := range z.Sites {
		ids = append(ids, protocol.NodeID("s"+strconv.Itoa(i+1)))
	}
	return ids
}

// Draw implements sim.Subject.
func (s *Stack) Draw(seed uint64, classes []sim.Class) sim.Plan {
	z := s.size()
	if s.Validate() != nil {
		return sim.Plan{Seed: seed, Safety: z.Safety, Bound: z.Bound} // Run says what is wrong
	}
	scale := sim.Scale{Busy: z.Safety / 4, Safety: z.Safety, Bound: z.Bound}
	for _, id := range s.nodes() {
		scale.Nodes = append(scale.Nodes, protocol.Node{ID: id})
	}
	p := scale.Draw(seed, classes)
	p.Begin = nil
	for i := range p.Faults {
		if f := &p.Faults[i]; f.Class == sim.Corruption { // of a log that holds something
			f.Node = scale.Nodes[i%z.Coordinators].ID
			f.At = max(f.At, z.Safety/4)
			f.For = min(f.For, z.Safety-f.At)
		}
	}
	slices.SortStableFunc(p.Faults, func(a, b sim.Fault) int { return cmp.Compare(a.At, b.At) })
	return p
}

// Header implements sim.Subject.
func (s *Stack) Header(plan sim.Plan) trace.Header {
	z := s.size()
	h := trace.Header{System: Name, Nodes: s.nodes(), Parameters: map[string]string{
		"coordinators": strconv.Itoa(z.Coordinators), "sites": strconv.Itoa(z.Sites),
		"accounts": strconv.Itoa(z.Accounts), "jobs": strconv.Itoa(z.Jobs)}}
	plan.Describe(&h)
	return h
}

// FromHeader returns the stack and the plan of the run that a trace is of.
func FromHeader(h trace.Header) (*Stack, sim.Plan, error) {
	s := &Stack{}
	plan, err := sim.ReadPlan(h)
	if err != nil {
		return nil, plan, err
	}
	for name, field := range map[string]*int{"coordinators": &s.Coordinators, "sites": &s.Sites,
		"accounts": &s.Accounts, "jobs": &s.Jobs} {
		if *field, err = strconv.Atoi(h.Parameters[name]); err != nil {
			return nil, plan, fmt.Errorf("parameter %s: %w", name, err)
		}
	}
	return s, plan, s.Validate()
}

// Types implements sim.Subject.
func (s *Stack) Types() *protocol.Codec {
	types := append(commit.Types(),
		protocol.Type{Name: "stack.Work", Zero: Work{}}, protocol.Type{Name: "stack.Worked", Zero: bank.Worked{}})
	codec, err := protocol.NewCodec(types...)
	if err != nil {
		panic(fmt.Sprintf("types that are fixed: %v", err))
	}
	return codec
}

// Run implements sim.Subject.
func (s *Stack) Run(plan sim.Plan, observer trace.Observer) (sim.Report, error) {
	if err := errors.Join(s.Validate(), plan.Validate()); err != nil {
		return sim.Report{}, err
	}
	if plan.Safety < time.Second {
		return sim.Report{}, fmt.Errorf("%w: the phase of safety is %v; at least a second is needed", sim.ErrSystem, plan.Safety)
	}
	s.logs.once.Do(s.makeLogs)
	if s.logs.err != nil {
		return sim.Report{}, s.logs.err
	}
	w := newWorld(s, plan, observer)
	defer w.close()
	w.run()
	return w.Report(), w.Err()
}

func (s *Stack) makeLogs() {
	for i := range s.size().Coordinators {
		memory := vfs.NewCrashableMem()
		log, err := disk.Open(logDir, logConfig(memory, newEntropy(0, i), time.Now))
		if err == nil {
			err = log.Close()
		}
		s.logs.made = append(s.logs.made, memory)
		s.logs.err = errors.Join(s.logs.err, err)
	}
}

// Work asks a site to do a transaction's work there. Client → site, which answers with bank.Worked.
type Work struct {
	ID         commit.TransactionID
	Owner      string
	Operations []bank.Operation
	// Sent is when it was sent, in nanoseconds of the run. It stands for the connection that it is
	// sent on, which does not outlive the site's process.
	Sent int64
}
