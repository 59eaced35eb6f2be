package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"assent"
	"assent/internal/pgcluster"
	"assent/internal/pgcluster/pgtest"
	"assent/resource"
)

const accounts = `CREATE TABLE accounts (name text PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0));`

type fixture struct {
	t        *testing.T
	cluster  *pgcluster.Cluster
	from, to string
	log      string
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{t: t, cluster: pgtest.Start(t, pgcluster.Options{}), log: filepath.Join(t.TempDir(), "decisions")}
	f.from = pgtest.Database(t, f.cluster, "north", accounts+`INSERT INTO accounts VALUES ('alice', 100)`)
	f.to = pgtest.Database(t, f.cluster, "south", accounts+`INSERT INTO accounts VALUES ('bob', 0)`)
	return f
}

func (f *fixture) run(arguments ...string) (string, error) {
	var out bytes.Buffer
	err := run(f.t.Context(), &out, append([]string{"-from", f.from, "-to", f.to, "-log", f.log}, arguments...))
	return out.String(), err
}

// check checks the balances, and that nothing is in doubt.
func (f *fixture) check(alice, bob int64) {
	f.t.Helper()
	for _, q := range []struct {
		database, query string
		want            int64
	}{
		{"north", `SELECT balance FROM accounts WHERE name = 'alice'`, alice},
		{"south", `SELECT balance FROM accounts WHERE name = 'bob'`, bob},
		{"north", `SELECT count(*) FROM pg_prepared_xacts`, 0},
	} {
		conn, err := f.cluster.Conn(f.t.Context(), q.database)
		if err != nil {
			f.t.Fatal(err)
		}
		var got int64
		if err := conn.QueryRow(f.t.Context(), q.query).Scan(&got); err != nil || got != q.want {
			f.t.Errorf("%s in %s: %d, %v; want %d", q.query, q.database, got, err, q.want)
		}
		if err := conn.Close(f.t.Context()); err != nil {
			f.t.Error(err)
		}
	}
}

func TestTransfer(t *testing.T) {
	f := newFixture(t)
	out, err := f.run("alice", "bob", "30")
	if err != nil || out != "moved 30 from alice to bob\n" {
		t.Errorf("transfer: %q, %v", out, err)
	}
	f.check(70, 30)

	// A balance may not be negative: the payer's database refuses.
	_, err = f.run("alice", "bob", "71")
	if !errors.Is(err, assent.ErrAborted) || resource.CodeOf(err) != resource.Constraint {
		t.Errorf("too much: %v", err)
	}
	// The payee is not there: what was taken from the payer is given back.
	_, err = f.run("alice", "nobody", "10")
	if !errors.Is(err, assent.ErrAborted) || !errors.Is(err, errNoAccount) || !strings.HasPrefix(err.Error(), "nothing was moved: ") {
		t.Errorf("no payee: %v", err)
	}
	f.check(70, 30)

	for _, wrong := range [][]string{{"alice", "bob"}, {"alice", "bob", "-5"}, {"alice", "bob", "much"}} {
		if _, err := f.run(wrong...); err == nil {
			t.Errorf("%v is accepted", wrong)
		}
	}
}

func TestConcurrentTransfers(t *testing.T) {
	f := newFixture(t)
	b, err := open(t.Context(), f.log, f.from, f.to)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 5 {
				if err := b.transfer(t.Context(), "alice", "bob", 2); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if err := b.close(); err != nil {
		t.Error(err)
	}
	f.check(20, 80)
}

// TestUnreachable transfers while the databases are down: nothing happens, and later all is well.
func TestUnreachable(t *testing.T) {
	f := newFixture(t)
	f.cluster.Kill()
	if _, err := f.run("alice", "bob", "30"); !errors.Is(err, assent.ErrAborted) || resource.CodeOf(err) != resource.Unavailable {
		t.Errorf("while the databases are down: %v", err)
	}
	if err := f.cluster.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.check(100, 0)
	if _, err := f.run("alice", "bob", "30"); err != nil {
		t.Error(err)
	}
	f.check(70, 30)
}

// TestInterrupted presses Ctrl-C while the transfer waits for an account that somebody else holds.
func TestInterrupted(t *testing.T) {
	f := newFixture(t)
	holder, err := f.cluster.Conn(t.Context(), "south")
	if err != nil {
		t.Fatal(err)
	}
	hold := func(sql string) {
		t.Helper()
		if _, err := holder.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	hold(`BEGIN; UPDATE accounts SET balance = balance WHERE name = 'bob'`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, io.Discard, []string{"-from", f.from, "-to", f.to, "-log", f.log, "alice", "bob", "30"})
	}()
	watcher, err := f.cluster.Conn(t.Context(), "south")
	if err != nil {
		t.Fatal(err)
	}
	for waiting := 0; waiting == 0; {
		const query = `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'`
		if err := watcher.QueryRow(t.Context(), query).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, assent.ErrAborted) {
		t.Errorf("interrupted: %v", err)
	}
	hold(`ROLLBACK`)
	if err := errors.Join(holder.Close(t.Context()), watcher.Close(t.Context())); err != nil {
		t.Error(err)
	}
	f.check(100, 0)
}
