package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"assent/internal/pgcluster"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/postgres"
)

// until waits until the query, which counts something, counts something.
func (f *fixture) until(sql string) {
	f.Helper()
	for f.ask(sql) == 0 {
		if f.ctx.Err() != nil {
			f.Fatalf("it never happened: %s", sql)
		}
	}
}

const sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active'" +
	" AND datname = current_database() AND pid <> pg_backend_pid()"

// sleep has a statement run in tx, in another goroutine, until it is cancelled.
func (f *fixture) sleep(tx *postgres.Tx) (returned chan error) {
	f.Helper()
	returned = make(chan error, 1)
	go func() {
		_, err := tx.Exec(f.ctx, "SELECT pg_sleep($1)", 3000)
		returned <- err
	}()
	f.until(sleeping)
	return returned
}

// source is rows for CopyFrom that do not come before they are let go. No cancelling reaches it.
type source struct {
	asked, let chan struct{}
}

func newSource() *source { return &source{make(chan struct{}), make(chan struct{})} }

func (s *source) Next() bool {
	close(s.asked)
	<-s.let
	return false
}
func (s *source) Values() ([]any, error) { return nil, nil }
func (s *source) Err() error             { return nil }

// hang has a statement run in tx that does not return, whatever is cancelled, before it is let go.
func (f *fixture) hang(tx *postgres.Tx) (s *source, returned chan error) {
	f.Helper()
	s, returned = newSource(), make(chan error, 1)
	go func() {
		_, err := tx.CopyFrom(f.ctx, pgx.Identifier{"line"}, []string{"id", "item"}, s)
		returned <- err
	}()
	<-s.asked
	return s, returned
}

// A branch in which a statement runs is not prepared, and is told so at once.
func prepareBesideAStatement(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	tx, _ := f.take(f.r)
	returned := f.sleep(tx)
	vote, err := tx.Prepare(f.ctx)
	if vote.Vote != commit.No || resource.CodeOf(err) != resource.Invalid || resource.HintOf(err) == "" {
		t.Errorf("prepare beside a statement: %v, %v, hint %q", vote.Vote, err, resource.HintOf(err))
	}
	if f.ask(sleeping) != 1 {
		t.Error("prepare has waited for the statement, or ended it")
	}
	f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	if err := <-returned; err == nil {
		t.Error("the statement ran to its end")
	}
	f.leaves(0)
	f.items(100)
}

// To commit such a branch in one phase is to roll it back.
func onePhaseBesideAStatement(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	tx, _ := f.take(f.r)
	returned := f.sleep(tx)
	got, err := tx.CommitOnePhase(f.ctx)
	if got != commit.RolledBack || resource.CodeOf(err) != resource.Invalid {
		t.Errorf("one phase beside a statement: %v, %v; want rolled back, invalid", got, err)
	}
	if err := <-returned; err == nil {
		t.Error("the statement ran to its end")
	}
	f.items(100)

	tx, _ = f.take(f.r)
	s, returned := f.hang(tx)
	ctx, cancel := context.WithTimeout(f.ctx, 10*time.Millisecond)
	defer cancel()
	got, err = tx.CommitOnePhase(ctx)
	if got != commit.Hazard || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one phase beside a statement that hangs: %v, %v; want hazard and why", got, err)
	}
	close(s.let)
	<-returned
	f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	f.items(100)
}

// Rows that are open yet when a branch is committed in one phase are closed with it, and their owner may
// close them again.
func onePhaseBesideRows(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	for _, rest := range []func(tx *postgres.Tx){
		func(*postgres.Tx) {},
		func(tx *postgres.Tx) { tx.Queue(takeSQL, 1, 1) },
	} {
		for _, n := range []int{2, 1_000_000} { // all have arrived, or they have not
			tx, _ := f.take(f.r)
			rows, err := tx.Query(f.ctx, "SELECT generate_series(1, $1)", n)
			if err != nil || !rows.Next() {
				t.Fatal(err)
			}
			rest(tx)
			got, err := tx.CommitOnePhase(f.ctx)
			if got != commit.RolledBack || resource.CodeOf(err) != resource.Invalid || resource.HintOf(err) == "" {
				t.Errorf("one phase beside open rows: %v, %v; want rolled back, invalid", got, err)
			}
			if rows.Next() {
				t.Error("there are rows behind the end of the branch")
			}
			rows.Close()
			f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
			f.items(100)
		}
	}
}

