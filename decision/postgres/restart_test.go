package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"assent/decision"
	"assent/internal/pgcluster"
	"assent/internal/pgcluster/pgtest"
	"assent/protocol/commit"
	"assent/resource"
)

// restarts stands between the log and a real server and makes that answer as CockroachDB may: each
// statement, the first two times in whatever is asked of the log, is rolled back and to be restarted
// (40001), or is carried out and reported as perhaps carried out (40003).
type restarts struct {
	code    string // empty for no failure
	version string // what version() gives; empty for the server's own
	follow  bool   // the user's reads are those of followers

	mu sync.Mutex
	// sent is how often each statement was sent since the last call of anew, and most the greatest such number.
	sent, most map[string]int
}

func newRestarts(code, version string) *restarts {
	return &restarts{code: code, version: version, sent: map[string]int{}, most: map[string]int{}}
}

// anew makes each statement fail twice again.
func (r *restarts) anew() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.sent)
}

func (r *restarts) configure(cfg *pgx.ConnConfig) {
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, addr)
		return &restarting{Conn: conn, rules: r, names: map[string]string{}}, err
	}
}

// fail reports whether the statement fails this time.
func (r *restarts) fail(sql string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent[sql]++
	r.most[sql] = max(r.most[sql], r.sent[sql])
	return r.code != "" && r.sent[sql] <= 2
}

// disguise changes what the log asks of the server about itself.
func (r *restarts) disguise(sql string) string {
	if r.version != "" {
		sql = strings.Replace(sql, "version()", "'"+r.version+"'::text", 1)
	}
	if r.follow {
		sql = strings.Replace(sql, "current_setting('default_transaction_use_follower_reads', true)", "'on'::text", 1)
	}
	return sql
}

// restarting is one connection. It understands so much of PostgreSQL's protocol 3 as is needed to know
// which statement is executed.
type restarting struct {
	net.Conn
	rules *restarts

	mu      sync.Mutex
	started bool
	out     []byte            // of the client, not yet a whole message
	names   map[string]string // the texts of prepared statements
	// failing says that the answer up to the next ReadyForQuery tells of a failure.
	failing bool
	in      []byte // of the server, not yet a whole message
	ready   []byte // for the client
}

// next takes a message off b. A startup message has no type byte.
func next(b []byte, startup bool) (message, rest []byte) {
	head := 5
	if startup {
		head = 4
	}
	if len(b) < head {
		return nil, b
	}
	n := head - 4 + int(binary.BigEndian.Uint32(b[head-4:]))
	if len(b) < n {
		return nil, b
	}
	return b[:n], b[n:]
}

func message(kind byte, parts ...string) []byte {
	body := strings.Join(parts, "")
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4)), body...)
}

func (c *restarting) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.out = append(c.out, b...)
	var send []byte
	for {
		m, rest := next(c.out, !c.started)
		if m == nil {
			break
		}
		if c.started {
			send = append(send, c.request(m)...)
		} else {
			send, c.started = append(send, m...), true
		}
		c.out = rest
	}
	c.mu.Unlock()
	if _, err := c.Conn.Write(send); err != nil {
		return 0, err
	}
	return len(b), nil
}

// request returns what goes to the server for a message. What is to be rolled back names a statement that
// does not exist: so the server ends the transaction, and leaves out what follows, as it does by itself.
func (c *restarting) request(m []byte) []byte {
	nowhere := c.rules.code == "40001"
	switch m[0] {
	case 'P':
		name, rest, _ := bytes.Cut(m[5:], []byte{0})
		sql, rest, _ := bytes.Cut(rest, []byte{0})
		c.names[string(name)] = string(sql)
		return message('P', string(name), "\x00", c.rules.disguise(string(sql)), "\x00", string(rest))
	case 'B':
		portal, rest, _ := bytes.Cut(m[5:], []byte{0})
		name, rest, _ := bytes.Cut(rest, []byte{0})
		if c.rules.fail(c.names[string(name)]) {
			if c.failing = true; nowhere {
				return message('B', string(portal), "\x00nowhere\x00", string(rest))
			}
		}
	case 'Q':
		if c.rules.fail(string(bytes.TrimSuffix(m[5:], []byte{0}))) {
			if c.failing = true; nowhere {
				return message('Q', "EXECUTE nowhere\x00")
			}
		}
	}
	return m
}

