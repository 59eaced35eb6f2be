package spec

import (
	"assent/protocol"
	"assent/protocol/commit"
)

// Site is a machine, or a stable record, that shows where it stands in the commitment of a
// transaction. The records that count while a node is down are those under commit.RegisterKey,
// commit.ResourceKey and commit.BranchKey.
type Site interface{ Standing() commit.Standing }

// The properties of atomic commitment (Bernstein, Hadzilacos and Goodman 1987, 7.3), for systems of
// Sites that run one transaction. Nodes whose machine is no Site are not judged.

// AC1 says that no branch is committed while another is rolled back.
func AC1() Property {
	return Property{"AC1: all who decide, decide alike", func(v View) bool {
		n := tally(v)
		return n.committed == 0 || n.rolledBack == 0
	}}
}

// AC2 says that no decision is reversed: what nodes know to be decided agrees, branches have done
// nothing else, and none is committed before the register, where there is one, says so.
func AC2() Property {
	return Property{"AC2: no decision is reversed", func(v View) bool {
		n := tally(v)
		switch {
		case n.sayCommit > 0:
			return n.sayAbort == 0 && n.rolledBack == 0 && (n.committed == 0 || n.unregistered == 0)
		case n.sayAbort > 0:
			return n.committed == 0
		}
		return n.committed == 0 || n.unregistered == 0
	}}
}

// AC3 says that commit is decided only if nobody voted no and nobody has yet to vote.
func AC3() Property {
	return Property{"AC3: commit only if all voted yes", func(v View) bool {
		n := tally(v)
		return n.sayCommit == 0 && n.committed == 0 || n.unwilling == 0
	}}
}

// AC4 says that abort is not decided when nobody votes no: a read-only vote stands in nobody's way. It is
// claimed only of runs without a fault, in which no timer runs out early.
func AC4() Property {
	return Property{"AC4: if all voted yes and nothing failed, commit", func(v View) bool {
		n := tally(v)
		return n.willing < n.participants || n.sayAbort == 0 && n.rolledBack == 0
	}}
}

// AC5 says that every participant that is up comes to its end: it never blocks. An executor finds
// by exploration whether it can.
func AC5() Termination {
	return Termination{"AC5: every correct participant decides", ParticipantDone}
}

// AllCommit is reached when every branch is committed and everybody has said so.
func AllCommit() Property {
	return Property{"every branch is committed", func(v View) bool {
		n := tally(v)
		return n.committed > 0 && n.committed == n.participants && n.waiting == 0 && n.down == 0
	}}
}

// PromiseUndone is reached when a branch that would have voted yes is rolled back, because abort is
// on record at some node.
func PromiseUndone() Property {
	return Property{"a yes vote is followed by abort", func(v View) bool {
		if tally(v).yesRolledBack == 0 {
			return false
		}
		for i := range v.Nodes() {
			if r, ok := v.Record(i, commit.RegisterKey).(Site); ok && r.Standing().Decision == commit.Abort {
				return true
			}
		}
		return false
	}}
}

// ParticipantDone reports whether the machine is a participant that has come to its end, or no
// participant at all: AC5 asks about participants.
func ParticipantDone(_ int, m protocol.Machine) bool {
	site, ok := m.(Site)
	if !ok {
		return true
	}
	s := site.Standing()
	return !s.Participant || s.Done
}

// count is how many nodes stand how.
type count struct {
	participants, committed, rolledBack int
	sayCommit, sayAbort                 int // know the decision
	unregistered                        int // keep a register, in which commit does not stand
	willing                             int // would vote yes or read-only
	yesRolledBack                       int // would vote yes, and are rolled back
	unwilling                           int // will vote no, or have yet to vote
	waiting                             int // are no participants, and not done
	down                                int // and show no participant
}

func tally(v View) (n count) {
	for i := range v.Nodes() {
		s, up := standing(v, i)
		n.add(s)
		switch {
		case up && !s.Participant && !s.Done:
			n.waiting++
		case !up && !s.Participant:
			n.down++
		}
	}
	return n
}

func (n *count) add(s commit.Standing) {
	switch s.Decision {
	case commit.Commit:
		n.sayCommit++
	case commit.Abort:
		n.sayAbort++
	}
	if s.Unregistered {
		n.unregistered++
	}
	if !s.Participant {
		return
	}
	n.participants++
	switch s.Branch {
	case commit.BranchCommitted:
		n.committed++
	case commit.BranchRolledBack:
		n.rolledBack++
	}
	if s.Vote == commit.Yes || s.Vote == commit.ReadOnly {
		n.willing++
	}
	if s.Vote == commit.Yes && s.Branch == commit.BranchRolledBack {
		n.yesRolledBack++
	}
	if s.Vote == commit.No || s.Branch == commit.BranchWorking {
		n.unwilling++
	}
}

// standing returns what node i shows, by its stable storage where it is down, and whether it is up.
func standing(v View, i int) (s commit.Standing, up bool) {
	if m := v.Machine(i); m != nil {
		if site, ok := m.(Site); ok {
			return site.Standing(), true
		}
		return s, true
	}
	for _, key := range []string{commit.RegisterKey, commit.ResourceKey, commit.BranchKey} {
		if r, ok := v.Record(i, key).(Site); ok {
			s = s.Join(r.Standing())
		}
	}
	return s, false
}
