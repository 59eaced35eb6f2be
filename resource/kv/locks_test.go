package kv

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"assent/resource"
)

// lockModel drives a lock table with random requests and compares it with its definition.
type lockModel struct {
	table  *lockTable
	owners []*lockOwner
	waits  map[*lockOwner]*request
}

func (m *lockModel) lock(t *rapid.T) {
	o := rapid.SampledFrom(m.owners).Draw(t, "owner")
	if m.waits[o] != nil {
		t.Skip("it waits")
	}
	key := string(rune('a' + rapid.IntRange(0, 5).Draw(t, "key")))
	s, single := point(key), true
	kind := mode(rapid.IntRange(1, 2).Draw(t, "mode"))
	if rapid.IntRange(0, 3).Draw(t, "range") == 0 {
		s, single, kind = span{key, string(rune(key[0]) + rune(rapid.IntRange(0, 3).Draw(t, "length")))}, false, shared
		if rapid.Bool().Draw(t, "endless") {
			s.to = ""
		}
	}
	if wait, _ := m.table.lock(o, s, single, kind); wait != nil {
		m.waits[o] = wait
	}
}

func (m *lockModel) abandon(t *rapid.T) {
	o := rapid.SampledFrom(m.owners).Draw(t, "owner")
	if m.waits[o] == nil {
		t.Skip("it does not wait")
	}
	if !m.table.abandon(m.waits[o]) {
		t.Fatal("a waiting request could not be abandoned")
	}
	delete(m.waits, o)
}

func (m *lockModel) release(t *rapid.T) {
	i := rapid.IntRange(0, len(m.owners)-1).Draw(t, "owner")
	o := m.owners[i]
	if m.waits[o] != nil {
		t.Skip("it waits")
	}
	if rapid.Bool().Draw(t, "prepared") {
		m.table.release(o, func(r *request) bool { return r.single && r.mode == exclusive })
		return
	}
	m.table.release(o, nil)
	m.owners[i] = m.table.newOwner()
}

// answers takes the answers that have come, and reports whether there may be more.
func (m *lockModel) answers(t *rapid.T) (more bool) {
	for _, o := range m.owners {
		r := m.waits[o]
		if r == nil || len(r.done) == 0 {
			continue
		}
		delete(m.waits, o)
		if err := <-r.done; err != nil { // it gave way, and rolls back
			m.table.release(o, nil)
			more = true
		} else if !r.granted {
			t.Fatal("a request was answered and is not granted")
		}
	}
	return more
}

// check compares what the table keeps with what it ought to keep, by looking at every pair.
func (m *lockModel) check(t *rapid.T) {
	for m.answers(t) {
	}
	var all []*request
	for _, o := range m.owners {
		all = append(all, o.requests...)
		if o.waiting != m.waits[o] {
			t.Fatal("an owner waits for what it was not told to wait for")
		}
	}
	inTree := 0
	m.table.requests.overlapping(span{}, func(*request) { inTree++ })
	if inTree != len(all) {
		t.Fatalf("the tree holds %d requests; the owners have %d", inTree, len(all))
	}
	for i, a := range all {
		if a.granted != (len(a.blockers) == 0) {
			t.Fatalf("granted is %v with %d blockers", a.granted, len(a.blockers))
		}
		for _, b := range all[:i] {
			conflict := a.span.overlaps(b.span) && a.conflicts(b)
			ab, ba := count(a.blockers, b), count(b.blockers, a)
			if ab != count(b.waiters, a) || ba != count(a.waiters, b) {
				t.Fatal("the edges differ at their two ends")
			}
			if conflict && ab+ba != 1 || !conflict && ab+ba != 0 {
				t.Fatalf("conflict is %v; there are %d and %d edges", conflict, ab, ba)
			}
		}
	}
	for _, o := range m.owners {
		if _, circle := reach(o)[o]; circle {
			t.Fatal("an undetected deadlock")
		}
	}
}

func count(list []*request, r *request) (n int) {
	for _, q := range list {
		if q == r {
			n++
		}
	}
	return n
}

// reach returns all that o waits for, directly or not: waitersOf the other way round.
func reach(o *lockOwner) map[*lockOwner]bool {
	found := map[*lockOwner]bool{}
	for queue := []*lockOwner{o}; len(queue) > 0; queue = queue[1:] {
		if w := queue[0].waiting; w != nil {
			for _, b := range w.blockers {
				if !found[b.owner] {
					found[b.owner] = true
					queue = append(queue, b.owner)
				}
			}
		}
	}
	return found
}

func TestLockTableKeepsItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &lockModel{table: &lockTable{}, waits: map[*lockOwner]*request{}}
		for range 5 {
			m.owners = append(m.owners, m.table.newOwner())
		}
		t.Repeat(map[string]func(*rapid.T){"": m.check, "lock": m.lock, "abandon": m.abandon, "release": m.release})
	})
}

func TestSpanTreeFindsWhatOverlaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.StringMatching(`[abc\x00]{0,3}`)
		spans := rapid.Custom(func(t *rapid.T) span { return span{key.Draw(t, "from"), key.Draw(t, "to")} })
		var tree spanTree
		var all []*request
		for i, s := range rapid.SliceOfN(spans, 0, 40).Draw(t, "spans") {
			if s.to != "" && s.to <= s.from {
				continue
			}
			r := &request{span: s}
			r.number = uint64(i + 1)
			tree.insert(r)
			all = append(all, r)
		}
		for n := rapid.IntRange(0, len(all)).Draw(t, "removed"); n > 0; n-- {
			tree.remove(all[0])
			all = all[1:]
		}
		for _, s := range append(rapid.SliceOfN(spans, 1, 5).Draw(t, "asked"), span{}) {
			found := map[*request]bool{}
			tree.overlapping(s, func(r *request) { found[r] = true })
			n := 0
			for _, r := range all {
				if r.overlaps(s) {
					n++
					if !found[r] {
						t.Fatalf("%q overlaps %q and was not found", r.span, s)
					}
				}
			}
			if n != len(found) {
				t.Fatalf("%d found; %d overlap %q", len(found), n, s)
			}
		}
	})
}

// tables is a short notation for tests of single situations.
type tables struct {
	*testing.T
	table  lockTable
	owners map[string]*lockOwner
}

func (s *tables) lock(owner, key string, m mode) *request {
	if s.owners == nil {
		s.owners = map[string]*lockOwner{}
	}
	if s.owners[owner] == nil {
		s.owners[owner] = s.table.newOwner()
	}
	wait, _ := s.table.lock(s.owners[owner], point(key), true, m)
	return wait
}

func (s *tables) granted(r *request, want bool) {
	s.Helper()
	if (r == nil || r.granted) != want {
		s.Errorf("granted is %v; want %v", !want, want)
	}
}

func TestReadersDoNotOvertakeAWriter(t *testing.T) {
	s := tables{T: t}
	s.granted(s.lock("r1", "k", shared), true)
	w := s.lock("w", "k", exclusive)
	s.granted(w, false)
	r2 := s.lock("r2", "k", shared)
	s.granted(r2, false)
	s.table.release(s.owners["r1"], nil)
	s.granted(w, true)
	s.granted(r2, false)
	s.table.release(s.owners["w"], nil)
	s.granted(r2, true)
}

func TestUpgradeGoesBeforeThoseItBlocks(t *testing.T) {
	s := tables{T: t}
	s.granted(s.lock("a", "k", shared), true)
	w := s.lock("w", "k", exclusive)
	r := s.lock("r", "k", shared)
	s.granted(s.lock("a", "k", exclusive), true)
	if !s.table.abandon(w) {
		t.Fatal("w was not waiting")
	}
	s.granted(r, false)
	s.table.release(s.owners["a"], nil)
	s.granted(r, true)
}

func TestYoungestInTheCircleGivesWay(t *testing.T) {
	for name, order := range map[string][]string{
		"the one who closes it":  {"a", "b", "c"},
		"one who waited already": {"c", "a", "b"},
	} {
		t.Run(name, func(t *testing.T) {
			s := tables{T: t}
			for _, o := range []string{"a", "b", "c"} { // c is the youngest
				s.granted(s.lock(o, "of-"+o, exclusive), true)
			}
			next := map[string]string{"a": "b", "b": "c", "c": "a"}
			waits := map[string]*request{}
			for _, o := range order {
				waits[o] = s.lock(o, "of-"+next[o], exclusive)
				s.granted(waits[o], false)
			}
			select {
			case err := <-waits["c"].done:
				if !errors.Is(err, errDeadlock) {
					t.Fatalf("got %v; want errDeadlock", err)
				}
			default:
				t.Fatal("the youngest still waits")
			}
			s.table.release(s.owners["c"], nil)
			s.granted(waits["b"], true)
			s.table.release(s.owners["b"], nil)
			s.granted(waits["a"], true)
		})
	}
}

func TestTwoUpgradesAreADeadlock(t *testing.T) {
	r := open(t, t.TempDir(), Config{})
	a, b := begin(t, r, "a"), begin(t, r, "b")
	for _, tx := range []*Tx{a, b} {
		if _, _, err := tx.Get(t.Context(), []byte("k")); err != nil {
			t.Fatal(err)
		}
	}
	answered := make(chan error, 1)
	go func() { answered <- a.Put(t.Context(), []byte("k"), []byte("a")) }()
	err := b.Put(t.Context(), []byte("k"), []byte("b"))
	if resource.CodeOf(err) != resource.Deadlock || !resource.CodeOf(err).Retryable() {
		t.Fatalf("the younger got %v; want a deadlock", err)
	}
	if _, err := b.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Fatalf("the older got %v", err)
	}
}

func begin(t testing.TB, r *Resource, name string) *Tx {
	t.Helper()
	b, err := r.Begin(t.Context(), resource.ID{Owner: "owner", Transaction: name, Branch: "kv"})
	if err != nil {
		t.Fatal(err)
	}
	return b.(*Tx)
}

func BenchmarkLockTable(b *testing.B) {
	for _, keys := range []int{1, 16, 4096} {
		b.Run(fmt.Sprint("keys=", keys), func(b *testing.B) {
			var table lockTable
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					o := table.newOwner()
					if wait, _ := table.lock(o, point(fmt.Sprint(i*7919%keys)), true, exclusive); wait != nil {
						<-wait.done
					}
					table.release(o, nil)
				}
			})
		})
	}
}
