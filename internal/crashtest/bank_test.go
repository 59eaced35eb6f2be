package crashtest

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"assent/internal/pgcluster"
	"assent/internal/pgcluster/cutproxy"
)

// seed returns the seed of a random test, which its failures name.
func seed(t testing.TB) uint64 {
	t.Helper()
	n := *seedFlag
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("run again with -seed %d", n)
	return n
}

// saboteur breaks a bank at random, until its context ends.
type saboteur struct {
	s                                 *site
	proxies                           map[string]*cutproxy.Proxy
	ctx                               context.Context
	coordinators, databases, cuts     atomic.Int64
	working                           sync.WaitGroup
	coordinatorPause, databasePause   time.Duration // the longest between two blows
	databaseDown, connectionsCutPause time.Duration
}

// between pauses for a random time and reports whether to go on.
func (sab *saboteur) between(random *rand.Rand, least, most time.Duration) bool {
	timer := time.NewTimer(least + time.Duration(random.Int64N(int64(most-least)+1)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-sab.ctx.Done():
		return false
	}
}

// killDatabase stops a cluster again and again, and starts it some time after.
func (sab *saboteur) killDatabase(name string, random *rand.Rand) {
	c := sab.s.clusters[name]
	for sab.between(random, sab.databasePause/4, sab.databasePause) {
		if random.IntN(4) == 0 {
			c.Kill()
		} else if err := c.Stop(pgcluster.Immediate); err != nil {
			sab.s.Error(err)
		}
		sab.databases.Add(1)
		sab.between(random, 0, sab.databaseDown)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		err := c.Start(ctx)
		cancel()
		if err != nil {
			sab.s.Error(err)
			return
		}
	}
}

// cut cuts connections: all of them for a moment, or one at a statement.
func (sab *saboteur) cut(name string, random *rand.Rand) {
	p := sab.proxies[name]
	statements := []string{"PREPARE TRANSACTION", "COMMIT PREPARED", "ROLLBACK PREPARED", "COMMIT", "BEGIN", "account"}
	actions := []cutproxy.Action{cutproxy.CutBefore, cutproxy.CutReply, cutproxy.CutLate}
	for sab.between(random, sab.connectionsCutPause/8, sab.connectionsCutPause) {
		if random.IntN(4) == 0 {
			sab.cuts.Add(1)
			p.Cut()
			sab.between(random, 0, 30*time.Millisecond)
			p.Heal()
			continue
		}
		action := actions[random.IntN(len(actions))]
		hit := p.On(statements[random.IntN(len(statements))], action)
		select {
		case <-hit.Happened():
			sab.cuts.Add(1)
		case <-sab.ctx.Done():
			return
		}
		if action == cutproxy.CutLate {
			late := time.Duration(random.Int64N(int64(200 * time.Millisecond)))
			sab.working.Go(func() {
				time.Sleep(late) // the network takes its time
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				if err := hit.Deliver(ctx); err != nil {
					sab.s.Error(err)
				}
			})
		}
	}
}

// killCoordinators runs the workload in one coordinator after the other, and kills each.
func (sab *saboteur) killCoordinators(random *rand.Rand) {
	for life := 0; sab.ctx.Err() == nil; life++ {
		s := sab.s
		s.launched++
		s.p = launch(s, s.record)
		s.p.send(request{Open: s.opening()})
		s.p.send(request{Bank: &workload{Seed: random.Uint64(), Prefix: "life" + strconv.Itoa(life), Workers: 16}})
		least := sab.coordinatorPause / 8
		if random.IntN(6) == 0 {
			least = 0 // in the middle of its recovery
		}
		sab.between(random, least, sab.coordinatorPause)
		select {
		case <-s.p.exited:
			s.Errorf("a coordinator failed: %v\n%s", s.p.status, s.p.stderr.String())
			return
		default:
		}
		s.p.kill()
		sab.coordinators.Add(1)
	}
}

// TestBank moves money at random between 24 accounts in three resources, 16 transfers at a time,
// while coordinators and clusters are killed and connections are cut at random. All of the money
// is there at every consistent read, and what committed has one order.
func TestBank(t *testing.T) {
	n := seed(t)
	length := 12 * time.Second
	if *soakFlag {
		length = 60 * time.Second
	}
	if testing.Short() {
		length = 4 * time.Second
	}
	s := newSite(t)
	h := newHistory()
	s.record = h.take
	s.setup.Retry, s.setup.LockTimeout = 10*time.Millisecond, 500*time.Millisecond
	s.setup.PrepareTimeout, s.setup.FinishWait = 2*time.Second, time.Second
	ctx, cancel := context.WithTimeout(context.Background(), length)
	defer cancel()
	sab := &saboteur{s: s, proxies: s.throughProxies(), ctx: ctx, coordinatorPause: 2 * time.Second,
		databasePause: 4 * time.Second, databaseDown: 500 * time.Millisecond, connectionsCutPause: 300 * time.Millisecond}
	for i, name := range baseNames {
		sab.working.Go(func() { sab.killDatabase(name, rand.New(rand.NewPCG(n, uint64(10+i)))) })
		sab.working.Go(func() { sab.cut(name, rand.New(rand.NewPCG(n, uint64(20+i)))) })
	}
	sab.killCoordinators(rand.New(rand.NewPCG(n, 1)))
	sab.working.Wait()
	if t.Failed() {
		return
	}

	// All is up again. The last coordinator works undisturbed for a moment, and settles.
	s.open()
	s.p.do(request{Bank: &workload{Seed: n, Prefix: "last", Workers: 16}})
	s.await("the last coordinator commits", func() bool { return h.committedBy("last") >= 100 })
	s.p.do(request{Rest: true})
	st := s.settled()
	j := h.judge(s.books(st))
	for _, line := range j.found[:min(len(j.found), 20)] {
		t.Error(line)
	}
	t.Logf("%d transfers and %d audits committed, %d aborted, %d in doubt settled; killed: %d coordinators, %d databases; %d cuts; %d heuristic; %d anomalies",
		j.transfers, j.audits, j.aborted, j.settled, sab.coordinators.Load(), sab.databases.Load(), sab.cuts.Load(), len(st.Damaged), len(j.found))
	if j.audits == 0 || j.settled == 0 || j.aborted == 0 || sab.databases.Load() == 0 || sab.cuts.Load() == 0 {
		t.Error("not everything that was to be tried has happened")
	}
}

// committedBy counts the operations of one life that were reported committed.
func (h *history) committedBy(prefix string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, op := range slices.Backward(h.order) {
		if len(op.id) < len(prefix) || op.id[:len(prefix)] != prefix {
			break
		}
		if op.report != nil && op.report.Kind == committed {
			n++
		}
	}
	return n
}
