package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"assent/resource"
)

var (
	_ resource.Resource = (*Resource)(nil)
	_ resource.Doctor   = (*Resource)(nil)
	_ resource.Branch   = (*Tx)(nil)
	_ resource.OnePhase = (*Tx)(nil)
	_ resource.Split    = (*Tx)(nil)
)

// Config says how a Resource uses its database. The zero value is ready for use.
type Config struct {
	// MaxConns is the greatest number of connections for work; each open branch holds one.
	// Begin waits for a free one. Defaults to 32.
	MaxConns int32

	// FinishConns is the greatest number of further connections, for finishing by id, recovery
	// and the doctor, so that branches which hold or wait for all of MaxConns cannot keep others
	// from being finished. Defaults to 4.
	FinishConns int32

	// ConnectTimeout bounds the making of one connection. Defaults to the DSN's
	// connect_timeout, or else 10 s.
	ConnectTimeout time.Duration

	// LockTimeout is the server's lock_timeout for branches. It bounds how long a deadlock lasts
	// that runs through several databases, which none of them can see. Negative means no bound. It
	// should be shorter than the manager's PrepareTimeout; see also Tx.Queue.
	// Defaults to the DSN's lock_timeout, or else 5 s.
	LockTimeout time.Duration

	// StatementTimeout is the server's statement_timeout for branches. Defaults to the DSN's or
	// the server's own.
	StatementTimeout time.Duration

	// MaxMessage is the greatest message in bytes that is taken from the server: a row of a result,
	// above all. A statement that has a greater one fails with the code Capacity, and its branch's
	// session ends. Defaults to 64 MiB; PostgreSQL itself allows 1 GiB.
	MaxMessage int

	// Isolation is the isolation level of branches that do not ask for one. Defaults to the
	// database's own.
	Isolation pgx.TxIsoLevel

	// Logger gets what the outcomes Hazard and the termination of sessions are founded on.
	// Defaults to no log.
	Logger *slog.Logger

	// Configure may change how pgx connects: TLS, a tracer, a dialler. It must be safe for one
	// call per pool. Simple protocol as the default mode is refused. It may be nil.
	Configure func(*pgx.ConnConfig)
}

