package postgres_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"assent/internal/pgcluster"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/postgres"
)

// An application's tracer hears of queued statements as of those of a batch of pgx.
func queuedAndTraced(t *testing.T, cluster *pgcluster.Cluster) {
	var heard batches
	f := newFixture(t, cluster, postgres.Config{Configure: func(c *pgx.ConnConfig) { c.Tracer = &heard }})
	tx, _ := f.queued(f.r)
	if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.Yes {
		t.Fatalf("prepare: %v, %v", vote.Vote, err)
	}
	f.outcome(commit.Committed)(tx.Commit(f.ctx))
	tx, _ = f.begin(f.r)
	tx.Queue(takeSQL, 2, 1000)
	if vote, _ := tx.Prepare(f.ctx); vote.Vote != commit.No {
		t.Fatalf("prepare: %v; want no", vote.Vote)
	}
	f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	tx, _ = f.begin(f.r)
	tx.Queue("UPDATE nothing SET n = 1")
	if vote, _ := tx.Prepare(f.ctx); vote.Vote != commit.No {
		t.Fatalf("prepare: %v; want no", vote.Vote)
	}
	f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	want := []string{
		"start 4", "BEGIN", "SELECT", "UPDATE [1 1] UPDATE 1", "PREPARE", "end <nil>",
		"start 4", "BEGIN", "SELECT", "UPDATE [2 1000] refused", "end refused",
		"start 4", "end refused",
	}
	if got := heard.take(); !slices.Equal(got, want) {
		t.Errorf("the tracer heard\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// batches notes what it hears of batches.
type batches struct {
	mu    sync.Mutex
	heard []string
}

func (b *batches) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.heard = append(b.heard, fmt.Sprintf(format, args...))
}

func (b *batches) take() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.heard
}

func (b *batches) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (b *batches) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (b *batches) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	b.note("start %d", data.Batch.Len())
	return ctx
}

func (b *batches) TraceBatchQuery(_ context.Context, _ *pgx.Conn, data pgx.TraceBatchQueryData) {
	word, _, _ := strings.Cut(data.SQL, " ")
	switch {
	case word != "UPDATE":
		b.note("%s", word)
	case data.Err != nil:
		b.note("%s %v refused", word, data.Args)
	default:
		b.note("%s %v %v", word, data.Args, data.CommandTag)
	}
}

func (b *batches) TraceBatchEnd(_ context.Context, _ *pgx.Conn, data pgx.TraceBatchEndData) {
	if data.Err != nil {
		b.note("end refused")
		return
	}
	b.note("end %v", data.Err)
}

// Where statements are not to be prepared, queued ones are sent one after the other, and PREPARE by itself.
func queuedUnprepared(t *testing.T, cluster *pgcluster.Cluster) {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec} {
		f := newFixture(t, cluster, postgres.Config{MaxConns: 1, Configure: func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = mode }})
		tx, _ := f.queued(f.r)
		tx.Queue("SELECT id FROM item")
		if tx.StartPrepare(f.ctx) != nil {
			t.Errorf("%v: PREPARE is started without waiting", mode)
		}
		if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.Yes || err != nil || len(vote.Evidence) == 0 {
			t.Fatalf("%v: prepare: %+v, %v", mode, vote, err)
		}
		f.outcome(commit.Committed)(tx.Commit(f.ctx))
		f.items(99)
		for _, spoil := range []func(tx *postgres.Tx){
			func(tx *postgres.Tx) { tx.Queue(takeSQL, 2, 1000) },
			func(tx *postgres.Tx) { tx.Queue(takeSQL, 1000, 1).Exec(one) },
			func(tx *postgres.Tx) { tx.Queue(takeSQL, 1, struct{}{}) },
			func(tx *postgres.Tx) { tx.Queue("SELECT 1; COMMIT AND CHAIN; SELECT 1") },
		} {
			for _, ask := range []bool{false, true} { // an error that nobody looks at
				tx, _ = f.queued(f.r)
				spoil(tx)
				if ask {
					_, _ = tx.Exec(f.ctx, "SELECT 1")
				}
				if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.No || err == nil {
					t.Errorf("%v, asked %v: prepare: %v, %v; want no", mode, ask, vote.Vote, err)
				}
				f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
			}
		}
		prepared := 0
		tx, _ = f.begin(f.r)
		if err := tx.QueryRow(f.ctx, "SELECT count(*) FROM pg_prepared_statements").Scan(&prepared); err != nil {
			t.Fatal(err)
		}
		f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
		if prepared > 1 { // DescribeExec prepares without a name
			t.Errorf("%v: the session has prepared %d statements; want none", mode, prepared)
		}
		f.leaves(0)
		f.items(99)
	}
}

