package cutproxy_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"assent/internal/pgcluster"
	"assent/internal/pgcluster/cutproxy"
	"assent/internal/pgcluster/pgtest"
)

func TestCuts(t *testing.T) {
	cluster := pgtest.Start(t, pgcluster.Options{})
	dsn := pgtest.Database(t, cluster, "shop", "CREATE TABLE t (n text)")
	proxy, err := cutproxy.New(cluster.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	direct := connect(t, dsn)

	insert := func(value string, action cutproxy.Action) *cutproxy.Hit {
		t.Helper()
		conn := connect(t, proxy.DSN("postgres", "shop"))
		hit := proxy.On(value, action)
		if _, err := conn.Exec(ctx, "INSERT INTO t VALUES ($1)", "pass"); err != nil {
			t.Fatalf("a statement that does not match: %v", err)
		}
		if _, err := conn.Exec(ctx, "INSERT INTO t VALUES ('"+value+"')"); err == nil {
			t.Fatalf("%s: the client was not cut", value)
		}
		<-hit.Happened()
		return hit
	}
	has := func(value string) (n int) {
		t.Helper()
		if err := direct.QueryRow(ctx, "SELECT count(*) FROM t WHERE n = $1", value).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}

	insert("before", cutproxy.CutBefore)
	if n := has("before"); n != 0 {
		t.Errorf("cut before: %d rows, want 0", n)
	}
	insert("reply", cutproxy.CutReply)
	if n := has("reply"); n != 1 {
		t.Errorf("cut the reply: %d rows, want 1", n)
	}
	late := insert("late", cutproxy.CutLate)
	if n := has("late"); n != 0 {
		t.Errorf("late, before the delivery: %d rows, want 0", n)
	}
	if err := late.Deliver(ctx); err != nil {
		t.Fatal(err)
	}
	if n := has("late"); n != 1 {
		t.Errorf("late, after the delivery: %d rows, want 1", n)
	}
	if n := has("pass"); n != 3 {
		t.Errorf("%d rows passed, want 3", n)
	}

	proxy.Cut()
	if _, err := pgx.Connect(ctx, proxy.DSN("postgres", "shop")); err == nil {
		t.Error("the proxy was cut and a connection was made")
	}
	proxy.Heal()
	connect(t, proxy.DSN("postgres", "shop"))
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}
