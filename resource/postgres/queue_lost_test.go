package postgres_test

import (
	"testing"

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
