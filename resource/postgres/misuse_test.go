package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"assent/internal/pgcluster"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/postgres"
)

func scan(t *testing.T, text string, system, timeline *string, xid *uint64) {
	t.Helper()
	if _, err := fmt.Sscanf(text, "pg1 %s %s %d", system, timeline, xid); err != nil {
		t.Fatalf("evidence %q: %v", text, err)
	}
}

func evidence(system, timeline string, xid uint64) string {
	return fmt.Sprintf("pg1 %s %s %d", system, timeline, xid)
}

// Whoever ends the transaction, or begins another, by a statement is told, and the branch does not
// prepare. The outcome is what really happened.
func userEndsTheTransaction(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	left := 100
	for sql, want := range map[string]commit.Outcome{
		"COMMIT":                             commit.Committed,
		"END":                                commit.Committed,
		"ROLLBACK":                           commit.RolledBack,
		"COMMIT AND CHAIN":                   commit.Committed,
		"ROLLBACK AND CHAIN":                 commit.RolledBack,
		"COMMIT; BEGIN":                      commit.Committed,
		"ROLLBACK; BEGIN":                    commit.RolledBack,
		"SAVEPOINT a; ROLLBACK AND CHAIN":    commit.RolledBack,
		"ABORT; START TRANSACTION READ ONLY": commit.RolledBack,
		"BEGIN":                              commit.RolledBack,
	} {
		tx, _ := f.take(f.r)
		_, err := tx.Exec(f.ctx, sql)
		if resource.CodeOf(err) != resource.Invalid || !strings.Contains(resource.HintOf(err), "transaction manager") {
			t.Errorf("%s: %v, hint %q", sql, err, resource.HintOf(err))
		}
		if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.No || resource.CodeOf(err) != resource.Broken {
			t.Errorf("%s: prepare: %v, %v", sql, vote.Vote, err)
		}
		got, err := tx.Rollback(f.ctx)
		if got != want || err != nil {
			t.Errorf("%s: rollback: %v, %v; want %v", sql, got, err, want)
		}
		if want == commit.Committed {
			left--
		}
		f.items(left)
		f.leaves(0)
	}

	tx, id := f.take(f.r)
	_, err := tx.Exec(f.ctx, "PREPARE TRANSACTION '"+id.String()+"'")
	if resource.CodeOf(err) != resource.Invalid {
		t.Errorf("prepare by hand: %v", err)
	}
	f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	f.leaves(0)
	f.items(left)
}

// Savepoints are the caller's to use.
func savepoints(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	tx, _ := f.take(f.r)
	f.exec(tx, "SAVEPOINT a")
	if _, err := tx.Exec(f.ctx, "UPDATE item SET n = $1", -1); resource.CodeOf(err) != resource.Constraint {
		t.Fatalf("a constraint: %v", err)
	}
	f.exec(tx, "ROLLBACK TO a")
	if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.Yes {
		t.Fatalf("prepare: %v, %v", vote.Vote, err)
	}
	f.outcome(commit.Committed)(tx.Commit(f.ctx))
	f.items(99)
}

// A branch that wrote nothing takes no slot; one that wrote by a function, or only locked, does.
func readOnly(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	for sql, want := range map[string]commit.Vote{
		"SELECT n FROM item WHERE id = $1":            commit.ReadOnly,
		"UPDATE item SET n = 0 WHERE id = $1 + 1000":  commit.ReadOnly,
		"SELECT take($1)":                             commit.Yes,
		"SELECT n FROM item WHERE id = $1 FOR UPDATE": commit.Yes,
		"UPDATE item SET n = n - 1 WHERE id = $1":     commit.Yes,
	} {
		for _, late := range []bool{false, true} {
			tx, _ := f.begin(f.r)
			if late {
				f.exec(tx, "SELECT 1")
			}
			var n int
			if err := tx.QueryRow(f.ctx, sql, 1).Scan(&n); err != nil && err != pgx.ErrNoRows {
				t.Fatalf("%s: %v", sql, err)
			}
			vote, err := tx.Prepare(f.ctx)
			if vote.Vote != want || err != nil {
				t.Errorf("%s: %v, %v; want %v", sql, vote.Vote, err, want)
			}
			if want == commit.ReadOnly {
				f.leaves(0)
				f.outcome(commit.Committed)(tx.Commit(f.ctx))
			}
			f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
		}
	}
	f.items(100)
	tx, _ := f.begin(f.r)
	if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.ReadOnly || err != nil {
		t.Errorf("an empty branch: %v, %v", vote.Vote, err)
	}
}

