package resourcetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"
	"time"

	"assent/protocol/commit"
	"assent/resource"
)

// A bound on what no test should ever wait for. It fails a test that hangs; no test depends on
// its length.
const patience = 60 * time.Second

// store is one store under test, with short words for what the tests do to it. Its methods that
// return no error end the test where they fail, so they are for the test's own goroutine.
type store struct {
	*testing.T
	h     Harness
	r     resource.Resource
	owner string
	ctx   context.Context
	made  int
}

func newStore(t *testing.T, h Harness) *store {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	var random [6]byte
	_, _ = rand.Read(random[:]) // it never fails
	return &store{T: t, h: h, r: h.Open(t), owner: "o" + hex.EncodeToString(random[:]), ctx: ctx}
}

// another returns a second handle on the store.
func (s *store) another() resource.Resource { return s.h.Another(s.T, s.r) }

// crash crashes the store and goes on with the restarted one.
func (s *store) crash() { s.r = s.h.Crash(s.T, s.r) }

// id returns an id that no other branch of the store has.
func (s *store) id() resource.ID {
	s.made++
	return resource.ID{Owner: s.owner, Transaction: fmt.Sprintf("t%d", s.made), Branch: "store"}
}

// begin begins a branch of its own transaction.
func (s *store) begin() (resource.ID, resource.Branch) {
	s.Helper()
	id := s.id()
	return id, s.beginID(id)
}

func (s *store) beginID(id resource.ID) resource.Branch {
	s.Helper()
	b, err := s.r.Begin(s.ctx, id)
	if err != nil {
		s.Fatalf("begin %s: %v", id, err)
	}
	return b
}

func (s *store) add(b resource.Branch, key string, delta int64) {
	s.Helper()
	if err := s.h.Add(s.ctx, b, key, delta); err != nil {
		s.Fatalf("add %d to %s: %v", delta, key, err)
	}
}

// prepare prepares b and expects a yes vote.
func (s *store) prepare(id resource.ID, b resource.Branch) resource.Prepared {
	s.Helper()
	p, err := prepare(s.ctx, id, b)
	if err != nil {
		s.Fatal(err)
	}
	return p
}

func prepare(ctx context.Context, id resource.ID, b resource.Branch) (resource.Prepared, error) {
	vote, err := b.Prepare(ctx)
	switch {
	case err != nil:
		return resource.Prepared{}, fmt.Errorf("prepare %s: %w", id, err)
	case vote.Vote != commit.Yes:
		return resource.Prepared{}, fmt.Errorf("prepare %s: the vote is %v; want yes", id, vote.Vote)
	case len(vote.Evidence) > resource.MaxEvidence:
		return resource.Prepared{}, fmt.Errorf("prepare %s: %d bytes of evidence; at most %d are allowed",
			id, len(vote.Evidence), resource.MaxEvidence)
	}
	return resource.Prepared{ID: id, Evidence: vote.Evidence}, nil
}

// prepared begins and prepares a branch that adds delta to key.
func (s *store) prepared(key string, delta int64) (resource.Prepared, resource.Branch) {
	s.Helper()
	id, b := s.begin()
	s.add(b, key, delta)
	return s.prepare(id, b), b
}

// committed adds delta to key in a branch that is committed.
func (s *store) committed(key string, delta int64) resource.Prepared {
	s.Helper()
	p, b := s.prepared(key, delta)
	s.outcome("commit", commit.Committed)(b.Commit(s.ctx))
	return p
}

// outcome returns a check that a call returned the outcome want and no error.
func (s *store) outcome(what string, want commit.Outcome) func(commit.Outcome, error) {
	return func(got commit.Outcome, err error) {
		s.Helper()
		if err != nil {
			s.Fatalf("%s: %v", what, err)
		}
		if got != want {
			s.Fatalf("%s: the outcome is %v; want %v", what, got, want)
		}
	}
}

// refused checks that the vote is no, or that there is an error, which stands for no.
func (s *store) refused(vote resource.Vote, err error) {
	s.Helper()
	if err == nil && vote.Vote != commit.No {
		s.Fatalf("the vote is %v; want no, or an error", vote.Vote)
	}
}

// reads checks the committed value of key.
func (s *store) reads(key string, want int64) {
	s.Helper()
	got, err := s.h.Read(s.ctx, s.r, key)
	if err != nil {
		s.Fatalf("read %s: %v", key, err)
	}
	if got != want {
		s.Fatalf("read %s: got %d; want %d", key, got, want)
	}
}

// hidden checks that a change of key, from before, is not visible outside its branch.
func (s *store) hidden(key string, before int64) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, briefly)
	defer cancel()
	got, err := s.h.Read(ctx, s.r, key)
	if err != nil {
		if !inFlux(err) {
			s.Fatalf("read %s while it is being changed: %v", key, err)
		}
		return
	}
	if got != before {
		s.Fatalf("read %s while it is being changed: got %d; want %d or an error", key, got, before)
	}
}

// How long a test looks at a wait that should not end.
const briefly = 50 * time.Millisecond

func inFlux(err error) bool {
	code := resource.CodeOf(err)
	return code == resource.Unavailable || code == resource.LockTimeout ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// mine returns the branches of this test's owner in the store's list of prepared branches.
func (s *store) mine() map[resource.ID]resource.Prepared {
	s.Helper()
	list, err := s.r.Recover(s.ctx)
	if err != nil {
		s.Fatalf("recover: %v", err)
	}
	found := map[resource.ID]resource.Prepared{}
	for _, p := range list {
		if p.ID.Owner != s.owner {
			continue
		}
		if _, ok := found[p.ID]; ok {
			s.Fatalf("recover lists %s twice", p.ID)
		}
		found[p.ID] = p
	}
	return found
}

// lists checks that exactly the branches want of this owner are prepared.
func (s *store) lists(want ...resource.ID) {
	s.Helper()
	got := s.mine()
	for _, id := range want {
		if _, ok := got[id]; !ok {
			s.Errorf("recover does not list %s", id)
		}
		delete(got, id)
	}
	for id := range got {
		s.Errorf("recover lists %s, which is not prepared", id)
	}
	if s.Failed() {
		s.FailNow()
	}
}

// free checks that nobody holds key: another branch can change it and commit.
func (s *store) free(key string) {
	s.Helper()
	s.committed(key, 1)
	s.committed(key, -1)
}

// locked checks that no other branch can change key now.
func (s *store) locked(key string) {
	s.Helper()
	_, b := s.begin()
	ctx, cancel := context.WithTimeout(s.ctx, briefly)
	defer cancel()
	if err := s.h.Add(ctx, b, key, 1000); err == nil {
		s.Fatalf("another branch changed %s, which a prepared branch has changed", key)
	}
	s.outcome("rollback", commit.RolledBack)(b.Rollback(s.ctx))
}

// settle repeats call while it fails, as a manager does, until it returns an outcome.
func settle(ctx context.Context, p resource.Prepared,
	call func(context.Context, resource.Prepared) (commit.Outcome, error),
) (commit.Outcome, error) {
	for {
		o, err := call(ctx, p)
		if err == nil {
			return o, nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%s: %w; the last error: %w", p.ID, ctx.Err(), err)
		case <-time.After(time.Millisecond):
		}
	}
}
