package check_test

import (
	"os"
	"testing"

	"assent/check"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/spec"
)

func paxosCommit(t *testing.T, c commit.PaxosCommit, f check.Faults, m check.Model, claims check.Claims) check.Report {
	t.Helper()
	nodes, err := c.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	codec, err := protocol.NewCodec(commit.Types()...)
	if err != nil {
		t.Fatal(err)
	}
	r := search(t, check.System{Nodes: nodes, Codec: codec, Faults: f, Model: m}, claims, 40_000_000)
	for _, b := range r.Broken {
		t.Error(b)
	}
	if len(r.Never) > 0 {
		t.Errorf("never: %v", r.Never)
	}
	return r
}

// TestPaxosCommitIsSafe: AC1 to AC3 in the asynchronous model, with loss, repetition and reordering
// without limit.
func TestPaxosCommitIsSafe(t *testing.T) {
	crashes := func(n int) check.Faults {
		return check.Faults{Duplicates: check.Unlimited, Crashes: n, Restarts: n}
	}
	one, yes := commit.Options{Rounds: 1}, []commit.Vote{commit.Yes}
	for name, c := range map[string]struct {
		commit.PaxosCommit
		check.Faults
		soak bool
	}{
		"one acceptor, two crashes":       {commit.PaxosCommit{Participants: 2, Options: one}, crashes(2), false},
		"one participant":                 {commit.PaxosCommit{Participants: 1, F: 1, CoLocated: true, Leaders: 1, Options: one}, crashes(0), false},
		"one participant, two leaders":    {commit.PaxosCommit{Participants: 1, F: 1, CoLocated: true, Leaders: 2, Steadfast: true, Votes: yes, Options: one}, crashes(0), true},
		"one leader, fast":                {commit.PaxosCommit{Participants: 2, F: 1, CoLocated: true, Leaders: 1, Steadfast: true, Votes: yes, Fast: true, Options: one}, crashes(0), true},
		"one acceptor, two crashes, fast": {commit.PaxosCommit{Participants: 2, Fast: true, Options: one}, crashes(2), true},
		"one acceptor, a crash, fast":     {commit.PaxosCommit{Participants: 2, Fast: true, Steadfast: true, Votes: []commit.Vote{commit.Yes, commit.No}, Options: one}, crashes(1), false},
		"one participant, fast":           {commit.PaxosCommit{Participants: 1, F: 1, CoLocated: true, Leaders: 1, Fast: true, Options: one}, crashes(0), false},
		"one leader":                      {commit.PaxosCommit{Participants: 2, F: 1, CoLocated: true, Leaders: 1, Steadfast: true, Options: one}, crashes(0), true},
	} {
		t.Run(name, func(t *testing.T) {
			if c.soak && os.Getenv("ASSENT_SOAK") == "" {
				t.Skip("millions of states: run by make soak")
			}
			paxosCommit(t, c.PaxosCommit, c.Faults, check.Asynchronous, check.Claims{
				Always: []spec.Property{spec.AC1(), spec.AC2(), spec.AC3()}, Sometimes: []spec.Property{spec.AllCommit()}})
		})
	}
}

// TestPaxosCommitDoesNotBlock is AC5: with 2F + 1 acceptors nobody blocks while F of them are down,
// the coordinator among them; with one more down somebody does. With F = 0 it is two-phase commit,
// and blocks when the coordinator is down.
func TestPaxosCommitDoesNotBlock(t *testing.T) {
	for name, c := range map[string]struct {
		commit.PaxosCommit
		crashes int
		blocks  bool
	}{
		"F crashes": {commit.PaxosCommit{Participants: 2, F: 1, CoLocated: true, Options: commit.Options{Rounds: 3}}, 1, false},
		// Every leader owns ballot 0 of one of the agreements that it must bring to an end.
		"F crashes, no acceptor without a branch": {commit.PaxosCommit{Participants: 3, F: 1, CoLocated: true, Votes: []commit.Vote{commit.Yes}, Options: commit.Options{Rounds: 2}}, 1, false},
		"F crashes, fast":                         {commit.PaxosCommit{Participants: 2, F: 1, CoLocated: true, Fast: true, Votes: []commit.Vote{commit.Yes}, Options: commit.Options{Rounds: 3}}, 1, false},
		"F + 1 crashes":                           {commit.PaxosCommit{Participants: 2, F: 1, CoLocated: true, Steadfast: true, Votes: []commit.Vote{commit.Yes}, Options: commit.Options{Rounds: 3}}, 2, true},
		"F = 0":                                   {commit.PaxosCommit{Participants: 2, Steadfast: true, Options: commit.Options{Rounds: 1}}, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := paxosCommit(t, c.PaxosCommit, check.Faults{Crashes: c.crashes}, check.Synchronous, check.Claims{
				Always:    []spec.Property{spec.AC1(), spec.AC2(), spec.AC3()},
				Sometimes: []spec.Property{spec.AllCommit()}, Decided: spec.AC5().Decided})
			if (r.Blocked != nil) != c.blocks {
				t.Errorf("blocked in %d states: %v", r.Blocking, r.Blocked)
			}
		})
	}
}

// TestPaxosCommitQuietRunCommits is AC4.
func TestPaxosCommitQuietRunCommits(t *testing.T) {
	for name, c := range map[string]struct {
		commit.PaxosCommit
		long bool
	}{
		"apart":              {commit.PaxosCommit{Participants: 2, F: 1}, false},
		"co-located":         {commit.PaxosCommit{Participants: 2, F: 1, CoLocated: true}, false},
		"F = 0":              {commit.PaxosCommit{Participants: 3}, false},
		"faster, apart":      {commit.PaxosCommit{Participants: 2, F: 1, Fast: true}, true},
		"faster, co-located": {commit.PaxosCommit{Participants: 2, F: 1, CoLocated: true, Fast: true}, false},
		"faster, F = 0":      {commit.PaxosCommit{Participants: 3, Fast: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if c.long {
				soak(t)
			}
			c.Steadfast, c.Options.Rounds = true, 1
			r := paxosCommit(t, c.PaxosCommit, check.Faults{}, check.Synchronous, check.Claims{
				Always:    []spec.Property{spec.AC1(), spec.AC2(), spec.AC3(), spec.AC4()},
				Sometimes: []spec.Property{spec.AllCommit()}, Decided: spec.AC5().Decided})
			if r.Blocked != nil {
				t.Errorf("%+v: %v", c.PaxosCommit, r.Blocked)
			}
		})
	}
}
