package check_test

import (
	"testing"

	"assent/check"
	"assent/protocol"
	"assent/protocol/membership"
	"assent/spec"
)

// TestViewsAreLinear: changes of members before two leaders, with loss, repetition and reordering without
// limit, crashes, and state transfer. Where one of the leaders suspects everybody, both are asked for the same
// changes, and what that one refuses the other may have tried, or may try yet.
func TestViewsAreLinear(t *testing.T) {
	always := check.Faults{Duplicates: check.Unlimited}
	crash := check.Faults{Duplicates: check.Unlimited, Crashes: 1, Restarts: 1}
	leave, heavier := membership.Change{Kind: membership.Leave, Node: "n1"}, membership.Change{Kind: membership.Weigh, Node: "n2", Votes: 3}
	asked := func(a membership.Assembly, node protocol.NodeID) membership.Assembly {
		a.Changes, a.Shared, a.Wary = []membership.Change{{Kind: membership.Leave, Node: node, Operator: "alice"}}, true, []int{2}
		return a
	}
	for name, c := range map[string]struct {
		membership.Assembly
		check.Faults
		voters int
		long   bool
	}{
		"one leader refuses":                {asked(membership.Assembly{Members: 2, Leaders: 2, Rounds: 2}, "n2"), always, 1, false},
		"one leader refuses, a crash":       {asked(membership.Assembly{Members: 2, Leaders: 2, Rounds: 2}, "n2"), crash, 1, false},
		"one leader of three refuses":       {asked(membership.Assembly{Members: 3, Leaders: 2, Rounds: 2}, "n3"), always, 2, true},
		"a member leaves":                   {membership.Assembly{Members: 2, Leaders: 2, Changes: []membership.Change{leave}, Rounds: 2}, always, 1, false},
		"a member leaves, a crash":          {membership.Assembly{Members: 2, Leaders: 2, Changes: []membership.Change{leave}, Rounds: 2}, crash, 1, false},
		"one of three leaves":               {membership.Assembly{Members: 3, Leaders: 2, Changes: []membership.Change{leave}, Rounds: 1}, always, 2, false},
		"votes change and one leaves":       {membership.Assembly{Members: 2, Leaders: 2, Changes: []membership.Change{heavier, leave}, Rounds: 2, Every: 2}, always, 1, false},
		"one of three leaves, a crash":      {membership.Assembly{Members: 3, Leaders: 2, Changes: []membership.Change{leave}, Rounds: 1}, crash, 2, true},
		"one of three leaves, more ballots": {membership.Assembly{Members: 3, Leaders: 2, Changes: []membership.Change{leave}, Rounds: 2}, always, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			if c.long {
				soak(t)
			}
			nodes, err := c.Nodes()
			if err != nil {
				t.Fatal(err)
			}
			codec, err := protocol.NewCodec(membership.ClusterTypes()...)
			if err != nil {
				t.Fatal(err)
			}
			claims := check.Claims{Always: []spec.Property{spec.LinearMembership(), spec.RefusedForGood()}, Sometimes: []spec.Property{spec.ViewReached(c.voters)}}
			if c.Wary != nil {
				claims.Sometimes = append(claims.Sometimes, spec.Denial())
			}
			r := complete(t, check.System{Nodes: nodes, Codec: codec, Faults: c.Faults}, claims)
			for _, b := range r.Broken {
				t.Error(b)
			}
			if len(r.Never) > 0 {
				t.Errorf("never: %v", r.Never)
			}
		})
	}
}
