package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"assent/decision"
	"assent/decision/decisiontest"
	"assent/internal/pgcluster"
	"assent/internal/pgcluster/cutproxy"
	"assent/internal/pgcluster/pgtest"
	"assent/protocol/commit"
	"assent/resource"
)

// TestInOneCluster shares a cluster among tests that do not stop it.
func TestInOneCluster(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{})
	for name, test := range map[string]func(*testing.T, *pgcluster.Cluster){
		"NoTables":       noTables,
		"NewerFormat":    newerFormat,
		"Unsafe":         unsafeSettings,
		"Rights":         rights,
		"Replaced":       replaced,
		"Cut":            cutConnections,
		"Retention":      retention,
		"CreateTogether": createTogether,
		"Grouped":        grouped,
		"Unforced":       unforced,
		"Damage":         damage,
		"StandbyAway":    standbyAway,
		"StillUnderWay":  stillUnderWay,
		"CallerLeaves":   callerLeaves,
	} {
		t.Run(name, func(t *testing.T) { test(t, c) })
	}
}

// refused wants an error that wraps want, with that code and a hint that says what to do.
func refused(t *testing.T, err, want error, code resource.Code, hint string) {
	t.Helper()
	if want != nil && !errors.Is(err, want) || resource.CodeOf(err) != code || !strings.Contains(resource.HintOf(err), hint) {
		t.Errorf("got %v (hint %q); want %v, %v, a hint with %q", err, resource.HintOf(err), want, code, hint)
	}
}

func noTables(t *testing.T, c *pgcluster.Cluster) {
	cfg := fresh()
	cfg.CreateSchema = false
	_, err := Open(t.Context(), c.DSN(""), cfg)
	refused(t, err, ErrNoTables, resource.Unavailable, "create_schema")
	cfg.CreateSchema = true
	l := mustOpen(t, c.DSN(""), cfg)
	mustDecide(t, l, "tx")
	if err := c.Exec(t.Context(), "", "DROP TABLE "+l.tables.entries); err != nil {
		t.Fatal(err)
	}
	_, err = l.Decide(t.Context(), entry("tx"))
	refused(t, err, ErrNoTables, resource.Unavailable, "create_schema")
}

func newerFormat(t *testing.T, c *pgcluster.Cluster) {
	l := mustOpen(t, c.DSN(""), fresh())
	if err := c.Exec(t.Context(), "", "UPDATE "+l.tables.log+" SET format = 2"); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), c.DSN(""), l.cfg)
	refused(t, err, ErrFormat, resource.Unsupported, "newer")
}

func unsafeSettings(t *testing.T, c *pgcluster.Cluster) {
	_, err := Open(t.Context(), c.DSN("")+" options='-c synchronous_commit=off'", fresh())
	refused(t, err, ErrUnsafe, resource.Unsupported, "synchronous_commit")
	if err := c.Exec(t.Context(), "", "ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf()"); err == nil {
		t.Fatal("ALTER SYSTEM is allowed within a transaction")
	}
	set := func(value string) {
		t.Helper()
		for _, sql := range []string{"ALTER SYSTEM SET fsync = " + value, "SELECT pg_reload_conf()"} {
			if err := c.Exec(t.Context(), "", sql); err != nil {
				t.Fatal(err)
			}
		}
	}
	opens := func() bool {
		t.Helper()
		l, err := Open(t.Context(), c.DSN(""), fresh())
		if err != nil {
			refused(t, err, ErrUnsafe, resource.Unsupported, "fsync")
			return false
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return true
	}
	// The server takes a moment to read its configuration.
	set("off")
	for opens() {
	}
	set("on")
	for !opens() && !t.Failed() {
	}
}

func rights(t *testing.T, c *pgcluster.Cluster) {
	l := mustOpen(t, c.DSN(""), fresh())
	if err := c.Exec(t.Context(), "", "CREATE ROLE clerk LOGIN"); err != nil {
		t.Fatal(err)
	}
	cfg := l.cfg
	cfg.CreateSchema = false
	_, err := Open(t.Context(), c.DSNFor("clerk", ""), cfg)
	refused(t, err, nil, resource.Permission, "grant")
	// These rights are enough.
	if err := c.Exec(t.Context(), "", fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO clerk; GRANT SELECT, INSERT, UPDATE, DELETE ON %s, %s TO clerk",
		l.tables.schema, l.tables.log, l.tables.entries)); err != nil {
		t.Fatal(err)
	}
	clerks := mustOpen(t, c.DSNFor("clerk", ""), cfg)
	mustDecide(t, clerks, "tx")
	if err := clerks.Annotate(t.Context(), "tx", decision.Note{Kind: decision.Finished}); err != nil {
		t.Error(err)
	}
	if err := clerks.Forget(t.Context(), "tx"); err != nil {
		t.Error(err)
	}
	_, err = Open(t.Context(), "host=", Config{Schema: strings.Repeat("x", 64)})
	refused(t, err, nil, resource.Invalid, "")
}

