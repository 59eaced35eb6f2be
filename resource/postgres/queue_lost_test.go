package postgres_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"assent/internal/pgcluster"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/postgres"
)

// A branch that has lost its session says no, whatever is queued in it.
func queuedAndGone(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	exec(t, cluster, f.db, "CREATE FUNCTION ended(n int) RETURNS int LANGUAGE sql AS 'SELECT 1 FROM (SELECT pg_terminate_backend(pg_backend_pid())) AS x'")
	whileRead := func() *postgres.Tx {
		tx, _ := f.take(f.r)
		rows, err := tx.Query(f.ctx, "SELECT CASE WHEN n <> 600 THEN repeat('x', 1000) ELSE ended(n)::text END FROM generate_series(1, 900) AS n")
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() { // nobody asks for its error
			tx.Queue(takeSQL, 1, 1)
		}
		return tx
	}
	byClose := func() *postgres.Tx {
		r := open(t, cluster.DSN(f.db), postgres.Config{})
		tx, _ := f.queued(r)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		return tx
	}
	for when, lose := range map[string]func() *postgres.Tx{"while rows are read": whileRead, "by Close": byClose} {
		tx := lose()
		if tx.StartPrepare(f.ctx) != nil {
			t.Errorf("lost %s: a branch whose session is gone starts to prepare", when)
		}
		if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.No || resource.CodeOf(err) != resource.Broken {
			t.Errorf("lost %s: prepare: %v, %v; want no, broken", when, vote.Vote, err)
		}
	}
	if outcome, err := whileRead().CommitOnePhase(f.ctx); outcome != commit.RolledBack || resource.CodeOf(err) != resource.Broken {
		t.Errorf("one phase: %v, %v; want rolled back, broken", outcome, err)
	}
	// Nothing is proven without the resource.
	if outcome, err := byClose().CommitOnePhase(f.ctx); outcome != commit.Hazard || err == nil {
		t.Errorf("one phase of a closed resource: %v, %v; want hazard, and why", outcome, err)
	}
	f.items(100)
}

// A queued statement that ends the transaction, should one be let through, is not taken for a clean
// rollback by the answer to the PREPARE behind it: the transaction's number says what it did.
func queuedEnd(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	left := 100
	for _, c := range []struct {
		sql  string
		want commit.Outcome
	}{
		{"COMMIT", commit.Committed},
		{"COMMIT AND CHAIN", commit.Committed},
		{"ROLLBACK", commit.RolledBack},
		{"ROLLBACK AND CHAIN", commit.RolledBack},
	} {
		for _, begun := range []bool{false, true} {
			tx, _ := f.begin(f.r)
			if begun {
				f.exec(tx, "SELECT $1::int", 1)
			}
			tx.Queue(takeSQL, 1, 1).Exec(one)
			postgres.QueueAnything(tx, c.sql)
			vote, err := tx.Prepare(f.ctx)
			if vote.Vote != commit.No || resource.CodeOf(err) != resource.Invalid || !strings.Contains(resource.HintOf(err), "transaction manager") {
				t.Errorf("%s, begun %v: prepare: %v, %v; want no, invalid", c.sql, begun, vote.Vote, err)
			}
			if got, err := tx.Rollback(f.ctx); got != c.want || err != nil {
				t.Errorf("%s, begun %v: rollback: %v, %v; want %v", c.sql, begun, got, err, c.want)
			}
			if c.want == commit.Committed {
				left--
			}
			f.leaves(0)
			f.items(left)
		}
	}
}

// What travels with PREPARE waits for a lock no longer than three quarters of what PREPARE has, or for less where
// the session says so.
func queuedLocks(t *testing.T, cluster *pgcluster.Cluster) {
	for _, c := range []struct {
		own         time.Duration
		least, most string
	}{
		{0, "5 s", "5 s"}, // the default
		{time.Second, "1 s", "1 s"},
		{time.Hour, "1 ms", "23 min"},
		{-1, "1 ms", "23 min"},
	} {
		f := newFixture(t, cluster, postgres.Config{LockTimeout: c.own})
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
		defer cancel()
		tx, _ := f.begin(f.r)
		tx.Queue("SELECT 1 / (current_setting('lock_timeout')::interval BETWEEN $1::text::interval AND $2::text::interval)::int", c.least, c.most)
		if vote, err := tx.Prepare(ctx); vote.Vote != commit.Yes {
			t.Errorf("%v: prepare: %v, %v", c.own, vote.Vote, err)
		}
		f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	}
}

// StartPrepare does not wait: not for statements that pgx has to prepare again, and not for the server to
// read what it writes. Prepare does.
func queuedWaits(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{MaxConns: 1})
	starts := func(name string, want bool, text any) {
		t.Helper()
		tx, _ := f.queued(f.r)
		tx.Queue("SELECT length($1::text)", text)
		answer := tx.StartPrepare(f.ctx)
		if (answer != nil) != want {
			t.Errorf("%s: PREPARE is started: %v; want %v", name, answer != nil, want)
		}
		if answer == nil {
			answer = func() (resource.Vote, error) { return tx.Prepare(f.ctx) }
		}
		if vote, err := answer(); vote.Vote != commit.Yes || err != nil || len(vote.Evidence) == 0 {
			t.Fatalf("%s: prepare: %+v, %v", name, vote, err)
		}
		f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	}
	long, now := strings.Repeat("x", 40_000), "now"
	starts("new statements", false, "")
	starts("known ones", true, "")
	starts("a pointer", true, &now)
	starts("a long text", false, long)
	starts("a long text behind a pointer", false, &long)
	starts("a short one after it", true, "")
	tx, _ := f.begin(f.r)
	tx.Queue(takeSQL, 1, 1000)
	if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.No {
		t.Fatalf("prepare: %v, %v", vote.Vote, err)
	}
	f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	starts("after an error", false, "")
	starts("once more", true, "")
	f.items(100)
}
