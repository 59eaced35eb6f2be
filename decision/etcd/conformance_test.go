package etcd

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"assent/decision"
	"assent/decision/decisiontest"
	"assent/internal/etcdcluster"
	"assent/protocol/commit"
)

// built is where the members' program is built.
var built string

func TestMain(m *testing.M) {
	var err error
	if built, err = os.MkdirTemp("", "assent-etcd-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(built); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// program builds what a member is made from, without the race detector.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(built, "member")
	if out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", path, "assent/internal/etcdcluster/member").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program of etcd's members: %w\n%s", err, out)
	}
	return path, nil
})

// newCluster starts members, each a process of its own, which end with the test.
func newCluster(t testing.TB, members int) *etcdcluster.Cluster {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	c, err := etcdcluster.New(t.Context(), etcdcluster.Options{Dir: t.TempDir(), Members: members, Program: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// prefixes numbers the prefixes of a test run, so that each log has its own.
var prefixes atomic.Int64

// fresh returns a configuration of a log that does not exist yet.
func fresh(c *etcdcluster.Cluster) Config {
	return Config{
		Client: clientv3.Config{Endpoints: c.Endpoints()}, Prefix: fmt.Sprintf("log-%d/", prefixes.Add(1)),
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Patience: 20 * time.Second,
	}
}

// mustOpen opens a log that is closed when the test ends.
func mustOpen(t testing.TB, cfg Config) *Log {
	t.Helper()
	l, err := Open(t.Context(), cfg)
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
	t.Parallel()
	c := newCluster(t, 3)
	again := func(t *testing.T, log decision.Log) *Log { return mustOpen(t, log.(*Log).cfg) }
	decisiontest.Run(t, decisiontest.Harness{
		New: func(t *testing.T) decision.Log { return mustOpen(t, fresh(c)) },
		Reopen: func(t *testing.T, log decision.Log) decision.Log {
			if err := log.(*Log).Close(); err != nil {
				t.Fatal(err)
			}
			return again(t, log)
		},
		Another: func(t *testing.T, log decision.Log) decision.Log { return again(t, log) },
		// What crashes is every member; whoever had opened the log is as good as gone with them.
		Crash: func(t *testing.T, log decision.Log) decision.Log {
			c.Kill(0, 1, 2)
			if err := c.StartAll(context.Background()); err != nil {
				t.Fatal(err)
			}
			left := again(t, log)
			if err := log.(*Log).Close(); err != nil {
				t.Error(err)
			}
			return left
		},
	})
}
