package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"assent/resource"
)

// Queued is a statement that is sent later; see Tx.Queue.
type Queued struct {
	sql       string
	arguments []any
	check     func(pgconn.CommandTag) error
}

// Exec sets what is called with the statement's command tag when that is known: to see that a row was
// changed, say. It must not use the branch. Its error fails the branch, as a statement's own does.
func (q *Queued) Exec(check func(pgconn.CommandTag) error) { q.check = check }

const opQueue = "queue"

// maxQueued bounds the statements of a queue.
const maxQueued = 1024

// Queue leaves a statement to be sent with whatever comes next, in one round trip: with the statements
// that are queued behind it, before the next statement that is not queued; or, where none comes, with
// PREPARE TRANSACTION. A branch whose statements are all queued takes one round trip to be prepared and
// one to be committed; PREPARE takes one of its own behind a queue of more than 32 KiB. It is for
// statements whose results the application need not see before it commits; rows are dropped.
//
// Statements run in the order in which they were queued. One that fails fails the branch: the error
// names it, and is that of the next statement that is not queued or, like that of a statement which
// Queue refuses, of Tx.Commit or Run of package assent; the transaction aborts.
//
// A lock that a statement takes in the round trip of PREPARE is taken when the other branches prepare, too:
// transactions that queue statements on the same rows of several databases can wait for each other there,
// in a deadlock that no server sees. So such a statement waits for a lock no longer than three quarters of
// the time that is left to prepare, and fails with the code LockTimeout then, after which Run of package assent
// runs the transaction again.
//
// Each is one statement. It cannot end the transaction, set the session or roll back to a savepoint, and
// is no COPY: Exec and CopyFrom are for that. Arguments are pgx's, without its options for a single
// query, and must not change before they are sent. A branch with a queue is never ReadOnly.
func (t *Tx) Queue(sql string, arguments ...any) *Queued {
	q := &Queued{sql: sql, arguments: arguments}
	if !t.free() {
		t.doom(busy(opQueue))
		return q
	}
	defer t.yield()
	if err := t.refuse(sql, arguments); err != nil {
		t.doom(&resource.Error{Code: resource.Invalid, Op: opQueue, Err: err, Hint: "run it by Exec, or COPY by CopyFrom"})
		return q
	}
	t.queue = append(t.queue, q)
	return q
}

// refuse reports why a statement cannot be queued, or nil.
func (t *Tx) refuse(sql string, arguments []any) error {
	word := firstWord(sql)
	switch {
	case t.state != fresh && t.state != open:
		return errors.New("the branch is no longer open for work")
	case len(t.queue) >= maxQueued:
		return fmt.Errorf("%d statements are queued; no more are allowed", maxQueued)
	case riskyWords[word] != clean || endsTransaction[word] || word == "COPY":
		return errors.New(word + " cannot be queued")
	case sql == "" || len(arguments) > 0 && !pipelined(sql, arguments):
		return errors.New("an empty statement, or one with options of its own, cannot be queued")
	}
	return nil
}

// claimSQL takes the branch's lock and a transaction number; numberSQL takes the number alone.
const (
	claimSQL  = "SELECT pg_catalog.pg_advisory_xact_lock_shared($1::bigint), pg_catalog.pg_current_xact_id()::pg_catalog.text"
	numberSQL = "SELECT NULL, pg_catalog.pg_current_xact_id()::pg_catalog.text"
)

// limitSQL sets the lock_timeout of a transaction whose queue travels with PREPARE.
const limitSQL = "SELECT pg_catalog.set_config('lock_timeout', $1, true)"

// lockLimit is how long statements that travel with PREPARE may wait for a lock: three quarters of what
// ctx leaves, so that it is the server who ends a wait and says so. It is 0 where the session's own limit is as short.
func (t *Tx) lockLimit(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	limit := time.Until(deadline) / 4 * 3
	if own := t.sess.lockTimeout; !ok || limit <= 0 || own > 0 && own <= limit {
		return 0
	}
	return limit
}

