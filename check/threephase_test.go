package check_test

import (
	"os"
	"strings"
	"testing"

	"assent/check"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/spec"
)

// noder is a system of one of the protocols.
type noder interface {
	Nodes() ([]protocol.Node, error)
}

// explore runs a system to its end and logs what it took.
func explore(t *testing.T, n noder, model check.Model, faults check.Faults, claims check.Claims) check.Report {
	t.Helper()
	return complete(t, system(t, n, model, faults), claims)
}

func system(t *testing.T, n noder, model check.Model, faults check.Faults) check.System {
	t.Helper()
	codec, err := protocol.NewCodec(commit.Types()...)
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := n.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	return check.System{Nodes: nodes, Codec: codec, Faults: faults, Model: model}
}

// soaking reports whether the long searches run, too.
func soaking() bool { return os.Getenv("ASSENT_SOAK") != "" }

// beside lets a test run beside others: one search leaves a processor idle between its levels. The long
// searches have the memory to themselves.
func beside(t *testing.T) {
	t.Helper()
	if !soaking() {
		t.Parallel()
	}
}

// soak leaves a test to make soak.
func soak(t *testing.T) {
	t.Helper()
	if !soaking() {
		t.Skip("millions of states: run by make soak")
	}
}

// nothingBroken fails the test on every claim that does not hold.
func nothingBroken(t *testing.T, r check.Report) {
	t.Helper()
	for _, c := range r.Broken {
		t.Errorf("%s%s", c, strings.Join(c.Steps[len(c.Steps)-1].After, "\n"))
	}
	if r.Blocked != nil {
		t.Errorf("%d states block: %s%s", r.Blocking, r.Blocked, strings.Join(r.Blocked.Steps[len(r.Blocked.Steps)-1].After, "\n"))
	}
	if len(r.Never) > 0 {
		t.Errorf("never: %v", r.Never)
	}
}

// TestThreePhaseCommitDoesNotBlock: in the synchronous model, with crashes at every place, AC1 to
// AC3 hold and no participant that is up is ever blocked (AC5), while one of the sites stays up.
func TestThreePhaseCommitDoesNotBlock(t *testing.T) {
	beside(t)
	yes := []commit.Vote{commit.Yes}
	crashes := func(n, restarts int) check.Faults { return check.Faults{Crashes: n, Restarts: restarts} }
	for name, c := range map[string]struct {
		commit.ThreePhase
		faults check.Faults
		long   bool
	}{
		"two, one crash":                       {commit.ThreePhase{Participants: 2}, crashes(1, 0), false},
		"two, one crash and restart":           {commit.ThreePhase{Participants: 2, Votes: yes, Steadfast: true}, crashes(1, 1), false},
		"two, any vote, one crash and restart": {commit.ThreePhase{Participants: 2}, crashes(1, 1), true},
		"two, two crashes":                     {commit.ThreePhase{Participants: 2}, crashes(2, 0), false},
		"two, two crashes and restarts":        {commit.ThreePhase{Participants: 2, Votes: yes, Steadfast: true}, crashes(2, 2), true},
		"three, two crashes":                   {commit.ThreePhase{Participants: 3, Votes: yes, Steadfast: true}, crashes(2, 0), false},
		"three, three crashes":                 {commit.ThreePhase{Participants: 3, Votes: yes, Steadfast: true}, crashes(3, 0), false},
		"three, any vote, two crashes":         {commit.ThreePhase{Participants: 3, Votes: []commit.Vote{commit.Yes, commit.No}, Steadfast: true}, crashes(2, 0), false},
		"three, one crash and restart":         {commit.ThreePhase{Participants: 3, Votes: yes, Steadfast: true}, crashes(1, 1), true},
	} {
		t.Run(name, func(t *testing.T) {
			if c.long {
				soak(t)
			}
			nothingBroken(t, explore(t, c.ThreePhase, check.Synchronous, c.faults, check.Claims{Always: safety(),
				Sometimes: []spec.Property{spec.AllCommit(), spec.PromiseUndone(), withoutCoordinator(commit.Commit), withoutCoordinator(commit.Abort)},
				Decided:   spec.AC5().Decided}))
		})
	}
}

// withoutCoordinator is reached when a participant that would vote yes has come to d while the
// coordinator is down and has no decision on record.
func withoutCoordinator(d commit.Decision) spec.Property {
	return spec.Property{Name: "the participants decide " + d.String() + " without the coordinator", Holds: func(v spec.View) bool {
		if v.Machine(0) != nil || v.Record(0, commit.RegisterKey) != nil {
			return false
		}
		for i := 1; i < v.Nodes(); i++ {
			if s, ok := v.Machine(i).(spec.Site); ok && s.Standing().Decision == d && s.Standing().Vote == commit.Yes {
				return true
			}
		}
		return false
	}}
}