func (c *restarting) Read(b []byte) (int, error) {
	for {
		c.mu.Lock()
		if len(c.ready) > 0 {
			n := copy(b, c.ready)
			c.ready = c.ready[n:]
			c.mu.Unlock()
			return n, nil
		}
		c.mu.Unlock()
		chunk := make([]byte, 1<<14)
		n, err := c.Conn.Read(chunk)
		c.mu.Lock()
		c.in = append(c.in, chunk[:n]...)
		for {
			m, rest := next(c.in, false)
			if m == nil {
				break
			}
			c.ready, c.in = append(c.ready, c.answer(m)...), rest
		}
		none := len(c.ready) == 0
		c.mu.Unlock()
		if err != nil && none {
			return 0, err
		}
	}
}

// answer returns what goes to the client for a message.
func (c *restarting) answer(m []byte) []byte {
	switch {
	case !c.failing:
		return m
	case m[0] == 'Z':
		c.failing = false
		text := "restart transaction: TransactionRetryWithProtoRefreshError: RETRY_SERIALIZABLE"
		if c.rules.code == "40003" {
			text = "result is ambiguous"
		}
		return append(message('E', "SERROR\x00VERROR\x00C", c.rules.code, "\x00M", text, "\x00\x00"), m...)
	}
	return nil
}

// exercise does everything that a log does, and looks whether it is what it was asked for.
// anew is called before each call.
func exercise(t *testing.T, dsn string, cfg Config, anew func()) *Log {
	l := mustOpen(t, dsn, cfg)
	for _, id := range []string{"tx-1", "tx-2", "tx-3", "tx-4"} {
		anew()
		mustDecide(t, l, id)
	}
	annotate := func(id commit.TransactionID, n decision.Note) {
		t.Helper()
		anew()
		if err := l.Annotate(t.Context(), id, n); err != nil {
			t.Error(err)
		}
	}
	anew()
	late := entry("tx-1")
	late.Decision, late.By = commit.Abort, "recovery"
	if stands, err := l.Decide(t.Context(), late); err != nil || stands.Decision != commit.Commit {
		t.Errorf("a second proposal: %v, %v; want commit", stands.Decision, err)
	}
	hazard := decision.Note{Kind: decision.Heuristic, Branch: "orders", Outcome: commit.Hazard, Forced: true}
	for _, n := range []decision.Note{hazard, {Kind: decision.Resolved, Branch: "orders", By: "operator"}, {Kind: decision.Finished}} {
		annotate("tx-1", n)
	}
	annotate("tx-2", hazard)
	anew()
	if e, err := l.Lookup(t.Context(), "tx-1"); err != nil || len(e.Notes) != 3 || e.Status() != decision.Done {
		t.Errorf("%+v, %v; want three notes, and done", e, err)
	}
	anew()
	if err := l.Forget(t.Context(), "tx-3"); err != nil {
		t.Error(err)
	}
	if _, err := l.Lookup(t.Context(), "tx-3"); !errors.Is(err, decision.ErrNotFound) {
		t.Errorf("what was forgotten: %v", err)
	}
	lists := func(want string, status decision.Status) {
		t.Helper()
		anew()
		var got []string
		for e, err := range l.List(t.Context(), status) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(e.ID))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%v: listed are %q; want %q", status, got, want)
		}
	}
	lists("tx-1 tx-2 tx-4", 0)
	lists("tx-2", decision.Damaged)
	// One Done entry may stay, and the older one goes.
	annotate("tx-4", decision.Note{Kind: decision.Finished})
	anew()
	if err := l.attempt(t.Context(), l.retireOnce); err != nil {
		t.Error(err)
	}
	lists("tx-2 tx-4", 0)
	return l
}

