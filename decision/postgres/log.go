package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"assent/decision"
	"assent/protocol/commit"
)

var _ decision.Log = (*Log)(nil)

// Log is a decision log in a database. All methods are safe for concurrent use.
type Log struct {
	cfg    Config
	tables tables
	server server
	sql    statements
	pool   *pgxpool.Pool
	stats  counters

	decisions *decision.Grouper[*decideCall]
	notes     *decision.Grouper[*noteCall]
	// life ends with Close.
	life   context.Context
	end    context.CancelFunc
	tasks  sync.WaitGroup
	closed sync.Once
	// retire has a value where so many entries are done that some may have to go.
	retire chan struct{}
	finish atomic.Int64 // entries done since the last search
	// replaced is set when the database turns out to be another one.
	replaced atomic.Bool
	away     atomic.Bool // the last attempt did not reach the database
}

// The limits on a group. A single call may have some MiB.
const (
	groupCalls = 256
	groupBytes = 4 << 20
)

// Open opens the decision log in the database that dsn names: a connection string as libpq has it, or
// a URL. It connects, and fails where the log is not there (ErrNoTables; see Config.CreateSchema), is
// of a newer format (ErrFormat), or would not be kept (ErrUnsafe). Errors carry a hint
// (resource.HintOf).
func Open(ctx context.Context, dsn string, cfg Config) (*Log, error) {
	const op = "open decision log"
	if err := cfg.validate(); err != nil {
		return nil, invalid(op, err)
	}
	pooled, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, invalid(op, fmt.Errorf("connection string: %w", err)) // pgx leaves out the password
	}
	if cfg.Configure != nil {
		cfg.Configure(pooled.ConnConfig)
	}
	if pooled.ConnConfig.RuntimeParams["application_name"] == "" {
		pooled.ConnConfig.RuntimeParams["application_name"] = "assent decision log"
	}
	l := &Log{cfg: cfg, tables: newTables(cfg.Schema), retire: make(chan struct{}, 1)}
	l.sql = newStatements(l.tables)
	if err := l.meet(ctx, pooled.ConnConfig); err != nil {
		return nil, explain(op, err)
	}
	pooled.MaxConns, pooled.MinConns = cfg.MaxConns, 0
	pooled.AfterConnect = l.recognize
	if l.pool, err = pgxpool.NewWithConfig(ctx, pooled); err != nil {
		return nil, explain(op, err)
	}
	l.life, l.end = context.WithCancel(context.Background())
	l.decisions = decision.NewGrouper(decision.GrouperConfig[*decideCall]{
		Serve: l.serveDecisions, Workers: decideWorkers, Size: func(c *decideCall) int { return len(c.body) + len(c.notes) },
		MostCalls: groupCalls, MostBytes: groupBytes, MostWaiting: cfg.MaxWaiting,
	})
	l.notes = decision.NewGrouper(decision.GrouperConfig[*noteCall]{
		Serve: l.serveNotes, Workers: 1, Size: func(c *noteCall) int { return len(c.data) },
		MostCalls: groupCalls, MostBytes: groupBytes, MostWaiting: cfg.MaxWaiting,
	})
	l.tasks.Go(l.retireForEver)
	return l, nil
}

// decideWorkers is how many groups of decisions are on their way at a time. With one, what comes meanwhile
// goes together in the next group: fewer statements and fewer forced writes than with more (BenchmarkDecide).
const decideWorkers = 1

// meet connects for the first time, makes the tables where that is asked for, and learns the owner.
func (l *Log) meet(ctx context.Context, cfg *pgx.ConnConfig) error {
	conn, err := pgx.ConnectConfig(ctx, cfg.Copy())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) // nothing is lost with it
	if l.cfg.CreateSchema {
		if err := create(ctx, conn, l.tables, &l.cfg); err != nil {
			return fmt.Errorf("make the tables: %w", err)
		}
	}
	l.server, err = inspect(ctx, conn, l.tables)
	return err
}

// recognize lets a new connection in only if it leads to the same log, in a database that is to be
// trusted: a failover may lead elsewhere.
func (l *Log) recognize(ctx context.Context, conn *pgx.Conn) error {
	s, err := inspect(ctx, conn, l.tables)
	if err == nil && s.owner != l.server.owner {
		if !l.replaced.Swap(true) {
			l.cfg.Logger.Error("the decision log does not decide", "cause", errReplaced, "owner", l.server.owner, "found", s.owner)
		}
		err = errReplaced
	}
	return err
}

// Close carries out what was asked before and closes the connections. It is not an error to close a
// log twice. Where the database cannot be reached, it takes Config.Patience and an attempt, however much waits: what
// has not been tried by then is not, and its callers are told ErrClosed.
func (l *Log) Close() error {
	l.closed.Do(func() {
		late := time.AfterFunc(l.cfg.Patience, l.end)
		l.decisions.Close()
		l.notes.Close()
		late.Stop()
		l.end()
		l.tasks.Wait()
		l.pool.Close()
	})
	return nil
}

