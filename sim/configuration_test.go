package sim_test

import (
	"fmt"
	"hash/fnv"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"assent/internal/linear"
	"assent/protocol"
	"assent/protocol/membership"
	"assent/sim"
	"assent/sim/simtest"
	"assent/trace"
)

// clerk is a node of a cluster with a client that reads and changes the cluster's settings there, one thing
// after the other, and says so: the history of all clerks must be linearizable.
type clerk struct {
	Node membership.Node
	// Ops is how many things it does in an incarnation, Count how many it has begun.
	Ops, Count int
	Now        linear.Operation
	State      clerkState
	// Seen is the epoch of its last look.
	Seen uint64
	// Wrong is what the clerk does wrong, in the tests of this test.
	Wrong string
}

type clerkState uint8

const (
	clerkIdle clerkState = iota
	clerkAbout
	clerkAsking
)

// What a clerk says of an operation.
type (
	began struct{ Operation linear.Operation }
	ended struct{ Answer linear.Answer }
)

const clerkTimer = "clerk"

// wishes are what a clerk chooses among.
var wishes = []linear.Do{linear.Get, linear.Get, linear.Set, linear.Set, linear.Swap, linear.Swap, linear.Swap, linear.Unset}

// choice draws a number below n from what the clerk is and has done.
func (c *clerk) choice(of string, n uint64) uint64 {
	h := fnv.New64a()
	fmt.Fprintln(h, of, c.Node.Self.Node, c.Node.Life.Incarnation, c.Count)
	return h.Sum64() % n
}

func (c *clerk) Step(ev protocol.Event, out *protocol.Effects) {
	switch e := ev.(type) {
	case protocol.Start, protocol.Recover:
		out.Arm(clerkTimer, 200*time.Millisecond)
	case protocol.Expire:
		if e.Timer == clerkTimer {
			out.Arm(clerkTimer, time.Duration(20+c.choice("pause", 200))*time.Millisecond)
			ev = c.turn(out)
		}
	}
	if ev == nil {
		return
	}
	emitted := len(out.Emits)
	c.Node.Step(ev, out)
	answers := slices.Clone(out.Emits[emitted:])
	out.Emits = out.Emits[:emitted]
	for _, v := range answers {
		if a, ok := v.(membership.Answered); ok {
			c.answered(a, out)
		}
	}
}

// turn does what is next. To say that an operation begins and to begin it are two steps: a crash between a
// step's messages and what it says must not let an operation happen of which nobody has said anything.
func (c *clerk) turn(out *protocol.Effects) protocol.Event {
	switch {
	case c.State == clerkIdle && c.Count < c.Ops:
		c.Count++
		c.State = clerkAbout
		c.Now = linear.Operation{Do: wishes[c.choice("what", uint64(len(wishes)))]}
		if c.Now.Do == linear.Swap && c.Seen == 0 {
			c.Now.Do = linear.Get
		}
		if c.Now.Do != linear.Get {
			c.Now.Key = []string{"x", "y"}[c.choice("key", 2)]
			c.Now.Value = fmt.Sprintf("%s.%d.%d", c.Node.Self.Node, c.Node.Life.Incarnation, c.Count)
		}
		if c.Now.Do == linear.Swap {
			c.Now.Epoch = c.Seen
		}
		out.Emit(began{c.Now})
		return nil
	case c.State == clerkAbout:
		if c.Now.Do == linear.Get && c.Wrong == "reads at once" {
			c.tell(membership.Applied, c.Node.State.Epoch, out)
			return nil
		}
		c.State = clerkAsking
		return protocol.Input{Value: membership.Ask{Ref: uint64(c.Count), Change: c.Now.Change()}}
	}
	return nil
}

func (c *clerk) answered(a membership.Answered, out *protocol.Effects) {
	if c.State != clerkAsking || a.Ref != uint64(c.Count) {
		return
	}
	if a.Result == membership.Unsure && c.Wrong != "" {
		switch c.Wrong {
		case "takes unsure for refused":
			a.Result = membership.Refused
		case "asks again":
			if c.Now.Do != linear.Get { // one operation, which may be applied twice
				c.State = clerkAbout
				return
			}
		}
	}
	c.tell(a.Result, a.Epoch, out)
}

