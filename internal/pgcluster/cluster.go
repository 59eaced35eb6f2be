// Package pgcluster runs private PostgreSQL clusters: initdb, start, stop, crash, start again.
//
// It promises that a cluster listens on a unix socket in a directory of its own (and on 127.0.0.1
// only where that is asked for), keeps every commit through a crash as any server does, and is
// stopped and deleted by Close, or when the process that made it dies. Each cluster has its own
// system identifier. It needs PostgreSQL's server programs and a Unix system; it is for tests,
// benchmarks and demonstrations, and never for data that anybody wants to keep.
package pgcluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrNotInstalled says that PostgreSQL's server programs are not on this machine.
var ErrNotInstalled = errors.New("the PostgreSQL server is not installed")

// User is the name of the superuser of every cluster. No password is asked for.
const User = "postgres"

// Options say how a cluster is set up. The zero value is a server fit for testing prepared
// transactions, with fsync on.
type Options struct {
	// MaxPrepared is max_prepared_transactions. Defaults to 200; negative means 0, disabled.
	MaxPrepared int
	// MaxConnections is max_connections. Defaults to 150.
	MaxConnections int
	// TCP makes the server listen on 127.0.0.1 too, on a port that Start chooses and keeps.
	TCP bool
	// Settings are further lines of postgresql.conf; they win over the ones above.
	Settings map[string]string
}

// Cluster is one PostgreSQL server and its data. Its methods are safe for concurrent use.
type Cluster struct {
	dir    string
	bin    string
	cred   *syscall.Credential // nil: run as the current user
	opts   Options
	port   atomic.Int32
	letGo  func()         // gives the port back; nil before Start has chosen one
	guard  io.WriteCloser // the watchdog's standard input
	guards *exec.Cmd

	mu     sync.Mutex
	server *exec.Cmd
	exited chan struct{}
}

// New makes a cluster and starts it. It fails with ErrNotInstalled where there is no PostgreSQL.
// The context bounds the making alone.
func New(ctx context.Context, opts Options) (*Cluster, error) {
	bin, err := findBin()
	if err != nil {
		return nil, err
	}
	if opts.MaxPrepared == 0 {
		opts.MaxPrepared = 200
	}
	if opts.MaxConnections == 0 {
		opts.MaxConnections = 150
	}
	c := &Cluster{bin: bin, opts: opts}
	c.port.Store(socketPort)
	if c.cred, err = serverCredential(); err != nil {
		return nil, err
	}
	// The directory's path must be short: a unix socket's has at most some 100 bytes.
	if c.dir, err = os.MkdirTemp(place(), "assent-pg-"); err != nil {
		return nil, fmt.Errorf("make a directory for a PostgreSQL cluster: %w", err)
	}
	if err := c.watch(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(c.dir))
	}
	if err := c.init(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := c.Start(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// socketPort is the port of a server without TCP: it names the socket file and nothing else.
const socketPort = 5432

// placeEnv names the folder in which clusters are made; /tmp where it is empty. In memory, on a tmpfs, they are made
// sooner, which is what most tests want: a server that is killed loses nothing of what it has written there, either.
const placeEnv = "ASSENT_POSTGRES_DIR"

// place is the folder in which clusters are made.
func place() string { return cmp.Or(os.Getenv(placeEnv), "/tmp") }

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

// LogFile is the path of the server's log.
func (c *Cluster) LogFile() string { return filepath.Join(c.dir, "log") }

// Version returns the first line of `postgres --version`.
func (c *Cluster) Version(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(c.bin, "postgres"), "--version").Output()
	if err != nil {
		return "", fmt.Errorf("postgres --version: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

func (c *Cluster) init(ctx context.Context) error {
	if c.cred != nil {
		if err := os.Chown(c.dir, int(c.cred.Uid), int(c.cred.Gid)); err != nil {
			return fmt.Errorf("give %s to the server's user: %w", c.dir, err)
		}
	}
	// WAL segments of 1 MiB keep a new cluster small.
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "initdb"), "-D", c.data(), "-U", User, "-A", "trust",
		"--no-sync", "-E", "UTF8", "--locale=C", "--wal-segsize=1")
	c.prepare(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb in %s: %w: %s", c.dir, err, bytes.TrimSpace(out))
	}
	conf, err := os.OpenFile(filepath.Join(c.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("configure %s: %w", c.dir, err)
	}
	_, err = conf.WriteString(c.settings())
	if err := errors.Join(err, conf.Close()); err != nil {
		return fmt.Errorf("configure %s: %w", c.dir, err)
	}
	return nil
}

func (c *Cluster) settings() string {
	var b strings.Builder
	set := func(name, value string) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.ReplaceAll(value, "'", "''"))
	}
	b.WriteString("\n")
	set("max_prepared_transactions", strconv.Itoa(max(c.opts.MaxPrepared, 0)))
	set("max_connections", strconv.Itoa(c.opts.MaxConnections))
	set("unix_socket_directories", c.dir)
	set("listen_addresses", "")
	set("shared_buffers", "16MB")
	set("min_wal_size", "5MB")
	set("max_wal_size", "64MB")
	set("autovacuum_naptime", "1h") // nothing here lives long enough to need it
	set("log_checkpoints", "off")
	for name, value := range c.opts.Settings {
		set(name, value)
	}
	return b.String()
}

// prepare makes cmd run as the server's user, apart from the terminal's signals.
func (c *Cluster) prepare(cmd *exec.Cmd) {
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: c.cred}
}

// DSN returns a connection string for the database db (default: postgres), by the unix socket.
func (c *Cluster) DSN(db string) string { return c.DSNFor(User, db) }

// DSNFor is DSN for another user than the superuser.
func (c *Cluster) DSNFor(user, db string) string {
	if db == "" {
		db = "postgres"
	}
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable", c.dir, c.port.Load(), user, db)
}

// TCPDSN is DSN by TCP. It needs Options.TCP.
func (c *Cluster) TCPDSN(db string) string {
	return strings.Replace(c.DSN(db), "host="+c.dir, "host=127.0.0.1", 1)
}

// Addr returns the network ("unix") and the address on which the server can be dialled.
func (c *Cluster) Addr() (network, address string) {
	return "unix", filepath.Join(c.dir, ".s.PGSQL."+strconv.Itoa(int(c.port.Load())))
}

// Conn opens a connection to the database db as the superuser. The caller closes it.
func (c *Cluster) Conn(ctx context.Context, db string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, c.DSN(db))
}

// Exec runs sql, which may hold several statements, in the database db as the superuser.
func (c *Cluster) Exec(ctx context.Context, db, sql string) error {
	conn, err := c.Conn(ctx, db)
	if err != nil {
		return err
	}
	_, err = conn.PgConn().Exec(ctx, sql).ReadAll()
	return errors.Join(err, conn.Close(ctx))
}

// CreateDatabase makes an empty database and returns its DSN.
func (c *Cluster) CreateDatabase(ctx context.Context, name string) (string, error) {
	if err := c.Exec(ctx, "", "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return "", fmt.Errorf("create database %s: %w", name, err)
	}
	return c.DSN(name), nil
}

// timeLeft bounds ctx, so that nothing here waits for ever.
func timeLeft(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, time.Minute)
}
