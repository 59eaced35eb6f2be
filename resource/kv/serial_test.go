package kv

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"assent/protocol/commit"
	"assent/resource"
)

// history is what committed branches have read and written. Each branch writes its own number,
// after it has read the number that was there, so the order of the versions of a key is known.
type history struct {
	mu       sync.Mutex
	branches map[int]*branchHistory
}

type branchHistory struct {
	began, ended int64          // places in real time
	read         map[string]int // the writer of the version that was seen; 0 for none
	wrote        map[string]int // the writer of the version that was replaced
}

// edges returns who must come before whom in any equivalent serial order, real time included.
func (h *history) edges(t *testing.T) map[int][]int {
	next := map[string]map[int]int{} // key, version: the version that replaced it
	for n, b := range h.branches {
		for key, old := range b.wrote {
			if next[key] == nil {
				next[key] = map[int]int{}
			}
			if other, ok := next[key][old]; ok {
				t.Fatalf("lost update: %d and %d both replaced version %d of %s", other, n, old, key)
			}
			next[key][old] = n
		}
	}
	after := map[int][]int{}
	add := func(a, b int) {
		if a != 0 && a != b {
			after[a] = append(after[a], b)
		}
	}
	for n, b := range h.branches {
		for _, old := range b.wrote {
			add(old, n)
		}
		for key, seen := range b.read {
			if seen != 0 && h.branches[seen] == nil {
				t.Fatalf("dirty read: %d saw version %d of %s, which was not committed", n, seen, key)
			}
			add(seen, n)
			if replaced, ok := next[key][seen]; ok {
				add(n, replaced)
			}
		}
		for m, c := range h.branches {
			if b.ended < c.began {
				add(n, m)
			}
		}
	}
	return after
}

// circle returns branches that would each have to come before the next, or nil.
func circle(after map[int][]int) []int {
	const entered, left = 1, 2
	mark := map[int]int{}
	var path []int
	var walk func(int) []int
	walk = func(n int) []int {
		switch mark[n] {
		case left:
			return nil
		case entered:
			return path[slices.Index(path, n):]
		}
		mark[n] = entered
		path = append(path, n)
		for _, m := range after[n] {
			if c := walk(m); c != nil {
				return c
			}
		}
		path = path[:len(path)-1]
		mark[n] = left
		return nil
	}
	for n := range after {
		if c := walk(n); c != nil {
			return c
		}
	}
	return nil
}

// A circle in a known anomaly is found: the test below can fail.
func TestCircleIsFound(t *testing.T) {
	skew := history{branches: map[int]*branchHistory{
		1: {began: 1, ended: 3, read: map[string]int{"b": 0}, wrote: map[string]int{"a": 0}},
		2: {began: 2, ended: 4, read: map[string]int{"a": 0}, wrote: map[string]int{"b": 0}},
	}}
	if circle(skew.edges(t)) == nil {
		t.Error("write skew was not found")
	}
}

const serialKeys = 8

