package commit_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/spec"
)

// schedule is a run of a system whose every chance is drawn from one seed. Draws are even: rapid's
// favour small numbers, and what is interesting here lies deep.
type schedule struct {
	*sites
	t    *testing.T
	seed uint64
	rnd  *rand.Rand
	text []string
}

// schedules runs the seeds, of which there are more in make soak.
func schedules(t *testing.T, run func(*schedule)) {
	seeds := uint64(3000)
	if os.Getenv("ASSENT_SOAK") != "" {
		seeds = 300_000
	}
	for seed := range seeds {
		run(&schedule{t: t, seed: seed, rnd: rand.New(rand.NewPCG(seed, 3))})
	}
}

// begin makes the nodes, most of which vote yes, starts them and, in half of the runs, lets the
// first messages arrive in order: most of what is interesting lies behind the votes.
func (s *schedule) begin(nodes []protocol.Node) {
	ways := make([]int, len(nodes))
	for i := range nodes {
		if s.rnd.IntN(12) == 0 {
			ways[i] = 1 + s.rnd.IntN(2)
		}
	}
	s.sites = newSites(nodes, ways)
	s.log = func(f string, a ...any) { s.text = append(s.text, fmt.Sprintf(f, a...)) }
	for i := range s.nodes {
		s.step(i, protocol.Start{}, whole)
	}
	if s.rnd.IntN(2) == 0 {
		for range s.rnd.IntN(3 * len(nodes)) {
			if len(s.inFlight) > 0 {
				s.deliver(0, whole)
			}
		}
	}
}

func (s *schedule) fatalf(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("seed %d: %s\n%s", s.seed, fmt.Sprintf(format, args...), strings.Join(s.text, "\n"))
}

func (s *schedule) judge() {
	for _, p := range []spec.Property{spec.AC1(), spec.AC2(), spec.AC3()} {
		if !p.Holds(s) {
			s.fatalf("not so: %s", p.Name)
		}
	}
}

// cut draws whether, and where, a step ends in a crash.
func (s *schedule) cut() int {
	if s.rnd.IntN(16) > 0 {
		return whole
	}
	return 1 + s.rnd.IntN(4)
}

func (s *schedule) expireAny() {
	if armed := s.armed(); len(armed) > 0 {
		a := armed[s.rnd.IntN(len(armed))]
		s.expire(a.node, a.timer, s.cut())
	}
}

func (s *schedule) crashOrRestart() {
	if i := s.rnd.IntN(len(s.nodes)); s.machines[i] == nil {
		s.restart(i)
	} else if s.rnd.IntN(2) == 0 {
		s.crash(i)
	}
}

// misfortune lets one thing happen, good or bad, without regard to time.
func (s *schedule) misfortune() {
	k := -1
	if n := len(s.inFlight); n > 0 {
		k = s.rnd.IntN(n)
	}
	switch kind := s.rnd.IntN(40); {
	case kind < 24 && k >= 0:
		s.deliver(k, s.cut())
	case kind < 26 && k >= 0: // lost
		s.inFlight = append(s.inFlight[:k:k], s.inFlight[k+1:]...)
	case kind < 28 && k >= 0 && len(s.inFlight) < 50: // repeated
		s.inFlight = append(s.inFlight, s.inFlight[k])
	case kind < 36:
		s.expireAny()
	case kind < 39:
		s.crashOrRestart()
	default:
		var apart []int
		for i := range s.nodes {
			if s.rnd.IntN(2) == 0 {
				apart = append(apart, i)
			}
		}
		s.split(apart...)
	}
}

// synchronous lets one thing happen that can happen under synchrony: a timer expires only when
// nothing is under way.
func (s *schedule) synchronous() {
	switch n := len(s.inFlight); {
	case s.rnd.IntN(16) == 0:
		s.crashOrRestart()
	case n > 0:
		s.deliver(s.rnd.IntN(n), s.cut())
	default:
		s.expireAny()
	}
}

// settle lets everything happen but faults.
func (s *schedule) settle() {
	for range 50 {
		s.run()
		s.judge()
		if len(s.armed()) == 0 {
			return
		}
		for _, a := range s.armed() {
			s.expire(a.node, a.timer, whole)
			s.run()
		}
	}
}

