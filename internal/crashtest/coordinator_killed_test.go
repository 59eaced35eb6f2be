package crashtest

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"assent/protocol/commit"
	"assent/resource"
)

// scenario is a transfer and how its steps are ordered, so that it passes the same points each
// time it is made.
type scenario struct {
	name  string
	legs  []leg
	then  []statement
	fail  bool
	order []arm
	want  string // the report
	least int    // points
}

var scenarios = []scenario{
	{name: "commit", want: committed, least: 60, legs: []leg{
		{Resource: kvName, Delta: 2}, {Resource: "pg1", Delta: -3}, {Resource: "pg2", Delta: 1}}},
	{name: "commit with a reader", want: committed, least: 45, legs: []leg{
		{Resource: kvName, Delta: 2}, {Resource: "pg1", Delta: -2}, {Resource: "pg2", Peek: true}}},
	{name: "one phase", want: committed, least: 10, legs: []leg{
		{Resource: "pg1", Delta: 2}, {Resource: "pg1", Account: 1, Delta: -2}}},
	{name: "given up", want: aborted, fail: true, least: 25, legs: []leg{
		{Resource: kvName, Delta: 2}, {Resource: "pg1", Delta: -3}, {Resource: "pg2", Delta: 1}}},
	{name: "no vote after the others' yes", want: aborted, least: 50, legs: []leg{
		{Resource: kvName, Delta: 2}, {Resource: "pg1", Delta: -3}, {Resource: "pg2", Delta: 1}},
		then: []statement{orphan("pg2")},
		order: []arm{{Point: "pg2 deliver BranchPrepared(no)", Await: []string{
			"coordinator: stepped Voted(yes) from kv", "coordinator: stepped Voted(yes) from pg1"}}}},
	{name: "no vote before the others' yes", want: aborted, least: 50, legs: []leg{
		{Resource: kvName, Delta: 2}, {Resource: "pg1", Delta: -3}, {Resource: "pg2", Delta: 1}},
		then: []statement{orphan("pg2")},
		order: []arm{
			{Point: "pg2 deliver BranchPrepared(no)", Await: []string{"kv deliver BranchPrepared(yes)", "pg1 deliver BranchPrepared(yes)"}},
			{Point: "kv deliver BranchPrepared(yes)", Await: []string{"coordinator: send Finish(abort) to kv"}},
			{Point: "pg1 deliver BranchPrepared(yes)", Await: []string{"coordinator: send Finish(abort) to pg1"}},
		}},
}

// orphan is a statement that succeeds and makes PREPARE fail.
func orphan(name string) statement {
	return statement{Resource: name, SQL: "INSERT INTO child VALUES (1)"}
}

// make returns the scenario's transfer, at a site that has made others.
func (sc scenario) make(s *site) transfer {
	n := len(s.made)
	t := transfer{ID: fmt.Sprintf("t%d", n), Legs: slices.Clone(sc.legs), Then: sc.then, Fail: sc.fail}
	for i := range t.Legs {
		t.Legs[i].Account = (t.Legs[i].Account + n) % accounts
	}
	return t
}

// scout makes the transfer undisturbed and returns the points that it passes, each as often as it
// is passed.
func (sc scenario) scout(s *site) []arm {
	s.Helper()
	s.setup.Retry = patience // or a busy machine would pass points that are not passed again
	s.open(sc.order...)
	t := sc.make(s)
	s.mustReport(s.run(t), sc.want, "", nil, false)
	st := s.p.do(request{Settle: true}).State
	s.check()
	s.p.kill()
	counts := map[string]int{}
	var kills []arm
	for _, point := range st.Points {
		counts[point]++
		kills = append(kills, arm{Point: point, N: counts[point], Kill: true})
	}
	if len(kills) < sc.least {
		s.Fatalf("only %d points: %q", len(kills), st.Points)
	}
	return kills
}

