package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"assent/decision"
	"assent/protocol/commit"
)

// decideCall is one caller's proposal and, when it is done, the answer.
type decideCall struct {
	entry       decision.Entry // normal
	body, notes []byte         // the entry without its notes, and these
	stands      decision.Entry
	err         error
}

// Decide implements decision.Log. Callers share statements. When ctx ends first, what was asked may
// still be done.
func (l *Log) Decide(ctx context.Context, e decision.Entry) (decision.Entry, error) {
	const op = "decide"
	if err := l.ready(ctx, op); err != nil {
		return decision.Entry{}, err
	}
	if err := e.Check(); err != nil {
		return decision.Entry{}, invalid(op, err)
	}
	c := &decideCall{entry: e.Normal()}
	bare := c.entry
	bare.Notes = nil
	var err error
	if c.body, err = bare.Encode(); err != nil {
		return decision.Entry{}, invalid(op, err)
	}
	if c.notes, err = decision.EncodeNotes(c.entry.Notes); err != nil {
		return decision.Entry{}, invalid(op, err)
	}
	if err := l.decisions.Do(ctx, c); err != nil {
		return decision.Entry{}, l.told(ctx, op, err)
	}
	if c.err != nil {
		return decision.Entry{}, l.told(ctx, op, c.err)
	}
	return c.stands, nil
}

// serveDecisions has a group decided: the first proposal for each transaction is inserted, and where
// there was a row already, that is what stands.
func (l *Log) serveDecisions(group []*decideCall) {
	open := map[string][]*decideCall{}
	for _, c := range group {
		open[string(c.entry.ID)] = append(open[string(c.entry.ID)], c)
	}
	// The work goes on when callers have left, but not for ever.
	err := l.attempt(context.WithoutCancel(l.life), func(ctx context.Context, conn *pgxpool.Conn, _ bool) error {
		// Twice, because an entry may be forgotten between the two statements.
		for range 2 {
			if err := l.insert(ctx, conn, open); err != nil || len(open) == 0 {
				return err
			}
			found, err := l.read(ctx, conn, sortedKeys(open))
			if err != nil {
				return err
			}
			for id, e := range found {
				answer(open, id, e)
			}
			if len(open) == 0 {
				return nil
			}
		}
		return errors.New("entries come and go")
	})
	for _, calls := range open {
		for _, c := range calls {
			c.err = err
		}
	}
}

// answer tells the callers about the transaction id what stands. Each gets its own copy.
func answer(open map[string][]*decideCall, id string, e decision.Entry) {
	for _, c := range open[id] {
		c.stands = e.Normal()
	}
	delete(open, id)
}

// insert writes the first proposal for each open transaction and answers those that were the first.
// The rows are in the order of their ids, so that groups of several processes do not wait for one
// another in a circle.
func (l *Log) insert(ctx context.Context, conn *pgxpool.Conn, open map[string][]*decideCall) error {
	ids := sortedKeys(open)
	n := len(ids)
	status, counts := make([]int16, n), make([]int32, n)
	bodies, notes := make([][]byte, n), make([][]byte, n)
	for i, id := range ids {
		c := open[id][0]
		status[i], counts[i] = int16(c.entry.Status()), int32(len(c.entry.Notes))
		bodies[i], notes[i] = c.body, some(c.notes)
	}
	rows, err := conn.Query(ctx, l.sql.insert, ids, status, bodies, counts, notes)
	if err != nil {
		return err
	}
	inserted, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	l.stats.groups.Add(1)
	l.stats.decisions.Add(uint64(len(inserted)))
	for _, id := range inserted {
		answer(open, id, open[id][0].entry)
	}
	return nil
}

// some returns data, or no bytes in place of nil, which would be NULL.
func some(data []byte) []byte {
	if data == nil {
		return []byte{}
	}
	return data
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, strings.Compare)
	return keys
}

// read returns the entries of those ids that have one.
func (l *Log) read(ctx context.Context, conn *pgxpool.Conn, ids []string) (map[string]decision.Entry, error) {
	found := map[string]decision.Entry{}
	err := l.ask(ctx, conn, func(rows pgx.Rows) (err error) {
		for rows.Next() {
			var id string
			var body, notes []byte
			if err := rows.Scan(&id, &body, &notes); err != nil {
				return err
			}
			if found[id], err = l.decode(id, body, notes); err != nil {
				return err
			}
		}
		return nil
	}, l.sql.read, ids)
	return found, err
}

// ask has take read what a query finds, and returns when that is as stable as what this log writes itself. Where
// there is a synchronous standby, a commit whose wait for it was cut short is seen by everybody before the standby has
// it, and so is one that a restart of the primary found in its own log; the query ends with a wait of its own
// (PostgreSQL's manual, Synchronous Replication, Planning for High Availability).
func (l *Log) ask(ctx context.Context, conn *pgxpool.Conn, take func(pgx.Rows) error, sql string, args ...any) error {
	var b pgx.Batch
	b.Queue(sql, args...).Query(take)
	if !l.server.cockroach { // which has no standbys, and shows nothing that its replicas have not
		b.Queue(l.tables.settle())
	}
	return conn.SendBatch(ctx, &b).Close()
}

// decode makes an entry of a row's columns.
func (l *Log) decode(id string, body, notes []byte) (decision.Entry, error) {
	e, err := decision.DecodeEntry(body)
	if err == nil && e.ID != commit.TransactionID(id) {
		err = fmt.Errorf("it holds the entry of %q", e.ID)
	}
	if err == nil {
		e.Notes, err = decision.DecodeNotes(notes)
	}
	if err != nil {
		return decision.Entry{}, l.damaged(id, err)
	}
	return e, nil
}

// The limits on a page of a listing, so that a slow reader holds no cursor open.
const (
	pageEntries = 128
	pageBytes   = 1 << 20
)

// page returns the next entries behind the sequence number last, its own last number, and whether
// there may be more.
func (l *Log) page(ctx context.Context, conn *pgxpool.Conn, status decision.Status, last int64) ([]decision.Entry, int64, bool, error) {
	sql, args := l.sql.listAll, []any{last, pageEntries}
	if status != 0 {
		sql, args = l.sql.listOne, append(args, int16(status))
	}
	var page []decision.Entry
	next := last
	err := l.ask(ctx, conn, func(rows pgx.Rows) error {
		for size := 0; size < pageBytes && rows.Next(); {
			var seq int64
			var id string
			var body, notes []byte
			if err := rows.Scan(&seq, &id, &body, &notes); err != nil {
				return err
			}
			e, err := l.decode(id, body, notes)
			if err != nil {
				return err
			}
			page, next, size = append(page, e), seq, size+len(body)+len(notes)
		}
		return nil
	}, sql, args...)
	if err != nil {
		return nil, last, true, err
	}
	return page, next, len(page) > 0, nil
}
