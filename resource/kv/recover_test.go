package kv

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"assent/protocol/commit"
	"assent/resource"
)

func expect(t *testing.T, what string, want commit.Outcome) func(commit.Outcome, error) {
	return func(got commit.Outcome, err error) {
		t.Helper()
		if err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", what, got, err, want)
		}
	}
}

// A store that was emptied, or restored from a copy older than the vote, says that it does not
// know, never that the branch was rolled back.
func TestLostStoreIsAHazard(t *testing.T) {
	fs := vfs.NewCrashableMem()
	r := open(t, "store", Config{FS: fs})
	older := fs.CrashClone(vfs.CrashCloneCfg{})
	tx := begin(t, r, "t")
	put(t, tx, "k", "v")
	voted := prepare(t, tx)
	for name, disk := range map[string]vfs.FS{"emptied": vfs.NewCrashableMem(), "restored from an older copy": older} {
		t.Run(name, func(t *testing.T) {
			lost := open(t, "store", Config{FS: disk})
			expect(t, "commit", commit.Hazard)(lost.Commit(t.Context(), voted))
			expect(t, "rollback", commit.Hazard)(lost.Rollback(t.Context(), voted))
			expect(t, "rollback again", commit.Hazard)(lost.Rollback(t.Context(), voted))
			_, err := lost.Begin(t.Context(), voted.ID)
			if resource.CodeOf(err) != resource.Broken {
				t.Errorf("begin after the rollback: got %v; want broken", err)
			}
		})
	}
}

// Whoever asks by its id how a branch ended is told the truth, also while somebody tries to begin it again.
func TestOutcomeBesideASecondBegin(t *testing.T) {
	r := open(t, "store", Config{FS: vfs.NewMem()})
	tx := begin(t, r, "t")
	put(t, tx, "k", "v")
	voted := prepare(t, tx)
	expect(t, "commit", commit.Committed)(tx.Commit(t.Context()))
	var group sync.WaitGroup
	defer group.Wait()
	stop := make(chan struct{})
	defer close(stop)
	group.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := r.Begin(t.Context(), voted.ID); resource.CodeOf(err) != resource.Duplicate {
				t.Errorf("begin: %v; want duplicate", err)
				return
			}
		}
	})
	for range 500 {
		expect(t, "rollback without evidence", commit.Committed)(r.Rollback(t.Context(), resource.Prepared{ID: voted.ID}))
		expect(t, "commit", commit.Committed)(r.Commit(t.Context(), voted))
		if t.Failed() {
			return
		}
	}
}

// The same id prepared anew, in a store restored from a copy that did not know it, is another
// vote: evidence of the first does not finish it.
func TestEvidenceIsOfOneVote(t *testing.T) {
	fs := vfs.NewCrashableMem()
	r := open(t, "store", Config{FS: fs})
	disk := fs.CrashClone(vfs.CrashCloneCfg{})
	tx := begin(t, r, "t")
	put(t, tx, "k", "v")
	first := prepare(t, tx)
	restored := open(t, "store", Config{FS: disk})
	tx = begin(t, restored, "t")
	put(t, tx, "k", "v")
	second := prepare(t, tx)
	expect(t, "commit by the first vote's evidence", commit.Hazard)(restored.Commit(t.Context(), first))
	expect(t, "rollback by the first vote's evidence", commit.Hazard)(restored.Rollback(t.Context(), first))
	for _, e := range [][]byte{{1}, make([]byte, evidenceSize), append(second.Evidence, 0)} {
		expect(t, "commit by nonsense", commit.Hazard)(restored.Commit(t.Context(), resource.Prepared{ID: second.ID, Evidence: e}))
	}
	expect(t, "commit", commit.Committed)(restored.Commit(t.Context(), second))
	expect(t, "commit by the first vote's evidence", commit.Hazard)(restored.Commit(t.Context(), first))
	expect(t, "commit without evidence", commit.Committed)(restored.Commit(t.Context(), resource.Prepared{ID: second.ID}))
}

