package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"assent/decision"
	"assent/decision/disk"
	"assent/internal/pgcluster"
	"assent/internal/pgcluster/pgtest"
	"assent/protocol/commit"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"assent": main})
}

// TestScripts runs the program as a shell does. The commands of the scripts are those of
// testscript, and:
//
//	serve ARGS...              start assent serve and wait until it is ready; sets ASSENT_SERVER
//	shutdown                   send it SIGTERM and want it to end well
//	crash                      send it SIGKILL
//	served PATTERN             want the log of the server that has ended to match
//	code N COMMAND ARGS...     want the command to end with the exit code N
//	append FILE TEXT           add the text to the file
//	decide DIR ID RESOURCE     write commit of the transaction, with one branch, to a decision log
func TestScripts(t *testing.T) {
	testscript.Run(t, scripts("testdata/script", nil))
}

// TestPostgresScripts has a real cluster with the databases orders and billing for each script.
func TestPostgresScripts(t *testing.T) {
	cluster := pgtest.Start(t, pgcluster.Options{})
	var scriptsRun atomic.Int32
	testscript.Run(t, scripts("testdata/postgres", func(env *testscript.Env) error {
		n := scriptsRun.Add(1)
		for _, name := range []string{"orders", "billing"} {
			db := fmt.Sprintf("%s%d", name, n)
			dsn, err := cluster.CreateDatabase(context.Background(), db)
			if err == nil {
				err = cluster.Exec(context.Background(), db, "CREATE TABLE t (i int PRIMARY KEY, s text)")
			}
			if err != nil {
				return err
			}
			env.Setenv(strings.ToUpper(name)+"_DSN", dsn)
		}
		return nil
	}))
}

func scripts(dir string, setup func(*testscript.Env) error) testscript.Params {
	return testscript.Params{
		Dir:                dir,
		RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			env.Values["server"] = &running{}
			env.Setenv("USER", "alice")
			env.Setenv("GORACE", "atexit_sleep_ms=0")         // else each run of the program lasts a second longer
			env.Setenv("ASSENT_SERVER", "http://127.0.0.1:1") // nobody's: no test talks to a server it did not start
			if setup != nil {
				return setup(env)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve": scriptServe, "shutdown": scriptStop, "crash": scriptKill, "served": scriptServed,
			"code": scriptCode, "decide": scriptDecide, "append": scriptAppend,
		},
	}
}

// running is a server that a test started.
type running struct {
	cmd     *exec.Cmd
	address string
	logPath string
	done    chan error
}

var readyLine = regexp.MustCompile(`^assent is ready on (\S+) with (.*)$`)

// start starts the program and waits until it says that it is ready.
func start(dir string, env []string, program string, args ...string) (*running, error) {
	r, out, err := launch(dir, env, program, args...)
	if err != nil {
		return nil, err
	}
	return r.ready(out)
}

// launch starts the program, whose standard output is to be given to ready.
func launch(dir string, env []string, program string, args ...string) (*running, io.Reader, error) {
	r := &running{logPath: filepath.Join(dir, "server.log"), done: make(chan error, 1)}
	log, err := os.Create(r.logPath)
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	r.cmd = exec.Command(program, append([]string{"serve"}, args...)...)
	r.cmd.Dir, r.cmd.Env, r.cmd.Stderr = dir, env, log
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	return r, out, r.cmd.Start()
}

// ready waits until the program says that it is ready.
func (r *running) ready(out io.Reader) (*running, error) {
	line, err := bufio.NewReader(out).ReadString('\n')
	go func() {
		_, _ = io.Copy(io.Discard, out)
		r.done <- r.cmd.Wait()
	}()
	m := readyLine.FindStringSubmatch(strings.TrimSpace(line))
	if m == nil {
		said, _ := os.ReadFile(r.logPath)
		return nil, errors.Join(fmt.Errorf("the server is not ready: %q, %v\n%s", line, err, said), r.end(syscall.SIGKILL))
	}
	r.address = m[1]
	return r, nil
}

// end sends the signal and waits for the end.
func (r *running) end(signal syscall.Signal) error {
	if err := r.cmd.Process.Signal(signal); err != nil {
		return err
	}
	select {
	case err := <-r.done:
		r.cmd = nil
		return err
	case <-time.After(30 * time.Second):
		return errors.Join(errors.New("the server does not end"), r.cmd.Process.Kill())
	}
}

func scriptServe(ts *testscript.TestScript, neg bool, args []string) {
	program, err := exec.LookPath("assent")
	ts.Check(err)
	var env []string
	for _, name := range []string{"HOME", "PATH", "TMPDIR", "GORACE", "ORDERS_DSN", "BILLING_DSN", "LOG_DSN", "SHOP_TOKEN", "OPS_TOKEN"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	if len(args) == 0 || args[0] != "-c" {
		args = append([]string{"--listen", "127.0.0.1:0"}, args...)
	}
	r, err := start(ts.Getenv("WORK"), env, program, args...)
	ts.Check(err)
	server := ts.Value("server").(*running)
	*server = *r
	ts.Setenv("ASSENT_SERVER", r.address)
	ts.Defer(func() {
		if server.cmd != nil {
			_ = server.end(syscall.SIGKILL) // the script failed
		}
	})
}

func scriptStop(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(ts.Value("server").(*running).end(syscall.SIGTERM))
}

func scriptKill(ts *testscript.TestScript, neg bool, args []string) {
	if err := ts.Value("server").(*running).end(syscall.SIGKILL); err == nil {
		ts.Fatalf("the server ended well although it was killed")
	}
}

func scriptServed(ts *testscript.TestScript, neg bool, args []string) {
	log, err := os.ReadFile(ts.Value("server").(*running).logPath)
	ts.Check(err)
	if regexp.MustCompile(args[0]).Match(log) == neg {
		ts.Fatalf("the server's log, wrongly, matches %q: %v\n%s", args[0], !neg, log)
	}
}

func scriptCode(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Check(err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d; want %d", got, want)
	}
}

func scriptAppend(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: append FILE TEXT")
	}
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_APPEND|os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteString(args[1])
	ts.Check(errors.Join(err, f.Close()))
}

func scriptDecide(ts *testscript.TestScript, neg bool, args []string) {
	log, err := disk.Open(ts.MkAbs(args[0]), disk.Config{})
	ts.Check(err)
	_, err = log.Decide(context.Background(), decision.Entry{
		ID: commit.TransactionID(args[1]), Decision: commit.Commit, By: "coordinator", Time: time.Now(),
		Branches: []decision.Branch{{Resource: args[2], Evidence: []byte("of a store that is lost")}},
	})
	ts.Check(errors.Join(err, log.Close()))
}
