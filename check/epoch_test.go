package check_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"assent/check"
	"assent/protocol"
	"assent/protocol/paxos"
	"assent/spec"
)

// TestAcceptorsChangeSafely: a register whose acceptors change while two proposers propose, with loss, repetition
// and reordering without limit. Lean systems leave out what no acceptor can notice, and so come to their end.
func TestAcceptorsChangeSafely(t *testing.T) {
	always := check.Faults{Duplicates: check.Unlimited}
	for name, c := range map[string]struct {
		paxos.Moving
		check.Faults
		long bool
	}{
		"1 to 2":          {paxos.Moving{Proposers: 2, Old: []int{1}, New: []int{2}, Movers: 1, Silent: true, Options: steady(1)}, always, false},
		"1 to 2, told":    {paxos.Moving{Proposers: 2, Old: []int{1}, New: []int{2}, Movers: 1, Options: steady(1)}, always, true},
		"1, 2 to 2, 3":    {paxos.Moving{Proposers: 2, Old: []int{1, 2}, New: []int{2, 3}, Movers: 1, Silent: true, Options: steady(1)}, always, false},
		"1 to 1, 2, 3":    {paxos.Moving{Proposers: 2, Old: []int{1}, New: []int{1, 2, 3}, Movers: 1, Silent: true, Options: steady(1)}, always, true},
		"1, 2, 3 to 3":    {paxos.Moving{Proposers: 2, Old: []int{1, 2, 3}, New: []int{3}, Movers: 1, Silent: true, Options: steady(1)}, always, true},
		"1, 2, 3 to 2, 3": {paxos.Moving{Proposers: 2, Old: []int{1, 2, 3}, New: []int{2, 3}, Movers: 1, Silent: true, Options: steady(1)}, always, true},

		"1, 2, 3 to 2, 3, lean":     {lean(2, []int{1, 2, 3}, []int{2, 3}), always, false},
		"1, 2, 3 to 2, 3, 4":        {lean(2, []int{1, 2, 3}, []int{2, 3, 4}), always, false},
		"1, 2, 3 to 2, 3, 4, three": {lean(3, []int{1, 2, 3}, []int{2, 3, 4}), always, true},
		"1, 2, 3 to 3, 4, 5":        {lean(2, []int{1, 2, 3}, []int{3, 4, 5}), always, true},
		"1, 2, 3 to 4, 5, 6":        {lean(2, []int{1, 2, 3}, []int{4, 5, 6}), always, true},
		"1, 2, 3 to 1, 2, 3, 4, 5":  {lean(2, []int{1, 2, 3}, []int{1, 2, 3, 4, 5}), always, true},
		"1, 2, 3, 4, 5 to 1, 2, 3":  {lean(2, []int{1, 2, 3, 4, 5}, []int{1, 2, 3}), always, true},
	} {
		t.Run(name, func(t *testing.T) {
			if c.long {
				soak(t)
			}
			if c.Lean && underRace && !soaking() {
				t.Skip("run without the race detector: it sees other searches")
			}
			nodes, err := c.Nodes()
			if err != nil {
				t.Fatal(err)
			}
			claims := check.Claims{Always: []spec.Property{spec.Agreement(), spec.Validity("v1", "v2")}, Sometimes: []spec.Property{spec.Learns("v1"), spec.Learns("v2")}}
			if c.Lean {
				claims = chosen(nodes, c.Proposers)
			}
			r := moving(t, nodes, c.Faults, claims)
			for _, b := range r.Broken {
				t.Error(b)
			}
			if len(r.Never) > 0 {
				t.Errorf("never: %v", r.Never)
			}
		})
	}
}

// lean is a system with so many proposers and one mover.
func lean(proposers int, before, after []int) paxos.Moving {
	return paxos.Moving{Proposers: proposers, Old: before, New: after, Movers: 1, Silent: true, Lean: true, Options: steady(1)}
}

// chosen are the claims on a lean system: nothing contradictory is decided, and any value can be.
func chosen(nodes []protocol.Node, proposers int) check.Claims {
	c := check.Claims{Always: []spec.Property{spec.ChosenAgreement(nodes)}}
	for i := range proposers {
		c.Sometimes = append(c.Sometimes, spec.Chooses(nodes, fmt.Sprintf("v%d", i+1)))
	}
	return c
}

