package crashtest

import (
	"context"
	"strings"
	"testing"
	"time"

	"assent"
	"assent/internal/pgcluster"
	"assent/internal/pgcluster/cutproxy"
	"assent/resource"
)

// A phase is where a transaction is held while a database is stopped.
type phase struct {
	name  string
	of    scenario
	point string // X stands for the database that is stopped
	want  string
	code  resource.Code // of the abort
}

var phases = []phase{
	{"before any is prepared", scenarios[0], worked, aborted, resource.Unavailable},
	{"between two prepares", scenarios[0], "pg2 emit PrepareBranch", "", 0},
	{"prepared, the vote under way", scenarios[0], "X deliver BranchPrepared(yes)", committed, 0},
	{"all prepared, nothing decided", scenarios[0], "coordinator: emit Propose(commit)", committed, 0},
	{"decided, nothing finished", scenarios[0], "coordinator: deliver Decided(commit)", committed, 0},
	{"in the middle of finishing", scenarios[0], "coordinator: send Finish(commit) to pg2", committed, 0},
	{"committed, its report under way", scenarios[0], "X deliver BranchFinished(committed)", committed, 0},
	{"a no vote under way, nothing rolled back", scenarios[4], "coordinator: deliver Voted(no) from pg2", aborted, resource.Constraint},
	{"rolled back, its report under way", scenarios[4], "X deliver BranchFinished(rolled back)", aborted, resource.Constraint},
}

func (ph phase) at(base string) string { return strings.Replace(ph.point, "X", base, 1) }

// wanted is the report that must come when base is stopped.
func (ph phase) wanted(base string) (kind, by string, code resource.Code) {
	switch {
	case ph.want != "":
		kind, code = ph.want, ph.code
	case base == "pg1": // it had prepared
		kind = committed
	default: // it had not
		kind, by, code = aborted, base, resource.Unavailable
	}
	if kind == aborted && by == "" && code == resource.Constraint {
		by = "pg2"
	}
	return kind, by, code
}

// stop stops a cluster as a crash would.
func (s *site) stop(base string) {
	s.Helper()
	if err := s.clusters[base].Stop(pgcluster.Immediate); err != nil {
		s.Fatal(err)
	}
}

func (s *site) restart(base string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.clusters[base].Start(ctx); err != nil {
		s.Fatal(err)
	}
}

// heldAt makes the scenario's transfer up to a point, where it is held.
func (s *site) heldAt(sc scenario, point string) (transfer, *call) {
	s.Helper()
	s.p.do(request{Arm: append([]arm{{Point: point, Hold: true}}, sc.order...)})
	t := sc.make(s)
	c := s.start(t)
	s.p.atPoint(point)
	return t, c
}

// TestDatabaseKilledAtEachPhase stops a database at each phase of a transaction, lets the
// coordinator see that, and starts the database again.
func TestDatabaseKilledAtEachPhase(t *testing.T) {
	s := newSite(t)
	s.setup.Retry = 20 * time.Millisecond
	s.setup.FinishWait = 100 * time.Millisecond // a report does not wait for the database
	s.open()
	for _, ph := range phases {
		for _, base := range baseNames {
			t.Run(ph.name+"/"+base, func(t *testing.T) {
				s.sub(t)
				tr, c := s.heldAt(ph.of, ph.at(base))
				if ph.point == "pg2 emit PrepareBranch" {
					s.await("pg1 is prepared", func() bool { return len(s.prepared("pg1")) == 1 })
				}
				s.stop(base)
				s.release(ph.at(base))
				r := s.finish(tr, c)
				kind, by, code := ph.wanted(base)
				s.mustReport(r, kind, by, nil, false)
				if r.Code != code {
					t.Errorf("the code is %v, want %v: %s", r.Code, code, r.Text)
				}
				s.restart(base)
				if b := s.check(); b.happened(tr.ID) != (kind == committed) {
					t.Errorf("reported %s; committed: %v", kind, b.happened(tr.ID))
				}
			})
			if t.Failed() {
				return
			}
		}
	}
}

