// Package postgres keeps the decision log in two tables of a database that speaks PostgreSQL's
// protocol: PostgreSQL itself, CockroachDB, YugabyteDB, Aurora, AlloyDB. Several processes may use
// one log at the same time.
//
// The package promises that nobody is told a decision before the database has committed it; that
// decisions made at the same time share statements and forced writes; that a connection that is cut
// leaves no doubt, because what stands is read again; and that a database which would lose commits
// in a crash (fsync or synchronous_commit off), or has become another one, is refused. It survives
// what the database survives: with asynchronous replication a failover may lose decisions, so
// replicate synchronously, or use a database that does.
//
// The tables are described in docs/format/decision-postgres.md.
package postgres

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Config says how a log is kept. The zero value is good for use.
type Config struct {
	// Schema is the name of the schema that holds the tables; two logs may be in one database under
	// two names. Defaults to "assent".
	Schema string

	// CreateSchema lets Open make the schema and its tables where they are missing. It needs the
	// right to do so, and does nothing where they are there. Defaults to false: Open then fails with
	// ErrNoTables.
	CreateSchema bool

	// Retention is for how long an entry is kept for information after it is Done, by the database's
	// clock. Entries that are not Done are kept for ever. Defaults to 24 hours.
	Retention time.Duration

	// RetainCount is the greatest number of Done entries that are kept; a few hundredths more may be
	// found. Where there are more, the oldest go before their time. Defaults to 100,000.
	RetainCount int

	// RetireInterval is the pause between two searches for entries that are not to be kept any longer.
	// Defaults to one minute.
	RetireInterval time.Duration

	// MaxConns is the greatest number of connections. At least 4. Defaults to 8.
	MaxConns int32

	// MaxWaiting is the greatest number of decisions that wait for the database at a time, and that of
	// notes; more are refused with resource.Capacity. Defaults to 65,536.
	MaxWaiting int

	// Patience is for how long a call goes on trying where the database cannot be reached, or gives a
	// reason to try again, before it returns an error. Defaults to 5 s.
	Patience time.Duration

	// AttemptTimeout bounds one attempt. Defaults to 10 s.
	AttemptTimeout time.Duration

	// Logger receives what an operator should know: that the database cannot be reached, and that it
	// can again. Defaults to slog.Default().
	Logger *slog.Logger

	// Random is what the owner of a new log is drawn from. It must not fail. Defaults to
	// crypto/rand.Reader.
	Random io.Reader

	// Configure changes how connections are made: their TLS settings or their dial function. It is
	// called once by Open. Defaults to nothing.
	Configure func(*pgx.ConnConfig)
}

// validate fills in the defaults and reports what is wrong with c.
func (c *Config) validate() error {
	if c.Schema == "" {
		c.Schema = "assent"
	}
	for _, d := range [...]struct {
		name  string
		field *time.Duration
		value time.Duration
	}{
		{"retention", &c.Retention, 24 * time.Hour},
		{"retire interval", &c.RetireInterval, time.Minute},
		{"patience", &c.Patience, 5 * time.Second},
		{"attempt timeout", &c.AttemptTimeout, 10 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
		if *d.field < 0 {
			return fmt.Errorf("%s is %v; it cannot be negative", d.name, *d.field)
		}
	}
	if c.RetainCount == 0 {
		c.RetainCount = 100_000
	}
	if c.MaxConns == 0 {
		c.MaxConns = 8
	}
	if c.MaxWaiting == 0 {
		c.MaxWaiting = 1 << 16
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	switch {
	case c.RetainCount < 0:
		return fmt.Errorf("retain count is %d; it cannot be negative", c.RetainCount)
	case c.MaxConns < 4 || c.MaxConns > 1000:
		return fmt.Errorf("%d connections; there must be between 4 and 1000", c.MaxConns)
	case c.MaxWaiting < 0:
		return fmt.Errorf("the greatest number of waiting calls is %d; it cannot be negative", c.MaxWaiting)
	case len(c.Schema) > 63:
		return fmt.Errorf("schema name has %d bytes; at most 63 are allowed", len(c.Schema))
	case strings.ContainsRune(c.Schema, 0):
		return errors.New("schema name has a zero byte")
	}
	return nil
}
