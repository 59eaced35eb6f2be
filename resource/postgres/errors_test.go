package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"assent/internal/pgcluster"
	"assent/internal/pgcluster/pgtest"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/postgres"
)

var branches atomic.Int64

// newID returns an id that nobody has used.
func newID() resource.ID {
	return resource.ID{Owner: "test", Transaction: fmt.Sprint("t", branches.Add(1)), Branch: "shop"}
}

// fixture is one database with two tables, and a resource on it.
type fixture struct {
	*testing.T
	cluster *pgcluster.Cluster
	db      string
	r       *postgres.Resource
	ctx     context.Context
}

const shop = `CREATE TABLE item (id int PRIMARY KEY, n int NOT NULL CHECK (n >= 0));
INSERT INTO item SELECT i, 100 FROM generate_series(1, 9) AS i;
CREATE TABLE line (id int, item int REFERENCES item DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION take(i int) RETURNS int LANGUAGE sql AS 'UPDATE item SET n = n - 1 WHERE id = i RETURNING n'`

func newFixture(t *testing.T, c *pgcluster.Cluster, cfg postgres.Config) *fixture {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	db := newDatabase(t, c, shop)
	return &fixture{t, c, db, open(t, c.DSN(db), cfg), ctx}
}

func (f *fixture) begin(r *postgres.Resource) (*postgres.Tx, resource.ID) {
	f.Helper()
	id := newID()
	b, err := r.Begin(f.ctx, id)
	if err != nil {
		f.Fatal(err)
	}
	return b.(*postgres.Tx), id
}

func (f *fixture) exec(tx *postgres.Tx, sql string, args ...any) {
	f.Helper()
	if _, err := tx.Exec(f.ctx, sql, args...); err != nil {
		f.Fatalf("%s: %v", sql, err)
	}
}

// take makes a branch that takes one of item 1.
func (f *fixture) take(r *postgres.Resource) (*postgres.Tx, resource.ID) {
	f.Helper()
	tx, id := f.begin(r)
	f.exec(tx, "UPDATE item SET n = n - 1 WHERE id = $1", 1)
	return tx, id
}

func (f *fixture) prepared(r *postgres.Resource) (*postgres.Tx, resource.Prepared) {
	f.Helper()
	tx, id := f.take(r)
	vote, err := tx.Prepare(f.ctx)
	if err != nil || vote.Vote != commit.Yes {
		f.Fatalf("prepare: %v, %v", vote.Vote, err)
	}
	if len(vote.Evidence) == 0 {
		f.Fatal("a yes vote without evidence")
	}
	return tx, resource.Prepared{ID: id, Evidence: vote.Evidence}
}

func (f *fixture) outcome(want commit.Outcome) func(commit.Outcome, error) {
	return func(got commit.Outcome, err error) {
		f.Helper()
		if got != want || err != nil {
			f.Fatalf("the outcome is %v, %v; want %v", got, err, want)
		}
	}
}

// refuse expects a no vote with the code, and that nothing of the branch is left.
func (f *fixture) refuse(tx *postgres.Tx, code resource.Code) {
	f.Helper()
	vote, err := tx.Prepare(f.ctx)
	if vote.Vote != commit.No || resource.CodeOf(err) != code {
		f.Fatalf("prepare: %v, %v; want no with the code %q", vote.Vote, err, code)
	}
	f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	f.leaves(0)
}

// ask returns the one number that sql yields, outside any branch.
func (f *fixture) ask(sql string) (n int) {
	f.Helper()
	conn, err := f.cluster.Conn(f.ctx, f.db)
	if err != nil {
		f.Fatal(err)
	}
	defer conn.Close(f.ctx)
	if err := conn.QueryRow(f.ctx, sql).Scan(&n); err != nil {
		f.Fatal(err)
	}
	return n
}

// leaves checks the number of prepared transactions in the database.
func (f *fixture) leaves(want int) {
	f.Helper()
	if got := f.ask("SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"); got != want {
		f.Fatalf("%d transactions are prepared; want %d", got, want)
	}
}

