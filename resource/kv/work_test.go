package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/protocol/commit"
	"assent/resource"
)

func put(t testing.TB, tx *Tx, key, value string) {
	t.Helper()
	if err := tx.Put(t.Context(), []byte(key), []byte(value)); err != nil {
		t.Fatal(err)
	}
}

func finish(t testing.TB, tx *Tx, want commit.Outcome) {
	t.Helper()
	if got, err := tx.CommitOnePhase(t.Context()); err != nil || got != want {
		t.Fatalf("commit: got %v, %v; want %v", got, err, want)
	}
}

func prepare(t testing.TB, tx *Tx) resource.Prepared {
	t.Helper()
	vote, err := tx.Prepare(t.Context())
	if err != nil || vote.Vote != commit.Yes {
		t.Fatalf("prepare: got %v, %v; want yes", vote.Vote, err)
	}
	return resource.Prepared{ID: tx.ID(), Evidence: vote.Evidence}
}

// pairs collects what a scan yields, as "key=value".
func pairs(t testing.TB, seq func(func(Pair, error) bool)) []string {
	t.Helper()
	var all []string
	for p, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%s=%s", p.Key, p.Value))
	}
	return all
}

// waitsFor returns when the branch waits for a lock.
func waitsFor(t testing.TB, tx *Tx) {
	t.Helper()
	for {
		tx.r.locks.mu.Lock()
		waits := tx.owner.waiting != nil
		tx.r.locks.mu.Unlock()
		if waits {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatal("the branch does not wait")
		case <-time.After(100 * time.Microsecond):
		}
	}
}

func TestScanSeesOwnWritesInOrder(t *testing.T) {
	r := open(t, t.TempDir(), Config{})
	tx := begin(t, r, "fill")
	for _, k := range []string{"a", "b", "d", "e"} {
		put(t, tx, k, "old")
	}
	finish(t, tx, commit.Committed)
	tx = begin(t, r, "scan")
	put(t, tx, "0", "new")
	put(t, tx, "b", "new")
	put(t, tx, "c", "new")
	put(t, tx, "z", "new")
	if err := tx.Delete(t.Context(), []byte("d")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, to string
		want     []string
	}{
		{"", "", []string{"0=new", "a=old", "b=new", "c=new", "e=old", "z=new"}},
		{"b", "e", []string{"b=new", "c=new"}},
		{"d", "d", nil},
		{"x", "", []string{"z=new"}},
	} {
		if got := pairs(t, tx.Scan(t.Context(), []byte(c.from), []byte(c.to))); !slices.Equal(got, c.want) {
			t.Errorf("scan from %q to %q: got %q; want %q", c.from, c.to, got, c.want)
		}
	}
	if got := pairs(t, tx.ScanPrefix(t.Context(), []byte("c"))); !slices.Equal(got, []string{"c=new"}) {
		t.Errorf("scan prefix c: got %q", got)
	}
}