// tell says what has become of the operation. What a get has found is the state at its end.
func (c *clerk) tell(result membership.Result, epoch uint64, out *protocol.Effects) {
	a := linear.Answer{Result: result, Epoch: epoch}
	if c.Now.Do == linear.Get && result == membership.Applied {
		a = linear.Look(c.Node.State)
		c.Seen = a.Epoch
	}
	c.State = clerkIdle
	out.Emit(ended{a})
}

// scribe writes the history of a run.
type scribe struct {
	linear.History
	open map[protocol.NodeID]*linear.Call
}

// Observe takes what clerks say.
func (s *scribe) Observe(e trace.Event) {
	switch v := e.Value.(type) {
	case began:
		if e.Kind == trace.Emit {
			s.open[e.Node] = s.Begin(v.Operation)
		}
	case ended:
		if e.Kind == trace.Emit {
			s.End(s.open[e.Node], v.Answer)
		}
	}
}

// clerks returns a system of five founders, at each of which a clerk does so many things, and waits for so many
// ticks for an answer.
func clerks(t *testing.T, ops, patience int, wrong string) *sim.System {
	t.Helper()
	var founders []membership.Member
	for i := range 5 {
		founders = append(founders, membership.Member{Node: protocol.NodeID(fmt.Sprintf("n%d", i+1)), Wanted: 1})
	}
	state, err := membership.Found("clerks", founders...)
	if err != nil {
		t.Fatal(err)
	}
	var nodes []protocol.Node
	for _, self := range founders {
		self.Storage = string(self.Node) + "/1"
		nodes = append(nodes, protocol.Node{ID: self.Node, New: []func() protocol.Machine{func() protocol.Machine {
			return &clerk{Node: *membership.Founder(self, state, membership.Options{Patience: patience, Every: 8}), Ops: ops, Wrong: wrong}
		}}})
	}
	s := system(t, "clerks", nodes, nil, append(membership.Types(),
		protocol.Type{Name: "sim.began", Zero: began{}}, protocol.Type{Name: "sim.ended", Zero: ended{}}))
	s.Safety = 15 * time.Second
	s.Done = func(_ int, m protocol.Machine) bool {
		c := m.(*clerk)
		return c.Count == c.Ops && c.State == clerkIdle
	}
	return s
}

// clerksFaults are all but lies; there are no inputs.
var clerksFaults = slices.DeleteFunc(sim.Classes(), func(c sim.Class) bool { return c == sim.Whim })

// linearizable runs a seed and judges its history.
func linearizable(t *testing.T, s *sim.System, seed uint64) (porcupine.CheckResult, *scribe) {
	t.Helper()
	w := &scribe{open: map[protocol.NodeID]*linear.Call{}}
	r, err := s.Run(s.Draw(seed, clerksFaults), w)
	if err != nil {
		t.Fatal(err)
	}
	if r.Failure != nil {
		t.Errorf("seed %d: %v", seed, r.Failure)
	}
	return w.Check(time.Minute), w
}

// TestConfigurationIsLinearizable: what five clerks see and do is as if it were done one after the other, each
// thing at a moment between its beginning and its end, among all faults but lies.
func TestConfigurationIsLinearizable(t *testing.T) {
	s := clerks(t, 40, 20, "")
	told := map[membership.Result]int{}
	last := seen(enough(8, 2000))
	for seed := uint64(1); seed <= last; seed++ {
		result, w := linearizable(t, s, seed)
		if result != porcupine.Ok {
			t.Errorf("seed %d: %v are %v", seed, w.Told(), result)
		}
		for r, n := range w.Told() {
			told[r] += n
		}
	}
	for _, r := range []membership.Result{membership.Applied, membership.Refused, membership.Unsure} {
		if told[r] == 0 && !simtest.UnderRace {
			t.Errorf("nothing was %v", r)
		}
	}
	t.Logf("%d seeds, %v", last, told)
}

// TestConfigurationThatIsNotLinearizable: what is done wrong is found.
func TestConfigurationThatIsNotLinearizable(t *testing.T) {
	for _, wrong := range []string{"reads at once", "takes unsure for refused", "asks again"} {
		t.Run(wrong, func(t *testing.T) {
			s := clerks(t, 15, 5, wrong) // short ones: to find that there is no order takes long
			for seed := uint64(1); seed <= 200; seed++ {
				if result, w := linearizable(t, s, seed); result == porcupine.Illegal {
					t.Logf("seed %d: %v", seed, w.Told())
					return
				}
			}
			t.Error("nothing was found in 200 seeds")
		})
	}
}