// What each transaction costs in round trips is part of the promise.
func roundTrips(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	trips := func() uint64 { return f.r.Stats().RoundTrips }
	start := trips()
	tx, _ := f.prepared(f.r)
	f.outcome(commit.Committed)(tx.Commit(f.ctx))
	if n := trips() - start; n != 3 {
		t.Errorf("update, prepare, commit: %d round trips; want 3", n)
	}
	start = trips()
	tx, _ = f.take(f.r)
	f.outcome(commit.Committed)(tx.CommitOnePhase(f.ctx))
	if n := trips() - start; n != 2 {
		t.Errorf("update, commit: %d round trips; want 2", n)
	}
}

// Work in all its forms.
func work(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	for _, begun := range []bool{false, true} {
		tx, _ := f.begin(f.r)
		if begun {
			f.exec(tx, "SELECT 1")
		}
		rows, err := tx.Query(f.ctx, "SELECT id FROM item WHERE id <= $1 ORDER BY id", 3)
		if err != nil {
			t.Fatal(err)
		}
		if rows.Conn() != nil {
			t.Error("the rows give the connection away")
		}
		if _, err := tx.Exec(f.ctx, "SELECT 1"); resource.CodeOf(err) != resource.Invalid {
			t.Errorf("a statement while rows are open: %v", err)
		}
		if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.No || resource.CodeOf(err) != resource.Invalid {
			t.Errorf("prepare while rows are open: %v, %v", vote.Vote, err)
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil || len(ids) != 3 {
			t.Fatalf("query: %v, %v", ids, err)
		}
		if columns := rows.FieldDescriptions(); len(columns) != 1 || columns[0].Name != "id" || rows.CommandTag().RowsAffected() != 3 {
			t.Errorf("closed rows: %v, %v", columns, rows.CommandTag())
		}
		if n, err := tx.CopyFrom(f.ctx, pgx.Identifier{"line"}, []string{"id", "item"}, pgx.CopyFromRows([][]any{{1, 1}, {2, 2}})); n != 2 || err != nil {
			t.Fatalf("copy: %d, %v", n, err)
		}
		b, sum := &pgx.Batch{}, 0
		b.Queue("UPDATE item SET n = n - 1 WHERE id = $1", 1)
		b.Queue("SELECT sum(item) FROM line").QueryRow(func(row pgx.Row) error { return row.Scan(&sum) })
		if err := tx.SendBatch(f.ctx, b); err != nil || sum != 3 {
			t.Fatalf("batch: %d, %v", sum, err)
		}
		bad := &pgx.Batch{}
		bad.Queue("/* a /* nested */ comment */ -- and\n ; commit")
		if err := tx.SendBatch(f.ctx, bad); resource.CodeOf(err) != resource.Invalid {
			t.Fatalf("a batch that commits: %v", err)
		}
		if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.Yes {
			t.Fatalf("prepare: %v, %v", vote.Vote, err)
		}
		if _, err := tx.Exec(f.ctx, "SELECT 1"); resource.CodeOf(err) != resource.Invalid {
			t.Errorf("a statement in a prepared branch: %v", err)
		}
		f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	}
	f.items(100)
}

// Rollback from another goroutine cancels what runs, and open rows do not stop it.
func rollbackInterrupts(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	tx, _ := f.take(f.r)
	running := f.sleep(tx)
	f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	if err := <-running; err == nil {
		t.Error("the statement ran to its end")
	}
	f.items(100)

	tx, _ = f.take(f.r)
	rows, err := tx.Query(f.ctx, "SELECT generate_series(1, 100000)")
	if err != nil || !rows.Next() {
		t.Fatal(err)
	}
	f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	if rows.Next() || rows.Err() == nil {
		t.Errorf("rows after the rollback: %v", rows.Err())
	}
	rows.Close()
}

// A query that the server refuses is an error, whether BEGIN travels with it or not.
func refusedQuery(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	for _, begun := range []bool{false, true} {
		for sql, args := range map[string][]any{"SELEKT": nil, "SELECT nothing($1)": {1}} {
			tx, _ := f.begin(f.r)
			if begun {
				f.exec(tx, "SELECT 1")
			}
			rows, err := tx.Query(f.ctx, sql, args...)
			if err == nil || rows.Next() || rows.Err() == nil || rows.FieldDescriptions() != nil {
				t.Errorf("%s: %v, %v", sql, err, rows.Err())
			}
			rows.Close()
			f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
		}
	}
}

// A branch's first statement may hold on to its session although it was cancelled, and then the
// branch's lock is not held yet. Rolled back means that the session is in the branch no more.
func rollbackEndsAFirstStatement(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	exec(t, f.cluster, f.db, `CREATE FUNCTION stubborn(seconds int) RETURNS void LANGUAGE plpgsql AS $$
		BEGIN PERFORM pg_sleep(seconds); EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(seconds); END $$`)
	const inside = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%stubborn($1)%' AND state = 'active'" +
		" AND datname = current_database() AND pid <> pg_backend_pid()"
	tx, _ := f.begin(f.r)
	running := make(chan error)
	go func() {
		_, err := tx.Exec(f.ctx, "SELECT stubborn($1)", 3000)
		running <- err
	}()
	f.until(inside)
	f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	if n := f.ask(inside); n != 0 {
		t.Error("the branch is rolled back, and its session is at its work")
	}
	if err := <-running; err == nil {
		t.Error("the statement ran to its end")
	}
	next, _ := f.take(f.r)
	f.outcome(commit.RolledBack)(next.Rollback(f.ctx))
}

// What a branch sets in its session is gone when the next branch gets the session.
func sessionIsReset(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{MaxConns: 1})
	exec(t, f.cluster, f.db, "CREATE ROLE visitor")
	for _, sql := range []string{"SET search_path = nowhere", "SET ROLE visitor", "SET lock_timeout = 1", "DEALLOCATE ALL", "PREPARE x AS SELECT 1"} {
		tx, _ := f.begin(f.r)
		f.exec(tx, sql)
		f.outcome(commit.Committed)(tx.CommitOnePhase(f.ctx))
		next, _ := f.take(f.r)
		var role, timeout string
		if err := next.QueryRow(f.ctx, "SELECT current_user, current_setting('lock_timeout')").Scan(&role, &timeout); err != nil {
			t.Fatalf("after %s: %v", sql, err)
		}
		if role != pgcluster.User || timeout != "5s" {
			t.Errorf("after %s: role %s, lock_timeout %s", sql, role, timeout)
		}
		f.outcome(commit.RolledBack)(next.Rollback(f.ctx))
	}
}

