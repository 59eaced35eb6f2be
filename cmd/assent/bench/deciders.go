package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"assent/decision"
	"assent/decision/disk"
	"assent/decision/postgres"
	"assent/internal/pgcluster"
	"assent/protocol/commit"
)

// decider is one place in which decisions are recorded. decide returns when the decision is stable
// there, and is called by many at a time, each time for another transaction.
type decider interface {
	decide(ctx context.Context, e decision.Entry) error
	close() error
}

// deciderKind is a kind of place. open makes one in the directory dir, which is empty and its own.
// An error that is errMissing says that this machine has not got what it takes.
type deciderKind struct {
	key, name string
	open      func(ctx context.Context, dir string) (decider, error)
}

// errMissing says that a place cannot be made on this machine, and why.
var errMissing = errors.New("left out")

// deciderKinds returns the kinds there are, the floor first. To compare with another, add it here.
func deciderKinds() []deciderKind {
	kinds := []deciderKind{
		{"floor", "floor: bare file", openBareLog},
		{"majority", "floor: bare majority", openBareMajority},
		{"disk", "disk", openDisk},
		{"paxos", "paxos: 3 members", openPaxos},
		{"postgres", "postgres", openPostgres},
	}
	return append(kinds, peerKinds()...)
}

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

// logDecider is a decision log, with what must be closed after it, the latest first.
type logDecider struct {
	decision.Log
	closers []func() error
	// syncs returns how often the log, or all its members together, have forced their storage. It may
	// be nil.
	syncs func() uint64
}

func (l *logDecider) decide(ctx context.Context, e decision.Entry) error {
	_, err := l.Decide(ctx, e)
	return err
}

// prefix returns what ids begin with that are decided about fastest, or "".
func (l *logDecider) prefix() string {
	if p, ok := l.Log.(decision.Prefixer); ok {
		return p.Prefix() + "-"
	}
	return ""
}

func (l *logDecider) close() (err error) {
	for _, c := range slices.Backward(l.closers) {
		err = errors.Join(err, c())
	}
	return err
}

func openDisk(_ context.Context, dir string) (decider, error) {
	l, err := disk.Open(filepath.Join(dir, "log"), disk.Config{Logger: silent()})
	if err != nil {
		return nil, err
	}
	return &logDecider{Log: l, closers: []func() error{l.Close}}, nil
}

// openPostgres starts a server of its own.
func openPostgres(ctx context.Context, _ string) (decider, error) {
	c, err := pgcluster.New(ctx, pgcluster.Options{
		Settings: map[string]string{"shared_buffers": "128MB", "min_wal_size": "256MB", "max_wal_size": "2GB", "checkpoint_timeout": "1h"},
	})
	if errors.Is(err, pgcluster.ErrNotInstalled) {
		return nil, fmt.Errorf("%w: %w", errMissing, err)
	}
	if err != nil {
		return nil, fmt.Errorf("start a PostgreSQL server: %w", err)
	}
	l, err := postgres.Open(ctx, c.DSN(""), postgres.Config{CreateSchema: true, Logger: silent()})
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &logDecider{Log: l, closers: []func() error{c.Close, l.Close}}, nil
}

// deciding is a way whose transactions are mere decisions, on two branches each.
type deciding struct {
	decider
	kind   deciderKind
	prefix string
	number atomic.Uint64
}

func (d *deciding) name() string { return d.kind.name }

func (d *deciding) transact(ctx context.Context, _ int) error {
	evidence := []byte("pg1 7425461853172437034 00000001 1234567")
	return d.decide(ctx, decision.Entry{
		ID: commit.TransactionID(fmt.Sprint(d.prefix, "-", strconv.FormatUint(d.number.Add(1), 36))), Decision: commit.Commit,
		By: "coordinator", Time: time.Now().UTC(),
		Branches: []decision.Branch{{Resource: "first", Evidence: evidence}, {Resource: "second", Evidence: evidence}},
	})
}

func (*deciding) drain(context.Context) error { return nil }