func TestScanOfManyPages(t *testing.T) {
	r := open(t, t.TempDir(), Config{})
	var want []string
	tx, own := begin(t, r, "fill"), begin(t, r, "scan")
	for i := range 3*pagePairs + 7 {
		k := fmt.Sprintf("%04d", i)
		want = append(want, k+"=v")
		if i%3 == 0 {
			put(t, own, k, "v")
		} else {
			put(t, tx, k, "v")
		}
	}
	finish(t, tx, commit.Committed)
	if got := pairs(t, own.Scan(t.Context(), nil, nil)); !slices.Equal(got, want) {
		t.Errorf("the scan yields %d pairs; want %d in order", len(got), len(want))
	}
	seen := 0
	for range own.Scan(t.Context(), nil, nil) {
		if seen++; seen == 5 {
			break
		}
	}
	finish(t, own, commit.Committed)
	err := r.View(t.Context(), func(v *View) error {
		if got := pairs(t, v.Scan(nil, nil)); !slices.Equal(got, want) {
			t.Errorf("the view yields %d pairs; want %d in order", len(got), len(want))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPrefixEnd(t *testing.T) {
	for prefix, want := range map[string]string{"": "", "a": "b", "a\xff": "b", "\xff\xff": "", "ab\x00": "ab\x01"} {
		if got := prefixEnd([]byte(prefix)); string(got) != want {
			t.Errorf("the end of prefix %q is %q; want %q", prefix, got, want)
		}
	}
}

// A key that appears, changes or disappears in a scanned range would be a phantom.
func TestScanKeepsPhantomsOut(t *testing.T) {
	r := open(t, t.TempDir(), Config{})
	tx := begin(t, r, "fill")
	put(t, tx, "k3", "v")
	finish(t, tx, commit.Committed)
	scanner := begin(t, r, "scanner")
	want := pairs(t, scanner.ScanPrefix(t.Context(), []byte("k")))
	writer := begin(t, r, "writer")
	put(t, writer, "j", "outside")
	written := make(chan error, 1)
	go func() { written <- writer.Put(t.Context(), []byte("k5"), []byte("v")) }()
	waitsFor(t, writer)
	if got := pairs(t, scanner.ScanPrefix(t.Context(), []byte("k"))); !slices.Equal(got, want) {
		t.Errorf("the second scan yields %q; the first %q", got, want)
	}
	if vote, err := scanner.Prepare(t.Context()); err != nil || vote.Vote != commit.ReadOnly {
		t.Fatalf("prepare: got %v, %v; want read-only", vote.Vote, err)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	finish(t, writer, commit.Committed)
}

// A scan waits for the prepared branch that has put, or deleted, a key in its range.
func TestScanWaitsForThePrepared(t *testing.T) {
	r := open(t, t.TempDir(), Config{})
	writer := begin(t, r, "writer")
	put(t, writer, "k", "v")
	prepare(t, writer)
	scanner := begin(t, r, "scanner")
	scanned := make(chan []string, 1)
	go func() {
		var all []string
		for p, err := range scanner.Scan(t.Context(), []byte("a"), []byte("z")) {
			all = append(all, fmt.Sprint(string(p.Key), err))
		}
		scanned <- all
	}()
	waitsFor(t, scanner)
	if got, err := writer.Commit(t.Context()); err != nil || got != commit.Committed {
		t.Fatalf("commit: got %v, %v", got, err)
	}
	if got := <-scanned; !slices.Equal(got, []string{"k<nil>"}) {
		t.Errorf("the scan yields %q", got)
	}
}

func TestVoteReleasesWhatWasOnlyRead(t *testing.T) {
	r := open(t, t.TempDir(), Config{})
	tx := begin(t, r, "reader")
	if _, _, err := tx.Get(t.Context(), []byte("read")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := tx.GetForUpdate(t.Context(), []byte("reserved")); err != nil {
		t.Fatal(err)
	}
	pairs(t, tx.ScanPrefix(t.Context(), []byte("s")))
	put(t, tx, "written", "v")
	prepare(t, tx)
	other := begin(t, r, "other")
	for _, k := range []string{"read", "reserved", "scanned"} {
		put(t, other, k, "v")
	}
	finish(t, other, commit.Committed)
	if _, _, err := r.Peek([]byte("written")); resource.CodeOf(err) != resource.Unavailable {
		t.Errorf("peek at what a prepared branch writes: got %v; want unavailable", err)
	}
	if _, err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := r.Peek([]byte("written")); ok || err != nil {
		t.Errorf("peek after the rollback: got %v, %v", ok, err)
	}
}

func TestWaitsEnd(t *testing.T) {
	r := open(t, t.TempDir(), Config{LockTimeout: 20 * time.Millisecond})
	holder := begin(t, r, "holder")
	put(t, holder, "k", "v")
	err := begin(t, r, "late").Put(t.Context(), []byte("k"), nil)
	if resource.CodeOf(err) != resource.LockTimeout {
		t.Errorf("put: got %v; want a lock timeout", err)
	}
	err = r.View(t.Context(), func(v *View) error {
		_, _, err := v.Get([]byte("k"))
		return err
	})
	if resource.CodeOf(err) != resource.Unavailable {
		t.Errorf("view: got %v; want unavailable", err)
	}
}

func TestRollbackEndsTheBranchsOwnWait(t *testing.T) {
	r := open(t, t.TempDir(), Config{LockTimeout: time.Hour})
	holder, waiter := begin(t, r, "holder"), begin(t, r, "waiter")
	put(t, holder, "k", "v")
	answered := make(chan error, 1)
	go func() { answered <- waiter.Put(t.Context(), []byte("k"), nil) }()
	waitsFor(t, waiter)
	if got, err := r.Rollback(t.Context(), resource.Prepared{ID: waiter.ID()}); err != nil || got != commit.RolledBack {
		t.Fatalf("rollback: got %v, %v", got, err)
	}
	if err := <-answered; resource.CodeOf(err) != resource.Broken {
		t.Errorf("put: got %v; want broken", err)
	}
}

func TestCloseEndsWaits(t *testing.T) {
	r := open(t, t.TempDir(), Config{LockTimeout: time.Hour})
	holder, waiter := begin(t, r, "holder"), begin(t, r, "waiter")
	put(t, holder, "k", "v")
	answered := make(chan error, 1)
	go func() { answered <- waiter.Put(t.Context(), []byte("k"), nil) }()
	waitsFor(t, waiter)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; !errors.Is(err, ErrClosed) {
		t.Errorf("put: got %v; want ErrClosed", err)
	}
}

func TestLimits(t *testing.T) {
	r := open(t, t.TempDir(), Config{MaxKey: 4, MaxValue: 8, MaxBranchSize: 500, MaxBranches: 20})
	for name, c := range map[string]struct {
		key, value string
		want       resource.Code
	}{
		"greatest key and value": {"abcd", "12345678", 0},
		"no key":                 {"", "v", resource.Invalid},
		"key too long":           {"abcde", "v", resource.Invalid},
		"value too long":         {"k", "123456789", resource.Invalid},
	} {
		err := begin(t, r, fmt.Sprintf("t-%d-%d", len(c.key), len(c.value))).Put(t.Context(), []byte(c.key), []byte(c.value))
		if resource.CodeOf(err) != c.want {
			t.Errorf("%s: got %v; want the code %d", name, err, c.want)
		}
	}
	big := begin(t, r, "big")
	var err error
	for i := 0; err == nil && i < 100; i++ {
		err = big.Put(t.Context(), []byte{'a', byte(i)}, nil)
	}
	if resource.CodeOf(err) != resource.Capacity || resource.HintOf(err) == "" {
		t.Errorf("a branch without end: got %v; want out of capacity, with a hint", err)
	}
	if vote, err := big.Prepare(t.Context()); vote.Vote != commit.No || resource.CodeOf(err) != resource.Broken {
		t.Errorf("prepare: got %v, %v; want no, because the branch is broken", vote.Vote, err)
	}
	for i := 0; err != nil && i < 100; i++ {
		_, err = r.Begin(t.Context(), resource.ID{Owner: "o", Transaction: fmt.Sprint("n", i), Branch: "b"})
		if resource.CodeOf(err) == resource.Capacity {
			return
		}
		err = errors.New("begun")
	}
	t.Errorf("branches without end: got %v; want out of capacity", err)
}

func TestConfigIsValidated(t *testing.T) {
	for _, cfg := range []Config{{LockTimeout: -1}, {LockTimeout: 2 * time.Hour}, {MaxKey: 1 << 20}, {MaxBranches: -1}} {
		if r, err := Open(t.TempDir(), cfg); err == nil {
			t.Errorf("open with %+v: no error", cfg)
			_ = r.Close()
		}
	}
}

// twin is the store as a plain map: what is committed, and what the one branch has changed.
type twin struct {
	r         *Resource
	tx        *Tx
	committed map[string]string
	changed   map[string]string // of the branch
	voted     bool
	begun     int
}

func (m *twin) step(t *rapid.T) {
	ctx := context.Background()
	if m.tx == nil {
		m.begun++
		b, err := m.r.Begin(ctx, resource.ID{Owner: "o", Transaction: fmt.Sprint(m.begun), Branch: "b"})
		if err != nil {
			t.Fatal(err)
		}
		m.tx, m.changed, m.voted = b.(*Tx), clone(m.committed), false
	}
	key := rapid.StringMatching(`[ab\x00\xff]{1,2}`).Draw(t, "key")
	var err error
	switch rapid.IntRange(0, 4).Draw(t, "do") {
	case 0, 1:
		value := rapid.StringN(0, 4, -1).Draw(t, "value")
		err = m.tx.Put(ctx, []byte(key), []byte(value))
		m.changed[key] = value
	case 2:
		err = m.tx.Delete(ctx, []byte(key))
		delete(m.changed, key)
	case 3:
		var value []byte
		var ok bool
		value, ok, err = m.tx.Get(ctx, []byte(key))
		if want, there := m.changed[key]; ok != there || string(value) != want {
			t.Fatalf("get %q: got %q, %v; want %q, %v", key, value, ok, want, there)
		}
	case 4:
		same(t, m.changed, m.tx.Scan(ctx, nil, nil))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func clone(m map[string]string) map[string]string {
	c := map[string]string{}
	for k, v := range m {
		c[k] = v
	}
	return c
}

func same(t *rapid.T, want map[string]string, seq func(func(Pair, error) bool)) {
	n := 0
	var before []byte
	for p, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		if v, ok := want[string(p.Key)]; !ok || v != string(p.Value) || bytes.Compare(before, p.Key) >= 0 && n > 0 {
			t.Fatalf("the scan yields %q=%q after %q; want %q, %v", p.Key, p.Value, before, v, ok)
		}
		before = p.Key
		n++
	}
	if n != len(want) {
		t.Fatalf("the scan yields %d keys; want %d", n, len(want))
	}
}

func (m *twin) end(t *rapid.T) {
	ctx := context.Background()
	if m.tx == nil {
		t.Skip("no branch")
	}
	vote, err := m.tx.Prepare(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p := resource.Prepared{ID: m.tx.ID(), Evidence: vote.Evidence}
	if rapid.Bool().Draw(t, "crash") {
		m.restart(t)
	}
	if vote.Vote == commit.Yes {
		call, want := m.r.Commit, commit.Committed
		if rapid.Bool().Draw(t, "rollback") {
			call, want, m.changed = m.r.Rollback, commit.RolledBack, m.committed
		}
		if got, err := call(ctx, p); err != nil || got != want {
			t.Fatalf("finish: got %v, %v; want %v", got, err, want)
		}
		m.committed = m.changed
	}
	m.tx = nil
	m.check(t)
}

func (m *twin) restart(t *rapid.T) {
	cfg := m.r.cfg
	cfg.FS = m.r.cfg.FS.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{})
	if err := m.r.Close(); err != nil {
		t.Fatal(err)
	}
	var err error
	if m.r, err = Open("store", cfg); err != nil {
		t.Fatal(err)
	}
}

func (m *twin) crash(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "not now") > 0 {
		t.Skip("crashes are slow")
	}
	m.restart(t)
	m.tx = nil
	m.check(t)
}

func (m *twin) check(t *rapid.T) {
	err := m.r.View(context.Background(), func(v *View) error {
		same(t, m.committed, v.Scan(nil, nil))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if m.r.locks.requests.root != nil {
		t.Fatal("there are locks, and no branch")
	}
}

func TestStoreIsLikeAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, err := Open("store", Config{FS: vfs.NewCrashableMem()})
		if err != nil {
			t.Fatal(err)
		}
		m := &twin{r: r, committed: map[string]string{}}
		defer func() { _ = m.r.Close() }()
		t.Repeat(map[string]func(*rapid.T){"step": m.step, "end": m.end, "crash": m.crash})
	})
}

// A call that is at work in the branch and does not return keeps a one-phase commit no longer than its
// context allows, and a little; what became of the branch is told later.
func TestOnePhaseBesideACallThatHangs(t *testing.T) {
	r := open(t, "store", Config{FS: vfs.NewMem()})
	tx := begin(t, r, "one")
	put(t, tx, "k", "v")
	tx.turn <- struct{}{} // the call
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got, err := tx.CommitOnePhase(ctx)
	if got != commit.Hazard || !errors.Is(err, context.Canceled) {
		t.Errorf("one phase: %v, %v; want hazard, and why", got, err)
	}
	<-tx.turn
	if got, err := tx.Rollback(t.Context()); got != commit.RolledBack || err != nil {
		t.Errorf("rollback: %v, %v", got, err)
	}
	if _, ok, err := r.Peek([]byte("k")); ok || err != nil {
		t.Errorf("the branch is rolled back, and its key is there: %v, %v", ok, err)
	}
}
