package resourcetest

import (
	"context"
	"strings"

	"assent/protocol/commit"
	"assent/resource"
)

func beginRefusesInvalidID(s *store) {
	long := strings.Repeat("x", resource.MaxTransaction+1)
	for _, id := range []resource.ID{
		{},
		{Owner: s.owner, Branch: "store"},
		{Owner: s.owner, Transaction: "a:b", Branch: "store"},
		{Owner: s.owner, Transaction: "a b'", Branch: "store"},
		{Owner: s.owner, Transaction: long, Branch: "store"},
	} {
		if _, err := s.r.Begin(s.ctx, id); resource.CodeOf(err) != resource.Invalid {
			s.Errorf("begin %q: got error %v; want one with the code %q", id, err, resource.Invalid)
		}
	}
}

func beginOutlivesItsContext(s *store) {
	id := s.id()
	ctx, cancel := context.WithCancel(s.ctx)
	b, err := s.r.Begin(ctx, id)
	if err != nil {
		s.Fatalf("begin: %v", err)
	}
	cancel()
	s.add(b, "a", 1)
	s.prepare(id, b)
	s.outcome("commit", commit.Committed)(b.Commit(s.ctx))
	s.reads("a", 1)
}

func branchSeesItsOwnWork(s *store) {
	s.committed("a", 5)
	_, b := s.begin()
	s.add(b, "a", 1)
	s.add(b, "a", 1)
	s.add(b, "new", 3)
	for key, want := range map[string]int64{"a": 7, "new": 3, "never": 0} {
		got, err := s.h.Get(s.ctx, b, key)
		if err != nil || got != want {
			s.Errorf("get %s in the branch: got %d, %v; want %d", key, got, err, want)
		}
	}
	s.outcome("rollback", commit.RolledBack)(b.Rollback(s.ctx))
}

func branchIsInvisibleBeforeCommit(s *store) {
	s.committed("a", 5)
	id, b := s.begin()
	s.add(b, "a", 1)
	s.hidden("a", 5)
	s.prepare(id, b)
	s.hidden("a", 5)
	s.outcome("commit", commit.Committed)(b.Commit(s.ctx))
	s.reads("a", 6)
}

func branchCommit(s *store) {
	id, b := s.begin()
	s.add(b, "a", 1)
	s.add(b, "b", 2)
	s.lists()
	s.prepare(id, b)
	s.lists(id)
	s.locked("a")
	s.outcome("commit", commit.Committed)(b.Commit(s.ctx))
	s.outcome("commit again", commit.Committed)(b.Commit(s.ctx))
	s.lists()
	s.reads("a", 1)
	s.reads("b", 2)
	s.free("a")
}

func branchRollbackPrepared(s *store) {
	s.committed("a", 5)
	id, b := s.begin()
	s.add(b, "a", 1)
	s.add(b, "new", 1)
	s.prepare(id, b)
	s.lists(id)
	s.outcome("rollback", commit.RolledBack)(b.Rollback(s.ctx))
	s.outcome("rollback again", commit.RolledBack)(b.Rollback(s.ctx))
	s.lists()
	s.reads("a", 5)
	s.reads("new", 0)
	s.free("a")
}

func branchRollbackActive(s *store) {
	s.committed("a", 5)
	_, b := s.begin()
	s.add(b, "a", 1)
	s.outcome("rollback", commit.RolledBack)(b.Rollback(s.ctx))
	s.outcome("rollback again", commit.RolledBack)(b.Rollback(s.ctx))
	s.refused(b.Prepare(s.ctx))
	s.lists()
	s.reads("a", 5)
	s.free("a")
	_, empty := s.begin()
	s.outcome("rollback of an empty branch", commit.RolledBack)(empty.Rollback(s.ctx))
}

// A resource may vote yes for a branch that changed nothing; it may not leave a branch behind
// that voted read-only.
func readOnlyLeavesNothing(s *store) {
	s.committed("a", 5)
	for _, reads := range []bool{true, false} {
		id, b := s.begin()
		if reads {
			if got, err := s.h.Get(s.ctx, b, "a"); err != nil || got != 5 {
				s.Fatalf("get a: got %d, %v; want 5", got, err)
			}
		}
		vote, err := b.Prepare(s.ctx)
		if err != nil {
			s.Fatalf("prepare: %v", err)
		}
		switch vote.Vote {
		case commit.ReadOnly:
			s.lists()
		case commit.Yes:
			s.lists(id)
			s.outcome("commit", commit.Committed)(b.Commit(s.ctx))
		default:
			s.Fatalf("prepare: the vote is %v; want read-only or yes", vote.Vote)
		}
		s.lists()
		s.free("a")
		s.reads("a", 5)
	}
}

func brokenVotesNo(s *store) {
	s.committed("a", 5)
	_, b := s.begin()
	s.add(b, "a", 1)
	s.h.Break(s.ctx, b)
	if err := s.h.Add(s.ctx, b, "a", 1); err == nil {
		s.Error("a broken branch took more work")
	}
	s.refused(b.Prepare(s.ctx))
	s.lists()
	s.outcome("rollback", commit.RolledBack)(b.Rollback(s.ctx))
	s.reads("a", 5)
	s.free("a")
}

func (s *store) onePhase(b resource.Branch) resource.OnePhase {
	s.Helper()
	one, ok := b.(resource.OnePhase)
	if !ok {
		s.Skip("the branch cannot commit in one phase")
	}
	return one
}

func onePhaseCommit(s *store) {
	_, b := s.begin()
	s.add(b, "a", 1)
	s.outcome("commit in one phase", commit.Committed)(s.onePhase(b).CommitOnePhase(s.ctx))
	s.lists()
	s.reads("a", 1)
	s.free("a")
	if s.h.Crash != nil {
		s.crash()
		s.reads("a", 1)
	}
	_, empty := s.begin()
	s.outcome("commit of an empty branch", commit.Committed)(s.onePhase(empty).CommitOnePhase(s.ctx))
}

func onePhaseBroken(s *store) {
	_, b := s.begin()
	s.add(b, "a", 1)
	s.h.Break(s.ctx, b)
	got, err := s.onePhase(b).CommitOnePhase(s.ctx)
	if got == commit.Committed || err == nil && got != commit.RolledBack {
		s.Fatalf("commit of a broken branch: got %v, %v; want rolled back or an error", got, err)
	}
	s.outcome("rollback", commit.RolledBack)(b.Rollback(s.ctx))
	s.reads("a", 0)
	s.free("a")
}
