package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"assent/protocol/commit"
	"assent/resource"
)

// state is how far a branch has come.
type state uint8

const (
	fresh    state = iota // no BEGIN was answered
	open                  // in its transaction, which may have failed
	spoiled               // only to be rolled back: see Tx.cause
	prepared              // prepared, on its own session
	left                  // read-only and over
	gone                  // the session is lost: what there is, is found by id
	ended                 // over: see Tx.outcome
)

// soil is what a branch may leave behind in its session.
type soil uint8

const (
	clean soil = iota
	resettable
	ruined
)

// doubt says what a branch has sent without hearing of it.
type doubt uint8

const (
	sentNothing     doubt = iota // neither PREPARE nor COMMIT
	sentPrepare                  // PREPARE, and no yes vote was given
	sentCommit                   // COMMIT of a branch that is not prepared
	nothingDoubtful              // a yes vote was given: the transaction's number is stable
)

// Tx is a branch in a PostgreSQL database: one transaction on a connection of its own. Its work
// methods are for one goroutine at a time, and only until the transaction is prepared: a branch in
// which a statement still runs then is not prepared, and votes no. A statement that fails leaves the
// branch fit for nothing but rollback, unless it stands behind a savepoint.
// The transaction manager begins and ends the transaction: a branch whose user ends it, by COMMIT
// say, is refused at Prepare and reported.
type Tx struct {
	r    *Resource
	id   resource.ID
	gid  string
	lock int64

	// turn is held, by putting a value into it, by the call that is at work in the branch, also of
	// rows. All below is read and changed by that call alone.
	turn   chan struct{}
	conn   *pgxpool.Conn
	sess   session
	begin  string
	state  state
	tried  bool // BEGIN was sent
	begun  bool // BEGIN was answered
	locked bool // the branch's lock was
	wrote  bool // a command tag says so
	asked  bool // whether there is a transaction number was asked
	sent   doubt
	soiled soil
	xid    uint64
	rows   *rows
	queue  []*Queued // to be sent with whatever comes next
	// cause is the first error of a transaction that cannot go on.
	cause   error
	outcome commit.Outcome

	running sync.Mutex         // guards what follows; never held while anybody waits
	cancel  context.CancelFunc // of the statement that runs
	doomed  error              // why no statement may run any more, and nothing be prepared
}

func newTx(r *Resource, id resource.ID, conn *pgxpool.Conn) *Tx {
	begin, _ := beginSQL(JoinOptions{Isolation: r.cfg.Isolation}) // Open has checked it
	gid := id.String()
	return &Tx{
		r: r, id: id, gid: gid, lock: lockKey(gid), turn: make(chan struct{}, 1),
		conn: conn, sess: sessionOf(conn.Conn()), begin: begin,
	}
}

// take waits for the branch's turn for as long as ctx allows. It needs no waiting, and no ctx, where
// nothing is at work.
func (t *Tx) take(ctx context.Context, op string) error {
	if t.free() {
		return nil
	}
	select {
	case t.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &resource.Error{Code: resource.Unavailable, Op: op, Detail: busyText, Err: ctx.Err()}
	}
}

// takeToWork is take for a statement. One that was not run has failed, like any other.
func (t *Tx) takeToWork(ctx context.Context, op string) error {
	err := t.take(ctx, op)
	if err != nil {
		t.doom(err)
	}
	return err
}

// free takes the branch's turn if nothing is at work, and reports whether it did.
func (t *Tx) free() bool {
	select {
	case t.turn <- struct{}{}:
		return true
	default:
		return false
	}
}

// yield gives the turn back.
func (t *Tx) yield() { <-t.turn }

const busyText = "a statement is still running in the branch"

// busy is the error of who would end a branch in which work goes on.
func busy(op string) error {
	return &resource.Error{
		Code: resource.Invalid, Op: op, Err: errors.New(busyText),
		Hint: "wait until every goroutine that works in the branch has returned before the transaction is committed",
	}
}

