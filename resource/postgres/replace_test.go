package postgres_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"assent/internal/pgcluster"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/postgres"
)

// A branch whose connection turns out to be dead, and who cannot have another, fails with a reason, keeps no
// connection, is never prepared, and is rolled back when the database is there again.
func replacedInVain(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	for what, work := range map[string]func(*postgres.Tx) error{
		"exec": func(tx *postgres.Tx) error {
			_, err := tx.Exec(f.ctx, "UPDATE item SET n = n - 1 WHERE id = $1", 1)
			return err
		},
		"several statements": func(tx *postgres.Tx) error {
			_, err := tx.Exec(f.ctx, "UPDATE item SET n = n - 1 WHERE id = 1; SELECT 1")
			return err
		},
		"query": func(tx *postgres.Tx) error {
			_, err := tx.Query(f.ctx, "UPDATE item SET n = n - 1 WHERE id = $1 RETURNING n", 1)
			return err
		},
		"batch": func(tx *postgres.Tx) error {
			b := &pgx.Batch{}
			b.Queue("UPDATE item SET n = n - 1 WHERE id = 1")
			return tx.SendBatch(f.ctx, b)
		},
		"queue": func(tx *postgres.Tx) error {
			tx.Queue("UPDATE item SET n = n - 1 WHERE id = $1", 1)
			_, err := tx.Exec(f.ctx, "SELECT $1::int", 1)
			return err
		},
	} {
		proxy := newProxy(t, cluster)
		r := open(t, proxy.DSN(pgcluster.User, f.db), postgres.Config{MaxConns: 1})
		tx, _ := f.begin(r)
		proxy.Cut()
		if err := work(tx); resource.CodeOf(err) != resource.Unavailable {
			t.Errorf("%s: %v; want unavailable", what, err)
		}
		if err := work(tx); resource.CodeOf(err) != resource.Broken {
			t.Errorf("%s, again: %v; want broken", what, err)
		}
		if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.No || resource.CodeOf(err) != resource.Broken {
			t.Errorf("%s: prepare: %v, %v; want no, broken", what, vote.Vote, err)
		}
		if outcome, err := tx.Rollback(f.ctx); resource.CodeOf(err) != resource.Unavailable {
			t.Errorf("%s: rollback: %v, %v; want unavailable", what, outcome, err)
		}
		proxy.Heal()
		f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
		next, _ := f.take(r) // the pool has room for one connection
		f.outcome(commit.RolledBack)(next.Rollback(f.ctx))
	}
	f.items(100)
}

// A second branch of the same id would be rolled back by that id, and the first with it.
func reusedID(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	first, p := f.prepared(f.r)
	second, err := f.r.Begin(f.ctx, p.ID)
	if resource.CodeOf(err) != resource.Invalid || resource.HintOf(err) == "" {
		t.Errorf("begin again: %v, %v; want invalid, and a hint", second, err)
	}
	f.outcome(commit.Committed)(first.Commit(f.ctx))
	f.items(99)
	// What is over is in nobody's way, and does not make way for a third when it is asked again.
	again, err := f.r.Begin(f.ctx, p.ID)
	if err != nil {
		t.Fatal(err)
	}
	f.outcome(commit.Committed)(first.Commit(f.ctx))
	if third, err := f.r.Begin(f.ctx, p.ID); resource.CodeOf(err) != resource.Invalid {
		t.Errorf("begin a third time: %v, %v; want invalid", third, err)
	}
	f.outcome(commit.RolledBack)(again.Rollback(f.ctx))
}
