package crashtest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"assent"
	"assent/internal/pgcluster/cutproxy"
	"assent/protocol/commit"
)

// meddle finishes the branch that is prepared in base by hand, as a database's administrator can,
// and returns the transaction's id.
func (s *site) meddle(base, command string) string {
	s.Helper()
	gids := s.prepared(base)
	if len(gids) != 1 {
		s.Fatalf("prepared in %s: %q", base, gids)
	}
	s.exec(base, command+" PREPARED '"+gids[0]+"'")
	return strings.Split(gids[0], ":")[2]
}

// TestMeddlerIsReported: somebody finishes a branch by hand between its vote and the decision.
// Where that contradicts the decision the report is heuristic, and names the branch; where it
// agrees with it nothing is wrong, and the report says so.
func TestMeddlerIsReported(t *testing.T) {
	s := newSite(t)
	s.setup.Retry = 20 * time.Millisecond
	s.open()
	decided := map[commit.Decision]struct {
		of    scenario
		point string
	}{
		commit.Commit: {scenarios[0], "coordinator: emit Propose(commit)"},
		commit.Abort:  {scenarios[4], "coordinator: deliver Voted(no) from pg2"},
	}
	for _, base := range baseNames {
		for _, command := range []string{"COMMIT", "ROLLBACK"} {
			for d, at := range decided {
				if d == commit.Abort && base == "pg2" {
					continue // it is the one that votes no
				}
				t.Run(fmt.Sprintf("%s/%s/%s", base, command, d), func(t *testing.T) {
					s.sub(t)
					tr, c := s.heldAt(at.of, at.point)
					id := s.meddle(base, command)
					agrees := strings.EqualFold(command, d.String()) || command == "ROLLBACK" && d == commit.Abort
					if !agrees {
						s.torn[tr.ID], s.wanted[id] = true, true
					}
					s.release(at.point)
					r := s.finish(tr, c)
					if agrees {
						want := committed
						if d == commit.Abort {
							want = aborted
						}
						s.mustReport(r, want, "", nil, false)
						s.check()
						return
					}
					s.mustReport(r, heuristic, "", nil, true)
					found := commit.Committed
					if command == "ROLLBACK" {
						found = commit.RolledBack
					}
					if r.Decision != d || len(r.Branches) != 1 || r.Branches[0] != (assent.Contradiction{Resource: base, Outcome: found}) {
						t.Errorf("reported decision %v and %v", r.Decision, r.Branches)
					}
					s.check()
					s.onRecord(id)
				})
			}
			if t.Failed() {
				return
			}
		}
	}
	// The record outlives the coordinator.
	s.p.kill()
	s.open()
	s.check()
	for id := range s.wanted {
		s.onRecord(id)
	}
}

// onRecord looks whether the heuristic outcome of the transaction id is kept.
func (s *site) onRecord(id string) {
	s.Helper()
	info := s.p.do(request{Info: id}).Info
	if info.State != assent.StateHeuristic || info.Notes == 0 {
		s.Errorf("%s is on record as %s with %d notes", id, info.State, info.Notes)
	}
}

// TestMeddlerWhileDown: the coordinator is dead, and its decision stands, when somebody finishes a
// branch by hand. Recovery finds it out by the evidence in the log.
func TestMeddlerWhileDown(t *testing.T) {
	s := newSite(t)
	s.open()
	for _, base := range baseNames {
		for _, command := range []string{"COMMIT", "ROLLBACK"} {
			s.p.do(request{Arm: []arm{{Point: "coordinator: deliver Decided(commit)", Kill: true}}})
			tr := s.new()
			if r := s.run(tr); r != nil {
				t.Fatalf("the coordinator was killed, and reported %+v", r)
			}
			id := s.meddle(base, command)
			if command == "ROLLBACK" {
				s.torn[tr.ID], s.wanted[id] = true, true
			}
			s.open()
			s.check()
			info := s.p.do(request{Info: id}).Info
			if command == "COMMIT" {
				if info.State != assent.StateCommitted {
					t.Errorf("%s committed by hand as decided: %s", base, info.State)
				}
				continue
			}
			s.onRecord(id)
			for _, b := range info.Branches {
				want := commit.Committed
				if b.Resource == base {
					want = commit.RolledBack
				}
				if b.Outcome != want {
					t.Errorf("%s is on record as %s, and is %s", b.Resource, b.Outcome, want)
				}
			}
		}
	}
}

// TestMeddlerAfterLostPrepare: the reply to PREPARE is lost, which counts as a no vote, and somebody
// commits the branch by hand before it is rolled back. The abort is heuristic, and no plain abort.
func TestMeddlerAfterLostPrepare(t *testing.T) {
	s := newSite(t)
	proxies := s.throughProxies()
	s.open()
	for _, base := range baseNames {
		hit := proxies[base].On("PREPARE TRANSACTION", cutproxy.CutReply)
		tr, c := s.heldAt(scenarios[0], base+" deliver BranchPrepared(no)")
		<-hit.Happened()
		id := s.meddle(base, "COMMIT")
		s.torn[tr.ID], s.wanted[id] = true, true
		s.release(base + " deliver BranchPrepared(no)")
		r := s.finish(tr, c)
		s.mustReport(r, heuristic, "", nil, true)
		if r.Decision != commit.Abort || len(r.Branches) != 1 || r.Branches[0] != (assent.Contradiction{Resource: base, Outcome: commit.Committed}) {
			t.Errorf("reported decision %v and %v", r.Decision, r.Branches)
		}
		s.check()
		s.onRecord(id)
	}
}

// TestEvidenceIsGone: a branch that was committed by hand, and of which a database restored from a
// backup knows nothing, is a hazard and not a success. The name that is unknown (SQLSTATE 42704)
// is not taken for done.
func TestEvidenceIsGone(t *testing.T) {
	s := newSite(t)
	s.open()
	s.p.do(request{Arm: []arm{{Point: "coordinator: deliver Decided(commit)", Kill: true}}})
	tr := s.new()
	if r := s.run(tr); r != nil {
		t.Fatalf("the coordinator was killed, and reported %+v", r)
	}
	id := s.meddle("pg1", "ROLLBACK")
	s.torn[tr.ID], s.wanted[id] = true, true
	// The other cluster's transactions have other numbers and another system identifier: for this
	// coordinator the database is one that was put there instead.
	original := s.setup.DSN["pg1"]
	s.setup.DSN["pg1"] = s.clusters["pg2"].DSN("postgres")
	s.open()
	s.p.do(request{Settle: true})
	s.onRecord(id)
	for _, b := range s.p.do(request{Info: id}).Info.Branches {
		if b.Resource == "pg1" && b.Outcome != commit.Hazard {
			t.Errorf("pg1 is on record as %s", b.Outcome)
		}
	}
	s.p.kill()
	s.setup.DSN["pg1"] = original
	s.open()
	s.check()
}
