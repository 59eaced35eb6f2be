package paxos

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"assent/decision"
	"assent/protocol/commit"
	"assent/protocol/paxos"
	"assent/resource"
)

// faults decides which operations on a member's files fail.
type faults struct {
	mu   sync.Mutex
	fail func(errorfs.Op) error
}

func (f *faults) String() string { return "faults" }

func (f *faults) MaybeError(op errorfs.Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail == nil {
		return nil
	}
	return f.fail(op)
}

func (f *faults) set(fail func(errorfs.Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

// TestFailingDisk: a member whose disk is full or fails to force stops answering, and says so; the
// others go on. When its disk is well again it serves by itself, has kept what it promised, and
// catches up.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	for what, cause := range map[string]error{"full": syscall.ENOSPC, "broken": syscall.EIO} {
		t.Run(what, func(t *testing.T) {
			g := newGroup(t, 3, Config{RetryInterval: 10 * time.Millisecond})
			g.ready()
			g.stop("c")
			f, disk := &faults{}, g.fs["c"]
			g.fs["c"] = errorfs.Wrap(disk, f)
			g.start("c")
			g.ready()
			for i := range 20 {
				g.decide("a", entry(fmt.Sprint("before-", i), commit.Commit, "a"))
			}
			f.set(func(op errorfs.Op) error {
				if op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpFileWrite {
					return cause
				}
				return nil
			})
			for i := range 20 {
				g.decide("a", entry(fmt.Sprint("meanwhile-", i), commit.Commit, "a"))
				g.decide("c", entry(fmt.Sprint("there-", i), commit.Commit, "c")) // it still coordinates
			}
			g.until("c has stopped", func() bool { return strings.Contains(g.log("c").Status().Stopped, cause.Error()) })
			g.until("the others know", func() bool {
				return g.log("a").memberStatus(g.log("a").roster.Load().peers.of("c"), 0).Condition == "its storage has stopped"
			})
			f.set(nil)
			g.until("c votes again", func() bool { return g.log("c").Status().Stopped == "" })
			g.until("c has caught up", func() bool {
				// What c knew when its disk failed, and had not told, is settled by whoever lists.
				for _, err := range g.log("b").List(t.Context(), decision.Unfinished) {
					if err != nil {
						t.Fatal(err)
					}
				}
				s := g.log("c").serving()
				for i := range 20 {
					for _, id := range []string{"before", "meanwhile", "there"} {
						if s == nil {
							return false
						}
						if h, _ := s.look(commit.TransactionID(fmt.Sprint(id, "-", i))); !h.chosen {
							return false
						}
					}
				}
				return true
			})
			// With a gone, what stands is what b and c hold.
			g.stop("a")
			for i := range 20 {
				if e := g.lookup("c", fmt.Sprint("meanwhile-", i)); e.By != "a" {
					t.Errorf("%v stands", e)
				}
			}
			g.decide("b", entry("after", commit.Commit, "b"))
			g.stop("c")
			g.fs["c"] = disk
			g.start("c")
			g.start("a")
		})
	}
}

// TestPromisesSurviveAFailedSync: what a member has told stands, although it could not tell more: votes
// are counted of what was forced alone.
func TestPromisesSurviveAFailedSync(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, Config{RetryInterval: time.Millisecond})
	g.ready()
	rng := rand.New(rand.NewPCG(5, 5))
	disks := map[int]vfs.FS{}
	var broken atomic.Int32
	for i, name := range g.names {
		g.stop(name)
		disks[i] = g.fs[name]
		g.fs[name] = errorfs.Wrap(disks[i], errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpFileSyncData && broken.Load() == int32(i+1) {
				return syscall.EIO
			}
			return nil
		}))
		g.start(name)
	}
	g.ready()
	told := map[string]string{}
	for round := range 12 {
		broken.Store(int32(rng.IntN(4)))
		for i := range 10 {
			id := fmt.Sprintf("tx-%d-%d", round, i)
			at := g.names[rng.IntN(3)]
			told[id] = g.decide(at, entry(id, commit.Commit, string(at))).By
		}
	}
	broken.Store(0)
	for i, name := range g.names { // and now they lose what was never forced
		old := g.log(name)
		g.wires.down(name)
		g.fs[name] = disks[i].(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{})
		if err := old.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, name := range g.names {
		g.start(name)
	}
	for id, by := range told {
		if e := g.lookup("b", id); e.By != by {
			t.Errorf("%s: told %q, now %q stands", id, by, e.By)
		}
	}
}

