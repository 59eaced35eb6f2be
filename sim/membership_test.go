package sim_test

import (
	"slices"
	"testing"

	"assent/protocol"
	"assent/protocol/membership"
	"assent/sim"
	"assent/spec"
)

// TestMembershipSeeds: a cluster among all faults but lies; after them all that anybody asked for is done, and
// everybody has its vote, or may be switched off.
func TestMembershipSeeds(t *testing.T) {
	for name, c := range map[string]struct {
		membership.Cluster
		voters int
	}{
		"founders":    {membership.Cluster{Founders: 5, Keys: 3}, 5},
		"exclusion":   {membership.Cluster{Founders: 5, Keys: 3, Options: membership.Options{Exclude: 20, Every: 5}}, 4},
		"joining":     {membership.Cluster{Founders: 3, Joiners: 2, Keys: 3, Options: membership.Options{Every: 4}}, 5},
		"leaving":     {membership.Cluster{Founders: 5, Keys: 2, Leaving: []int{5, 4}}, 3},
		"a lost disk": {membership.Cluster{Founders: 3, Keys: 3, Forgetful: []int{2}, Options: membership.Options{Every: 3}}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			nodes, err := c.Nodes()
			s := system(t, "membership", nodes, err, membership.ClusterTypes())
			s.Always = []spec.Property{spec.LinearMembership(), spec.RefusedForGood()}
			s.Sometimes = []spec.Property{spec.ViewReached(c.voters)}
			s.Done = func(_ int, m protocol.Machine) bool { return m.(*membership.Citizen).Content() }
			seeds(t, s, enough(12, 1000), slices.DeleteFunc(sim.Classes(), func(c sim.Class) bool { return c == sim.Whim })) // there are no inputs
		})
	}
}
