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
	"time"

	"assent/protocol"
	"assent/spec"
)

// Unlimited is the budget of a fault that may happen any number of times.
const Unlimited = -1

// Model says when timers run out.
type Model uint8

// The models.
const (
	// Asynchronous: an armed timer may run out at any moment.
	Asynchronous Model = iota
	// Synchronous: a timer runs out only when no message is on its way to a node that is up, for
	// such a message could still disarm it. Suspicion is then never wrong.
	Synchronous
)

// Faults is the budget of a run. The zero value has none, but messages are reordered always.
type Faults struct {
	// Crashes is the greatest number of crashes. A crash falls between two steps, or within one:
	// after its stable writes, or after any number of its sends.
	Crashes int
	// Restarts is the greatest number of crashed nodes that are made anew.
	Restarts int
	// Losses is the greatest number of messages lost.
	Losses int
	// Duplicates is the greatest number of messages delivered once more. When it is Unlimited every
	// message that was ever sent may arrive at any time, any number of times.
	Duplicates int
}

// System is what is checked.
type System struct {
	Nodes  []protocol.Node
	Codec  *protocol.Codec
	Faults Faults
	Model  Model
}

// State is a global state, to be judged by properties. It is valid during the call only, and its
// machines must not be changed.
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

// Claims are what Run puts to the test.
type Claims struct {
	// Always hold in every reachable state.
	Always []spec.Property
	// Sometimes hold in at least one: the good thing must be possible too.
	Sometimes []spec.Property
	// Decided says when the machine of a node, which is up, has reached its end. When it is set,
	// Run looks for blocking: states from which a node that is up cannot come to its end any
	// more, without a further fault and with those that are down staying so.
	Decided func(node int, m protocol.Machine) bool
}

// Limits bound a run.
type Limits struct {
	// States is the number of distinct states after which the run stops. Defaults to 50 million,
	// which take about 2 GiB.
	States int
	// Workers is the number of goroutines. Defaults to the number of processors.
	Workers int
	// Progress, if set, is called about once a second and at the end, by one goroutine.
	Progress func(Progress)
}

// Progress tells how far a run is.
type Progress struct {
	States   int // distinct states found
	Frontier int // states found and not yet expanded
	Depth    int // steps from the beginning
	Elapsed  time.Duration
}

// Step is one thing that happens in a counterexample.
type Step struct {
	// What happens, in words: "p1 gets Voted from c", "c crashes".
	What string
	// After is the state of each node then, encoded as JSON-like text, in the order of nodes.
	After []string
}

// Counterexample is a shortest run that breaks a claim.
type Counterexample struct {
	Claim string
	Steps []Step
}

// Report is what a run found.
type Report struct {
	// States and Transitions count what was explored; Depth is the length of the longest of the
	// shortest ways.
	States, Transitions, Depth int
	// Locals and Messages count distinct local states and messages; Stepped counts calls of
	// Machine.Step.
	Locals, Messages, Stepped int
	// Bytes is the memory that the visited states take.
	Bytes int
	// Complete says that no limit was hit and the context did not end.
	Complete bool
	// Broken are the claims that do not hold, with a run that shows it, in the order of Claims.
	// A Sometimes that never held is in Never.
	Broken []Counterexample
	Never  []string
	// Blocking counts states in which a node that is up is blocked; Blocked is the shortest way to
	// one. They are set only for a complete run with Claims.Decided.
	Blocking int
	Blocked  *Counterexample
	Elapsed  time.Duration
}

// ErrSystem says that a system cannot be checked; the text says why.
var ErrSystem = errors.New("system cannot be checked")

// Run explores sys. It returns an error on a system that makes no sense and when a machine does
// what cannot be carried out: sends to nobody, or states that cannot be encoded. When ctx ends,
// or a limit is hit, it returns what is known so far, and Complete is false.
func Run(ctx context.Context, sys System, claims Claims, limits Limits) (Report, error) {
	if err := sys.validate(); err != nil {
		return Report{}, err
	}
	x := newExplorer(sys, claims, limits)
	return x.run(ctx)
}

const maxNodes = 32

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
		case len(n.Inputs) > 8:
			return fmt.Errorf("%w: node %s has %d inputs; at most 8 are allowed", ErrSystem, n.ID, len(n.Inputs))
		}
		seen[n.ID] = true
	}
	for _, budget := range []int{s.Faults.Crashes, s.Faults.Restarts, s.Faults.Losses, s.Faults.Duplicates} {
		if budget < Unlimited || budget > 200 {
			return fmt.Errorf("%w: a budget of %d faults; 0 to 200 or Unlimited are allowed", ErrSystem, budget)
		}
	}
	return nil
}
