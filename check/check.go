// Package check is the exhaustive executor: it takes machines through every state that they can
// reach under a budget of faults.
//
// It promises that, when Run ends without a limit having been hit, every reachable state was looked
// at (up to collisions of 64-bit fingerprints), that each counterexample is a shortest one, and that
// what was stepped are the machines themselves. It says nothing about times: durations are ignored.
//
// A Step touches one node. So each distinct local state and each distinct message is stored once,
// each pair of local state and event is stepped once and its result remembered, and the search
// runs over short tuples of numbers.
package check

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"assent/protocol"
	"assent/spec"
	"assent/trace"
)

// Unlimited is the budget of a fault that may happen any number of times.
const Unlimited = -1

// Model says when timers run out.
type Model uint8

// The models.
const (
	// Asynchronous: an armed timer may run out at any moment.
	Asynchronous Model = iota
	// Synchronous: a timer runs out only when no message is on its way to any node that is up, and
	// nobody has yet to start. This is stronger than that nothing could still disarm the timer: what
	// follows in time from a message to somebody else is over, too. Suspicion is then never wrong.
	// Faults.Duplicates must have a limit.
	Synchronous
)

// Faults is the budget of a run. The zero value has none, but messages are reordered always. Each is a
// number up to 200, or Unlimited.
type Faults struct {
	// Crashes is the greatest number of crashes. A crash falls between two steps, or within one:
	// after its stable writes, or after any number of its sends.
	Crashes int
	// Restarts is the greatest number of crashed nodes that are made anew.
	Restarts int
	// Losses is the greatest number of messages lost.
	Losses int
	// Duplicates is the greatest number of messages delivered once more. When it is Unlimited every
	// message that was ever sent may arrive at any time, any number of times, or never: in the
	// asynchronous model alone, for in the other no timer would ever run out.
	Duplicates int
	// Partitions is the greatest number of times that the network splits in two: nothing gets
	// through between the nodes of one side and those of the other. At most 10 nodes are allowed.
	Partitions int
	// Cuts is the greatest number of times that a link from one node to another is cut, in that
	// direction only.
	Cuts int
	// Heals is the greatest number of times that all links become whole. Without it what is cut
	// stays so. What is sent over a cut link, or is on its way when it is cut, is lost, or, where
	// Duplicates is Unlimited, held up.
	Heals int
	// Lies is the greatest number of messages that reach their receivers as what System.Lie says
	// instead. Where Duplicates is Unlimited the true message may arrive, too.
	Lies int
}

// System is what is checked.
type System struct {
	Nodes  []protocol.Node
	Codec  *protocol.Codec
	Faults Faults
	Model  Model
	// Lie returns what a node may say to another instead of m: nothing for a node that does not
	// lie. It must depend on its arguments alone.
	Lie func(from, to protocol.NodeID, m protocol.Message) []protocol.Message
	// Symmetric are groups of interchangeable nodes, by their places in Nodes, at most 16 in all:
	// the search takes states for the same that differ only in which node of a group is which.
	// The claims must not tell them apart, and the machines must treat ids as opaque, wherever a
	// protocol.NodeID stands in a state, message or record; the order of a list of ids, or of
	// structs with an id, must mean nothing but the order of sends. As any order must then be
	// possible, a crash within a step falls after any set of its sends, of which a step may then
	// have 16 different ones. A group whose members begin differently is refused; so is a member's
	// id, as a word, within the name of a timer, the key of a record or an input: these are not
	// renamed. Inputs of members must be equal.
	Symmetric [][]int
}

// State is a global state, to be judged by properties: what they are shown is a *State. It is valid
// during the call only, and its machines must not be changed.
type State struct {
	x     *explorer
	tuple []uint32
}

var _ spec.View = State{}

// Nodes returns the number of nodes.
func (s State) Nodes() int { return len(s.x.sys.Nodes) }

// Machine returns the machine at the node number i, in the order of System.Nodes; nil while the
// node is down.
func (s State) Machine(i int) protocol.Machine { return s.x.local(s.tuple[i]).machine }

// Record returns what the node number i has in stable storage under key, or nil. It tells of
// nodes that are down, too.
func (s State) Record(i int, key string) protocol.Record {
	return s.x.local(s.tuple[i]).records[key]
}

// UnderWay calls yield with every message that may still arrive: the places of its sender and its
// receiver, and the message, as often as it is under way.
func (s State) UnderWay(yield func(from, to int, m protocol.Message)) {
	s.x.eachMessage(state{tuple: s.tuple}, func(number uint32) {
		m := s.x.messages.get(number)
		yield(m.from, m.to, m.value)
	})
}

// StepProperty is a named claim about single steps.
type StepProperty struct {
	Name string
	// Holds judges one step from a state to the next. For an initial state before is nil. It
	// depends on nothing else and may be called concurrently.
	Holds func(before, after spec.View) bool
}

