package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"assent"
	"assent/trace"
)

// dieAt makes the test's program a coordinator that kills itself at its nth effect.
const dieAt = "REPLICATED_DIE_AT"

func TestMain(m *testing.M) {
	if n, err := strconv.Atoi(os.Getenv(dieAt)); err == nil {
		os.Exit(mortal(os.Args[1], os.Args[2], int64(n)))
	}
	os.Exit(m.Run())
}

// death kills the process by SIGKILL just before the nth thing that a machine of the protocol is
// about to do: to send a message, or to have a branch prepared or finished or the decision written.
type death struct{ left atomic.Int64 }

func (d *death) Observe(e trace.Event) {
	if e.Kind != trace.Send && e.Kind != trace.Emit {
		return // it changes nothing outside the machine
	}
	if d.left.Add(-1) == 0 {
		self, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = self.Kill()
		}
		panic(fmt.Sprintf("still alive: %v", err))
	}
}

// mortal sets the value and says so, if it lives that long.
func mortal(dir, value string, n int64) int {
	d := &death{}
	d.left.Store(n)
	w, err := openWorkers(dir, 3)
	if err == nil {
		err = coordinate(context.Background(), dir, w, value, func(c *assent.Config) { c.Observer = d })
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("set")
	return 0
}

// look opens the workers alone and returns what they answer.
func look(t *testing.T, dir string) []string {
	t.Helper()
	w, err := openWorkers(dir, 3)
	if err != nil {
		t.Fatal(err)
	}
	values := w.values()
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	return values
}

// available returns the different values that workers give.
func available(values []string) []string {
	values = slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == unavailable })
	slices.Sort(values)
	return slices.Compact(values)
}

// TestKilledEverywhere kills the coordinator at its first effect, at its second, and so on until it
// gets through. After each death every worker has the same value or none to give, and the next
// coordinator leaves them all with one value: the new one, if that was acknowledged.
func TestKilledEverywhere(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	old, inDoubt, committed, aborted := unset, 0, 0, 0
	for n := 1; ; n++ {
		value := fmt.Sprintf("v%d", n)
		var stdout, stderr bytes.Buffer
		cmd := exec.Command(program, dir, value)
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", dieAt, n))
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		survived := stdout.String() == "set\n"
		if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.Exited()) {
			t.Fatalf("effect %d: the coordinator was not killed: %v\n%s", n, err, stderr.String())
		}

		before := look(t, dir)
		if values := available(before); len(values) > 1 || len(values) == 1 && values[0] != old && values[0] != value {
			t.Fatalf("effect %d: the workers have %v; the value was %s, to become %s", n, before, old, value)
		}
		if slices.Contains(before, unavailable) {
			inDoubt++
		}

		answers := recovered(t, dir)
		after := available(answers)
		switch {
		case slices.Contains(answers, unavailable):
			t.Fatalf("effect %d: after recovery the workers have %v", n, answers)
		case len(after) == 1 && after[0] == value:
			committed++
		case len(after) == 1 && after[0] == old && !survived:
			aborted++
		default:
			t.Fatalf("effect %d, acknowledged %v: after recovery the workers have %v; it was %s, to become %s",
				n, survived, answers, old, value)
		}
		old = after[0]
		if survived {
			break
		}
	}
	if inDoubt == 0 || committed < 2 || aborted == 0 {
		t.Errorf("too little has happened: %d times in doubt, %d committed, %d aborted", inDoubt, committed, aborted)
	}
}

// recovered lets a new coordinator finish what the last one left, and returns what the workers then
// answer.
func recovered(t *testing.T, dir string) []string {
	t.Helper()
	w, err := openWorkers(dir, 3)
	if err != nil {
		t.Fatal(err)
	}
	err = coordinate(t.Context(), dir, w, "")
	values := w.values()
	if err := errors.Join(err, w.close()); err != nil {
		t.Fatal(err)
	}
	return values
}

// TestWorkerLost sets the value while one worker has failed: the others keep the old one.
func TestWorkerLost(t *testing.T) {
	dir := t.TempDir()
	w, err := openWorkers(dir, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := coordinate(t.Context(), dir, w, "old"); err != nil {
		t.Fatal(err)
	}
	if err := w[1].Close(); err != nil {
		t.Fatal(err)
	}
	if err := coordinate(t.Context(), dir, w, "new"); err == nil {
		t.Error("the value was set although a worker has failed")
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	if values := look(t, dir); len(available(values)) != 1 || values[0] != "old" {
		t.Errorf("the workers have %v", values)
	}
}

// TestCancelled takes the coordinator's time away, at several points, and starts the next one at once.
func TestCancelled(t *testing.T) {
	dir := t.TempDir()
	old := unset
	for n := 1; n <= 60; n += 5 {
		value := fmt.Sprintf("v%d", n)
		w, err := openWorkers(dir, 3)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		left := atomic.Int64{}
		left.Store(int64(n))
		err = coordinate(ctx, dir, w, value, func(c *assent.Config) {
			c.Observer = observer(func() {
				if left.Add(-1) == 0 {
					cancel()
				}
			})
		})
		cancel()
		if closed := w.close(); closed != nil {
			t.Fatal(closed)
		}
		before, after := look(t, dir), available(recovered(t, dir))
		want := []string{old, value}
		switch {
		case err == nil:
			want = want[1:]
		case errors.Is(err, assent.ErrAborted):
			want = want[:1]
		}
		if len(available(before)) > 1 || len(after) != 1 || !slices.Contains(want, after[0]) {
			t.Fatalf("cancelled at event %d: %v; the workers had %v and have %v after recovery, want %v", n, err, before, after, want)
		}
		old = after[0]
	}
}

type observer func()

func (f observer) Observe(trace.Event) { f() }

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	for _, arguments := range [][]string{{"get"}, {"set", "hello"}, {"get"}} {
		if err := run(t.Context(), &out, append([]string{"-dir", dir, "-workers", "2"}, arguments...)); err != nil {
			t.Errorf("%v: %v", arguments, err)
		}
	}
	if want := "(unset)\n(unset)\nhello\nhello\n"; out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
	for _, wrong := range [][]string{{}, {"set"}, {"get", "it"}} {
		if err := run(t.Context(), &out, append([]string{"-dir", dir}, wrong...)); err == nil {
			t.Errorf("%v is accepted", wrong)
		}
	}
}
