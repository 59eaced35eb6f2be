package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"assent/internal/pgcluster"
	"assent/internal/pgcluster/pgtest"
)

// TestMain makes the test's program one that holds the command, as the demo asks.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "demo" {
		if err := program(context.Background(), os.Args[1:]).Execute(); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// Under the race detector a program sleeps for a second before it ends; the registrars need not.
	if err := os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0")); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func program(ctx context.Context, arguments []string) *cobra.Command {
	root := &cobra.Command{Use: "assent", SilenceErrors: true}
	root.AddCommand(Command())
	root.SetArgs(arguments)
	root.SetContext(ctx)
	return root
}

// run runs `assent demo` with the arguments and returns what it printed and its error.
func run(t *testing.T, arguments ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	root := program(t.Context(), append([]string{"demo"}, arguments...))
	root.SetOut(&out)
	root.SetErr(&errs)
	err = root.Execute()
	return out.String(), errs.String(), err
}

func parse(t *testing.T, stdout string) verdict {
	t.Helper()
	var v verdict
	if err := json.Unmarshal([]byte(stdout), &v); err != nil {
		t.Fatalf("the verdict %q: %v", stdout, err)
	}
	return v
}

// checkSums checks that the verdict's numbers are of the same story.
func checkSums(t *testing.T, v verdict) {
	t.Helper()
	if sum := v.Enrolled + v.Withdrawn + v.Refused + v.Aborted + v.Contradicted + v.Heuristic + v.Unanswered; sum != v.Transactions {
		t.Errorf("%d transactions, but the ways in which they ended sum up to %d: %+v", v.Transactions, sum, v)
	}
	if v.UnansweredCommitted+v.UnansweredAborted != v.Unanswered {
		t.Errorf("unanswered do not sum up: %+v", v)
	}
}

func TestDemo(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new", "machines")
	stdout, stderr, err := run(t, "--json", "--kills", "5", "--transactions", "300", "--dir", dir)
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, stdout, stderr)
	}
	v := parse(t, stdout)
	if v.Kills != 5 || v.Transactions < 300 || v.InDoubt != 0 || len(v.Mismatches) != 0 || v.Interrupted {
		t.Errorf("verdict %+v", v)
	}
	if v.Enrolled == 0 || v.Withdrawn == 0 || v.Unanswered == 0 {
		t.Errorf("the demonstration has not shown much: %+v", v)
	}
	checkSums(t, v)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
	if !strings.Contains(stderr, "seed") {
		t.Errorf("the seed is not shown: %q", stderr)
	}
}

func TestKeepAndTable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stdout, stderr, err := run(t, "--kills", "0", "--transactions", "200", "--workers", "8", "--seats", "1", "--courses", "4",
		"--seed", "7", "--dir", dir, "--keep")
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, stdout, stderr)
	}
	for _, want := range []string{"transactions  ", "refused  ", "in doubt                         0\n", "mismatches                       0\n",
		"every answer holds", "the machines are kept in " + dir} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	if _, _, err := run(t, "--dir", dir); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("a second run in the same directory: %v", err)
	}
}

// TestSabotage proves that the verdict can fail, in each way in which it may have to.
func TestSabotage(t *testing.T) {
	wants := map[string][]string{
		lostRecord: {"half: courses has the seat, students-a has no record", "acknowledged and is not on students-a"},
		lostSeat:   {"half: students-a has the record, courses has no seat", "acknowledged and is not on courses", "seats are taken"},
		lostBoth:   {"acknowledged and is not on students-a", "acknowledged and is not on courses"},
		half:       {"half: students-a has the record, courses has no seat", "refused, aborted or withdrawn"},
		refused:    {"was made by request 1, which was refused, aborted or withdrawn"},
		forged:     {"the seat is of transaction sabotage-forged", "is not of the acknowledged transaction"},
		extraSeat:  {"seats are taken and"},
		prepared:   {"in doubt on courses: a branch is prepared"},
		unfinished: {"in doubt on the decision log: abort is recorded, and it is unfinished"},
	}
	o := options{transactions: 60, workers: 8, students: 20, courses: 5, seats: 6, seed: 1, dir: t.TempDir(), keep: true}
	d := newDemo(o, []string{"demo", registrarName}, newProgress(io.Discard, o))
	if v, err := d.run(t.Context()); err != nil || len(v.Mismatches) > 0 {
		t.Fatalf("before sabotage: %+v, %v", v, err)
	}
	for _, kind := range sabotages() {
		t.Run(kind, func(t *testing.T) {
			d.setup.Dir = t.TempDir()
			if err := os.CopyFS(d.setup.Dir, os.DirFS(o.dir)); err != nil {
				t.Fatal(err)
			}
			d.o.sabotage = kind
			v, err := d.judge(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			checkSums(t, *v)
			if v.err() == nil {
				t.Error("the verdict is that all is well")
			}
			for _, want := range wants[kind] {
				if !named(v.Mismatches, kind, want) {
					t.Errorf("no mismatch says %q, naming whom it concerns:\n%v", want, v.Mismatches)
				}
			}
			if doubts := kind == prepared || kind == unfinished; (v.InDoubt > 0) != doubts {
				t.Errorf("%d in doubt", v.InDoubt)
			}
		})
	}
}

// TestMismatch looks at what a user sees of a mismatch: the exit status, whom it concerns, and that
// everything is kept.
func TestMismatch(t *testing.T) {
	t.Parallel()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command(program, "demo", "--kills", "0", "--transactions", "60", "--workers", "8", "--dir", dir, "--sabotage", lostRecord)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("the exit status: %v", err)
	}
	for _, want := range []string{"student a-", "course c-", "transaction 0", "half: courses has the seat, students-a has no record", "FAILED, 2 mismatches"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("no %q in\n%s", want, stdout.String())
		}
	}
	if want := "error: 2 mismatches; the machines are kept in " + dir; !strings.Contains(stderr.String(), want) {
		t.Errorf("no %q in\n%s", want, stderr.String())
	}
	if _, err := os.Stat(filepath.Join(dir, machineC)); err != nil {
		t.Errorf("the machines were not kept: %v", err)
	}
}

