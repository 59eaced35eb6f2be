package decisiontest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"assent/decision"
	"assent/protocol/commit"
)

func reopen(s *suite) {
	if s.h.Reopen == nil {
		s.Skip("the log cannot be reopened")
	}
	owner := s.log.Owner()
	for i := range 50 {
		s.decide(entry(name("tx", i), commit.Commit+commit.Decision(i%2)))
		if i%3 == 0 {
			s.annotate(name("tx", i), decision.Note{Kind: decision.Finished})
		}
	}
	if err := s.log.Forget(s.ctx, commit.TransactionID(name("tx", 7))); err != nil {
		s.Fatal(err)
	}
	before := map[decision.Status][]string{}
	for status := range decision.Done + 1 {
		before[status] = s.list(status)
	}
	for range 3 {
		s.log = s.h.Reopen(s.T, s.log)
		if got := s.log.Owner(); got != owner {
			s.Errorf("owner %q has become %q", owner, got)
		}
		s.lists(before[decision.Unfinished], before[decision.Damaged], before[decision.Done], before[0])
		if got := s.decide(entry(name("tx", 1), commit.Commit)); got.Decision != commit.Abort {
			s.Errorf("abort stood before; now %v stands", got.Decision)
		}
	}
}

func closed(s *suite) {
	if s.h.Reopen == nil {
		s.Skip("the log cannot be reopened")
	}
	s.decide(entry("tx", commit.Commit))
	old := s.log
	s.log = s.h.Reopen(s.T, old)
	_, derr := old.Decide(s.ctx, entry("new", commit.Commit))
	_, lerr := old.Lookup(s.ctx, "tx")
	var ierr error
	for _, err := range old.List(s.ctx, 0) {
		ierr = err
	}
	for what, err := range map[string]error{
		"decide": derr, "look up": lerr, "list": ierr, "forget": old.Forget(s.ctx, "tx"),
		"annotate": old.Annotate(s.ctx, "tx", decision.Note{Kind: decision.Finished}),
	} {
		if !errors.Is(err, decision.ErrClosed) {
			s.Errorf("%s after close: got %v; want %v", what, err, decision.ErrClosed)
		}
	}
	s.same("the log goes on", entry("tx", commit.Commit), s.lookup("tx"))
}

func crashKeeps(s *suite) {
	if s.h.Crash == nil {
		s.Skip("the log cannot be crashed")
	}
	owner := s.log.Owner()
	for round := range 5 {
		for i := range 10 {
			s.decide(entry(name("tx", round*10+i), commit.Commit))
		}
		s.log = s.h.Crash(s.T, s.log)
		for i := range round*10 + 10 {
			s.same("after the crash", entry(name("tx", i), commit.Commit), s.lookup(name("tx", i)))
		}
	}
	if got := s.log.Owner(); got != owner {
		s.Errorf("owner %q has become %q", owner, got)
	}
}

// crashUnderLoad crashes the log while many decide. Whatever one of them was told must stand, and
// what nobody was told must stand or be absent, but not be torn.
func crashUnderLoad(s *suite) {
	if s.h.Crash == nil {
		s.Skip("the log cannot be crashed")
	}
	const workers = 8
	told := map[string]string{}
	for round := range 3 {
		var mu sync.Mutex
		var stop atomic.Bool
		var wg sync.WaitGroup
		enough := make(chan struct{})
		var count atomic.Int32
		log := s.log
		for w := range workers {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(round), uint64(w)))
				for i := 0; !stop.Load(); i++ {
					id := name("tx", round*100000+i)
					stands, err := log.Decide(s.ctx, propose(id, w, rng))
					if err != nil {
						return // the crash has come
					}
					mu.Lock()
					said := fmt.Sprint(stands.Decision, " by ", stands.By)
					if before, ok := told[id]; ok && before != said {
						s.Errorf("%q: told %q, and then %q", id, before, said)
					}
					told[id] = said
					mu.Unlock()
					if count.Add(1) == 200 {
						close(enough)
					}
				}
			})
		}
		select {
		case <-enough:
		case <-s.ctx.Done():
			s.Fatal("nothing is decided")
		}
		mu.Lock()
		kept := maps.Clone(told) // what is told from here on may be told by a machine that is gone
		mu.Unlock()
		s.log = s.h.Crash(s.T, log)
		stop.Store(true)
		wg.Wait()
		told = kept
		for id, want := range told {
			e := s.lookup(id)
			if got := fmt.Sprint(e.Decision, " by ", e.By); got != want {
				s.Errorf("%q: told %q, but after the crash %q stands", id, want, got)
			}
		}
		s.list(0)
	}
}

func crashKeepsNotes(s *suite) {
	if s.h.Crash == nil {
		s.Skip("the log cannot be crashed")
	}
	s.decide(entry("tx", commit.Commit))
	n := decision.Note{Kind: decision.Heuristic, Branch: "orders", Outcome: commit.RolledBack, Forced: true}
	s.annotate("tx", n)
	s.log = s.h.Crash(s.T, s.log)
	s.lists(nil, []string{"tx"}, nil, []string{"tx"})
}