// TestDamage: damage to what was stable is refused with its place. The others go on.
func TestDamage(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, Config{})
	g.ready()
	for i := range 30 {
		g.decide("a", entry(fmt.Sprint("tx-", i), commit.Commit, "a"))
	}
	g.stop("c")
	path := "member/segments/00000000000000000001.segment"
	f, err := g.fs["c"].OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err == nil {
		spoilt := make([]byte, 1)
		if _, err = f.ReadAt(spoilt, 4096+100); err == nil {
			spoilt[0] ^= 4
			_, err = f.WriteAt(spoilt, 4096+100)
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	cfg := g.cfg
	cfg.Self, cfg.FS, cfg.Network = "c", g.fs["c"], g.wires.of("c")
	l, err := Open(cfg)
	damage, ok := errors.AsType[*DamageError](err)
	if !ok || damage.Path != path || damage.Offset < 0 || resource.HintOf(err) == "" {
		t.Errorf("got %v, %v; want damage in %s with its place and a hint", l, err, path)
	}
	g.decide("b", entry("after", commit.Commit, "b"))
}

// TestRetention: what is done is dropped at all members when there is too much of it, also after a member
// was away, which holds it back; and journals do not grow without end.
func TestRetention(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, Config{RetainCount: 40})
	g.ready()
	finish := func(from, to int) {
		for i := from; i < to; i++ {
			id := fmt.Sprint("tx-", i)
			g.decide("a", entry(id, commit.Commit, "a"))
			if err := g.log("a").Annotate(t.Context(), commit.TransactionID(id), decision.Note{Kind: decision.Finished}); err != nil {
				t.Fatal(err)
			}
		}
	}
	held := func(name string) (n int) {
		for _, m := range g.log("a").Status().Members {
			if string(m.Node) == name {
				n = m.Retained + m.Unfinished
			}
		}
		return n
	}
	g.decide("a", entry("open", commit.Commit, "a"))
	finish(0, 600)
	g.until("all have dropped", func() bool { return held("a") == 41 && held("b") == 41 && held("c") == 41 })
	g.stop("c")
	finish(600, 700)
	g.until("b knows", func() bool { return held("a") == 101 && held("b") == 101 })
	g.start("c")
	g.until("all have dropped", func() bool { return held("a") == 41 && held("b") == 41 && held("c") == 41 })
	finish(700, 2000)
	g.until("all have dropped", func() bool { return held("a") == 41 && held("b") == 41 && held("c") == 41 })
	for _, name := range g.names {
		g.until("the journal has shrunk", func() bool {
			names, err := g.fs[name].List("member/segments")
			return err == nil && len(names) <= 6
		})
		g.stop(name)
	}
	for _, name := range g.names {
		g.start(name)
	}
	if e := g.lookup("b", "open"); e.By != "a" {
		t.Errorf("%v stands", e)
	}
	if _, err := g.log("c").Lookup(t.Context(), "tx-5"); !errors.Is(err, decision.ErrNotFound) {
		t.Errorf("what was dropped: %v", err)
	}
	if e := g.lookup("c", "tx-1999"); e.Status() != decision.Done {
		t.Errorf("%v is %v", e, e.Status())
	}
}

// TestNoRoom: what is unfinished is never dropped; when there is too much of it, more is refused.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 1, Config{MaxOpen: 20, RetainCount: 10})
	var err error
	n := 0
	for ; n < 100 && err == nil; n++ {
		_, err = g.log("a").Decide(t.Context(), entry(fmt.Sprint("tx-", n), commit.Commit, "a"))
	}
	if n != 31 || resource.CodeOf(err) != resource.Capacity || resource.HintOf(err) == "" {
		t.Errorf("transaction %d: %v", n, err)
	}
	if err := g.log("a").Annotate(t.Context(), "tx-3", decision.Note{Kind: decision.Finished}); err != nil {
		t.Error(err)
	}
}