// heal ends all faults, and checks that everybody comes to the end then.
func (s *schedule) heal() {
	s.log("the world heals")
	s.split()
	for i := range s.nodes {
		if s.machines[i] == nil {
			s.restart(i)
		}
	}
	s.settle()
	for i, n := range s.nodes {
		if site, ok := s.machines[i].(spec.Site); !ok || !site.Standing().Done {
			s.fatalf("after healing, %s does not come to its end: %s", n.ID, stands(s.machines[i]))
		}
	}
}

// TestQuorumRandomSchedules runs quorum three-phase commit through loss, repetition, reordering,
// partitions and crashes at every place, without regard to time, and then lets the world heal: AC1
// to AC3 hold throughout, and in the end everybody has decided.
func TestQuorumRandomSchedules(t *testing.T) {
	committed, aborted := 0, 0
	schedules(t, func(s *schedule) {
		n := 1 + s.rnd.IntN(4)
		q := commit.Majority(n)
		if s.rnd.IntN(2) == 0 {
			total := 0
			for i := range q.Votes {
				q.Votes[i] = 1 + s.rnd.IntN(3) - s.rnd.IntN(2)
				total += q.Votes[i]
			}
			if total == 0 {
				q.Votes[0], total = 1, 1
			}
			q.Commit = 1 + s.rnd.IntN(total)
			q.Abort = total - q.Commit + 1
		}
		nodes, err := commit.QuorumThreePhase{Participants: n, Quorums: q}.Nodes()
		if err != nil {
			t.Fatal(err)
		}
		s.begin(nodes)
		for range s.rnd.IntN(200) {
			s.misfortune()
			s.judge()
		}
		s.heal()
		if spec.AllCommit().Holds(s) {
			committed++
		} else {
			aborted++
		}
	})
	if committed < 100 || aborted < 100 {
		t.Errorf("%d runs commit and %d abort: the draw is lopsided", committed, aborted)
	}
}

// TestThreePhaseRandomSchedules runs three-phase commit through crashes at every place under synchrony.
// AC1 to AC3 hold throughout; when the faults end, those who are up decide though the others stay
// down, unless all have failed; and when all are back everybody has decided.
func TestThreePhaseRandomSchedules(t *testing.T) {
	spared, total := 0, 0
	schedules(t, func(s *schedule) {
		nodes, err := commit.ThreePhase{Participants: 1 + s.rnd.IntN(4)}.Nodes()
		if err != nil {
			t.Fatal(err)
		}
		s.begin(nodes)
		failed := map[int]bool{}
		for range s.rnd.IntN(120) {
			s.synchronous()
			s.judge()
			for i, m := range s.machines {
				if m == nil {
					failed[i] = true
				}
			}
		}
		if len(failed) < len(s.nodes) {
			spared++
			s.decideWithout()
		} else {
			total++
		}
		s.heal()
	})
	if spared < 100 || total < 100 {
		t.Errorf("in %d runs somebody is spared, in %d all fail: the draw is lopsided", spared, total)
	}
}

// decideWithout checks that the participants which are up decide while the others stay down (AC5).
func (s *schedule) decideWithout() {
	s.log("no more faults; who is down stays down")
	s.settle()
	for i, n := range s.nodes {
		if m := s.machines[i]; m != nil && !spec.AC5().Decided(i, m) {
			s.fatalf("%s is blocked: %s", n.ID, stands(m))
		}
	}
}

// TestQuorumsAreValidated: quorums that could both be had at once, or never, are refused.
func TestQuorumsAreValidated(t *testing.T) {
	for want, q := range map[string]commit.Quorums{
		"have no vote of 3 in common":      {Votes: []int{1, 1, 1}, Commit: 2, Abort: 1},
		"the commit quorum is 0 of 3":      {Votes: []int{1, 1, 1}, Abort: 3},
		"the abort quorum is 4 of 3":       {Votes: []int{1, 1, 1}, Commit: 1, Abort: 4},
		"votes are given for 2 of 3":       {Votes: []int{1, 1}, Commit: 2, Abort: 2},
		"participant 2 has -1 votes":       {Votes: []int{1, -1, 1}, Commit: 1, Abort: 1},
		"participant 1 has 1001 votes":     {Votes: []int{1001, 1, 1}, Commit: 1003, Abort: 1},
		"the commit quorum is 1 of 0 vote": {Votes: []int{0, 0, 0}, Commit: 1, Abort: 1},
	} {
		_, err := commit.QuorumThreePhase{Participants: 3, Quorums: q}.Nodes()
		if !errors.Is(err, commit.ErrSystem) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want an ErrSystem with %q", q, err, want)
		}
	}
	for n := 1; n <= 8; n++ {
		if err := commit.Majority(n).Validate(n); err != nil {
			t.Errorf("majorities of %d: %v", n, err)
		}
	}
}

