package postgres

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"assent/resource"
)

// lockSQL takes the branch's lock; markSQL asks for the transaction's number too. One statement costs
// the server half as much as two.
const (
	lockSQL = "SELECT pg_catalog.pg_advisory_xact_lock_shared($1::bigint)"
	markSQL = "SELECT pg_catalog.pg_advisory_xact_lock_shared($1::bigint), pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text"
)

// Exec runs a statement, or several without arguments, and returns the last one's command tag.
// Arguments are pgx's.
func (t *Tx) Exec(ctx context.Context, sql string, arguments ...any) (pgconn.CommandTag, error) {
	if err := t.takeToWork(ctx, "exec"); err != nil {
		return pgconn.CommandTag{}, err
	}
	defer t.yield()
	ctx, done, err := t.enter(ctx, "exec")
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	defer done()
	if t.state == fresh && len(t.queue) == 0 && pipelined(sql, arguments) {
		b, err := t.first(ctx, sql, arguments)
		var tag pgconn.CommandTag
		if err == nil {
			tag, err = b.Exec()
			err = errors.Join(t.readMark(b, err), b.Close())
		}
		return tag, t.after(ctx, "exec", single(err), tag)
	}
	if err := t.start(ctx, "exec"); err != nil {
		return pgconn.CommandTag{}, err
	}
	t.r.trips.Add(1)
	if len(arguments) > 0 {
		tag, err := t.conn.Exec(ctx, sql, arguments...)
		return tag, t.after(ctx, "exec", err, tag)
	}
	answers, err := simple(ctx, t.conn.Conn(), sql)
	tags := make([]pgconn.CommandTag, len(answers)+1) // the last, for there may be none, is empty
	for i, a := range answers {
		tags[i] = a.tag
	}
	if err := t.after(ctx, "exec", err, tags...); err != nil {
		return pgconn.CommandTag{}, err
	}
	return tags[max(len(answers)-1, 0)], nil
}

// Query runs a query. The rows must be closed, or read to their end, before anything else is
// done in the branch. Their Conn is nil.
func (t *Tx) Query(ctx context.Context, sql string, arguments ...any) (pgx.Rows, error) {
	if err := t.takeToWork(ctx, "query"); err != nil {
		return &rows{t: t, err: err, closed: true}, err
	}
	defer t.yield()
	r, err := t.query(ctx, sql, arguments)
	if err != nil {
		return &rows{t: t, err: err, closed: true}, err
	}
	return r, nil
}

func (t *Tx) query(ctx context.Context, sql string, arguments []any) (*rows, error) {
	ctx, done, err := t.enter(ctx, "query")
	if err != nil {
		return nil, err
	}
	r := &rows{t: t, ctx: ctx, done: done, types: t.conn.Conn().TypeMap()}
	if t.state == fresh && len(t.queue) == 0 && pipelined(sql, arguments) {
		b, err := t.first(ctx, sql, arguments)
		if err != nil {
			done()
			return nil, t.after(ctx, "query", err)
		}
		r.batch = b
		r.inner, err = b.Query()
		r.early = err
	} else {
		if err := t.start(ctx, "query"); err != nil {
			done()
			return nil, err
		}
		t.r.trips.Add(1)
		r.inner, err = t.conn.Query(ctx, sql, arguments...)
		r.early = err
	}
	t.rows = r
	if r.early != nil {
		r.close()
		return nil, r.err
	}
	return r, nil
}

// QueryRow runs a query of which one row is wanted. Errors wait for Scan, which returns
// pgx.ErrNoRows where there is no row.
func (t *Tx) QueryRow(ctx context.Context, sql string, arguments ...any) pgx.Row {
	r, _ := t.Query(ctx, sql, arguments...) // Scan returns the error
	return row{r}
}

// CopyFrom inserts rows by the COPY protocol and returns their number.
func (t *Tx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, source pgx.CopyFromSource) (int64, error) {
	if err := t.takeToWork(ctx, "copy"); err != nil {
		return 0, err
	}
	defer t.yield()
	ctx, done, err := t.enter(ctx, "copy")
	if err != nil {
		return 0, err
	}
	defer done()
	if err := t.start(ctx, "copy"); err != nil {
		return 0, err
	}
	t.r.trips.Add(1)
	n, err := t.conn.CopyFrom(ctx, table, columns, source)
	t.wrote = t.wrote || n > 0
	return n, t.after(ctx, "copy", err)
}

