package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/decision"
	"assent/decision/disk"
	"assent/protocol/commit"
)

// logReport is what `assent bench log` prints. Times are in microseconds.
type logReport struct {
	Machine    machine  `json:"machine"`
	Rounds     int      `json:"rounds"`
	Seconds    float64  `json:"secondsPerSlice"`
	SlowSync   float64  `json:"slowSyncMicroseconds"`
	Incomplete bool     `json:"incomplete"`
	Lines      []logRow `json:"results"`
}

// logRow is the log with one number of callers.
type logRow struct {
	Concurrency int     `json:"concurrency"`
	Throughput  float64 `json:"decisionsPerSecond"`
	P50         float64 `json:"p50Microseconds"`
	P99         float64 `json:"p99Microseconds"`
	PerSync     float64 `json:"decisionsPerSync"`
	Bytes       float64 `json:"bytesPerSync"`
	OfFile      float64 `json:"throughputOfBareFile"`
}

func (r *logReport) print(w io.Writer, asJSON bool, err error) error {
	r.Incomplete = err != nil
	return printReport(w, asJSON, r, r.Incomplete && len(r.Lines) == 0, r.text, err)
}

func (r *logReport) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the decision log alone: %d CPUs, %s, %s; %d rounds of %v each\n", r.Machine.CPUs, r.Machine.Platform,
		r.Machine.Go, r.Rounds, seconds(r.Seconds))
	if r.SlowSync > 0 {
		fmt.Fprintf(&b, "every sync takes %v longer\n", seconds(r.SlowSync/1e6))
	}
	if r.Incomplete {
		b.WriteString("interrupted: this is what was known by then\n")
	}
	b.WriteString("\n")
	rows := [][]string{{"callers", "", "decisions/s", "of bare file", "p50 ms", "p99 ms", "decisions/sync", "bytes/sync"}}
	for _, x := range r.Lines {
		rows = append(rows, []string{fmt.Sprint(x.Concurrency), "", fmt.Sprintf("%.0f", x.Throughput), figures(x.OfFile),
			figures(x.P50 / 1000), figures(x.P99 / 1000), figures(x.PerSync), fmt.Sprintf("%.0f", x.Bytes)})
	}
	b.WriteString(lineUp(rows))
	return b.String()
}

// benchLog measures the log at every concurrency. Where it fails or ctx ends, it returns what is
// known by then, too.
func benchLog(ctx context.Context, o options, p *progress) (*logReport, error) {
	r := &logReport{Machine: thisMachine(), Rounds: o.rounds, Seconds: o.duration.Seconds(),
		SlowSync: float64(o.slowSync) / float64(time.Microsecond), Lines: []logRow{}}
	defer p.done()
	dir, err := os.MkdirTemp(o.dir, "assent-bench-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	fs := vfs.Default
	if o.slowSync > 0 {
		fs = disk.SlowSync(vfs.Default, o.slowSync)
	}
	for _, callers := range o.concurrency {
		row, err := logRounds(ctx, o, fs, dir, callers, p)
		if err != nil {
			return r, err
		}
		r.Lines = append(r.Lines, row)
	}
	return r, nil
}

func logRounds(ctx context.Context, o options, fs vfs.FS, dir string, callers int, p *progress) (row logRow, err error) {
	l, err := disk.Open(filepath.Join(dir, fmt.Sprintf("log-%d", callers)), disk.Config{FS: fs, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	var all []time.Duration
	var throughputs, ofFile, perSync, bytes []float64
	var number atomic.Uint64
	for round := range o.rounds {
		p.say("%d callers: round %d of %d", callers, round+1, o.rounds)
		before := l.Stats()
		s, err := decideFor(ctx, l, callers, o.duration, &number)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return row, err
		}
		after := l.Stats()
		groups := after.Groups - before.Groups
		size := float64(after.Bytes-before.Bytes) / float64(groups)
		bare, err := appendAndForce(fs, filepath.Join(dir, bareFile), int(groups), int(size))
		if err != nil {
			return row, err
		}
		all = append(all, s.latencies...)
		throughputs = append(throughputs, s.throughput())
		ofFile = append(ofFile, ratio(bare.Seconds(), s.took.Seconds()))
		perSync = append(perSync, ratio(float64(after.Decisions-before.Decisions), float64(after.Syncs-before.Syncs)))
		bytes = append(bytes, size)
	}
	slices.Sort(all)
	return logRow{
		Concurrency: callers, Throughput: median(throughputs), OfFile: median(ofFile), PerSync: median(perSync), Bytes: median(bytes),
		P50: float64(percentile(all, 0.5)) / float64(time.Microsecond), P99: float64(percentile(all, 0.99)) / float64(time.Microsecond),
	}, nil
}

// bareFile has the suffix by which disk.SlowSync knows what to slow.
const bareFile = "bare.segment"

// decideFor has callers decide transactions of two branches for d.
func decideFor(ctx context.Context, l *disk.Log, callers int, d time.Duration, number *atomic.Uint64) (slice, error) {
	latencies := make([][]time.Duration, callers)
	errs := make([]error, callers)
	evidence := []byte("pg1 7425461853172437034 00000001 1234567")
	begin := time.Now()
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			e := decision.Entry{Decision: commit.Commit, By: "coordinator",
				Branches: []decision.Branch{{Resource: "first", Evidence: evidence}, {Resource: "second", Evidence: evidence}}}
			for ctx.Err() == nil && errs[c] == nil {
				start := time.Now()
				if start.Sub(begin) >= d && len(latencies[c]) > 0 { // however late it comes, it does one
					return
				}
				e.ID, e.Time = commit.TransactionID(fmt.Sprintf("01J9ZB3V9X8M3K2Q5R7T1W4Y6A-%x", number.Add(1))), start
				_, errs[c] = l.Decide(context.WithoutCancel(ctx), e)
				latencies[c] = append(latencies[c], time.Since(start))
			}
		})
	}
	wg.Wait()
	s := slice{took: time.Since(begin), latencies: slices.Concat(latencies...)}
	slices.Sort(s.latencies)
	return s, errors.Join(errs...)
}

// appendAndForce appends groups of size bytes to a new file, forcing each, and returns how long
// that took.
func appendAndForce(fs vfs.FS, path string, groups, size int) (took time.Duration, err error) {
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), fs.Remove(path)) }()
	data := make([]byte, size)
	begin := time.Now()
	for range groups {
		if _, err := f.Write(data); err != nil {
			return 0, err
		}
		if err := f.SyncData(); err != nil {
			return 0, err
		}
	}
	return time.Since(begin), nil
}
