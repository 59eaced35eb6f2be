package sim_test

import (
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"assent/protocol"
	"assent/protocol/membership"
	"assent/sim"
	"assent/trace"
)

// clerk is a node of a cluster with a client that reads and changes the cluster's settings there, one thing
// after the other, and says so: the history of all clerks must be linearizable.
type clerk struct {
	Node membership.Node
	// Ops is how many things it does in an incarnation, Count how many it has begun.
	Ops, Count int
	Now        operation
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

// operation is one thing that a clerk does: to "get" the settings, to "set" a key, to "unset" it, to "swap" its
// value if nothing has changed since the epoch of the last look.
type operation struct {
	Do, Key, Value string
	Epoch          uint64
}

// What a clerk says of an operation.
type (
	began struct{ Operation operation }
	ended struct {
		Operation operation
		Result    membership.Result
		Epoch     uint64
		X, Y      string
	}
)

const clerkTimer = "clerk"

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
		c.Now = operation{Do: []string{"get", "get", "set", "set", "swap", "swap", "swap", "unset"}[c.choice("what", 8)]}
		if c.Now.Do == "swap" && c.Seen == 0 {
			c.Now.Do = "get"
		}
		if c.Now.Do != "get" {
			c.Now.Key = []string{"x", "y"}[c.choice("key", 2)]
			c.Now.Value = fmt.Sprintf("%s.%d.%d", c.Node.Self.Node, c.Node.Life.Incarnation, c.Count)
		}
		if c.Now.Do == "swap" {
			c.Now.Epoch = c.Seen
		}
		out.Emit(began{c.Now})
		return nil
	case c.State == clerkAbout:
		if c.Now.Do == "get" && c.Wrong == "reads at once" {
			c.tell(membership.Applied, c.Node.State.Epoch, out)
			return nil
		}
		c.State = clerkAsking
		return protocol.Input{Value: membership.Ask{Ref: uint64(c.Count), Change: c.Now.change()}}
	}
	return nil
}

func (o operation) change() membership.Change {
	c := membership.Change{Kind: membership.Set, Key: o.Key, Value: o.Value, Epoch: o.Epoch}
	switch o.Do {
	case "get":
		return membership.Change{Kind: membership.Barrier}
	case "unset":
		c.Kind, c.Value = membership.Unset, ""
	}
	return c
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
			if c.Now.Do != "get" { // one operation, which may be applied twice
				c.State = clerkAbout
				return
			}
		}
	}
	c.tell(a.Result, a.Epoch, out)
}

// tell says what has become of the operation. What a get has found is the state at its end.
func (c *clerk) tell(result membership.Result, epoch uint64, out *protocol.Effects) {
	e := ended{Operation: c.Now, Result: result, Epoch: epoch}
	if c.Now.Do == "get" && result == membership.Applied {
		e.X, _ = c.Node.State.Setting("x")
		e.Y, _ = c.Node.State.Setting("y")
		e.Epoch = c.Node.State.Epoch
		c.Seen = e.Epoch
	}
	c.State = clerkIdle
	out.Emit(e)
}

// settings is what the model knows of the state: the values, and an epoch that it has at least.
type settings struct {
	x, y  string
	epoch uint64
}

// then returns the settings after an operation that was applied.
func (s settings) then(o operation) settings {
	value := o.Value
	if o.Do == "unset" {
		value = ""
	}
	if o.Key == "x" {
		s.x = value
	} else {
		s.y = value
	}
	s.epoch++
	return s
}

// configuration is the model. The state's epoch counts also what no clerk does, so it is known at least: it is
// known exactly where an operation tells it. An operation without an answer may have been applied, at any time
// from its beginning on, or not.
var configuration = porcupine.NondeterministicModel{
	Init: func() []any { return []any{settings{}} },
	Step: func(state, input, output any) []any {
		s, o, e := state.(settings), input.(operation), output.(ended)
		switch {
		case o.Do == "get":
			if s.x != e.X || s.y != e.Y || s.epoch > e.Epoch {
				return nil
			}
			s.epoch = e.Epoch
			return []any{s}
		case e.Result == membership.Refused: // it was a swap, and came too late
			if o.Do != "swap" {
				return nil
			}
			s.epoch = max(s.epoch, o.Epoch+1)
			return []any{s}
		case o.Do == "swap" && s.epoch > o.Epoch:
			if e.Result == membership.Applied {
				return nil
			}
			return []any{s} // it has come too late, whenever that was
		}
		after := s
		if o.Do == "swap" {
			after.epoch = o.Epoch
		}
		after = after.then(o)
		if e.Result == membership.Applied {
			if after.epoch > e.Epoch {
				return nil
			}
			return []any{after}
		}
		return []any{s, after}
	},
}

