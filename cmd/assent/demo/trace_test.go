package demo

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"assent/trace"
)

// TestTrace: one trace holds what all registrars did, those that were killed too, and it tells of
// transactions that one began and another ended.
func TestTrace(t *testing.T) {
	t.Parallel()
	path := ""
	// What a registrar did within its last 100 ms may be lost with it, so some runs show no such transaction.
	for attempt := 0; ; attempt++ {
		path = filepath.Join(t.TempDir(), fmt.Sprint("demo-", attempt, ".trace"))
		recovered, crossed := traced(t, path)
		if recovered == 0 || crossed > 0 || t.Failed() {
			break
		}
		if attempt == 9 {
			t.Fatalf("%d transactions were recovered, and ten traces show none that a crash has crossed", recovered)
		}
	}
	if _, _, err := run(t, "--trace", path); err == nil || !strings.Contains(err.Error(), "--trace needs a new file") {
		t.Errorf("a second demo with the same file: %v", err)
	}
}

// traced runs a demo and returns how many transactions were recovered in it, and how many of them its trace
// shows on both sides of a crash.
func traced(t *testing.T, path string) (recovered, crossed int) {
	t.Helper()
	stdout, _, err := run(t, "--kills", "2", "--transactions", "100", "--workers", "8", "--json", "--trace", path)
	if err != nil {
		t.Fatal(err, stdout)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, err := trace.NewReader(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	digest, crashes := trace.NewDigest(), map[string]int{}
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		digest.Add(e)
		if e.Kind == trace.Crash {
			crashes[string(e.Node)]++
		}
	}
	// The furnishing, two registrars that were killed, the last one, and the comparison.
	for _, node := range []string{"coordinator:", machineA, machineB, machineC} {
		if crashes[node] < 3 {
			t.Errorf("%s went down %d times, want at least 3", node, crashes[node])
		}
	}
	for _, s := range digest.Scopes() {
		if s.Crashed {
			crossed++
		}
	}
	return parse(t, stdout).Recovered, crossed
}
