package bench

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", path, diff)
	}
}

func somewhere() machine { return machine{CPUs: 2, Platform: "plan9/mips", Go: "go1.99"} }

func someCommits() *commitReport {
	wal := 4.0
	return &commitReport{
		Machine: somewhere(), Databases: "two PostgreSQL servers of version 99", Rounds: 3, Seconds: 1.5, SlowSync: 2000, Load: 0.5,
		Lines: []commitRow{
			{Concurrency: 1, Way: "floor", name: "floor", RoundTrips: 6, WALSyncs: &wal,
				All:   &figure{Throughput: 1528.4, OfFloor: 1, P50: 640, P99: 1234.5, P50OfFloor: 1, P99OfFloor: 1},
				Paced: &figure{Throughput: 764, OfFloor: 1, P50: 600, P99: 1000, P50OfFloor: 1, P99OfFloor: 1}},
			{Concurrency: 1, Way: "slow", name: "assent slow sync", RoundTrips: 6.04, LogSyncs: 0.5,
				All: &figure{Throughput: 300, OfFloor: 0.2, P50: 3200, P99: 10234.5, P50OfFloor: 5, P99OfFloor: 8.3}},
		},
	}
}

func someDecisions() *logReport {
	return &logReport{Machine: somewhere(), Rounds: 5, Seconds: 1, SlowSync: 500, Lines: []logRow{
		{Concurrency: 64, Throughput: 61234.5, P50: 900, P99: 12000, PerSync: 31.5, Bytes: 6021.4, OfFile: 0.87},
	}}
}

func somePlaces() *decideReport {
	return &decideReport{Machine: somewhere(), Rounds: 5, Seconds: 1, Missing: []string{"clay tablet: left out: no clay"}, advice: "\nmore is measured elsewhere\n", Lines: []decideRow{
		{1, "floor", "floor: bare file", &figure{Throughput: 5000.4, OfFloor: 1, P50: 200, P99: 300, P50OfFloor: 1, P99OfFloor: 1}},
		{1, "disk", "disk", &figure{Throughput: 2500.2, OfFloor: 0.5, P50: 400, P99: 900, P50OfFloor: 2, P99OfFloor: 3}},
	}}
}

func TestReports(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		for name, print := range map[string]func(w *bytes.Buffer) error{
			"commit": func(w *bytes.Buffer) error { return someCommits().print(w, asJSON, nil) },
			"log":    func(w *bytes.Buffer) error { return someDecisions().print(w, asJSON, nil) },
			"decide": func(w *bytes.Buffer) error { return somePlaces().print(w, asJSON, nil) },
		} {
			var b bytes.Buffer
			if err := print(&b); err != nil {
				t.Fatal(err)
			}
			golden(t, fmt.Sprintf("%s-%v.txt", name, map[bool]string{false: "table", true: "json"}[asJSON]), b.Bytes())
		}
	}
}

// What is known when something goes wrong is shown, and what went wrong is told.
func TestReportsOfHalfAMeasurement(t *testing.T) {
	failed := errors.New("the disk is on fire")
	for _, c := range []struct {
		name  string
		err   error
		lines bool
		want  error
		shown bool
	}{
		{"interrupted", fmt.Errorf("acquire: %w", context.Canceled), true, nil, true},
		{"interrupted at once", context.Canceled, false, context.Canceled, false},
		{"failed", failed, true, failed, true},
		{"failed at once", failed, false, failed, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := someDecisions()
			if !c.lines {
				r.Lines = nil
			}
			var b bytes.Buffer
			if err := r.print(&b, false, c.err); !errors.Is(err, c.want) {
				t.Errorf("got the error %v, want %v", err, c.want)
			}
			if shown := bytes.Contains(b.Bytes(), []byte("61234")); shown != c.shown {
				t.Errorf("shown: %v, want %v:\n%s", shown, c.shown, b.String())
			}
			if noted := bytes.Contains(b.Bytes(), []byte("interrupted")); noted != c.shown {
				t.Errorf("said to be interrupted: %v, want %v", noted, c.shown)
			}
		})
	}
}
