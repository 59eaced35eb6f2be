package quorum

import (
	"fmt"
	"strings"

	"assent/protocol"
)

// Answer is what a member has said when it was asked for its votes.
type Answer uint8

// The answers.
const (
	// Silent: no answer yet.
	Silent Answer = iota
	// Granted: the member gives its votes.
	Granted
	// Refused: the member gives its votes to another, or to nobody.
	Refused
	// Unreachable: no answer, and none is expected soon. It may still come.
	Unreachable
)

// Verdict says how a count stands. The order is that of Joint: the worst of several counts.
type Verdict uint8

// The verdicts.
const (
	// Reached: the votes suffice, whatever the others say.
	Reached Verdict = iota
	// Pending: it depends on those who have not answered.
	Pending
	// Lost: the votes cannot suffice any more.
	Lost
)

// String returns the verdict's name.
func (v Verdict) String() string {
	switch v {
	case Reached:
		return "reached"
	case Pending:
		return "pending"
	case Lost:
		return "lost"
	}
	return "invalid"
}

// Tally is a count of votes.
type Tally struct {
	// Needed is how many votes suffice, Total how many there are.
	Needed, Total int
	// For are votes granted, Against votes refused.
	For, Against int
	// Refused, Silent and Unreachable are the members that did not grant their votes, in the
	// order of the system.
	Refused, Silent, Unreachable []protocol.NodeID
}

// ReadTally counts what answer says of each member against the read quorum.
func (s System) ReadTally(answer func(protocol.NodeID) Answer) Tally { return s.tally(s.Read, answer) }

// WriteTally counts what answer says of each member against the write quorum.
func (s System) WriteTally(answer func(protocol.NodeID) Answer) Tally {
	return s.tally(s.Write, answer)
}

// Reading is ReadTally's verdict, without the names.
func (s System) Reading(answer func(protocol.NodeID) Answer) Verdict {
	return s.verdict(s.Read, answer)
}

// Writing is WriteTally's verdict, without the names.
func (s System) Writing(answer func(protocol.NodeID) Answer) Verdict {
	return s.verdict(s.Write, answer)
}

func (s System) verdict(needed int, answer func(protocol.NodeID) Answer) Verdict {
	t := Tally{Needed: needed}
	for _, m := range s.Members {
		t.Total += m.Votes
		switch answer(m.Node) {
		case Granted:
			t.For += m.Votes
		case Refused:
			t.Against += m.Votes
		}
	}
	return t.Verdict()
}

func (s System) tally(needed int, answer func(protocol.NodeID) Answer) Tally {
	t := Tally{Needed: needed, Total: s.Total()}
	for _, m := range s.Members {
		switch answer(m.Node) {
		case Granted:
			t.For += m.Votes
		case Refused:
			t.Against += m.Votes
			t.Refused = append(t.Refused, m.Node)
		case Unreachable:
			t.Unreachable = append(t.Unreachable, m.Node)
		default:
			t.Silent = append(t.Silent, m.Node)
		}
	}
	return t
}

// Verdict says how the count stands.
func (t Tally) Verdict() Verdict {
	switch {
	case t.For >= t.Needed:
		return Reached
	case t.Total-t.Against < t.Needed:
		return Lost
	}
	return Pending
}

// String explains the count: "4 of 7 votes, 5 needed: c and e unreachable".
func (t Tally) String() string {
	text := fmt.Sprintf("%d of %d votes, %d needed", t.For, t.Total, t.Needed)
	if t.Verdict() == Reached {
		return text
	}
	var why []string
	for _, w := range []struct {
		nodes []protocol.NodeID
		what  string
	}{{t.Refused, "refused"}, {t.Unreachable, "unreachable"}, {t.Silent, "silent"}} {
		if len(w.nodes) > 0 {
			why = append(why, list(w.nodes)+" "+w.what)
		}
	}
	if len(why) == 0 {
		return text
	}
	return text + ": " + strings.Join(why, ", ")
}

// list writes names as a sentence does: "a, b and c".
func list[S ~string](names []S) string {
	if len(names) == 0 {
		return "none"
	}
	var b strings.Builder
	for i, n := range names {
		switch {
		case i == 0:
		case i == len(names)-1:
			b.WriteString(" and ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(string(n))
	}
	return b.String()
}
