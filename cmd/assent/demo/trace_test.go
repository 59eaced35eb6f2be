package demo

import (
	"errors"
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
	path := filepath.Join(t.TempDir(), "demo.trace")
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
	v, crossed := parse(t, stdout), 0
	for _, s := range digest.Scopes() {
		if s.Crashed {
			crossed++
		}
	}
	if v.Recovered > 0 && crossed == 0 {
		t.Errorf("%d transactions were recovered, and the trace shows none that a crash has crossed", v.Recovered)
	}

	if _, _, err := run(t, "--trace", path); err == nil || !strings.Contains(err.Error(), "--trace needs a new file") {
		t.Errorf("a second demo with the same file: %v", err)
	}
}