// A queue that could not be sent, because a context had ended, is not left out of what is prepared.
func queuedTooLate(t *testing.T, cluster *pgcluster.Cluster) {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec} {
		for _, begun := range []bool{false, true} {
			f := newFixture(t, cluster, postgres.Config{Configure: func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = mode }})
			tx, _ := f.begin(f.r)
			if begun {
				f.exec(tx, "SELECT $1::int", 1)
			}
			tx.Queue(takeSQL, 1, 1)
			if _, err := tx.Exec(over, "SELECT $1::int", 1); err == nil {
				t.Errorf("%v, begun %v: a statement with a context that has ended was run", mode, begun)
			}
			if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.No || err == nil {
				t.Errorf("%v, begun %v: prepare: %v, %v; want no", mode, begun, vote.Vote, err)
			}
			f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
			f.items(100)
		}
	}
}

// Where the server does not say when a session began, to a role that must not know, the branch has its lock
// also if PREPARE travels with the queue.
func queuedByOthers(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	exec(t, cluster, f.db, "CREATE ROLE queued_app; CREATE ROLE queued_login LOGIN; GRANT queued_app TO queued_login")
	as := func(role string) *postgres.Resource {
		return open(t, cluster.DSN(f.db), postgres.Config{Configure: func(c *pgx.ConnConfig) {
			c.User = "queued_login"
			if role != "" {
				c.RuntimeParams["role"] = role
			}
		}})
	}
	for role, want := range map[string]commit.Vote{"queued_app": commit.Yes, "": commit.No} {
		tx, _ := f.begin(as(role))
		tx.Queue("SELECT 1 / count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()") // none is an error
		vote, err := tx.Prepare(f.ctx)
		if vote.Vote != want {
			t.Errorf("as %q: prepare: %v, %v; want %v", role, vote.Vote, err, want)
		}
		f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	}
	f.leaves(0)
}

// Arguments by name are put in their places, and an error of theirs is the branch's.
func queuedByName(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	tx, _ := f.begin(f.r)
	tx.Queue("UPDATE item SET n = n - @by WHERE id = @id", pgx.NamedArgs{"id": 1, "by": 3}).Exec(one)
	if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.Yes {
		t.Fatalf("prepare: %v, %v", vote.Vote, err)
	}
	f.outcome(commit.Committed)(tx.Commit(f.ctx))
	f.items(97)
	tx, _ = f.begin(f.r)
	tx.Queue("UPDATE item SET n = n - @by WHERE id = @id", pgx.StrictNamedArgs{"id": 1})
	if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.No || resource.CodeOf(err) != resource.Broken {
		t.Errorf("prepare: %v, %v; want no, broken", vote.Vote, err)
	}
	f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	f.items(97)
}

// A session does not keep every statement that was ever queued in it.
func queuedPlans(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{MaxConns: 1})
	for i := range 3 {
		tx, _ := f.begin(f.r)
		for n := range 200 {
			tx.Queue(fmt.Sprintf("SELECT %d", 200*i+n))
		}
		if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.Yes {
			t.Fatalf("prepare: %v, %v", vote.Vote, err)
		}
		f.outcome(commit.Committed)(tx.Commit(f.ctx))
	}
	// The branch fails, and has its plans dropped; the next one finds them gone.
	tx, _ := f.begin(f.r)
	tx.Queue(takeSQL, 2, 1000)
	if vote, _ := tx.Prepare(f.ctx); vote.Vote != commit.No {
		t.Fatal("a constraint is violated, and the vote is not no")
	}
	f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	tx, _ = f.queued(f.r)
	if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.Yes {
		t.Fatalf("prepare: %v, %v", vote.Vote, err)
	}
	f.outcome(commit.Committed)(tx.Commit(f.ctx))
	tx, _ = f.begin(f.r)
	var plans int
	if err := tx.QueryRow(f.ctx, "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'assent%'").Scan(&plans); err != nil {
		t.Fatal(err)
	}
	if plans != 3 { // BEGIN, the number, the update
		t.Errorf("the session keeps %d plans; want 3", plans)
	}
	f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	f.leaves(0)
	f.items(99)
}