// Owner implements decision.Log. It is 26 letters and digits.
func (l *Log) Owner() string { return l.server.owner }

// ready reports why nothing can be asked of l, or nil.
func (l *Log) ready(ctx context.Context, op string) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", op, context.Cause(ctx))
	case l.life.Err() != nil:
		return fmt.Errorf("%s: %w", op, decision.ErrClosed)
	case l.replaced.Load():
		return explain(op, errReplaced)
	}
	return nil
}

// attempt calls try until it succeeds, fails for good or Patience is over. Each try has a connection
// and AttemptTimeout. unknown tells try whether an earlier try may have been carried out; attempt
// returns that of all.
func (l *Log) attempt(ctx context.Context, try func(ctx context.Context, conn *pgxpool.Conn, unknown bool) error) error {
	begin, unknown := time.Now(), false
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		if l.life.Err() != nil {
			return decision.ErrClosed
		}
		err := l.tryOnce(ctx, func(ctx context.Context, conn *pgxpool.Conn) error { return try(ctx, conn, unknown) })
		if err == nil {
			l.reached(nil)
			return nil
		}
		if errors.Is(err, decision.ErrNotFound) {
			return err
		}
		v := judge(err)
		l.stats.failures.Add(1)
		if cause := context.Cause(ctx); cause != nil {
			return cause // the caller has gone; that says nothing of the database
		}
		if v.unknown {
			l.reached(err)
			unknown = true
		}
		if !v.retry || l.replaced.Load() || time.Since(begin) >= l.cfg.Patience {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

func (l *Log) tryOnce(ctx context.Context, try func(ctx context.Context, conn *pgxpool.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.AttemptTimeout)
	defer cancel()
	conn, err := l.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release() // a connection within a transaction, or broken, is closed
	l.stats.trips.Add(1)
	return try(ctx, conn)
}

// reached tells the operator when the database goes away and when it is back.
func (l *Log) reached(err error) {
	switch {
	case err != nil && !l.away.Swap(true):
		l.cfg.Logger.Error("the decision log does not decide", "schema", l.cfg.Schema, "cause", err)
	case err == nil && l.away.Load() && l.away.Swap(false):
		l.cfg.Logger.Info("the decision log decides again", "schema", l.cfg.Schema)
	}
}

// Lookup implements decision.Register.
func (l *Log) Lookup(ctx context.Context, id commit.TransactionID) (e decision.Entry, err error) {
	const op = "look up"
	if err := l.ready(ctx, op); err != nil {
		return e, err
	}
	if err := decision.CheckID(id); err != nil {
		return e, invalid(op, err)
	}
	err = l.attempt(ctx, func(ctx context.Context, conn *pgxpool.Conn, _ bool) error {
		found, err := l.read(ctx, conn, []string{string(id)})
		if err != nil {
			return err
		}
		var ok bool
		if e, ok = found[string(id)]; !ok {
			return decision.ErrNotFound
		}
		return nil
	})
	return e, l.told(ctx, op, err)
}

// told puts an error into the words of op.
func (l *Log) told(ctx context.Context, op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, decision.ErrNotFound), errors.Is(err, decision.ErrClosed):
		return fmt.Errorf("%s: %w", op, err)
	case l.life.Err() != nil:
		return fmt.Errorf("%s: %w", op, decision.ErrClosed)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", op, context.Cause(ctx))
	}
	return explain(op, err)
}

// Forget implements decision.Log.
func (l *Log) Forget(ctx context.Context, id commit.TransactionID) error {
	const op = "forget"
	if err := l.ready(ctx, op); err != nil {
		return err
	}
	if err := decision.CheckID(id); err != nil {
		return invalid(op, err)
	}
	err := l.attempt(ctx, func(ctx context.Context, conn *pgxpool.Conn, unknown bool) error {
		tag, err := conn.Exec(ctx, l.sql.forget, string(id))
		if err == nil && tag.RowsAffected() == 0 && !unknown {
			return decision.ErrNotFound
		}
		return err
	})
	return l.told(ctx, op, err)
}

// List implements decision.Log. The work is in proportion to the entries of that status alone. Each
// page sees one moment of the table.
func (l *Log) List(ctx context.Context, status decision.Status) iter.Seq2[decision.Entry, error] {
	const op = "list"
	return func(yield func(decision.Entry, error) bool) {
		for last, more := int64(-1<<63), true; more; {
			err := l.ready(ctx, op)
			var page []decision.Entry
			if err == nil {
				err = l.told(ctx, op, l.attempt(ctx, func(ctx context.Context, conn *pgxpool.Conn, _ bool) (err error) {
					page, last, more, err = l.page(ctx, conn, status, last)
					return err
				}))
			}
			if err != nil {
				yield(decision.Entry{}, err)
				return
			}
			for _, e := range page {
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}