// Every statement that the package has, the schema's too, is answered with a restart again and again, by
// a server that says that it is CockroachDB and by one that does not.
func TestRestarts(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{})
	for _, code := range []string{"40001", "40003"} {
		for _, version := range []string{"", "CockroachDB CCL v25.2.1 (x86_64-pc-linux-gnu)"} {
			t.Run(code+" "+strings.SplitAfter(version, "DB")[0], func(t *testing.T) {
				t.Parallel()
				r := newRestarts(code, version)
				cfg := fresh()
				cfg.Configure, cfg.RetainCount, cfg.RetireInterval = r.configure, 1, time.Hour
				cfg.Patience = time.Minute // a busy machine is no reason to give up
				l := exercise(t, c.DSN(""), cfg, r.anew)
				if l.server.cockroach != (version != "") {
					t.Errorf("taken for CockroachDB: %v", l.server.cockroach)
				}
				all := append(l.tables.ddl(), l.tables.found(), l.tables.owner(), settingsSQL)
				for v, i := reflect.ValueOf(l.sql), 0; i < v.NumField(); i++ {
					all = append(all, v.Field(i).String())
				}
				for _, sql := range all {
					if r.most[sql] < 2 {
						t.Errorf("was sent %d times, so it was not repeated: %s", r.most[sql], sql)
					}
				}
				// What CockroachDB takes for show is not sent to it.
				if n := r.most["SET LOCAL synchronous_commit = off"]; (n == 0) != l.server.cockroach {
					t.Errorf("an unforced commit was asked for %d times", n)
				}
			})
		}
	}
	t.Run("FollowerReads", func(t *testing.T) {
		r := newRestarts("", "CockroachDB")
		r.follow = true
		cfg := fresh()
		cfg.Configure = r.configure
		_, err := Open(t.Context(), c.DSN(""), cfg)
		refused(t, err, ErrUnsafe, resource.Unsupported, "follower_reads = off")
	})
}

// Where every transaction is serializable, as it is in CockroachDB, and another one has come first, the
// server refuses what it would have answered otherwise. Callers see nothing of it.
func TestSerializable(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Settings: map[string]string{"default_transaction_isolation": "serializable"}})
	cfg := fresh()
	cfg.Patience, cfg.AttemptTimeout = time.Minute, time.Minute
	logs := []*Log{mustOpen(t, c.DSN(""), cfg), mustOpen(t, c.DSN(""), cfg)}
	l := logs[0]
	conn, err := c.Conn(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	// Somebody else decides, and commits when the log's own statement waits for it.
	first := entry("tx")
	first.Decision, first.By = commit.Abort, "recovery"
	body, err := first.Normal().Encode()
	if err != nil {
		t.Fatal(err)
	}
	exec("BEGIN")
	exec(l.sql.insert, []string{"tx"}, []int16{int16(decision.Unfinished)}, [][]byte{body}, []int32{0}, [][]byte{{}})
	done := make(chan error, 1)
	go func() {
		stands, err := l.Decide(t.Context(), entry("tx"))
		if err == nil && stands.Decision != commit.Abort {
			err = fmt.Errorf("%v stands; want abort", stands.Decision)
		}
		done <- err
	}()
	for waits := 0; waits == 0; {
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE NOT granted").Scan(&waits); err != nil {
			t.Fatal(err)
		}
	}
	exec("COMMIT")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if l.stats.failures.Load() == 0 {
		t.Error("nothing was refused: the transactions are not serializable")
	}

	// Two logs decide and note at once. All are told the same, and no note is lost.
	const transactions, callers = 8, 4
	var wg sync.WaitGroup
	told := make([][callers]commit.Decision, transactions)
	for i := range transactions {
		for j := range callers {
			wg.Go(func() {
				l, e := logs[j%2], entry(fmt.Sprint("tx-", i))
				if j >= 2 {
					e.Decision, e.By = commit.Abort, "recovery"
				}
				stands, err := l.Decide(t.Context(), e)
				if err != nil {
					t.Error(err)
				}
				told[i][j] = stands.Decision
				if err := l.Annotate(t.Context(), e.ID, decision.Note{Kind: decision.Resolved, Branch: fmt.Sprint(j), Forced: true}); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	for i := range transactions {
		e, err := l.Lookup(t.Context(), entry(fmt.Sprint("tx-", i)).ID)
		if err != nil || len(e.Notes) != callers {
			t.Errorf("%v, %v; want %d notes", e, err, callers)
		}
		for j := range callers {
			if told[i][j] != e.Decision {
				t.Errorf("tx-%d: caller %d was told %v; %v stands", i, j, told[i][j], e.Decision)
			}
		}
	}
}
