package resourcetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"assent/protocol/commit"
	"assent/resource"
)

// Several recoverers may find the same branch. They do no harm, and all hear the same.
func recoverersAgree(s *store) {
	for i := range 5 {
		p, _ := s.prepared("a", 1)
		var race sync.WaitGroup
		for range 4 {
			r := s.another()
			race.Go(func() {
				got, err := settle(s.ctx, p, r.Commit)
				if err != nil || got != commit.Committed {
					s.Errorf("commit: got %v, %v; want committed", got, err)
				}
			})
		}
		race.Wait()
		s.lists()
		s.reads("a", int64(i+1))
	}
	s.free("a")
}

// Where one commits and another rolls back, both hear what really happened.
func commitRacesRollback(s *store) {
	var value int64
	for range 10 {
		p, _ := s.prepared("a", 1)
		var race sync.WaitGroup
		var heard [4]commit.Outcome
		for i := range heard {
			r := s.another()
			call := r.Commit
			if i%2 == 1 {
				call = r.Rollback
			}
			race.Go(func() {
				var err error
				if heard[i], err = settle(s.ctx, p, call); err != nil {
					s.Error(err)
				}
			})
		}
		race.Wait()
		for _, o := range heard {
			if o != heard[0] || o != commit.Committed && o != commit.RolledBack {
				s.Fatalf("the callers heard %v; want all committed or all rolled back", heard)
			}
		}
		if heard[0] == commit.Committed {
			value++
		}
		s.lists()
		s.reads("a", value)
	}
	s.free("a")
}

func manyBranches(s *store) {
	const n = 24
	ids := make([]resource.ID, n)
	for i := range ids {
		ids[i] = s.id()
	}
	var list [n]resource.Prepared
	var work sync.WaitGroup
	for i, id := range ids {
		work.Go(func() {
			b, err := s.r.Begin(s.ctx, id)
			if err != nil {
				s.Error(err)
				return
			}
			if err := s.h.Add(s.ctx, b, fmt.Sprint("k-", i), 1); err != nil {
				s.Error(err)
				return
			}
			if list[i], err = prepare(s.ctx, id, b); err != nil {
				s.Error(err)
			}
		})
	}
	work.Wait()
	s.lists(ids...)
	if s.h.Crash != nil {
		s.crash()
		s.lists(ids...)
	}
	for i, p := range list {
		call, want := s.r.Commit, commit.Committed
		if i%3 == 0 {
			call, want = s.r.Rollback, commit.RolledBack
		}
		work.Go(func() {
			if got, err := settle(s.ctx, p, call); err != nil || got != want {
				s.Errorf("%s: got %v, %v; want %v", p.ID, got, err, want)
			}
		})
	}
	work.Wait()
	s.lists()
	for i := range n {
		want := int64(1)
		if i%3 == 0 {
			want = 0
		}
		s.reads(fmt.Sprint("k-", i), want)
	}
}

// attempt runs work in a branch of its own until it commits, or rolls it back on purpose where
// keep is false. It begins anew after errors that say so, and after a no vote.
func (s *store) attempt(id func() resource.ID, keep bool, work func(context.Context, resource.Branch) error) error {
	for {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		again, err := s.once(id(), keep, work)
		if err != nil || !again {
			return err
		}
	}
}

func (s *store) once(id resource.ID, keep bool, work func(context.Context, resource.Branch) error) (again bool, err error) {
	b, err := s.r.Begin(s.ctx, id)
	if err != nil {
		return false, err
	}
	vote := resource.Vote{Vote: commit.No}
	err = work(s.ctx, b)
	if err == nil {
		vote, err = b.Prepare(s.ctx)
	}
	if err != nil && !resource.CodeOf(err).Retryable() {
		return false, err
	}
	switch {
	case err == nil && vote.Vote == commit.ReadOnly:
		return false, nil
	case err == nil && vote.Vote == commit.Yes && keep:
		got, err := settle(s.ctx, resource.Prepared{ID: id},
			func(ctx context.Context, _ resource.Prepared) (commit.Outcome, error) { return b.Commit(ctx) })
		if err == nil && got != commit.Committed {
			err = fmt.Errorf("commit %s: the outcome is %v", id, got)
		}
		return false, err
	}
	got, rollback := settle(s.ctx, resource.Prepared{ID: id},
		func(ctx context.Context, _ resource.Prepared) (commit.Outcome, error) { return b.Rollback(ctx) })
	if rollback == nil && got != commit.RolledBack {
		rollback = fmt.Errorf("rollback %s: the outcome is %v", id, got)
	}
	return keep, rollback
}

