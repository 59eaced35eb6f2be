package trace

import (
	"testing"

	"assent/protocol"
	"assent/protocol/commit"
)

func TestPoint(t *testing.T) {
	for want, e := range map[string]Event{
		"c deliver Start":                  {Kind: Deliver, Value: protocol.Start{}},
		"c deliver Voted(yes) from a":      {Kind: Deliver, Value: protocol.Receive{From: "a", Message: commit.Voted{ID: "t1", Vote: commit.Yes}}},
		"c deliver timer vote":             {Kind: Deliver, Value: protocol.Expire{Timer: commit.VoteTimer}},
		"c deliver Decided(commit)":        {Kind: Deliver, Value: protocol.Input{Value: commit.Decided{Decision: commit.Commit}}},
		"c force PreparedRecord":           {Kind: Force, Value: []protocol.Write{{Key: "branch", Record: commit.PreparedRecord{}}}},
		"c forced delete":                  {Kind: Forced, Value: []protocol.Write{{Key: "branch"}}},
		"c send Finish(abort) to b":        {Kind: Send, Peer: "b", Value: commit.Finish{ID: "t2", Decision: commit.Abort}},
		"c emit Concluded(abort voted no)": {Kind: Emit, Value: commit.Concluded{Decision: commit.Abort, Cause: commit.VotedNo, By: "a"}},
		"c emit PrepareBranch":             {Kind: Emit, Value: commit.PrepareBranch{}},
		"c invalid(99)":                    {Kind: 99},
	} {
		e.Node, e.Scope = "c", "t1"
		if got := e.Point(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
