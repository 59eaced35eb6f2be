package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"assent/decision"
	"assent/protocol/commit"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// mustOpen opens a log that is closed when the test ends.
func mustOpen(t testing.TB, dir string, cfg Config) *Log {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = quiet()
	}
	l, err := Open(dir, cfg)
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

func entry(i int) decision.Entry {
	return decision.Entry{
		ID:       commit.TransactionID(fmt.Sprintf("tx-%06d", i)),
		Decision: commit.Commit,
		Branches: []decision.Branch{{Resource: "orders", Evidence: []byte{0, 1, byte(i)}}, {Resource: "stock"}},
		By:       "coordinator",
		Time:     time.Unix(1_700_000_000, int64(i)).UTC(),
	}
}

func TestSmoke(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	l := mustOpen(t, dir, Config{SegmentBytes: 64 << 10})
	for i := range 1000 {
		e := entry(i)
		if _, err := l.Decide(ctx, e); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if err := l.Annotate(ctx, e.ID, decision.Note{Kind: decision.Finished}); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%+v", l.Stats())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Decide(ctx, entry(1)); !errors.Is(err, decision.ErrClosed) {
		t.Fatal(err)
	}
	l = mustOpen(t, dir, Config{})
	n := 0
	for e, err := range l.List(ctx, decision.Unfinished) {
		if err != nil {
			t.Fatal(err)
		}
		if want := entry(2*n + 1).ID; e.ID != want {
			t.Fatalf("entry %d is %s, want %s", n, e.ID, want)
		}
		n++
	}
	if n != 500 {
		t.Fatal(n)
	}
}