// named reports whether a mismatch says what and names what it is about.
func named(all []Mismatch, kind, what string) bool {
	for _, m := range all {
		if !strings.Contains(m.What, what) {
			continue
		}
		switch kind {
		case prepared, unfinished:
			return m.Transaction == "sabotage-"+kind
		}
		return m.Course != "" && (strings.HasPrefix(what, "seats") || m.Student != "" && m.Transaction != "")
	}
	return false
}

// TestInterrupt presses Ctrl-C, as a terminal does: every process of the group gets the signal.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command(program, "demo", "--json", "--kills", "10000", "--dir", dir, "--keep")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	// A registrar logs what it recovers: then a kill has done something.
	for recovered := false; !recovered; {
		log, _ := os.ReadFile(filepath.Join(dir, logName)) // it may not be there yet
		recovered = bytes.Contains(log, []byte("orphan")) || bytes.Contains(log, []byte("earlier run"))
		select {
		case err := <-ended:
			t.Fatalf("the demo ended by itself: %v\n%s", err, stderr.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatalf("%v\n%s\n%s", err, stdout.String(), stderr.String())
	}
	v := parse(t, stdout.String())
	checkSums(t, v)
	if !v.Interrupted || v.Kills == 0 || v.Transactions == 0 || v.InDoubt != 0 || len(v.Mismatches) != 0 {
		t.Errorf("verdict %+v", v)
	}
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Start(t, pgcluster.Options{})
	dsns := pgtest.Database(t, cluster, "a", "") + "," + pgtest.Database(t, cluster, "b", "")
	arguments := []string{"--json", "--workers", "8", "--courses", "5", "--seats", "6", "--students", "40", "--postgres", dsns}

	stdout, stderr, err := run(t, append(arguments, "--kills", "3", "--transactions", "200")...)
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, stdout, stderr)
	}
	v := parse(t, stdout)
	checkSums(t, v)
	if v.Kills != 3 || v.Transactions < 200 || v.InDoubt != 0 || len(v.Mismatches) != 0 {
		t.Errorf("verdict %+v", v)
	}
	count := func(database, query string) (n int) {
		t.Helper()
		conn, err := cluster.Conn(t.Context(), database)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		if err := conn.QueryRow(t.Context(), query).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count("a", `SELECT count(*) FROM pg_prepared_xacts`); n != 0 {
		t.Errorf("%d branches are prepared after the demo", n)
	}
	const schemas = `SELECT count(*) FROM pg_namespace WHERE nspname = '` + schema + `'`
	if count("a", schemas)+count("b", schemas) != 0 {
		t.Error("the schema is still there")
	}

	dir := t.TempDir()
	stdout, _, err = run(t, append(arguments, "--kills", "0", "--transactions", "60", "--dir", dir, "--sabotage", lostRecord)...)
	if err == nil || !named(parse(t, stdout).Mismatches, lostRecord, "half: courses has the seat, students-a has no record") {
		t.Errorf("sabotage: %v\n%s", err, stdout)
	}
	if count("a", schemas)+count("b", schemas) != 2 {
		t.Error("after a mismatch the schema is not kept")
	}
	if _, _, err = run(t, arguments...); err == nil || !strings.Contains(err.Error(), schema) {
		t.Errorf("a schema that is there already: %v", err)
	}
}

func TestOptions(t *testing.T) {
	for _, arguments := range [][]string{
		{"--kills", "-1"}, {"--workers", "0"}, {"--workers", "257"}, {"--students", "3"}, {"--seats", "-1"},
		{"--postgres", "postgres:///a"}, {"--postgres", "postgres:///a,postgres:///a"}, {"--sabotage", "fire"}, {"more"},
	} {
		if stdout, _, err := run(t, arguments...); err == nil {
			t.Errorf("%v is accepted: %s", arguments, stdout)
		}
	}
}

func TestProgress(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, options{seed: 3, kills: 2})
	p.bar = true
	p.show(0.5, "1,000 transactions")
	p.done()
	if want := "[############............] 1,000 transactions"; !strings.Contains(out.String(), want) {
		t.Errorf("%q does not show %q", out.String(), want)
	}
	p.bar = false
	out.Reset()
	p.show(0.5, "too early")
	p.last = p.last.Add(-lineEvery)
	p.show(0.5, "1,000 transactions")
	if got := out.String(); !strings.Contains(got, " 50 % after") || strings.Contains(got, "early") {
		t.Errorf("lines %q", got)
	}
}
