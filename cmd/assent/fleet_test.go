package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"assent/api"
	assentv1 "assent/api/assent/v1"
	"assent/internal/pgcluster"
	"assent/internal/pgcluster/pgtest"
	"assent/internal/ports"
)

// fleet are three nodes with mutual TLS over two databases that all reach.
type fleet struct {
	t       *testing.T
	program string
	dirs    map[string]string
	running map[string]*running
	servers []*url.URL
	cluster *pgcluster.Cluster
}

const nodeConfiguration = `
listen: %s
cluster:
  name: fleet
  node: %s
  suspect_after: 20s # a machine that is overloaded is none that is dead
  tls: {cert_file: %[3]s/%[2]s.crt, key_file: %[3]s/%[2]s.key, ca_file: %[3]s/ca.crt}
  nodes: {%s}
resources:
  orders: {type: postgres, dsn: "%s"}
  billing: {type: postgres, dsn: "%s"}
`

func newFleet(t *testing.T) *fleet {
	f := &fleet{t: t, dirs: map[string]string{}, running: map[string]*running{}, cluster: pgtest.Start(t, pgcluster.Options{MaxPrepared: 100})}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f.program = filepath.Join(t.TempDir(), "assent")
	if err := os.Symlink(program, f.program); err != nil { // see testscript.Main
		t.Fatal(err)
	}
	names := []string{"a", "b", "c"}
	certs := certificates(t, names, nil)
	var dsns []string
	for _, db := range []string{"orders", "billing"} {
		dsns = append(dsns, pgtest.Database(t, f.cluster, db, "CREATE TABLE t (id text PRIMARY KEY)"))
	}
	var nodes []string
	for _, name := range names {
		nodes = append(nodes, fmt.Sprintf("%s: {address: %q}", name, ports.Address(t)))
	}
	for _, name := range names {
		f.dirs[name] = t.TempDir()
		listen := ports.Address(t)
		f.servers = append(f.servers, &url.URL{Scheme: "http", Host: listen})
		text := fmt.Sprintf(nodeConfiguration, listen, name, certs, strings.Join(nodes, ", "), dsns[0], dsns[1])
		if err := os.WriteFile(filepath.Join(f.dirs[name], "assent.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for name, r := range f.running {
			if r != nil && r.cmd != nil {
				_ = r.end(syscall.SIGKILL)
			}
			if t.Failed() {
				log, _ := os.ReadFile(filepath.Join(f.dirs[name], "server.log"))
				t.Logf("node %s:\n%s", name, log)
			}
		}
	})
	f.start(names...)
	return f
}