// SendBatch runs b's statements in one round trip and returns the first error. Results go to the
// functions that are set on b's queued queries. Statements that set the session or end the
// transaction are refused in a batch.
func (t *Tx) SendBatch(ctx context.Context, b *pgx.Batch) error {
	if err := t.takeToWork(ctx, "batch"); err != nil {
		return err
	}
	defer t.yield()
	for _, q := range b.QueuedQueries {
		if word := firstWord(q.SQL); riskyWords[word] != clean || endsTransaction[word] {
			return &resource.Error{Code: resource.Invalid, Op: "batch", Err: errors.New(word + " cannot be part of a batch"), Hint: "run it by Exec"}
		}
	}
	ctx, done, err := t.enter(ctx, "batch")
	if err != nil {
		return err
	}
	defer done()
	if err := t.start(ctx, "batch"); err != nil {
		return err
	}
	t.r.trips.Add(1)
	return t.after(ctx, "batch", t.conn.SendBatch(ctx, b).Close())
}

var endsTransaction = map[string]bool{
	"BEGIN": true, "START": true, "COMMIT": true, "END": true, "ROLLBACK": true, "ABORT": true,
}

// firstWord returns the first word of a statement in upper case, past spaces and comments: those of
// PostgreSQL's scanner (scan.l), to which \v is a space from version 16.
func firstWord(sql string) string {
	for {
		sql = strings.TrimLeft(sql, " \t\r\n\f\v;")
		switch {
		case strings.HasPrefix(sql, "--"):
			sql = strings.TrimLeftFunc(sql, func(r rune) bool { return r != '\n' && r != '\r' })
		case strings.HasPrefix(sql, "/*"):
			sql = afterComment(sql)
		default:
			end := strings.IndexFunc(sql, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') })
			if end < 0 {
				end = len(sql)
			}
			return strings.ToUpper(sql[:end])
		}
	}
}

// afterComment returns what follows the comment with which sql begins; comments nest.
func afterComment(sql string) string {
	depth := 0
	for i := 0; i+1 < len(sql); i++ {
		switch sql[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
			if depth == 0 {
				return sql[i+1:]
			}
		}
	}
	return ""
}

// pipelined reports whether BEGIN can travel with the statement: it must be one statement, and
// without pgx's options, which a batch does not know.
func pipelined(sql string, arguments []any) bool {
	if len(arguments) == 0 {
		return false
	}
	switch arguments[0].(type) {
	case pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID:
		return false
	}
	return sql != ""
}

// start begins the transaction in a round trip of its own, where it has not begun, and sends what is
// queued.
func (t *Tx) start(ctx context.Context, op string) error {
	if len(t.queue) > 0 {
		return t.flush(ctx)
	}
	if t.state != fresh {
		return nil
	}
	b, err := t.first(ctx, "", nil)
	if err == nil {
		err = b.Close()
	}
	return t.after(ctx, op, err)
}

// first sends BEGIN and the branch's lock; where sql is not empty that statement comes between the
// two, and the lock with the question for the transaction's number. The result of BEGIN is read, and
// of the lock where it comes alone. A connection that turns out to be dead is replaced once: whatever
// it may have done dies with it.
func (t *Tx) first(ctx context.Context, sql string, arguments []any) (pgx.BatchResults, error) {
	for retry := true; ; retry = false {
		b := &pgx.Batch{}
		b.Queue(t.begin)
		if sql != "" {
			b.Queue(sql, arguments...)
			b.Queue(markSQL, t.lock)
		} else {
			b.Queue(lockSQL, t.lock)
		}
		t.r.trips.Add(1)
		t.tried = true
		results := t.conn.SendBatch(ctx, b)
		_, err := results.Exec()
		if err == nil {
			t.begun, t.state = true, open
			if sql == "" {
				_, err = results.Exec()
				t.locked = err == nil
			}
			if err == nil {
				return results, nil
			}
		}
		err = single(errors.Join(err, results.Close()))
		if t.begun || !retry || !t.conn.Conn().IsClosed() || ctx.Err() != nil {
			return nil, err
		}
		if replaced := t.replace(ctx); replaced != nil {
			return nil, err
		}
	}
}

// replace gives the branch another connection instead of one that is closed. The pool's others are likely
// dead too.
func (t *Tx) replace(ctx context.Context) error {
	t.conn.Release() // first, or branches that hold all of a pool would wait for one another
	t.r.work.Reset()
	conn, err := t.r.work.Acquire(ctx)
	if err != nil {
		t.conn, t.state = nil, gone
		t.r.finished(t)
		return err
	}
	t.conn, t.sess = conn, sessionOf(conn.Conn())
	return nil
}

// readMark reads the last result of a first request that held a statement.
func (t *Tx) readMark(b pgx.BatchResults, err error) error {
	if err == nil {
		err = t.readNumber(b)
		t.locked = err == nil
	}
	return err
}

// readNumber reads the result of a statement that asked for the transaction's number, besides anything else.
func (t *Tx) readNumber(b pgx.BatchResults) error {
	var xid *string
	if err := b.QueryRow().Scan(nil, &xid); err != nil {
		return err
	}
	if xid == nil {
		return nil
	}
	return t.setXID([]string{*xid})
}

// single undoes errors.Join where both say the same.
func single(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()[0]
	}
	return err
}
