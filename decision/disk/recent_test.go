package disk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/decision"
	"assent/protocol/commit"
)

// quietStore opens a store whose goroutines do not run: the test is the writing and the indexing
// goroutine, so that it chooses when what is recent is written to the index.
func quietStore(t *testing.T, fs vfs.FS, retain int) *store {
	t.Helper()
	l := &Log{dir: "log", cfg: Config{FS: fs, SegmentBytes: smallSegment, RetainCount: retain, Logger: quiet()}}
	if err := l.cfg.validate(); err != nil {
		t.Fatal(err)
	}
	l.fs = l.cfg.FS
	if err := makeDir(fs, l.dir); err != nil {
		t.Fatal(err)
	}
	if err := l.identify(); err != nil {
		t.Fatal(err)
	}
	s, err := openStore(l)
	if err != nil {
		t.Fatal(err)
	}
	s.prepareSpare()
	return s
}

// leave ends a quiet store.
func (s *store) leave(t *testing.T) {
	t.Helper()
	if err := s.finishUp(); err != nil {
		t.Fatal(err)
	}
	s.stopped.Done()
	if err := s.close(patience); err != nil {
		t.Fatal(err)
	}
}

// ask serves changes as one request, and returns what they come to.
func (s *store) ask(t *testing.T, changes ...change) (*request, error) {
	t.Helper()
	if s.seg.size-s.seg.off < 4096 && len(s.jobs) > 0 { // the segment may end, and then writers wait
		if err := s.index(t, <-s.jobs); err != nil {
			t.Fatal(err)
		}
	}
	r := newRequest(true, changes...)
	if err := s.serve([]*request{r}); err != nil {
		t.Fatal(err)
	}
	<-r.done
	return r, r.err
}

// index is what the indexing goroutine does with j.
func (s *store) index(t *testing.T, j job) error {
	t.Helper()
	err := s.settle(j)
	s.free <- struct{}{}
	return err
}

func (s *store) decide(t *testing.T, id commit.TransactionID, d commit.Decision) (decision.Entry, error) {
	t.Helper()
	e := decision.Entry{ID: id, Decision: d, By: "test", Time: time.Unix(1, 0).UTC(), Branches: []decision.Branch{{Resource: "r", Evidence: []byte{1}}}}
	body, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.ask(t, change{record: record{decideRecord, id, body}, entry: clone(e)})
	if r.stands != nil {
		return *r.stands, err
	}
	return e, err
}

func (s *store) note(t *testing.T, k decision.Kind, ids ...commit.TransactionID) error {
	t.Helper()
	n := decision.Note{Kind: k, Time: time.Unix(2, 0).UTC()}
	if k != decision.Finished {
		n.Branch = "r"
	}
	body, err := n.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var changes []change
	for _, id := range ids {
		changes = append(changes, change{record: record{noteRecord, id, body}, note: &n})
	}
	_, err = s.ask(t, changes...)
	return err
}

func (s *store) forget(t *testing.T, id commit.TransactionID) error {
	t.Helper()
	_, err := s.ask(t, change{record: record{kind: forgetRecord, id: id}})
	return err
}

