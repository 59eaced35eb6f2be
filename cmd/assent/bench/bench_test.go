package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"assent/internal/pgcluster"
	"assent/internal/pgcluster/pgtest"
)

// run runs the command line and returns what it prints.
func run(ctx context.Context, args ...string) (string, error) {
	var out, progress bytes.Buffer
	cmd := Command()
	cmd.SilenceErrors = true
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&progress)
	err := cmd.ExecuteContext(ctx)
	return out.String(), err
}

func tiny(more ...string) []string {
	return append([]string{"--concurrency", "1,3", "--rounds", "2", "--duration", "20ms"}, more...)
}

// skipWithout skips the test where PostgreSQL is missing, as package pgtest does.
func skipWithout(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, pgcluster.ErrNotInstalled) && os.Getenv("ASSENT_REQUIRE_POSTGRES") != "1" {
		t.Skip(err)
	}
}

func TestCommitOnServersOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	out, err := run(t.Context(), append([]string{"commit", "--json", "--cluster", "--dir", dir, "--rows", "100"}, tiny()...)...)
	skipWithout(t, err)
	if err != nil {
		t.Fatal(err)
	}
	var r commitReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Lines) != 2*len(kinds) || r.Incomplete {
		t.Fatalf("%d results, want those of %d ways at two concurrencies:\n%s", len(r.Lines), len(kinds), out)
	}
	for i, x := range r.Lines {
		if want := kinds[i%len(kinds)].key; x.Way != want {
			t.Errorf("result %d is of %s, want %s", i, x.Way, want)
		}
		checkRow(t, x)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
}

// checkRow checks what does not depend on the machine's speed: that everything was measured, and
// what a transaction takes.
func checkRow(t *testing.T, x commitRow) {
	t.Helper()
	if x.All == nil || x.Paced == nil || x.All.Throughput <= 0 || x.All.P50 <= 0 || x.All.P99 < x.All.P50 {
		t.Errorf("%s at %d: %+v, paced %+v", x.Way, x.Concurrency, x.All, x.Paced)
		return
	}
	if x.Way == "floor" && x.All.OfFloor != 1 {
		t.Errorf("the floor is %v of the floor", x.All.OfFloor)
	}
	trips := map[string]float64{"floor": 8, "pipelined": 6, "onetrip": 4, "logged": 8, "onetriplogged": 4, "assent": 6, "queued": 4, "plain": 4, "slow": 6, "cluster": 6}[x.Way]
	if x.RoundTrips < trips { // more where a connection was made meanwhile
		t.Errorf("%s at %d: %v round trips, want %v", x.Way, x.Concurrency, x.RoundTrips, trips)
	}
	logged := x.Way != "floor" && x.Way != "pipelined" && x.Way != "onetrip" && x.Way != "plain"
	if (x.LogSyncs > 0) != logged {
		t.Errorf("%s at %d: %v syncs of the decision log", x.Way, x.Concurrency, x.LogSyncs)
	}
	if x.WALSyncs != nil && *x.WALSyncs <= 0 {
		t.Errorf("%s at %d: %v syncs of the databases", x.Way, x.Concurrency, *x.WALSyncs)
	}
}

// Databases that are not ours are left as they were.
func TestCommitOnDatabasesGiven(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{MaxPrepared: 50})
	first, second := pgtest.Database(t, c, "first", ""), pgtest.Database(t, c, "second", "")
	args := append([]string{"commit", "--rows", "50", "--slow-sync", "0", "--load", "0", "--postgres", first + "," + second}, tiny()...)
	out, err := run(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "two databases on PostgreSQL") || strings.Contains(out, "slow sync") || strings.Contains(out, " % of") {
		t.Errorf("unexpected output:\n%s", out)
	}
	conn, err := c.Conn(t.Context(), "first")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var tables, prepared int
	err = conn.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM pg_tables WHERE tablename = $1), (SELECT count(*) FROM pg_prepared_xacts)", table).
		Scan(&tables, &prepared)
	if err != nil || tables != 0 || prepared != 0 {
		t.Errorf("%d tables and %d prepared transactions are left, %v", tables, prepared, err)
	}
}

// A server that cannot take the load is refused before anything is done.
func TestCommitRefusesASmallServer(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{MaxPrepared: -1})
	first, second := pgtest.Database(t, c, "first", ""), pgtest.Database(t, c, "second", "")
	out, err := run(t.Context(), append([]string{"commit", "--postgres", first + "," + second}, tiny()...)...)
	if err == nil || !strings.Contains(err.Error(), "max_prepared_transactions of database 1 is 0") {
		t.Fatalf("got %v and\n%s", err, out)
	}
}

// Ctrl-C, which ends the context, shows the concurrencies that were measured before.
func TestCommitInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := options{concurrency: []int{1, 2}, duration: 10 * time.Millisecond, rounds: 1, rows: 10, dir: t.TempDir()}
	p := newProgress(writerFunc(func(b []byte) {
		if bytes.HasPrefix(b, []byte("concurrency 2, all it takes")) {
			cancel()
		}
	}))
	r, err := benchCommit(ctx, o, p)
	skipWithout(t, err)
	var out bytes.Buffer
	if err := r.print(&out, false, err); err != nil {
		t.Fatal(err)
	}
	each := len(kinds) - 2 // nothing is slowed, and there is no cluster
	if len(r.Lines) != 2*each || r.Lines[0].All == nil || r.Lines[each].All != nil || !strings.Contains(out.String(), "interrupted") {
		t.Errorf("%d results; printed\n%s", len(r.Lines), out.String())
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }

func TestLog(t *testing.T) {
	dir := t.TempDir()
	for _, slow := range []string{"0", "1ms"} {
		out, err := run(t.Context(), append([]string{"log", "--json", "--dir", dir, "--slow-sync", slow}, tiny()...)...)
		if err != nil {
			t.Fatal(err)
		}
		var r logReport
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		if len(r.Lines) != 2 {
			t.Fatalf("results: %s", out)
		}
		for _, x := range r.Lines {
			if x.Throughput <= 0 || x.OfFile <= 0 || x.PerSync < 1 || x.PerSync > float64(x.Concurrency) || x.Bytes <= 0 {
				t.Errorf("with %d callers: %+v", x.Concurrency, x)
			}
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
}

func TestScale(t *testing.T) {
	dir := t.TempDir()
	args := []string{"scale", "--dir", dir, "--participants", "1,4", "--rounds", "1", "--transactions", "2", "--slow-sync", "1ms"}
	out, err := run(t.Context(), append(args, "--json")...)
	if err != nil {
		t.Fatal(err)
	}
	var r scaleReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Lines) != 4 || r.Rounds != 1 || r.Incomplete {
		t.Fatalf("results: %s", out)
	}
	// What is waited for one after the other: the store's sync alone; or the slowest vote, the decision
	// and, unless the reply is early, the slowest commit.
	for i, syncs := range []float64{1, 1, 3, 2} {
		x := r.Lines[i]
		if x.Participants != []int{1, 4}[i/2] || x.Way != scaleWays[i%2].name {
			t.Errorf("result %d is of %s over %d participants", i, x.Way, x.Participants)
		}
		if x.Mean < 1000*syncs || x.P99 < x.P50 || x.OfFirst <= 0 || x.P99OfMean <= 0 {
			t.Errorf("%s over %d participants: %+v", x.Way, x.Participants, x)
		}
	}
	if out, err = run(t.Context(), args...); err != nil || !strings.Contains(out, "every sync takes 1ms longer") {
		t.Errorf("%v\n%s", err, out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
}

func TestWrongFlags(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"commit --concurrency 0", "--concurrency has 0 in it; it must be from 1 to 512"},
		{"commit --concurrency 513", "--concurrency has 513 in it"},
		{"commit --concurrency x", "invalid argument"},
		{"commit --concurrency=", "invalid argument"},
		{"commit --duration 0s", "--duration is 0s; it must be from 1ms to 1m"},
		{"commit --duration 2h", "--duration is 2h0m0s"},
		{"commit --rounds 0", "--rounds is 0; it must be from 1 to 1000"},
		{"commit --rows 63", "--rows is 63; it must be from the greatest concurrency, 64, to 10000000"},
		{"commit --load 1", "--load is 1; it must be from 0 to less than 1"},
		{"commit --load NaN", "--load is NaN"},
		{"commit --slow-sync -1ms", "--slow-sync is -1ms; it must be from 0 to 1s"},
		{"commit --postgres a", "--postgres takes two connection strings"},
		{"commit --postgres a,a", "--postgres takes two connection strings"},
		{"commit --postgres a,b,c", "--postgres takes two connection strings"},
		{"commit now", "unknown command \"now\""},
		{"log --rounds -1", "--rounds is -1"},
		{"log --slow-sync 2s", "--slow-sync is 2s"},
		{"log --rows 5", "unknown flag: --rows"},
		{"scale --participants 0", "--participants has 0 in it; it must be from 1 to 500"},
		{"scale --participants 501", "--participants has 501 in it"},
		{"scale --transactions 0", "--transactions is 0; it must be from 1 to 10000"},
		{"scale --rounds 1001", "--rounds is 1001"},
		{"scale --slow-sync 2s", "--slow-sync is 2s"},
	} {
		out, err := run(t.Context(), strings.Fields(c.args)...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("bench %s: got %v, want %q", c.args, err, c.want)
		}
		if strings.Contains(out, "callers") {
			t.Errorf("bench %s measured something:\n%s", c.args, out)
		}
	}
}

// A request may take several writes and its answer several reads: it is one round trip.
func TestRoundTripsAreCounted(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	go func() {
		defer there.Close()
		b := make([]byte, 1)
		for n := 0; ; n++ {
			if _, err := there.Read(b); err != nil {
				return
			}
			if b[0] == '.' {
				fmt.Fprint(there, "ab")
			}
		}
	}()
	var trips atomic.Int64
	c := &countedConn{Conn: here, trips: &trips}
	b := make([]byte, 1)
	for i := range 3 {
		for _, part := range []string{"s", "q", "."} {
			if _, err := c.Write([]byte(part)); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if _, err := c.Read(b); err != nil {
				t.Fatal(err)
			}
		}
		if n := trips.Load(); n != int64(i+1) {
			t.Fatalf("%d round trips after %d", n, i+1)
		}
	}
}
