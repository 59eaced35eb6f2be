package postgres_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"assent/internal/pgcluster"
	"assent/internal/pgcluster/cutproxy"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/postgres"
)

const takeSQL = "UPDATE item SET n = n - $2 WHERE id = $1"

// one refuses everything but a change of one row.
func one(tag pgconn.CommandTag) error {
	if tag.RowsAffected() != 1 {
		return errNotOne
	}
	return nil
}

var errNotOne = errors.New("not one row")

// queued makes a branch that takes one of item 1 when it is prepared.
func (f *fixture) queued(r *postgres.Resource) (*postgres.Tx, resource.ID) {
	f.Helper()
	tx, id := f.begin(r)
	tx.Queue(takeSQL, 1, 1).Exec(one)
	return tx, id
}

// A branch whose statements are all queued is prepared in one round trip, and committed in one.
func queuedRoundTrips(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{MaxConns: 1})
	tx, _ := f.queued(f.r) // a statement that is new takes one more
	f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	trips := func(want uint64, run func(tx *postgres.Tx)) {
		t.Helper()
		tx, _ := f.begin(f.r)
		tx.Queue(takeSQL, 1, 1).Exec(one)
		tx.Queue("SELECT id FROM item WHERE n > $1", 0) // rows are dropped
		tx.Queue("INSERT INTO line VALUES (1, 1)")
		start := f.r.Stats().RoundTrips
		run(tx)
		if n := f.r.Stats().RoundTrips - start; n != want {
			t.Errorf("%d round trips; want %d", n, want)
		}
	}
	yes := func(vote resource.Vote, err error) {
		t.Helper()
		if vote.Vote != commit.Yes || err != nil || len(vote.Evidence) == 0 {
			t.Fatalf("prepare: %+v, %v", vote, err)
		}
	}
	trips(2, func(tx *postgres.Tx) {
		yes(tx.Prepare(f.ctx))
		f.leaves(1)
		f.outcome(commit.Committed)(tx.Commit(f.ctx))
	})
	f.items(99)
	trips(2, func(tx *postgres.Tx) {
		yes(tx.StartPrepare(f.ctx)()) // on the same session
		f.outcome(commit.Committed)(tx.StartCommit(f.ctx)())
	})
	trips(2, func(tx *postgres.Tx) {
		yes(tx.Prepare(f.ctx))
		f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	})
	trips(2, func(tx *postgres.Tx) { f.outcome(commit.Committed)(tx.CommitOnePhase(f.ctx)) })
	trips(0, func(tx *postgres.Tx) { f.outcome(commit.RolledBack)(tx.Rollback(f.ctx)) })
	f.leaves(0)
	f.items(97)
	if lines := f.ask("SELECT count(*) FROM line"); lines != 3 {
		t.Errorf("%d lines; want 3", lines)
	}
}

// Queued statements run before the next one that is not queued, and behind those before them.
func queuedAmongOthers(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	left := 100
	for _, first := range []string{"", "SELECT $1::int", "SET LOCAL lock_timeout = 5000"} {
		tx, _ := f.begin(f.r)
		if strings.Contains(first, "$1") {
			f.exec(tx, first, 1)
		} else if first != "" {
			f.exec(tx, first)
		}
		tx.Queue(takeSQL, 1, 1).Exec(one)
		var n int
		if err := tx.QueryRow(f.ctx, "SELECT n FROM item WHERE id = $1", 1).Scan(&n); err != nil || n != left-1 {
			t.Fatalf("%q: a query behind the queue sees %d, %v; want %d", first, n, err, left-1)
		}
		tx.Queue(takeSQL, 1, 1).Exec(one)
		tx.Queue(takeSQL, 1, 1).Exec(one)
		if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.Yes || err != nil || len(vote.Evidence) == 0 {
			t.Fatalf("%q: prepare: %+v, %v", first, vote, err)
		}
		f.outcome(commit.Committed)(tx.Commit(f.ctx))
		left -= 3
		f.items(left)
	}
	// In a branch that has only read before.
	tx, _ := f.begin(f.r)
	f.exec(tx, "SELECT $1::int", 1)
	tx.Queue("-- new\n"+takeSQL, 1, 1)
	if tx.StartPrepare(f.ctx) != nil {
		t.Error("what the session does not know yet is sent without waiting")
	}
	if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.Yes || err != nil || len(vote.Evidence) == 0 {
		t.Fatalf("prepare: %+v, %v", vote, err)
	}
	f.outcome(commit.Committed)(tx.Commit(f.ctx))
	f.items(left - 1)
}

