package resourcetest

import (
	"context"

	"assent/protocol/commit"
	"assent/resource"
)

func recoverLists(s *store) {
	s.lists()
	one := resource.ID{Owner: s.owner, Transaction: "t", Branch: "one"}
	two := resource.ID{Owner: s.owner, Transaction: "t", Branch: "two"}
	three := resource.ID{Owner: s.owner, Transaction: "u", Branch: "one"}
	for i, id := range []resource.ID{one, two, three} {
		b := s.beginID(id)
		s.add(b, "k"+string(rune('a'+i)), 1)
		s.prepare(id, b)
	}
	s.begin() // an active branch is not listed
	s.lists(one, two, three)
	for id, p := range s.mine() {
		if p.Foreign != "" || p.Age < 0 || len(p.Evidence) > resource.MaxEvidence {
			s.Errorf("recover lists %s as %+v", id, p)
		}
	}
	mine := s.owner
	s.owner = mine + "x"
	other, b := s.begin()
	s.add(b, "other", 1)
	p := s.prepare(other, b)
	s.lists(other)
	s.outcome("commit", commit.Committed)(settle(s.ctx, p, s.r.Commit))
	s.lists()
	s.owner = mine
	s.lists(one, two, three)
	s.outcome("rollback", commit.RolledBack)(settle(s.ctx, s.mine()[two], s.r.Rollback))
	s.lists(one, three)
}

func recoverListsForeign(s *store) {
	id, b := s.begin()
	s.add(b, "a", 1)
	p := s.prepare(id, b)
	name := s.h.Foreign(s.T, s.r)
	list, err := s.r.Recover(s.ctx)
	if err != nil {
		s.Fatalf("recover: %v", err)
	}
	found := false
	for _, p := range list {
		if p.Foreign == "" {
			continue
		}
		if p.ID != (resource.ID{}) {
			s.Errorf("recover lists the foreign %q with the id %s", p.Foreign, p.ID)
		}
		found = found || p.Foreign == name
	}
	if !found {
		s.Errorf("recover does not list the foreign %q", name)
	}
	s.lists(id)
	s.outcome("commit", commit.Committed)(settle(s.ctx, p, s.r.Commit))
}

func crashKeepsPrepared(s *store) {
	s.committed("base", 1)
	c, _ := s.prepared("a", 1)
	r, _ := s.prepared("b", 1)
	l, _ := s.prepared("c", 1)
	s.crash()
	s.lists(c.ID, r.ID, l.ID)
	s.hidden("a", 0)
	s.outcome("commit", commit.Committed)(settle(s.ctx, c, s.r.Commit))
	s.outcome("rollback", commit.RolledBack)(settle(s.ctx, r, s.r.Rollback))
	s.crash()
	s.lists(l.ID)
	s.outcome("commit from the list", commit.Committed)(settle(s.ctx, s.mine()[l.ID], s.r.Commit))
	s.lists()
	s.reads("base", 1)
	s.reads("a", 1)
	s.reads("b", 0)
	s.reads("c", 1)
}

func crashKeepsLocks(s *store) {
	c, _ := s.prepared("a", 1)
	r, _ := s.prepared("b", 1)
	s.locked("a")
	s.crash()
	s.locked("a")
	s.locked("b")
	s.outcome("commit", commit.Committed)(settle(s.ctx, c, s.r.Commit))
	s.outcome("rollback", commit.RolledBack)(settle(s.ctx, r, s.r.Rollback))
	s.free("a")
	s.free("b")
	s.reads("a", 1)
	s.reads("b", 0)
}

func crashForgetsActive(s *store) {
	id, b := s.begin()
	s.add(b, "a", 1)
	s.crash()
	s.lists()
	s.reads("a", 0)
	s.free("a")
	s.outcome("rollback", commit.RolledBack)(settle(s.ctx, resource.Prepared{ID: id}, s.r.Rollback))
}

func crashKeepsOutcomes(s *store) {
	c := s.committed("a", 1)
	r, b := s.prepared("b", 1)
	s.outcome("rollback", commit.RolledBack)(b.Rollback(s.ctx))
	for range 2 {
		s.crash()
		s.outcome("commit again", commit.Committed)(settle(s.ctx, c, s.r.Commit))
		s.outcome("rollback of what was committed", commit.Committed)(settle(s.ctx, c, s.r.Rollback))
		s.outcome("rollback again", commit.RolledBack)(settle(s.ctx, r, s.r.Rollback))
		s.outcome("commit of what was rolled back", commit.RolledBack)(settle(s.ctx, r, s.r.Commit))
		s.lists()
		s.reads("a", 1)
		s.reads("b", 0)
	}
}

// A call whose context has ended may do its work or not. The same call, made again, finds out.
func endedContext(s *store) {
	ended, cancel := context.WithCancel(s.ctx)
	cancel()
	if b, err := s.r.Begin(ended, s.id()); err == nil {
		s.outcome("rollback", commit.RolledBack)(b.Rollback(s.ctx))
	}
	_, _ = s.r.Recover(ended)

	p, b := s.prepared("a", 1)
	_, _ = b.Commit(ended)
	_, _ = s.another().Commit(ended, p)
	s.outcome("commit", commit.Committed)(settle(s.ctx, p, s.r.Commit))
	s.reads("a", 1)

	p, b = s.prepared("b", 1)
	_, _ = b.Rollback(ended)
	_, _ = s.another().Rollback(ended, p)
	s.outcome("rollback", commit.RolledBack)(settle(s.ctx, p, s.r.Rollback))
	s.reads("b", 0)

	id, b := s.begin()
	s.add(b, "c", 1)
	_, _ = b.Prepare(ended) // an error stands for no
	s.outcome("rollback", commit.RolledBack)(settle(s.ctx, resource.Prepared{ID: id},
		func(ctx context.Context, _ resource.Prepared) (commit.Outcome, error) { return b.Rollback(ctx) }))
	s.reads("c", 0)
	s.lists()
	s.free("c")
}

func contextEndsDuringWait(s *store) {
	p, _ := s.prepared("a", 1)
	_, b := s.begin()
	s.add(b, "b", 1)
	ctx, cancel := context.WithTimeout(s.ctx, briefly)
	defer cancel()
	if err := s.h.Add(ctx, b, "a", 1); err == nil {
		s.Fatal("another branch changed what a prepared branch has changed")
	}
	s.refused(b.Prepare(s.ctx))
	s.outcome("rollback", commit.RolledBack)(b.Rollback(s.ctx))
	s.lists(p.ID)
	s.outcome("commit", commit.Committed)(settle(s.ctx, p, s.r.Commit))
	s.reads("a", 1)
	s.reads("b", 0)
	s.free("a")
	s.free("b")
}

func doctorIsWell(s *store) {
	d, ok := s.r.(resource.Doctor)
	if !ok {
		s.Skip("the resource has no doctor")
	}
	findings, err := d.Doctor(s.ctx)
	if err != nil {
		s.Fatalf("doctor: %v", err)
	}
	if len(findings) == 0 {
		s.Error("the doctor looked at nothing")
	}
	for _, f := range findings {
		switch {
		case f.Check == "" || f.Detail == "":
			s.Errorf("a finding lacks its check or its detail: %+v", f)
		case f.Severity == resource.Failure:
			s.Errorf("%s: %s", f.Check, f.Detail)
		case f.Severity != resource.OK && f.Severity != resource.Warning:
			s.Errorf("%s: the severity is invalid", f.Check)
		case f.Severity == resource.Warning && f.Hint == "":
			s.Errorf("%s: a warning without a hint", f.Check)
		}
	}
	s.lists()
}
