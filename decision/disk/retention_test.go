package disk

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/decision"
	"assent/protocol/commit"
)

// clock is a clock that is set by hand.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time          { return time.UnixMilli(c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(d.Milliseconds()) }

func count(t testing.TB, l *Log, status decision.Status) (ids []commit.TransactionID) {
	t.Helper()
	for e, err := range l.List(context.Background(), status) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	return ids
}

// eventually waits until f holds; the test's own timeout bounds it.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for !f() {
		if t.Context().Err() != nil {
			t.Fatalf("never: %s", what)
		}
		runtime.Gosched()
	}
}

func TestRetentionByAge(t *testing.T) {
	c := &clock{}
	c.at.Store(1_700_000_000_000)
	cfg := Config{FS: vfs.NewMem(), SegmentBytes: smallSegment, Retention: time.Hour, Clock: c.now}
	l := mustOpen(t, "log", cfg)
	fill(t, l, 0, 30) // 10 of them done
	hazard := decision.Note{Kind: decision.Heuristic, Branch: "orders", Outcome: commit.Hazard}
	if err := l.Annotate(t.Context(), entry(0).ID, hazard); err != nil {
		t.Fatal(err)
	}
	c.advance(50 * time.Minute)
	fill(t, l, 30, 60) // 10 more
	if got := len(count(t, l, decision.Done)); got != 19 {
		t.Fatalf("%d done; want 19", got)
	}
	c.advance(20 * time.Minute)
	eventually(t, "the first ten go", func() bool { return len(count(t, l, decision.Done)) == 10 })
	for _, id := range count(t, l, decision.Done) {
		if id < entry(30).ID {
			t.Errorf("%q is too old", id)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, "log", cfg)
	c.advance(time.Hour)
	eventually(t, "all go", func() bool { return len(count(t, l, decision.Done)) == 0 })
	if got := len(count(t, l, decision.Unfinished)); got != 40 {
		t.Errorf("%d unfinished; want 40", got)
	}
	if got := count(t, l, decision.Damaged); !slices.Equal(got, []commit.TransactionID{entry(0).ID}) {
		t.Errorf("damaged: %q", got)
	}
}

func TestRetentionByCount(t *testing.T) {
	cfg := Config{FS: vfs.NewMem(), SegmentBytes: smallSegment, RetainCount: 100}
	l := mustOpen(t, "log", cfg)
	finish(t, l, 0, 3000)
	eventually(t, "the oldest go", func() bool { return len(count(t, l, decision.Done)) == 100 })
	if got := count(t, l, decision.Unfinished); len(got) != 0 {
		t.Errorf("unfinished: %q", got)
	}
	// What is kept is found after reopening, and the keys to find it by agree.
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, "log", cfg)
	eventually(t, "the rest goes", func() bool { return len(count(t, l, decision.Done)) == 100 })
}

// finish decides and finishes the transactions from and up to to, 32 at a time.
func finish(t testing.TB, l *Log, from, to int) {
	t.Helper()
	var next atomic.Int64
	next.Store(int64(from))
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= to {
					return
				}
				e := entry(i)
				e.ID = commit.TransactionID(fmt.Sprintf("%016x", uint64(i)*0x9e3779b97f4a7c15)) // in no order
				if _, err := l.Decide(context.Background(), e); err != nil {
					t.Error(err)
					return
				}
				if err := l.Annotate(context.Background(), e.ID, decision.Note{Kind: decision.Finished}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func diskUse(t testing.TB, dir string) (bytes int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // files go while we look
		}
		if info, err := d.Info(); err == nil {
			bytes += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// A long life needs bounded room on the disk and in memory. ASSENT_SOAK=1 makes it a million
// transactions.
func TestBoundedSpace(t *testing.T) {
	// What the garbage collector leaves differs by tens of MiB; a million transactions that were kept would be
	// hundreds.
	n, most, mostHeap := 20_000, int64(40<<20), uint64(128<<20)
	if os.Getenv("ASSENT_SOAK") != "" {
		n = 1_000_000
	}
	var before runtime.MemStats // what other tests have left
	runtime.GC()
	runtime.ReadMemStats(&before)
	dir := filepath.Join(t.TempDir(), "log")
	// No sync: this is about room, and a million syncs take long.
	l := mustOpen(t, dir, Config{FS: noSync{vfs.Default}, SegmentBytes: 1 << 20, RetainCount: 2000})
	var worst int64
	var memory uint64
	const steps = 10
	for step := range steps {
		finish(t, l, n/steps*step, n/steps*(step+1))
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		worst, memory = max(worst, diskUse(t, dir)), max(memory, m.HeapInuse-min(m.HeapInuse, before.HeapInuse))
	}
	t.Logf("%d transactions: at most %d KiB on disk, %d KiB more heap", n, worst>>10, memory>>10)
	if worst > most || memory > mostHeap {
		t.Errorf("at most %d MiB on disk and %d MiB more heap are in use; want less than %d and %d", worst>>20, memory>>20, most>>20, mostHeap>>20)
	}
	if got := len(count(t, l, decision.Unfinished)); got != 0 {
		t.Errorf("%d unfinished", got)
	}
}

// noSync is the operating system's file system without forcing anything.
type noSync struct{ vfs.FS }

func (n noSync) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := n.FS.OpenReadWrite(name, c, opts...)
	return noSyncFile{f}, err
}

type noSyncFile struct{ vfs.File }

func (noSyncFile) SyncData() error { return nil }