func (f *fixture) items(want int) {
	f.Helper()
	if got := f.ask("SELECT n FROM item WHERE id = 1"); got != want {
		f.Fatalf("item 1: %d are left; want %d", got, want)
	}
}

// Each way in which PostgreSQL refuses to prepare has its code.
func prepareRefused(t *testing.T, cluster *pgcluster.Cluster) {
	cases := map[string]struct {
		code  resource.Code
		works []string
	}{
		"deferred constraint": {resource.Constraint, []string{"INSERT INTO line VALUES (1, 1000)"}},
		"temporary table":     {resource.Unsupported, []string{"CREATE TEMP TABLE x (n int)"}},
		"listen":              {resource.Unsupported, []string{"INSERT INTO line VALUES (1, 1)", "LISTEN x"}},
		"notify":              {resource.Unsupported, []string{"INSERT INTO line VALUES (1, 1)", "NOTIFY x"}},
		"cursor with hold":    {resource.Unsupported, []string{"INSERT INTO line VALUES (1, 1)", "DECLARE c CURSOR WITH HOLD FOR SELECT 1"}},
		"exported snapshot":   {resource.Unsupported, []string{"INSERT INTO line VALUES (1, 1)", "SELECT pg_export_snapshot()"}},
	}
	f := newFixture(t, cluster, postgres.Config{})
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := &fixture{t, f.cluster, f.db, f.r, f.ctx}
			tx, _ := f.begin(f.r)
			for _, sql := range c.works {
				f.exec(tx, sql)
			}
			f.refuse(tx, c.code)
			// The connection that goes back is as good as new.
			f.outcome(commit.RolledBack)(func() (commit.Outcome, error) {
				tx, _ := f.prepared(f.r)
				return tx.Rollback(f.ctx)
			}())
		})
	}
}

// A statement's error keeps its code, and the branch votes no and recalls it.
func statementErrors(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{LockTimeout: 100 * time.Millisecond, StatementTimeout: 5 * time.Second})
	for sql, code := range map[string]resource.Code{
		"UPDATE item SET n = n - $1":         resource.Constraint,
		"SELECT 1/($1::int - $1)":            resource.Invalid,
		"SELECT * FROM nothing WHERE n = $1": resource.Invalid,
		"SELECT pg_sleep($1)":                resource.LockTimeout, // statement_timeout
	} {
		first, _ := f.begin(f.r)
		second, _ := f.begin(f.r)
		f.exec(second, "SELECT 1")
		for _, tx := range []*postgres.Tx{first, second} { // with BEGIN, and after it
			if strings.Contains(sql, "pg_sleep") {
				f.exec(tx, "SET LOCAL statement_timeout = 20")
			}
			_, err := tx.Exec(f.ctx, sql, 1000)
			if resource.CodeOf(err) != code {
				f.Errorf("%s: got %v; want the code %q", sql, err, code)
			}
			vote, again := tx.Prepare(f.ctx)
			if vote.Vote != commit.No || resource.CodeOf(again) != resource.Broken || !errors.Is(again, err) {
				f.Errorf("%s: prepare: %v, %v; want no, broken, and the first error", sql, vote.Vote, again)
			}
			f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
		}
	}

	holder, _ := f.prepared(f.r)
	tx, _ := f.begin(f.r)
	if _, err := tx.Exec(f.ctx, "UPDATE item SET n = 1 WHERE id = $1", 1); resource.CodeOf(err) != resource.LockTimeout {
		f.Errorf("a wait for a prepared branch: %v; want a lock timeout", err)
	}
	f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	f.outcome(commit.RolledBack)(holder.Rollback(f.ctx))

	f.deadlock()
	f.serialization()
	f.lockWaitAtPrepare()
	f.leaves(0)
}