// TestCoordinatorAndDatabaseKilled stops a database at each phase, kills the coordinator too, and
// starts the next coordinator while the database is down: what does not need the database works,
// and what is in doubt is finished when it is back.
func TestCoordinatorAndDatabaseKilled(t *testing.T) {
	s := newSite(t)
	s.setup.Retry = 20 * time.Millisecond
	s.open()
	for i, ph := range phases {
		base, other := baseNames[i%2], baseNames[1-i%2]
		t.Run(ph.name+"/"+base, func(t *testing.T) {
			s.sub(t)
			tr, c := s.heldAt(ph.of, ph.at(base))
			s.stop(base)
			s.p.kill()
			if r := s.finish(tr, c); r != nil {
				t.Fatalf("the coordinator was killed, and reported %+v", r)
			}
			s.open()
			n := len(s.made)
			// Other accounts than those that are in doubt.
			beside := s.run(transfer{ID: "beside" + tr.ID, Legs: []leg{
				{Resource: kvName, Account: n % accounts, Delta: 5}, {Resource: other, Account: n % accounts, Delta: -5}}})
			s.mustReport(beside, committed, "", nil, false)
			down := s.run(s.new())
			s.mustReport(down, aborted, "application", resource.Unavailable, false)
			s.await("the scan says that "+base+" is down", func() bool { return s.p.do(request{State: true}).State.Seen[base] != "" })
			for _, id := range s.p.do(request{State: true}).State.Unfinished {
				if id == beside.ID {
					continue // its end is noted in the log when nobody waits any more
				}
				info := s.p.do(request{Info: id}).Info
				if !info.State.Unfinished() || info.State == assent.StateHeuristic {
					t.Errorf("while %s is down, %s is %s", base, id, info.State)
				}
			}
			s.restart(base)
			s.check()
			if seen := s.p.do(request{State: true}).State.Seen; len(seen) > 0 {
				t.Errorf("all is up, and scans say %q", seen)
			}
		})
		if t.Failed() {
			return
		}
	}
}

// TestOnePhaseInDoubt stops the database of a transaction's only branch when that is about to commit.
// The report is that nobody knows, until the database is back and tells; that is no heuristic
// outcome, and can be asked for.
func TestOnePhaseInDoubt(t *testing.T) {
	s := newSite(t)
	s.setup.Retry, s.setup.FinishWait, s.setup.PrepareTimeout = 20*time.Millisecond, 100*time.Millisecond, time.Second
	proxies := s.throughProxies()
	s.open()
	for _, base := range baseNames {
		const point = " emit CommitBranchOnePhase"
		alone := scenario{legs: []leg{{Resource: base, Delta: 1}, {Resource: base, Account: 1, Delta: -1}}}
		tr, c := s.heldAt(alone, base+point)
		s.stop(base)
		s.release(base + point)
		r := s.finish(tr, c)
		s.mustReport(r, inDoubt, "", resource.Unavailable, true)
		s.restart(base)
		if s.check().happened(tr.ID) {
			t.Error("COMMIT never reached the server, and the transfer has happened")
		}
		if state := s.p.do(request{Info: r.ID}).Info.State; state != assent.StateAborted {
			t.Errorf("asked later: %s", state)
		}

		// The server commits, and neither the reply nor anything else comes through.
		s.hold(base + point)
		hit := proxies[base].On("COMMIT", cutproxy.CutReply)
		tr = alone.make(s)
		c = s.start(tr)
		s.p.atPoint(base + point)
		s.release(base + point)
		<-hit.Happened()
		proxies[base].Cut()
		r = s.finish(tr, c)
		proxies[base].Heal()
		if r.Kind != committed { // the branch was quicker to look than the network to fail
			s.mustReport(r, inDoubt, "", nil, true)
		}
		if !s.check().happened(tr.ID) {
			t.Error("the server has committed, and the transfer is gone")
		}
		if r.Kind == inDoubt {
			if state := s.p.do(request{Info: r.ID}).Info.State; state != assent.StateCommitted {
				t.Errorf("asked later: %s", state)
			}
		}
	}
}
