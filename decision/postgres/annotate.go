package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"assent/decision"
	"assent/protocol/commit"
)

// noteCall is one caller's note and, when it is done, the answer.
type noteCall struct {
	id   commit.TransactionID
	note decision.Note // normal
	data []byte
	// forced says that the note must be stable when the call returns.
	forced bool
	err    error
}

// Annotate implements decision.Log. A note that is not Forced is committed without waiting for the
// disk: a crash of the database within some tenths of a second may lose it.
func (l *Log) Annotate(ctx context.Context, id commit.TransactionID, n decision.Note) error {
	const op = "annotate"
	if err := l.ready(ctx, op); err != nil {
		return err
	}
	if err := errors.Join(decision.CheckID(id), n.Check()); err != nil {
		return invalid(op, err)
	}
	c := &noteCall{id: id, note: n.Normal(), forced: n.Forced}
	var err error
	if c.data, err = c.note.Encode(); err != nil {
		return invalid(op, err)
	}
	if err := l.notes.Do(ctx, c); err != nil {
		return l.told(ctx, op, err)
	}
	return l.told(ctx, op, c.err)
}

// annotated is what a group knows of one transaction: the notes that it has, as far as is known, and
// those that come.
type annotated struct {
	known []decision.Note
	calls []*noteCall
}

// serveNotes appends a group's notes. It guesses that their entries have none, which is so for almost
// all; where the guess is wrong nothing is changed, and it tries again with what it has read. A row
// is changed only if it has as many notes as were known, so that no two writers lose a note.
func (l *Log) serveNotes(group []*noteCall) {
	open := map[string]*annotated{}
	forced := l.server.cockroach // which has no other way
	for _, c := range group {
		a := open[string(c.id)]
		if a == nil {
			a = &annotated{}
			open[string(c.id)] = a
		}
		a.calls = append(a.calls, c)
		forced = forced || c.forced
	}
	err := l.attempt(context.WithoutCancel(l.life), func(ctx context.Context, conn *pgxpool.Conn, unknown bool) error {
		// The first pass after a doubt reads before it writes: what was tried may be there. It may also be carried out
		// yet, behind whatever held it up, and is looked for in each pass.
		for reread := unknown; ; reread = true {
			if reread {
				if err := l.reread(ctx, conn, open, unknown); err != nil {
					return err
				}
			}
			if len(open) == 0 {
				return nil
			}
			if err := l.append(ctx, conn, open, forced); err != nil || len(open) == 0 {
				return err
			}
		}
	})
	for _, a := range open {
		for _, c := range a.calls {
			c.err = err
		}
	}
}

// append writes the notes to those rows that are as they are known to be, and takes these off open.
func (l *Log) append(ctx context.Context, conn *pgxpool.Conn, open map[string]*annotated, forced bool) error {
	ids := sortedKeys(open)
	n := len(ids)
	was, more, status, notes := make([]int32, n), make([]int32, n), make([]int16, n), make([][]byte, n)
	for i, id := range ids {
		a := open[id]
		all := append([]decision.Note(nil), a.known...)
		for _, c := range a.calls {
			all = append(all, c.note)
			notes[i] = append(notes[i], c.data...)
		}
		was[i], more[i] = int32(len(a.known)), int32(len(a.calls))
		status[i] = int16(decision.Entry{Notes: all}.Status())
		if decision.Status(status[i]) == decision.Done {
			l.finished()
		}
	}
	var b pgx.Batch
	var changed []string
	collect := func(rows pgx.Rows) (err error) {
		changed, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	}
	args := []any{ids, was, more, notes, status}
	if forced {
		b.Queue(l.sql.annotate, args...).Query(collect)
	} else {
		b.Queue("BEGIN")
		b.Queue("SET LOCAL synchronous_commit = off")
		b.Queue(l.sql.annotate, args...).Query(collect)
		b.Queue("COMMIT")
	}
	if err := conn.SendBatch(ctx, &b).Close(); err != nil {
		return err
	}
	l.stats.groups.Add(1)
	for _, id := range changed {
		delete(open, id)
	}
	return nil
}

// reread learns what notes the open entries have. It answers the calls whose entry is not there, or
// is full, and, where they may have been carried out before, those whose note is there.
func (l *Log) reread(ctx context.Context, conn *pgxpool.Conn, open map[string]*annotated, unknown bool) error {
	found, err := l.read(ctx, conn, sortedKeys(open))
	if err != nil {
		return err
	}
	for id, a := range open {
		e, ok := found[id]
		var left []*noteCall
		for _, c := range a.calls {
			switch {
			case !ok:
				c.err = fmt.Errorf("%q: %w", id, decision.ErrNotFound)
			case unknown && slices.Contains(e.Notes, c.note):
			case len(e.Notes)+len(left) >= decision.MaxNotes:
				c.err = invalid("annotate", fmt.Errorf("%q has %d notes; no more are allowed", id, len(e.Notes)+len(left)))
			default:
				left = append(left, c)
			}
		}
		a.known, a.calls = e.Notes, left
		if len(left) == 0 {
			delete(open, id)
		}
	}
	return nil
}
