package disk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"assent/decision"
	"assent/protocol/commit"
	"assent/resource"
)

// TestMain lets this binary play another process that decides in a log until it is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("ASSENT_TEST_DECIDE_IN"); dir != "" {
		decideUntilKilled(dir)
	}
	os.Exit(m.Run())
}

// decideUntilKilled prints each transaction once it is told that its decision stands.
func decideUntilKilled(dir string) {
	l, err := Open(dir, Config{SegmentBytes: smallSegment, Logger: quiet()})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("open", l.Owner())
	lines := make(chan string)
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				e := entry(i)
				e.ID = commit.TransactionID(fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i))
				if _, err := l.Decide(context.Background(), e); err != nil {
					lines <- "error " + err.Error()
					return
				}
				lines <- "told " + string(e.ID)
			}
		}()
	}
	for line := range lines {
		fmt.Println(line)
	}
}

func child(t *testing.T, dir string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "ASSENT_TEST_DECIDE_IN="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, bufio.NewScanner(out)
}

// A process is killed while it decides, several times. What it was told is there, and meanwhile
// nobody else can open its log.
func TestKilledProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	var told []commit.TransactionID
	owner := ""
	for round := range 3 {
		cmd, out := child(t, dir)
		for n := 0; n < 300 && out.Scan(); n++ {
			word, rest, _ := strings.Cut(out.Text(), " ")
			switch word {
			case "open":
				if owner == "" {
					owner = rest
				}
				if rest != owner {
					t.Errorf("round %d: owner %q has become %q", round, owner, rest)
				}
				_, err := Open(dir, Config{Logger: quiet()})
				if !errors.Is(err, ErrLocked) || resource.HintOf(err) == "" {
					t.Errorf("open while another process has it: got %v; want %v", err, ErrLocked)
				}
			case "told":
				told = append(told, commit.TransactionID(rest))
			default:
				t.Fatalf("round %d: %s", round, out.Text())
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for out.Scan() { // what it still said before it died
			if id, ok := strings.CutPrefix(out.Text(), "told "); ok {
				told = append(told, commit.TransactionID(id))
			}
		}
		_ = cmd.Wait()
	}
	l := mustOpen(t, dir, Config{})
	if len(told) < 600 {
		t.Errorf("only %d decisions", len(told))
	}
	for _, id := range told {
		if _, err := l.Lookup(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	write := func(t *testing.T, dir, name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for what, c := range map[string]struct {
		prepare func(t *testing.T, dir string)
		want    error
		says    string
	}{
		"something else": {func(t *testing.T, dir string) { write(t, dir, "PG_VERSION", "15") }, ErrForeign, "PG_VERSION"},
		"another log's file": {func(t *testing.T, dir string) {
			mustOpen(t, dir, Config{}).Close()
			write(t, filepath.Join(dir, segmentsName), "notes.txt", "")
		}, ErrForeign, "notes.txt"},
		"a newer format": {func(t *testing.T, dir string) {
			write(t, dir, formatName, "assent decision log\nformat 2\nwho knows\n")
		}, ErrFormat, "format 2, so a newer version"},
		"a newer title": {func(t *testing.T, dir string) {
			write(t, dir, formatName, "assent log 99\n")
		}, ErrFormat, "format 99, so a newer version"},
		"a newer title, and a checksum": {func(t *testing.T, dir string) {
			text := "assent log 99\nowner X\n"
			write(t, dir, formatName, text+fmt.Sprintf("crc32c %08x\n", crc32.Checksum([]byte(text), castagnoli)))
		}, ErrFormat, "format 99, so a newer version"},
		"open here": {func(t *testing.T, dir string) { mustOpen(t, dir, Config{}) }, ErrLocked, lockName},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			c.prepare(t, dir)
			before := tree(t, dir)
			_, err := Open(dir, Config{Logger: quiet()})
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), dir) {
				t.Errorf("got %v; want %v about %q in %s", err, c.want, c.says, dir)
			}
			if resource.HintOf(err) == "" {
				t.Errorf("%v: no hint", err)
			}
			if after := tree(t, dir); after != before {
				t.Errorf("open changed the directory from\n%s\nto\n%s", before, after)
			}
		})
	}
	for what, cfg := range map[string]Config{
		"retention": {Retention: -1}, "retain count": {RetainCount: -1}, "segment size": {SegmentBytes: 1},
		"waiting calls": {MaxWaiting: -1}, "retry interval": {RetryInterval: -1},
	} {
		if _, err := Open(t.TempDir(), cfg); resource.CodeOf(err) != resource.Invalid || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: got %v; want it refused", what, err)
		}
	}
}

// tree lists what is in dir, except for locks.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() != lockName && d.Name() != spareName {
			lines = append(lines, strings.TrimPrefix(path, dir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

// A crash during the making of a log leaves what Open takes for an empty directory, until the
// file FORMAT is there; a log that has lost that file is not taken for one.
func TestCreationIsAllOrNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "log")
	l := mustOpen(t, dir, Config{SegmentBytes: smallSegment})
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v; want 0700", info.Mode(), err)
	}
	l.Close()
	if err := os.Remove(filepath.Join(dir, formatName)); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, dir, Config{SegmentBytes: smallSegment})
	fill(t, l, 0, 500)
	l.Close()
	mustOpen(t, dir, Config{SegmentBytes: smallSegment}).Close()
	if err := os.Remove(filepath.Join(dir, formatName)); err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir, Config{Logger: quiet()})
	if damage, ok := errors.AsType[*DamageError](err); !ok || filepath.Base(damage.Path) != formatName {
		t.Errorf("got %v; want damage of %s", err, formatName)
	}
}

// An index that is gone and one that has been emptied are one and the same damage, and Open makes no new one.
func TestIndexIsGone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, indexName)
	l := mustOpen(t, dir, Config{SegmentBytes: smallSegment})
	fill(t, l, 0, 9)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, empty := range []bool{false, true} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if empty {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		before := tree(t, dir)
		_, err := Open(dir, Config{Logger: quiet()})
		if damage, ok := errors.AsType[*DamageError](err); !ok || damage.Path != path || !strings.Contains(resource.HintOf(err), "do not delete anything") {
			t.Fatalf("empty %v: got %v, hint %q; want damage of %s", empty, err, resource.HintOf(err), path)
		}
		if after := tree(t, dir); after != before {
			t.Errorf("empty %v: open changed the directory from\n%s\nto\n%s", empty, before, after)
		}
		said = append(said, err.Error())
	}
	if said[0] != said[1] || !strings.Contains(said[0], "the index is gone") {
		t.Errorf("removed, it says %q; emptied, %q", said[0], said[1])
	}
}

// More calls than MaxWaiting are refused with a reason, and nothing else happens to the log.
func TestTooManyCalls(t *testing.T) {
	q := newIntake()
	for range 3 {
		if err := q.put(newRequest(false, change{}), 3); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.put(newRequest(false, change{}), 3); resource.CodeOf(err) != resource.Capacity || resource.HintOf(err) == "" {
		t.Errorf("got %v; want it refused", err)
	}
	q.close(decision.ErrClosed)
	if err := q.put(newRequest(false, change{}), 9); !errors.Is(err, decision.ErrClosed) {
		t.Errorf("got %v; want %v", err, decision.ErrClosed)
	}
	if got := len(q.take()); got != 3 {
		t.Errorf("%d requests; want 3", got)
	}
}