// start starts nodes, which wait for each other.
func (f *fleet) start(names ...string) {
	f.t.Helper()
	var group sync.WaitGroup
	var mu sync.Mutex
	for _, name := range names {
		group.Go(func() {
			r, err := start(f.dirs[name], append(os.Environ(), "GORACE=atexit_sleep_ms=0"), f.program, "-c", "assent.yaml")
			if err != nil {
				f.t.Errorf("start %s: %v", name, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			f.running[name] = r
		})
	}
	group.Wait()
	if f.t.Failed() {
		f.t.FailNow()
	}
}

// client returns a client of all nodes.
func (f *fleet) client() *http.Client {
	return &http.Client{Transport: &failover{servers: f.servers, next: &http.Transport{}}}
}

// healthy waits until every node sees every other up, and voting.
func (f *fleet) healthy() {
	f.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		bad := ""
		for _, s := range f.servers {
			c, err := assentv1.NewOperatorServiceClient(&http.Client{}, s.String()).Cluster(f.t.Context(), &assentv1.ClusterRequest{})
			if err != nil {
				bad = err.Error()
				continue
			}
			for _, m := range c.GetMembers() {
				if m.GetState() != "up" && m.GetState() != "this node" || !strings.HasPrefix(m.GetLog(), "votes") { // under load a few entries are always behind
					bad = fmt.Sprintf("%s sees %s %s, %s", c.GetNode(), m.GetNode(), m.GetState(), m.GetLog())
				}
			}
		}
		if bad == "" {
			return
		}
		if time.Now().After(end) {
			f.t.Fatalf("the nodes are not well after a minute: %s", bad)
		}
	}
}

func insert(resource, id string) *assentv1.Operation {
	return &assentv1.Operation{Resource: resource, Action: &assentv1.Operation_Statement{Statement: &assentv1.Statement{
		Sql: "INSERT INTO t VALUES ($1)", Args: []*assentv1.Value{{Kind: &assentv1.Value_String_{String_: id}}}}}}
}

// TestFleet is three nodes as an operator and a client meet them.
func TestFleet(t *testing.T) {
	f := newFleet(t)
	f.healthy()
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{{"any node tells", f.tells}, {"rolling restart", f.restarts}, {"too few nodes", f.tooFew}} {
		t.Run(part.name, func(t *testing.T) {
			f.t = t // who fails
			part.run(t)
		})
	}
}

func (f *fleet) transactions(node int) assentv1.TransactionServiceClient {
	return assentv1.NewTransactionServiceClient(&http.Client{}, f.servers[node].String())
}

func (f *fleet) operator(node int) assentv1.OperatorServiceClient {
	return assentv1.NewOperatorServiceClient(&http.Client{}, f.servers[node].String())
}

// tells asks nodes for transactions that others have begun.
func (f *fleet) tells(t *testing.T) {
	ctx := t.Context()
	begun, err := f.transactions(0).Begin(ctx, &assentv1.BeginRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, resource := range []string{"orders", "billing"} {
		if _, err := f.transactions(0).Execute(ctx, &assentv1.ExecuteRequest{Id: begun.GetId(), Operation: insert(resource, "told")}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := f.operator(1).Get(ctx, &assentv1.GetRequest{Id: begun.GetId()}); err != nil || got.GetTransaction().GetState() != assentv1.State_STATE_OPEN {
		t.Errorf("while it is open another node tells %v, %v", got, err)
	}
	if got, err := f.transactions(1).Commit(ctx, &assentv1.CommitRequest{Id: begun.GetId()}); err != nil || got.GetOutcome().GetInDoubt() == nil {
		t.Errorf("another node commits it: %v, %v", got, err)
	}
	if got, err := f.transactions(0).Commit(ctx, &assentv1.CommitRequest{Id: begun.GetId()}); err != nil || got.GetOutcome().GetCommitted() == nil {
		t.Fatalf("commit: %v, %v", got, err)
	}
	for node := range f.servers {
		got, err := f.operator(node).Get(ctx, &assentv1.GetRequest{Id: begun.GetId()})
		if err != nil || got.GetTransaction().GetDecision() != assentv1.Decision_DECISION_COMMIT || len(got.GetTransaction().GetBranches()) != 2 {
			t.Errorf("node %d tells %v, %v", node, got, err)
		}
		again, err := f.transactions(node).Commit(ctx, &assentv1.CommitRequest{Id: begun.GetId()})
		if err != nil || again.GetOutcome().GetCommitted() == nil {
			t.Errorf("asked for the outcome, node %d tells %v, %v", node, again, err)
		}
		if _, err := f.operator(node).Get(ctx, &assentv1.GetRequest{Id: begun.GetId() + "0"}); connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("of what nobody has begun node %d tells %v", node, err)
		}
	}
	for _, db := range []string{"orders", "billing"} {
		if err := f.cluster.Exec(ctx, db, "DELETE FROM t"); err != nil {
			t.Fatal(err)
		}
	}
}

// tooFew kills two nodes. The third begins nothing, and says why; when they are back it does.
func (f *fleet) tooFew(t *testing.T) {
	for _, name := range []string{"a", "b"} {
		if err := f.running[name].end(syscall.SIGKILL); err == nil {
			t.Errorf("%s ended well although it was killed", name)
		}
	}
	var err error
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		begun, berr := f.transactions(2).Begin(t.Context(), &assentv1.BeginRequest{})
		if err = berr; err != nil || time.Now().After(end) {
			break
		}
		if _, err := f.transactions(2).Rollback(t.Context(), &assentv1.RollbackRequest{Id: begun.GetId()}); err != nil {
			t.Fatal(err)
		}
	}
	told, ok := errors.AsType[*connect.Error](err)
	if !ok || told.Code() != connect.CodeUnavailable || told.Meta().Get(api.HeaderElsewhere) == "" ||
		!strings.Contains(told.Message(), "node c cannot decide anything: 1 of 3 votes, 2 needed: a and b unreachable") {
		t.Errorf("alone the third node says %v", err)
	}
	var out strings.Builder
	p := &program{out: &out, err: io.Discard, getenv: func(string) string { return "" }}
	if code := p.run([]string{"cluster", "status", "--server", f.servers[2].String()}); code != exitError ||
		!strings.Contains(out.String(), "cannot decide anything: 1 of 3 votes, 2 needed: a and b unreachable") {
		t.Errorf("exit code %d:\n%s", code, &out)
	}
	f.start("a", "b")
	f.healthy()
	id := "after"
	answer, err := f.transactions(2).Run(t.Context(), &assentv1.RunRequest{Operations: []*assentv1.Operation{insert("orders", id), insert("billing", id)}})
	if err != nil || answer.GetOutcome().GetCommitted() == nil {
		t.Errorf("when they are back: %v, %v", answer, err)
	}
}

// restarts restarts the nodes one after another under load. No transaction fails: neither those that are
// one call, nor those that are open while a node leaves.
func (f *fleet) restarts(t *testing.T) {
	var committed, calls atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	defer workers.Wait() // whatever ends the test
	defer cancel()
	for w := range 3 {
		workers.Go(func() {
			c := assentv1.NewTransactionServiceClient(f.client(), f.servers[w].String())
			for n := 0; ctx.Err() == nil; n++ {
				id := fmt.Sprintf("run-%d-%d", w, n)
				answer, err := c.Run(t.Context(), &assentv1.RunRequest{Operations: []*assentv1.Operation{insert("orders", id), insert("billing", id)}})
				if err != nil || answer.GetOutcome().GetCommitted() == nil {
					t.Errorf("%s: %v, %v", id, answer.GetOutcome(), err)
					return
				}
				committed.Add(1)
				calls.Add(1)
			}
		})
	}
	for w := range 2 {
		workers.Go(func() {
			c := assentv1.NewTransactionServiceClient(f.client(), f.servers[w].String())
			for n := 0; ctx.Err() == nil; n++ {
				if err := step(t.Context(), c, fmt.Sprintf("step-%d-%d", w, n)); err != nil {
					t.Errorf("step-%d-%d: %v", w, n, err)
					return
				}
				committed.Add(1)
			}
		})
	}
	for _, name := range []string{"c", "a", "b"} { // the leader first
		before := calls.Load()
		if err := f.running[name].end(syscall.SIGTERM); err != nil {
			t.Errorf("node %s: %v", name, err)
		}
		for calls.Load() < before+5 && !t.Failed() { // the others go on
			time.Sleep(5 * time.Millisecond)
		}
		f.start(name)
		f.healthy()
	}
	cancel()
	workers.Wait()
	for _, db := range []string{"orders", "billing"} {
		conn, err := f.cluster.Conn(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		var rows, prepared int64
		if err := conn.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM pg_prepared_xacts)").Scan(&rows, &prepared); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close(t.Context())
		if rows != committed.Load() || prepared != 0 {
			t.Errorf("%s has %d rows and %d prepared; %d transactions were committed", db, rows, prepared, committed.Load())
		}
	}
	t.Logf("%d transactions", committed.Load())
}

// step is a transaction that stays open for a while.
func step(ctx context.Context, c assentv1.TransactionServiceClient, id string) error {
	begun, err := c.Begin(ctx, &assentv1.BeginRequest{})
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	for _, resource := range []string{"orders", "billing"} {
		if _, err := c.Execute(ctx, &assentv1.ExecuteRequest{Id: begun.GetId(), Operation: insert(resource, id)}); err != nil {
			return fmt.Errorf("execute in %s: %w", resource, err)
		}
		time.Sleep(20 * time.Millisecond) // the application thinks
	}
	answer, err := c.Commit(ctx, &assentv1.CommitRequest{Id: begun.GetId()})
	if err != nil || answer.GetOutcome().GetCommitted() == nil {
		return fmt.Errorf("commit: %v, %w", answer.GetOutcome(), err)
	}
	return nil
}
