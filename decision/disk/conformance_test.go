package disk

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/decision"
	"assent/decision/decisiontest"
)

func TestConformanceOnFiles(t *testing.T) {
	cfg := Config{SegmentBytes: 64 << 10}
	decisiontest.Run(t, decisiontest.Harness{
		New: func(t *testing.T) decision.Log { return mustOpen(t, t.TempDir(), cfg) },
		Reopen: func(t *testing.T, log decision.Log) decision.Log {
			l := log.(*Log)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return mustOpen(t, l.dir, cfg)
		},
	})
}

// The crash tests run on a disk that keeps what was synced and, of the rest, any of its blocks.
func TestConformanceOnCrashingDisk(t *testing.T) {
	for _, percent := range []int{0, 50, 100} {
		var mu sync.Mutex
		rng := rand.New(rand.NewPCG(3, uint64(percent)))
		t.Run(map[int]string{0: "losing all", 50: "losing half", 100: "losing none"}[percent], func(t *testing.T) {
			cfg := Config{SegmentBytes: 64 << 10}
			decisiontest.Run(t, decisiontest.Harness{
				New: func(t *testing.T) decision.Log {
					cfg := cfg
					cfg.FS = vfs.NewCrashableMem()
					return mustOpen(t, "log", cfg)
				},
				Crash: func(t *testing.T, log decision.Log) decision.Log {
					l := log.(*Log)
					mu.Lock()
					defer mu.Unlock()
					cfg := cfg
					cfg.FS = l.cfg.FS.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
					left := mustOpen(t, "log", cfg)
					if err := l.Close(); err != nil {
						t.Errorf("close what crashed: %v", err)
					}
					return left
				},
			})
		})
	}
}
