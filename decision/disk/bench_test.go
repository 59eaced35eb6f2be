package disk

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/decision"
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
			decideMany(b, l, callers, b.N, nil)
			took := time.Since(begin)
			stats := l.Stats()
			groups, size := int(stats.Groups), int(stats.Bytes/stats.Groups)
			f, err := vfs.Default.Create(filepath.Join(dir, "floor"), vfs.WriteCategoryUnspecified)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			floor, _ := appendAndForce(b, f, groups, groups, size)
			b.ReportMetric(float64(b.N)/took.Seconds(), "decisions/s")
			b.ReportMetric(float64(stats.Decisions)/float64(stats.Syncs), "decisions/sync")
			b.ReportMetric(floor.Seconds()/took.Seconds(), "of-floor")
		})
	}
}

// BenchmarkTransaction tells what a transaction costs the log: a decision of one of 1, 8 or 64 callers,
// and the note that it is finished, many of which are made at once, as a manager makes them. The
// processor time is compared with that of the same writes and syncs on a bare file; what is beyond is
// the log's own.
func BenchmarkTransaction(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			dir := b.TempDir()
			l := mustOpen(b, filepath.Join(dir, "log"), Config{})
			b.ReportAllocs()
			b.ResetTimer()
			before, begin := l.Stats(), processorTime(b)
			r := recorder{tb: b, log: l}
			decideMany(b, l, callers, b.N, r.take)
			r.wait()
			spent, after := processorTime(b)-begin, l.Stats()
			b.StopTimer()
			groups, syncs := int(after.Groups-before.Groups), int(after.Syncs-before.Syncs)
			sp := spare{path: filepath.Join(dir, "floor"), size: l.cfg.SegmentBytes}
			if err := sp.fill(vfs.Default); err != nil {
				b.Fatal(err)
			}
			f, err := vfs.Default.OpenReadWrite(sp.path, vfs.WriteCategoryUnspecified)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			_, floor := appendAndForce(b, f, groups, syncs, int(after.Bytes-before.Bytes)/groups)
			micros := func(d time.Duration) float64 { return float64(d) / float64(b.N) / float64(time.Microsecond) }
			b.ReportMetric(micros(spent), "cpu-µs/op")
			b.ReportMetric(micros(spent-floor), "beyond-µs/op")
			b.ReportMetric(float64(groups)/float64(b.N), "writes/op")
			b.ReportMetric(float64(syncs)/float64(b.N), "syncs/op")
		})
	}
}

// processorTime is what this process has spent.
func processorTime(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// recorder notes that transactions are finished: one call at a time, for all that have come meanwhile.
type recorder struct {
	tb  testing.TB
	log *Log

	mu      sync.Mutex
	busy    bool
	waiting []commit.TransactionID
	workers sync.WaitGroup
}

func (r *recorder) take(id commit.TransactionID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = append(r.waiting, id)
	if !r.busy {
		r.busy = true
		r.workers.Go(r.work)
	}
}

func (r *recorder) work() {
	for {
		r.mu.Lock()
		ids := r.waiting
		if r.waiting = nil; len(ids) == 0 {
			r.busy = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		n := decision.Note{Kind: decision.Finished, Time: time.Now()}
		if err := r.log.AnnotateAll(context.Background(), ids, n); err != nil {
			r.tb.Error(err)
		}
	}
}

func (r *recorder) wait() { r.workers.Wait() }

// decideMany lets callers decide n transactions and calls then, unless it is nil, with each.
func decideMany(tb testing.TB, l *Log, callers, n int, then func(commit.TransactionID)) {
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
				if then != nil {
					then(e.ID)
				}
			}
		})
	}
	wg.Wait()
}

// appendAndForce writes groups of size bytes to f, forces it syncs times, evenly, and tells how long that
// took, and how much processor time.
func appendAndForce(tb testing.TB, f vfs.File, groups, syncs, size int) (took, spent time.Duration) {
	const room = 8 << 20 // as a segment: then it begins anew
	data := make([]byte, size)
	begin, before := time.Now(), processorTime(tb)
	for i := range groups {
		if _, err := f.WriteAt(data, int64(i*size)%room); err != nil {
			tb.Fatal(err)
		}
		if (i+1)*syncs/groups > i*syncs/groups {
			if err := f.SyncData(); err != nil {
				tb.Fatal(err)
			}
		}
	}
	return time.Since(begin), processorTime(tb) - before
}