// lockKey makes the key of the advisory lock by which a branch's session is found.
func lockKey(gid string) int64 {
	sum := sha256.Sum256([]byte(gid))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// JoinOptions are a branch's transaction modes.
type JoinOptions struct {
	// Isolation defaults to Config.Isolation.
	Isolation pgx.TxIsoLevel
	// ReadOnly makes the server refuse writes.
	ReadOnly bool
}

func beginSQL(o JoinOptions) (string, error) {
	sql := "BEGIN"
	switch o.Isolation {
	case "":
	case pgx.Serializable, pgx.RepeatableRead, pgx.ReadCommitted, pgx.ReadUncommitted:
		sql += " ISOLATION LEVEL " + strings.ToUpper(string(o.Isolation))
	default:
		return "", fmt.Errorf("there is no isolation level %q", o.Isolation)
	}
	if o.ReadOnly {
		sql += " READ ONLY"
	}
	return sql, nil
}

func (t *Tx) setOptions(ctx context.Context, o JoinOptions) error {
	if o.Isolation == "" {
		o.Isolation = t.r.cfg.Isolation
	}
	sql, err := beginSQL(o)
	if err := t.take(ctx, "join"); err != nil {
		return err
	}
	defer t.yield()
	if err == nil && t.state != fresh && sql != t.begin {
		err = errors.New("the branch has begun with other options")
	}
	if err != nil {
		return &resource.Error{Code: resource.Invalid, Op: "join", Err: err}
	}
	t.begin = sql
	return nil
}

// ID returns the branch's id.
func (t *Tx) ID() resource.ID { return t.id }

func (t *Tx) status() byte { return t.conn.Conn().PgConn().TxStatus() }

// send runs statements of our own on the branch's session.
func (t *Tx) send(ctx context.Context, sql string) ([]answer, error) {
	t.r.trips.Add(1)
	return simple(ctx, t.conn.Conn(), sql)
}

// request sends statements of our own on the branch's session. The returned function waits for the
// answers.
func (t *Tx) request(ctx context.Context, sql string) func() ([]answer, error) {
	t.r.trips.Add(1)
	results := t.conn.Conn().PgConn().Exec(ctx, sql)
	return func() ([]answer, error) { return collect(results) }
}

// enter checks that work may be done and makes it interruptible. The caller has the turn, and calls
// the returned function when the work is over.
func (t *Tx) enter(ctx context.Context, op string) (context.Context, context.CancelFunc, error) {
	var err error
	switch {
	case t.state == spoiled:
		err = t.broken(op, t.cause)
	case t.state == gone:
		err = t.broken(op, errConnLost)
	case t.state != fresh && t.state != open:
		err = &resource.Error{Code: resource.Invalid, Op: op, Err: errors.New("the branch is no longer open for work")}
	case t.rows != nil:
		err = &resource.Error{
			Code: resource.Invalid, Op: op, Err: errors.New("the rows of an earlier query are still open"),
			Hint: "read all rows or close them before the next statement",
		}
	case t.state == open && t.conn.Conn().IsClosed():
		t.lose()
		err = t.broken(op, errConnLost)
	}
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	t.running.Lock()
	defer t.running.Unlock()
	if t.doomed != nil { // seen here, under the lock, or interrupt might come too early to cancel it
		cancel()
		return nil, nil, t.broken(op, t.doomed)
	}
	t.cancel = cancel
	return ctx, func() {
		t.running.Lock()
		t.cancel = nil
		t.running.Unlock()
		cancel()
	}, nil
}

// interrupt cancels the statement that runs, if any, and lets no other begin.
func (t *Tx) interrupt() {
	t.doom(errUndoing)
	t.running.Lock()
	defer t.running.Unlock()
	if t.cancel != nil {
		t.cancel()
	}
}

var errUndoing = errors.New("the branch is being rolled back")

// doom makes sure that no statement begins from now on and that the branch is not prepared. The
// first reason stays.
func (t *Tx) doom(why error) {
	t.running.Lock()
	defer t.running.Unlock()
	if t.doomed == nil {
		t.doomed = why
	}
}

// fate returns why the branch is doomed, or nil.
func (t *Tx) fate() error {
	t.running.Lock()
	defer t.running.Unlock()
	return t.doomed
}

// end is the end of the branch, with its outcome proven.
func (t *Tx) end(outcome commit.Outcome) {
	t.release()
	t.outcome, t.state = outcome, ended
}

// lose gives the session up for lost and closes it, whatever its state.
func (t *Tx) lose() {
	if t.conn != nil {
		closeNow(t.conn)
		t.conn = nil
		t.r.finished(t)
	}
	t.state = gone
}

// abandon takes the connection away from a branch that nobody may finish any more. It waits for a
// statement that runs, which it has cancelled, to return.
func (t *Tx) abandon() {
	t.interrupt()
	t.turn <- struct{}{}
	defer t.yield()
	if t.rows != nil {
		t.rows.close()
	}
	if t.conn != nil {
		t.lose()
	}
}

// closeNow closes a connection without waiting for anybody and takes it out of its pool.
func closeNow(conn *pgxpool.Conn) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = conn.Conn().Close(ctx) // it is given up
	conn.Release()
}

