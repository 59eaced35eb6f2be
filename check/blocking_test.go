package check_test

import (
	"fmt"
	"testing"

	"assent/check"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/spec"
)

// lesson is what the lesson on failures says of a participant: whether it is blocked in a state, given
// the decisions that are on their way.
type lesson struct {
	v        check.State
	underWay map[int]bool // participants that a decision is on its way to
}

func read(v check.State) lesson {
	l := lesson{v: v, underWay: map[int]bool{}}
	v.UnderWay(func(_, to int, m protocol.Message) {
		if _, ok := m.(commit.Finish); ok {
			l.underWay[to] = true
		}
	})
	return l
}

func (l lesson) participant(i int) *commit.Participant {
	if n, ok := l.v.Machine(i).(*commit.ParticipantNode); ok {
		return &n.Participant
	}
	return nil
}

// inDoubt: a cohort that has voted yes and does not know the decision, which is not on its way either,
// while the coordinator is down. "It must wait for the coordinator's decision on whether to commit or
// abort the transaction." One that has not voted can safely abort, and where a cohort fails the
// coordinator terminates the transaction.
func (l lesson) inDoubt(i int) bool {
	p := l.participant(i)
	return p != nil && p.State == commit.ParticipantPrepared && l.v.Machine(0) == nil && !l.underWay[i]
}

// hopeless: in doubt, and there is nobody to ask: each of the others is down, in doubt as well, has
// left after a read-only vote, or came back with nothing on record. Who knows the decision, or will
// know it, or has yet to vote and can still refuse, helps.
func (l lesson) hopeless(i int) bool {
	if !l.inDoubt(i) {
		return false
	}
	for j := 1; j < l.v.Nodes(); j++ {
		p := l.participant(j)
		if p == nil || j == i {
			continue
		}
		undecided := p.State == commit.ParticipantWorking && !p.Blank
		if p.Decision != commit.Undecided || undecided || l.underWay[j] {
			return false
		}
	}
	return true
}

// TestBlockedAsTheLessonSays: two-phase commit blocks in exactly the states that the lesson on failures
// describes, those and no others; with crashes of any nodes and within their steps, under loss,
// duplication and reordering without limit.
func TestBlockedAsTheLessonSays(t *testing.T) {
	beside(t)
	for name, c := range map[string]struct {
		model twoPhaseCommit
		says  func(lesson, int) bool
		long  bool
	}{
		"plain, 2":                    {model: blockingModel(2, 3, false), says: lesson.inDoubt},
		"cooperative, 2":              {model: blockingModel(2, 3, true), says: lesson.hopeless},
		"plain, 3":                    {model: blockingModel(3, 1, false, commit.Yes), says: lesson.inDoubt},
		"plain, 3, two crashes":       {model: blockingModel(3, 2, false), says: lesson.inDoubt, long: true},
		"cooperative, 3, two crashes": {model: blockingModel(3, 2, true), says: lesson.hopeless, long: true},
	} {
		t.Run(name, func(t *testing.T) {
			if c.long {
				soak(t)
			}
			sys, err := c.model.system()
			if err != nil {
				t.Fatal(err)
			}
			wrong, told, all := 0, 0, 0
			claims := check.Claims{Decided: spec.ParticipantDone, Blocked: func(v spec.View, nodes []int) {
				blocked := map[int]bool{}
				for _, i := range nodes {
					blocked[i] = true
				}
				l := read(*v.(*check.State))
				for i := 1; i < v.Nodes(); i++ {
					if c.says(l, i) != blocked[i] && wrong < 3 {
						wrong++
						t.Errorf("the lesson says %t, the machines %t: %s", c.says(l, i), blocked[i], showState(v))
					}
				}
				if len(nodes) == v.Nodes()-1 {
					all++
				}
				if len(nodes) > 0 && knows(l) {
					told++
				}
			}}
			r := complete(t, interchangeable(sys), claims)
			t.Logf("%d states block; in %d all participants, in %d one of them knows", r.Blocking, all, told)
			// "The whole cluster will be uncertain"; and a peer that knows is of use only where
			// it is asked.
			if all == 0 || (told > 0) == c.model.Options.Cooperative {
				t.Errorf("in %d states all participants block; in %d somebody blocks beside one who knows", all, told)
			}
		})
	}
}

func blockingModel(participants, crashes int, cooperative bool, votes ...commit.Vote) twoPhaseCommit {
	m := twoPhaseCommit{TwoPhase: commit.TwoPhase{Participants: participants, Votes: votes}, Faults: check.Faults{Crashes: crashes, Duplicates: check.Unlimited}}
	m.Options.Cooperative = cooperative
	return m
}

// knows reports whether a participant that is up knows the decision.
func knows(l lesson) bool {
	for i := 1; i < l.v.Nodes(); i++ {
		if p := l.participant(i); p != nil && p.Decision != commit.Undecided {
			return true
		}
	}
	return false
}

func showState(v spec.View) (text string) {
	for i := range v.Nodes() {
		text += fmt.Sprintf("\n%+v", v.Machine(i))
	}
	return text
}