// entryKeys are the ids of the entries that the index holds.
func (s *store) entryKeys(t *testing.T) (ids []string) {
	t.Helper()
	it, err := s.idx.db.NewIter(&pebble.IterOptions{LowerBound: []byte{entryPrefix}, UpperBound: []byte{entryPrefix + 1}})
	if err != nil {
		t.Fatal(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		ids = append(ids, string(it.Key()[1:]))
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return ids
}

// What is decided and finished within a short time is written to the index once, and what is decided and
// forgotten never is.
func TestWhatComesAndGoesIsNotIndexed(t *testing.T) {
	s := quietStore(t, vfs.NewMem(), 0)
	defer s.leave(t)
	const most = 100
	for i := range most {
		id := commit.TransactionID(fmt.Sprintf("tx-%03d", i))
		if _, err := s.decide(t, id, commit.Commit); err != nil {
			t.Fatal(err)
		}
		if err := s.note(t, decision.Finished, id); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			if err := s.forget(t, id); err != nil {
				t.Fatal(err)
			}
		}
		if got := s.entryKeys(t); len(got) != 0 {
			t.Fatalf("the index holds %q already", got)
		}
	}
	if n := len(s.recent.active.items); n != 1 {
		t.Errorf("%d entries are recent; want 1", n)
	}
	g := s.recent.freeze()
	if _, err := s.decide(t, "tx-000", commit.Abort); err != nil {
		t.Fatal(err)
	}
	batch := s.idx.db.NewBatch()
	defer batch.Close()
	if err := g.fill(batch); err != nil {
		t.Fatal(err)
	}
	if n := batch.Count(); n != 3 {
		t.Errorf("%d keys are written for an entry that was decided and finished; want 3", n)
	}
	if err := s.settle(job{generation: g}); err != nil {
		t.Fatal(err)
	}
	if got := s.entryKeys(t); !slices.Equal(got, []string{"tx-000"}) {
		t.Errorf("the index holds %q; want one entry", got)
	}
}

// twin is a log that is a map.
type twin struct {
	entries map[commit.TransactionID]decision.Entry
	order   []commit.TransactionID
}

func (w *twin) decide(id commit.TransactionID, d commit.Decision, e decision.Entry) {
	if _, ok := w.entries[id]; !ok {
		e.Decision = d
		w.entries[id] = e
		w.order = append(w.order, id)
	}
}

func (w *twin) note(id commit.TransactionID, k decision.Kind) (known bool) {
	e, known := w.entries[id]
	n := decision.Note{Kind: k, Time: time.Unix(2, 0).UTC()}
	if k != decision.Finished {
		n.Branch = "r"
	}
	if e.Notes = append(e.Notes[:len(e.Notes):len(e.Notes)], n); known {
		w.entries[id] = e
	}
	return known
}

func (w *twin) forget(id commit.TransactionID) (known bool) {
	_, known = w.entries[id]
	delete(w.entries, id)
	w.order = slices.DeleteFunc(w.order, func(o commit.TransactionID) bool { return o == id })
	return known
}

// same compares everything that s tells with w.
func (w *twin) same(t *testing.T, s *store, ids []commit.TransactionID, what string) {
	t.Helper()
	for _, id := range ids {
		got, err := s.find(id)
		want, known := w.entries[id]
		if err != nil || (got != nil) != known || known && !reflect.DeepEqual(*got, want) {
			t.Fatalf("%s: %q: got %+v, %v; want %+v", what, id, got, err, want)
		}
	}
	for status := range decision.Done + 1 {
		var got, want []commit.TransactionID
		for c := (&cursor{status: status}); !c.over; {
			page, err := s.page(c)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page {
				got = append(got, e.ID)
			}
		}
		for _, id := range w.order {
			if e := w.entries[id]; status == 0 || e.Status() == status {
				want = append(want, id)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%s: listed as %v: got %q; want %q", what, status, got, want)
		}
	}
}

// Wherever an entry is, in memory, on its way into the index, in the index or in several of them, a log tells what
// a map would; also after a crash, and when the index is written at any moment.
func TestRecentAndIndexAreOne(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 11))
			fs := vfs.NewCrashableMem()
			s := quietStore(t, fs, 0)
			w := &twin{entries: map[commit.TransactionID]decision.Entry{}}
			var ids []commit.TransactionID
			for i := range 100 {
				ids = append(ids, commit.TransactionID(fmt.Sprintf("%x", uint32(i)*2654435761)))
			}
			for step := range 700 {
				id := ids[rng.IntN(len(ids))]
				switch op := rng.IntN(200); {
				case op < 80:
					d := commit.Commit + commit.Decision(rng.IntN(2))
					e, err := s.decide(t, id, d)
					if err != nil {
						t.Fatal(err)
					}
					if w.decide(id, d, e); e.Decision != w.entries[id].Decision {
						t.Fatalf("step %d: %q: told %v; want %v", step, id, e.Decision, w.entries[id].Decision)
					}
				case op < 120:
					k := []decision.Kind{decision.Finished, decision.Finished, decision.Heuristic, decision.Resolved}[rng.IntN(4)]
					other := ids[rng.IntN(len(ids))]
					err := s.note(t, k, id, other)
					if all := []bool{w.note(id, k), w.note(other, k)}; errors.Is(err, decision.ErrNotFound) != (!all[0] || !all[1]) {
						t.Fatalf("step %d: note: %v; known: %v", step, err, all)
					}
				case op < 180:
					if err := s.forget(t, id); errors.Is(err, decision.ErrNotFound) == w.forget(id) {
						t.Fatalf("step %d: forget: %v", step, err)
					}
				case op < 195:
					if err := s.freeze(false, op < 183); err != nil {
						t.Fatal(err)
					}
					w.same(t, s, ids, fmt.Sprintf("step %d, frozen", step))
				default:
					if len(s.jobs) > 0 {
						if err := s.index(t, <-s.jobs); err != nil {
							t.Fatal(err)
						}
						w.same(t, s, ids, fmt.Sprintf("step %d, indexed", step))
					}
				}
				if step%300 == 299 {
					left := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
					s.leave(t)
					fs = left
					s = quietStore(t, fs, 0)
					w.same(t, s, ids, fmt.Sprintf("step %d, after a crash", step))
				}
			}
			s.leave(t)
		})
	}
}

