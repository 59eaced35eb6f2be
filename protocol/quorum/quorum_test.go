package quorum_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"assent/protocol"
	"assent/protocol/quorum"

	"pgregory.net/rapid"
)

func nodes(n int) []protocol.NodeID {
	ids := make([]protocol.NodeID, n)
	for i := range ids {
		ids[i] = protocol.NodeID(rune('a' + i))
	}
	return ids
}

func weighted(read, write int, votes ...int) quorum.System {
	s := quorum.System{Read: read, Write: write}
	for i, id := range nodes(len(votes)) {
		s.Members = append(s.Members, quorum.Member{Node: id, Votes: votes[i]})
	}
	return s
}

func TestMajorityToleratesF(t *testing.T) {
	for f := range 5 {
		s := quorum.Majority(nodes(2*f + 1)...)
		if err := errors.Join(s.Validate(), s.Exclusive(), s.Tolerate(f)); err != nil {
			t.Errorf("%d nodes: %v", 2*f+1, err)
		}
		if s.Tolerance() != f {
			t.Errorf("%d nodes tolerate %d, want %d", 2*f+1, s.Tolerance(), f)
		}
		if err := s.Tolerate(f + 1); !errors.Is(err, quorum.ErrInvalid) {
			t.Errorf("%d nodes tolerate %d: %v", 2*f+1, f+1, err)
		}
	}
}