func TestFinishedIDIsNotBegunAgain(t *testing.T) {
	r := open(t, t.TempDir(), Config{})
	id := func(name string) resource.ID { return resource.ID{Owner: "owner", Transaction: name, Branch: "kv"} }
	tx := begin(t, r, "committed")
	put(t, tx, "k", "v")
	finish(t, tx, commit.Committed)
	expect(t, "rollback", commit.RolledBack)(begin(t, r, "rolled-back").Rollback(t.Context()))
	expect(t, "rollback", commit.RolledBack)(r.Rollback(t.Context(), resource.Prepared{ID: id("unknown")}))
	for name, want := range map[string]resource.Code{
		"committed": resource.Duplicate, "rolled-back": resource.Broken, "unknown": resource.Broken,
	} {
		if _, err := r.Begin(t.Context(), id(name)); resource.CodeOf(err) != want {
			t.Errorf("begin %s: got %v; want %v", name, err, want)
		}
	}
	if n := len(r.branches); n != 0 {
		t.Errorf("%d branches are unfinished; want none", n)
	}
}

func TestReadOnlyBranchIsEitherWayOver(t *testing.T) {
	r := open(t, t.TempDir(), Config{})
	for name, finish := range map[string]func(*Tx) (commit.Outcome, error){
		"rolled back": func(tx *Tx) (commit.Outcome, error) { return tx.Rollback(t.Context()) },
		"committed":   func(tx *Tx) (commit.Outcome, error) { return tx.Commit(t.Context()) },
	} {
		tx := begin(t, r, "t")
		if vote, err := tx.Prepare(t.Context()); err != nil || vote.Vote != commit.ReadOnly {
			t.Fatalf("prepare: got %v, %v; want read-only", vote.Vote, err)
		}
		if got, err := finish(tx); err != nil || got.String() != name {
			t.Errorf("got %v, %v; want %s", got, err, name)
		}
	}
}

func TestOutcomesAreDroppedInTime(t *testing.T) {
	var now atomic.Int64
	clock := func() time.Time { return time.UnixMilli(now.Load()) }
	r := open(t, t.TempDir(), Config{KeepFor: time.Hour, KeepOutcomes: 10, Clock: clock})
	var voted []resource.Prepared
	run := func(n int) {
		for range n {
			tx := begin(t, r, fmt.Sprint("t", len(voted)))
			put(t, tx, "k", "v")
			voted = append(voted, prepare(t, tx))
			expect(t, "commit", commit.Committed)(tx.Commit(t.Context()))
		}
	}
	known := func(from int) {
		t.Helper()
		for i, p := range voted {
			want := commit.Committed
			if i < from {
				want = commit.Hazard
			}
			expect(t, p.ID.Transaction, want)(r.Commit(t.Context(), p))
		}
	}
	reopen := func() {
		t.Helper()
		dir, cfg := r.dir, r.cfg
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r = open(t, dir, cfg)
	}
	run(5)
	r.prune()
	known(0)
	run(10)
	r.prune()
	known(5) // ten are kept
	reopen()
	known(5)
	now.Add(time.Hour.Milliseconds() / 2)
	run(4)
	now.Add(time.Hour.Milliseconds()/2 + 1)
	r.prune()
	known(15) // the four young ones are kept
	reopen()
	run(1)
	known(15)
	if last, pruned := r.outcomes.last.Load(), r.outcomes.pruned.Load(); last != 20 || pruned != 15 {
		t.Errorf("the numbers are %d and %d; want 20 and 15", last, pruned)
	}
}

func TestRecoverTellsTheAge(t *testing.T) {
	var now atomic.Int64
	r := open(t, t.TempDir(), Config{Clock: func() time.Time { return time.UnixMilli(now.Load()) }})
	tx := begin(t, r, "t")
	put(t, tx, "k", "v")
	now.Store(1000)
	want := prepare(t, tx)
	want.Since, want.Age = time.UnixMilli(1000), 500*time.Millisecond
	now.Store(1500)
	got, err := r.Recover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]resource.Prepared{want}, got); d != "" {
		t.Error(d)
	}
	now.Store(0) // a clock that was set back
	if got, err = r.Recover(t.Context()); err != nil || got[0].Age != 0 {
		t.Errorf("got %v, %v; want the age 0", got, err)
	}
}