// workers runs work in a few subtests at a time, each with a site of its own, until work returns
// false.
func workers(t *testing.T, work func(s *site) (more func() bool)) {
	t.Helper()
	t.Run("all", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("worker", func(t *testing.T) {
				t.Parallel()
				for more := work(newSite(t)); more(); {
				}
			})
		}
	})
}

// TestCoordinatorKilledAtEveryPoint kills the coordinator at every point of a transaction in turn.
// The next coordinator finishes what it finds.
func TestCoordinatorKilledAtEveryPoint(t *testing.T) {
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			kills := sc.scout(newSite(t))
			var next, done, missed, reported atomic.Int64
			workers(t, func(s *site) func() bool {
				s.open()
				return func() bool {
					i := int(next.Add(1)) - 1
					if i >= len(kills) {
						return false
					}
					tr, r, died := sc.killedAt(s, kills[i])
					if !died {
						missed.Add(1)
						t.Logf("not passed this time: %s (%d)", kills[i].Point, kills[i].N)
					}
					if r != nil {
						reported.Add(1)
					}
					if s.check().happened(tr.ID) {
						done.Add(1)
					}
					if s.Failed() {
						s.Fatalf("killed at %q, number %d", kills[i].Point, kills[i].N)
					}
					return true
				}
			})
			t.Logf("%d points, %d committed, %d reported before", len(kills), done.Load(), reported.Load())
			if missed.Load() > int64(len(kills)/10) {
				t.Errorf("%d of %d points were not passed", missed.Load(), len(kills))
			}
			if sc.want == committed && (done.Load() == 0 || done.Load() == int64(len(kills))) {
				t.Errorf("%d of %d kills ended in commit: the points do not surround the decision", done.Load(), len(kills))
			}
			if sc.want == aborted && done.Load() > 0 {
				t.Errorf("%d transfers that abort have happened", done.Load())
			}
		})
	}
}

// killedAt makes the transfer with a coordinator that is killed at a point, and starts the next
// coordinator.
func (sc scenario) killedAt(s *site, kill arm) (tr transfer, r *report, died bool) {
	s.Helper()
	s.p.do(request{Arm: append(slices.Clone(sc.order), kill)})
	tr = sc.make(s)
	r = s.run(tr)
	if r != nil {
		// What is left of the transaction may still come to the point.
		c := s.p.send(request{Settle: true})
		_, alive := c.answered()
		died = !alive
	} else {
		died = true
	}
	if !died {
		s.p.kill()
	}
	if !s.p.slain() {
		s.Fatalf("the coordinator failed: %v\n%s", s.p.status, s.p.stderr.String())
	}
	s.open()
	return tr, r, died
}

// TestCoordinatorKilledInIO kills the coordinator some time after it has asked for something that
// takes time: in the middle of a database's or the disk's work.
func TestCoordinatorKilledInIO(t *testing.T) {
	var kills []arm
	for _, delay := range []time.Duration{200 * time.Microsecond, time.Millisecond, 3 * time.Millisecond} {
		for _, point := range []string{
			"kv emit PrepareBranch", "pg1 emit PrepareBranch", "pg2 emit PrepareBranch", "coordinator: emit Propose(commit)",
			"kv emit CommitBranch", "pg1 emit CommitBranch", "pg2 emit CommitBranch", "coordinator: emit Completed(commit)",
		} {
			kills = append(kills, arm{Point: point, Kill: true, Delay: delay})
		}
	}
	var next atomic.Int64
	workers(t, func(s *site) func() bool {
		s.open()
		return func() bool {
			i := int(next.Add(1)) - 1
			if i >= len(kills) {
				return false
			}
			// It may come when all is over already: then the coordinator is killed at rest.
			scenarios[0].killedAt(s, kills[i])
			s.check()
			if s.Failed() {
				s.Fatalf("killed %v after %q", kills[i].Delay, kills[i].Point)
			}
			return true
		}
	})
}

