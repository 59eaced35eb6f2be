package resourcetest

import (
	"strings"
	"sync"

	"assent/protocol/commit"
	"assent/resource"
)

func commitByID(s *store) {
	p, _ := s.prepared("a", 1)
	s.outcome("commit", commit.Committed)(settle(s.ctx, p, s.another().Commit))
	s.lists()
	s.reads("a", 1)
	s.free("a")
}

func rollbackByID(s *store) {
	s.committed("a", 5)
	p, _ := s.prepared("a", 1)
	s.outcome("rollback", commit.RolledBack)(settle(s.ctx, p, s.another().Rollback))
	s.lists()
	s.reads("a", 5)
	s.free("a")
}

// What the list says of a branch is enough to finish it.
func finishFromTheList(s *store) {
	c, _ := s.prepared("a", 1)
	r, _ := s.prepared("b", 1)
	s.r = s.another()
	list := s.mine()
	s.outcome("commit", commit.Committed)(settle(s.ctx, list[c.ID], s.r.Commit))
	s.outcome("rollback", commit.RolledBack)(settle(s.ctx, list[r.ID], s.r.Rollback))
	s.lists()
	s.reads("a", 1)
	s.reads("b", 0)
	if len(list[c.ID].Evidence) > 0 {
		s.outcome("commit again", commit.Committed)(s.r.Commit(s.ctx, list[c.ID]))
		s.outcome("commit of what was rolled back", commit.RolledBack)(s.r.Commit(s.ctx, list[r.ID]))
	}
}

func commitAgain(s *store) {
	p := s.committed("a", 1)
	for range 3 {
		s.outcome("commit again", commit.Committed)(s.another().Commit(s.ctx, p))
	}
	s.reads("a", 1)
}

// Without evidence the outcome may be unknown. It is never taken for a rollback.
func commitAgainWithoutEvidence(s *store) {
	p := s.committed("a", 1)
	got, err := s.r.Commit(s.ctx, resource.Prepared{ID: p.ID})
	if err != nil || got != commit.Committed && got != commit.Hazard {
		s.Fatalf("commit again: got %v, %v; want committed or hazard", got, err)
	}
	s.reads("a", 1)
}

func rollbackAfterCommit(s *store) {
	p := s.committed("a", 1)
	s.outcome("rollback of what was committed", commit.Committed)(s.another().Rollback(s.ctx, p))
	s.reads("a", 1)
}

func commitAfterRollback(s *store) {
	p, b := s.prepared("a", 1)
	s.outcome("rollback", commit.RolledBack)(settle(s.ctx, p, s.r.Rollback))
	s.outcome("commit of what was rolled back", commit.RolledBack)(s.another().Commit(s.ctx, p))
	s.outcome("commit by its own branch", commit.RolledBack)(b.Commit(s.ctx))
	s.reads("a", 0)
}

func commitUnknown(s *store) {
	p := resource.Prepared{ID: s.id()}
	got, err := s.r.Commit(s.ctx, p)
	if err != nil || got != commit.Hazard && got != commit.RolledBack {
		s.Fatalf("commit of an unknown branch: got %v, %v; want hazard or rolled back", got, err)
	}
	s.lists()
}

func commitNeverPrepared(s *store) {
	id, b := s.begin()
	s.add(b, "a", 1)
	if got, err := s.another().Commit(s.ctx, resource.Prepared{ID: id}); err == nil && got == commit.Committed {
		s.Fatal("commit of a branch that was never prepared: the outcome is committed")
	}
	s.outcome("rollback", commit.RolledBack)(b.Rollback(s.ctx))
	s.lists()
	s.reads("a", 0)
	s.free("a")
}

func rollbackUnknown(s *store) {
	p := resource.Prepared{ID: s.id()}
	for range 2 {
		s.outcome("rollback of an unknown branch", commit.RolledBack)(settle(s.ctx, p, s.another().Rollback))
	}
	s.lists()
}

// A PREPARE that arrives after the abort of its transaction must never prepare.
func rollbackThenLatePrepare(s *store) {
	id, b := s.begin()
	s.add(b, "a", 1)
	p := resource.Prepared{ID: id}
	s.outcome("rollback", commit.RolledBack)(settle(s.ctx, p, s.another().Rollback))
	s.refused(b.Prepare(s.ctx))
	s.lists()
	s.outcome("rollback by its own branch", commit.RolledBack)(b.Rollback(s.ctx))
	s.reads("a", 0)
	s.free("a")
}