// scribe writes the history of a run.
type scribe struct {
	now     int64
	open    map[protocol.NodeID]porcupine.Operation
	history []porcupine.Operation
	told    map[membership.Result]int
}

// Observe takes what clerks say.
func (s *scribe) Observe(e trace.Event) {
	s.now++
	switch {
	case e.Kind == trace.Crash:
		s.lose(e.Node)
	case e.Kind == trace.Emit:
		switch v := e.Value.(type) {
		case began:
			s.open[e.Node] = porcupine.Operation{ClientId: int(e.Node[1] - '1'), Input: v.Operation, Call: s.now}
		case ended:
			s.told[v.Result]++
			if v.Result == membership.Unsure {
				s.lose(e.Node)
				return
			}
			o := s.open[e.Node]
			delete(s.open, e.Node)
			o.Output, o.Return = v, s.now
			s.history = append(s.history, o)
		}
	}
}

// lose notes that nobody will ever know what has become of what the clerk was doing. Who was only looking
// has seen nothing.
func (s *scribe) lose(node protocol.NodeID) {
	o, ok := s.open[node]
	delete(s.open, node)
	if ok && o.Input.(operation).Do != "get" {
		o.Output, o.Return = ended{Result: membership.Unsure}, math.MaxInt64
		s.history = append(s.history, o)
	}
}

// checked leaves out sets and swaps without an answer whose value nobody has seen: if they were applied, they
// were overwritten before anybody looked, and the history is linearizable with them if it is without. That keeps
// the search short. Clients without an answer go on, so those operations get clients of their own.
func (s *scribe) checked() (history []porcupine.Operation) {
	for node := range s.open {
		s.lose(node)
	}
	seen := map[string]bool{}
	for _, o := range s.history {
		e := o.Output.(ended)
		seen[e.X], seen[e.Y] = true, true
	}
	client := 10
	for _, o := range s.history {
		in := o.Input.(operation)
		if o.Return == math.MaxInt64 {
			if in.Do != "unset" && !seen[in.Value] {
				continue
			}
			o.ClientId = client
			client++
		}
		history = append(history, o)
	}
	return history
}

// clerks returns a system of five founders, at each of which a clerk works.
func clerks(t *testing.T, patience int, wrong string) *sim.System {
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
			return &clerk{Node: *membership.Founder(self, state, membership.Options{Patience: patience, Every: 8}), Ops: 40, Wrong: wrong}
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
	w := &scribe{open: map[protocol.NodeID]porcupine.Operation{}, told: map[membership.Result]int{}}
	r, err := s.Run(s.Draw(seed, clerksFaults), w)
	if err != nil {
		t.Fatal(err)
	}
	if r.Failure != nil {
		t.Errorf("seed %d: %v", seed, r.Failure)
	}
	return porcupine.CheckOperationsTimeout(configuration.ToModel(), w.checked(), time.Minute), w
}

// TestConfigurationIsLinearizable: what five clerks see and do is as if it were done one after the other, each
// thing at a moment between its beginning and its end, among crashes, partitions and a bad network.
func TestConfigurationIsLinearizable(t *testing.T) {
	s := clerks(t, 20, "")
	told, operations := map[membership.Result]int{}, 0
	last := enough(16, 2000)
	for seed := uint64(1); seed <= last; seed++ {
		result, w := linearizable(t, s, seed)
		if result != porcupine.Ok {
			t.Errorf("seed %d: a history of %d operations: %v", seed, len(w.history), result)
		}
		operations += len(w.history)
		for r, n := range w.told {
			told[r] += n
		}
	}
	for _, r := range []membership.Result{membership.Applied, membership.Refused, membership.Unsure} {
		if told[r] == 0 {
			t.Errorf("nothing was %v", r)
		}
	}
	t.Logf("%d seeds, %d operations, %v", last, operations, told)
}

// TestConfigurationThatIsNotLinearizable: what is done wrong is found.
func TestConfigurationThatIsNotLinearizable(t *testing.T) {
	for _, wrong := range []string{"reads at once", "takes unsure for refused", "asks again"} {
		t.Run(wrong, func(t *testing.T) {
			s := clerks(t, 5, wrong)
			for seed := uint64(1); seed <= 200; seed++ {
				if result, w := linearizable(t, s, seed); result == porcupine.Illegal {
					t.Logf("seed %d: a history of %d operations", seed, len(w.history))
					return
				}
			}
			t.Error("nothing was found in 200 seeds")
		})
	}
}
