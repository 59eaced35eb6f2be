package disk

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/protocol/commit"
)

// BenchmarkDecide compares, side by side, decisions of 1, 8 and 64 callers with a floor: the same
// bytes in groups of the same size, appended to a bare file and forced with fdatasync. The ratio
// is that of the throughputs.
func BenchmarkDecide(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			dir := b.TempDir()
			l := mustOpen(b, filepath.Join(dir, "log"), Config{})
			begin := time.Now()
			decideMany(b, l, callers, b.N)
			took := time.Since(begin)
			stats := l.Stats()
			groups, size := int(stats.Groups), int(stats.Bytes/stats.Groups)
			floor := appendAndForce(b, filepath.Join(dir, "floor"), groups, size)
			b.ReportMetric(float64(b.N)/took.Seconds(), "decisions/s")
			b.ReportMetric(float64(stats.Decisions)/float64(stats.Syncs), "decisions/sync")
			b.ReportMetric(floor.Seconds()/took.Seconds(), "of-floor")
		})
	}
}

func decideMany(tb testing.TB, l *Log, callers, n int) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			e := entry(0)
			for {
				i := next.Add(1)
				if i > int64(n) {
					return
				}
				e.ID = commit.TransactionID(fmt.Sprintf("01J9ZB3V9X8M3K2Q%010d", i*7919%10_000_000_000))
				if _, err := l.Decide(context.Background(), e); err != nil {
					tb.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func appendAndForce(tb testing.TB, path string, groups, size int) time.Duration {
	f, err := vfs.Default.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, size)
	begin := time.Now()
	for range groups {
		if _, err := f.Write(data); err != nil {
			tb.Fatal(err)
		}
		if err := f.SyncData(); err != nil {
			tb.Fatal(err)
		}
	}
	return time.Since(begin)
}
