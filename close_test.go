package assent_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"assent"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/kv"
)

// TestCloseAmidWork closes the manager at random moments while transactions begin, fail to join,
// commit and roll back: nothing hangs, no report is untrue, and nothing is left behind.
func TestCloseAmidWork(t *testing.T) {
	h := newHouse(t, nil)
	for round := range 15 {
		told := make([]error, 16)
		var group sync.WaitGroup
		for i := range told {
			group.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), rand.N(20*time.Millisecond))
				defer cancel()
				told[i] = h.m.Run(ctx, func(ctx context.Context, tx *assent.Tx) error {
					for _, name := range storeNames {
						if err := put(ctx, tx, h.stores[name], fmt.Sprint(i%4, "-", i), fmt.Sprint(round)); err != nil {
							return err
						}
					}
					return nil
				}, assent.Timeout(rand.N(20*time.Millisecond)+time.Millisecond))
			})
		}
		time.Sleep(rand.N(12 * time.Millisecond)) // a random moment: nothing depends on which
		ctx, cancel := context.WithTimeout(context.Background(), rand.N(5*time.Millisecond))
		var closes sync.WaitGroup
		for range 2 {
			closes.Go(func() {
				if err := h.m.Close(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		closes.Wait()
		group.Wait()
		cancel()
		h.manage()
		h.settled()
		for i, err := range told {
			key := fmt.Sprint(i%4, "-", i)
			a, b, c := h.get("a", key), h.get("b", key), h.get("c", key)
			if a != b || b != c {
				t.Fatalf("round %d, %s: the stores hold %q, %q, %q", round, key, a, b, c)
			}
			if (a == fmt.Sprint(round)) != (err == nil) && !errors.Is(err, assent.ErrInDoubt) {
				t.Fatalf("round %d, %s: the stores hold %q, and Run said %v", round, key, a, err)
			}
		}
	}
}

// gone is a resource that is away for good: its branches prepare, and then nothing is heard of them.
type gone struct{ resource.Resource }

type goneBranch struct{ resource.Branch }

func (g *gone) Begin(ctx context.Context, id resource.ID) (resource.Branch, error) {
	b, err := g.Resource.Begin(ctx, id)
	return goneBranch{b}, err
}

func (g *gone) Commit(context.Context, resource.Prepared) (commit.Outcome, error) {
	return 0, errors.New("no route to host")
}

func (g *gone) Recover(context.Context) ([]resource.Prepared, error) {
	return nil, errors.New("no route to host")
}

func (goneBranch) Commit(context.Context) (commit.Outcome, error) {
	return 0, errors.New("no route to host")
}

// TestHeuristicBesideABranchThatIsGone: a heuristic outcome is on record while another branch cannot
// be finished, and each can be resolved by itself.
func TestHeuristicBesideABranchThatIsGone(t *testing.T) {
	meddler := &observer{}
	var away *gone
	h := newHouse(t, func(c *assent.Config) {
		c.Observer, c.FinishWait = meddler, 200*time.Millisecond
		away = &gone{c.Resources["b"]}
		c.Resources["b"] = away
	})
	meddler.at("coordinator: emit Propose(commit)", func(id string) {
		outcome, err := h.stores["a"].Rollback(context.Background(), resource.Prepared{
			ID: resource.ID{Owner: h.log.Owner(), Transaction: id, Branch: "a"}})
		if err != nil || outcome != commit.RolledBack {
			t.Errorf("the meddler: %v, %v", outcome, err)
		}
	})
	ctx := context.Background()
	var id string
	err := h.m.Run(ctx, func(ctx context.Context, tx *assent.Tx) error {
		id = tx.ID()
		b, err := tx.Join(ctx, away)
		if err != nil {
			return err
		}
		if err := b.(goneBranch).Branch.(*kv.Tx).Put(ctx, []byte("k"), []byte("v")); err != nil {
			return err
		}
		return put(ctx, tx, h.stores["a"], "k", "v")
	})
	if err == nil || errors.Is(err, assent.ErrAborted) {
		t.Fatalf("got %v", err)
	}
	if _, err := h.m.Resolve(ctx, assent.Resolution{ID: id, Branch: "b", Outcome: commit.Committed, By: "ann", Reason: "scrapped"}); err != nil {
		t.Fatal(err)
	}
	if err := h.m.Quiesce(ctx); err != nil {
		t.Fatal(err)
	}
	info, err := h.m.Resolve(ctx, assent.Resolution{ID: id, By: "ann", Reason: "written by hand", Outcome: commit.Committed})
	if err != nil || info.State != assent.StateCommitted {
		t.Fatalf("%+v, %v", info, err)
	}
}