func (c *Config) validate() error {
	if c.MaxConns < 0 || c.FinishConns < 0 {
		return fmt.Errorf("MaxConns is %d and FinishConns is %d; neither may be negative", c.MaxConns, c.FinishConns)
	}
	if c.MaxMessage != 0 && c.MaxMessage < leastMessage {
		return fmt.Errorf("MaxMessage is %d; at least %d bytes are needed", c.MaxMessage, leastMessage)
	}
	if c.ConnectTimeout < 0 || c.StatementTimeout < 0 {
		return errors.New("ConnectTimeout and StatementTimeout may not be negative")
	}
	if _, err := beginSQL(JoinOptions{Isolation: c.Isolation}); err != nil {
		return err
	}
	if c.MaxConns == 0 {
		c.MaxConns = 32
	}
	if c.FinishConns == 0 {
		c.FinishConns = 4
	}
	if c.MaxMessage == 0 {
		c.MaxMessage = 64 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// leastMessage is what a server's errors and notices need.
const leastMessage = 64 << 10

// Resource is one PostgreSQL database. It is safe for concurrent use.
type Resource struct {
	cfg    Config
	work   *pgxpool.Pool
	finish *pgxpool.Pool
	trips  atomic.Uint64
	// patience is closePatience.
	patience time.Duration

	mu       sync.Mutex // guards what follows; never held while anybody waits
	closed   bool
	branches map[string]*Tx // those that hold a connection, by the names of their ids
}

// Open returns the database that dsn names, in either form that libpq knows. It connects to
// nothing, so it succeeds while the database is down; it fails where dsn or cfg is wrong. No error
// shows a password. The context is not used after Open returns.
func Open(ctx context.Context, dsn string, cfg Config) (*Resource, error) {
	if err := cfg.validate(); err != nil {
		return nil, &resource.Error{Code: resource.Invalid, Op: "open", Err: err}
	}
	work, err := poolConfig(dsn, cfg, cfg.MaxConns)
	if err != nil {
		return nil, err
	}
	finish, err := poolConfig(dsn, cfg, cfg.FinishConns)
	if err != nil {
		return nil, err
	}
	r := &Resource{cfg: cfg, patience: closePatience, branches: map[string]*Tx{}}
	if r.work, err = pgxpool.NewWithConfig(ctx, work); err != nil {
		return nil, unavailable("open", err)
	}
	identified := finish.AfterConnect
	finish.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		if err := identified(ctx, conn); err != nil {
			return err
		}
		// These sessions are ours alone, and nobody's schema is to be in their path. A parameter of
		// the connection would be simpler, and poolers refuse it.
		_, err := simple(ctx, conn, "SET search_path TO pg_catalog, pg_temp")
		return err
	}
	if r.finish, err = pgxpool.NewWithConfig(ctx, finish); err != nil {
		r.work.Close()
		return nil, unavailable("open", err)
	}
	return r, nil
}

func poolConfig(dsn string, cfg Config, conns int32) (*pgxpool.Config, error) {
	c, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, badDSN()
	}
	c.MaxConns, c.MinConns, c.MinIdleConns = conns, 0, 0
	cc := c.ConnConfig
	switch {
	case cfg.ConnectTimeout > 0:
		cc.ConnectTimeout = cfg.ConnectTimeout
	case cc.ConnectTimeout == 0:
		cc.ConnectTimeout = 10 * time.Second
	}
	set := func(name, value string, force bool) {
		if _, ok := cc.RuntimeParams[name]; !ok || force {
			cc.RuntimeParams[name] = value
		}
	}
	cc.MaxProtocolMessageBodyLen = cfg.MaxMessage
	set("application_name", "assent", false)
	set("standard_conforming_strings", "on", true) // pgx's and our quoting rely on it
	set("client_encoding", "UTF8", true)
	switch {
	case cfg.LockTimeout > 0:
		set("lock_timeout", milliseconds(cfg.LockTimeout), true)
	case cfg.LockTimeout == 0:
		set("lock_timeout", "5000", false)
	}
	if cfg.StatementTimeout > 0 {
		set("statement_timeout", milliseconds(cfg.StatementTimeout), true)
	}
	if cfg.Configure != nil {
		cfg.Configure(cc)
	}
	if cc.DefaultQueryExecMode == pgx.QueryExecModeSimpleProtocol {
		return nil, &resource.Error{Code: resource.Invalid, Op: "open", Err: errors.New("the simple protocol cannot be the default mode")}
	}
	before := c.AfterConnect
	c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		if before != nil {
			if err := before(ctx, conn); err != nil {
				return err
			}
		}
		return identify(ctx, conn)
	}
	return c, nil
}

// milliseconds rounds up, for 0 would mean no bound.
func milliseconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Millisecond-1)/time.Millisecond), 10)
}

// badDSN never shows what was wrong where: masking passwords in malformed text is guesswork.
func badDSN() error {
	return &resource.Error{
		Code: resource.Invalid, Op: "open", Err: errors.New("the connection string, or a setting in it, is malformed"),
		Hint: "write it as postgres://user@host:5432/database?sslmode=verify-full or as key=value pairs; keep the password in a password file or in PGPASSWORD",
	}
}

// Close closes every connection. Branches that are still open lose theirs, as in a crash: the
// server rolls them back, and keeps those that are prepared. Statements that run are cancelled; where
// one does not return within 5 s (a CopyFrom whose source waits, say), Close returns an error, and
// its connection is closed when it does.
func (r *Resource) Close() error {
	r.mu.Lock()
	r.closed = true
	left := slices.Collect(maps.Values(r.branches))
	r.mu.Unlock()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		var group sync.WaitGroup
		for _, t := range left {
			group.Go(t.abandon)
		}
		group.Go(r.work.Close)
		group.Go(r.finish.Close)
		group.Wait()
	}()
	timer := time.NewTimer(r.patience)
	defer timer.Stop()
	select {
	case <-closed:
		return nil
	case <-timer.C:
	}
	conns := r.work.Stat().TotalConns() + r.finish.Stat().TotalConns()
	return &resource.Error{
		Code: resource.Unavailable, Op: "close", Err: fmt.Errorf("calls that hold %d connections have not returned after %v", conns, r.patience),
		Hint: "end whatever still works in a branch before the resource is closed",
	}
}

