package main

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"assent/api"
	"assent/decision"
	remotelog "assent/decision/remote"
	"assent/internal/pgcluster"
	"assent/internal/pgcluster/pgtest"
	"assent/internal/ports"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/postgres"
)

// TestApplicationOfItsOwn: an application that has its own connections uses the log of a cluster, and is gone
// while its branches are prepared. The cluster finishes them as was decided, or aborts them.
func TestApplicationOfItsOwn(t *testing.T) {
	dsn := pgtest.Database(t, pgtest.Start(t, pgcluster.Options{}), "orders", "CREATE TABLE t (i int PRIMARY KEY)")
	peers := ports.Address(t)
	secret := "a secret of the application"
	address := servedWith(t, func(c *config) {
		c.DataDir = filepath.Join(t.TempDir(), "data")
		c.Cluster = &clusterConfig{Name: "shop", Node: "a", Nodes: map[string]*nodeConfig{"a": {Address: peers}}}
		c.Resources = map[string]*resourceConfig{"orders": {Type: "postgres", DSN: dsn}}
		c.Tokens = []tokenConfig{{Name: "app", Env: "APP_TOKEN", Roles: []api.Role{api.RoleDecide}}, {Name: "other", Env: "OTHER_TOKEN", Roles: []api.Role{api.RoleBegin, api.RoleResolve}}}
	}, map[string]string{"APP_TOKEN": secret, "OTHER_TOKEN": "a secret of another one"})

	_, err := remotelog.Open(t.Context(), remotelog.Config{Servers: []string{address}, Token: "a secret of another one"})
	if resource.CodeOf(err) != resource.Permission {
		t.Errorf("with another role: got %v; want %v", err, resource.Permission)
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	log, err := remotelog.Open(t.Context(), remotelog.Config{Servers: []string{address}, Token: secret, Logger: quiet, Patience: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	orders, err := postgres.Open(t.Context(), dsn, postgres.Config{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer orders.Close()
	decided, undecided := commit.TransactionID(log.Prefix()+"-1"), commit.TransactionID(log.Prefix()+"-2")
	want := map[commit.TransactionID]commit.Decision{undecided: commit.Abort}
	for i, id := range []commit.TransactionID{decided, undecided} {
		evidence := prepareRow(t, orders, resource.ID{Owner: log.Owner(), Transaction: string(id), Branch: "orders"}, i)
		if id == decided {
			e := decision.Entry{ID: id, Decision: commit.Commit, By: "coordinator", Time: time.Now(), Branches: []decision.Branch{{Resource: "orders", Evidence: evidence}}}
			stands, err := log.Decide(t.Context(), e)
			if err != nil {
				t.Fatal(err)
			}
			want[id] = stands.Decision // commit, unless a busy machine took us for dead already
		}
	}
	if err := log.Close(); err != nil { // nobody hears of it any more
		t.Fatal(err)
	}
	began := time.Now()
	for {
		left, err := orders.Recover(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("prepared after a minute: %v", left)
		}
		time.Sleep(5 * time.Millisecond) // polling the database
	}
	t.Logf("finished %v after the last word", time.Since(began))
	again, err := remotelog.Open(t.Context(), remotelog.Config{Servers: []string{address}, Token: secret, Logger: quiet, Patience: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	for id, want := range want {
		if e, err := again.Lookup(context.Background(), id); err != nil || e.Decision != want {
			t.Errorf("%s: %v, %v; want %v", id, e.Decision, err, want)
		}
	}
}

// prepareRow prepares a branch that inserts i, and returns what its vote gave.
func prepareRow(t *testing.T, orders *postgres.Resource, id resource.ID, i int) []byte {
	t.Helper()
	b, err := orders.Begin(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.(*postgres.Tx).Exec(t.Context(), "INSERT INTO t VALUES ($1)", i); err != nil {
		t.Fatal(err)
	}
	vote, err := b.Prepare(t.Context())
	if err != nil || vote.Vote != commit.Yes {
		t.Fatalf("prepare: %v, %v", vote.Vote, err)
	}
	return vote.Evidence
}
