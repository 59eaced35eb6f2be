package decisiontest

import (
	"context"
	"errors"
	"math"
	"strings"

	"assent/decision"
	"assent/protocol/commit"
	"assent/resource"
)

func firstStands(s *suite) {
	first := entry("tx", commit.Commit)
	s.same("the first", first, s.decide(first))
	s.same("the same again", first, s.decide(first))
	later := entry("tx", commit.Abort)
	later.By, later.Reason, later.Branches = "operator", "too late", nil
	s.same("another decision", first, s.decide(later))
	s.same("looked up", first, s.lookup("tx"))
}

func abortStands(s *suite) {
	first := entry("tx", commit.Abort)
	first.By, first.Reason, first.Branches = "recovery", "no decision was found", nil
	s.same("the first", first, s.decide(first))
	s.same("a late commit", first, s.decide(entry("tx", commit.Commit)))
}

func entryIsKeptWhole(s *suite) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	e := entry("A.b_c-9", commit.Commit)
	e.By, e.Reason = "operator Zoë", "line one\nline \"two\"\x00 — end"
	e.Branches = []decision.Branch{
		{Resource: "all.bytes", Evidence: every},
		{Resource: "zeros", Evidence: make([]byte, resource.MaxEvidence)},
		{Resource: "none"},
		{Resource: "zero", Evidence: []byte{0}},
	}
	s.same("decided", e, s.decide(e))
	s.same("looked up", e, s.lookup("A.b_c-9"))
	s.same("told to the second", e, s.decide(entry("A.b_c-9", commit.Abort)))
	for got, err := range s.log.List(s.ctx, 0) {
		if err != nil {
			s.Fatal(err)
		}
		s.same("listed", e, got)
	}
}

func lookupBeforeAndAfter(s *suite) {
	for range 2 {
		if got, err := s.log.Lookup(s.ctx, "tx"); !errors.Is(err, decision.ErrNotFound) {
			s.Fatalf("look up before: got %+v, %v; want %v", got, err, decision.ErrNotFound)
		}
	}
	s.decide(entry("tx", commit.Commit))
	s.same("after", entry("tx", commit.Commit), s.lookup("tx"))
}

// An id that is the beginning of another's must not be confused with it.
func prefixes(s *suite) {
	ids := []string{"t", "tx", "tx-", "tx-1", "tx-10", "tx-1-", "tx-1.", "Tx-1", "tx-1" + strings.Repeat("0", 60)}
	for i, id := range ids {
		e := entry(id, commit.Commit)
		e.Branches = []decision.Branch{{Resource: id[:min(len(id), resource.MaxBranch)], Evidence: []byte{byte(i)}}}
		if i%2 == 1 {
			e.Decision = commit.Abort
		}
		s.same(id, e, s.decide(e))
		for _, later := range ids[i+1:] {
			if got, err := s.log.Lookup(s.ctx, commit.TransactionID(later)); !errors.Is(err, decision.ErrNotFound) {
				s.Fatalf("look up %q after %q was decided: got %+v, %v", later, id, got, err)
			}
		}
	}
	for i, id := range ids {
		if got := s.lookup(id); len(got.Branches) != 1 || got.Branches[0].Evidence[0] != byte(i) {
			s.Errorf("look up %q: got %+v", id, got)
		}
	}
	if err := s.log.Forget(s.ctx, "tx-1"); err != nil {
		s.Fatal(err)
	}
	for _, id := range ids {
		if id != "tx-1" {
			s.lookup(id)
		}
	}
}

// refused checks that err is a refusal: it says why, and is none of the errors that mean that the
// log is in trouble.
func (s *suite) refused(what string, err error) {
	s.Helper()
	if err == nil {
		s.Errorf("%s is accepted", what)
		return
	}
	for _, not := range []error{decision.ErrNotFound, decision.ErrStopped, decision.ErrClosed} {
		if errors.Is(err, not) {
			s.Errorf("%s: got %v; want a refusal", what, err)
		}
	}
	if resource.CodeOf(err) != resource.Invalid {
		s.Errorf("%s: got error %v; want one with the code %q", what, err, resource.Invalid)
	}
}

