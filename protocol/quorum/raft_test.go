package quorum_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"assent/protocol"
	"assent/protocol/quorum"

	"github.com/cockroachdb/datadriven"
	raft "go.etcd.io/raft/v3/quorum"
	"pgregory.net/rapid"
)

// raftCase is a case of raft's: one or two majorities, and what each voter has said, in the order in
// which the voters are named first.
type raftCase struct {
	joint quorum.Joint
	said  map[protocol.NodeID]string
}

func readRaftCase(t *testing.T, d *datadriven.TestData) raftCase {
	c := raftCase{said: map[protocol.NodeID]string{}}
	var voters []protocol.NodeID
	var said []string
	for _, arg := range d.CmdArgs {
		switch arg.Key {
		case "cfg", "cfgj":
			var ids []protocol.NodeID
			for _, v := range arg.Vals {
				if v == "zero" {
					continue
				}
				ids = append(ids, protocol.NodeID(v))
				if !slices.Contains(voters, protocol.NodeID(v)) {
					voters = append(voters, protocol.NodeID(v))
				}
			}
			if len(ids) > 0 {
				slices.Sort(ids)
				c.joint = append(c.joint, quorum.Majority(slices.Compact(ids)...))
			}
		case "idx", "votes":
			said = append(said, arg.Vals...)
		default:
			d.Fatalf(t, "an argument that is not known: %s", arg.Key)
		}
	}
	if len(voters) != len(said) {
		d.Fatalf(t, "%d voters and %d answers", len(voters), len(said))
	}
	for i, v := range voters {
		c.said[v] = said[i]
	}
	return c
}

func (c raftCase) answer(n protocol.NodeID) quorum.Answer {
	switch c.said[n] {
	case "y":
		return quorum.Granted
	case "n":
		return quorum.Refused
	}
	return quorum.Silent
}

func (c raftCase) index(n protocol.NodeID) (uint64, bool) {
	at, err := strconv.ParseUint(c.said[n], 10, 64)
	return at, err == nil
}

var raftVerdicts = map[quorum.Verdict]string{quorum.Reached: "VoteWon", quorum.Pending: "VotePending", quorum.Lost: "VoteLost"}

// run answers with the last line of what raft expects; before it stands a picture for people.
func (c raftCase) run(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "committed":
		if at := c.joint.Acknowledged(c.index); at != 1<<64-1 {
			return strconv.FormatUint(at, 10)
		}
		return "∞"
	case "vote":
		if read, write := c.joint.Read(c.answer), c.joint.Write(c.answer); read != write {
			d.Fatalf(t, "a majority reads %v and writes %v", read, write)
		}
		return raftVerdicts[c.joint.Write(c.answer)]
	}
	d.Fatalf(t, "a command that is not known: %s", d.Cmd)
	return ""
}

// The cases that go.etcd.io/raft tests its quorums with are read where the module lies.
func TestCasesOfRaft(t *testing.T) {
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "go.etcd.io/raft/v3").Output()
	if err != nil {
		t.Fatalf("where the module go.etcd.io/raft/v3 lies: %v", err)
	}
	cases := 0
	datadriven.Walk(t, filepath.Join(strings.TrimSpace(string(module)), "quorum", "testdata"), func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			cases++
			want := strings.TrimRight(d.Expected, "\n")
			want = want[strings.LastIndexByte(want, '\n')+1:]
			if got := readRaftCase(t, d).run(t, d); !strings.HasSuffix(want, got) || got != "∞" && want != got {
				t.Errorf("%s: %s: got %s, want %s", d.Pos, d.Input, got, want)
			}
			return d.Expected
		})
	})
	if cases != 127 {
		t.Errorf("%d cases were run, want 127", cases)
	}
}

type raftIndex map[uint64]raft.Index

func (r raftIndex) AckedIndex(id uint64) (raft.Index, bool) { at, ok := r[id]; return at, ok }

// What the cases leave out is compared with raft's own code.
func TestAgreesWithRaft(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var theirs raft.JointConfig
		var ours quorum.Joint
		for i := range theirs {
			theirs[i] = raft.MajorityConfig{}
			var ids []protocol.NodeID
			for id := range uint64(7) {
				if rapid.Bool().Draw(t, fmt.Sprintf("%d in %d", id, i)) {
					theirs[i][id] = struct{}{}
					ids = append(ids, protocol.NodeID(strconv.FormatUint(id, 10)))
				}
			}
			if len(ids) > 0 {
				ours = append(ours, quorum.Majority(ids...))
			}
		}
		index, votes, c := raftIndex{}, map[uint64]bool{}, raftCase{said: map[protocol.NodeID]string{}}
		for id := range uint64(7) {
			if n := rapid.Uint64Range(0, 9).Draw(t, "index"); n > 0 {
				index[id] = raft.Index(n)
				c.said[protocol.NodeID(strconv.FormatUint(id, 10))] = strconv.FormatUint(n, 10)
			}
		}
		if got, want := ours.Acknowledged(c.index), uint64(theirs.CommittedIndex(index)); got != want {
			t.Fatalf("%v at %v: acknowledged %d, want %d", theirs, index, got, want)
		}
		clear(c.said)
		for id := range uint64(7) {
			if a := rapid.SampledFrom([]string{"y", "n", "_"}).Draw(t, "vote"); a != "_" {
				votes[id] = a == "y"
				c.said[protocol.NodeID(strconv.FormatUint(id, 10))] = a
			}
		}
		if got, want := raftVerdicts[ours.Write(c.answer)], theirs.VoteResult(votes).String(); got != want {
			t.Fatalf("%v with %v: %s, want %s", theirs, votes, got, want)
		}
	})
}
