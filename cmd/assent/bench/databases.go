package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"assent/internal/pgcluster"
	"assent/resource/postgres"
)

type postgresResource = *postgres.Resource

const (
	table = "assent_bench"
	// applicationName tells our sessions from others.
	applicationName = "assent-bench"
)

// databases are the two databases, with a session in each that watches.
type databases struct {
	dsns     [2]string
	clusters []*pgcluster.Cluster
	watch    [2]*pgx.Conn
	version  string
	syncsSQL string // how to ask for the number of forced writes; "" where the server does not tell
}

// openDatabases starts two servers, or connects to those that o names, and makes the table.
func openDatabases(ctx context.Context, o options) (d *databases, err error) {
	d = &databases{}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if len(o.postgres) == 2 {
		d.dsns = [2]string(o.postgres)
	} else if err := d.start(ctx, o); err != nil {
		return d, err
	}
	for i, dsn := range d.dsns {
		if d.watch[i], err = pgx.Connect(ctx, dsn); err != nil {
			return d, fmt.Errorf("connect to database %d: %w", i+1, err)
		}
		if err := d.check(ctx, i, o); err != nil {
			return d, err
		}
		if err := d.fill(ctx, i, o.rows); err != nil {
			return d, fmt.Errorf("make the table %s in database %d: %w", table, i+1, err)
		}
	}
	return d, d.recognize(ctx)
}

func (d *databases) start(ctx context.Context, o options) error {
	for i := range d.dsns {
		c, err := pgcluster.New(ctx, pgcluster.Options{
			MaxPrepared: poolSize(o.mostConcurrency()), MaxConnections: connections(o),
			// Room enough that checkpoints do not come in between.
			Settings: map[string]string{"shared_buffers": "128MB", "min_wal_size": "256MB", "max_wal_size": "2GB", "checkpoint_timeout": "1h"},
		})
		if err != nil {
			return fmt.Errorf("start a PostgreSQL server: %w", err)
		}
		d.clusters = append(d.clusters, c)
		d.dsns[i] = c.DSN("postgres")
	}
	return nil
}

// poolSize is the greatest number of connections of a pool: more than there are callers, because
// an early reply leaves a connection busy for a moment.
func poolSize(callers int) int { return 2*callers + 2 }

// connections is how many sessions we may have in one database.
func connections(o options) int { return 2*poolSize(o.mostConcurrency()) + 16 }

func (d *databases) check(ctx context.Context, i int, o options) error {
	for name, least := range map[string]int{"max_prepared_transactions": poolSize(o.mostConcurrency()), "max_connections": connections(o)} {
		var text string
		if err := d.watch[i].QueryRow(ctx, "SHOW "+name).Scan(&text); err != nil {
			return fmt.Errorf("ask database %d for %s: %w", i+1, name, err)
		}
		if n, err := strconv.Atoi(text); err != nil || n < least {
			return fmt.Errorf("%s of database %d is %s; this concurrency takes %d", name, i+1, text, least)
		}
	}
	return nil
}