// queueResults are the results of a queue that was sent.
type queueResults struct {
	pgx.BatchResults
	begins bool // BEGIN is the first
	claims bool // the transaction's number follows
	limits bool // lock_timeout follows
	queue  []*Queued
	sent   bool // else pgx has refused a statement, or the server has, when it was prepared
}

// sendQueue sends what is queued, behind BEGIN and the lock where the transaction has not begun. LockLimit
// is the transaction's lock_timeout from now on, where it is not 0.
func (t *Tx) sendQueue(ctx context.Context, lockLimit time.Duration) *queueResults {
	r := &queueResults{begins: t.state == fresh, claims: t.xid == 0, limits: lockLimit > 0, queue: t.queue}
	t.queue = nil
	b := &pgx.Batch{}
	if r.begins {
		b.Queue(t.begin)
		b.Queue(claimSQL, t.lock)
	} else if r.claims {
		b.Queue(numberSQL)
	}
	if r.limits {
		b.Queue(limitSQL, milliseconds(lockLimit))
	}
	for _, q := range r.queue {
		b.Queue(q.sql, q.arguments...)
	}
	t.r.trips.Add(1)
	t.tried = true
	r.BatchResults = t.conn.SendBatch(ctx, b)
	r.sent = t.conn.Conn().PgConn().IsBusy()
	return r
}

// readQueue reads the results. Failed is the error of a check; err that of pgx, the server or the
// connection.
func (t *Tx) readQueue(ctx context.Context, r *queueResults) (failed, err error) {
	if !r.sent {
		return nil, t.refused(ctx, r.BatchResults.Close())
	}
	if r.begins {
		if _, err = r.BatchResults.Exec(); err == nil {
			t.begun, t.state = true, open
		}
	}
	if r.claims && err == nil {
		err = t.readMark(r.BatchResults, nil)
	}
	if r.limits && err == nil {
		_, err = r.BatchResults.Exec()
	}
	tags := make([]pgconn.CommandTag, 0, len(r.queue))
	for i := 0; i < len(r.queue) && err == nil; i++ {
		q := r.queue[i]
		var tag pgconn.CommandTag
		if tag, err = r.BatchResults.Exec(); err != nil {
			err = named(q.sql, err)
			break
		}
		tags = append(tags, tag)
		if q.check != nil && failed == nil {
			if failed = q.check(tag); failed != nil {
				failed = named(q.sql, failed)
			}
		}
	}
	if last := r.BatchResults.Close(); err == nil {
		err = last
	}
	if err == nil {
		t.learn(r)
	}
	return failed, t.after(ctx, opQueue, err, tags...)
}

// knownKey is where a session keeps the statements that were queued in it: pgx has prepared them. Of one
// that it has not it waits for the server before it sends anything.
const knownKey = "assent queued"

// mostKnown bounds the statements that are remembered; pgx keeps 512 prepared.
const mostKnown = 256

func (t *Tx) learn(r *queueResults) {
	data := t.conn.Conn().PgConn().CustomData()
	known, _ := data[knownKey].(map[string]bool)
	if known == nil || len(known)+len(r.queue) > mostKnown {
		known = map[string]bool{}
		data[knownKey] = known
	}
	if r.begins {
		known[t.begin] = true
	} else if r.claims {
		known[numberSQL] = true
	}
	if r.limits {
		known[limitSQL] = true
	}
	for _, q := range r.queue {
		known[q.sql] = true
	}
}

// unlearn forgets them after an error: pgx drops what it has prepared of a batch that failed, and of more.
func (t *Tx) unlearn() { delete(t.conn.Conn().PgConn().CustomData(), knownKey) }

// queueIsKnown reports whether the queue can be sent without waiting.
func (t *Tx) queueIsKnown(lockLimit time.Duration) bool {
	known, _ := t.conn.Conn().PgConn().CustomData()[knownKey].(map[string]bool)
	switch {
	case t.state == fresh && !known[t.begin], t.state != fresh && t.xid == 0 && !known[numberSQL], lockLimit > 0 && !known[limitSQL]:
		return false
	}
	for _, q := range t.queue {
		if !known[q.sql] {
			return false
		}
	}
	return true
}

