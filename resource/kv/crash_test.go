package kv

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/protocol/commit"
	"assent/resource"
)

// promises is what the store has said so far. A crash must not take any of it back.
type promises struct {
	mu       sync.Mutex
	begun    []string
	voted    map[string]resource.Prepared
	outcomes map[string]commit.Outcome
}

func (p *promises) keep(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// snapshot returns a copy of what has been said.
func (p *promises) snapshot() *promises {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &promises{begun: append([]string{}, p.begun...),
		voted: map[string]resource.Prepared{}, outcomes: map[string]commit.Outcome{}}
	for k, v := range p.voted {
		c.voted[k] = v
	}
	for k, v := range p.outcomes {
		c.outcomes[k] = v
	}
	return c
}

// run makes branches, each of two keys of its own, until ctx ends.
func (p *promises) run(ctx context.Context, t *testing.T, r *Resource, worker int) {
	random := rand.New(rand.NewPCG(5, uint64(worker)))
	for i := 0; ctx.Err() == nil; i++ {
		name := fmt.Sprintf("w%d-%d", worker, i)
		p.keep(func() { p.begun = append(p.begun, name) })
		tx := begin(t, r, name)
		put(t, tx, "x-"+name, name)
		put(t, tx, "y-"+name, name)
		way := random.IntN(8)
		var outcome commit.Outcome
		var err error
		switch {
		case way == 0:
			outcome, err = tx.CommitOnePhase(t.Context())
		case way == 1:
			outcome, err = tx.Rollback(t.Context())
		default:
			voted := prepare(t, tx)
			p.keep(func() { p.voted[name] = voted })
			switch {
			case way == 2:
				continue // it stays in doubt
			case way < 5:
				outcome, err = tx.Rollback(t.Context())
			default:
				outcome, err = tx.Commit(t.Context())
			}
		}
		if err != nil {
			t.Error(err)
			return
		}
		p.keep(func() { p.outcomes[name] = outcome })
	}
}

// hold checks that the store, opened after a crash, keeps what was said before.
func (p *promises) hold(t *testing.T, r *Resource) {
	list, err := r.Recover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	inDoubt := map[string]bool{}
	for _, q := range list {
		inDoubt[q.ID.Transaction] = true
	}
	for _, name := range p.begun {
		id := resource.ID{Owner: "owner", Transaction: name, Branch: "kv"}
		voted, yes := p.voted[name]
		outcome := p.outcomes[name]
		if inDoubt[name] {
			if outcome != commit.Unfinished && (yes || outcome == commit.Committed) {
				t.Errorf("%s was %v and is in doubt", name, outcome)
			}
			if _, _, err := r.Peek([]byte("x-" + name)); resource.CodeOf(err) != resource.Unavailable {
				t.Errorf("%s is in doubt, and its key is free: %v", name, err)
			}
		}
		if yes && outcome == commit.Unfinished {
			// It is in doubt, or the worker went on after the promises were copied.
			got, err := r.Commit(t.Context(), voted)
			if err != nil || got != commit.Committed && (got != commit.RolledBack || inDoubt[name]) {
				t.Errorf("%s voted yes; its commit is answered %v, %v", name, got, err)
			}
			outcome = got
		} else if inDoubt[name] {
			if got, err := r.Rollback(t.Context(), resource.Prepared{ID: id}); err != nil || got != commit.RolledBack {
				t.Errorf("%s: rollback: got %v, %v", name, got, err)
			}
			outcome = commit.RolledBack
		}
		if yes {
			if got, err := r.Commit(t.Context(), voted); err != nil || got != outcome {
				t.Errorf("%s was %v; its commit is answered %v, %v", name, outcome, got, err)
			}
		}
		p.values(t, r, name, outcome)
	}
}

func (p *promises) values(t *testing.T, r *Resource, name string, outcome commit.Outcome) {
	x, okX, err1 := r.Peek([]byte("x-" + name))
	y, okY, err2 := r.Peek([]byte("y-" + name))
	switch {
	case err1 != nil || err2 != nil || okX != okY || string(x) != string(y):
		t.Errorf("%s is torn: %q %v %v and %q %v %v", name, x, okX, err1, y, okY, err2)
	case outcome == commit.Committed && string(x) != name:
		t.Errorf("%s was committed and holds %q, %v", name, x, okX)
	case outcome == commit.RolledBack && okX:
		t.Errorf("%s was rolled back and holds %q", name, x)
	}
}

func TestCrashAtAnyMoment(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for i := range 16 {
		fs := vfs.NewCrashableMem()
		r := open(t, "store", Config{FS: fs})
		p := &promises{voted: map[string]resource.Prepared{}, outcomes: map[string]commit.Outcome{}}
		ctx, stop := context.WithCancel(t.Context())
		var workers sync.WaitGroup
		for w := range 4 {
			workers.Go(func() { p.run(ctx, t, r, w) })
		}
		for enough := 20 + random.IntN(60); len(p.snapshot().begun) < enough && !t.Failed(); {
			runtime.Gosched()
		}
		said := p.snapshot() // and only then comes the crash
		disk := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100, 10}[i%4], RNG: random})
		stop()
		workers.Wait()
		said.hold(t, open(t, "store", Config{FS: disk}))
	}
}
