package site

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"assent/engine"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/trace"
)

// trap does something when a machine is about to do something for the first time.
type trap struct {
	once   sync.Once
	when   func(trace.Event) bool
	spring func(trace.Event)
}

func (x *trap) Observe(e trace.Event) {
	if x.when(e) {
		x.once.Do(func() { x.spring(e) })
	}
}

// link is what one node says to another.
type link = [2]protocol.NodeID

// cutAt cuts links when something is about to be done for the first time.
func (w *world) cutAt(when func(trace.Event) bool, links ...link) {
	w.observer = &trap{when: when, spring: func(trace.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, l := range links {
			w.cut[l] = true
		}
	}}
}

// telling reports whether a decision is being told to a site.
func telling(e trace.Event) bool {
	_, told := e.Value.(commit.Finish)
	return told && e.Kind == trace.Send
}

// silence cuts all that id says from now on.
func (w *world) silence(id protocol.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, other := range w.nodes {
		w.cut[[2]protocol.NodeID{id, other}] = true
	}
}

func (w *world) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.cut)
	w.loss = 0
}

// lastWord is when the coordinator n1 is about to tell what it knows from the votes: the decision, or in
// three phases that all have voted yes.
func lastWord(e trace.Event) bool {
	if e.Kind != trace.Send || nodeOf(e.Node) != "n1" || nodeOf(e.Peer) == "n1" {
		return false
	}
	switch e.Value.(type) {
	case commit.Finish, commit.PreCommit:
		return true
	}
	return false
}

// doubt runs a transaction of all sites whose coordinator n1 is never heard of again once all have voted yes.
func doubt(t *testing.T, p Protocol) (*world, Transaction) {
	t.Helper()
	for {
		w, tx, ok := tryDoubt(t, p)
		if ok {
			return w, tx
		}
		t.Logf("%s: the machine is so busy that somebody lost patience before all had voted; once more", p)
	}
}

// tryDoubt reports false, and nothing is left, where the coordinator's last word was not that all have voted yes.
func tryDoubt(t *testing.T, p Protocol) (w *world, tx Transaction, ok bool) {
	t.Helper()
	w = newWorld(t, 3, 1)
	w.hurry = 300 * time.Millisecond
	if p == ThreePhase {
		w.hurry = time.Second // it is safe only where nobody is slower
	}
	last := make(chan trace.Event, 1)
	w.observer = &trap{when: lastWord, spring: func(e trace.Event) { w.silence("n1"); last <- e }}
	w.all()
	tx = w.begin("n1", p)
	if err := w.put(tx, "key", w.nodes...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = w.host("n1").Commit(ctx, tx, w.nodes, true)
	}()
	select {
	case e := <-last:
		f, decided := e.Value.(commit.Finish)
		ok = !decided || f.Decision == commit.Commit
	case <-over:
	}
	cancel()
	<-over
	w.crash("n1")
	if !ok {
		w.crash("n2")
		w.crash("n3")
	}
	return w, tx, ok
}

// TestCoordinatorGoneForGood: what is told of the protocols is what happens. In two-phase commit the
// others stay in doubt until the coordinator is back; in the others they finish without it.
func TestCoordinatorGoneForGood(t *testing.T) {
	for _, p := range []Protocol{ThreePhase, QuorumThreePhase, PaxosCommit} {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel() // it waits more than it works
			w, tx := doubt(t, p)
			w.settled("n2", "n3")
			if two, three := w.holds("n2", "key", tx), w.holds("n3", "key", tx); two != three {
				t.Errorf("n2 has committed: %v; n3: %v", two, three)
			}
			w.heal()
			w.up("n1")
			w.settled("n1")
			if one, two := w.holds("n1", "key", tx), w.holds("n2", "key", tx); one != two {
				t.Errorf("n1, when it is back, has committed: %v; n2: %v", one, two)
			}
		})
	}
	t.Run(string(TwoPhase), twoPhaseBlocks)
}

func twoPhaseBlocks(t *testing.T) {
	w, tx := doubt(t, TwoPhase)
	time.Sleep(300 * time.Millisecond) // many times the pauses after which they ask one another
	if !w.inDoubt("n2") || !w.inDoubt("n3") {
		t.Error("2pc: somebody decided without the coordinator")
	}
	if all := w.host("n2").List(); len(all) != 1 || !all[0].InDoubt || all[0].Decision != commit.Undecided || all[0].Role != "participant" {
		t.Errorf("2pc: n2 says %+v", all)
	}
	w.heal()
	w.up("n1")
	w.settled(w.nodes...)
	if all := w.done("n2"); len(all) != 1 || all[0].InDoubt || all[0].Decision != commit.Commit {
		t.Errorf("2pc: in the end n2 says %+v", all)
	}
	for _, id := range w.nodes {
		if !w.holds(id, "key", tx) {
			t.Errorf("2pc: the decision was commit, and %s has not committed", id)
		}
	}
}