func (f *fixture) deadlock() {
	f.Helper()
	r := open(f.T, f.cluster.DSN(f.db), postgres.Config{})
	a, _ := f.begin(r)
	b, _ := f.begin(r)
	f.exec(a, "UPDATE item SET n = 1 WHERE id = $1", 1)
	f.exec(b, "UPDATE item SET n = 1 WHERE id = $1", 2)
	done := make(chan error)
	go func() {
		_, err := a.Exec(f.ctx, "UPDATE item SET n = 1 WHERE id = $1", 2)
		done <- err
	}()
	_, err := b.Exec(f.ctx, "UPDATE item SET n = 1 WHERE id = $1", 1)
	other := <-done
	if resource.CodeOf(err) != resource.Deadlock && resource.CodeOf(other) != resource.Deadlock {
		f.Errorf("deadlock: %v and %v; want one deadlock", err, other)
	}
	f.outcome(commit.RolledBack)(a.Rollback(f.ctx))
	f.outcome(commit.RolledBack)(b.Rollback(f.ctx))
}

// Write skew: of two serializable branches that each read what the other writes, one must fail,
// at a statement or at prepare.
func (f *fixture) serialization() {
	f.Helper()
	r := open(f.T, f.cluster.DSN(f.db), postgres.Config{Isolation: pgx.Serializable})
	a, _ := f.begin(r)
	b, _ := f.begin(r)
	for i, tx := range []*postgres.Tx{a, b} {
		f.exec(tx, "SELECT sum(n) FROM item WHERE id < $1", 1000)
		f.exec(tx, "UPDATE item SET n = 7 WHERE id = $1", 5+i)
	}
	if vote, err := a.Prepare(f.ctx); vote.Vote != commit.Yes {
		f.Errorf("the first: %v, %v", vote.Vote, err)
	}
	if vote, err := b.Prepare(f.ctx); vote.Vote != commit.No || resource.CodeOf(err) != resource.Serialization {
		f.Errorf("the second: %v, %v; want no, serialization", vote.Vote, err)
	}
	f.outcome(commit.RolledBack)(b.Rollback(f.ctx))
	f.outcome(commit.RolledBack)(a.Rollback(f.ctx))
}

// A deferred constraint may wait for a lock at prepare; the wait ends.
func (f *fixture) lockWaitAtPrepare() {
	f.Helper()
	holder, _ := f.begin(f.r)
	f.exec(holder, "DELETE FROM item WHERE id = $1", 9)
	tx, _ := f.begin(f.r)
	f.exec(tx, "INSERT INTO line VALUES (1, $1)", 9)
	vote, err := tx.Prepare(f.ctx)
	if vote.Vote != commit.No || resource.CodeOf(err) != resource.LockTimeout {
		f.Errorf("prepare: %v, %v; want no, lock timeout", vote.Vote, err)
	}
	f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	f.outcome(commit.RolledBack)(holder.Rollback(f.ctx))
}

// No slot, and no slots at all.
func TestCapacity(t *testing.T) {
	full := newFixture(t, pgtest.Start(t, pgcluster.Options{MaxPrepared: 1}), postgres.Config{})
	holder, _ := full.prepared(full.r)
	tx, _ := full.begin(full.r)
	full.exec(tx, "UPDATE item SET n = 1 WHERE id = $1", 2)
	vote, err := tx.Prepare(full.ctx)
	if vote.Vote != commit.No || resource.CodeOf(err) != resource.Capacity || !strings.Contains(resource.HintOf(err), "max_prepared_transactions") {
		t.Errorf("all slots taken: %v, %v, hint %q", vote.Vote, err, resource.HintOf(err))
	}
	full.outcome(commit.RolledBack)(tx.Rollback(full.ctx))
	reads, _ := full.begin(full.r)
	full.exec(reads, "SELECT n FROM item WHERE id = $1", 2)
	if vote, err := reads.Prepare(full.ctx); vote.Vote != commit.ReadOnly || err != nil {
		t.Errorf("a reader needs no slot: %v, %v", vote.Vote, err)
	}
	full.outcome(commit.Committed)(holder.Commit(full.ctx))

	off := newFixture(t, pgtest.Start(t, pgcluster.Options{MaxPrepared: -1}), postgres.Config{})
	tx, _ = off.take(off.r)
	off.refuse(tx, resource.Disabled)
	off.items(100)
	finding(t, off, "prepared transactions enabled", resource.Failure)
}

