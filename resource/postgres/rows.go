package postgres

import (
	"context"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

var errRowsClosed = errors.New("the rows are closed")

// rows are pgx's rows, each call in the branch's turn: a rollback may come from another goroutine.
type rows struct {
	t      *Tx
	ctx    context.Context
	done   context.CancelFunc
	inner  pgx.Rows         // nil where the query was not sent
	batch  pgx.BatchResults // not nil where BEGIN travelled with the query
	early  error
	err    error
	closed bool
	// What is known of the query when it is closed: what follows in the batch has other columns.
	tag    pgconn.CommandTag
	fields []pgconn.FieldDescription
	types  *pgtype.Map
}

// close ends the query; the caller has the branch's turn.
func (r *rows) close() {
	if r.closed {
		return
	}
	r.closed = true
	r.inner.Close()
	err := r.inner.Err()
	if err == nil {
		err = r.early
	}
	r.tag = r.inner.CommandTag()
	if r.early == nil { // else pgx has none, and panics
		r.fields = slices.Clone(r.inner.FieldDescriptions())
	}
	if r.batch != nil {
		err = r.t.readMark(r.batch, err)
		if last := r.batch.Close(); err == nil {
			err = last
		}
	}
	r.t.rows = nil
	r.err = r.t.after(r.ctx, "query", err, r.tag)
	r.done()
}

// Close ends the query. It may be called again.
func (r *rows) Close() {
	r.t.turn <- struct{}{}
	defer r.t.yield()
	r.close()
}

// Next goes to the next row, or closes the rows where there is none.
func (r *rows) Next() bool {
	r.t.turn <- struct{}{}
	defer r.t.yield()
	if r.closed {
		return false
	}
	if r.inner.Next() {
		return true
	}
	r.close()
	return false
}

// Err returns the query's error; it is complete when the rows are closed.
func (r *rows) Err() error {
	r.t.turn <- struct{}{}
	defer r.t.yield()
	if !r.closed {
		return r.inner.Err()
	}
	return r.err
}

// CommandTag returns the query's command tag when the rows are closed.
func (r *rows) CommandTag() pgconn.CommandTag {
	r.t.turn <- struct{}{}
	defer r.t.yield()
	return r.tag
}

// FieldDescriptions returns the columns.
func (r *rows) FieldDescriptions() []pgconn.FieldDescription {
	r.t.turn <- struct{}{}
	defer r.t.yield()
	if !r.closed {
		return r.inner.FieldDescriptions()
	}
	return r.fields
}

// Scan reads the current row. An error closes the rows.
func (r *rows) Scan(dest ...any) error {
	r.t.turn <- struct{}{}
	defer r.t.yield()
	if r.closed {
		if r.err != nil {
			return r.err
		}
		return errRowsClosed
	}
	err := r.inner.Scan(dest...)
	if err != nil {
		r.close()
	}
	return err
}

// Values returns the current row, decoded.
func (r *rows) Values() ([]any, error) {
	r.t.turn <- struct{}{}
	defer r.t.yield()
	if r.closed {
		return nil, errRowsClosed
	}
	return r.inner.Values()
}

// RawValues returns the current row as the server sent it. It is valid until the next call.
func (r *rows) RawValues() [][]byte {
	r.t.turn <- struct{}{}
	defer r.t.yield()
	if r.closed {
		return nil
	}
	return r.inner.RawValues()
}

// Conn returns nil: the connection is the branch's own.
func (r *rows) Conn() *pgx.Conn { return nil }

// TypeMap returns how values are decoded.
func (r *rows) TypeMap() *pgtype.Map {
	r.t.turn <- struct{}{}
	defer r.t.yield()
	return r.types
}

// row is the single row of QueryRow.
type row struct{ rows pgx.Rows }

// Scan reads the row; pgx.ErrNoRows where there is none.
func (r row) Scan(dest ...any) error {
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}
