package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"assent/internal/pgcluster"
	"assent/internal/pgcluster/cutproxy"
	"assent/internal/pgcluster/pgtest"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/postgres"
)

func newProxy(t *testing.T, c *pgcluster.Cluster) *cutproxy.Proxy {
	t.Helper()
	p, err := cutproxy.New(c.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// Connections are cut at each statement that matters, before the server sees it and after it has
// answered. Whatever happened is found out.
func lostReplies(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	proxy := newProxy(t, cluster)
	r := open(t, proxy.DSN(pgcluster.User, f.db), postgres.Config{})
	left := 100

	for _, action := range []cutproxy.Action{cutproxy.CutBefore, cutproxy.CutReply} {
		// PREPARE: an error stands for no, and Rollback leaves nothing.
		tx, _ := f.take(r)
		hit := proxy.On("PREPARE TRANSACTION", action)
		vote, err := tx.Prepare(f.ctx)
		if vote.Vote != commit.No || resource.CodeOf(err) != resource.Unavailable {
			t.Fatalf("prepare: %v, %v; want no, unavailable", vote.Vote, err)
		}
		<-hit.Happened()
		f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
		f.leaves(0)
		f.items(left)

		// COMMIT PREPARED and ROLLBACK PREPARED: the call itself finds out.
		tx, _ = f.prepared(r)
		hit = proxy.On("COMMIT PREPARED", action)
		f.outcome(commit.Committed)(tx.Commit(f.ctx))
		<-hit.Happened()
		left--
		f.leaves(0)
		f.items(left)

		tx, _ = f.prepared(r)
		hit = proxy.On("ROLLBACK PREPARED", action)
		f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
		<-hit.Happened()
		f.leaves(0)
		f.items(left)

		// By id: an error, and the repeated call finds out.
		_, p := f.prepared(r)
		hit = proxy.On("COMMIT PREPARED", action)
		if got, err := r.Commit(f.ctx, p); resource.CodeOf(err) != resource.Unavailable {
			t.Fatalf("commit by id: %v, %v; want unavailable", got, err)
		}
		<-hit.Happened()
		f.outcome(commit.Committed)(r.Commit(f.ctx, p))
		left--
		f.items(left)

		// COMMIT in one phase.
		tx, _ = f.take(r)
		hit = proxy.On("COMMIT", action)
		got, err := tx.CommitOnePhase(f.ctx)
		<-hit.Happened()
		if action == cutproxy.CutBefore {
			if got != commit.RolledBack || err == nil {
				t.Fatalf("one phase, cut before: %v, %v; want rolled back and why", got, err)
			}
		} else {
			f.outcome(commit.Committed)(got, err)
			left--
		}
		f.items(left)

		// ROLLBACK of an open branch.
		tx, _ = f.take(r)
		hit = proxy.On("ROLLBACK", action)
		f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
		<-hit.Happened()
		f.items(left)
	}
}

// A PREPARE that the network holds back must not prepare after the rollback has been answered,
// whether the rollback comes from the branch or, by id alone, from another process.
func latePrepare(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	proxy := newProxy(t, cluster)
	r := open(t, proxy.DSN(pgcluster.User, f.db), postgres.Config{})
	for name, rollback := range map[string]func(*postgres.Tx, resource.ID) (commit.Outcome, error){
		"by the branch": func(tx *postgres.Tx, _ resource.ID) (commit.Outcome, error) { return tx.Rollback(f.ctx) },
		"by id": func(_ *postgres.Tx, id resource.ID) (commit.Outcome, error) {
			return f.r.Rollback(f.ctx, resource.Prepared{ID: id})
		},
	} {
		tx, id := f.take(r)
		late := proxy.On("PREPARE TRANSACTION", cutproxy.CutLate)
		if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.No || err == nil {
			t.Fatalf("%s: prepare: %v, %v", name, vote.Vote, err)
		}
		<-late.Happened()
		if f.ask("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND datname = current_database()") != 1 {
			t.Fatalf("%s: the server has noticed the cut; the test shows nothing", name)
		}
		f.outcome(commit.RolledBack)(rollback(tx, id))
		if err := late.Deliver(f.ctx); err != nil {
			t.Fatal(err)
		}
		f.leaves(0)
		f.items(100)

		// Delivered before the rollback, it prepares, and is rolled back.
		tx, id = f.take(r)
		late = proxy.On("PREPARE TRANSACTION", cutproxy.CutLate)
		if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.No || err == nil {
			t.Fatalf("%s: prepare: %v, %v", name, vote.Vote, err)
		}
		<-late.Happened()
		if err := late.Deliver(f.ctx); err != nil {
			t.Fatal(err)
		}
		f.leaves(1)
		f.outcome(commit.RolledBack)(rollback(tx, id))
		f.leaves(0)
		f.items(100)
	}
}

// Somebody finishes the branch by hand, with the decision or against it; both are found out.
func finishedByHand(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	for sql, want := range map[string]commit.Outcome{"COMMIT": commit.Committed, "ROLLBACK": commit.RolledBack} {
		for _, byID := range []bool{false, true} {
			for _, op := range []string{"commit", "rollback"} {
				tx, p := f.prepared(f.r)
				exec(t, f.cluster, f.db, sql+" PREPARED '"+p.ID.String()+"'")
				switch {
				case byID && op == "commit":
					f.outcome(want)(f.r.Commit(f.ctx, p))
				case byID:
					f.outcome(want)(f.r.Rollback(f.ctx, p))
				case op == "commit":
					f.outcome(want)(tx.Commit(f.ctx))
				default:
					f.outcome(want)(tx.Rollback(f.ctx))
				}
			}
		}
	}
}

// What evidence cannot prove is a hazard, and is never taken for done.
func hazards(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	tx, p := f.prepared(f.r)
	f.outcome(commit.Committed)(tx.Commit(f.ctx))
	var system, timeline string
	var xid uint64
	scan(t, string(p.Evidence), &system, &timeline, &xid)
	for name, e := range map[string]string{
		"no evidence":        "",
		"unreadable":         "something else",
		"another cluster":    evidence("1", timeline, xid),
		"another timeline":   evidence(system, "00000009", xid),
		"a number to come":   evidence(system, timeline, xid+1_000_000),
		"a number long gone": evidence(system, timeline, 1<<33),
	} {
		got, err := f.r.Commit(f.ctx, resource.Prepared{ID: p.ID, Evidence: []byte(e)})
		if got != commit.Hazard || err != nil {
			t.Errorf("%s: %v, %v; want hazard", name, got, err)
		}
	}
	f.outcome(commit.Committed)(f.r.Commit(f.ctx, p))
	f.outcome(commit.Committed)(f.r.Rollback(f.ctx, p))

	// The same branch looked for in a cluster that never had it.
	other := newFixture(t, pgtest.Start(t, pgcluster.Options{}), postgres.Config{})
	if got, err := other.r.Commit(f.ctx, p); got != commit.Hazard || err != nil {
		t.Errorf("another cluster: %v, %v; want hazard", got, err)
	}
}

// The server dies between prepare and commit, and comes back.
func TestServerDies(t *testing.T) {
	cluster := pgtest.Start(t, pgcluster.Options{})
	f := newFixture(t, cluster, postgres.Config{ConnectTimeout: 20 * time.Second})
	c, _ := f.prepared(f.r)
	onID, _ := f.begin(f.r)
	f.exec(onID, "UPDATE item SET n = 7 WHERE id = $1", 2)
	vote, err := onID.Prepare(f.ctx)
	if err != nil {
		t.Fatal(err)
	}
	p := resource.Prepared{ID: onID.ID(), Evidence: vote.Evidence}
	active, _ := f.begin(f.r)
	f.exec(active, "UPDATE item SET n = 7 WHERE id = $1", 3)
	idle, _ := f.begin(f.r)

	if err := cluster.Stop(pgcluster.Immediate); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := c.Commit(f.ctx); resource.CodeOf(err) != resource.Unavailable {
			t.Fatalf("commit while the server is down: %v, %v; want unavailable", got, err)
		}
	}
	if vote, err := active.Prepare(f.ctx); vote.Vote != commit.No || err == nil {
		t.Fatalf("prepare while the server is down: %v, %v", vote.Vote, err)
	}
	if _, err := f.r.Begin(f.ctx, newID()); resource.CodeOf(err) != resource.Unavailable {
		t.Fatalf("begin while the server is down: %v", err)
	}
	if _, err := f.r.Recover(f.ctx); resource.CodeOf(err) != resource.Unavailable {
		t.Fatalf("recover while the server is down: %v", err)
	}
	down := open(t, cluster.DSN(f.db), postgres.Config{}) // succeeds

	if err := cluster.Start(f.ctx); err != nil {
		t.Fatal(err)
	}
	f.outcome(commit.Committed)(c.Commit(f.ctx))
	f.outcome(commit.Committed)(down.Commit(f.ctx, p))
	f.outcome(commit.RolledBack)(active.Rollback(f.ctx))
	// A branch that had done nothing finds its connection dead and takes another.
	f.exec(idle, "UPDATE item SET n = 5 WHERE id = $1", 4)
	f.outcome(commit.Committed)(idle.CommitOnePhase(f.ctx))
	f.items(99)
	f.leaves(0)
}

// A context ends during each call, again and again; no connection comes back poisoned.
func cancelledAnywhere(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{MaxConns: 2})
	left := 100
	for i := range 60 {
		tx, id := f.take(f.r)
		ctx, cancel := context.WithTimeout(f.ctx, time.Duration(i%12)*100*time.Microsecond)
		p := resource.Prepared{ID: id}
		got := commit.Unfinished
		switch i % 4 {
		case 0:
			_, _ = tx.Exec(ctx, "UPDATE item SET n = n + $1 WHERE id = 2", 1)
		case 1:
			_, _ = tx.Prepare(ctx)
		case 2:
			vote, err := tx.Prepare(f.ctx)
			if err != nil {
				t.Fatal(err)
			}
			p.Evidence = vote.Evidence
			if got, _ = tx.Commit(ctx); got != commit.Committed {
				got = settle(f, tx.Commit)
			}
		case 3:
			got, _ = tx.CommitOnePhase(ctx)
		}
		cancel()
		if got == commit.Unfinished || got == commit.Hazard {
			got = settle(f, tx.Rollback)
		}
		switch got {
		case commit.Committed:
			left--
		case commit.RolledBack:
		default:
			t.Fatalf("the outcome is %v", got)
		}
		f.leaves(0)
		f.items(left)
	}
}

