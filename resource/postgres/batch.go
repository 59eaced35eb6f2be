package postgres

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// batch is one request of several statements, in the extended protocol, with one Sync behind all: the server
// answers all at once, and leaves out what follows a statement that fails. The session has prepared all
// but the last, which is text alone and may be empty. Pgx's own batch would put a Sync before that.
type batch struct {
	statements []statement
	last       string

	built    []pgx.ExtendedQueryBuilder // the arguments
	pipeline *pgconn.Pipeline
	heard    int
	trace    func(data pgx.TraceBatchQueryData)
	traced   func(err error)
}

// statement is SQL with pgx's arguments.
type statement struct {
	sql       string
	arguments []any
	plan      *pgconn.StatementDescription // set by missing
}

func (b *batch) add(sql string, arguments ...any) {
	b.statements = append(b.statements, statement{sql: sql, arguments: arguments})
}

// plans are the statements that a session has prepared for batches.
type plans struct {
	known map[string]*pgconn.StatementDescription
	stale []string // names of those that are no longer used
	last  int      // number of the last name
}

// mostKnown bounds the statements of a session's plans. All make room when there are more.
const mostKnown = 256

// plansKey is where a session keeps its plans.
const plansKey = "assent plans"

func (t *Tx) plans() *plans {
	data := t.conn.Conn().PgConn().CustomData()
	p, ok := data[plansKey].(*plans)
	if !ok {
		p = &plans{known: map[string]*pgconn.StatementDescription{}}
		data[plansKey] = p
	}
	return p
}

// forget makes p begin anew.
func (p *plans) forget() {
	for _, plan := range p.known {
		p.stale = append(p.stale, plan.Name)
	}
	clear(p.known)
}

// unlearn has the session prepare its statements anew: after an error a plan may be what was wrong.
func (t *Tx) unlearn() {
	if !t.conn.Conn().IsClosed() {
		t.plans().forget()
	}
}

// missing looks up the statements' plans and returns the statements that p does not know, each once.
func (b *batch) missing(p *plans) (missing []string) {
	for i := range b.statements {
		s := &b.statements[i]
		if s.plan = p.known[s.sql]; s.plan == nil && !slices.Contains(missing, s.sql) {
			missing = append(missing, s.sql)
		}
	}
	return missing
}

// learn prepares what is missing in the session, in one round trip.
func (t *Tx) learn(ctx context.Context, b *batch) error {
	p := t.plans()
	missing := b.missing(p)
	if len(missing) == 0 {
		return nil
	}
	if len(p.known)+len(missing) > mostKnown {
		p.forget()
		missing = b.missing(p)
	}
	pipeline := t.conn.Conn().PgConn().StartPipeline(ctx)
	stale := p.stale
	for _, name := range stale {
		pipeline.SendDeallocate(name)
	}
	first := p.last + 1
	for i, sql := range missing {
		pipeline.SendPrepare(planName(first+i), sql, nil)
	}
	p.last += len(missing)
	err := pipeline.Sync()
	if err == nil {
		p.stale = nil
	}
	for range stale {
		if err == nil {
			_, err = pipeline.GetResults()
		}
	}
	for i, sql := range missing {
		if err != nil {
			break
		}
		var got any
		if got, err = pipeline.GetResults(); err != nil {
			err = named(sql, err)
			break
		}
		plan, ok := got.(*pgconn.StatementDescription)
		if !ok {
			err = fmt.Errorf("the server answered a statement to be prepared with %T", got)
			break
		}
		p.known[sql] = &pgconn.StatementDescription{Name: planName(first + i), SQL: sql, ParamOIDs: plan.ParamOIDs, Fields: plan.Fields}
	}
	if last := pipeline.Close(); err == nil {
		err = last
	}
	b.missing(p) // none, or err says why
	return err
}

func planName(n int) string { return "assent_" + strconv.Itoa(n) }

// build encodes the arguments. What cannot be encoded leaves the session as it was.
func (t *Tx) build(b *batch) error {
	types := t.conn.Conn().TypeMap()
	b.built = make([]pgx.ExtendedQueryBuilder, len(b.statements))
	for i, s := range b.statements {
		if err := b.built[i].Build(types, s.plan, s.arguments); err != nil {
			return named(s.sql, err)
		}
	}
	return nil
}

// submit sends b, whose arguments are encoded.
func (t *Tx) submit(ctx context.Context, b *batch) error {
	b.pipeline = t.conn.Conn().PgConn().StartPipeline(ctx)
	for i, s := range b.statements {
		a := &b.built[i]
		b.pipeline.SendQueryStatement(s.plan, a.ParamValues, a.ParamFormats, a.ResultFormats)
	}
	if b.last != "" {
		b.pipeline.SendQueryParams(b.last, nil, nil, nil, nil)
	}
	err := b.pipeline.Sync()
	if err != nil {
		err = b.close(err)
	}
	return err
}

// next waits for the next statement's answer. It calls row, where it is not nil, with each row that the
// statement returns.
func (b *batch) next(row func([][]byte)) (tag pgconn.CommandTag, err error) {
	var begun time.Time
	if b.trace != nil {
		begun = time.Now()
	}
	var got any
	if got, err = b.pipeline.GetResults(); err == nil {
		results, ok := got.(*pgconn.ResultReader)
		if !ok {
			return tag, fmt.Errorf("the server answered a statement with %T", got)
		}
		for row != nil && results.NextRow() {
			row(results.Values())
		}
		tag, err = results.Close()
	}
	if b.trace != nil {
		s := statement{sql: b.last}
		if b.heard < len(b.statements) {
			s = b.statements[b.heard]
		}
		b.trace(pgx.TraceBatchQueryData{SQL: s.sql, Args: s.arguments, CommandTag: tag, ReadStartTime: begun, Err: err})
	}
	b.heard++
	return tag, err
}

// close ends the request, whose error was err, and returns it or another.
func (b *batch) close(err error) error {
	last := b.pipeline.Close()
	if err == nil {
		err = last
	}
	b.end(err)
	return err
}

// end tells the application's tracer that b is over.
func (b *batch) end(err error) {
	if b.traced != nil {
		b.traced(err)
	}
}

// follow has the application's tracer told of b, as of a batch of pgx.
func (b *batch) follow(ctx context.Context, tracer pgx.BatchTracer, conn *pgx.Conn) context.Context {
	all := &pgx.Batch{}
	for _, s := range b.statements {
		all.Queue(s.sql, s.arguments...)
	}
	if b.last != "" {
		all.Queue(b.last)
	}
	ctx = tracer.TraceBatchStart(ctx, conn, pgx.TraceBatchStartData{Batch: all})
	b.trace = func(data pgx.TraceBatchQueryData) { tracer.TraceBatchQuery(ctx, conn, data) }
	b.traced = func(err error) { tracer.TraceBatchEnd(ctx, conn, pgx.TraceBatchEndData{Err: err}) }
	return ctx
}
