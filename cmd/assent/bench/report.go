package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"
)

// machine is what figures are of.
type machine struct {
	CPUs     int    `json:"cpus"`
	Platform string `json:"platform"`
	Go       string `json:"go"`
}

func thisMachine() machine {
	return machine{CPUs: runtime.NumCPU(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version()}
}

// commitReport is what `assent bench commit` prints. Times are in microseconds, and what is not
// known is null.
type commitReport struct {
	Machine    machine     `json:"machine"`
	Databases  string      `json:"databases"`
	Rounds     int         `json:"rounds"`
	Seconds    float64     `json:"secondsPerSlice"`
	SlowSync   float64     `json:"slowSyncMicroseconds"`
	Load       float64     `json:"load"`
	Incomplete bool        `json:"incomplete"`
	Lines      []commitRow `json:"results"`
}

// commitRow is one way at one concurrency.
type commitRow struct {
	Concurrency int     `json:"concurrency"`
	Way         string  `json:"way"`
	All         *figure `json:"closedLoop"`
	Paced       *figure `json:"atLoad"`
	LogSyncs    float64 `json:"logSyncsPerTransaction"`
	// WALSyncs is of both databases together.
	WALSyncs   *float64 `json:"walSyncsPerTransaction"`
	RoundTrips float64  `json:"roundTripsPerTransaction"`
	name       string
}

// figure is what came of a way in a number of rounds.
type figure struct {
	Throughput float64 `json:"transactionsPerSecond"`
	OfFloor    float64 `json:"throughputOfFloor"`
	P50        float64 `json:"p50Microseconds"`
	P99        float64 `json:"p99Microseconds"`
	P50OfFloor float64 `json:"p50OfFloor"`
	P99OfFloor float64 `json:"p99OfFloor"`
}

func newCommitReport(o options) *commitReport {
	return &commitReport{
		Machine: thisMachine(), Rounds: o.rounds, Seconds: o.duration.Seconds(), Load: o.load,
		SlowSync: float64(o.slowSync) / float64(time.Microsecond), Lines: []commitRow{},
	}
}

func newFigure(way, floor []slice) *figure {
	if len(way) == 0 {
		return nil
	}
	s := summarize(way, floor)
	return &figure{
		Throughput: s.throughput, OfFloor: s.ofFloor, P50OfFloor: s.p50OfFloor, P99OfFloor: s.p99OfFloor,
		P50: float64(s.p50) / float64(time.Microsecond), P99: float64(s.p99) / float64(time.Microsecond),
	}
}

// report adds what m knows to its report.
func (m *measurement) report() {
	for _, x := range m.results {
		kind := kinds[x.kind]
		row := commitRow{
			Concurrency: m.callers, Way: kind.key, name: kind.name,
			All: newFigure(x.slices, m.results[0].slices), Paced: newFigure(x.paced, m.results[0].paced),
			LogSyncs: x.cost.logSyncs, RoundTrips: x.cost.roundTrips,
		}
		if x.cost.walSyncs >= 0 {
			row.WALSyncs = &x.cost.walSyncs
		}
		m.r.Lines = append(m.r.Lines, row)
	}
}

// print prints r as JSON or as tables, also where err ended the measurement. It returns err, and
// nil where Ctrl-C is all that went wrong.
func (r *commitReport) print(w io.Writer, asJSON bool, err error) error {
	r.Incomplete = err != nil
	return printReport(w, asJSON, r, r.Incomplete && len(r.Lines) == 0, r.text, err)
}

func printReport(w io.Writer, asJSON bool, r any, empty bool, text func() string, err error) error {
	if interrupted := errors.Is(err, context.Canceled); interrupted && !empty {
		err = nil
	}
	switch {
	case empty:
		return err
	case asJSON:
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return errors.Join(err, e.Encode(r))
	}
	_, werr := io.WriteString(w, text())
	return errors.Join(err, werr)
}

func (r *commitReport) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s and this program on one machine: %d CPUs, %s, %s; %d rounds of %v each\n",
		r.Databases, r.Machine.CPUs, r.Machine.Platform, r.Machine.Go, r.Rounds, seconds(r.Seconds))
	if r.Incomplete {
		b.WriteString("interrupted: this is what was known by then\n")
	}
	b.WriteString("\nas fast as it goes\n")
	b.WriteString(r.table(func(x commitRow) *figure { return x.All }, true))
	if r.Load > 0 {
		fmt.Fprintf(&b, "\nat %.0f %% of the floor's throughput\n", r.Load*100)
		b.WriteString(r.table(func(x commitRow) *figure { return x.Paced }, false))
	}
	return b.String()
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func (r *commitReport) table(of func(commitRow) *figure, costs bool) string {
	head := []string{"callers", "way", "tx/s", "of floor", "p50 ms", "of floor", "p99 ms", "of floor"}
	if costs {
		head = append(head, "log syncs/tx", "WAL syncs/tx", "round trips/tx")
	}
	rows := [][]string{head}
	for _, x := range r.Lines {
		row := []string{fmt.Sprint(x.Concurrency), x.label(r)}
		if f := of(x); f != nil {
			row = append(row, fmt.Sprintf("%.0f", f.Throughput), figures(f.OfFloor), figures(f.P50/1000), figures(f.P50OfFloor),
				figures(f.P99/1000), figures(f.P99OfFloor))
		} else {
			row = append(row, "-", "-", "-", "-", "-", "-")
		}
		if costs {
			wal := "-"
			if x.WALSyncs != nil {
				wal = figures(*x.WALSyncs)
			}
			row = append(row, figures(x.LogSyncs), wal, figures(x.RoundTrips))
		}
		rows = append(rows, row)
	}
	return lineUp(rows)
}

func (x commitRow) label(r *commitReport) string {
	if x.Way == "slow" {
		return x.name + fmt.Sprintf(" +%v", seconds(r.SlowSync/1e6))
	}
	return x.name
}

func figures(x float64) string { return fmt.Sprintf("%.2f", x) }

// lineUp draws rows as a table that is one in Markdown too. Numbers, which is every column but the
// second of three or more, stand to the right.
func lineUp(rows [][]string) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, text := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(text))
		}
	}
	var b strings.Builder
	line := func(row []string) {
		for i, text := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
			if i == 1 {
				b.WriteString("| " + text + pad + " ")
			} else {
				b.WriteString("| " + pad + text + " ")
			}
		}
		b.WriteString("|\n")
	}
	line(rows[0])
	for i, n := range widths {
		if i == 1 {
			b.WriteString("|" + strings.Repeat("-", n+2))
		} else {
			b.WriteString("|" + strings.Repeat("-", n+1) + ":")
		}
	}
	b.WriteString("|\n")
	for _, row := range rows[1:] {
		line(row)
	}
	return b.String()
}