// TestMinorityWaits: a site that is cut off from a majority stays in doubt, and the others go on; in the
// protocols that are safe in any network.
func TestMinorityWaits(t *testing.T) {
	for _, p := range []Protocol{QuorumThreePhase, PaxosCommit} {
		w, tx := doubt(t, p)
		w.settled("n2", "n3")
		w.up("n1") // it is back, and cut off: nobody hears it
		if !w.inDoubt("n1") && w.holds("n1", "key", tx) != w.holds("n2", "key", tx) {
			t.Errorf("%s: the site that is cut off has decided differently", p)
		}
		w.heal()
		w.settled(w.nodes...)
		if w.holds("n1", "key", tx) != w.holds("n2", "key", tx) {
			t.Errorf("%s: n1 and n2 differ", p)
		}
	}
}

// done waits until nothing is left to do at the site, and returns what it says then.
func (w *world) done(id protocol.NodeID) []Status {
	w.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		all := w.host(id).List()
		if !slices.ContainsFunc(all, func(s Status) bool { return !s.Done }) {
			return all
		}
		if time.Now().After(end) {
			w.Fatalf("%s is not done: %+v", id, all)
		}
	}
}

// TestStorm: sites crash and messages are lost at random. All or nothing holds for every transaction,
// whoever the members are by then, and when the storm is over nothing stays in doubt. Three-phase commit is not among those that promise
// that in such weather.
func TestStorm(t *testing.T) {
	seeds := 3
	if os.Getenv("ASSENT_SOAK") != "" {
		seeds = 300
	}
	for _, p := range []Protocol{TwoPhase, QuorumThreePhase, PaxosCommit} {
		for seed := range seeds {
			t.Run(fmt.Sprintf("%s/%d", p, seed), func(t *testing.T) {
				t.Parallel() // it waits more than it works
				storm(t, p, 3, uint64(seed))
			})
		}
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("members/%d", seed), func(t *testing.T) {
			t.Parallel() // it waits more than it works
			storm(t, PaxosCommit, 5, uint64(seed))
		})
	}
}

// storm is one of so many nodes. In each round three of them are the cluster's members, and run transactions.
func storm(t *testing.T, p Protocol, nodes int, seed uint64) {
	w := newWorld(t, nodes, seed)
	w.hurry, w.timeout = 300*time.Millisecond, time.Second
	w.all()
	w.mu.Lock()
	w.loss = 0.05
	w.mu.Unlock()
	r := rand.New(rand.NewPCG(seed, 2))
	type attempt struct {
		tx    Transaction
		key   string
		sites []protocol.NodeID
		told  commit.Decision
	}
	var all []*attempt
	for round := range 6 {
		var group sync.WaitGroup
		members := slices.Clone(w.nodes)
		r.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
		members = members[:3]
		w.members(members...)
		for i, from := range members {
			a := &attempt{tx: w.begin(from, p), key: fmt.Sprintf("%d/%d", round, i), sites: members}
			if w.put(a.tx, a.key, members...) != nil { // it was condemned by a crash
				continue
			}
			all = append(all, a)
			h, life := w.host(from), w.life(from)
			group.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
				defer cancel()
				// What a site says when its power has gone, nobody hears.
				if r, err := h.Commit(ctx, a.tx, members, false); err == nil && w.life(from) == life {
					a.told = r.Decision
				}
			})
		}
		time.Sleep(time.Duration(r.IntN(12_000)) * time.Microsecond) // a crash at some moment of the commits
		victim := members[r.IntN(len(members))]
		w.crash(victim)
		group.Wait()
		w.up(victim)
	}
	w.heal()
	w.settled(w.nodes...)
	committed := 0
	for _, a := range all {
		at := 0
		for _, id := range a.sites {
			if w.holds(id, a.key, a.tx) {
				at++
			}
		}
		if at != 0 && at != len(a.sites) {
			t.Errorf("%s is committed at %d of %d sites", a.tx.ID, at, len(a.sites))
		}
		if a.told == commit.Commit && at == 0 || a.told == commit.Abort && at > 0 {
			t.Errorf("%s: told %v, and it is committed at %d sites", a.tx.ID, a.told, at)
		}
		if at > 0 {
			committed++
		}
	}
	t.Logf("%d of %d committed", committed, len(all))
}

// forgotten waits until the sites remember nothing, while they are told that much time has passed.
func (w *world) forgotten(sites ...protocol.NodeID) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 20*time.Second)
	defer cancel()
	for _, id := range sites {
		for {
			w.host(id).sweep(time.Now().Add(time.Hour))
			w.host(id).askOthers(time.Now().Add(time.Hour))
			left := w.host(id).List()
			if len(left) == 0 {
				break
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
				w.Fatalf("%s still remembers %+v", id, left)
			}
		}
	}
}