// Claims are what Run puts to the test.
type Claims struct {
	// Always hold in every reachable state.
	Always []spec.Property
	// Steps hold of every step between reachable states.
	Steps []StepProperty
	// Sometimes hold in at least one: the good thing must be possible too.
	Sometimes []spec.Property
	// Decided says when the machine of a node, which is up, has reached its end. When it is set,
	// Run looks for blocking: states from which a node that is up cannot come to its end any
	// more, without a further fault, with those that are down staying so and links that are cut
	// staying so. It must depend on its arguments alone.
	Decided func(node int, m protocol.Machine) bool
	// Blocked, if set, is called for every reachable state when blocking has been looked for,
	// with the nodes that are blocked there, in most states none; v is a *State. With symmetry it is one state
	// for all that differ in names only.
	Blocked func(v spec.View, nodes []int)
}

// Limits bound a run.
type Limits struct {
	// States is the greatest number of distinct states: with one more the run stops, or soon
	// after. The way to what such a run has found broken is sought among at most four times as
	// many as it found. Defaults to 100 million, which take about 1.5 GiB, and several times as much to look for blocking.
	States int
	// Workers is the number of goroutines. Defaults to the number of processors.
	Workers int
	// Progress, if set, is called about once a second, when a phase begins and at the end, by one
	// goroutine.
	Progress func(Progress)
}

// Phase is a part of a run.
type Phase string

// The phases, in their order. The last two are left out where there is nothing to do.
const (
	Searching Phase = "searching"            // for all states
	Blocking  Phase = "looking for blocking" // among those found
	Tracing   Phase = "finding the way"      // to what is broken
)

// Progress tells how far a run is.
type Progress struct {
	Phase Phase
	// Share is how much of the phase is done, from 0 to 1; of Blocking it is one pass over the
	// states, of which there are several.
	Share    float64
	States   int // distinct states found
	Frontier int // states found and not yet expanded
	Depth    int // steps from the beginning
	Bytes    int // memory that the states take
	// Elapsed is the time of the whole run, Searched that of Searching.
	Elapsed, Searched time.Duration
}

// Step is one thing that happens in a counterexample.
type Step struct {
	// What happens, in words: "p1 gets Voted from c", "c crashes".
	What string
	// After is the state of each node then, encoded as JSON-like text, in the order of nodes.
	After []string
}

// Counterexample is a shortest run that breaks a claim. Among several it is always the same one. It
// has no Steps where it is known that there is one and the run was stopped before it was found.
type Counterexample struct {
	Claim string
	// Begin says which of its ways to begin each node takes, as a place in protocol.Node.New.
	Begin []int
	Steps []Step

	events []trace.Event
}

// Trace returns the run in the form that all executors write, in which the simulator can replay it.
// It was made by running the machines once more. Messages are numbered; times are zero.
func (c Counterexample) Trace() []trace.Event { return slices.Clone(c.events) }

// Report is what a run found.
type Report struct {
	// States and Transitions count what was explored; Depth is the length of the longest of the
	// shortest ways.
	States, Transitions, Depth int
	// Locals and Messages count distinct local states and messages; Stepped counts calls of
	// Machine.Step.
	Locals, Messages, Stepped int
	// Bytes is the greatest memory that states took: the table of those visited, those that were
	// still to be expanded and, where blocking was looked for, all of them. Local states and
	// messages are not counted: there are few.
	Bytes int
	// Complete says that every state was looked at: what is not Broken holds, and what is in Never
	// is never so.
	Complete bool
	// BlockingKnown says that blocking was looked for to the end.
	BlockingKnown bool
	// Broken are the claims Always and Steps that do not hold, with a run that shows it, in the
	// order of Claims. A Sometimes that never held is in Never.
	Broken []Counterexample
	Never  []string
	// Blocking counts states in which a node that is up is blocked; Blocked is the shortest way to
	// one. They are set only if BlockingKnown.
	Blocking int
	Blocked  *Counterexample
	// Elapsed is the time of the whole run, and Searched that of the search without what follows:
	// looking for blocking and for the ways to what is broken.
	Elapsed, Searched time.Duration
}

// ErrSystem says that a system cannot be checked; the text says why.
var ErrSystem = errors.New("system cannot be checked")

// Run explores sys. It returns an error on a system that makes no sense and when a machine does
// what cannot be carried out: sends to nobody, or states that cannot be encoded. When ctx ends,
// or a limit is hit, it returns what is known so far: Complete and BlockingKnown say how much, and
// there may be counterexamples without Steps.
func Run(ctx context.Context, sys System, claims Claims, limits Limits) (Report, error) {
	if err := sys.validate(); err != nil {
		return Report{}, err
	}
	return newExplorer(sys, claims, limits).run(ctx)
}