// A failover, or a restore, that leads to another log is noticed before anything is decided there.
func replaced(t *testing.T, c *pgcluster.Cluster) {
	l := mustOpen(t, c.DSN(""), fresh())
	mustDecide(t, l, "tx")
	for _, sql := range []string{
		"UPDATE " + l.tables.log + " SET owner = 'another'",
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'assent decision log'",
	} {
		if err := c.Exec(t.Context(), "", sql); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		_, err := l.Decide(t.Context(), entry("tx-2"))
		refused(t, err, decision.ErrStopped, resource.Unavailable, "give back")
		_, err = l.Lookup(t.Context(), "tx")
		refused(t, err, decision.ErrStopped, resource.Unavailable, "give back")
	}
	other := mustOpen(t, c.DSN(""), l.cfg)
	if _, err := other.Lookup(t.Context(), "tx-2"); !errors.Is(err, decision.ErrNotFound) {
		t.Errorf("decided in another log: %v", err)
	}
}

// The connection is cut before the server sees a statement, and after it has carried it out. Callers
// learn what stands all the same, and no note is lost or doubled.
func cutConnections(t *testing.T, c *pgcluster.Cluster) {
	proxy, err := cutproxy.New(c.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	cfg := fresh()
	cfg.MaxConns = 4
	l := mustOpen(t, proxy.DSN(pgcluster.User, "postgres"), cfg)
	// A statement that carries the id, prepared or not, is what is cut.
	for i, action := range []cutproxy.Action{cutproxy.CutBefore, cutproxy.CutReply} {
		id := fmt.Sprint("cut-", i)
		hit := proxy.On(id, action)
		mustDecide(t, l, id)
		<-hit.Happened()
		late := entry(id)
		late.Decision, late.By = commit.Abort, "recovery"
		if stands, err := l.Decide(t.Context(), late); err != nil || stands.Decision != commit.Commit {
			t.Errorf("%v: %v, %v", action, stands.Decision, err)
		}
		for _, n := range []decision.Note{
			{Kind: decision.Heuristic, Branch: "orders", Outcome: commit.Hazard, Forced: true},
			{Kind: decision.Resolved, Branch: "orders", By: "operator"},
		} {
			hit := proxy.On(id, action)
			if err := l.Annotate(t.Context(), commit.TransactionID(id), n); err != nil {
				t.Errorf("%v: %v", action, err)
			}
			<-hit.Happened()
		}
		e, err := l.Lookup(t.Context(), commit.TransactionID(id))
		if err != nil || len(e.Notes) != 2 || e.Notes[0].Kind != decision.Heuristic {
			t.Errorf("%v: %+v, %v; want two notes", action, e.Notes, err)
		}
		hit = proxy.On(id, action)
		if err := l.Forget(t.Context(), commit.TransactionID(id)); err != nil {
			t.Errorf("%v: %v", action, err)
		}
		<-hit.Happened()
		if _, err := l.Lookup(t.Context(), commit.TransactionID(id)); !errors.Is(err, decision.ErrNotFound) {
			t.Errorf("%v: %v", action, err)
		}
	}
}

// uncancelled is a connection on which no statement is cancelled: the request to do so is lost.
type uncancelled struct{ net.Conn }

// Write is net.Conn's.
func (u uncancelled) Write(b []byte) (int, error) {
	if len(b) == 16 && bytes.Equal(b[4:8], []byte{0x04, 0xd2, 0x16, 0x2e}) { // PostgreSQL's protocol: CancelRequest
		return 0, net.ErrClosed
	}
	return u.Conn.Write(b)
}

// A note whose connection is cut while something holds its row is written after all, behind the next attempt's look
// and before its write: it is not written twice.
func stillUnderWay(t *testing.T, c *pgcluster.Cluster) {
	proxy, err := cutproxy.New(c.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	cfg := fresh()
	cfg.Patience, cfg.AttemptTimeout = 5*time.Minute, 5*time.Minute
	cfg.Configure = func(c *pgx.ConnConfig) {
		dial := c.DialFunc
		c.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			return uncancelled{conn}, err
		}
	}
	l := mustOpen(t, proxy.DSN(pgcluster.User, "postgres"), cfg)
	mustDecide(t, l, "tx")
	holder, err := c.Conn(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close(context.Background())
	watcher, err := c.Conn(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close(context.Background())
	holding, err := holder.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holding.Exec(t.Context(), "SELECT FROM "+l.tables.entries+" FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	noted := make(chan error, 1)
	go func() {
		noted <- l.Annotate(t.Context(), "tx", decision.Note{Kind: decision.Resolved, Branch: "orders", By: "operator", Forced: true})
	}()
	held := func(n int) {
		const sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'assent decision log'"
		for count := 0; count != n; {
			if err := watcher.QueryRow(t.Context(), sql).Scan(&count); err != nil {
				t.Fatal(err)
			}
		}
	}
	held(1)
	proxy.Cut()
	proxy.Heal()
	held(2)
	if err := holding.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-noted; err != nil {
		t.Error(err)
	}
	if e, err := l.Lookup(t.Context(), "tx"); err != nil || len(e.Notes) != 1 {
		t.Errorf("%+v, %v; want one note", e.Notes, err)
	}
}

// That a caller no longer waits is no sign that the database is away.
func callerLeaves(t *testing.T, c *pgcluster.Cluster) {
	cfg := fresh()
	var said bytes.Buffer
	cfg.Logger = slog.New(slog.NewTextHandler(&said, nil))
	cfg.AttemptTimeout = 5 * time.Minute
	l := mustOpen(t, c.DSN(""), cfg)
	conn, err := c.Conn(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE "+l.tables.entries); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	looked := make(chan error, 1)
	go func() { _, err := l.Lookup(ctx, "tx"); looked <- err }()
	for waiting := 0; waiting == 0; {
		const sql = "SELECT count(*) FROM pg_locks WHERE NOT granted"
		if err := conn.QueryRow(t.Context(), sql).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-looked; !errors.Is(err, context.Canceled) || said.Len() > 0 {
		t.Errorf("%v; was said: %s", err, &said)
	}
}

func retention(t *testing.T, c *pgcluster.Cluster) {
	cfg := fresh()
	cfg.RetainCount, cfg.Retention, cfg.RetireInterval = 5, time.Hour, time.Hour
	l := mustOpen(t, c.DSN(""), cfg)
	note := func(i int, n decision.Note) {
		t.Helper()
		if err := l.Annotate(t.Context(), entry(fmt.Sprint("tx-", i)).ID, n); err != nil {
			t.Fatal(err)
		}
	}
	hazard := decision.Note{Kind: decision.Heuristic, Branch: "orders", Outcome: commit.Hazard}
	for i := range 20 {
		mustDecide(t, l, fmt.Sprint("tx-", i))
		if i >= 4 { // the first four stay open
			note(i, decision.Note{Kind: decision.Finished})
		}
	}
	note(4, hazard) // and is not Done any longer
	note(6, hazard)
	note(6, decision.Note{Kind: decision.Resolved, Branch: "orders"})
	note(19, decision.Note{Kind: decision.Finished})
	// Two are from yesterday.
	if err := c.Exec(t.Context(), "", "UPDATE "+l.tables.entries+" SET done_at = done_at - interval '1 day' WHERE id IN ('tx-18', 'tx-3', 'tx-17')"); err != nil {
		t.Fatal(err)
	}
	if err := l.attempt(t.Context(), l.retireOnce); err != nil {
		t.Fatal(err)
	}
	var left []string
	for e, err := range l.List(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, string(e.ID))
	}
	want := "tx-0 tx-1 tx-2 tx-3 tx-4 tx-6 tx-14 tx-15 tx-16 tx-19"
	if got := strings.Join(left, " "); got != want {
		t.Errorf("left are %s; want %s", got, want)
	}
	if got := l.Stats().Retired; got != 10 {
		t.Errorf("retired are %d; want 10", got)
	}
}

// Several processes may make the tables at the same time, and find one owner.
func createTogether(t *testing.T, c *pgcluster.Cluster) {
	cfg := fresh()
	owners := make([]string, 8)
	var wg sync.WaitGroup
	for i := range owners {
		wg.Go(func() {
			l, err := Open(t.Context(), c.DSN(""), cfg)
			if err != nil {
				t.Error(err)
				return
			}
			owners[i] = l.Owner()
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, o := range owners {
		if o != owners[0] || o == "" {
			t.Errorf("owners are %q", owners)
		}
	}
}

// While the table is locked, what is asked for gathers; then it is written by few statements.
func grouped(t *testing.T, c *pgcluster.Cluster) {
	cfg := fresh()
	const waiting = 200
	cfg.MaxWaiting = waiting
	l := mustOpen(t, c.DSN(""), cfg)
	mustDecide(t, l, "first")
	conn, err := c.Conn(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, sql := range []string{"BEGIN", "LOCK TABLE " + l.tables.entries} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	before := l.Stats()
	const surplus = 50
	results := make(chan error, decideWorkers+waiting+surplus)
	decide := func(i int) {
		_, err := l.Decide(t.Context(), entry(fmt.Sprint("tx-", i)))
		results <- err
	}
	// Groups of one are on their way, as many as may be, and wait for the table.
	for i := range decideWorkers {
		go decide(i)
		for stuck := 0; stuck <= i; {
			row := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = $1::regclass", l.tables.entries)
			if err := row.Scan(&stuck); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Waiting callers fill the queue, and the others are refused: then all have called.
	for i := range waiting + surplus {
		go decide(decideWorkers + i)
	}
	for range surplus {
		refused(t, <-results, nil, resource.Capacity, "wait")
	}
	if _, err := conn.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	for range decideWorkers + waiting {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	after := l.Stats()
	if groups, n := after.Groups-before.Groups, after.Decisions-before.Decisions; n != decideWorkers+waiting || groups > 2*decideWorkers {
		t.Errorf("%d decisions took %d statements; want %d, by %d at most", n, groups, decideWorkers+waiting, 2*decideWorkers)
	}
}

// A note that nobody asks to be forced is committed without a forced write; a decision never is.
func unforced(t *testing.T, c *pgcluster.Cluster) {
	l := mustOpen(t, c.DSN(""), fresh())
	for _, sql := range []string{
		"CREATE TABLE " + l.tables.schema + ".seen (how text)",
		"CREATE FUNCTION " + l.tables.schema + ".see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO " + l.tables.schema +
			".seen VALUES (TG_OP || ' ' || current_setting('synchronous_commit')); RETURN NULL; END $$",
		"CREATE TRIGGER see AFTER INSERT OR UPDATE ON " + l.tables.entries + " EXECUTE FUNCTION " + l.tables.schema + ".see()",
	} {
		if err := c.Exec(t.Context(), "", sql); err != nil {
			t.Fatal(err)
		}
	}
	mustDecide(t, l, "tx")
	for _, forced := range []bool{false, true} {
		if err := l.Annotate(t.Context(), "tx", decision.Note{Kind: decision.Resolved, Branch: "orders", Forced: forced}); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := c.Conn(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var seen string
	if err := conn.QueryRow(t.Context(), "SELECT string_agg(how, ', ') FROM "+l.tables.schema+".seen").Scan(&seen); err != nil {
		t.Fatal(err)
	}
	// The guess that there is no note yet fails once, and changes nothing.
	if want := "INSERT on, UPDATE off, UPDATE on, UPDATE on"; seen != want {
		t.Errorf("got %q; want %q", seen, want)
	}
}

// A row that somebody has changed is reported and not taken for a decision.
func damage(t *testing.T, c *pgcluster.Cluster) {
	l := mustOpen(t, c.DSN(""), fresh())
	for _, id := range []string{"tx-1", "tx-2", "tx-3"} {
		mustDecide(t, l, id)
	}
	for _, sql := range []string{
		"UPDATE " + l.tables.entries + " SET body = 'x' WHERE id = 'tx-1'",
		"UPDATE " + l.tables.entries + " SET body = (SELECT body FROM " + l.tables.entries + " WHERE id = 'tx-3') WHERE id = 'tx-2'",
		"UPDATE " + l.tables.entries + " SET notes = 'x' WHERE id = 'tx-3'",
	} {
		if err := c.Exec(t.Context(), "", sql); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"tx-1", "tx-2", "tx-3"} {
		_, err := l.Lookup(t.Context(), commit.TransactionID(id))
		refused(t, err, nil, resource.Unavailable, "backup")
		_, err = l.Decide(t.Context(), entry(id))
		refused(t, err, nil, resource.Unavailable, "backup")
	}
}

// While the database is down calls fail in a bounded time with a reason; when it is back they go on.
func TestDatabaseIsDown(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{})
	cfg := fresh()
	cfg.Patience = 50 * time.Millisecond
	l := mustOpen(t, c.DSN(""), cfg)
	mustDecide(t, l, "tx-1")
	closed := mustOpen(t, c.DSN(""), cfg)
	closed.cfg.Patience = 500 * time.Millisecond
	if err := c.Stop(pgcluster.Immediate); err != nil {
		t.Fatal(err)
	}
	decisiontest.CloseUnanswered(t, closed, 8*groupCalls)
	_, err := l.Decide(t.Context(), entry("tx-2"))
	refused(t, err, nil, resource.Unavailable, "whether the database is up")
	_, err = l.Lookup(t.Context(), "tx-1")
	refused(t, err, nil, resource.Unavailable, "whether the database is up")
	err = l.Annotate(t.Context(), "tx-1", decision.Note{Kind: decision.Finished})
	refused(t, err, nil, resource.Unavailable, "whether the database is up")
	_, err = Open(t.Context(), c.DSN(""), cfg)
	refused(t, err, nil, resource.Unavailable, "whether the database is up")
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Connections that are gone are found out one by one, and on a busy machine that may take longer than Patience.
	again := func(do func() error) {
		for do() != nil && t.Context().Err() == nil {
		}
	}
	again(func() error { _, err := l.Decide(t.Context(), entry("tx-2")); return err })
	var e decision.Entry
	again(func() (err error) { e, err = l.Lookup(t.Context(), "tx-1"); return err })
	if len(e.Notes) != 0 {
		t.Errorf("%+v", e)
	}
}

// A decision that waits for a synchronous standby when its connection is cut is in the table, for all to see, and
// would be lost with the primary: nobody is told of it before the standby has it.
func standbyAway(t *testing.T, c *pgcluster.Cluster) {
	cfg := fresh()
	cfg.Patience, cfg.AttemptTimeout = 5*time.Minute, 5*time.Minute
	l := mustOpen(t, c.DSN(""), cfg)
	conn, err := c.Conn(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	ask := func(sql string) (n int) {
		if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	standby := func(name string) {
		for _, sql := range []string{"ALTER SYSTEM SET synchronous_standby_names = '" + name + "'", "SELECT pg_reload_conf()"} {
			if err := c.Exec(context.Background(), "", sql); err != nil {
				t.Fatal(err)
			}
		}
	}
	defer standby("")
	standby("away")
	const waiting = " FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'assent decision log'"
	// waits reports whether what returns its error there comes to wait for the standby, as the nth, or has returned.
	waits := func(n int, returned chan error) bool {
		for ask("SELECT count(*)"+waiting) != n {
			if len(returned) > 0 {
				return false
			}
		}
		return true
	}
	start := func(do func() error) chan error {
		returned := make(chan error, 1)
		go func() { returned <- do() }()
		return returned
	}
	var id commit.TransactionID
	var decided chan error
	for n := 0; ; n++ {
		id = commit.TransactionID(fmt.Sprint("tx-", n))
		decided = start(func() error { _, err := l.Decide(t.Context(), entry(string(id))); return err })
		if waits(1, decided) {
			break
		}
		if err := <-decided; err != nil { // else the server has not heard of the standby yet
			t.Fatal(err)
		}
	}
	ask("SELECT count(pg_terminate_backend(pid))" + waiting)
	for ask("SELECT count(*) FROM "+l.tables.entries+" WHERE id = '"+string(id)+"'") == 0 {
	}
	all := []chan error{decided}
	for n, do := range []func() error{
		func() error { return nil },
		func() error { _, err := l.Lookup(t.Context(), id); return err },
		func() error {
			for _, err := range l.List(t.Context(), decision.Unfinished) {
				return err
			}
			return errors.New("nothing is listed")
		},
	} {
		if n > 0 {
			all = append(all, start(do))
		}
		if !waits(n+1, all[n]) {
			t.Errorf("call %d told what the standby has not: %v", n+1, <-all[n])
			all[n] <- nil
		}
	}
	standby("")
	for n, returned := range all {
		if err := <-returned; err != nil {
			t.Errorf("call %d: %v", n+1, err)
		}
	}
}
