// Package pgtest gives tests a private PostgreSQL cluster.
//
// It promises that the cluster is gone when the test is over. Where PostgreSQL is not installed
// the test is skipped, or fails if the environment variable ASSENT_REQUIRE_POSTGRES is 1.
package pgtest

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"assent/internal/pgcluster"
)

// Start makes and starts a cluster for t, and deletes it when t is over.
func Start(t testing.TB, opts pgcluster.Options) *pgcluster.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := pgcluster.New(ctx, opts)
	if errors.Is(err, pgcluster.ErrNotInstalled) && os.Getenv("ASSENT_REQUIRE_POSTGRES") != "1" {
		t.Skipf("%v; `make test` installs it", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("delete the cluster: %v", err)
		}
	})
	return c
}

// Database makes an empty database in c, runs the statements of schema in it, and returns its DSN.
func Database(t testing.TB, c *pgcluster.Cluster, name, schema string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dsn, err := c.CreateDatabase(ctx, name)
	if err == nil && schema != "" {
		err = c.Exec(ctx, name, schema)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dsn
}