func settle(f *fixture, call func(context.Context) (commit.Outcome, error)) commit.Outcome {
	f.Helper()
	for {
		got, err := call(f.ctx)
		if err == nil {
			return got
		}
		if errors.Is(err, context.DeadlineExceeded) && f.ctx.Err() != nil {
			f.Fatal(err)
		}
	}
}

// forgotten returns a branch whose transaction number is used again after a crash. Now and then the server has
// written by itself what the branch did, and remembers the number: then another one is tried.
func (f *fixture) forgotten(cluster *pgcluster.Cluster) *postgres.Tx {
	f.Helper()
	for {
		tx, _ := f.take(f.r)
		mine := f.ask("SELECT max(backend_xid::text::bigint) FROM pg_stat_activity WHERE backend_xid IS NOT NULL")
		if err := cluster.Restart(f.ctx, pgcluster.Immediate); err != nil {
			f.Fatal(err)
		}
		used := false
		for range 5 {
			used = f.ask("UPDATE item SET n = n WHERE id = 9 RETURNING pg_current_xact_id()::text::bigint") == mine || used
		}
		if used {
			return tx
		}
		_, _ = tx.Rollback(f.ctx) // the crash has done it
	}
}

// A crash loses the number of a transaction of which nothing was stable, and the next one gets it.
// The other's commit is never taken for the branch's.
func TestNumberIsUsedAgain(t *testing.T) {
	cluster := pgtest.Start(t, pgcluster.Options{Settings: map[string]string{"wal_writer_delay": "10s"}})
	f := newFixture(t, cluster, postgres.Config{})
	for _, sent := range []string{"prepare", "commit"} {
		tx := f.forgotten(cluster)
		var got commit.Outcome
		if sent == "commit" {
			var err error
			if got, err = tx.CommitOnePhase(f.ctx); err == nil || got != commit.Hazard && got != commit.RolledBack {
				t.Errorf("one phase: %v, %v; want hazard, or rolled back, and why", got, err)
			}
		} else {
			if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.No || err == nil {
				t.Errorf("prepare: %v, %v", vote.Vote, err)
			}
			f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
		}
		f.items(100)
	}
}
