package postgres

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"assent/decision"
	"assent/decision/decisiontest"
	"assent/internal/pgcluster"
	"assent/internal/pgcluster/pgtest"
	"assent/protocol/commit"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// schemas numbers the schemas of a test run, so that each log has its own.
var schemas atomic.Int64

// fresh returns a configuration of a log that does not exist yet.
func fresh() Config {
	return Config{Schema: fmt.Sprintf(`log "%d"`, schemas.Add(1)), CreateSchema: true, Logger: quiet()}
}

// mustOpen opens a log that is closed when the test ends.
func mustOpen(t testing.TB, dsn string, cfg Config) *Log {
	t.Helper()
	l, err := Open(t.Context(), dsn, cfg)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return l
}

func entry(id string) decision.Entry {
	return decision.Entry{
		ID: commit.TransactionID(id), Decision: commit.Commit, By: "coordinator", Time: time.Unix(1_700_000_000, 5).UTC(),
		Branches: []decision.Branch{{Resource: "orders", Evidence: []byte{0, 1}}, {Resource: "stock"}},
	}
}

func mustDecide(t testing.TB, l *Log, id string) {
	t.Helper()
	if _, err := l.Decide(t.Context(), entry(id)); err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{})
	again := func(t *testing.T, log decision.Log) *Log {
		cfg := log.(*Log).cfg
		cfg.CreateSchema = false
		return mustOpen(t, c.DSN(""), cfg)
	}
	decisiontest.Run(t, decisiontest.Harness{
		New: func(t *testing.T) decision.Log { return mustOpen(t, c.DSN(""), fresh()) },
		Reopen: func(t *testing.T, log decision.Log) decision.Log {
			if err := log.(*Log).Close(); err != nil {
				t.Fatal(err)
			}
			return again(t, log)
		},
		Another: func(t *testing.T, log decision.Log) decision.Log { return again(t, log) },
		// What crashes is the database; whoever had opened the log is as good as gone with it.
		Crash: func(t *testing.T, log decision.Log) decision.Log {
			if err := c.Restart(context.Background(), pgcluster.Immediate); err != nil {
				t.Fatal(err)
			}
			fresh := again(t, log)
			if err := log.(*Log).Close(); err != nil {
				t.Error(err)
			}
			return fresh
		},
	})
}