func TestEvidenceIsStable(t *testing.T) {
	store := [16]byte{1, 2, 3}
	const want = "01010203000000000000000000000000000000000000000007"
	if got := hex.EncodeToString(evidence(store, 7)); got != want {
		t.Errorf("got %s; want %s: stored evidence would not be understood any more", got, want)
	}
}

// What is on disk today must be understood tomorrow.
func TestRecordsAreStable(t *testing.T) {
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	for want, record := range map[string]any{
		"a301010250010000000000000000000000000000000303": meta{Format: 1, Store: [16]byte{1}, Pruned: 3},
		"a3010102020382834161417af4834162f6f5": preparedRecord{Ballot: 1, Since: 2,
			Writes: []writeRecord{{Key: []byte("a"), Value: []byte("z")}, {Key: []byte("b"), Delete: true}}},
		"a401f50201030204 03": outcomeRecord{Committed: true, Ballot: 1, At: 2, Number: 3},
	} {
		got, err := c.enc.Marshal(record)
		if err != nil || hex.EncodeToString(got) != strings.ReplaceAll(want, " ", "") {
			t.Errorf("%+v is written as %x, %v; want %s", record, got, err, want)
		}
	}
}

func FuzzRecords(f *testing.F) {
	c, err := newCodec()
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []any{
		meta{Format: format, Store: [16]byte{1}, Pruned: 3},
		preparedRecord{Ballot: 1, Since: 2, Writes: []writeRecord{{Key: []byte("a"), Value: []byte("v")}, {Key: []byte("b"), Delete: true}}},
		outcomeRecord{Committed: true, Ballot: 1, At: 2, Number: 3},
		outcomeRecord{Number: 1},
	} {
		data, err := c.enc.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, broken := range []string{
		"", "a0", "a3010102", // nothing, no field, cut short
		"a2010101022003",                   // a field twice
		"a30101020203bf6161ff", "bf0101ff", // indefinite lengths
		"a30101020203829b7fffffffffffffff",       // a length beyond all memory
		"a3010102020382834162f6f5834161417af4",   // writes out of order
		"a4010102020303040409", "a30103024103 1", // an unknown field, wrong types
		"c1a301010202", "a1039b0000000100000000", // a tag, four thousand million writes
	} {
		data, _ := hex.DecodeString(broken) // what cannot be decoded is cut there
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := c.decodeMeta(data); err == nil {
			again(t, c, m, c.decodeMeta)
		}
		if p, err := c.decodePrepared(data); err == nil {
			again(t, c, p, c.decodePrepared)
		}
		if o, err := c.decodeOutcome(data); err == nil {
			again(t, c, o, c.decodeOutcome)
		}
		if ballot, ok := ballotOf(data, [16]byte{}); ok && string(evidence([16]byte{}, ballot)) != string(data) {
			t.Errorf("evidence %x reads as ballot %d", data, ballot)
		}
	})
}

// An entry of the index that can be read is one that is written: nothing else is dropped for it.
func FuzzEntryOf(f *testing.F) {
	f.Add(indexKeyOf(7), entryValue(1_700_000_000_000, "assent:o:t:b"))
	f.Add(indexKeyOf(1<<64-1), entryValue(-1, "x"))
	f.Add(indexKeyOf(0), entryValue(0, ""))
	f.Add([]byte("d12345678"), entryValue(5, "x"))
	f.Add([]byte{indexKey}, []byte{0})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		number, at, id, err := entryOf(key, value)
		if err != nil {
			return
		}
		if !bytes.Equal(indexKeyOf(number), key) || !bytes.Equal(entryValue(at.UnixMilli(), id), value) || id == "" {
			t.Errorf("%x, %x is read as %d, %v, %q", key, value, number, at, id)
		}
	})
}

// again checks that what was read can be written and read again.
func again[T any](t *testing.T, c codec, record T, decode func([]byte) (T, error)) {
	data, err := c.enc.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(record, got, cmp.AllowUnexported(writeRecord{})); d != "" {
		t.Error(d)
	}
}