func named(sql string, err error) error { return fmt.Errorf("queued statement %.80q: %w", sql, err) }

// refused takes the error of a queue that was not sent as a whole. Where pgx refused an argument, it has
// closed the session, which is not what the caller must hear.
func (t *Tx) refused(ctx context.Context, err error) error {
	mapped := t.after(ctx, opQueue, err)
	statement, ok := errors.AsType[interface {
		error
		SQL() string
	}](err)
	if _, server := errors.AsType[*pgconn.PgError](err); !ok || server || lost(err) {
		return mapped
	}
	return named(statement.SQL(), err)
}

// flush sends what is queued and waits for it.
func (t *Tx) flush(ctx context.Context) error {
	if len(t.queue) == 0 {
		return nil
	}
	failed, err := t.readQueue(ctx, t.sendQueue(ctx, 0))
	if err == nil && failed != nil {
		t.doom(failed)
		return failed
	}
	return err
}

// prepareQueue sends what is queued and PREPARE TRANSACTION behind it, without waiting. The server answers
// PREPARE after a statement that failed with the tag ROLLBACK. The caller has the branch's turn until the
// returned function, which waits for the vote, has returned.
func (t *Tx) prepareQueue(ctx context.Context) (answer func() (resource.Vote, error)) {
	results := t.sendQueue(ctx, t.lockLimit(ctx))
	conn := t.conn.Conn().PgConn()
	var unsent error
	if results.sent {
		t.sent = sentPrepare
		conn.Frontend().SendQuery(&pgproto3.Query{String: prepareSQL(t.gid)})
		unsent = conn.Frontend().Flush()
	}
	return func() (resource.Vote, error) {
		failed, err := t.readQueue(ctx, results)
		if results.sent && t.state != gone {
			err = errors.Join(err, t.hearPrepare(ctx, unsent))
		}
		if err == nil {
			err = failed // it is prepared, and will be rolled back
		}
		return t.promised(single(err))
	}
}

// hearPrepare waits for the answer to PREPARE TRANSACTION, which was sent in the simple protocol behind a
// queue. Unsent is why it may not have been sent after all. The answer says nothing of a branch whose
// transaction a queued statement has ended: its number does, see unspoil.
func (t *Tx) hearPrepare(ctx context.Context, unsent error) error {
	tag, refused, lost := "", error(nil), unsent
	for answered := false; lost == nil && !answered; {
		var message pgproto3.BackendMessage
		message, lost = t.conn.Conn().PgConn().ReceiveMessage(ctx)
		switch m := message.(type) {
		case *pgproto3.CommandComplete:
			tag = string(m.CommandTag)
		case *pgproto3.ErrorResponse:
			refused = pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			answered = true
		}
	}
	if t.state == spoiled {
		t.sent = sentCommit
	}
	switch {
	case lost != nil:
		t.lose() // or whoever uses the session next would hear the answer
		return unavailable(opPrepare, single(errors.Join(refused, lost)))
	case t.state == spoiled && tag == prepareTag:
		// What it prepared is another transaction, which bears the branch's name.
		_, err := t.send(ctx, finishSQL(opRollback, t.gid))
		return mapError(opPrepare, err)
	case t.state == spoiled:
		return nil
	case refused != nil:
		return t.failed(opPrepare, refused)
	case tag != prepareTag:
		return t.mistagged(opPrepare, tag)
	}
	t.state, t.sent = prepared, nothingDoubtful
	return nil
}

// queueFits reports why the queue cannot be sent before op ends the branch, or nil. Nothing is asked of a
// branch's session before: it may be gone.
func (t *Tx) queueFits(op string) error {
	if t.state != fresh {
		return t.fit(op)
	}
	if doomed := t.fate(); doomed != nil {
		return t.broken(op, doomed)
	}
	return nil
}