func rollbackRacesPrepare(s *store) {
	for range 20 {
		id, b := s.begin()
		s.add(b, "a", 1)
		other := s.another()
		var race sync.WaitGroup
		race.Go(func() { _, _ = b.Prepare(s.ctx) }) // either vote is right
		race.Go(func() {
			got, err := settle(s.ctx, resource.Prepared{ID: id}, other.Rollback)
			if err != nil || got != commit.RolledBack {
				s.Errorf("rollback: got %v, %v; want rolled back", got, err)
			}
		})
		race.Wait()
		s.lists()
		s.outcome("rollback by its own branch", commit.RolledBack)(b.Rollback(s.ctx))
		s.reads("a", 0)
	}
	s.free("a")
}

// The first branch of an id survives whatever the second does.
func duplicateID(s *store) {
	id, first := s.begin()
	s.add(first, "a", 1)
	p := s.prepare(id, first)
	second, err := s.another().Begin(s.ctx, id)
	if err == nil {
		if err = s.h.Add(s.ctx, second, "b", 1); err == nil {
			var vote resource.Vote
			if vote, err = second.Prepare(s.ctx); err == nil {
				s.Fatalf("prepare of a duplicate: the vote is %v; want an error", vote.Vote)
			}
		}
		s.outcome("rollback of the duplicate", commit.RolledBack)(second.Rollback(s.ctx))
	}
	if resource.CodeOf(err) != resource.Duplicate {
		s.Errorf("a second branch of one id: got error %v; want one with the code %q", err, resource.Duplicate)
	}
	s.lists(id)
	s.outcome("commit of the first", commit.Committed)(settle(s.ctx, p, s.r.Commit))
	s.reads("a", 1)
	s.reads("b", 0)
}

func greatestIDs(s *store) {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	fill := func(start string, n int) string { return (start + letters + letters)[:n] }
	ids := []resource.ID{
		{Owner: fill(s.owner, resource.MaxOwner), Transaction: letters[:resource.MaxTransaction], Branch: letters[1:]},
		{Owner: fill(s.owner, resource.MaxOwner), Transaction: letters[1:], Branch: letters[:resource.MaxBranch]},
		{Owner: fill(s.owner, resource.MaxOwner), Transaction: "-", Branch: "."},
		{Owner: fill(s.owner, resource.MaxOwner), Transaction: "..", Branch: "_"},
		{Owner: fill(s.owner, resource.MaxOwner), Transaction: strings.Repeat("-", resource.MaxTransaction), Branch: "0"},
	}
	s.owner = ids[0].Owner
	for i, id := range ids {
		b := s.beginID(id)
		s.add(b, "k"+string(rune('a'+i)), 1)
		s.prepare(id, b)
	}
	s.lists(ids...)
	list := s.mine()
	for i, id := range ids {
		s.outcome("commit", commit.Committed)(settle(s.ctx, list[id], s.r.Commit))
		s.reads("k"+string(rune('a'+i)), 1)
		s.lists(ids[i+1:]...)
	}
}

func prefixIDs(s *store) {
	ids := []resource.ID{
		{Owner: s.owner, Transaction: "t", Branch: "s"},
		{Owner: s.owner, Transaction: "t", Branch: "s1"},
		{Owner: s.owner, Transaction: "t1", Branch: "s"},
		{Owner: s.owner, Transaction: "t-", Branch: "s"},
		{Owner: s.owner, Transaction: "t.s", Branch: "s"},
	}
	list := make([]resource.Prepared, len(ids))
	for i, id := range ids {
		b := s.beginID(id)
		s.add(b, "k"+string(rune('a'+i)), 1)
		list[i] = s.prepare(id, b)
	}
	for i, p := range list {
		call, want, value := s.r.Commit, commit.Committed, int64(1)
		if i%2 == 1 {
			call, want, value = s.r.Rollback, commit.RolledBack, 0
		}
		s.outcome("finish", want)(settle(s.ctx, p, call))
		s.lists(ids[i+1:]...)
		s.reads("k"+string(rune('a'+i)), value)
	}
}
