package paxos

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/decision"
	"assent/decision/decisiontest"
	"assent/protocol"
)

// group is a cluster for tests: members, their disks and the network between them.
type group struct {
	t     testing.TB
	wires *wires
	names []protocol.NodeID
	cfg   Config

	mu   sync.Mutex
	logs map[protocol.NodeID]*Log
	fs   map[protocol.NodeID]vfs.FS
}

var groups atomicCounter

type atomicCounter struct {
	sync.Mutex
	n int
}

func (c *atomicCounter) next() int {
	c.Lock()
	defer c.Unlock()
	c.n++
	return c.n
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// newGroup makes a cluster of n members with crashable disks and starts it.
func newGroup(t testing.TB, n int, cfg Config) *group {
	t.Helper()
	g := &group{t: t, wires: newWires(uint64(n)), logs: map[protocol.NodeID]*Log{}, fs: map[protocol.NodeID]vfs.FS{}, cfg: cfg}
	for i := range n {
		g.names = append(g.names, protocol.NodeID(rune('a'+i)))
	}
	g.cfg.Owner = fmt.Sprintf("test-%d", groups.next())
	g.cfg.Epoch = Founders(g.names...)
	g.cfg.Dir = "member"
	if g.cfg.Logger == nil {
		g.cfg.Logger = quiet
	}
	if g.cfg.SegmentBytes == 0 {
		g.cfg.SegmentBytes = 64 << 10
	}
	for _, name := range g.names {
		g.fs[name] = vfs.NewCrashableMem()
		g.start(name)
	}
	t.Cleanup(func() {
		for _, name := range g.names {
			if l := g.log(name); l != nil {
				if err := l.Close(); err != nil {
					t.Errorf("close %s: %v", name, err)
				}
			}
		}
		close(g.wires.ended)
	})
	return g
}

func (g *group) log(name protocol.NodeID) *Log {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.logs[name]
}

// start opens the member's log.
func (g *group) start(name protocol.NodeID) *Log {
	g.t.Helper()
	cfg := g.cfg
	cfg.Self, cfg.FS, cfg.Network = name, g.fs[name], g.wires.of(name)
	l, err := Open(cfg)
	if err != nil {
		g.t.Fatal(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.logs[name] = l
	return l
}

// stop closes the member's log in good order.
func (g *group) stop(name protocol.NodeID) {
	g.t.Helper()
	if err := g.log(name).Close(); err != nil {
		g.t.Fatal(err)
	}
	g.wires.down(name)
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.logs, name)
}

// crash ends the member as a crash of its machine would, of whose unsynced writes percent are kept.
func (g *group) crash(name protocol.NodeID, percent int, rng *rand.Rand) {
	g.t.Helper()
	old := g.log(name)
	g.wires.down(name)
	g.mu.Lock()
	g.fs[name] = g.fs[name].(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
	delete(g.logs, name)
	g.mu.Unlock()
	if err := old.Close(); err != nil {
		g.t.Errorf("close what crashed: %v", err)
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3, 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			conformance(t, n, Config{})
		})
	}
}

func conformance(t *testing.T, n int, cfg Config) {
	var mu sync.Mutex
	of := map[decision.Log]*group{}
	rng := rand.New(rand.NewPCG(7, uint64(n)))
	find := func(log decision.Log) *group {
		mu.Lock()
		defer mu.Unlock()
		return of[log]
	}
	keep := func(g *group, l *Log) decision.Log {
		mu.Lock()
		defer mu.Unlock()
		of[l] = g
		return l
	}
	h := decisiontest.Harness{
		New: func(t *testing.T) decision.Log {
			g := newGroup(t, n, cfg)
			return keep(g, g.log("a"))
		},
		Reopen: func(t *testing.T, log decision.Log) decision.Log {
			g := find(log)
			g.stop("a")
			return keep(g, g.start("a"))
		},
		// All members crash at once: what was told must be on disks, not in memories.
		Crash: func(t *testing.T, log decision.Log) decision.Log {
			g := find(log)
			mu.Lock()
			for _, name := range g.names {
				g.crash(name, rng.IntN(101), rng)
			}
			mu.Unlock()
			for _, name := range slices.Backward(g.names) {
				g.start(name)
			}
			return keep(g, g.log("a"))
		},
	}
	if n > 1 {
		h.Another = func(t *testing.T, log decision.Log) decision.Log {
			g := find(log)
			return keep(g, g.log("b"))
		}
	}
	decisiontest.Run(t, h)
}
