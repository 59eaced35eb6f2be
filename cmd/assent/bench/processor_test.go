package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"assent/internal/pgcluster"
	"assent/internal/pgcluster/pgtest"
)

// BenchmarkProcessor tells how much processor time a transaction takes, in the program and in the two
// servers. Other work on the machine changes that less than it changes the rate.
func BenchmarkProcessor(b *testing.B) {
	if _, err := os.Stat("/proc/self/schedstat"); err != nil {
		b.Skip("this system does not tell how long a process ran: ", err)
	}
	o := options{concurrency: []int{8}, rows: 10_000, dir: b.TempDir()}
	for range 2 {
		c := pgtest.Start(b, pgcluster.Options{MaxPrepared: poolSize(8), MaxConnections: connections(o),
			Settings: map[string]string{"max_wal_size": "2GB", "checkpoint_timeout": "1h"}})
		o.postgres = append(o.postgres, c.DSN("postgres"))
	}
	d, err := openDatabases(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	defer d.close()
	s, err := openStage(b.Context(), d, o, 8)
	if err != nil {
		b.Fatal(err)
	}
	defer s.close()
	var ways []way
	spent := map[string][2][]float64{}
	for _, kind := range kinds {
		if !kind.asked(o) {
			continue
		}
		w, err := kind.open(b.Context(), s)
		if err != nil {
			b.Fatal(err)
		}
		defer w.close()
		if _, err := drive(b.Context(), w, 8, o.rows, 300*time.Millisecond, 0); err != nil {
			b.Fatal(err)
		}
		ways = append(ways, w)
	}
	for b.Loop() {
		for _, w := range ways {
			servers := serverTime(b, d)
			program := ownTime(b) // behind it: to read /proc takes time of our own
			done, err := drive(b.Context(), w, 8, o.rows, 150*time.Millisecond, 0)
			if err == nil {
				err = w.drain(b.Context())
			}
			if err != nil {
				b.Fatal(err)
			}
			n := float64(len(done.latencies)) * float64(time.Microsecond)
			was := spent[w.name()]
			was[0] = append(was[0], float64(ownTime(b)-program)/n)
			was[1] = append(was[1], float64(serverTime(b, d)-servers)/n)
			spent[w.name()] = was
		}
	}
	floor := median(spent["floor"][0]) + median(spent["floor"][1])
	for _, w := range ways {
		name, was := strings.ReplaceAll(w.name(), " ", "-"), spent[w.name()]
		b.ReportMetric(median(was[0]), name+"-program-µs/tx")
		b.ReportMetric(median(was[1]), name+"-servers-µs/tx")
		b.ReportMetric((median(was[0])+median(was[1]))/floor, name+"/floor")
	}
}

// ownTime is the processor time of this process.
func ownTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// serverTime is the processor time of all processes of both servers.
func serverTime(b *testing.B, d *databases) (sum time.Duration) {
	for _, conn := range d.watch {
		parent := fields(b, fmt.Sprintf("/proc/%d/stat", conn.PgConn().PID()))[3]
		tasks, err := filepath.Glob("/proc/[0-9]*/stat")
		if err != nil {
			b.Fatal(err)
		}
		for _, t := range tasks {
			if f := fields(b, t); len(f) > 3 && f[3] == parent {
				if spent := fields(b, filepath.Dir(t)+"/schedstat"); len(spent) > 0 {
					ns, err := strconv.ParseInt(spent[0], 10, 64)
					if err != nil {
						b.Fatal(err)
					}
					sum += time.Duration(ns)
				}
			}
		}
	}
	return sum
}

// fields splits a file of /proc; a process may be gone.
func fields(_ *testing.B, path string) []string {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(data))
}