func TestInvalidSystemsSayWhatToDo(t *testing.T) {
	witnesses := weighted(1, 3, 1, 1, 1)
	witnesses.Members[0].Witness, witnesses.Members[1].Witness, witnesses.Members[2].Witness = true, true, true
	twice := quorum.Majority("a", "b", "a")
	for _, c := range []struct {
		name   string
		system quorum.System
		want   string
	}{
		{"empty", quorum.System{}, "name at least one node"},
		{"many", quorum.Majority(nodes(quorum.MaxMembers + 1)...), "at most 256"},
		{"nameless", quorum.Majority("a", "", "c"), "without a name"},
		{"twice", twice, "a is a member twice"},
		{"voteless", weighted(1, 1, 1, 0), "b has 0 votes"},
		{"negative", weighted(1, 1, 1, -1), "b has -1 votes"},
		{"heavy", weighted(1, 1, quorum.MaxVotes+1), "give 1 to 65536"},
		{"no read quorum", weighted(0, 3, 1, 1, 1), "a read quorum of 0 votes, there are 3"},
		{"write out of reach", weighted(1, 4, 1, 1, 1), "a write quorum of 4 votes, there are 3"},
		{"disjoint", weighted(1, 2, 1, 1, 1), "raise one of them by 1"},
		{"disjoint by far", weighted(1, 1, 3, 3, 3), "raise one of them by 8"},
		{"witnesses", witnesses, "raise write to 4"},
	} {
		err := c.system.Validate()
		if !errors.Is(err, quorum.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// Flexible Paxos needs only that the phases meet: with a ballot two write quorums need not.
func TestFlexibleQuorums(t *testing.T) {
	s := weighted(4, 1, 1, 1, 1, 1)
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	if err := s.Exclusive(); !errors.Is(err, quorum.ErrInvalid) || !strings.Contains(err.Error(), "raise write to 3") {
		t.Errorf("two writers: %v", err)
	}
	if s.Tolerance() != 0 {
		t.Errorf("tolerates %d", s.Tolerance())
	}
	if err := s.Tolerate(1); err == nil || !strings.Contains(err.Error(), "with a failed 3 of 4 votes are left and 4 are needed to read") {
		t.Error(err)
	}
}

func TestToleranceTakesTheHeaviest(t *testing.T) {
	s := weighted(4, 4, 3, 1, 1, 1, 1)
	if s.Tolerance() != 1 {
		t.Errorf("tolerates %d, want 1", s.Tolerance())
	}
	if err := s.Tolerate(2); err == nil || !strings.Contains(err.Error(), "with a and b failed 3 of 7 votes are left") {
		t.Error(err)
	}
	if got := weighted(5, 5, 3, 1, 1, 1, 1).Tolerance(); got != 0 {
		t.Errorf("tolerates %d, want 0", got)
	}
	if err := s.Tolerate(6); err == nil {
		t.Error("6 of 5 members may fail")
	}
	if got := weighted(4, 4, 1, 1, 1).Tolerance(); got != -1 {
		t.Errorf("a quorum that is out of reach: %d, want -1", got)
	}
	if left := s.Without("a"); left.Total() != 4 || left.WriteTally(all(quorum.Granted)).Verdict() != quorum.Reached || s.Total() != 7 {
		t.Errorf("without a: %v", left)
	}
}

func all(a quorum.Answer) func(protocol.NodeID) quorum.Answer {
	return func(protocol.NodeID) quorum.Answer { return a }
}

func TestTallyExplains(t *testing.T) {
	s := weighted(5, 5, 2, 2, 1, 1, 1)
	answers := map[protocol.NodeID]quorum.Answer{"a": quorum.Granted, "b": quorum.Granted,
		"c": quorum.Unreachable, "d": quorum.Silent, "e": quorum.Unreachable}
	of := func(n protocol.NodeID) quorum.Answer { return answers[n] }
	for _, step := range []struct {
		node   protocol.NodeID
		answer quorum.Answer
		text   string
		is     quorum.Verdict
	}{
		{"a", quorum.Granted, "4 of 7 votes, 5 needed: c and e unreachable, d silent", quorum.Pending},
		{"d", quorum.Refused, "4 of 7 votes, 5 needed: d refused, c and e unreachable", quorum.Pending},
		{"c", quorum.Refused, "4 of 7 votes, 5 needed: c and d refused, e unreachable", quorum.Pending},
		{"e", quorum.Refused, "4 of 7 votes, 5 needed: c, d and e refused", quorum.Lost},
		{"c", quorum.Granted, "5 of 7 votes, 5 needed", quorum.Reached},
	} {
		answers[step.node] = step.answer
		tally := s.ReadTally(of)
		if tally.String() != step.text || tally.Verdict() != step.is {
			t.Errorf("%v: %q %v, want %q %v", answers, tally, tally.Verdict(), step.text, step.is)
		}
	}
}

func drawSystem(t *rapid.T) quorum.System {
	votes := rapid.SliceOfN(rapid.IntRange(1, 4), 1, 7).Draw(t, "votes")
	s := weighted(0, 0, votes...)
	s.Read = rapid.IntRange(1, s.Total()).Draw(t, "read")
	s.Write = rapid.IntRange(1, s.Total()).Draw(t, "write")
	return s
}

// subset answers Granted for the members whose bit is set.
func subset(s quorum.System, bits uint) func(protocol.NodeID) quorum.Answer {
	in := map[protocol.NodeID]quorum.Answer{}
	for i, m := range s.Members {
		in[m.Node] = quorum.Refused
		if bits&(1<<i) != 0 {
			in[m.Node] = quorum.Granted
		}
	}
	return func(n protocol.NodeID) quorum.Answer { return in[n] }
}

// The rules are put to the definition: all pairs of sets of members. A valid system has none that
// miss each other; and where single votes are counted a refused one has some.
func TestRulesAreTheIntersections(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSystem(t)
		sets := uint(1) << len(s.Members)
		readWrite, writeWrite := true, true
		for a := range sets {
			reads := s.ReadTally(subset(s, a)).Verdict() == quorum.Reached
			if s.Reading(subset(s, a)) != s.ReadTally(subset(s, a)).Verdict() || s.Writing(subset(s, a)) != s.WriteTally(subset(s, a)).Verdict() {
				t.Fatalf("%v: a verdict is not that of its tally", s)
			}
			writes := s.WriteTally(subset(s, a)).Verdict() == quorum.Reached
			for b := range sets {
				if a&b != 0 || s.WriteTally(subset(s, b)).Verdict() != quorum.Reached {
					continue
				}
				readWrite = readWrite && !reads
				writeWrite = writeWrite && !writes
			}
		}
		valid, exclusive := s.Validate() == nil, s.Exclusive() == nil
		single := s.Total() == len(s.Members)
		if valid && !readWrite || single && valid != readWrite {
			t.Fatalf("%v: valid %v, every read meets every write %v", s, valid, readWrite)
		}
		if exclusive && !writeWrite || single && exclusive != writeWrite {
			t.Fatalf("%v: exclusive %v, any two writes meet %v", s, exclusive, writeWrite)
		}
	})
}

func TestToleranceIsTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSystem(t)
		f := rapid.IntRange(0, len(s.Members)).Draw(t, "f")
		survives := true
		for failed := range uint(1) << len(s.Members) {
			n := 0
			for i := range s.Members {
				n += int(failed >> i & 1)
			}
			if n == f {
				left := subset(s, ^failed)
				survives = survives && s.ReadTally(left).Verdict() == quorum.Reached &&
					s.WriteTally(left).Verdict() == quorum.Reached
			}
		}
		if got := s.Tolerate(f) == nil; got != survives {
			t.Fatalf("%v tolerates %d: %v, want %v", s, f, got, survives)
		}
	})
}

func TestVerdictsAreFinal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := quorum.Joint{drawSystem(t), drawSystem(t)}
		answers := map[protocol.NodeID]quorum.Answer{}
		of := func(n protocol.NodeID) quorum.Answer { return answers[n] }
		read, write := quorum.Pending, quorum.Pending
		order := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0))
		ids := nodes(7)
		order.Shuffle(len(ids), func(a, b int) { ids[a], ids[b] = ids[b], ids[a] })
		for _, id := range ids {
			answers[id] = quorum.Answer(rapid.IntRange(1, 2).Draw(t, "answer"))
			r, w := j.Read(of), j.Write(of)
			if read != quorum.Pending && r != read || write != quorum.Pending && w != write {
				t.Fatalf("read %v to %v, write %v to %v", read, r, write, w)
			}
			read, write = r, w
		}
		if read == quorum.Pending || write == quorum.Pending {
			t.Fatal("pending with every answer known")
		}
	})
}

func ExampleTally() {
	s := quorum.Majority("a", "b", "c", "d", "e")
	fmt.Println(s.WriteTally(func(n protocol.NodeID) quorum.Answer {
		if n == "a" || n == "b" {
			return quorum.Granted
		}
		return quorum.Unreachable
	}))
	// Output: 2 of 5 votes, 3 needed: c, d and e unreachable
}
