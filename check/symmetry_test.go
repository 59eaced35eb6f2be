package check_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"assent/check"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/spec"
)

// interchangeable makes all nodes but the first a group.
func interchangeable(sys check.System) check.System {
	var group []int
	for i := range sys.Nodes[1:] {
		group = append(group, 1+i)
	}
	sys.Symmetric = [][]int{group}
	return sys
}

// TestSymmetryCounts: TwoPhase has 6^N + 4^N + 2^N states, for while the manager is undecided, has
// aborted or has committed a resource manager looks in 6, 4 or 2 ways. Where it does not matter which
// is which, it matters only how many look how. Of 1,745,408 states with eight, 1,461 are left.
func TestSymmetryCounts(t *testing.T) {
	beside(t)
	choose := func(n, k int) int {
		c := 1
		for i := range k {
			c = c * (n - i) / (i + 1)
		}
		return c
	}
	sizes := []int{1, 2, 3, 4, 8}
	if underRace {
		sizes = sizes[:4]
	}
	for _, n := range sizes {
		r, err := check.Run(context.Background(), interchangeable(twoPhase(t, n)),
			check.Claims{Always: []spec.Property{agree(n)}}, check.Limits{})
		if err != nil || len(r.Broken) > 0 {
			t.Fatal(err, r.Broken)
		}
		if want := choose(n+5, 5) + choose(n+3, 3) + choose(n+1, 1); r.States != want {
			t.Errorf("N=%d: %d states, want %d", n, r.States, want)
		}
	}
}

