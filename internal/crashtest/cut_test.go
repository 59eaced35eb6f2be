package crashtest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"assent/internal/pgcluster"
	"assent/internal/pgcluster/cutproxy"
	"assent/resource"
)

// throughProxies makes coordinators connect by way of proxies from now on.
func (s *site) throughProxies() map[string]*cutproxy.Proxy {
	s.Helper()
	proxies := map[string]*cutproxy.Proxy{}
	for name, c := range s.clusters {
		p, err := cutproxy.New(c.Addr())
		if err != nil {
			s.Fatal(err)
		}
		s.Cleanup(func() { _ = p.Close() })
		proxies[name] = p
		s.setup.DSN[name] = p.DSN(pgcluster.User, s.db)
	}
	return proxies
}

var actionNames = map[cutproxy.Action]string{
	cutproxy.CutBefore: "lost", cutproxy.CutReply: "reply lost", cutproxy.CutLate: "late",
}

// deliver hands a statement that was held to the server, after the transaction is over.
func deliver(t testing.TB, hit *cutproxy.Hit, action cutproxy.Action) {
	t.Helper()
	if action != cutproxy.CutLate {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := hit.Deliver(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestConnectionCut cuts a connection at each statement of a branch: the statement is lost, or its
// reply, or the server executes it when everything is over.
func TestConnectionCut(t *testing.T) {
	s := newSite(t)
	s.setup.Retry = 20 * time.Millisecond
	proxies := s.throughProxies()
	s.open()
	no := scenarios[4]
	alone := func(base string) scenario {
		return scenario{legs: []leg{{Resource: base, Delta: 1}, {Resource: base, Account: 1, Delta: -1}}}
	}
	swap := scenario{legs: scenarios[0].legs, then: []statement{orphan("pg1")},
		order: []arm{{Point: "pg1 deliver BranchPrepared(no)", Await: []string{
			"coordinator: stepped Voted(yes) from kv", "coordinator: stepped Voted(yes) from pg2"}}}}
	for _, base := range baseNames {
		other := no
		if base == "pg2" {
			other = swap // the one that votes no is the other
		}
		for _, c := range []struct {
			statement string
			of        scenario
			// The reports by action: lost, reply lost, late.
			want [3]string
			by   string
			code resource.Code
		}{
			{"cut here", scenario{legs: scenarios[0].legs, then: []statement{{Resource: base, SQL: "SELECT 'cut here'"}}}, [3]string{aborted, aborted, aborted}, "application", resource.Unavailable},
			{"PREPARE TRANSACTION", scenarios[0], [3]string{aborted, aborted, aborted}, base, resource.Unavailable},
			{"COMMIT PREPARED", scenarios[0], [3]string{committed, committed, committed}, "", 0},
			{"ROLLBACK PREPARED", other, [3]string{aborted, aborted, aborted}, "", resource.Constraint},
			{"COMMIT", alone(base), [3]string{aborted, committed, aborted}, base, resource.Unavailable},
			{"ROLLBACK", scenario{legs: alone(base).legs, fail: true}, [3]string{aborted, aborted, aborted}, "application", 0},
		} {
			for i, action := range []cutproxy.Action{cutproxy.CutBefore, cutproxy.CutReply, cutproxy.CutLate} {
				t.Run(fmt.Sprintf("%s/%s/%s", base, c.statement, actionNames[action]), func(t *testing.T) {
					s.sub(t)
					hit := proxies[base].On(c.statement, action)
					s.p.do(request{Arm: c.of.order})
					tr := c.of.make(s)
					r := s.run(tr)
					select {
					case <-hit.Happened(): // the client may notice before the proxy says so
					case <-time.After(patience):
						t.Fatalf("the connection was not cut; the report is %+v", r)
					}
					by, code := c.by, c.code
					if c.want[i] == committed {
						by, code = "", 0
					}
					s.mustReport(r, c.want[i], by, nil, false)
					if r.Code != code {
						t.Errorf("the code is %v, want %v: %s", r.Code, code, r.Text)
					}
					s.p.do(request{Settle: true})
					deliver(t, hit, action)
					if got := s.check().happened(tr.ID); got != (c.want[i] == committed) {
						t.Errorf("reported %s; committed: %v", r.Kind, got)
					}
				})
				if t.Failed() {
					return
				}
			}
		}
	}
}

// TestLatePrepareAfterDeath lets a server execute PREPARE when the coordinator that sent it is dead
// and the next one has recovered already. Nobody knows of the branch until a scan finds it.
func TestLatePrepareAfterDeath(t *testing.T) {
	s := newSite(t)
	proxies := s.throughProxies()
	for _, base := range baseNames {
		s.open()
		hit := proxies[base].On("PREPARE TRANSACTION", cutproxy.CutLate)
		s.p.do(request{Arm: []arm{{Point: base + " deliver BranchPrepared(no)", Kill: true}}})
		tr := s.new()
		if r := s.run(tr); r != nil {
			t.Fatalf("the coordinator was killed, and reported %+v", r)
		}
		<-hit.Happened()
		s.open()
		s.p.do(request{Settle: true})
		seen := len(s.prepared(base))
		deliver(t, hit, cutproxy.CutLate)
		if s.check().happened(tr.ID) {
			t.Errorf("the transfer was not decided, and has happened")
		}
		points := s.p.do(request{State: true}).State.Points
		if seen != 0 || !slices.Contains(points, base+" emit RollbackBranch") {
			t.Errorf("%d branches were prepared before, and the late one was not found", seen)
		}
		s.p.kill()
	}
}

// TestEverythingCut cuts all connections at each phase, as a failing network does.
func TestEverythingCut(t *testing.T) {
	s := newSite(t)
	s.setup.Retry = 20 * time.Millisecond
	s.setup.FinishWait = 100 * time.Millisecond
	proxies := s.throughProxies()
	s.open()
	for _, ph := range phases {
		t.Run(ph.name, func(t *testing.T) {
			s.sub(t)
			point := ph.at("pg1")
			tr, c := s.heldAt(ph.of, point)
			for _, p := range proxies {
				p.Cut()
			}
			s.release(point)
			r := s.finish(tr, c)
			for _, p := range proxies {
				p.Heal()
			}
			if ph.want != "" && ph.name != "prepared, the vote under way" && r.Kind != ph.want || r.Kind != committed && r.Kind != aborted {
				t.Errorf("reported %+v; want %s", r, ph.want)
			}
			s.check()
		})
		if t.Failed() {
			return
		}
	}
}
