package paxos

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"assent/decision"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/paxos"
)

// proposing is one operation of a history: whose proposal, or "" for a look-up; and what stands, ""
// for nothing, "?" where no answer came.
type proposing struct{ id, by string }

// model is a write-once register. An operation without an answer may have happened, at any time from its
// call on, or not.
var model = porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) (all [][]porcupine.Operation) {
		parts := map[string][]porcupine.Operation{}
		for _, op := range history {
			id := op.Input.(proposing).id
			parts[id] = append(parts[id], op)
		}
		for _, part := range parts {
			all = append(all, part)
		}
		return all
	},
	Init: func() []any { return []any{""} },
	Step: func(state, input, output any) []any {
		was, in, out := state.(string), input.(proposing), output.(string)
		then := was
		if was == "" {
			then = in.by
		}
		switch {
		case out == "?" && then != was:
			return []any{was, then}
		case out == "?", out == then:
			return []any{then}
		}
		return nil
	},
}

// storm is a cluster under fire: clients at all members, and a nemesis.
type storm struct {
	*group
	began   time.Time
	prefix  string // of a's first life
	mu      sync.Mutex
	history []porcupine.Operation
	number  atomic.Int64
}

// client proposes for and looks up ids, which it shares with the clients of other members.
func (s *storm) client(at protocol.NodeID, seed uint64, ids func(int) string, stop *atomic.Bool) {
	rng := rand.New(rand.NewPCG(seed, 11))
	for i := 0; !stop.Load(); i++ {
		l := s.log(at)
		if l == nil {
			time.Sleep(time.Millisecond)
			continue
		}
		op := proposing{id: ids(int(s.number.Load()))}
		if rng.IntN(3) > 0 {
			op.by = fmt.Sprintf("%s %d.%d", at, seed, i)
		}
		ctx, cancel := context.WithTimeout(s.t.Context(), 300*time.Millisecond)
		s.do(ctx, l, op, int(seed))
		cancel()
		time.Sleep(200 * time.Microsecond) // else most of them look up what is known
	}
}

func (s *storm) do(ctx context.Context, l *Log, op proposing, client int) {
	var e decision.Entry
	var err error
	began := time.Since(s.began)
	if op.by != "" {
		e, err = l.Decide(ctx, entry(op.id, commit.Commit, op.by))
	} else if e, err = l.Lookup(ctx, commit.TransactionID(op.id)); errors.Is(err, decision.ErrNotFound) {
		err = nil
	}
	ended, out := time.Since(s.began).Nanoseconds(), e.By
	if errors.Is(err, ErrNotMember) {
		return // nothing was proposed
	}
	if err != nil {
		ended, out = math.MaxInt64, "?"
		if op.by == "" {
			return // a look-up without an answer says nothing
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history = append(s.history, porcupine.Operation{ClientId: client, Input: op, Output: out, Call: began.Nanoseconds(), Return: ended})
}

// TestStorm: histories of proposals and look-ups at all members are linearizable while members crash,
// lose what they had not forced, come back, and are cut off, over a network that loses, repeats and
// reorders; and when all is well again every member tells the same.
func TestStorm(t *testing.T) {
	t.Parallel()
	rounds, seeds := 12, 2
	if os.Getenv("ASSENT_SOAK") != "" {
		rounds, seeds = 60, 20
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			runStorm(t, uint64(seed), rounds)
		})
	}
}

func runStorm(t *testing.T, seed uint64, rounds int) {
	s := newStorm(t, 3+2*int(seed%2))
	s.rage(seed, rounds, func(*atomic.Bool) {})
	s.settle(seed)
}

// newStorm starts a cluster of n members over a bad network.
func newStorm(t *testing.T, n int) *storm {
	g := newGroup(t, n, Config{Options: paxos.Options{Retry: 10 * time.Millisecond, RetryMost: 100 * time.Millisecond}})
	g.ready()
	g.wires.mu.Lock()
	g.wires.lose, g.wires.repeat, g.wires.delay = 3, 5, 5
	g.wires.mu.Unlock()
	return &storm{group: g, began: time.Now(), prefix: g.log("a").Prefix()}
}

// id returns the id of that number.
func (s *storm) id(number int) string {
	if number%2 == 0 {
		return fmt.Sprintf("%s-%d", s.prefix, number) // ballot 0 is a's, in its first life
	}
	return fmt.Sprintf("tx-%d", number)
}

// rage lets clients at all nodes work while there is trouble, and something else alongside.
func (s *storm) rage(seed uint64, rounds int, alongside func(stop *atomic.Bool)) {
	rng := rand.New(rand.NewPCG(seed, 12))
	var stop atomic.Bool
	var wg sync.WaitGroup
	for i := range 2 * len(s.names) {
		wg.Go(func() { s.client(s.names[i%len(s.names)], seed<<8|uint64(i), s.id, &stop) })
	}
	wg.Go(func() { alongside(&stop) })
	for range rounds {
		s.trouble(rng)
	}
	stop.Store(true)
	wg.Wait()
	s.wires.isolate()
	s.wires.mu.Lock()
	s.wires.lose = 0
	s.wires.mu.Unlock()
}

// settle finds that all members tell the same afterwards, and that the history is linearizable.
func (s *storm) settle(seed uint64) {
	t := s.t
	for number := range int(s.number.Load()) + 1 {
		for i, at := range s.names {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			s.do(ctx, s.log(at), proposing{id: s.id(number)}, 1<<20+i)
			cancel()
		}
	}
	if result := porcupine.CheckOperationsTimeout(model.ToModel(), s.history, time.Minute); result != porcupine.Ok {
		t.Errorf("seed %d: a history of %d operations is not linearizable: %v", seed, len(s.history), result)
	}
	answered := 0
	for _, op := range s.history {
		if op.Output != "?" {
			answered++
		}
	}
	if answered < len(s.history)/4 {
		t.Errorf("only %d of %d operations were answered", answered, len(s.history))
	}
	t.Logf("%d operations, %d answered, %d transactions", len(s.history), answered, s.number.Load()+1)
}

// trouble lets one thing happen to a minority, and undoes it.
func (s *storm) trouble(rng *rand.Rand) {
	few := len(s.names)/2 - rng.IntN(2)*(len(s.names)/4)
	var chosen []protocol.NodeID
	for _, i := range rng.Perm(len(s.names))[:few] {
		chosen = append(chosen, s.names[i])
	}
	turn := func() {
		for range 4 {
			time.Sleep(time.Duration(rng.IntN(15)) * time.Millisecond)
			s.number.Add(1)
		}
	}
	turn()
	switch rng.IntN(3) {
	case 0:
		for _, name := range chosen {
			s.crash(name, rng.IntN(101), rng)
		}
		turn()
		for _, name := range chosen {
			s.group.start(name)
		}
	case 1:
		s.wires.isolate(chosen...)
		turn()
		s.wires.isolate()
	case 2: // all at once: what was told is on their disks
		for _, name := range s.names {
			s.crash(name, rng.IntN(101), rng)
		}
		for _, name := range s.names {
			s.group.start(name)
		}
	}
	turn()
}