func moving(t *testing.T, nodes []protocol.Node, faults check.Faults, claims check.Claims) check.Report {
	t.Helper()
	codec, err := protocol.NewCodec(append(paxos.MovingTypes(), protocol.Type{Name: "hasty", Zero: hasty{}}, protocol.Type{Name: "hastyLean", Zero: hastyLean{}})...)
	if err != nil {
		t.Fatal(err)
	}
	return complete(t, check.System{Nodes: nodes, Codec: codec, Faults: faults}, claims)
}

// hasty is a mover that does not wait: the last epoch begins at once, too. hastyLean is one of a lean system.
type (
	hasty     struct{ Mover paxos.Mover[string] }
	hastyLean struct{ Mover paxos.LeanMover }
)

// skip has the last epoch begin.
func skip(m paxos.Mover[string], ev protocol.Event, out *protocol.Effects) {
	if _, starts := ev.(protocol.Start); starts {
		for _, x := range m.After.System.Members {
			out.Send(x.Node, paxos.Begin[string]{Epoch: m.After})
		}
		for _, n := range m.Tells {
			out.Send(n, paxos.Begin[string]{Epoch: m.After})
		}
	}
}

// Step hands events to the mover.
func (h *hasty) Step(ev protocol.Event, out *protocol.Effects) {
	h.Mover.Step(ev, out)
	skip(h.Mover, ev, out)
}

// Step hands events to the mover.
func (h *hastyLean) Step(ev protocol.Event, out *protocol.Effects) {
	h.Mover.Step(ev, out)
	skip(h.Mover.Mover, ev, out)
}

// TestLeanIsEnough: lean acceptors come into the very states into which the others come, and what is wrong with a
// whole system is found in a lean one.
func TestLeanIsEnough(t *testing.T) {
	if underRace {
		t.Skip("run without the race detector: it sees other searches")
	}
	always := check.Faults{Duplicates: check.Unlimited}
	for name, c := range map[string]struct {
		before, after []int
		apart         bool // what the old ones have decided the new ones need not have seen
	}{
		"1 to 2": {[]int{1}, []int{2}, true}, "1, 2 to 1": {[]int{1, 2}, []int{1}, false}, "1, 2 to 3": {[]int{1, 2}, []int{3}, true},
	} {
		t.Run(name, func(t *testing.T) {
			seen := map[bool]map[string]bool{}
			for _, isLean := range []bool{false, true} {
				m := lean(2, c.before, c.after)
				m.Lean = isLean
				nodes, err := m.Nodes()
				if err != nil {
					t.Fatal(err)
				}
				var mu sync.Mutex
				states := map[string]bool{}
				seen[isLean] = states
				note := spec.Property{Name: "noted", Holds: func(v spec.View) bool {
					mu.Lock()
					defer mu.Unlock()
					for i := range v.Nodes() {
						switch a := v.Machine(i).(type) {
						case *paxos.EpochAcceptor[string]:
							states[fmt.Sprint(i, a.Epoch.Number, a.Acceptor)] = true
						case *paxos.LeanAcceptor:
							states[fmt.Sprint(i, a.Acceptor.Epoch.Number, a.Acceptor.Acceptor)] = true
						}
					}
					return true
				}}
				if r := moving(t, nodes, always, check.Claims{Always: []spec.Property{note, spec.ChosenAgreement(nodes)}}); len(r.Broken) > 0 {
					t.Fatal(r.Broken)
				}
				impatient(nodes)
				r := moving(t, nodes, always, chosen(nodes, 2))
				if found := len(r.Broken) > 0; found != c.apart {
					t.Errorf("lean %v: a mover that does not wait is found out: %v, in %d states", isLean, found, r.States)
				}
			}
			if d := cmp.Diff(seen[false], seen[true]); d != "" || len(seen[true]) < 8 {
				t.Errorf("%d states of acceptors, lean %d:\n%s", len(seen[false]), len(seen[true]), d)
			}
		})
	}
}

// impatient makes the movers hasty.
func impatient(nodes []protocol.Node) {
	for i, n := range nodes {
		begin := n.New[0]
		switch begin().(type) {
		case *paxos.Mover[string]:
			nodes[i].New = []func() protocol.Machine{func() protocol.Machine { return &hasty{*begin().(*paxos.Mover[string])} }}
		case *paxos.LeanMover:
			nodes[i].New = []func() protocol.Machine{func() protocol.Machine { return &hastyLean{*begin().(*paxos.LeanMover)} }}
		}
	}
}

// steady are options under which pauses do not grow: how often one has waited is then no part of a state.
func steady(rounds uint64) paxos.Options {
	return paxos.Options{Rounds: rounds, Retry: 1, RetryMost: 1}
}