func (x *explorer) run(ctx context.Context) (Report, error) {
	all, depth, complete, err := x.search(ctx)
	if err != nil {
		return Report{}, err
	}
	searched := x.endSearch()
	r := Report{States: int(x.found.Load()), Transitions: int(x.transitions.Load()), Depth: depth,
		Locals: x.locals.len(), Messages: x.messages.len(), Stepped: int(x.stepped.Load()),
		Bytes: x.bytes(), Complete: complete, Searched: searched}
	for i := range x.held {
		if !x.held[i].Load() {
			r.Never = append(r.Never, x.claims.Sometimes[i].Name)
		}
	}
	var target uint64
	if r.Complete && x.claims.Decided != nil {
		if target, err = x.block(ctx, all, &r); err != nil {
			return r, err
		}
	}
	err = x.counterexamples(ctx, &r, target)
	r.Elapsed = time.Since(x.begun)
	x.progress()
	return r, err
}

func (x *explorer) bytes() int { return x.visited.bytes() + int(x.memory.Load()) }

// enter begins a phase.
func (x *explorer) enter(p Phase) {
	x.phase = p
	x.gone.Store(0)
	x.progress()
}

func (x *explorer) endSearch() time.Duration {
	x.searched = time.Since(x.begun)
	return x.searched
}

func (x *explorer) progress() {
	if x.limits.Progress == nil {
		return
	}
	found, expanded, elapsed := int(x.found.Load()), int(x.expanded.Load()), time.Since(x.begun)
	p := Progress{Phase: x.phase, States: found, Frontier: max(0, found-expanded),
		Depth: int(x.depth.Load()), Bytes: x.bytes(), Elapsed: elapsed, Searched: x.searched}
	done := x.gone.Load()
	if x.phase == Searching {
		done = int64(expanded)
		if p.Searched == 0 {
			p.Searched = elapsed
		}
	}
	p.Share = min(1, float64(done)/float64(max(1, found)))
	x.limits.Progress(p)
}

const (
	maxNodes = 32
	maxSplit = 10 // nodes where the network may split
)

func (s System) validate() error {
	if len(s.Nodes) == 0 || len(s.Nodes) > maxNodes {
		return fmt.Errorf("%w: %d nodes; 1 to %d are allowed", ErrSystem, len(s.Nodes), maxNodes)
	}
	if s.Codec == nil {
		return fmt.Errorf("%w: it has no codec", ErrSystem)
	}
	seen := map[protocol.NodeID]bool{}
	for _, n := range s.Nodes {
		switch {
		case n.ID == "" || seen[n.ID]:
			return fmt.Errorf("%w: node id %q is empty or given twice", ErrSystem, n.ID)
		case len(n.New) == 0:
			return fmt.Errorf("%w: node %s has no machine", ErrSystem, n.ID)
		case len(n.Inputs) > maxInputs:
			return fmt.Errorf("%w: node %s has %d inputs; at most %d are allowed", ErrSystem, n.ID, len(n.Inputs), maxInputs)
		}
		seen[n.ID] = true
	}
	for _, budget := range s.Faults.budgets() {
		if budget < Unlimited || budget > 200 {
			return fmt.Errorf("%w: a budget of %d faults; 0 to 200 or Unlimited are allowed", ErrSystem, budget)
		}
	}
	switch {
	case s.Faults.Partitions != 0 && len(s.Nodes) > maxSplit:
		return fmt.Errorf("%w: partitions of %d nodes; at most %d are allowed", ErrSystem, len(s.Nodes), maxSplit)
	case s.Model == Synchronous && s.Faults.Duplicates == Unlimited:
		return fmt.Errorf("%w: in the synchronous model no timer would ever run out, for with duplicates without limit messages stay under way; bound Duplicates, or choose the asynchronous model", ErrSystem)
	case s.Faults.Lies != 0 && s.Lie == nil:
		return fmt.Errorf("%w: a budget of lies, and nobody lies", ErrSystem)
	}
	return s.validateSymmetry()
}

func (s System) validateSymmetry() error {
	if len(s.Symmetric) > 0 && s.Faults.Lies != 0 {
		return fmt.Errorf("%w: a liar is not interchangeable", ErrSystem)
	}
	seen := map[int]bool{}
	for _, group := range s.Symmetric {
		for _, i := range group {
			if i < 0 || i >= len(s.Nodes) || seen[i] || len(seen) == maxSymmetric {
				return fmt.Errorf("%w: interchangeable nodes %v: each is a place among %d nodes, there once, and %d are allowed",
					ErrSystem, s.Symmetric, len(s.Nodes), maxSymmetric)
			}
			seen[i] = true
			if !reflect.DeepEqual(s.Nodes[i].Inputs, s.Nodes[group[0]].Inputs) {
				return fmt.Errorf("%w: %s and %s are not interchangeable: they have different inputs", ErrSystem, s.Nodes[i].ID, s.Nodes[group[0]].ID)
			}
		}
	}
	for _, node := range s.Nodes {
		for i := range seen {
			for _, input := range node.Inputs {
				if id := s.Nodes[i].ID; mentions(fmt.Sprintf("%+v %s", input, text(input)), string(id)) {
					return fmt.Errorf("%w: the input %+v of %s has the id of the interchangeable node %s in it, where it is not renamed", ErrSystem, input, node.ID, id)
				}
			}
		}
	}
	return nil
}