// TestRulesOneAndTwoBearOneFailure is the lecture's theorem (three-phase-commit.txt, "3-Phase Protocol
// Theorem"): failure and timeout transitions suffice for a single site failure. It takes for granted
// that a transition, with its record and all its messages, is one act, and that a site times out only
// on one that has failed. The checker grants neither, and finds how it breaks without them.
func TestRulesOneAndTwoBearOneFailure(t *testing.T) {
	ended := map[string]int{}
	schedules(t, func(s *schedule) {
		nodes, err := commit.ThreePhase{Participants: 1 + s.rnd.IntN(4), Options: commit.Options{Unilateral: true}}.Nodes()
		if err != nil {
			t.Fatal(err)
		}
		s.begin(nodes)
		victim, moment, back := s.rnd.IntN(len(nodes)), s.rnd.IntN(8*len(nodes)), s.rnd.IntN(8*len(nodes))
		for now := range 200 {
			if now == moment {
				s.crash(victim)
			}
			if now == moment+back && s.machines[victim] == nil {
				s.restart(victim)
			}
			if n := len(s.inFlight); n > 0 {
				s.deliver(s.rnd.IntN(n), whole)
			} else {
				s.timeOutOn(victim)
			}
			s.judge()
		}
		s.heal()
		end := "aborted"
		if spec.AllCommit().Holds(s) {
			end = "committed"
		}
		if victim == 0 {
			end += " without the coordinator"
		}
		ended[end]++
	})
	if len(ended) < 4 {
		t.Errorf("%v: the draw is lopsided", ended)
	}
}

// timeOutOn lets a timer run out at a node that waits for the victim, which is down: a participant waits
// for the coordinator, and the coordinator for all.
func (s *schedule) timeOutOn(victim int) {
	waiting := slices.DeleteFunc(s.armed(), func(a alarm) bool { return a.node != 0 && victim != 0 })
	if s.machines[victim] == nil && len(waiting) > 0 {
		a := waiting[s.rnd.IntN(len(waiting))]
		s.expire(a.node, a.timer, whole)
	}
}

// TestThreePhasesCostMore: "3PC involves a higher message overhead" (failures-in-two-phase-commit.txt).
// A commit without faults takes two messages and two forced writes more of each participant, since each
// also keeps the decision, and one more of the coordinator.
func TestThreePhasesCostMore(t *testing.T) {
	cost := func(nodes []protocol.Node, err error) (messages, forced int) {
		if err != nil {
			t.Fatal(err)
		}
		w := newSites(nodes, make([]int, len(nodes)))
		w.log = func(format string, _ ...any) {
			switch {
			case strings.HasPrefix(format, "  send"):
				messages++
			case strings.HasPrefix(format, "  force"):
				forced++
			}
		}
		for i := range w.nodes {
			w.step(i, protocol.Start{}, whole)
		}
		w.run()
		if !spec.AllCommit().Holds(w) {
			t.Fatal("the run does not commit")
		}
		return messages, forced
	}
	for n := 2; n <= 4; n++ {
		m2, f2 := cost(commit.TwoPhase{Participants: n}.Nodes())
		m3, f3 := cost(commit.ThreePhase{Participants: n}.Nodes())
		if m2 != 4*n || m3 != 6*n {
			t.Errorf("%d participants: %d messages in two phases and %d in three, want %d and %d", n, m2, m3, 4*n, 6*n)
		}
		if f3-f2 != 2*n+1 {
			t.Errorf("%d participants: %d records in two phases and %d in three, want %d more", n, f2, f3, 2*n+1)
		}
	}
}
