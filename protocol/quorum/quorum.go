// Package quorum says which sets of nodes suffice: weighted voting for registers, the two phases of
// Paxos, and the change from one set of members to the next.
//
// It promises that the rules it checks are enough for the intersections that it names, and that a
// tally never changes from Reached or Lost to something else as long as answers are only added. It
// counts; it neither asks nor waits, and who is unreachable is for others to say.
package quorum

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"assent/protocol"
)

// Limits of a System.
const (
	// MaxMembers is the greatest number of members.
	MaxMembers = 256
	// MaxVotes is the greatest number of votes of one member.
	MaxVotes = 1 << 16
)

// Member is a node that votes.
type Member struct {
	Node protocol.NodeID
	// Votes is the weight of the member (Gifford 1979), at least 1.
	Votes int
	// Witness says that the member votes but holds no copy of what is voted on (Pâris 1986), so
	// that a quorum of witnesses alone has nothing to read.
	Witness bool `cbor:",omitempty" json:",omitempty"`
}

// System is a set of members and how many of their votes suffice. The zero value has no members
// and is not valid. Its methods do not change it and may be called concurrently.
type System struct {
	Members []Member
	// Read is how many votes make a read quorum: phase 1 of Paxos.
	Read int
	// Write is how many votes make a write quorum: phase 2 of Paxos.
	Write int
}

// ErrInvalid says that a system breaks a rule; the text says which, and what would keep it.
var ErrInvalid = errors.New("invalid quorum system")

// Majority returns the system in which each node has one vote and both quorums are a majority: of
// 2f + 1 nodes it tolerates f.
func Majority(nodes ...protocol.NodeID) System {
	s := System{Members: make([]Member, 0, len(nodes)), Read: len(nodes)/2 + 1, Write: len(nodes)/2 + 1}
	for _, n := range nodes {
		s.Members = append(s.Members, Member{Node: n, Votes: 1})
	}
	return s
}

// Total returns the number of votes, v in the rules.
func (s System) Total() int {
	total := 0
	for _, m := range s.Members {
		total += m.Votes
	}
	return total
}

// Validate returns an error that wraps ErrInvalid unless the system can be used: its members are
// distinct, both thresholds can be reached, every read quorum meets every write quorum (r + w > v;
// Gifford 1979, and Q1 + Q2 > N of Flexible Paxos: Howard, Malkhi and Spiegelman 2016), and no
// write quorum consists of witnesses.
//
// That is enough where every write is preceded by a read with a ballot, as in Paxos. Without
// ballots call Exclusive, too.
func (s System) Validate() error {
	if err := s.members(); err != nil {
		return err
	}
	total, witnesses := s.Total(), 0
	for _, m := range s.Members {
		if m.Witness {
			witnesses += m.Votes
		}
	}
	for _, q := range []struct {
		name  string
		votes int
	}{{"read", s.Read}, {"write", s.Write}} {
		if q.votes < 1 || q.votes > total {
			return fmt.Errorf("%w: a %s quorum of %d votes, there are %d: give 1 to %d",
				ErrInvalid, q.name, q.votes, total, total)
		}
	}
	if s.Read+s.Write <= total {
		return fmt.Errorf("%w: read %d + write %d is not more than %d votes, so that a read may miss a write: "+
			"raise one of them by %d", ErrInvalid, s.Read, s.Write, total, total+1-s.Read-s.Write)
	}
	if witnesses >= s.Write {
		return fmt.Errorf("%w: witnesses have %d votes and a write needs %d, so that nobody might hold a copy: "+
			"take votes from the witnesses or raise write to %d", ErrInvalid, witnesses, s.Write, witnesses+1)
	}
	return nil
}

func (s System) members() error {
	if len(s.Members) == 0 {
		return fmt.Errorf("%w: no members: name at least one node", ErrInvalid)
	}
	if len(s.Members) > MaxMembers {
		return fmt.Errorf("%w: %d members: at most %d are possible", ErrInvalid, len(s.Members), MaxMembers)
	}
	seen := make(map[protocol.NodeID]bool, len(s.Members))
	for _, m := range s.Members {
		switch {
		case m.Node == "":
			return fmt.Errorf("%w: a member without a name: give each node one", ErrInvalid)
		case seen[m.Node]:
			return fmt.Errorf("%w: %s is a member twice: give it its votes in one place", ErrInvalid, m.Node)
		case m.Votes < 1 || m.Votes > MaxVotes:
			return fmt.Errorf("%w: %s has %d votes: give 1 to %d, or leave it out", ErrInvalid, m.Node, m.Votes, MaxVotes)
		}
		seen[m.Node] = true
	}
	return nil
}