// TestNoRoomForWhatIsTaught: a member acknowledges only what it has taken, and takes the rest when there is room.
func TestNoRoomForWhatIsTaught(t *testing.T) {
	t.Parallel()
	small := Config{MaxOpen: 8, RetainCount: 8, MaxWaiting: 8, Options: brisk}
	g := newGroup(t, 3, Config{Options: brisk})
	g.ready()
	g.stop("c")
	const n = 60
	for i := range n {
		g.decide("a", entry(fmt.Sprint("tx-", i), commit.Commit, "a"))
	}
	whole := g.cfg
	small.Owner, small.Epoch, small.Dir, small.Logger = whole.Owner, whole.Epoch, whole.Dir, whole.Logger
	g.cfg = small
	l := g.start("c")
	held := func(l *Log) int {
		s := l.serving()
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.table)
	}
	g.until("c is full", func() bool { return held(l) >= 8+8+2+8 })
	owing := func() (owed int) {
		s := g.log("a").serving()
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, in := range s.table {
			if in.owed&g.log("a").roster.Load().peers.of("c").bit != 0 {
				owed++
			}
		}
		return owed
	}
	if owed := owing(); owed < n-held(l) {
		t.Errorf("c holds %d of %d, and a takes it that it lacks only %d", held(l), n, owed)
	}
	g.cfg = whole
	g.stop("c")
	g.start("c")
	g.until("c holds all", func() bool { return owing() == 0 })
}

// TestFullGroupChanges: where a member that is away has made the others full, they go on without it once the
// members have changed.
func TestFullGroupChanges(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, Config{MaxOpen: 20, RetainCount: 10, MaxWaiting: 4, Options: brisk})
	g.ready()
	g.stop("c")
	var err error
	n := 0
	for ; n < 100 && err == nil; n++ {
		if _, err = g.log("a").Decide(t.Context(), entry(fmt.Sprint("tx-", n), commit.Commit, "a")); err == nil {
			err = g.log("a").Annotate(t.Context(), commit.TransactionID(fmt.Sprint("tx-", n)), decision.Note{Kind: decision.Finished})
		}
	}
	if n == 100 || resource.CodeOf(err) != resource.Capacity {
		t.Fatalf("transaction %d: %v", n, err)
	}
	g.move("b", g.cfg.Epoch, "a", "b")
	g.until("there is room again", func() bool {
		_, err = g.log("a").Decide(t.Context(), entry("after", commit.Commit, "a"))
		return err == nil
	})
}

// TestStuckDisk: where a disk does not answer what others say does not pile up without end. When it does answer the
// member goes on.
func TestStuckDisk(t *testing.T) {
	t.Parallel()
	g := newGroup(t, 3, Config{Options: brisk})
	g.ready()
	l := g.log("a")
	s, r := l.serving(), l.roster.Load()
	stuck, answer := make(chan struct{}), make(chan struct{})
	s.batch.Then(func() {
		close(stuck)
		<-answer
	})
	<-stuck
	g.until("it is to be tended", func() bool { return s.tending.Load() != 0 })
	for range maxBehind + 4096 {
		l.within(r, func(s *store) {
			s.deliver("tx", "nobody", phase1a{Instance: "tx", Ballot: paxos.Ballot{Epoch: r.number(), Round: 1, Node: "nobody"}})
		})
	}
	if n := s.batch.Waiting(); n < maxBehind || n > maxBehind+1024 { // what it asks itself comes on top
		t.Errorf("%d wait", n)
	}
	close(answer)
	if got := g.decide("a", entry(g.own("a", 1), commit.Commit, "a")); got.By != "a" {
		t.Errorf("%v stands", got)
	}
	g.until("nothing waits", func() bool { return s.batch.Waiting() < maxBehind/2 })
}
