package postgres_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"assent/internal/pgcluster"
	"assent/internal/pgcluster/pgtest"
	"assent/resource"
	"assent/resource/postgres"
	"assent/resource/resourcetest"
)

const counters = "CREATE TABLE counter (key text PRIMARY KEY, n bigint NOT NULL)"

// store is one schema in a database, for the conformance suite.
type store struct {
	*postgres.Resource
	cluster *pgcluster.Cluster
	dsn     string
}

var databases atomic.Int64

func openStore(t *testing.T, c *pgcluster.Cluster, dsn string) *store {
	t.Helper()
	return &store{open(t, dsn, postgres.Config{}), c, dsn}
}

func open(t *testing.T, dsn string, cfg postgres.Config) *postgres.Resource {
	t.Helper()
	r, err := postgres.Open(t.Context(), dsn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func newDatabase(t *testing.T, c *pgcluster.Cluster, schema string) string {
	t.Helper()
	db := fmt.Sprintf("db%d", databases.Add(1))
	pgtest.Database(t, c, db, schema)
	return db
}

// The tests that leave the server as it is share one, and the conformance suite, which restarts
// it, comes last. Both deadlock on purpose; a short wait before the server looks for a deadlock
// saves time.
func TestPostgres(t *testing.T) {
	cluster := pgtest.Start(t, pgcluster.Options{Settings: map[string]string{"deadlock_timeout": "50ms"}})
	for _, c := range []struct {
		name string
		run  func(*testing.T, *pgcluster.Cluster)
	}{
		{"LostReplies", lostReplies},
		{"LatePrepare", latePrepare},
		{"FinishedByHand", finishedByHand},
		{"Hazards", hazards},
		{"PrepareRefused", prepareRefused},
		{"StatementErrors", statementErrors},
		{"WrongOwnerAndDatabase", wrongOwnerAndDatabase},
		{"UserEndsTheTransaction", userEndsTheTransaction},
		{"Savepoints", savepoints},
		{"ReadOnly", readOnly},
		{"RoundTrips", roundTrips},
		{"Work", work},
		{"OnePhaseBesideRows", onePhaseBesideRows},
		{"QueuedRoundTrips", queuedRoundTrips},
		{"QueuedAmongOthers", queuedAmongOthers},
		{"QueuedFails", queuedFails},
		{"QueuedAndCut", queuedAndCut},
		{"QueuedAndGone", queuedAndGone},
		{"QueuedEnd", queuedEnd},
		{"QueuedLocks", queuedLocks},
		{"QueuedWaits", queuedWaits},
		{"QueuedAndTraced", queuedAndTraced},
		{"QueuedUnprepared", queuedUnprepared},
		{"QueuedByName", queuedByName},
		{"QueuedTooLate", queuedTooLate},
		{"QueuedByOthers", queuedByOthers},
		{"QueuedPlans", queuedPlans},
		{"RefusedQuery", refusedQuery},
		{"ReplacedInVain", replacedInVain},
		{"ReusedID", reusedID},
		{"RollbackInterrupts", rollbackInterrupts},
		{"RollbackEndsAFirstStatement", rollbackEndsAFirstStatement},
		{"PrepareBesideAStatement", prepareBesideAStatement},
		{"OnePhaseBesideAStatement", onePhaseBesideAStatement},
		{"EveryCallKeepsItsContext", everyCallKeepsItsContext},
		{"DoomedBranches", doomedBranches},
		{"CloseBesideAStatement", closeBesideAStatement},
		{"HostileSchema", hostileSchema},
		{"Encodings", encodings},
		{"LongRow", longRow},
		{"IdleSessionIsSpared", idleSessionIsSpared},
		{"SessionIsReset", sessionIsReset},
		{"FinishingIsNotStarved", finishingIsNotStarved},
		{"CancelledAnywhere", cancelledAnywhere},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, cluster) })
	}
	t.Run("Conformance", func(t *testing.T) { resourcetest.Run(t, harness(cluster)) })
}

func harness(cluster *pgcluster.Cluster) resourcetest.Harness {
	add := func(ctx context.Context, b resource.Branch, key string, delta int64) error {
		_, err := b.(*postgres.Tx).Exec(ctx, "INSERT INTO counter VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET n = counter.n + $2", key, delta)
		return err
	}
	return resourcetest.Harness{
		Open: func(t *testing.T) resource.Resource {
			schema := fmt.Sprintf("s%d", databases.Add(1))
			exec(t, cluster, "", "CREATE SCHEMA "+schema+"; SET search_path = "+schema+"; "+counters)
			return openStore(t, cluster, cluster.DSN("")+" search_path="+schema)
		},
		Another: func(t *testing.T, r resource.Resource) resource.Resource {
			s := r.(*store)
			return openStore(t, s.cluster, s.dsn)
		},
		Crash: func(t *testing.T, r resource.Resource) resource.Resource {
			s := r.(*store)
			if err := s.cluster.Restart(t.Context(), pgcluster.Immediate); err != nil {
				t.Fatal(err)
			}
			return openStore(t, s.cluster, s.dsn)
		},
		Add: add,
		Get: func(ctx context.Context, b resource.Branch, key string) (n int64, err error) {
			err = b.(*postgres.Tx).QueryRow(ctx, "SELECT coalesce(sum(n), 0)::bigint FROM counter WHERE key = $1", key).Scan(&n)
			return n, err
		},
		Read: func(ctx context.Context, r resource.Resource, key string) (n int64, err error) {
			s := r.(*store)
			conn, err := pgx.Connect(ctx, s.dsn)
			if err != nil {
				return 0, err
			}
			defer conn.Close(context.Background())
			err = conn.QueryRow(ctx, "SELECT coalesce(sum(n), 0)::bigint FROM counter WHERE key = $1", key).Scan(&n)
			return n, err
		},
		Break: func(ctx context.Context, b resource.Branch) {
			_, _ = b.(*postgres.Tx).Exec(ctx, "SELECT 1/0")
		},
		Foreign: func(t *testing.T, r resource.Resource) string {
			s := r.(*store)
			exec(t, s.cluster, "", "BEGIN; CREATE TABLE foreigner (); PREPARE TRANSACTION 'someone else''s'")
			t.Cleanup(func() {
				_ = s.cluster.Exec(context.Background(), "", "ROLLBACK PREPARED 'someone else''s'")
			})
			return "someone else's"
		},
	}
}

func exec(t *testing.T, c *pgcluster.Cluster, db, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.Exec(ctx, db, sql); err != nil {
		t.Fatal(err)
	}
}
