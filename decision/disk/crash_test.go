package disk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"assent/decision"
	"assent/protocol/commit"
)

// told is what callers were told to stand, at any moment.
type told struct {
	sync.Mutex
	decisions map[commit.TransactionID]commit.Decision
	finished  map[commit.TransactionID]bool
	noted     map[commit.TransactionID]bool // perhaps finished: it was asked
}

func newTold() *told {
	return &told{
		decisions: map[commit.TransactionID]commit.Decision{},
		finished:  map[commit.TransactionID]bool{}, noted: map[commit.TransactionID]bool{},
	}
}

func (a *told) clone() *told {
	a.Lock()
	defer a.Unlock()
	return &told{decisions: maps.Clone(a.decisions), finished: maps.Clone(a.finished), noted: maps.Clone(a.noted)}
}

// crashPoint clones a crashable file system just before its nth change, as a crash there would
// leave it: what was synced, and of the rest any 4 KiB blocks.
type crashPoint struct {
	sync.Mutex
	mem     *vfs.MemFS
	n       int
	percent int
	retain  int // 0: for good
	rng     *rand.Rand
	told    *told

	changes int
	left    *vfs.MemFS // after the crash
	known   *told      // what had been told by then
}

func (c *crashPoint) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
		return nil
	}
	c.Lock()
	defer c.Unlock()
	if c.changes++; c.changes == c.n {
		// In this order: what is told between the two is on the disk already.
		c.known = c.told.clone()
		c.left = c.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: c.percent, RNG: c.rng})
	}
	return nil
}

func (c *crashPoint) String() string { return "crash" }

func (c *crashPoint) open(fs vfs.FS) (*Log, error) {
	return Open("log", Config{FS: fs, SegmentBytes: smallSegment, RetainCount: c.retain, Logger: quiet()})
}

// live opens the log on c twice and decides so much that segments end and the index is flushed.
func (c *crashPoint) live(t *testing.T) {
	t.Helper()
	for life := range 2 {
		l, err := c.open(errorfs.Wrap(c.mem, c))
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for w := range 3 {
			wg.Go(func() {
				for i := range 25 {
					e := entry(i)
					e.ID = commit.TransactionID(fmt.Sprintf("%d-%d-%d", life, w, i))
					e.Decision = commit.Commit + commit.Decision(i%2)
					e.Reason = strings.Repeat("r", 1000)
					c.decide(t, l, e)
				}
			})
		}
		wg.Wait()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *crashPoint) decide(t *testing.T, l *Log, e decision.Entry) {
	stands, err := l.Decide(context.Background(), e)
	if err != nil {
		t.Error(err)
		return
	}
	c.told.Lock()
	c.told.decisions[e.ID] = stands.Decision
	c.told.Unlock()
	if len(e.ID)%2 == 0 {
		return
	}
	c.told.Lock()
	c.told.noted[e.ID] = true
	c.told.Unlock()
	// Where nothing is kept for long, most of it is retired before anybody forces it.
	n := decision.Note{Kind: decision.Finished, Forced: c.retain == 0 || e.Branches[0].Evidence[2]%4 == 0}
	if err := l.Annotate(context.Background(), e.ID, n); err != nil {
		t.Error(err)
		return
	}
	c.told.Lock()
	c.told.finished[e.ID] = n.Forced
	c.told.Unlock()
}

// check opens what the crash has left.
func (c *crashPoint) check(t *testing.T, fs *vfs.MemFS) {
	t.Helper()
	l, err := c.open(fs)
	if err != nil {
		t.Fatalf("crash before change %d, %d%% kept: %v", c.n, c.percent, err)
	}
	defer l.Close()
	for id, want := range c.known.decisions {
		e, err := l.Lookup(context.Background(), id)
		if errors.Is(err, decision.ErrNotFound) && c.known.noted[id] && c.retain > 0 {
			continue
		}
		if err != nil || e.Decision != want {
			t.Errorf("crash before change %d, %d%% kept: %q: told %v, found %v, %v", c.n, c.percent, id, want, e.Decision, err)
		}
		if c.known.finished[id] && e.Status() != decision.Done {
			t.Errorf("crash before change %d, %d%% kept: %q was finished and is %v", c.n, c.percent, id, e.Status())
		}
	}
	if _, err := l.Decide(context.Background(), decision.Entry{ID: "new", Decision: commit.Commit}); err != nil {
		t.Error(err)
	}
}

// The machine crashes before each of many changes to its disk, also while the log is being made,
// while a segment follows another, and while it is opened after a first crash. What is finished and retired, also by a
// note that is not forced yet, may be gone; nothing else.
func TestCrashBeforeAnyChange(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	total := 500
	for n := 1; n < total; n += 1 + rng.IntN(20) {
		c := &crashPoint{mem: vfs.NewCrashableMem(), n: n, percent: rng.IntN(101), retain: 3 * rng.IntN(2), rng: rng, told: newTold()}
		c.live(t)
		total = c.changes
		if c.left == nil {
			continue
		}
		// A second crash, while what the first has left is being opened.
		again := &crashPoint{mem: c.left, n: 1 + rng.IntN(60), percent: rng.IntN(101), retain: c.retain, rng: rng, told: c.known}
		l, err := again.open(errorfs.Wrap(c.left, again))
		if err != nil {
			t.Fatalf("crash before change %d, %d%% kept: %v", c.n, c.percent, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if again.left != nil {
			again.check(t, again.left)
		}
		c.check(t, c.left)
	}
	t.Logf("%d changes", total)
}