// Exclusive returns an error that wraps ErrInvalid unless any two write quorums meet (2w > v), so that
// of two writers at the same time one notices the other.
func (s System) Exclusive() error {
	if total := s.Total(); 2*s.Write <= total {
		return fmt.Errorf("%w: twice write %d is not more than %d votes, so that two writers may both succeed: "+
			"raise write to %d", ErrInvalid, s.Write, total, total/2+1)
	}
	return nil
}

// Tolerate returns an error that wraps ErrInvalid unless both quorums are left whichever f members
// fail. With one vote each these are the rules r + f ≤ n and w + f ≤ n; with weights the heaviest
// f are taken away.
func (s System) Tolerate(f int) error {
	if f < 0 || f > len(s.Members) {
		return fmt.Errorf("%w: %d of %d members cannot fail", ErrInvalid, f, len(s.Members))
	}
	heaviest := slices.SortedStableFunc(slices.Values(s.Members), func(a, b Member) int { return cmp.Compare(b.Votes, a.Votes) })
	left := s.Total()
	names := make([]string, 0, f)
	for _, m := range heaviest[:f] {
		left -= m.Votes
		names = append(names, string(m.Node))
	}
	for _, q := range []struct {
		verb  string
		votes int
	}{{"read", s.Read}, {"write", s.Write}} {
		if left < q.votes {
			return fmt.Errorf("%w: with %s failed %d of %d votes are left and %d are needed to %s: "+
				"add members or lower the quorum", ErrInvalid, list(names), left, s.Total(), q.votes, q.verb)
		}
	}
	return nil
}

// Tolerance returns the greatest f that Tolerate accepts, or -1 if not even none may fail.
func (s System) Tolerance() int {
	f := 0
	for f <= len(s.Members) && s.Tolerate(f) == nil {
		f++
	}
	return f - 1
}

// Without returns the system with the votes of node gone and the thresholds as they were, which
// keeps all intersections. It is for looking ahead, not for a change of members.
func (s System) Without(node protocol.NodeID) System {
	s.Members = slices.DeleteFunc(slices.Clone(s.Members), func(m Member) bool { return m.Node == node })
	return s
}

// Has reports whether a node is a member.
func (s System) Has(node protocol.NodeID) bool {
	return slices.ContainsFunc(s.Members, func(m Member) bool { return m.Node == node })
}

// Joint are systems of which each must agree: during a change of members the old and the new
// (Ongaro 2014, 4.3). Without any it is agreed always.
type Joint []System

// Has reports whether a node is a member of any.
func (j Joint) Has(node protocol.NodeID) bool {
	return slices.ContainsFunc(j, func(s System) bool { return s.Has(node) })
}

// Read returns how the read quorums stand: Lost if one is lost, Reached if all are.
func (j Joint) Read(answer func(protocol.NodeID) Answer) Verdict {
	return j.worst(func(s System) Verdict { return s.Reading(answer) })
}

// Write returns how the write quorums stand: Lost if one is lost, Reached if all are.
func (j Joint) Write(answer func(protocol.NodeID) Answer) Verdict {
	return j.worst(func(s System) Verdict { return s.Writing(answer) })
}

func (j Joint) worst(verdict func(System) Verdict) Verdict {
	worst := Reached
	for _, s := range j {
		worst = max(worst, verdict(s))
	}
	return worst
}

// Acknowledged returns the greatest index that every system's write quorum has reached; the
// greatest of all if there is no system.
func (j Joint) Acknowledged(index func(protocol.NodeID) (at uint64, known bool)) uint64 {
	least := uint64(math.MaxUint64)
	for _, s := range j {
		least = min(least, s.Acknowledged(index))
	}
	return least
}

// Acknowledged returns the greatest index that a write quorum has reached, each member being at
// index(member): the position up to which a replicated log is agreed. It is zero if there is none.
func (s System) Acknowledged(index func(protocol.NodeID) (at uint64, known bool)) uint64 {
	type reached struct {
		at    uint64
		votes int
	}
	all := make([]reached, 0, len(s.Members))
	for _, m := range s.Members {
		if at, known := index(m.Node); known {
			all = append(all, reached{at, m.Votes})
		}
	}
	slices.SortFunc(all, func(a, b reached) int { return cmp.Compare(b.at, a.at) })
	votes := 0
	for _, r := range all {
		if votes += r.votes; votes >= s.Write {
			return r.at
		}
	}
	return 0
}