// release gives the connection back: the pool drops it unless it is alive and outside of any
// transaction. What the branch may have left behind in the session is undone first.
func (t *Tx) release() {
	conn := t.conn
	if conn == nil {
		return
	}
	t.conn = nil
	t.r.finished(t)
	switch {
	case t.soiled == clean || conn.Conn().IsClosed():
		conn.Release()
	case t.soiled == ruined:
		closeNow(conn)
	default:
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_, err := simple(ctx, conn.Conn(), "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL")
			if err == nil {
				err = identify(ctx, conn.Conn())
			}
			if err != nil {
				closeNow(conn)
				return
			}
			conn.Release()
		}()
	}
}

var (
	errEnded   = errors.New("a statement of the caller ended the transaction, or began one")
	hintEnded  = "leave BEGIN, COMMIT, ROLLBACK and PREPARE TRANSACTION to the transaction manager; SAVEPOINT and ROLLBACK TO are allowed"
	riskyWords = map[string]soil{
		"SET": resettable, "RESET": resettable,
		"PREPARE": ruined, "DEALLOCATE": ruined, "LISTEN": ruined, "UNLISTEN": ruined, "LOAD": ruined, "DISCARD": ruined,
	}
)

// after notes what a statement did to the branch and maps its error.
func (t *Tx) after(ctx context.Context, op string, err error, tags ...pgconn.CommandTag) error {
	if t.conn == nil && t.cause == nil && err != nil {
		t.cause = unavailable(op, err)
		return t.cause
	} else if t.conn == nil {
		return t.broken(op, errConnLost) // what became of the branch is known already
	}
	if t.conn.Conn().IsClosed() {
		t.lose()
		if err == nil {
			err = errConnLost
		}
		t.cause = unavailable(op, err)
		return t.cause
	}
	mapped := mapError(op, err)
	if err != nil {
		t.unlearn()
	}
	ours, undone := t.noteAll(tags)
	status := t.status()
	switch {
	case !t.begun:
		if _, ok := errors.AsType[*pgconn.PgError](err); ok {
			// The server refused the statement together with BEGIN.
			t.state, t.cause = spoiled, mapped
		}
		return mapped
	case status == 'I' || !ours || undone && (op == opQueue || status == 'T' && !t.holds(ctx)):
		// Nobody returns to a savepoint in a queue.
		cause := &resource.Error{Code: resource.Invalid, Op: op, Err: errEnded, Hint: hintEnded}
		t.state, t.cause = spoiled, cause
		return cause
	}
	t.state = open
	if status == 'T' {
		t.cause = nil
	} else if t.cause == nil {
		t.cause = mapped
	}
	return mapped
}

// noteAll notes all tags. Ours is whether none began or ended a transaction for certain, undone whether one
// rolled something back.
func (t *Tx) noteAll(tags []pgconn.CommandTag) (ours, undone bool) {
	ours = true
	for _, tag := range tags {
		begins, rolls := t.note(tag)
		ours = ours && !begins
		undone = undone || rolls
	}
	return ours, undone
}

// note takes from a command tag what the branch must know. It reports whether the statement began
// or ended a transaction for certain, and whether it rolled something back.
func (t *Tx) note(tag pgconn.CommandTag) (begins, rolls bool) {
	text := tag.String()
	word, _, _ := strings.Cut(text, " ")
	switch word {
	case "INSERT", "UPDATE", "DELETE", "MERGE", "COPY":
		t.wrote = t.wrote || tag.RowsAffected() > 0
	case "CREATE", "ALTER", "DROP", "TRUNCATE":
		t.wrote = true
	case "BEGIN", "START", "COMMIT":
		return true, false
	case "ROLLBACK":
		return false, true
	}
	if text == prepareTag {
		return true, false
	}
	t.soiled = max(t.soiled, riskyWords[word])
	return false, false
}

// holds reports whether the session is still in the transaction that the branch began: ROLLBACK
// TO keeps its lock, ROLLBACK AND CHAIN does not.
func (t *Tx) holds(ctx context.Context) bool {
	answers, err := t.send(ctx, "SELECT 1 FROM pg_catalog.pg_locks WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND "+lockCondition(t.lock))
	return err == nil && len(answers[0].row) == 1
}

// lockCondition selects the branch's lock in pg_locks (PostgreSQL manual, view pg_locks).
func lockCondition(key int64) string {
	return fmt.Sprintf("locktype OPERATOR(pg_catalog.=) 'advisory' AND objsubid OPERATOR(pg_catalog.=) 1::pg_catalog.int2"+
		" AND classid OPERATOR(pg_catalog.=) '%d'::pg_catalog.oid AND objid OPERATOR(pg_catalog.=) '%d'::pg_catalog.oid"+
		" AND database OPERATOR(pg_catalog.=) (SELECT oid FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database())",
		uint32(uint64(key)>>32), uint32(uint64(key)))
}
