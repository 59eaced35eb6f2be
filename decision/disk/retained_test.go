package disk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"assent/decision"
	"assent/protocol/commit"
)

// deed is one record as the ledger of a test remembers it.
type deed struct {
	id    commit.TransactionID
	entry *decision.Entry // of a decision
	note  *decision.Note  // of a note; neither is a forgetting
}

// do returns what d makes of the entry was; nil stands for none.
func (d deed) do(was *decision.Entry) *decision.Entry {
	switch {
	case d.entry != nil:
		return d.entry
	case d.note != nil && was != nil:
		now := clone(*was)
		now.Notes = append(now.Notes, *d.note)
		return now
	}
	return nil
}

// ledger is everything that was asked of a log since it was opened.
type ledger struct {
	base    map[commit.TransactionID]*decision.Entry // what it held then
	deeds   []deed
	stable  int   // so many deeds were forced
	settles []int // after how many deeds generations were frozen that were then written, and entries with them retired
}

func (g *ledger) clone() *ledger {
	return &ledger{base: g.base, deeds: slices.Clone(g.deeds), stable: g.stable, settles: slices.Clone(g.settles)}
}

// after returns what there is of id after the first n deeds, if nothing was retired, and after how many it was
// decided.
func (g *ledger) after(id commit.TransactionID, n int) (e *decision.Entry, decided int) {
	e = g.base[id]
	for i, d := range g.deeds[:n] {
		if d.id == id {
			if e = d.do(e); d.entry != nil {
				decided = i + 1
			}
		}
	}
	return e, decided
}

// retired reports whether id may have been retired when n deeds are what is left of the log.
func (g *ledger) retired(id commit.TransactionID, n int) bool {
	_, decided := g.after(id, n)
	for _, at := range g.settles {
		if at < decided || at > n {
			continue
		}
		if e, _ := g.after(id, at); e != nil && e.Status() == decision.Done {
			return true
		}
	}
	return false
}

// fits reports why found cannot be what a log tells that was opened again with the first n deeds, or nil.
func (g *ledger) fits(found map[commit.TransactionID]*decision.Entry, ids []commit.TransactionID, n, retain int) error {
	kept, least := 0, 0
	for _, id := range ids {
		want, _ := g.after(id, n)
		got := found[id]
		done := want != nil && want.Status() == decision.Done
		if done && !g.retired(id, n) {
			least++
		}
		switch {
		case got == nil && want != nil && !done && !g.retired(id, n):
			return fmt.Errorf("%q is lost; want %s", id, show(want))
		case got == nil:
		case want == nil || !reflect.DeepEqual(got, want):
			return fmt.Errorf("%q is %s; want %s", id, show(got), show(want))
		case done:
			kept++
		}
	}
	if kept < min(least, retain) {
		return fmt.Errorf("%d are done; want %d of %d", kept, min(least, retain), least)
	}
	return nil
}

// show describes e without its long reason.
func show(e *decision.Entry) string {
	if e == nil {
		return "nothing"
	}
	return fmt.Sprintf("%v by %s with %v", e.Decision, e.By, e.Notes)
}

// life is a log that is used at random until its machine crashes.
type life struct {
	*testing.T
	s      *store
	rng    *rand.Rand
	ids    []commit.TransactionID
	retain int

	mu     sync.Mutex // the index changes its files in the background
	ledger ledger
	mem    *vfs.MemFS
	crash  *rand.Rand
	fuse   int // so many changes of the disk before the crash
	left   *vfs.MemFS
	known  *ledger // what had been asked by then
	frozen int     // how much had been asked when what is on its way into the index was frozen; -1 if nothing is
	done   int     // how many entries were done then
}

// MaybeError lets the machine crash before the change op of its disk.
func (l *life) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fuse--; l.fuse == 0 {
		l.end()
	}
	return nil
}

func (l *life) String() string { return "life" }

// end takes what a crash leaves. The caller holds mu.
func (l *life) end() {
	l.known = l.ledger.clone()
	percent := []int{0, 0, 50, 90, 100}[l.crash.IntN(5)]
	l.left = l.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: l.crash})
}