// TestForget: what is over is forgotten, and not before every site has reported: one that comes back in doubt
// finds those who know.
func TestForget(t *testing.T) {
	for _, p := range Protocols() {
		w := newWorld(t, 3, 1)
		w.cutAt(telling, link{"n1", "n3"}, link{"n2", "n3"})
		w.all()
		tx := w.begin("n1", p)
		if err := w.put(tx, "key", w.nodes...); err != nil {
			t.Fatal(err)
		}
		r, err := w.host("n1").Commit(t.Context(), tx, w.nodes, false)
		if err != nil || r.Decision != commit.Commit {
			t.Fatalf("%s: %+v, %v", p, r, err)
		}
		w.settled("n1", "n2")
		w.crash("n3")
		for _, id := range w.nodes[:2] {
			w.host(id).sweep(time.Now().Add(time.Hour))
		}
		if !w.holds("n1", "key", tx) || len(w.host("n1").List()) == 0 {
			t.Errorf("%s: the coordinator has forgotten before all had reported", p)
		}
		w.heal()
		w.hurry = time.Second // n3 asks
		w.up("n3")
		w.settled("n3")
		if !w.holds("n3", "key", tx) {
			t.Errorf("%s: n3 came back in doubt, and has not committed", p)
		}
		w.forgotten(w.nodes...)
		if found, err := w.host("n3").store.all(t.Context()); err != nil || len(found) > 0 {
			t.Errorf("%s: on record there is still %v, %v", p, found, err)
		}
	}
}

// TestGivenUpIsForgotten: so is what was given up before anybody voted, by word of the coordinator or after a time.
func TestGivenUpIsForgotten(t *testing.T) {
	for _, p := range Protocols() {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel() // it waits more than it works
			w := newWorld(t, 3, 1)
			clock := &handClock{by: 2 * time.Hour}
			w.tweak = func(c *Config) {
				if c.Self == "n3" {
					c.Clock, c.Timeout = clock, clock.by
				}
			}
			w.all()
			tx := w.begin("n1", p)
			if err := w.put(tx, "key", "n2", "n3"); err != nil {
				t.Fatal(err)
			}
			if err := w.host("n1").Abort(tx, []protocol.NodeID{"n2", "n3"}, "changed my mind"); err != nil {
				t.Fatal(err)
			}
			left := w.begin("n1", p)
			if err := w.put(left, "key", "n3"); err != nil { // once the lock is free; nobody ever asks for its vote
				t.Fatal(err)
			}
			clock.expire()
			if list := w.host("n3").List(); len(list) != 2 {
				t.Errorf("work whose time is over is not given up: %+v", list)
			}
			w.forgotten(w.nodes...)
		})
	}
}

// handClock has timers of one length expire when it is told to.
type handClock struct {
	engine.SystemClock
	by time.Duration

	mu  sync.Mutex
	due []func()
}

func (c *handClock) AfterFunc(d time.Duration, f func()) func() {
	if d != c.by {
		return c.SystemClock.AfterFunc(d, f)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due = append(c.due, f)
	return func() {}
}

func (c *handClock) expire() {
	c.mu.Lock()
	due := c.due
	c.due = nil
	c.mu.Unlock()
	for _, f := range due {
		f()
	}
}

// TestLostWorkIsNotBegunAnew: a site that has lost work in a crash takes no more of that transaction, for it would
// vote on half of it.
func TestLostWorkIsNotBegunAnew(t *testing.T) {
	w := newWorld(t, 2, 1)
	w.all()
	tx := w.begin("n1", PaxosCommit)
	if err := w.put(tx, "key", "n2"); err != nil {
		t.Fatal(err)
	}
	w.crash("n2")
	w.up("n2")
	if _, err := w.host("n2").Join(t.Context(), tx, "kv", true); !errors.Is(err, ErrOver) {
		t.Errorf("got %v", err)
	}
}

// TestResourceGone: a site whose vote concerns a resource that is not configured any more finishes nothing of it
// until that is there again.
func TestResourceGone(t *testing.T) {
	w, tx := doubt(t, TwoPhase)
	w.gone = "n2"
	w.crash("n2")
	w.heal()
	w.up("n2")
	w.up("n1")
	w.settled("n1", "n3")
	if !w.inDoubt("n2") {
		t.Error("n2 has finished a branch in a resource that it has not")
	}
	w.gone = ""
	w.crash("n2")
	w.up("n2")
	w.settled("n2")
	if !w.holds("n2", "key", tx) {
		t.Error("n2 has not committed")
	}
}
