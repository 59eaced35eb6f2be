package crashtest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"assent/internal/pgcluster"
	"assent/resource"
)

// then returns the site's next transfer with statements after its work.
func (s *site) then(statements ...statement) transfer {
	t := s.new()
	t.Then = statements
	return t
}

// TestPrepareRefused: whatever makes PREPARE impossible aborts the transaction everywhere, and the
// report says which, why, and what to do.
func TestPrepareRefused(t *testing.T) {
	s := newSite(t)
	s.setup.Retry = 20 * time.Millisecond
	s.open()
	for _, c := range []struct {
		name string
		then statement
		code resource.Code
		hint bool
		text string
	}{
		// PostgreSQL answers PREPARE in an aborted transaction with the tag ROLLBACK and no error.
		{"aborted transaction", statement{SQL: "SELECT 1/0", Ignore: true}, resource.Broken, true, "22012"},
		{"deferred constraint", statement{SQL: "INSERT INTO child VALUES (1)"}, resource.Constraint, false, "23503"},
		{"temporary table", statement{SQL: "CREATE TEMP TABLE t (n int)"}, resource.Unsupported, true, "0A000"},
		{"notification", statement{SQL: "NOTIFY news"}, resource.Unsupported, true, "0A000"},
		{"ended by the application", statement{SQL: "COMMIT", Ignore: true}, resource.Broken, true, ""},
	} {
		for _, base := range baseNames {
			if c.name == "ended by the application" && base == "pg2" {
				continue
			}
			t.Run(c.name+"/"+base, func(t *testing.T) {
				s.sub(t)
				c.then.Resource = base
				tr := s.then(c.then)
				if c.name == "ended by the application" {
					s.torn[tr.ID] = true
				}
				r := s.run(tr)
				if c.name == "ended by the application" {
					// The application has committed the branch behind everybody's back.
					s.mustReport(r, heuristic, "", nil, true)
					s.wanted[r.ID] = true
					s.check()
					return
				}
				s.mustReport(r, aborted, base, c.code, c.hint)
				if !strings.Contains(r.Text, c.text) {
					t.Errorf("no %q in: %s", c.text, r.Text)
				}
				s.check()
			})
		}
	}
	s.mustReport(s.run(s.new()), committed, "", nil, false)
	s.check()
}

// clusterExec runs statements outside of the site's database.
func (s *site) clusterExec(base, sql string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.clusters[base].Exec(ctx, "", sql); err != nil {
		s.Fatal(err)
	}
}

// TestSlots: all of max_prepared_transactions are taken by somebody else, or there are none.
func TestSlots(t *testing.T) {
	s := newSite(t)
	s.open()
	for _, base := range baseNames {
		r := s.withoutSlots(base)
		s.mustReport(r, aborted, base, resource.Capacity, true)
		s.check()
		s.mustReport(s.run(s.new()), committed, "", nil, false)

		s.clusterExec(base, "ALTER SYSTEM SET max_prepared_transactions = 0")
		s.bounce(base)
		r = s.run(s.new())
		s.clusterExec(base, "ALTER SYSTEM RESET max_prepared_transactions")
		s.bounce(base)
		s.mustReport(r, aborted, base, resource.Disabled, true)
		s.check()
		s.mustReport(s.run(s.new()), committed, "", nil, false)
		s.check()
	}
}

// withoutSlots makes a transfer while all slots of the cluster are taken.
func (s *site) withoutSlots(base string) *report {
	s.Helper()
	var all strings.Builder
	taken := len(s.list(base, "SELECT gid FROM pg_prepared_xacts"))
	for i := range 200 - taken {
		fmt.Fprintf(&all, "BEGIN; PREPARE TRANSACTION 'slot-%d'; ", i)
	}
	defer func() {
		for i := range 200 - taken {
			s.clusterExec(base, fmt.Sprintf("ROLLBACK PREPARED 'slot-%d'", i))
		}
	}()
	s.clusterExec(base, all.String())
	return s.run(s.new())
}

func (s *site) bounce(base string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.clusters[base].Restart(ctx, pgcluster.Fast); err != nil {
		s.Fatal(err)
	}
}

