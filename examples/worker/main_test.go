package main

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"assent/internal/pgcluster"
	"assent/internal/pgcluster/pgtest"
	"assent/resource/kv"
)

// asWorker makes the test's program a worker.
const asWorker = "ASSENT_EXAMPLE_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(asWorker) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const jobs = 300

// fill returns the statements that fill the queue, and the counts that its jobs make.
func fill() (sql string, want map[string]int) {
	var b strings.Builder
	b.WriteString(`CREATE TABLE jobs (id bigint PRIMARY KEY, text text NOT NULL);`)
	want = map[string]int{"to": 2 * jobs}
	for id := 1; id <= jobs; id++ {
		fmt.Fprintf(&b, "INSERT INTO jobs VALUES (%d, 'to job%d to word%d');", id, id, id%7)
		want[fmt.Sprint("job", id)]++ // more than once would be twice
		want[fmt.Sprint("word", id%7)]++
	}
	return b.String(), want
}

// start starts a worker.
func start(t *testing.T, arguments ...string) (cmd *exec.Cmd, lines *bufio.Scanner) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(program, arguments...)
	cmd.Env = append(os.Environ(), asWorker+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// TestKilledWorker kills workers, by SIGKILL, a moment after they have done their first job, and then
// lets one do the rest.
func TestKilledWorker(t *testing.T) {
	cluster := pgtest.Start(t, pgcluster.Options{})
	sql, want := fill()
	dsn := pgtest.Database(t, cluster, "queue", sql)
	dir := t.TempDir()

	random := rand.New(rand.NewPCG(1, 2))
	said := 0
	for kill := 0; kill < 6 && said < jobs/2; kill++ { // a busy machine may kill later than it is told
		cmd, lines := start(t, "-queue", dsn, "-dir", dir)
		moment := time.Duration(random.IntN(30)) * time.Millisecond
		for first := true; lines.Scan(); first = false {
			said++
			if first {
				time.AfterFunc(moment, func() { _ = cmd.Process.Kill() })
			}
		}
		if err := cmd.Wait(); cmd.ProcessState.Exited() {
			t.Fatalf("the worker was not killed: %v", err)
		}
	}

	conn, err := cluster.Conn(t.Context(), "queue")
	if err != nil {
		t.Fatal(err)
	}
	count := func(table string) (n int) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM `+table).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	cmd, lines := start(t, "-queue", dsn, "-dir", dir)
	for count("jobs")+count("pg_prepared_xacts") > 0 {
		time.Sleep(20 * time.Millisecond)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
		said++
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the last worker: %v", err)
	}
	if said > jobs {
		t.Errorf("the workers say that they did %d jobs, of %d", said, jobs)
	}
	if diff := cmp.Diff(want, results(t, dir)); diff != "" {
		t.Errorf("the words, want - and got +:\n%s", diff)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// results returns what the store has counted.
func results(t *testing.T, dir string) map[string]int {
	t.Helper()
	store, err := kv.Open(filepath.Join(dir, "results"), kv.Config{})
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	err = store.View(t.Context(), func(v *kv.View) error {
		for word, err := range v.Scan(nil, nil) {
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(string(word.Value))
			if err != nil {
				return err
			}
			counts[string(word.Key)] = n
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	return counts
}

// TestInterrupted ends an idle worker in order.
func TestInterrupted(t *testing.T) {
	cluster := pgtest.Start(t, pgcluster.Options{})
	dsn := pgtest.Database(t, cluster, "queue", `CREATE TABLE jobs (id bigint PRIMARY KEY, text text NOT NULL);
		INSERT INTO jobs VALUES (1, 'one job')`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	dir := t.TempDir()
	// Its first line is the sign to interrupt it.
	if err := run(ctx, writer(func([]byte) { cancel() }), []string{"-queue", dsn, "-dir", dir}); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(map[string]int{"one": 1, "job": 1}, results(t, dir)); diff != "" {
		t.Error(diff)
	}
}

type writer func([]byte)

func (f writer) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}