// ids returns a function that makes ids, for concurrent use.
func (s *store) ids() func() resource.ID {
	var n atomic.Int64
	return func() resource.ID {
		return resource.ID{Owner: s.owner, Transaction: fmt.Sprint("c", n.Add(1)), Branch: "store"}
	}
}

const (
	accounts = 6
	initial  = 100
)

func account(i int) string { return fmt.Sprint("account-", i) }

// transfers moves money between accounts from several goroutines; some moves roll back.
func (s *store) transfers(work *sync.WaitGroup, id func() resource.ID) {
	for w := range 6 {
		random := rand.New(rand.NewPCG(7, uint64(w)))
		work.Go(func() {
			for i := range 12 {
				from, to, amount := random.IntN(accounts), random.IntN(accounts), random.Int64N(20)
				err := s.attempt(id, i%4 != 3, func(ctx context.Context, b resource.Branch) error {
					if err := s.h.Add(ctx, b, account(from), -amount); err != nil {
						return err
					}
					return s.h.Add(ctx, b, account(to), amount)
				})
				if err != nil {
					s.Errorf("transfer: %v", err)
					return
				}
			}
		})
	}
}

func (s *store) fund() {
	id, b := s.begin()
	for i := range accounts {
		s.add(b, account(i), initial)
	}
	s.prepare(id, b)
	s.outcome("commit", commit.Committed)(b.Commit(s.ctx))
}

func (s *store) balance() {
	s.Helper()
	var sum int64
	for i := range accounts {
		v, err := s.h.Read(s.ctx, s.r, account(i))
		if err != nil {
			s.Fatalf("read: %v", err)
		}
		sum += v
	}
	if sum != accounts*initial {
		s.Fatalf("the accounts hold %d in all; want %d", sum, accounts*initial)
	}
}

func bank(s *store) {
	s.fund()
	var work sync.WaitGroup
	s.transfers(&work, s.ids())
	work.Wait()
	s.lists()
	s.balance()
}

// Auditors that read every account in one branch always find the same sum.
func audit(s *store) {
	s.fund()
	id := s.ids()
	var work sync.WaitGroup
	s.transfers(&work, id)
	for range 2 {
		work.Go(func() {
			for range 6 {
				var sum int64
				err := s.attempt(id, true, func(ctx context.Context, b resource.Branch) error {
					sum = 0
					for i := range accounts {
						v, err := s.h.Get(ctx, b, account(i))
						if err != nil {
							return err
						}
						sum += v
					}
					return nil
				})
				if err != nil || sum != accounts*initial {
					s.Errorf("audit: the accounts hold %d in all, %v; want %d", sum, err, accounts*initial)
					return
				}
			}
		})
	}
	work.Wait()
	s.balance()
}

// Of two doctors on call, each goes off duty only if the other is on. One must stay.
func writeSkew(s *store) {
	for range 10 {
		id := s.ids()
		s.owner += "w" // fresh ids for each round
		var work sync.WaitGroup
		set := func(a, b string) func(context.Context, resource.Branch) error {
			return func(ctx context.Context, branch resource.Branch) error {
				on, err := s.h.Get(ctx, branch, b)
				if err != nil || on != 0 {
					return err
				}
				return s.h.Add(ctx, branch, a, 1)
			}
		}
		work.Go(func() {
			if err := s.attempt(id, true, set("off-a", "off-b")); err != nil {
				s.Error(err)
			}
		})
		work.Go(func() {
			if err := s.attempt(id, true, set("off-b", "off-a")); err != nil {
				s.Error(err)
			}
		})
		work.Wait()
		a, errA := s.h.Read(s.ctx, s.r, "off-a")
		b, errB := s.h.Read(s.ctx, s.r, "off-b")
		if errA != nil || errB != nil || a+b != 1 {
			s.Fatalf("off duty: %d and %d (%v, %v); want exactly one", a, b, errA, errB)
		}
		s.committed("off-a", -a)
		s.committed("off-b", -b)
	}
}