// Where nobody listens, the hint is to see to that; a call that is given up before it connects has no such hint.
func TestNobodyListens(t *testing.T) {
	for what, dsn := range map[string]string{
		"a port":          "host=127.0.0.1 port=1 user=app sslmode=disable",
		"a port, and TLS": "host=127.0.0.1 port=1 user=app sslmode=prefer",
		"a socket's file": "host=/nonexistent user=app",
	} {
		r := open(t, dsn, postgres.Config{})
		_, err := r.Begin(t.Context(), newID())
		if resource.CodeOf(err) != resource.Unavailable || !strings.Contains(resource.HintOf(err), "listens at that address") {
			t.Errorf("%s: %v, hint %q; want unavailable and to see who listens", what, err, resource.HintOf(err))
		}
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err = r.Begin(cancelled, newID()); err == nil || resource.HintOf(err) != "" {
			t.Errorf("%s, given up: %v, hint %q; want no hint", what, err, resource.HintOf(err))
		}
	}
}

// Nothing of a connection string gets into an error.
func TestOpenRefuses(t *testing.T) {
	for _, dsn := range []string{
		"postgres://u:hunter2@host:port/db", "host=x password=hunter2 port=none", "postgres://u:hunter2@[::1/db",
		"host=x password=hunter2 sslmode=maybe", "password='hunter2", "postgres://u:hunter2@h/db?pool_max_conns=x",
	} {
		_, err := postgres.Open(t.Context(), dsn, postgres.Config{})
		if resource.CodeOf(err) != resource.Invalid || strings.Contains(fmt.Sprintf("%+v", err), "hunter2") {
			t.Errorf("%q: got %v", dsn, err)
		}
	}
	for _, cfg := range []postgres.Config{{MaxConns: -1}, {ConnectTimeout: -1}, {Isolation: "very"}} {
		if _, err := postgres.Open(t.Context(), "host=x", cfg); resource.CodeOf(err) != resource.Invalid {
			t.Errorf("%+v: got %v", cfg, err)
		}
	}
	// A database that is down is no reason to refuse.
	r := open(t, "host=/nonexistent user=u password=hunter2", postgres.Config{})
	_, err := r.Begin(t.Context(), newID())
	if resource.CodeOf(err) != resource.Unavailable || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("begin without a server: %v", err)
	}
}

// Branches that hold every connection for work do not keep others from being finished.
func finishingIsNotStarved(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{MaxConns: 1})
	other := open(t, f.cluster.DSN(f.db), postgres.Config{})
	_, p := f.prepared(other)
	held, _ := f.begin(f.r)
	f.exec(held, "UPDATE item SET n = 1 WHERE id = $1", 2)
	f.outcome(commit.Committed)(f.r.Commit(f.ctx, p))
	f.outcome(commit.RolledBack)(held.Rollback(f.ctx))
}