// closePatience is for how long Close waits for statements that it has cancelled.
const closePatience = 5 * time.Second

// Stats are counts since Open, and the connections of this moment.
type Stats struct {
	// RoundTrips counts the requests that branches and recovery sent and waited for. Statements
	// that pgx prepares when it sees them first are not counted.
	RoundTrips uint64 `json:"roundTrips"`
	// WorkConns and FinishConns are the connections that exist.
	WorkConns   int32 `json:"workConns"`
	FinishConns int32 `json:"finishConns"`
}

// Stats returns r's counts.
func (r *Resource) Stats() Stats {
	return Stats{RoundTrips: r.trips.Load(), WorkConns: r.work.Stat().TotalConns(), FinishConns: r.finish.Stat().TotalConns()}
}

// Begin opens the branch id. The branch is a *Tx. An id is for one branch: one whose branch still holds a
// connection is refused with the code Invalid. Where that connection is lost, or the branch is another
// process's, a second branch of the same id is not noticed, and whoever rolls it back may roll back the first,
// because the server knows prepared transactions by their ids alone.
func (r *Resource) Begin(ctx context.Context, id resource.ID) (resource.Branch, error) {
	return r.begin(ctx, id)
}

func (r *Resource) begin(ctx context.Context, id resource.ID) (*Tx, error) {
	if err := id.Validate(); err != nil {
		return nil, &resource.Error{Code: resource.Invalid, Op: "begin", Err: err}
	}
	conn, err := r.work.Acquire(ctx)
	if err != nil {
		return nil, unavailable("begin", err)
	}
	t := newTx(r, id, conn)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		conn.Release()
		return nil, &resource.Error{Code: resource.Unavailable, Op: "begin", Err: errors.New("the resource is closed")}
	}
	if r.branches[t.gid] != nil {
		conn.Release()
		return nil, &resource.Error{
			Code: resource.Invalid, Op: "begin", Err: fmt.Errorf("the branch %s has begun and is not over", t.gid),
			Hint: "give every branch an id of its own",
		}
	}
	r.branches[t.gid] = t
	return t, nil
}

// finished forgets a branch that no longer holds a connection.
func (r *Resource) finished(t *Tx) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.branches[t.gid] == t {
		delete(r.branches, t.gid)
	}
}