// TestWrongOwnerAndDatabase: the next coordinator connects as another user than the one that
// prepared, or to another database. It cannot finish the branch; it says so and why, and does not
// take the transaction for finished. With the right connection it is finished.
func TestWrongOwnerAndDatabase(t *testing.T) {
	s := newSite(t)
	for _, role := range []string{"alice", "bob"} {
		s.clusterExec("pg1", fmt.Sprintf(`DO $$ BEGIN CREATE ROLE %s LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$`, role))
		s.exec("pg1", "GRANT ALL ON ALL TABLES IN SCHEMA public TO "+role)
	}
	alice := s.clusters["pg1"].DSNFor("alice", s.db)
	for name, wrong := range map[string]string{
		"owner":    s.clusters["pg1"].DSNFor("bob", s.db),
		"database": s.clusters["pg1"].DSNFor("alice", "postgres"),
	} {
		t.Run(name, func(t *testing.T) {
			s.sub(t)
			s.setup.DSN["pg1"] = alice
			s.open(arm{Point: "coordinator: deliver Decided(commit)", Kill: true})
			tr := s.new()
			if r := s.run(tr); r != nil {
				t.Fatalf("the coordinator was killed, and reported %+v", r)
			}
			id := strings.Split(s.prepared("pg1")[0], ":")[2]
			s.setup.DSN["pg1"] = wrong
			s.open()
			var said string
			s.await("recovery says why it cannot finish", func() bool {
				for _, b := range s.p.do(request{Info: id}).Info.Branches {
					if b.Resource == "pg1" {
						said = b.Err
					}
				}
				return said != ""
			})
			if !strings.Contains(said, resource.Permission.String()) {
				t.Errorf("said %q", said)
			}
			s.await("the others are finished", func() bool { return len(s.prepared("pg2")) == 0 })
			if st := s.p.do(request{State: true}).State; len(st.Unfinished) != 1 || len(st.Damaged) != 0 {
				t.Errorf("unfinished are %q, damaged %q", st.Unfinished, st.Damaged)
			}
			s.p.kill()
			s.setup.DSN["pg1"] = alice
			s.open()
			if !s.check().happened(tr.ID) {
				t.Errorf("commit was decided, and has not happened")
			}
			s.p.kill()
		})
	}
}

// TestLockWaitAtPrepare: a deferred check at PREPARE waits for a lock that somebody else holds:
// for a while, longer than the server's lock_timeout, or longer than Config.PrepareTimeout.
func TestLockWaitAtPrepare(t *testing.T) {
	for _, c := range []struct {
		name          string
		lock, prepare time.Duration
		want          string
		code          resource.Code
		hint          bool
	}{
		{"a while", 30 * time.Second, 30 * time.Second, committed, 0, false},
		{"longer than the lock timeout", 200 * time.Millisecond, 30 * time.Second, aborted, resource.LockTimeout, true},
		{"longer than the prepare timeout", 30 * time.Second, 4 * time.Second, aborted, resource.Unavailable, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			s.setup.LockTimeout, s.setup.PrepareTimeout = c.lock, c.prepare
			s.exec("pg1", "INSERT INTO parent VALUES (1)")
			holder, err := s.clusters["pg1"].Conn(t.Context(), s.db)
			if err != nil {
				t.Fatal(err)
			}
			defer holder.Close(context.Background())
			hold := func(sql string) {
				t.Helper()
				if _, err := holder.Exec(t.Context(), sql); err != nil {
					t.Fatal(err)
				}
			}
			hold("BEGIN")
			hold("SELECT * FROM parent FOR UPDATE")
			s.open()
			tr := s.then(orphan("pg1"))
			call := s.start(tr)
			waiting := func() bool {
				return len(s.list("pg1", `SELECT application_name FROM pg_stat_activity WHERE datname = current_database()
					AND application_name = $1 AND wait_event_type = 'Lock' AND query LIKE '%PREPARE TRANSACTION%'`, s.tag())) == 1
			}
			if c.want == committed {
				s.await("PREPARE waits", waiting)
				hold("ROLLBACK")
			}
			r := s.finish(tr, call)
			s.mustReport(r, c.want, "", nil, c.hint)
			if r.Code != c.code || c.want == aborted && r.By != "pg1" {
				t.Errorf("by %q with %v: %s", r.By, r.Code, r.Text)
			}
			if c.want == aborted {
				hold("ROLLBACK")
			}
			s.check()
		})
	}
}

// TestSerializationFailureAtPrepare: PostgreSQL finds at PREPARE that a serializable branch and a
// transaction that has committed meanwhile cannot be put in an order.
func TestSerializationFailureAtPrepare(t *testing.T) {
	s := newSite(t)
	s.open()
	tr := transfer{ID: "skewed", Serializable: true, Legs: []leg{
		{Resource: kvName, Account: 0, Delta: 2}, {Resource: "pg2", Account: 0, Delta: -2}},
		// It reads what the other writes, and writes what the other reads.
		Then: []statement{{Resource: "pg2", SQL: "SELECT sum(id) FROM parent"}, {Resource: "pg2", SQL: "INSERT INTO child SELECT 1 WHERE false"},
			{Resource: "pg2", SQL: "INSERT INTO move VALUES ('skewed', 7, 0, 0)"}}}
	s.hold(worked)
	c := s.start(tr)
	s.p.atPoint(worked)
	s.exec("pg2", "BEGIN ISOLATION LEVEL SERIALIZABLE")
	s.list("pg2", "SELECT transfer FROM move")
	s.exec("pg2", "INSERT INTO parent VALUES (77)")
	s.exec("pg2", "COMMIT")
	s.release(worked)
	r := s.finish(tr, c)
	s.mustReport(r, aborted, "pg2", resource.Serialization, true)
	if !strings.Contains(r.Text, "prepare") || !strings.Contains(r.Text, "40001") {
		t.Errorf("reported %s", r.Text)
	}
	s.check()
}
