package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"

	"assent"
	"assent/decision/disk"
	"assent/resource"
	"assent/resource/postgres"
)

// way is one way to change a row in two databases.
type way interface {
	name() string
	// transact changes the row of that number in both databases.
	transact(ctx context.Context, row int) error
	// drain waits until nothing is left to do of transactions that have returned.
	drain(ctx context.Context) error
	close() error
}

// kinds are the ways there are, the floor first. Those that are not asked for are left out.
var kinds = []struct {
	name, key string
	asked     func(o options) bool
	open      func(ctx context.Context, s *stage) (way, error)
}{
	{"floor", "floor", always, func(_ context.Context, s *stage) (way, error) { return newByHand(s, "floor", thenPrepare(step)), nil }},
	{"floor pipelined", "pipelined", always, func(_ context.Context, s *stage) (way, error) {
		return newByHand(s, "floor pipelined", thenPrepare(pipeline)), nil
	}},
	{"floor in one trip", "onetrip", always, func(_ context.Context, s *stage) (way, error) {
		return newByHand(s, "floor in one trip", workAndPrepare), nil
	}},
	{"floor with a log", "logged", always, func(_ context.Context, s *stage) (way, error) {
		return newLogged(s, "floor with a log", thenPrepare(step))
	}},
	{"floor in one trip, log", "onetriplogged", always, func(_ context.Context, s *stage) (way, error) {
		return newLogged(s, "floor in one trip, log", workAndPrepare)
	}},
	{"assent", "assent", always, func(ctx context.Context, s *stage) (way, error) {
		return s.assent(ctx, &managed{called: "assent", work: waiting}, 0)
	}},
	{"assent early reply", "early", always, func(ctx context.Context, s *stage) (way, error) {
		return s.assent(ctx, &managed{called: "assent early reply", work: waiting, early: true}, 0)
	}},
	{"assent queued", "queued", always, func(ctx context.Context, s *stage) (way, error) {
		return s.assent(ctx, &managed{called: "assent queued", work: queueing}, 0)
	}},
	{"assent queued, early reply", "queuedearly", always, func(ctx context.Context, s *stage) (way, error) {
		return s.assent(ctx, &managed{called: "assent queued, early reply", work: queueing, early: true}, 0)
	}},
	{"no atomicity", "plain", always, func(_ context.Context, s *stage) (way, error) { return &plain{pools: s.pools}, nil }},
	{"assent slow sync", "slow", func(o options) bool { return o.slowSync > 0 }, func(ctx context.Context, s *stage) (way, error) {
		return s.assent(ctx, &managed{called: "assent slow sync", work: waiting}, s.o.slowSync)
	}},
	{"assent on a cluster", "cluster", func(o options) bool { return o.cluster }, func(ctx context.Context, s *stage) (way, error) {
		return s.clustered(ctx, "assent on a cluster")
	}},
}

func always(options) bool { return true }

const updateSQL = "UPDATE " + table + " SET n = n + 1 WHERE id = $1"

// pipeline begins a transaction and changes the row, in one round trip.
func pipeline(ctx context.Context, conn *pgxpool.Conn, row int) error {
	b := &pgx.Batch{}
	b.Queue("BEGIN")
	b.Queue(updateSQL, row)
	results := conn.SendBatch(ctx, b)
	_, err := results.Exec()
	if err == nil {
		tag, uerr := results.Exec()
		if err = uerr; err == nil && tag.RowsAffected() != 1 {
			err = fmt.Errorf("row %d is not there", row)
		}
	}
	return errors.Join(err, results.Close())
}

// step begins a transaction and changes the row, one statement after the other.
func step(ctx context.Context, conn *pgxpool.Conn, row int) error {
	if err := command(ctx, conn, "BEGIN", "BEGIN"); err != nil {
		return err
	}
	tag, err := conn.Exec(ctx, updateSQL, row)
	if err == nil && tag.RowsAffected() != 1 {
		err = fmt.Errorf("row %d is not there", row)
	}
	return err
}

// command runs a statement that must have the given tag, in one round trip.
func command(ctx context.Context, conn *pgxpool.Conn, sql, tag string) error {
	results, err := conn.Conn().PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return err
	}
	if got := results[len(results)-1].CommandTag.String(); got != tag {
		return fmt.Errorf("%s was answered with the command tag %s", sql, got)
	}
	return nil
}

// plain is two plain commits: a crash between them leaves half of the change.
type plain struct{ pools [2]*pgxpool.Pool }

func (*plain) name() string { return "no atomicity" }

func (p *plain) transact(ctx context.Context, row int) error {
	return both(func(i int) error {
		conn, err := p.pools[i].Acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release() // outside of a transaction, or else closed
		if err := pipeline(ctx, conn, row); err != nil {
			return err
		}
		return command(ctx, conn, "COMMIT", "COMMIT")
	})
}

func (*plain) drain(context.Context) error { return nil }

func (*plain) close() error { return nil }