// TestRecoveryKilledAtEveryPoint kills a coordinator in the middle of a transaction, the next one
// at every point of its recovery in turn, and lets the third finish.
func TestRecoveryKilledAtEveryPoint(t *testing.T) {
	for _, c := range []struct {
		name    string
		of      scenario
		first   string
		commits bool
	}{
		{"all prepared, nothing decided", scenarios[0], "coordinator: emit Propose(commit)", false},
		{"two prepared, a no vote under way", scenarios[4], "coordinator: deliver Voted(no) from pg2", false},
		{"decided, nothing finished", scenarios[0], "coordinator: deliver Decided(commit)", true},
		{"finished, and nobody has said so", scenarios[0], "coordinator: emit Completed(commit)", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			sc := c.of
			first := arm{Point: c.first, Kill: true}
			scout := newSite(t)
			scout.setup.Retry = patience
			scout.open()
			sc.killedAt(scout, first)
			kills := recoveryPoints(scout.p.do(request{Settle: true}).State.Points)
			scout.check()
			if len(kills) < 8 {
				t.Fatalf("only %d points: %v", len(kills), kills)
			}
			var next, missed atomic.Int64
			workers(t, func(s *site) func() bool {
				s.open()
				return func() bool {
					i := int(next.Add(1)) - 1
					if i >= len(kills) {
						return false
					}
					tr, died := twiceKilled(s, sc, first, kills[i])
					if !died {
						missed.Add(1)
						t.Logf("not passed this time: %s (%d)", kills[i].Point, kills[i].N)
					}
					if got := s.check().happened(tr.ID); got != c.commits {
						s.Errorf("committed: %v, want %v", got, c.commits)
					}
					if s.Failed() {
						s.Fatalf("recovery killed at %q, number %d", kills[i].Point, kills[i].N)
					}
					return true
				}
			})
			t.Logf("%d points, %d not passed", len(kills), missed.Load())
			if missed.Load() > int64(len(kills)/4) {
				t.Errorf("%d of %d points were not passed", missed.Load(), len(kills))
			}
		})
	}
}

// recoveryPoints are the points at which recovery is killed.
func recoveryPoints(points []string) (kills []arm) {
	counts := map[string]int{}
	for _, point := range points {
		counts[point]++
		// Messages that are repeated because their answer takes a while come by chance.
		if counts[point] == 1 && !strings.Contains(point, "timer") {
			kills = append(kills, arm{Point: point, N: 1, Kill: true})
		}
	}
	return kills
}

// twiceKilled makes a transfer that is killed first, and then in its recovery, and starts a third
// coordinator.
func twiceKilled(s *site, sc scenario, first, second arm) (tr transfer, died bool) {
	s.Helper()
	s.p.do(request{Arm: append(slices.Clone(sc.order), first)})
	tr = sc.make(s)
	if r := s.run(tr); r != nil {
		s.Fatalf("killed at %q, and reported %+v", first.Point, r)
	}
	if _, open := s.begin(second); open {
		_, alive := s.p.send(request{Settle: true}).answered()
		died = !alive
		s.p.kill()
	} else {
		died = true
	}
	if !s.p.slain() {
		s.Fatalf("the coordinator failed: %v\n%s", s.p.status, s.p.stderr.String())
	}
	s.open()
	return tr, died
}

// TestReports holds each scenario's report against what it should say.
func TestReports(t *testing.T) {
	s := newSite(t)
	for _, sc := range scenarios {
		s.open(sc.order...)
		r := s.run(sc.make(s))
		switch {
		case sc.want == committed:
			s.mustReport(r, committed, "", nil, false)
		case sc.fail:
			s.mustReport(r, aborted, "application", nil, false)
			if r.Cause != commit.Cancelled || !strings.Contains(r.Text, errGaveUp.Error()) {
				t.Errorf("given up: %+v", r)
			}
		default:
			s.mustReport(r, aborted, "pg2", resource.Constraint, false)
			if r.Cause != commit.VotedNo {
				t.Errorf("the cause is %v", r.Cause)
			}
		}
		s.check()
		s.p.kill()
	}
}
