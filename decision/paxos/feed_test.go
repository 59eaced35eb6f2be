package paxos

import (
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/protocol"
	"assent/protocol/commit"
)

// crashed is a member's disk as a crash would have left it when the member said that these are decided.
type crashed struct {
	member protocol.NodeID
	disk   vfs.FS
	ids    []commit.TransactionID
}

// crashes keeps what members say to each other of what they hold, with their disks.
type crashes struct {
	g     *group
	mu    sync.Mutex
	told  map[uint64][]commit.TransactionID // what was told under that number
	kinds map[kind]int                      // of those in all
	all   []crashed
}

// watch sees a payload before it is sent.
func (c *crashes) watch(from, _ protocol.NodeID, payload []byte) {
	r := &reader{data: payload}
	r.envelope()
	r.list(16)
	k := kind(r.most(255))
	if k != kindFeed && k != kindFeedAck {
		return
	}
	number := r.uint()
	c.mu.Lock()
	defer c.mu.Unlock()
	if k == kindFeed {
		for range r.list(maxItems) {
			if s := r.summary(); s.chosen {
				c.told[number] = append(c.told[number], commit.TransactionID(s.id))
			}
		}
	}
	if ids := c.told[number]; len(ids) > 0 && c.kinds[k] < 30 {
		c.kinds[k]++
		c.all = append(c.all, crashed{from, c.g.fs[from].(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{}), ids})
	}
}

// TestToldIsStable: what a member tells the others that it holds, and what it acknowledges, it holds after a
// crash at that very moment in which all is lost that was not forced; while many decide, and afterwards.
func TestToldIsStable(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, Config{})
	g.ready()
	c := &crashes{g: g, told: map[uint64][]commit.TransactionID{}, kinds: map[kind]int{}}
	g.wires.mu.Lock()
	g.wires.watch = c.watch
	g.wires.mu.Unlock()
	var wg sync.WaitGroup
	for caller := range 4 {
		wg.Go(func() {
			for i := range 50 {
				at := g.names[caller%2]
				if _, err := g.log(at).Decide(t.Context(), entry(g.own(at, 1000*caller+i), commit.Commit, string(at))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	g.until("nothing is owed", func() bool {
		for _, name := range g.names {
			for _, m := range g.log(name).Status().Members {
				if m.Lag != 0 {
					return false
				}
			}
		}
		return true
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kinds[kindFeed] == 0 || c.kinds[kindFeedAck] == 0 {
		t.Fatalf("disks were kept of these kinds: %v", c.kinds)
	}
	apart := newWires(1)
	defer close(apart.ended)
	for _, x := range c.all {
		cfg := g.cfg
		cfg.Self, cfg.FS, cfg.Network = x.member, x.disk, apart.of(x.member)
		l, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		missing := 0
		for _, id := range x.ids {
			if h, _ := l.serving().look(id); !h.chosen {
				missing++
			}
		}
		if missing > 0 {
			t.Errorf("%s said of %d that they are decided, and does not know it of %d after a crash", x.member, len(x.ids), missing)
		}
		if err := l.Close(); err != nil {
			t.Error(fmt.Errorf("close %s: %w", x.member, err))
		}
		apart.down(x.member)
	}
}