// The owner of a branch is who may finish it, and its database is where.
func wrongOwnerAndDatabase(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	exec(t, cluster, f.db, "CREATE ROLE clerk LOGIN; CREATE ROLE porter LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO clerk")
	clerk := open(t, cluster.DSNFor("clerk", f.db), postgres.Config{})
	porter := open(t, cluster.DSNFor("porter", f.db), postgres.Config{})
	elsewhere := open(t, cluster.DSN("postgres"), postgres.Config{})

	tx, p := f.prepared(clerk)
	for name, r := range map[string]*postgres.Resource{"another user": porter, "another database": elsewhere} {
		for _, call := range []func(context.Context, resource.Prepared) (commit.Outcome, error){r.Commit, r.Rollback} {
			if got, err := call(f.ctx, p); resource.CodeOf(err) != resource.Permission || resource.HintOf(err) == "" {
				t.Errorf("%s: %v, %v; want permission denied and a hint", name, got, err)
			}
		}
	}
	porterFixture := &fixture{t, cluster, f.db, porter, f.ctx}
	finding(t, porterFixture, "rights to finish branches", resource.Failure)
	if list, err := elsewhere.Recover(f.ctx); len(list) != 0 || err != nil {
		t.Errorf("another database lists %v, %v", list, err)
	}
	f.outcome(commit.Committed)(f.r.Commit(f.ctx, p)) // a superuser may
	f.outcome(commit.Committed)(tx.Commit(f.ctx))
	f.items(99)

	// A branch that changes its role is prepared under the role that will finish it.
	exec(t, cluster, f.db, "GRANT porter TO clerk; GRANT ALL ON item TO porter")
	tx, _ = f.begin(clerk)
	f.exec(tx, "SET LOCAL ROLE porter")
	f.exec(tx, "UPDATE item SET n = n - 1 WHERE id = $1", 1)
	if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.Yes {
		t.Fatalf("prepare under another role: %v, %v", vote.Vote, err)
	}
	f.outcome(commit.Committed)(tx.Commit(f.ctx))
}

func finding(t *testing.T, f *fixture, check string, want resource.Severity) {
	t.Helper()
	list, err := f.r.Doctor(f.ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range list {
		if found.Check == check {
			if found.Severity != want || want != resource.OK && found.Hint == "" {
				t.Errorf("doctor: %+v; want severity %v, and a hint unless it is ok", found, want)
			}
			return
		}
	}
	t.Errorf("the doctor does not look at %q", check)
}

func TestDoctorFindings(t *testing.T) {
	f := newFixture(t, pgtest.Start(t, pgcluster.Options{
		MaxPrepared: 4, Settings: map[string]string{"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"},
	}), postgres.Config{LockTimeout: -1})
	finding(t, f, "prepared transactions enabled", resource.Warning)
	finding(t, f, "fsync", resource.Failure)
	finding(t, f, "full_page_writes", resource.Warning)
	finding(t, f, "synchronous_commit", resource.Warning)
	finding(t, f, "timeouts", resource.Warning)
	finding(t, f, "room for prepared transactions", resource.OK)
	finding(t, f, "primary server", resource.OK)
	finding(t, f, "no pooler that pools transactions", resource.OK)
	for i := range 4 {
		tx, _ := f.begin(f.r)
		f.exec(tx, "UPDATE item SET n = 1 WHERE id = $1", i+1)
		if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.Yes {
			t.Fatal(vote, err)
		}
	}
	finding(t, f, "room for prepared transactions", resource.Failure)

	// A one-phase commit must not be lost in a crash, so its session waits for the log.
	tx, _ := f.begin(f.r)
	var setting string
	if err := tx.QueryRow(f.ctx, "SHOW synchronous_commit").Scan(&setting); err != nil || setting != "local" {
		t.Errorf("synchronous_commit in a branch is %q, %v; want local", setting, err)
	}
	f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
}
