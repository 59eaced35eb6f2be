package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"assent/decision"
	"assent/protocol/commit"
)

// byHand is two-phase commit by hand: each database's work and PREPARE follow one another without
// waiting for the other database; when both are prepared both are committed.
type byHand struct {
	plain
	called  string
	prefix  string
	prepare func(ctx context.Context, conn *pgxpool.Conn, row int, id string) error
	last    atomic.Uint64
	log     *handLog // nil without
}

// handLog is the least that a log can do: what callers decide while a write is under way is appended to a file
// and forced together. Nothing is ever dropped from it, or found again.
type handLog struct {
	*bare
	path  string
	syncs atomic.Uint64
}

// countedFile counts how often it is forced.
type countedFile struct {
	plainFile
	syncs *atomic.Uint64
}

func (f countedFile) force(data []byte) error {
	f.syncs.Add(1)
	return f.plainFile.force(data)
}

func newByHand(s *stage, name string, prepare func(ctx context.Context, conn *pgxpool.Conn, row int, id string) error) *byHand {
	return &byHand{plain: plain{pools: s.pools}, called: name, prepare: prepare, prefix: fmt.Sprintf("assent-bench-%x-", time.Now().UnixNano())}
}

// newLogged is newByHand with a log.
func newLogged(s *stage, name string, prepare func(ctx context.Context, conn *pgxpool.Conn, row int, id string) error) (way, error) {
	dir, err := os.MkdirTemp(s.o.dir, "assent-bench-")
	if err != nil {
		return nil, err
	}
	l := &handLog{path: dir}
	file, err := createPlainFile(filepath.Join(dir, "file"))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	l.bare = newBare(countedFile{file, &l.syncs}, 0)
	h := newByHand(s, name, prepare)
	h.log = l
	return h, nil
}

func (h *byHand) name() string { return h.called }

func (h *byHand) close() error {
	if h.log == nil {
		return nil
	}
	return errors.Join(h.log.close(), os.RemoveAll(h.log.path))
}

// decide has the transaction recorded as committed, where there is a log.
func (h *byHand) decide(ctx context.Context, name string) error {
	if h.log == nil {
		return nil
	}
	return h.log.decide(ctx, decision.Entry{
		ID: commit.TransactionID(name), Decision: commit.Commit, By: "coordinator", Time: time.Now(),
		Branches: []decision.Branch{{Resource: "first"}, {Resource: "second"}},
	})
}

func (h *byHand) transact(ctx context.Context, row int) error {
	name := h.prefix + strconv.FormatUint(h.last.Add(1), 36)
	id := [2]string{"'" + name + "-1'", "'" + name + "-2'"} // both may be in one cluster
	var conns [2]*pgxpool.Conn
	err := both(func(i int) (err error) {
		if conns[i], err = h.pools[i].Acquire(ctx); err != nil {
			return err
		}
		return h.prepare(ctx, conns[i], row, id[i])
	})
	if err == nil {
		err = h.decide(ctx, name)
	}
	if err == nil {
		err = both(func(i int) error {
			return command(ctx, conns[i], "COMMIT PREPARED "+id[i], "COMMIT PREPARED")
		})
	}
	for i, conn := range conns {
		if conn == nil {
			continue
		}
		if err != nil {
			_ = command(ctx, conn, "ROLLBACK PREPARED "+id[i], "ROLLBACK PREPARED") // if it is prepared
		}
		conn.Release()
	}
	return err
}
