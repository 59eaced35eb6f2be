package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
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

// bareLog is the floor: what callers bring while a write is under way is appended by the next write
// and forced with it. It finds nothing again and tells nobody what stands.
type bareLog struct {
	f     *os.File
	calls *decision.Grouper[*appending]
}

type appending struct {
	data []byte
	err  error
}

func openBareLog(_ context.Context, dir string) (decider, error) {
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		return nil, err
	}
	b := &bareLog{f: f}
	b.calls = decision.NewGrouper(decision.GrouperConfig[*appending]{
		Serve: b.append, Workers: 1, MostCalls: 4096, MostBytes: 4 << 20, MostWaiting: 1 << 16,
		Size: func(a *appending) int { return len(a.data) },
	})
	return b, nil
}

func (b *bareLog) append(group []*appending) {
	var all []byte
	for _, a := range group {
		all = append(all, a.data...)
	}
	_, err := b.f.Write(all)
	if err == nil {
		err = syscall.Fdatasync(int(b.f.Fd()))
	}
	for _, a := range group {
		a.err = err
	}
}

func (b *bareLog) decide(ctx context.Context, e decision.Entry) error {
	data, err := e.Encode()
	if err != nil {
		return err
	}
	a := &appending{data: data}
	if err := b.calls.Do(ctx, a); err != nil {
		return err
	}
	return a.err
}

func (b *bareLog) close() error {
	b.calls.Close()
	return b.f.Close()
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