func invalidIsRefused(s *suite) {
	long := strings.Repeat("r", decision.MaxReason+1)
	for what, spoil := range map[string]func(*decision.Entry){
		"no decision":             func(e *decision.Entry) { e.Decision = commit.Undecided },
		"a decision out of range": func(e *decision.Entry) { e.Decision = commit.Abort + 1 },
		"an empty id":             func(e *decision.Entry) { e.ID = "" },
		"a long id":               func(e *decision.Entry) { e.ID = commit.TransactionID(strings.Repeat("x", resource.MaxTransaction+1)) },
		"an id with a colon":      func(e *decision.Entry) { e.ID = "a:b" },
		"an id with a zero":       func(e *decision.Entry) { e.ID = "a\x00b" },
		"an id with a quote":      func(e *decision.Entry) { e.ID = "a'b" },
		"too many branches":       func(e *decision.Entry) { e.Branches = make([]decision.Branch, decision.MaxBranches+1) },
		"a branch of no resource": func(e *decision.Entry) { e.Branches[0].Resource = "" },
		"long evidence":           func(e *decision.Entry) { e.Branches[0].Evidence = make([]byte, resource.MaxEvidence+1) },
		"a long by":               func(e *decision.Entry) { e.By = long },
		"a long reason":           func(e *decision.Entry) { e.Reason = long },
		"a reason that is no text": func(e *decision.Entry) {
			e.Reason = "\xff\xfe"
		},
		"a note of no kind": func(e *decision.Entry) { e.Notes = make([]decision.Note, 1) },
	} {
		e := entry("tx", commit.Commit)
		spoil(&e)
		_, err := s.log.Decide(s.ctx, e)
		s.refused(what, err)
	}
	s.decide(entry("tx", commit.Commit))
	for what, n := range map[string]decision.Note{
		"a note of kind 0":           {},
		"a note of an unknown kind":  {Kind: decision.Resolved + 1, Branch: "orders"},
		"a finished note of one":     {Kind: decision.Finished, Branch: "orders"},
		"a heuristic note of none":   {Kind: decision.Heuristic, Outcome: commit.Hazard},
		"a resolved note of none":    {Kind: decision.Resolved},
		"an outcome out of range":    {Kind: decision.Heuristic, Branch: "orders", Outcome: commit.Hazard + 1},
		"a note with a long reason":  {Kind: decision.Finished, Reason: long},
		"a note with a long by":      {Kind: decision.Finished, By: long},
		"a note whose by is no text": {Kind: decision.Finished, By: "\xc3\x28"},
	} {
		s.refused(what, s.log.Annotate(s.ctx, "tx", n))
	}
	_, err := s.log.Lookup(s.ctx, "")
	s.refused("looking up an empty id", err)
	s.refused("forgetting an empty id", s.log.Forget(s.ctx, ""))
	s.lists([]string{"tx"}, nil, nil, []string{"tx"})
}

func limitsAreAccepted(s *suite) {
	e := entry(strings.Repeat("x", resource.MaxTransaction), commit.Commit)
	e.By, e.Reason = strings.Repeat("b", decision.MaxReason), strings.Repeat("r", decision.MaxReason)
	e.Branches = nil
	for i := range decision.MaxBranches {
		b := decision.Branch{Resource: name(strings.Repeat("n", resource.MaxBranch-6), i)}
		b.Evidence = make([]byte, resource.MaxEvidence)
		for j := range b.Evidence {
			b.Evidence[j] = byte(i * j & math.MaxUint8)
		}
		e.Branches = append(e.Branches, b)
	}
	s.same("decided", e, s.decide(e))
	s.same("looked up", e, s.lookup(string(e.ID)))
}

func cancelledContext(s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	s.decide(entry("there", commit.Commit))
	_, err := s.log.Decide(ctx, entry("tx", commit.Commit))
	for what, err := range map[string]error{
		"decide": err,
		"look up": func() error {
			_, err := s.log.Lookup(ctx, "there")
			return err
		}(),
		"annotate": s.log.Annotate(ctx, "there", decision.Note{Kind: decision.Finished}),
		"forget":   s.log.Forget(ctx, "there"),
		"list": func() error {
			for _, err := range s.log.List(ctx, 0) {
				return err
			}
			return nil
		}(),
	} {
		if !errors.Is(err, context.Canceled) {
			s.Errorf("%s in a cancelled context: got %v; want %v", what, err, context.Canceled)
		}
	}
	s.lists([]string{"there"}, nil, nil, []string{"there"})
}

func owner(s *suite) {
	o := s.log.Owner()
	id := resource.ID{Owner: o, Transaction: "t", Branch: "b"}
	if err := id.Validate(); err != nil {
		s.Errorf("owner %q: %v", o, err)
	}
	if other := s.h.New(s.T).Owner(); other == o {
		s.Errorf("two logs have the owner %q", o)
	}
	if s.h.Another != nil {
		if other := s.h.Another(s.T, s.log).Owner(); other != o {
			s.Errorf("one log has the owners %q and %q", o, other)
		}
	}
}