// What is retired is gone at once wherever it is looked for, and an entry that somebody changes meanwhile stays.
func TestRetiredOrChanged(t *testing.T) {
	const retain = 10
	s := quietStore(t, vfs.NewMem(), retain)
	var ids []commit.TransactionID
	for i := range 3 * retain {
		id := commit.TransactionID(fmt.Sprintf("tx-%03d", i))
		ids = append(ids, id)
		if _, err := s.decide(t, id, commit.Commit); err != nil {
			t.Fatal(err)
		}
		if err := s.note(t, decision.Finished, id); err != nil {
			t.Fatal(err)
		}
	}
	left := func() (n int) {
		for _, id := range ids {
			e, err := s.find(id)
			if err != nil {
				t.Fatal(err)
			}
			if e != nil {
				n++
			}
		}
		return n
	}
	settle := func() {
		t.Helper()
		if err := s.settle(job{generation: s.recent.freeze(), at: s.log.now()}); err != nil {
			t.Fatal(err)
		}
	}
	settle()
	if n := left(); n != 3*retain {
		t.Fatalf("%d are left; want %d", n, 3*retain)
	}
	// The fifth is changed when the others before it are retired, and then it is not done.
	g := s.recent.freeze()
	if err := s.note(t, decision.Heuristic, ids[4]); err != nil {
		t.Fatal(err)
	}
	if err := s.settle(job{generation: g, at: s.log.now()}); err != nil {
		t.Fatal(err)
	}
	if n := left(); n != 3*retain-4 {
		t.Errorf("%d are left; want %d", n, 3*retain-4)
	}
	settle()
	settle()
	if n := left(); n != retain+1 {
		t.Errorf("%d are left; want %d", n, retain+1)
	}
	if e, err := s.find(ids[4]); err != nil || e == nil || e.Status() != decision.Damaged {
		t.Errorf("what was changed is %+v, %v", e, err)
	}
	if len(s.recent.census.counts) != retain+1 || s.idx.done != retain {
		t.Errorf("%d entries are counted, %d of them done", len(s.recent.census.counts), s.idx.done)
	}
	// Who was retired may be decided anew.
	if e, err := s.decide(t, ids[0], commit.Abort); err != nil || e.Decision != commit.Abort {
		t.Errorf("decided anew: %v, %v", e.Decision, err)
	}
	s.leave(t)
}
