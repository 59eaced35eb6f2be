package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

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
// query, and must not change before they are sent. A branch whose queue travels with PREPARE is never ReadOnly.
func (t *Tx) Queue(sql string, arguments ...any) *Queued {
	q := &Queued{sql: sql, arguments: arguments}
	if !t.free() {
		t.doom(busy(opQueue))
		return q
	}
	defer t.yield()
	err := t.rewrite(q)
	if err == nil {
		err = t.refuse(q.sql, q.arguments)
	}
	if err != nil {
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

// rewrite does what an argument that rewrites the statement asks for: pgx.NamedArgs, say.
func (t *Tx) rewrite(q *Queued) error {
	if len(q.arguments) == 0 || t.conn == nil {
		return nil
	}
	rewriter, ok := q.arguments[0].(pgx.QueryRewriter)
	if !ok {
		return nil
	}
	var err error
	q.sql, q.arguments, err = rewriter.RewriteQuery(context.Background(), t.conn.Conn(), q.sql, q.arguments[1:])
	return err
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

// bundle is a queue with what goes before and behind it, to be sent in one request.
type bundle struct {
	batch
	begins   bool // BEGIN is the first
	numbers  bool // the transaction's number follows
	locks    bool // with the branch's lock
	limits   bool // lock_timeout follows
	prepares bool // PREPARE TRANSACTION is the last
	queue    []*Queued
}

// bundle makes the request that flushes the queue, or one that prepares the branch, too; then the lock is
// not needed where the session can be told from others, see the package comment, and LockLimit is the
// transaction's lock_timeout where it is not 0.
func (t *Tx) bundle(prepares bool, lockLimit time.Duration) *bundle {
	b := &bundle{
		begins: t.state == fresh, numbers: t.xid == 0, limits: lockLimit > 0,
		locks:    t.state == fresh && (!prepares || t.sess.backend == ""),
		prepares: prepares, queue: t.queue,
	}
	b.statements = make([]statement, 0, len(t.queue)+3)
	if b.begins {
		b.add(t.begin)
	}
	switch {
	case b.locks:
		b.add(claimSQL, t.lock)
	case b.numbers:
		b.add(numberSQL)
	}
	if b.limits {
		b.add(limitSQL, milliseconds(lockLimit))
	}
	for _, q := range b.queue {
		b.add(q.sql, q.arguments...)
	}
	if prepares {
		b.last = prepareSQL(t.gid)
	}
	return b
}

// dispatch sends a bundle. Its error fails the branch.
func (t *Tx) dispatch(ctx context.Context, b *bundle) error {
	t.queue = nil
	if tracer := t.sess.tracer; tracer != nil {
		ctx = b.follow(ctx, tracer, t.conn.Conn())
	}
	if err := t.learn(ctx, &b.batch); err != nil {
		b.end(err)
		return t.undispatched(ctx, err)
	}
	if err := t.build(&b.batch); err != nil {
		b.end(err)
		t.doom(err) // the session is as it was
		return err
	}
	t.r.trips.Add(1)
	t.tried = true
	if b.prepares {
		t.sent = sentPrepare
	}
	if err := t.submit(ctx, &b.batch); err != nil {
		return t.undispatched(ctx, err)
	}
	return nil
}

// undispatched takes the error of what was not sent, or not as a whole. The transaction may be as it was
// before, and must not be prepared without the queue.
func (t *Tx) undispatched(ctx context.Context, err error, tags ...pgconn.CommandTag) error {
	mapped := t.after(ctx, opQueue, err, tags...)
	if _, ok := errors.AsType[*pgconn.PgError](err); !ok {
		t.doom(mapped)
	}
	return mapped
}

// hear waits for the answers to a bundle. Failed is the error of a check; err that of the server or the
// connection.
func (t *Tx) hear(ctx context.Context, b *bundle) (failed, err error) {
	var tags []pgconn.CommandTag
	failed, tags, err = t.hearStatements(b)
	_, refused := errors.AsType[*pgconn.PgError](err)
	var tag pgconn.CommandTag
	var unprepared error
	if err == nil && b.prepares {
		tag, unprepared = b.next(nil)
	}
	if last := b.close(errors.Join(err, unprepared)); err == nil && unprepared == nil {
		err = last
	}
	if !b.prepares || err != nil {
		if refused && t.conn != nil && !t.conn.Conn().IsClosed() {
			t.sent = sentNothing // the server has left PREPARE out
		}
		return failed, t.after(ctx, opQueue, err, tags...)
	}
	return failed, t.hearPrepare(ctx, tags, tag.String(), unprepared)
}

// hearStatements waits for all answers but that to PREPARE TRANSACTION.
func (t *Tx) hearStatements(b *bundle) (failed error, tags []pgconn.CommandTag, err error) {
	if b.begins {
		if _, err = b.next(nil); err != nil {
			return nil, nil, err
		}
		t.begun, t.state = true, open
	}
	if b.numbers {
		var number error
		if _, err = b.next(func(row [][]byte) { number = t.setXID([]string{string(row[len(row)-1])}) }); err == nil {
			err = number
		}
		if err != nil {
			return nil, nil, err
		}
		t.locked = t.locked || b.locks
	}
	if b.limits {
		if _, err = b.next(nil); err != nil {
			return nil, nil, err
		}
	}
	tags = make([]pgconn.CommandTag, 0, len(b.queue))
	for _, q := range b.queue {
		tag, err := b.next(nil)
		if err != nil {
			return failed, tags, named(q.sql, err)
		}
		tags = append(tags, tag)
		if failed == nil {
			failed = q.checked(tag)
		}
	}
	return failed, tags, nil
}

// checked calls what was set by Exec.
func (q *Queued) checked(tag pgconn.CommandTag) error {
	if q.check == nil {
		return nil
	}
	if err := q.check(tag); err != nil {
		return named(q.sql, err)
	}
	return nil
}

// hearPrepare takes the answer to the PREPARE TRANSACTION behind statements with those tags: its tag, or why
// it was refused. It says nothing of a branch whose transaction a statement has ended: its number does, see
// unspoil.
func (t *Tx) hearPrepare(ctx context.Context, tags []pgconn.CommandTag, tag string, refused error) error {
	lost := t.conn == nil || t.conn.Conn().IsClosed()
	ours, undone := t.noteAll(tags)
	switch spoils := !ours || undone; {
	case lost:
		t.lose()
		return unavailable(opPrepare, refused)
	case spoils:
		t.sent = sentCommit
		cause := &resource.Error{Code: resource.Invalid, Op: opQueue, Err: errEnded, Hint: hintEnded}
		t.state, t.cause = spoiled, cause
		if tag == prepareTag {
			// What it prepared is another transaction, which bears the branch's name.
			if _, err := t.send(ctx, finishSQL(opRollback, t.gid)); err != nil {
				return mapError(opPrepare, err)
			}
		}
		return cause
	case refused != nil:
		t.unlearn()
		return t.failed(opPrepare, refused)
	case tag != prepareTag:
		return t.mistagged(opPrepare, tag)
	}
	t.state, t.sent = prepared, nothingDoubtful
	return nil
}

func named(sql string, err error) error { return fmt.Errorf("queued statement %.80q: %w", sql, err) }

// flush sends what is queued and waits for it.
func (t *Tx) flush(ctx context.Context) error {
	if len(t.queue) == 0 {
		return nil
	}
	if !t.sess.bundles {
		return t.flushUnprepared(ctx)
	}
	b := t.bundle(false, 0)
	err := t.dispatch(ctx, b)
	if err != nil {
		return err
	}
	failed, err := t.hear(ctx, b)
	if err == nil && failed != nil {
		t.doom(failed)
		return failed
	}
	return err
}

// flushUnprepared is flush where statements are not to be prepared: pgx sends them as its mode says.
func (t *Tx) flushUnprepared(ctx context.Context) error {
	queue := t.queue
	t.queue = nil
	if err := t.start(ctx, opQueue); err != nil {
		return t.undispatched(ctx, err)
	}
	all := &pgx.Batch{}
	for _, q := range queue {
		all.Queue(q.sql, q.arguments...)
	}
	t.r.trips.Add(1)
	results := t.conn.SendBatch(ctx, all)
	var failed, err error
	var tags []pgconn.CommandTag
	for _, q := range queue {
		tag, refused := results.Exec()
		if refused != nil {
			err = named(q.sql, refused)
			break
		}
		tags = append(tags, tag)
		if failed == nil {
			failed = q.checked(tag)
		}
	}
	if last := results.Close(); err == nil {
		err = last
	}
	if err != nil {
		return t.undispatched(ctx, err, tags...)
	}
	err = t.after(ctx, opQueue, nil, tags...)
	if err == nil && failed != nil {
		t.doom(failed)
		return failed
	}
	return err
}

// travels reports whether PREPARE TRANSACTION can be sent with the queue.
func (t *Tx) travels() bool { return t.sess.bundles && t.soiled == clean && t.queueIsLight() }

// prepareQueue sends what is queued and PREPARE TRANSACTION behind it, without waiting where the session knows
// the statements. The server leaves PREPARE out after a statement that failed. The caller has the branch's
// turn until the returned function, which waits for the vote, has returned.
func (t *Tx) prepareQueue(ctx context.Context, b *bundle) (answer func() (resource.Vote, error)) {
	unsent := t.dispatch(ctx, b)
	return func() (resource.Vote, error) {
		if unsent != nil {
			return t.promised(unsent)
		}
		failed, err := t.hear(ctx, b)
		if err == nil {
			err = failed // it is prepared, and will be rolled back
		}
		return t.promised(err)
	}
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
