package crashtest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"assent/internal/pgcluster"
)

// roleEnv makes the test binary a coordinator process.
const roleEnv = "ASSENT_CRASHTEST_ROLE"

var (
	seedFlag = flag.Uint64("seed", 0, "the seed of random tests; 0 takes one from the clock")
	soakFlag = flag.Bool("soak", os.Getenv("ASSENT_SOAK") == "1", "run the bank test for 60 s")
)

// patience is for how long anything is waited for that must come.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "coordinator":
		os.Exit(coordinate())
	case "tunnel":
		os.Exit(tunnel())
	case "citizen":
		os.Exit(beCitizen())
	}
	flag.Parse()
	code := m.Run()
	for _, c := range shared.clusters {
		if err := c.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "delete a cluster:", err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// baseNames are the names of the two clusters among the resources.
var baseNames = []string{"pg1", "pg2"}

// shared are the clusters of all tests, started by the first that needs them.
var shared struct {
	once     sync.Once
	clusters map[string]*pgcluster.Cluster
	err      error
	sites    atomic.Int64
}

// clusters returns two running clusters. It skips the test where PostgreSQL is not installed,
// unless that is required.
func clusters(t testing.TB) map[string]*pgcluster.Cluster {
	t.Helper()
	shared.once.Do(func() {
		shared.clusters = map[string]*pgcluster.Cluster{}
		for _, name := range baseNames {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			c, err := pgcluster.New(ctx, pgcluster.Options{MaxPrepared: 200, Settings: map[string]string{
				"deadlock_timeout": "100ms",
			}})
			cancel()
			if err != nil {
				shared.err = err
				return
			}
			shared.clusters[name] = c
		}
	})
	if errors.Is(shared.err, pgcluster.ErrNotInstalled) && os.Getenv("ASSENT_REQUIRE_POSTGRES") != "1" {
		t.Skipf("%v; `make test` installs it", shared.err)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.clusters
}