// work does random reads, scans and writes in tx.
func (b *branchHistory) work(ctx context.Context, tx *Tx, n int, random *rand.Rand) error {
	for range 1 + random.IntN(5) {
		key := fmt.Sprint("k", random.IntN(serialKeys))
		switch random.IntN(5) {
		case 0, 1:
			value, _, err := tx.Get(ctx, []byte(key))
			if err != nil {
				return err
			}
			b.saw(key, int(number(value)), n)
		case 2:
			last := fmt.Sprint("k", random.IntN(serialKeys+2))
			seen := map[string]int{}
			for p, err := range tx.Scan(ctx, []byte(min(key, last)), []byte(max(key, last))) {
				if err != nil {
					return err
				}
				seen[string(p.Key)] = int(number(p.Value))
			}
			for i := range serialKeys {
				if k := fmt.Sprint("k", i); min(key, last) <= k && k < max(key, last) {
					b.saw(k, seen[k], n)
				}
			}
		default:
			value, _, err := tx.Get(ctx, []byte(key)) // and upgrade: it makes deadlocks
			if err == nil && int(number(value)) != n {
				err = tx.Put(ctx, []byte(key), binary.BigEndian.AppendUint64(nil, uint64(n)))
				b.wrote[key] = int(number(value))
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *branchHistory) saw(key string, version, self int) {
	if version != self {
		b.read[key] = version
	}
}

func TestHistoriesAreSerializable(t *testing.T) {
	r := open(t, t.TempDir(), Config{})
	h := history{branches: map[int]*branchHistory{}}
	var clock, numbers, deadlocks atomic.Int64
	var workers sync.WaitGroup
	for w := range 8 {
		random := rand.New(rand.NewPCG(11, uint64(w)))
		workers.Go(func() {
			for range 60 {
				n := int(numbers.Add(1))
				b := &branchHistory{began: clock.Add(1), read: map[string]int{}, wrote: map[string]int{}}
				tx := begin(t, r, fmt.Sprint("n", n))
				err := b.work(t.Context(), tx, n, random)
				outcome := commit.RolledBack
				switch {
				case err != nil:
					if !resource.CodeOf(err).Retryable() {
						t.Error(err)
					}
					deadlocks.Add(1)
					_, err = tx.Rollback(t.Context())
				case random.IntN(5) == 0:
					_, err = tx.Rollback(t.Context())
				case random.IntN(2) == 0:
					outcome, err = tx.CommitOnePhase(t.Context())
				default:
					outcome, err = twoPhases(t.Context(), tx)
				}
				if err != nil {
					t.Error(err)
					return
				}
				b.ended = clock.Add(1)
				if outcome == commit.Committed {
					h.mu.Lock()
					h.branches[n] = b
					h.mu.Unlock()
				}
			}
		})
	}
	workers.Wait()
	if c := circle(h.edges(t)); c != nil {
		var text strings.Builder
		for _, n := range c {
			fmt.Fprintf(&text, "\n%d: %+v", n, *h.branches[n])
		}
		t.Fatalf("no serial order:%s", text.String())
	}
	if len(h.branches) == 0 || deadlocks.Load() == 0 {
		t.Errorf("%d branches committed and %d gave way; the test means something with both", len(h.branches), deadlocks.Load())
	}
	if r.locks.requests.root != nil {
		t.Error("there are locks, and no branch")
	}
}

func twoPhases(ctx context.Context, tx *Tx) (commit.Outcome, error) {
	vote, err := tx.Prepare(ctx)
	if err != nil || vote.Vote == commit.ReadOnly {
		return commit.Committed, err
	}
	return tx.Commit(ctx)
}

// One write in a branch, at two concurrencies; the floor is the same forced write with nothing
// around it.
func BenchmarkCommit(b *testing.B) {
	for _, workers := range []int{1, 64} {
		for _, c := range []struct {
			name     string
			transact func(*Resource, string, int) error
		}{{"floor", floor}, {"one-phase", onePhase}, {"two-phase", twoPhase}} {
			b.Run(fmt.Sprintf("%s/workers=%d", c.name, workers), func(b *testing.B) {
				r := open(b, b.TempDir(), Config{})
				var n atomic.Int64
				var all sync.WaitGroup
				took := make([]time.Duration, b.N)
				b.ResetTimer()
				for range workers {
					all.Go(func() {
						for i := int(n.Add(1)); i <= b.N; i = int(n.Add(1)) {
							began := time.Now()
							if err := c.transact(r, fmt.Sprint("b", i), i); err != nil {
								b.Error(err)
								return
							}
							took[i-1] = time.Since(began)
						}
					})
				}
				all.Wait()
				b.StopTimer()
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			})
		}
	}
}

func floor(r *Resource, id string, i int) error {
	b := r.engine.db.NewBatch()
	if err := b.Set(keyOf(dataKey, fmt.Sprint("k", i%100_000)), []byte(id), nil); err != nil {
		return err
	}
	return r.engine.apply(b, true)
}

func work1(r *Resource, id string, i int) (*Tx, error) {
	ctx := context.Background()
	branch, err := r.Begin(ctx, resource.ID{Owner: "o", Transaction: id, Branch: "kv"})
	if err != nil {
		return nil, err
	}
	tx := branch.(*Tx)
	return tx, tx.Put(ctx, []byte(fmt.Sprint("k", i%100_000)), []byte(id))
}

func onePhase(r *Resource, id string, i int) error {
	tx, err := work1(r, id, i)
	if err == nil {
		_, err = tx.CommitOnePhase(context.Background())
	}
	return err
}

func twoPhase(r *Resource, id string, i int) error {
	tx, err := work1(r, id, i)
	if err == nil {
		_, err = twoPhases(context.Background(), tx)
	}
	return err
}