// A statement that hangs keeps nobody for longer than a context allows.
func everyCallKeepsItsContext(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	tx, _ := f.take(f.r)
	s, returned := f.hang(tx)
	for name, call := range map[string]func(context.Context) error{
		"rollback": func(ctx context.Context) error { _, err := tx.Rollback(ctx); return err },
		"commit":   func(ctx context.Context) error { _, err := tx.Commit(ctx); return err },
		"exec":     func(ctx context.Context) error { _, err := tx.Exec(ctx, "SELECT 1"); return err },
		"query":    func(ctx context.Context) error { _, err := tx.Query(ctx, "SELECT 1"); return err },
		"batch":    func(ctx context.Context) error { return tx.SendBatch(ctx, &pgx.Batch{}) },
		"copy": func(ctx context.Context) error {
			_, err := tx.CopyFrom(ctx, pgx.Identifier{"line"}, []string{"id", "item"}, pgx.CopyFromRows(nil))
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(f.ctx, 10*time.Millisecond)
		err := call(ctx)
		cancel()
		if resource.CodeOf(err) != resource.Unavailable || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s beside a statement that hangs: %v; want unavailable, deadline exceeded", name, err)
		}
	}
	close(s.let)
	if err := <-returned; err == nil {
		t.Error("the cancelled statement succeeded")
	}
	if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.No || err == nil {
		t.Errorf("prepare after a rollback that was given up: %v, %v", vote.Vote, err)
	}
	f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	f.items(100)
}

// A statement that comes when the rollback has begun is not run, and one that did not get its turn
// has failed: without it the branch is not what its user means.
func doomedBranches(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	for _, begun := range []bool{false, true} {
		tx, _ := f.begin(f.r)
		if begun {
			f.exec(tx, "SELECT 1")
		}
		postgres.Interrupt(tx)
		if _, err := tx.Exec(f.ctx, "UPDATE item SET n = n - 1 WHERE id = $1", 1); resource.CodeOf(err) != resource.Broken {
			t.Errorf("a statement after the rollback began: %v; want broken", err)
		}
		if got, err := tx.CommitOnePhase(f.ctx); got != commit.RolledBack || resource.CodeOf(err) != resource.Broken {
			t.Errorf("one phase after the rollback began: %v, %v", got, err)
		}
	}

	tx, _ := f.take(f.r)
	s, returned := f.hang(tx)
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	if _, err := tx.Exec(ctx, "UPDATE item SET n = n - 1 WHERE id = $1", 2); !errors.Is(err, context.Canceled) {
		t.Errorf("a statement without its turn: %v", err)
	}
	close(s.let)
	if err := <-returned; err != nil {
		t.Fatal(err)
	}
	if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.No || resource.CodeOf(err) != resource.Broken {
		t.Errorf("prepare without a statement: %v, %v; want no, broken", vote.Vote, err)
	}
	f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	f.items(100)
}

// Close cancels what runs, and does not wait for ever for what cannot be cancelled.
func closeBesideAStatement(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	tx, _ := f.take(f.r)
	returned := f.sleep(tx)
	if err := f.r.Close(); err != nil {
		t.Errorf("close beside a statement: %v", err)
	}
	if err := <-returned; err == nil {
		t.Error("the statement ran to its end")
	}

	r := open(t, cluster.DSN(f.db), postgres.Config{})
	postgres.SetPatience(r, 20*time.Millisecond)
	tx, _ = f.take(r)
	s, returned := f.hang(tx)
	if err := r.Close(); resource.CodeOf(err) != resource.Unavailable {
		t.Errorf("close beside a statement that hangs: %v; want unavailable", err)
	}
	close(s.let)
	<-returned
	postgres.SetPatience(r, time.Minute)
	if err := r.Close(); err != nil {
		t.Errorf("close when the statement has returned: %v", err)
	}
	if n := r.Stats().WorkConns; n != 0 {
		t.Errorf("%d connections are left", n)
	}
	f.until("SELECT 1 - count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'")
}