// fill makes the table. There is room in its pages, so that updates stay in theirs.
func (d *databases) fill(ctx context.Context, i, rows int) error {
	for _, sql := range [...]string{
		"CREATE TABLE " + table + " (id int PRIMARY KEY, n bigint NOT NULL) WITH (fillfactor = 50)",
		fmt.Sprintf("INSERT INTO %s SELECT i, 0 FROM generate_series(0, %d) AS i", table, rows-1),
		"VACUUM ANALYZE " + table,
		"CHECKPOINT",
	} {
		_, err := d.watch[i].Exec(ctx, sql)
		if denied, ok := errors.AsType[*pgconn.PgError](err); ok && denied.Code == "42501" && sql == "CHECKPOINT" {
			continue // it only makes figures steadier
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// recognize learns the server's version and where it counts its forced writes: in pg_stat_wal from
// version 14 on and in pg_stat_io from 18 on.
func (d *databases) recognize(ctx context.Context) error {
	var number int
	err := d.watch[0].QueryRow(ctx, "SELECT current_setting('server_version'), current_setting('server_version_num')::int").Scan(&d.version, &number)
	switch {
	case err != nil:
		return fmt.Errorf("ask for the server's version: %w", err)
	case number >= 180000:
		d.syncsSQL = "SELECT coalesce(sum(fsyncs), 0)::bigint FROM pg_stat_io WHERE object = 'wal'"
	case number >= 140000:
		d.syncsSQL = "SELECT wal_sync FROM pg_stat_wal"
	}
	return nil
}

// syncs returns how often both servers have forced their logs. A session reports what it did when
// it ends, if not before, so syncs waits until ours have ended.
func (d *databases) syncs(ctx context.Context) (n int64, err error) {
	if d.syncsSQL == "" {
		return 0, nil
	}
	const others = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1"
	for i, conn := range d.watch {
		for left := 1; left > 0; {
			if err := conn.QueryRow(ctx, others, applicationName).Scan(&left); err != nil {
				return 0, fmt.Errorf("ask database %d for its sessions: %w", i+1, err)
			}
			if left > 0 {
				time.Sleep(time.Millisecond) // polling another process
			}
		}
		var one int64
		if err := conn.QueryRow(ctx, d.syncsSQL).Scan(&one); err != nil {
			return 0, fmt.Errorf("ask database %d for its forced writes: %w", i+1, err)
		}
		n += one
	}
	return n, nil
}

func (d *databases) close() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i, conn := range d.watch {
		if conn == nil {
			continue
		}
		if len(d.clusters) == 0 {
			if _, derr := conn.Exec(ctx, "DROP TABLE IF EXISTS "+table); derr != nil {
				err = errors.Join(err, fmt.Errorf("drop the table %s in database %d: %w", table, i+1, derr))
			}
		}
		_ = conn.Close(ctx) // nothing is lost with it
	}
	for _, c := range d.clusters {
		err = errors.Join(err, c.Close())
	}
	return err
}

// stage is the connections with which ways are measured beside each other: one pool in each
// database for what is done by hand and one of the same size for Assent.
type stage struct {
	o         options
	trips     atomic.Int64
	pools     [2]*pgxpool.Pool
	resources [2]postgresResource
}

func openStage(ctx context.Context, d *databases, o options, callers int) (s *stage, err error) {
	s = &stage{o: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	for i, dsn := range d.dsns {
		cfg, err := pgxpool.ParseConfig(dsn)
		if err != nil {
			return s, fmt.Errorf("connection string %d: %w", i+1, err)
		}
		cfg.MaxConns = int32(poolSize(callers))
		s.configure(cfg.ConnConfig)
		if s.pools[i], err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
			return s, err
		}
		s.resources[i], err = postgres.Open(ctx, dsn, postgres.Config{MaxConns: cfg.MaxConns, Configure: s.configure})
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

// configure names our sessions and counts their round trips.
func (s *stage) configure(cfg *pgx.ConnConfig) {
	cfg.RuntimeParams["application_name"] = applicationName
	dial := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &countedConn{Conn: conn, trips: &s.trips}, nil
	}
}

func (s *stage) close() (err error) {
	for i := range s.pools {
		if s.pools[i] != nil {
			s.pools[i].Close()
		}
		if s.resources[i] != nil {
			err = errors.Join(err, s.resources[i].Close())
		}
	}
	return err
}

// countedConn counts round trips: writes that follow a read, or nothing.
type countedConn struct {
	net.Conn
	trips   *atomic.Int64
	waiting atomic.Bool // the last thing done was a write
}

// Write implements net.Conn.
func (c *countedConn) Write(b []byte) (int, error) {
	if !c.waiting.Swap(true) {
		c.trips.Add(1)
	}
	return c.Conn.Write(b)
}

// Read implements net.Conn.
func (c *countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.waiting.Store(false)
	return n, err
}

// describe names what is measured.
func (d *databases) describe() string {
	kind := "two PostgreSQL servers of version " + d.version
	if len(d.clusters) == 0 {
		kind = "two databases on PostgreSQL " + d.version
	}
	return strings.TrimSpace(kind)
}