// TestThreePhaseTotalFailure: when all sites have failed, those who are back wait for the rest, and
// decide when all are back. It is the one case in which three-phase commit blocks.
func TestThreePhaseTotalFailure(t *testing.T) {
	blocked, allBack := 0, 0
	claims := check.Claims{Always: safety(), Sometimes: []spec.Property{spec.AllCommit()}, Decided: spec.AC5().Decided,
		Blocked: func(v spec.View, nodes []int) {
			if len(nodes) == 0 {
				return
			}
			blocked++
			if v.Machine(0) != nil && v.Machine(1) != nil {
				allBack++
			}
		}}
	one := commit.ThreePhase{Participants: 1, Votes: []commit.Vote{commit.Yes}, Steadfast: true}
	r := explore(t, one, check.Synchronous, check.Faults{Crashes: 3, Restarts: 3}, claims)
	if blocked == 0 || allBack > 0 {
		t.Errorf("%d states block, in %d of them all sites are back", blocked, allBack)
	}
	r.Blocked = nil
	nothingBroken(t, r)
}

// TestThreePhaseQuietRunCommits is AC4.
func TestThreePhaseQuietRunCommits(t *testing.T) {
	beside(t)
	for n := 1; n <= 3; n++ {
		for _, system := range []noder{
			commit.ThreePhase{Participants: n, Steadfast: true},
			commit.ThreePhase{Participants: n, Steadfast: true, Options: commit.Options{Unilateral: true}},
			commit.QuorumThreePhase{Participants: n, Steadfast: true, Options: commit.Options{Rounds: 1}},
		} {
			nothingBroken(t, explore(t, system, check.Synchronous, check.Faults{}, check.Claims{
				Always: append(safety(), spec.AC4()), Sometimes: []spec.Property{spec.AllCommit()}, Decided: spec.AC5().Decided}))
		}
	}
}

// TestThreePhaseCommitNeedsSynchrony: a partition, or the want of a bound on delays, splits the
// participants though nobody fails.
func TestThreePhaseCommitNeedsSynchrony(t *testing.T) {
	beside(t)
	two := commit.ThreePhase{Participants: 2, Votes: []commit.Vote{commit.Yes}, Steadfast: true}
	splits(t, two, check.Synchronous, check.Faults{Partitions: 1}, 15)
	splits(t, two, check.Asynchronous, check.Faults{}, 12)
}

// TestWhoIsSplitIsNotBlocked: where three-phase commit breaks AC1 it keeps AC5, while nobody crashes. A
// network that splits, or is late, makes everybody decide, if not alike.
func TestWhoIsSplitIsNotBlocked(t *testing.T) {
	two := commit.ThreePhase{Participants: 2, Votes: []commit.Vote{commit.Yes}, Steadfast: true}
	claims := check.Claims{Always: []spec.Property{spec.AC3()}, Sometimes: []spec.Property{spec.AllCommit()}, Decided: spec.AC5().Decided}
	nothingBroken(t, explore(t, two, check.Synchronous, check.Faults{Partitions: 1, Heals: 1}, claims))
	if soaking() {
		nothingBroken(t, explore(t, two, check.Asynchronous, check.Faults{Duplicates: check.Unlimited}, claims))
	}
}

// splits checks that AC1 is broken, by a shortest run of so many steps.
func splits(t *testing.T, n noder, model check.Model, faults check.Faults, steps int) {
	t.Helper()
	if c := split(t, n, model, faults); len(c.Steps)-1 != steps {
		t.Errorf("the shortest run that splits the participants has %d steps, want %d\n%s", len(c.Steps)-1, steps, c)
	}
}

// split returns the shortest run that breaks AC1.
func split(t *testing.T, n noder, model check.Model, faults check.Faults) check.Counterexample {
	t.Helper()
	r, err := check.Run(t.Context(), system(t, n, model, faults),
		check.Claims{Always: []spec.Property{spec.AC1()}}, check.Limits{States: 150_000})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Broken) != 1 {
		t.Fatalf("no run splits the participants among %d states", r.States)
	}
	return r.Broken[0]
}

// TestFailureAndTimeoutTransitions: Skeen's rules 1 and 2 without election, which the lessons present
// as three-phase commit. The rules take it that a site's transition, its record and all of its
// messages, happens at once. It does not: a coordinator that fails after its record and before, or
// between, its messages leaves participants in w that abort, while it, or one in p, commits.
func TestFailureAndTimeoutTransitions(t *testing.T) {
	beside(t)
	rules := func(n int) commit.ThreePhase {
		return commit.ThreePhase{Participants: n, Votes: []commit.Vote{commit.Yes}, Steadfast: true, Options: commit.Options{Unilateral: true}}
	}
	r := explore(t, rules(1), check.Synchronous, check.Faults{Crashes: 1}, check.Claims{Always: safety(), Decided: spec.AC5().Decided})
	nothingBroken(t, r) // one participant has nobody to disagree with while the coordinator is down
	for _, model := range []check.Model{check.Synchronous, check.Asynchronous} {
		splits(t, rules(2), model, check.Faults{Crashes: 1}, 10)
	}
	r = explore(t, rules(1), check.Synchronous, check.Faults{Crashes: 1, Restarts: 1}, check.Claims{Always: []spec.Property{spec.AC2()}})
	if len(r.Broken) != 1 || len(r.Broken[0].Steps)-1 != 6 {
		t.Errorf("the coordinator is not made anew into a decision of its own: %v", r.Broken)
	}
}
