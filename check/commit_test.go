package check_test

import (
	"context"
	"strings"
	"testing"

	"assent/check"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/spec"
)

// twoPhaseCommit is two-phase commit under a budget of faults.
type twoPhaseCommit struct {
	commit.TwoPhase
	Faults check.Faults
	Model  check.Model
}

func (m twoPhaseCommit) system() (check.System, error) {
	codec, err := protocol.NewCodec(commit.Types()...)
	if err != nil {
		return check.System{}, err
	}
	nodes, err := m.Nodes()
	return check.System{Nodes: nodes, Codec: codec, Faults: m.Faults, Model: m.Model}, err
}

func run(t *testing.T, model twoPhaseCommit, claims check.Claims) check.Report {
	t.Helper()
	sys, err := model.system()
	if err != nil {
		t.Fatal(err)
	}
	return complete(t, sys, claims)
}

// complete explores a system to its end and logs what it took.
func complete(t *testing.T, sys check.System, claims check.Claims) check.Report {
	t.Helper()
	return search(t, sys, claims, mostStates)
}

// search is complete for a system of at most so many states. The race detector sees the first of them: then the test
// is skipped, which the same run without the detector is there to finish.
func search(t *testing.T, sys check.System, claims check.Claims, most int) check.Report {
	t.Helper()
	limits := check.Limits{States: most}
	if underRace && !soaking() {
		limits.States = min(most, seenByRace)
	}
	r, err := check.Run(context.Background(), sys, claims, limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d states, %d transitions, depth %d, %d local states, %d messages, %v, %d MiB", r.States, r.Transitions, r.Depth,
		r.Locals, r.Messages, r.Elapsed, r.Bytes>>20)
	switch {
	case !r.Complete && limits.States < most:
		t.Skipf("more than %d states: run without the race detector", limits.States)
	case !r.Complete:
		t.Fatal("the run is not complete")
	}
	return r
}

// seenByRace is how many states of a search the race detector sees.
const seenByRace = 2_000

// mostStates keeps every test under 3 GiB: with what it takes to look for blocking a state takes less
// than 90 bytes.
const mostStates = 30_000_000

// TestTwoPhaseCommitIsSafe: AC1 to AC3 under loss, duplication and reordering without limit, and
// crashes with restarts, with and without cooperative termination. Where states is given it is their
// number: another one means that the machines do something new, or no longer do something.
func TestTwoPhaseCommitIsSafe(t *testing.T) {
	beside(t)
	crashes := func(n int) check.Faults {
		return check.Faults{Crashes: n, Restarts: n, Duplicates: check.Unlimited}
	}
	three := func(votes ...commit.Vote) twoPhaseCommit {
		return twoPhaseCommit{TwoPhase: commit.TwoPhase{Participants: 3, Votes: votes}, Faults: crashes(2)}
	}
	for name, c := range map[string]struct {
		twoPhaseCommit
		symmetric bool
		states    int
	}{
		"plain":                      {twoPhaseCommit: twoPhaseCommit{TwoPhase: commit.TwoPhase{Participants: 2}, Faults: crashes(2)}},
		"cooperative":                {twoPhaseCommit: twoPhaseCommit{TwoPhase: commit.TwoPhase{Participants: 2, Options: commit.Options{Cooperative: true}}, Faults: crashes(2)}, symmetric: true},
		"asks again":                 {twoPhaseCommit: twoPhaseCommit{TwoPhase: commit.TwoPhase{Participants: 2, Options: commit.Options{VoteRetries: 1}}, Faults: crashes(2)}, symmetric: true},
		"one phase":                  {twoPhaseCommit: twoPhaseCommit{TwoPhase: commit.TwoPhase{Participants: 1}, Faults: crashes(3)}},
		"three, yes, to names":       {twoPhaseCommit: three(commit.Yes), symmetric: true, states: 85_096},
		"three, yes or no, to names": {twoPhaseCommit: three(commit.Yes, commit.No), symmetric: true, states: 242_592},
		"three, to names":            {twoPhaseCommit: three(), symmetric: true, states: 953_705},
		"three":                      {twoPhaseCommit: three(), states: 5_320_328},
	} {
		t.Run(name, func(t *testing.T) {
			if c.states > 1_000_000 {
				soak(t)
			}
			always := []spec.Property{spec.AC1(), spec.AC2(), spec.AC3()}
			if c.Participants == 1 {
				always = always[:1] // the only participant decides alone: the register is not asked
			}
			claims := check.Claims{Always: always, Sometimes: []spec.Property{spec.AllCommit(), spec.PromiseUndone()}}
			if c.Participants == 1 {
				claims.Sometimes = claims.Sometimes[:1]
			}
			sys, err := c.system()
			if err != nil {
				t.Fatal(err)
			}
			if c.symmetric {
				sys = interchangeable(sys)
			}
			r := complete(t, sys, claims)
			nothingBroken(t, r)
			if c.states > 0 && r.States != c.states {
				t.Errorf("%d states, want %d", r.States, c.states)
			}
		})
	}
}