// What a queued statement fails with is the branch's no, and nothing is left of it.
func queuedFails(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	type row struct {
		name  string
		queue func(tx *postgres.Tx)
		code  resource.Code
		text  string
	}
	for _, c := range []row{
		{"a constraint", func(tx *postgres.Tx) { tx.Queue(takeSQL, 2, 1000) }, resource.Constraint, "queued statement \"UPDATE item"},
		{"a deferred constraint", func(tx *postgres.Tx) { tx.Queue("INSERT INTO line VALUES (1, 1000)") }, resource.Constraint, "prepare"},
		{"syntax", func(tx *postgres.Tx) { tx.Queue("UPDATE item SEL n = 1") }, resource.Invalid, "42601"},
		{"two statements", func(tx *postgres.Tx) { tx.Queue("SELECT 1; SELECT 2") }, resource.Invalid, "42601"},
		{"an argument", func(tx *postgres.Tx) { tx.Queue(takeSQL, 1, struct{}{}) }, 0, "encode"},
		{"a check", func(tx *postgres.Tx) { tx.Queue(takeSQL, 1000, 1).Exec(one) }, 0, "not one row"},
		{"the end of the transaction", func(tx *postgres.Tx) { tx.Queue("COMMIT") }, resource.Broken, "COMMIT cannot be queued"},
		{"the end behind a comment", func(tx *postgres.Tx) { tx.Queue("-- x\rCOMMIT") }, resource.Broken, "COMMIT cannot be queued"},
		{"the end behind a space", func(tx *postgres.Tx) { tx.Queue("\vCOMMIT") }, resource.Broken, "COMMIT cannot be queued"},
		{"a setting", func(tx *postgres.Tx) { tx.Queue("/* */ set role postgres") }, resource.Broken, "SET cannot be queued"},
		{"a return to a savepoint", func(tx *postgres.Tx) { tx.Queue("ROLLBACK TO x") }, resource.Broken, "ROLLBACK cannot be queued"},
		{"rows from the client", func(tx *postgres.Tx) { tx.Queue("COPY line FROM STDIN") }, resource.Broken, "COPY cannot be queued"},
		{"nothing", func(tx *postgres.Tx) { tx.Queue("") }, resource.Broken, "cannot be queued"},
		{"too many", func(tx *postgres.Tx) {
			for range 1024 {
				tx.Queue("SELECT 1")
			}
		}, resource.Broken, "no more are allowed"},
	} {
		for _, begun := range []bool{false, true} {
			queue := func() *postgres.Tx {
				tx, _ := f.begin(f.r)
				if begun {
					f.exec(tx, takeSQL, 1, 1)
				}
				tx.Queue(takeSQL, 1, 1).Exec(one)
				c.queue(tx)
				tx.Queue("SELECT 1")
				return tx
			}
			check := func(how string, err error) {
				t.Helper()
				if resource.CodeOf(err) != c.code || err == nil || !strings.Contains(err.Error(), c.text) {
					t.Errorf("%s, begun %v, %s: %v; want the code %v and %q", c.name, begun, how, err, c.code, c.text)
				}
			}
			tx := queue()
			vote, err := tx.Prepare(f.ctx)
			if vote.Vote != commit.No {
				t.Errorf("%s: voted %v", c.name, vote.Vote)
			}
			check("prepare", err)
			f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))

			tx = queue()
			outcome, err := tx.CommitOnePhase(f.ctx)
			if outcome != commit.RolledBack {
				t.Errorf("%s: one phase: %v", c.name, outcome)
			}
			if c.text == "prepare" {
				err = resourceErrorAt(err, "prepare") // it fails at COMMIT
			}
			check("one phase", err)

			if c.text != "prepare" {
				tx = queue()
				_, err = tx.Exec(f.ctx, "SELECT $1::int", 1)
				check("exec", err)
				f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
			}
			f.leaves(0)
			f.items(100)
		}
	}
}

// resourceErrorAt is err as if it had been met in op.
func resourceErrorAt(err error, op string) error {
	if e, ok := errors.AsType[*resource.Error](err); ok {
		moved := *e
		moved.Op = op
		return &moved
	}
	return err
}

// A connection that is cut around a queue with PREPARE behind it leaves nothing that can prepare.
func queuedAndCut(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	proxy := newProxy(t, cluster)
	r := open(t, proxy.DSN(pgcluster.User, f.db), postgres.Config{})
	queued := func() *postgres.Tx {
		tx, _ := f.queued(r)
		tx.Queue("SELECT $1::text", "marker") // an argument that the proxy finds
		return tx
	}
	for _, at := range []string{"marker", "PREPARE TRANSACTION"} {
		for _, action := range []cutproxy.Action{cutproxy.CutBefore, cutproxy.CutReply} {
			tx := queued()
			proxy.On(at, action)
			vote, err := tx.Prepare(f.ctx)
			if vote.Vote != commit.No || resource.CodeOf(err) != resource.Unavailable {
				t.Fatalf("%s: prepare: %v, %v; want no, unavailable", at, vote.Vote, err)
			}
			f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
			f.leaves(0)
			f.items(100)
		}
		tx := queued()
		late := proxy.On(at, cutproxy.CutLate)
		if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.No || err == nil {
			t.Fatalf("%s: prepare: %v, %v", at, vote.Vote, err)
		}
		<-late.Happened()
		f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
		if err := late.Deliver(f.ctx); err != nil {
			t.Fatal(err)
		}
		f.leaves(0)
		f.items(100)
	}
}