// found is everything that the log tells.
func (l *life) found() map[commit.TransactionID]*decision.Entry {
	l.Helper()
	all := map[commit.TransactionID]*decision.Entry{}
	for _, id := range l.ids {
		e, err := l.s.find(id)
		if err != nil {
			l.Fatal(err)
		}
		if e != nil {
			all[id] = e
		}
	}
	listed := 0
	for c := (&cursor{}); !c.over; {
		page, err := l.s.page(c)
		if err != nil {
			l.Fatal(err)
		}
		for _, e := range page {
			if listed++; all[e.ID] == nil || !reflect.DeepEqual(*all[e.ID], e) {
				l.Fatalf("%q: listed %s, found %s", e.ID, show(&e), show(all[e.ID]))
			}
		}
	}
	if listed != len(all) {
		l.Fatalf("%d are listed, %d found", listed, len(all))
	}
	return all
}

// serve asks for deeds, as one request.
func (l *life) serve(forced bool, deeds ...deed) error {
	l.Helper()
	if l.s.seg.size-l.s.seg.off < 8192 { // the segment may end, and then writers wait
		l.settle()
	}
	changes := make([]change, len(deeds))
	for i, d := range deeds {
		c := change{record: record{kind: forgetRecord, id: d.id}, entry: d.entry, note: d.note}
		var err error
		switch {
		case d.entry != nil:
			c.kind = decideRecord
			c.body, err = d.entry.Encode()
		case d.note != nil:
			c.kind = noteRecord
			c.body, err = d.note.Encode()
		}
		if err != nil {
			l.Fatal(err)
		}
		changes[i] = c
	}
	r := newRequest(forced, changes...)
	if was, err := l.s.find(deeds[0].id); err != nil || deeds[0].entry == nil || was == nil {
		l.mu.Lock()
		l.ledger.deeds = append(l.ledger.deeds, deeds...)
		l.mu.Unlock()
	}
	if err := l.s.serve([]*request{r}); err != nil {
		l.Fatal(err)
	}
	<-r.done
	if forced && r.stands == nil {
		l.forced()
	}
	l.noteFrozen()
	return r.err
}

// noteFrozen remembers when the generation that is on its way into the index was frozen.
func (l *life) noteFrozen() {
	if len(l.s.jobs) == 0 || l.frozen >= 0 {
		return
	}
	l.frozen, l.done = len(l.ledger.deeds), 0
	for _, e := range l.found() {
		if e.Status() == decision.Done {
			l.done++
		}
	}
}

// forced notes that everything is stable.
func (l *life) forced() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ledger.stable = len(l.ledger.deeds)
}

// freeze leaves what is recent to the index.
func (l *life) freeze(flush bool) {
	l.Helper()
	if len(l.s.free) == 0 {
		return
	}
	if err := l.s.freeze(false, flush); err != nil {
		l.Fatal(err)
	}
	l.noteFrozen()
}

// settle does what the indexing goroutine would, and sees to it that only the oldest of what is done goes.
func (l *life) settle() {
	l.Helper()
	if len(l.s.jobs) == 0 {
		return
	}
	l.mu.Lock()
	l.ledger.settles = append(l.ledger.settles, l.frozen)
	l.mu.Unlock()
	l.frozen = -1
	before := l.found()
	if err := l.s.index(l.T, <-l.s.jobs); err != nil {
		l.Fatal(err)
	}
	after := l.found()
	for id, e := range before {
		switch {
		case after[id] == nil && e.Status() != decision.Done:
			l.Fatalf("%q is lost: %s", id, show(e))
		case after[id] != nil && !reflect.DeepEqual(after[id], e):
			l.Fatalf("%q, %s, is %s now", id, show(e), show(after[id]))
		}
	}
	if n := len(before) - len(after); n > 0 && l.done-n < l.retain {
		l.Fatalf("of %d that were done %d were retired; want %d to stay", l.done, n, l.retain)
	}
}

