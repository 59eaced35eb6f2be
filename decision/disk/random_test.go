package disk

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/decision"
	"assent/protocol/commit"
)

// The owner of a new log comes from Config.Random alone.
func TestOwnerComesFromRandom(t *testing.T) {
	owner := func(seed byte) string {
		l, err := Open("log", Config{FS: vfs.NewMem(), Random: rand.NewChaCha8([32]byte{seed})})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Owner()
	}
	if first, again := owner(1), owner(1); first != again || len(first) != 26 {
		t.Errorf("the same bytes made %q and %q", first, again)
	}
	if first, other := owner(1), owner(2); first == other {
		t.Errorf("other bytes made the same owner %q", first)
	}
}

// What nobody asked to be forced is forced after IdleTime, also while more keeps coming.
func TestSteadyNotesAreForced(t *testing.T) {
	s := quietStore(t, vfs.NewMem(), 0)
	defer s.leave(t)
	s.log.cfg.IdleTime = time.Hour
	syncs := func() uint64 { return s.log.stats.syncs.Load() }
	before := syncs()
	forget := func() {
		t.Helper()
		r := newRequest(false, change{record: record{kind: forgetRecord, id: "t"}})
		if err := s.serve([]*request{r}); err != nil {
			t.Fatal(err)
		}
	}
	for round := range uint64(3) {
		for range 10 {
			forget()
		}
		if got := syncs() - before; got != round || !s.seg.dirty() {
			t.Fatalf("round %d: %d syncs, dirty: %v; want %d, and something to force", round, got, s.seg.dirty(), round)
		}
		s.unforced = s.unforced.Add(-time.Hour) // as if it had been written so much earlier
		forget()
		if got := syncs() - before; got != round+1 || s.seg.dirty() {
			t.Fatalf("round %d: %d syncs, dirty: %v; want %d, and nothing to force", round, got, s.seg.dirty(), round+1)
		}
	}
}

// A note that nobody asked to be forced is forced after IdleTime, and not before.
func TestNotesWaitForIdleTime(t *testing.T) {
	fs := vfs.NewCrashableMem()
	l, err := Open("log", Config{FS: fs, IdleTime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e := decision.Entry{ID: "t", Decision: commit.Commit, By: "coordinator", Branches: []decision.Branch{{Resource: "r"}}}
	if _, err := l.Decide(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if err := l.Annotate(t.Context(), "t", decision.Note{Kind: decision.Finished}); err != nil {
		t.Fatal(err)
	}
	crashed, err := Open("log", Config{FS: fs.CrashClone(vfs.CrashCloneCfg{})})
	if err != nil {
		t.Fatal(err)
	}
	defer crashed.Close()
	stands, err := crashed.Lookup(t.Context(), "t")
	if err != nil || stands.Status() != decision.Unfinished {
		t.Errorf("after the crash: %v, %v; want the entry without its note", stands, err)
	}
}
