package postgres

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"assent/internal/pgcluster"
	"assent/internal/pgcluster/pgtest"
)

// BenchmarkDecide tells how many statements and how many forced writes of the server a decision takes.
func BenchmarkDecide(b *testing.B) {
	c := pgtest.Start(b, pgcluster.Options{Settings: map[string]string{"max_wal_size": "1GB", "shared_buffers": "128MB"}})
	syncs := func() (n int64) {
		conn, err := c.Conn(b.Context(), "")
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close(b.Context())
		if err := conn.QueryRow(b.Context(), "SELECT wal_sync FROM pg_stat_wal").Scan(&n); err != nil {
			b.Fatal(err)
		}
		return n
	}
	for _, callers := range []int{1, 8, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			l, err := Open(b.Context(), c.DSN(""), fresh())
			if err != nil {
				b.Fatal(err)
			}
			before := syncs()
			b.ResetTimer()
			var number atomic.Int64
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for i := number.Add(1); i <= int64(b.N); i = number.Add(1) {
						if _, err := l.Decide(b.Context(), entry(fmt.Sprint("tx-", i))); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			groups := l.Stats().Groups
			if err := l.Close(); err != nil { // sessions report when they end
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
			b.ReportMetric(float64(groups)/float64(b.N), "statements/op")
			b.ReportMetric(float64(syncs()-before)/float64(b.N), "syncs/op")
		})
	}
}