// TestSymmetryKeepsVerdicts: what holds, what does not, how far away it is and whether somebody blocks
// comes out the same with fewer states, for two-phase commit as it runs.
func TestSymmetryKeepsVerdicts(t *testing.T) {
	beside(t)
	never := func(name string, bad func(spec.View) bool) spec.Property {
		return spec.Property{Name: name, Holds: func(v spec.View) bool { return !bad(v) }}
	}
	claims := check.Claims{
		Always: []spec.Property{spec.AC1(), spec.AC2(), spec.AC3(),
			never("nobody commits", func(v spec.View) bool { return !spec.AllCommit().Holds(v) && committed(v) > 0 }),
			never("no promise is undone", spec.PromiseUndone().Holds), never("not all commit", spec.AllCommit().Holds)},
		Sometimes: []spec.Property{spec.AllCommit(), spec.PromiseUndone()},
		Decided:   spec.ParticipantDone,
	}
	for name, model := range map[string]twoPhaseCommit{
		"crash":       {TwoPhase: commit.TwoPhase{Participants: 2}, Faults: check.Faults{Crashes: 1, Duplicates: check.Unlimited}},
		"cooperative": {TwoPhase: commit.TwoPhase{Participants: 2, Votes: yesOrNo, Options: commit.Options{Cooperative: true}}, Faults: check.Faults{Crashes: 1, Restarts: 1, Duplicates: check.Unlimited}},
		"losses":      {TwoPhase: commit.TwoPhase{Participants: 2, Votes: yesOrNo}, Faults: check.Faults{Crashes: 1, Losses: 1, Duplicates: 1}, Model: check.Synchronous},
		"partition":   {TwoPhase: commit.TwoPhase{Participants: 2, Votes: yesOrNo}, Faults: check.Faults{Partitions: 1, Heals: 1}, Model: check.Synchronous},
	} {
		t.Run(name, func(t *testing.T) {
			sys, err := model.system()
			if err != nil {
				t.Fatal(err)
			}
			plain, err := check.Run(context.Background(), sys, claims, check.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			fewer, err := check.Run(context.Background(), interchangeable(sys), claims, check.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d states, %d with symmetry; %d block, %d with symmetry", plain.States, fewer.States, plain.Blocking, fewer.Blocking)
			if got, want := summary(fewer), summary(plain); got != want {
				t.Errorf("with symmetry\n%swithout\n%s", got, want)
			}
			if fewer.States >= plain.States*3/5 {
				t.Errorf("%d of %d states are left", fewer.States, plain.States)
			}
		})
	}
}

// TestPeersAreInterchangeable: in decentralised two-phase commit all sites are alike.
func TestPeersAreInterchangeable(t *testing.T) {
	claims := check.Claims{Always: append(safety(), spec.Property{Name: "not all commit", Holds: func(v spec.View) bool { return !spec.AllCommit().Holds(v) }}),
		Sometimes: []spec.Property{spec.AllCommit()}, Decided: spec.AC5().Decided}
	sys := system(t, commit.Decentralised{Sites: 3, Votes: []commit.Vote{commit.Yes}}, check.Synchronous, check.Faults{Crashes: 1})
	plain := complete(t, sys, claims)
	sys.Symmetric = [][]int{{0, 1, 2}}
	fewer := complete(t, sys, claims)
	if got, want := summary(fewer), summary(plain); got != want {
		t.Errorf("with symmetry\n%swithout\n%s", got, want)
	}
	if fewer.States >= plain.States/2 {
		t.Errorf("%d of %d states are left", fewer.States, plain.States)
	}
}

func committed(v spec.View) (n int) {
	for i := range v.Nodes() {
		if p, ok := v.Machine(i).(*commit.ParticipantNode); ok && p.Branch.State == commit.BranchCommitted {
			n++
		}
	}
	return n
}

// summary is what a report says but for numbers of states.
func summary(r check.Report) string {
	var b strings.Builder
	all := r.Broken
	if r.Blocked != nil {
		all = append(all, *r.Blocked)
	}
	for _, c := range all {
		b.WriteString(c.Claim)
		b.WriteString(strings.Repeat(" .", len(c.Steps)))
		b.WriteByte('\n')
	}
	for _, name := range r.Never {
		b.WriteString("never: " + name + "\n")
	}
	return b.String()
}

// TestSymmetryIsRefused where nodes begin differently, or a group makes no sense.
func TestSymmetryIsRefused(t *testing.T) {
	sys := twoPhase(t, 2)
	for want, group := range map[string][]int{
		"not interchangeable": {0, 1},
		"each is a place":     {1, 1},
		"among 3 nodes":       {3},
	} {
		sys.Symmetric = [][]int{group}
		if _, err := check.Run(context.Background(), sys, check.Claims{}, check.Limits{}); !errors.Is(err, check.ErrSystem) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want an error with %q", group, err, want)
		}
	}
	sys = twoPhase(t, 2)
	sys.Nodes[2].New = []func() protocol.Machine{func() protocol.Machine { return &rm{State: 1} }}
	if _, err := check.Run(context.Background(), interchangeable(sys), check.Claims{}, check.Limits{}); !errors.Is(err, check.ErrSystem) {
		t.Errorf("a resource manager that begins otherwise: %v", err)
	}
}

// talker does what its node's id must not be in, when it starts.
type talker struct {
	Timer, Key string
	Sends      int
	Same       bool
}

type word struct{ N int }

func (k *talker) Step(ev protocol.Event, out *protocol.Effects) {
	if _, ok := ev.(protocol.Start); !ok {
		return
	}
	if k.Timer != "" {
		out.Timers = append(out.Timers, protocol.Timer{Name: k.Timer, After: 1})
	}
	if k.Key != "" {
		out.Writes = append(out.Writes, protocol.Write{Key: k.Key, Record: word{}})
	}
	for i := range k.Sends {
		if k.Same {
			i = 0
		}
		out.Sends = append(out.Sends, protocol.Send{To: "c", Message: word{i}})
	}
}

// TestSymmetryRefusesWhatIsNotRenamed: ids in timers, keys and inputs; and more sets of sends than can be
// gone through. Equal sends are no different ones.
func TestSymmetryRefusesWhatIsNotRenamed(t *testing.T) {
	codec, err := protocol.NewCodec(protocol.Type{Name: "talker", Zero: talker{}}, protocol.Type{Name: "word", Zero: word{}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		talker
		input protocol.Value
		want  string
	}{
		"timer":     {talker: talker{Timer: "vote p1"}, want: "the timer \"vote p1\""},
		"key":       {talker: talker{Key: "votes/p2"}, want: "the key of a record \"votes/p2\""},
		"input":     {input: struct{ To protocol.NodeID }{"p1"}, want: "the input {To:p1}"},
		"sends":     {talker: talker{Sends: 17}, want: "17 different ones"},
		"no id":     {talker: talker{Timer: "vote p12", Key: "p", Sends: 2}},
		"same sent": {talker: talker{Sends: 64, Same: true}},
	} {
		sys := check.System{Codec: codec, Symmetric: [][]int{{1, 2}}, Faults: check.Faults{Crashes: 1, Duplicates: check.Unlimited}}
		for _, id := range []protocol.NodeID{"c", "p1", "p2"} {
			m := c.talker
			if id == "c" {
				m = talker{}
			}
			sys.Nodes = append(sys.Nodes, protocol.Node{ID: id, New: []func() protocol.Machine{func() protocol.Machine { return &m }}})
		}
		if c.input != nil {
			sys.Nodes[0].Inputs = []protocol.Value{c.input}
		}
		r, err := check.Run(t.Context(), sys, check.Claims{}, check.Limits{States: 1000})
		if c.want == "" && (err != nil || !r.Complete) || c.want != "" && (!errors.Is(err, check.ErrSystem) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}