// workAndPrepare begins a transaction, changes the row and prepares, in one round trip.
func workAndPrepare(ctx context.Context, conn *pgxpool.Conn, row int, id string) error {
	b := &pgx.Batch{}
	b.Queue("BEGIN")
	b.Queue(updateSQL, row)
	results := conn.SendBatch(ctx, b)
	pg := conn.Conn().PgConn()
	pg.Frontend().SendQuery(&pgproto3.Query{String: prepareTag + " " + id})
	if err := pg.Frontend().Flush(); err != nil {
		return errors.Join(err, results.Close())
	}
	_, err := results.Exec()
	if err == nil {
		tag, uerr := results.Exec()
		if err = uerr; err == nil && tag.RowsAffected() != 1 {
			err = fmt.Errorf("row %d is not there", row)
		}
	}
	err = errors.Join(err, results.Close())
	for {
		m, rerr := pg.ReceiveMessage(ctx)
		if rerr != nil {
			return errors.Join(err, rerr)
		}
		switch m := m.(type) {
		case *pgproto3.CommandComplete:
			if tag := string(m.CommandTag); tag != prepareTag {
				err = errors.Join(err, fmt.Errorf("the answer has the command tag %s", tag))
			}
		case *pgproto3.ErrorResponse:
			err = errors.Join(err, pgconn.ErrorResponseToPgError(m))
		case *pgproto3.ReadyForQuery:
			return err
		}
	}
}

const prepareTag = "PREPARE TRANSACTION"

// thenPrepare prepares behind what work does, in a round trip of its own.
func thenPrepare(work func(ctx context.Context, conn *pgxpool.Conn, row int) error) func(context.Context, *pgxpool.Conn, int, string) error {
	return func(ctx context.Context, conn *pgxpool.Conn, row int, id string) error {
		if err := work(ctx, conn, row); err != nil {
			return err
		}
		return command(ctx, conn, prepareTag+" "+id, prepareTag)
	}
}

// managed is Assent.
type managed struct {
	called    string
	log       *logDecider
	dir       string
	manager   *assent.Manager
	resources [2]postgresResource
	early     bool
	work
}

// work is how the row is changed: change does it in one database, each calls that for both.
type work struct {
	change func(ctx context.Context, b *postgres.Tx, row int) error
	each   func(f func(i int) error) error
}

var (
	// waiting waits for both databases at once.
	waiting = work{change, both}
	// queueing waits for none.
	queueing = work{queue, inTurn}
)

// inTurn calls f for both databases, one after the other.
func inTurn(f func(i int) error) error { return errors.Join(f(0), f(1)) }

// change changes the row and sees that it did.
func change(ctx context.Context, b *postgres.Tx, row int) error {
	tag, err := b.Exec(ctx, updateSQL, row)
	if err != nil {
		return err
	}
	return changed(row, tag)
}

// queue is change, with the statement left to be sent with PREPARE TRANSACTION.
func queue(_ context.Context, b *postgres.Tx, row int) error {
	b.Queue(updateSQL, row).Exec(func(tag pgconn.CommandTag) error { return changed(row, tag) })
	return nil
}

func changed(row int, tag pgconn.CommandTag) error {
	if tag.RowsAffected() != 1 {
		return fmt.Errorf("row %d is not there", row)
	}
	return nil
}

// assent is Assent with a decision log of its own.
func (s *stage) assent(ctx context.Context, m *managed, slow time.Duration) (way, error) {
	return s.manage(ctx, m, func(dir string) (*logDecider, error) {
		cfg := disk.Config{Logger: silent()}
		if slow > 0 {
			cfg.FS = disk.SlowSync(vfs.Default, slow)
		}
		l, err := disk.Open(filepath.Join(dir, "decisions"), cfg)
		if err != nil {
			return nil, err
		}
		return &logDecider{Log: l, closers: []func() error{l.Close}, syncs: func() uint64 { return l.Stats().Syncs }}, nil
	})
}

// clustered is Assent with the decision log of three nodes, all on this machine.
func (s *stage) clustered(ctx context.Context, name string) (way, error) {
	return s.manage(ctx, &managed{called: name, work: waiting}, func(dir string) (*logDecider, error) {
		return openMembers(ctx, dir, 0)
	})
}

func (s *stage) manage(ctx context.Context, m *managed, open func(dir string) (*logDecider, error)) (w way, err error) {
	m.resources = s.resources
	if m.dir, err = os.MkdirTemp(s.o.dir, "assent-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close())
		}
	}()
	if m.log, err = open(m.dir); err != nil {
		return nil, err
	}
	m.manager, err = assent.Open(ctx, assent.Config{
		Log: m.log.Log, Logger: silent(),
		Resources: map[string]resource.Resource{"first": s.resources[0], "second": s.resources[1]},
	})
	return m, err
}

func (m *managed) name() string { return m.called }

func (m *managed) transact(ctx context.Context, row int) error {
	return m.manager.Run(ctx, func(ctx context.Context, tx *assent.Tx) error {
		return m.each(func(i int) error {
			b, err := m.resources[i].Join(ctx, tx)
			if err != nil {
				return err
			}
			return m.change(ctx, b, row)
		})
	}, assent.EarlyReply(m.early))
}

func (m *managed) drain(ctx context.Context) error { return m.manager.Quiesce(ctx) }

func (m *managed) close() (err error) {
	if m.manager != nil {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err = m.manager.Close(ctx)
	}
	if m.log != nil {
		err = errors.Join(err, m.log.close())
	}
	return errors.Join(err, os.RemoveAll(m.dir))
}