// Join returns tx's branch in r, beginning it if it has none yet. Options apply to a branch that
// has not done any work; at most one may be given.
func (r *Resource) Join(ctx context.Context, tx resource.Transaction, options ...JoinOptions) (*Tx, error) {
	b, err := tx.Join(ctx, r)
	if err != nil {
		return nil, err
	}
	t, ok := b.(*Tx)
	if !ok {
		return nil, &resource.Error{Code: resource.Invalid, Op: "join", Err: fmt.Errorf("the branch is a %T", b)}
	}
	for _, o := range options {
		if err := t.setOptions(ctx, o); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// session is what is known of one connection's server.
type session struct {
	system   string // the cluster's system identifier
	timeline string // as eight hexadecimal digits; empty on a standby
	role     string // the user that owns what is prepared here
	standby  bool
	// incarnation changes whenever the server recovers from a crash, which may lose transaction
	// numbers that no stable record mentions, and give them to others.
	incarnation string
	// backend selects the session in pg_stat_activity: its process, which a pooler in the path may
	// hide from the driver, and when that began.
	backend string
	// lockTimeout is the session's lock_timeout; 0 is none.
	lockTimeout time.Duration
	// bundles is whether statements may be prepared in the session: the default, which Config.Configure
	// may change.
	bundles bool
	// tracer is the application's, or nil.
	tracer pgx.BatchTracer
}

const sessionKey = "assent"

// identifySQL asks what a session is, once per connection. A branch that commits in one phase
// must not be lost in a crash, so a session that would not wait for the log is made to. A server
// drops its statistics when, and only when, it recovers from a crash, or when it is told to.
//
// Here, and in every statement of ours that a branch's session runs, functions, types and operators
// have their schema's name: the search path is the user's, and somebody may have put others of the
// same name in the way (PostgreSQL manual, 10.3; CVE-2018-1058).
const identifySQL = `SELECT s.system_identifier::pg_catalog.text, pg_catalog.pg_is_in_recovery()::pg_catalog.text,
CASE WHEN pg_catalog.pg_is_in_recovery() THEN '' ELSE pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8) END,
current_user::pg_catalog.text,
CASE WHEN pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off'
	THEN pg_catalog.set_config('synchronous_commit', 'local', false) END,
(SELECT coalesce(extract(epoch FROM stats_reset), 0)::pg_catalog.text FROM pg_catalog.pg_stat_bgwriter),
(SELECT pg_catalog.to_char(backend_start AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS') FROM pg_catalog.pg_stat_activity
	WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()),
pg_catalog.pg_backend_pid()::pg_catalog.text,
(SELECT setting FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) 'lock_timeout')
FROM pg_catalog.pg_control_system() AS s`

// watchSQL makes a session whose client dies notice that while a statement runs, where nobody has said
// how often to look.
const watchSQL = "SELECT pg_catalog.set_config('client_connection_check_interval', '1s', false)" +
	" WHERE pg_catalog.current_setting('client_connection_check_interval', true) OPERATOR(pg_catalog.=) '0'"

// backendCondition selects a session in pg_stat_activity by its process and its start, which are
// digits; else it is empty.
func backendCondition(pid, start string) string {
	for _, text := range []string{pid, start} {
		if text == "" || strings.Trim(text, "0123456789") != "" {
			return ""
		}
	}
	return "pid = " + pid + " AND pg_catalog.to_char(backend_start AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS') = '" + start + "'"
}

// notIdle leaves out a session that is in no transaction: a pooler that keeps sessions may have given it
// to somebody else. A session that is idle may have a request in its socket; it is left out only where
// none of ours can prepare or commit.
const notIdle = " AND state IS DISTINCT FROM 'idle'"

func identify(ctx context.Context, conn *pgx.Conn) error {
	rows, err := simple(ctx, conn, identifySQL)
	if err != nil {
		return fmt.Errorf("ask the server for its identity: %w", err)
	}
	row := rows[len(rows)-1].row
	if len(row) != 9 {
		return errors.New("ask the server for its identity: no answer")
	}
	wait, err := strconv.ParseInt(row[8], 10, 32)
	if err != nil {
		return fmt.Errorf("the server's lock_timeout: %w", err)
	}
	cfg := conn.Config()
	tracer, _ := cfg.Tracer.(pgx.BatchTracer)
	conn.PgConn().CustomData()[sessionKey] = session{
		bundles: cfg.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement, tracer: tracer,
		system: row[0], standby: row[1] == "true", timeline: row[2], role: row[3], incarnation: row[5],
		backend: backendCondition(row[7], row[6]), lockTimeout: time.Duration(wait) * time.Millisecond,
	}
	_, _ = simple(ctx, conn, watchSQL) // some platforms cannot
	if conn.IsClosed() {
		return errConnLost
	}
	return nil
}

func sessionOf(conn *pgx.Conn) session {
	s, _ := conn.PgConn().CustomData()[sessionKey].(session) // set by identify on every connection
	return s
}

// answer is one statement's result in the simple protocol: its tag and its last row, as text.
type answer struct {
	tag pgconn.CommandTag
	row []string
}

// simple runs statements in one round trip of the simple protocol, in which nothing is prepared
// or cached. It returns the answers before the first error, and that error.
func simple(ctx context.Context, conn *pgx.Conn, sql string) ([]answer, error) {
	return collect(conn.PgConn().Exec(ctx, sql))
}

// collect waits for the answers to what was sent.
func collect(results *pgconn.MultiResultReader) ([]answer, error) {
	var answers []answer
	for results.NextResult() {
		var a answer
		reader := results.ResultReader()
		for reader.NextRow() {
			a.row = a.row[:0]
			for _, v := range reader.Values() {
				a.row = append(a.row, string(v))
			}
		}
		var err error
		if a.tag, err = reader.Close(); err != nil {
			break // Close returns it too
		}
		answers = append(answers, a)
	}
	err := results.Close()
	return answers, err
}