// step does something at random.
func (l *life) step(n int) {
	l.Helper()
	id := l.ids[l.rng.IntN(len(l.ids))]
	switch op := l.rng.IntN(100); {
	case op < 35:
		e := decision.Entry{
			ID: id, Decision: commit.Commit + commit.Decision(l.rng.IntN(2)), By: fmt.Sprintf("test %d", n),
			Branches: []decision.Branch{{Resource: "r", Evidence: []byte{1}}}, Reason: strings.Repeat("r", l.rng.IntN(decision.MaxReason)),
			Time: time.Unix(1, 0).UTC(),
		}
		if err := l.serve(true, deed{id: id, entry: &e}); err != nil {
			l.Fatal(err)
		}
	case op < 70:
		k := []decision.Kind{decision.Finished, decision.Finished, decision.Finished, decision.Heuristic, decision.Resolved}[l.rng.IntN(5)]
		note := &decision.Note{Kind: k, Time: time.Unix(2, 0).UTC(), By: fmt.Sprintf("test %d", n)}
		if k != decision.Finished {
			note.Branch = "r"
		}
		deeds := []deed{{id: id, note: note}}
		for range l.rng.IntN(4) {
			deeds = append(deeds, deed{id: l.ids[l.rng.IntN(len(l.ids))], note: note})
		}
		if err := l.serve(l.rng.IntN(10) == 0, deeds...); err != nil && !errors.Is(err, decision.ErrNotFound) {
			l.Fatal(err)
		}
	case op < 75:
		if err := l.serve(false, deed{id: id}); err != nil && !errors.Is(err, decision.ErrNotFound) {
			l.Fatal(err)
		}
	case op < 84:
		l.freeze(l.rng.IntN(3) == 0)
	case op < 93:
		l.settle()
	case op < 96:
		if err := l.s.rest(); err != nil {
			l.Fatal(err)
		}
		l.forced()
	default: // the index may be ahead of what is forced
		flushed, err := l.s.idx.flush()
		if err != nil {
			l.Fatal(err)
		}
		<-flushed
	}
}

// live opens the log and uses it until its machine crashes. It checks what the crash before has left.
func (l *life) live(steps int) {
	l.Helper()
	before := l.known
	l.left, l.known, l.fuse, l.frozen = nil, nil, 1+l.rng.IntN(3*steps), -1
	l.ledger = *before.clone() // for a crash while it is opened
	l.s = quietStore(l.T, errorfs.Wrap(l.mem, l), l.retain)
	found := l.found()
	if err := before.fitsSome(found, l.ids, l.retain); err != nil {
		l.Fatal(err)
	}
	l.mu.Lock()
	l.ledger = ledger{base: found}
	over := l.left != nil // it crashed while it was opened
	l.mu.Unlock()
	for n := 0; n < steps && !over; n++ {
		l.step(n)
		l.mu.Lock()
		over = l.left != nil
		l.mu.Unlock()
	}
	l.mu.Lock()
	if !over {
		l.end()
	}
	l.fuse = 0
	l.mu.Unlock()
	l.s.leave(l.T)
	l.mem = l.left
}

// fitsSome reports why found cannot be what is left of a log with any number of deeds that were not forced, or nil.
func (g *ledger) fitsSome(found map[commit.TransactionID]*decision.Entry, ids []commit.TransactionID, retain int) (err error) {
	for n := len(g.deeds); n >= g.stable; n-- {
		why := g.fits(found, ids, n, retain)
		if why == nil {
			return nil
		}
		err = errors.Join(err, fmt.Errorf("with %d deeds, %d of %d forced: %w", n, g.stable, len(g.deeds), why))
	}
	return err
}

// Entries are finished by notes that nobody forces and retired at once, and the machine crashes before any change of its
// disk, also while the log is opened. What is left is a beginning of what was asked, with all that was forced: nothing is
// lost that is not done, and what is retired, forgotten or decided anew never becomes anything else.
func TestRetiredWithoutForce(t *testing.T) {
	seeds := uint64(5)
	if os.Getenv("ASSENT_SOAK") != "" {
		seeds = 2000
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			l := &life{T: t, rng: rand.New(rand.NewPCG(seed, 21)), crash: rand.New(rand.NewPCG(seed, 22)),
				retain: 1 + int(seed%8), mem: vfs.NewCrashableMem(), known: &ledger{}}
			for i := range 30 {
				l.ids = append(l.ids, commit.TransactionID(fmt.Sprintf("%x", uint32(i)*2654435761)))
			}
			for range 6 {
				l.live(150)
			}
		})
	}
}
