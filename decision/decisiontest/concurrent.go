package decisiontest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"assent/decision"
	"assent/protocol/commit"
)

// propose returns worker w's proposal for a transaction, which can be told from every other's.
func propose(id string, w int, rng *rand.Rand) decision.Entry {
	e := entry(id, commit.Commit+commit.Decision(rng.IntN(2)))
	e.By = fmt.Sprintf("worker %d", w)
	return e
}

func race(s *suite) { s.race(s.log) }

func raceOfTwo(s *suite) {
	if s.h.Another == nil {
		s.Skip("one process at a time")
	}
	s.race(s.log, s.h.Another(s.T, s.log))
}

// race lets many propose for the same transactions at once: exactly one proposal stands, and
// everybody is told it, also those who only look.
func (s *suite) race(logs ...decision.Log) {
	const workers, transactions = 16, 60
	var mu sync.Mutex
	told := map[string]map[string]int{}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(w)))
			log := logs[w%len(logs)]
			for i := range transactions {
				id := name("tx", i)
				stands, err := log.Decide(s.ctx, propose(id, w, rng))
				if err != nil {
					s.Errorf("worker %d: decide %q: %v", w, id, err)
					return
				}
				looked, err := log.Lookup(s.ctx, commit.TransactionID(id))
				if err != nil {
					s.Errorf("worker %d: look up %q: %v", w, id, err)
					return
				}
				mu.Lock()
				if told[id] == nil {
					told[id] = map[string]int{}
				}
				told[id][fmt.Sprint(stands.Decision, " by ", stands.By)]++
				told[id][fmt.Sprint(looked.Decision, " by ", looked.By)]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for id, answers := range told {
		if len(answers) != 1 {
			s.Errorf("%q: told %v; want one answer", id, answers)
		}
	}
	if got := len(s.list(decision.Unfinished)); got != transactions {
		s.Errorf("%d entries; want %d", got, transactions)
	}
}

// No note may be lost when several are written at once.
func concurrentNotes(s *suite) {
	const workers, each = 8, 20
	s.decide(entry("tx", commit.Commit))
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				n := decision.Note{Kind: decision.Resolved, Branch: name("b", w), Reason: name("n", i), Forced: i%4 == 0}
				if err := s.log.Annotate(s.ctx, "tx", n); err != nil {
					s.Error(err)
				}
			}
		})
	}
	wg.Wait()
	next := map[string]int{}
	for _, n := range s.lookup("tx").Notes {
		if want := name("n", next[n.Branch]); n.Reason != want {
			s.Errorf("%s: note %s stands where %s belongs", n.Branch, n.Reason, want)
		}
		next[n.Branch]++
	}
	for w := range workers {
		if got := next[name("b", w)]; got != each {
			s.Errorf("%s: got %d notes; want %d", name("b", w), got, each)
		}
	}
}

// call and answer are one operation in a history; the state of the model is the proposal that
// stands, "" before there is one.
type call struct {
	id     string
	decide string // "" for a look-up
}

type answer struct{ stands string }

func registers() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			parts := map[string][]porcupine.Operation{}
			for _, op := range history {
				id := op.Input.(call).id
				parts[id] = append(parts[id], op)
			}
			var all [][]porcupine.Operation
			for _, part := range parts {
				all = append(all, part)
			}
			return all
		},
		Init: func() any { return "" },
		Step: func(state, input, output any) (bool, any) {
			stands := state.(string)
			if stands == "" {
				stands = input.(call).decide
			}
			return output.(answer).stands == stands, stands
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprint(input, " → ", output) },
	}
}

// A history of proposals and look-ups must be explainable as happening one after the other, each
// at one moment between its call and its return (Herlihy and Wing 1990).
func linearizable(s *suite) {
	const workers, calls, transactions = 8, 120, 40
	var mu sync.Mutex
	var history []porcupine.Operation
	start := time.Now()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(2, uint64(w)))
			for i := range calls {
				c := call{id: name("tx", i*transactions/calls)}
				var e decision.Entry
				var err error
				began := time.Since(start)
				if rng.IntN(3) == 0 {
					p := propose(c.id, w*calls+i, rng)
					c.decide = fmt.Sprint(p.Decision, " by ", p.By)
					e, err = s.log.Decide(s.ctx, p)
				} else if e, err = s.log.Lookup(s.ctx, commit.TransactionID(c.id)); errors.Is(err, decision.ErrNotFound) {
					err = nil
				}
				ended := time.Since(start)
				if err != nil {
					s.Error(err)
					return
				}
				a := answer{}
				if e.ID != "" {
					a.stands = fmt.Sprint(e.Decision, " by ", e.By)
				}
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: w, Input: c, Output: a,
					Call: began.Nanoseconds(), Return: ended.Nanoseconds()})
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if result := porcupine.CheckOperationsTimeout(registers(), history, time.Minute); result != porcupine.Ok {
		s.Errorf("a history of %d calls is not linearizable: %v", len(history), result)
	}
}