// TestQuietRunCommits is AC4: without a fault and without a timer that runs out early.
func TestQuietRunCommits(t *testing.T) {
	for n := 1; n <= 3; n++ {
		model := twoPhaseCommit{TwoPhase: commit.TwoPhase{Participants: n, Steadfast: true}, Model: check.Synchronous}
		r := run(t, model, check.Claims{Always: []spec.Property{spec.AC4()}, Sometimes: []spec.Property{spec.AllCommit()}})
		if len(r.Broken) > 0 || len(r.Never) > 0 {
			t.Errorf("%d participants: broken %v, never %v", n, r.Broken, r.Never)
		}
	}
}

// TestTwoPhaseCommitBlocks: AC5 does not hold. One crash, the coordinator's, blocks those who have
// voted yes, and peers who were not told help no more than the lesson says.
func TestTwoPhaseCommitBlocks(t *testing.T) {
	model := twoPhaseCommit{TwoPhase: commit.TwoPhase{Participants: 2, Votes: []commit.Vote{commit.Yes}}}
	model.Faults.Duplicates = check.Unlimited
	claims := check.Claims{Decided: spec.ParticipantDone}
	if r := run(t, model, claims); r.Blocking != 0 {
		t.Errorf("without a fault %d states block: %v", r.Blocking, r.Blocked)
	}
	model.Faults.Crashes = 1
	r := run(t, model, claims)
	if r.Blocked == nil {
		t.Fatal("two-phase commit does not block")
	}
	last := strings.Join(r.Blocked.Steps[len(r.Blocked.Steps)-1].After, "\n")
	if !strings.HasPrefix(last, "down\n") || !strings.Contains(last, `"State":"prepared"`) {
		t.Errorf("it blocks otherwise than in doubt, with the coordinator down:\n%s%s", r.Blocked, last)
	}
	model.Options.Cooperative = true
	if helped := run(t, model, claims); helped.Blocking == 0 || helped.Blocking >= r.Blocking {
		t.Errorf("%d states block with cooperative termination, %d without", helped.Blocking, r.Blocking)
	}
}

func TestSystemsAreChecked(t *testing.T) {
	for want, model := range map[string]twoPhaseCommit{
		"1 to 8 are allowed":      {TwoPhase: commit.TwoPhase{Participants: 9}},
		"0 participants":          {},
		"bound Duplicates":        {TwoPhase: commit.TwoPhase{Participants: 2}, Faults: check.Faults{Duplicates: check.Unlimited}, Model: check.Synchronous},
		"a budget of 1000 faults": {TwoPhase: commit.TwoPhase{Participants: 2}, Faults: check.Faults{Crashes: 1000, Duplicates: check.Unlimited}},
	} {
		sys, err := model.system()
		if err == nil {
			_, err = check.Run(context.Background(), sys, check.Claims{}, check.Limits{})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// TestLimitsStopARun: what is known so far is reported, and that it is not all.
func TestLimitsStopARun(t *testing.T) {
	sys, err := twoPhaseCommit{TwoPhase: commit.TwoPhase{Participants: 2}, Faults: check.Faults{Crashes: 1, Duplicates: check.Unlimited}}.system()
	if err != nil {
		t.Fatal(err)
	}
	last := check.Progress{}
	r, err := check.Run(context.Background(), sys, check.Claims{}, check.Limits{States: 100, Progress: func(p check.Progress) { last = p }})
	if err != nil || r.Complete || r.States < 100 || last.States != r.States {
		t.Errorf("%+v, %v, progress %+v", r, err, last)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if r, err = check.Run(ctx, sys, check.Claims{}, check.Limits{}); err != nil || r.Complete {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestALimitOfAsManyStatesAsThereAre is none: the run is complete.
func TestALimitOfAsManyStatesAsThereAre(t *testing.T) {
	sys := twoPhase(t, 2)
	all := complete(t, sys, check.Claims{})
	for limit, want := range map[int]bool{all.States: true, all.States - 1: false} {
		r, err := check.Run(t.Context(), sys, check.Claims{}, check.Limits{States: limit, Workers: 1})
		if err != nil || r.Complete != want {
			t.Errorf("limit %d of %d states: %+v, %v", limit, all.States, r, err)
		}
	}
}

// TestStoppedAfterTheSearch: whoever stops a run when all states are known learns what they show.
func TestStoppedAfterTheSearch(t *testing.T) {
	sys, err := twoPhaseCommit{TwoPhase: commit.TwoPhase{Participants: 2, Votes: yesOrNo}, Faults: check.Faults{Crashes: 1, Duplicates: check.Unlimited}}.system()
	if err != nil {
		t.Fatal(err)
	}
	claims := check.Claims{Always: append(safety(), hopes()[0]), Decided: spec.ParticipantDone}
	for _, phase := range []check.Phase{check.Blocking, check.Tracing} {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := check.Run(ctx, sys, claims, check.Limits{Progress: func(p check.Progress) {
			if p.Phase == phase {
				cancel()
			}
		}})
		cancel()
		if err != nil || !r.Complete || r.BlockingKnown != (phase == check.Tracing) {
			t.Fatalf("%s: complete %v, blocking known %v, %v", phase, r.Complete, r.BlockingKnown, err)
		}
		if len(r.Broken) != 1 || len(r.Broken[0].Steps) != 0 || r.BlockingKnown != (r.Blocked != nil) || r.BlockingKnown != (r.Blocking > 0) {
			t.Errorf("%s: %+v", phase, r)
		}
	}
}
