package decisiontest

import (
	"errors"
	"time"

	"assent/decision"
	"assent/protocol/commit"
	"assent/resource"
)

func statuses(s *suite) {
	for _, id := range []string{"a", "b", "c", "d"} {
		s.decide(entry(id, commit.Commit))
	}
	all := []string{"a", "b", "c", "d"}
	s.lists(all, nil, nil, all)

	finished := decision.Note{Kind: decision.Finished, Time: time.Unix(5, 7).UTC()}
	s.annotate("c", finished)
	s.annotate("a", finished)
	s.lists([]string{"b", "d"}, nil, []string{"a", "c"}, all)

	hazard := decision.Note{Kind: decision.Heuristic, Branch: "orders", Outcome: commit.Hazard,
		Time: time.Unix(8, 0).UTC(), By: "adapter", Reason: "the id is unknown and nobody knows why", Forced: true}
	s.annotate("b", hazard)
	s.annotate("c", hazard)
	s.lists([]string{"d"}, []string{"b", "c"}, []string{"a"}, all)

	// Damaged takes precedence, and each branch is resolved on its own.
	other := hazard
	other.Branch, other.Outcome = "stock", commit.RolledBack
	s.annotate("b", other)
	s.annotate("b", finished)
	resolved := decision.Note{Kind: decision.Resolved, Branch: "orders", By: "alice", Reason: "repaired by hand"}
	s.annotate("b", resolved)
	s.lists([]string{"d"}, []string{"b", "c"}, []string{"a"}, all)
	resolved.Branch = "stock"
	s.annotate("b", resolved)
	s.lists([]string{"d"}, []string{"c"}, []string{"a", "b"}, all)

	// And again: a status may come back.
	s.annotate("b", other)
	s.annotate("b", resolved)
	s.annotate("d", hazard)
	resolved.Branch = "orders"
	s.annotate("d", resolved)
	s.lists([]string{"d"}, []string{"c"}, []string{"a", "b"}, all)

	want := entry("c", commit.Commit)
	hazard.Forced = false
	want.Notes = []decision.Note{finished, hazard}
	s.same("the entry with its notes", want, s.lookup("c"))
	s.same("what the second is told", want, s.decide(entry("c", commit.Abort)))
}

func annotateWithoutEntry(s *suite) {
	for _, forced := range []bool{false, true} {
		n := decision.Note{Kind: decision.Finished, Forced: forced}
		if err := s.log.Annotate(s.ctx, "tx", n); !errors.Is(err, decision.ErrNotFound) {
			s.Errorf("annotate: got %v; want %v", err, decision.ErrNotFound)
		}
	}
	s.decide(entry("tx", commit.Commit))
	s.same("decided afterwards", entry("tx", commit.Commit), s.lookup("tx"))
}

func notesEnd(s *suite) {
	e := entry("tx", commit.Commit)
	for i := range decision.MaxNotes {
		n := decision.Note{Kind: decision.Heuristic, Branch: "orders", Outcome: commit.Hazard}
		if i%2 == 1 {
			n = decision.Note{Kind: decision.Resolved, Branch: "orders", Reason: name("n", i)}
		}
		e.Notes = append(e.Notes, n)
	}
	want := e
	e.Notes = e.Notes[:decision.MaxNotes-3]
	s.same("decided", e, s.decide(e))
	s.lists(nil, []string{"tx"}, nil, []string{"tx"})
	for _, n := range want.Notes[len(e.Notes):] {
		s.annotate("tx", n)
	}
	err := s.log.Annotate(s.ctx, "tx", decision.Note{Kind: decision.Finished})
	if resource.CodeOf(err) != resource.Invalid {
		s.Errorf("note %d: got %v; want an error with the code %q", decision.MaxNotes+1, err, resource.Invalid)
	}
	s.same("with as many notes as there may be", want, s.lookup("tx"))
}

// The order is that of decision, not of the ids.
func listInOrder(s *suite) {
	const n = 700
	var all, done, open []string
	for i := range n {
		id := name("tx", (i*389)%n)
		s.decide(entry(id, commit.Abort))
		all = append(all, id)
		if i%3 == 0 {
			s.annotate(id, decision.Note{Kind: decision.Finished})
			done = append(done, id)
		} else {
			open = append(open, id)
		}
	}
	s.lists(open, nil, done, all)
}

func listStops(s *suite) {
	for i := range 10 {
		s.decide(entry(name("tx", i), commit.Commit))
	}
	n := 0
	for _, err := range s.log.List(s.ctx, decision.Unfinished) {
		if err != nil {
			s.Fatal(err)
		}
		if n++; n == 3 {
			break
		}
	}
	if n != 3 {
		s.Errorf("got %d entries; want to stop after 3", n)
	}
}

// Whoever finishes what is listed changes what is being listed.
func listWhileChanging(s *suite) {
	const n = 600
	for i := range n {
		s.decide(entry(name("tx", i), commit.Commit))
	}
	seen := map[commit.TransactionID]bool{}
	for e, err := range s.log.List(s.ctx, decision.Unfinished) {
		if err != nil {
			s.Fatal(err)
		}
		if seen[e.ID] {
			s.Errorf("%q is listed twice", e.ID)
		}
		seen[e.ID] = true
		s.annotate(string(e.ID), decision.Note{Kind: decision.Finished})
	}
	if len(seen) != n {
		s.Errorf("%d of %d are listed", len(seen), n)
	}
	s.lists(nil, nil, s.list(0), s.list(decision.Done))
}

func forget(s *suite) {
	hazard := decision.Note{Kind: decision.Heuristic, Branch: "orders", Outcome: commit.Hazard}
	for _, id := range []string{"open", "damaged", "done"} {
		s.decide(entry(id, commit.Commit))
	}
	s.annotate("damaged", hazard)
	s.annotate("done", decision.Note{Kind: decision.Finished})
	for _, id := range []commit.TransactionID{"open", "damaged", "done"} {
		if err := s.log.Forget(s.ctx, id); err != nil {
			s.Errorf("forget %q: %v", id, err)
		}
		if err := s.log.Forget(s.ctx, id); !errors.Is(err, decision.ErrNotFound) {
			s.Errorf("forget %q again: got %v; want %v", id, err, decision.ErrNotFound)
		}
		if _, err := s.log.Lookup(s.ctx, id); !errors.Is(err, decision.ErrNotFound) {
			s.Errorf("look up %q: got %v; want %v", id, err, decision.ErrNotFound)
		}
	}
	s.lists(nil, nil, nil, nil)
	// Nothing is recorded, so the next is the first.
	s.same("decided anew", entry("open", commit.Abort), s.decide(entry("open", commit.Abort)))
	s.lists([]string{"open"}, nil, nil, []string{"open"})
}
