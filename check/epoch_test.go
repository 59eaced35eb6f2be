package check_test

import (
	"testing"

	"assent/check"
	"assent/protocol"
	"assent/protocol/paxos"
	"assent/spec"
)

// TestAcceptorsChangeSafely: a register whose acceptors change from {1, 2, 3} to {2, 3, 4} while two
// proposers propose, with loss, repetition and reordering without limit.
func TestAcceptorsChangeSafely(t *testing.T) {
	always := check.Faults{Duplicates: check.Unlimited}
	for name, c := range map[string]struct {
		paxos.Moving
		check.Faults
		long bool
	}{
		"1 to 2":          {paxos.Moving{Proposers: 2, Old: []int{1}, New: []int{2}, Movers: 1, Silent: true, Options: steady(1)}, always, false},
		"1 to 2, told":    {paxos.Moving{Proposers: 2, Old: []int{1}, New: []int{2}, Movers: 1, Options: steady(1)}, always, true},
		"1, 2 to 2, 3":    {paxos.Moving{Proposers: 2, Old: []int{1, 2}, New: []int{2, 3}, Movers: 1, Silent: true, Options: steady(1)}, always, false},
		"1 to 1, 2, 3":    {paxos.Moving{Proposers: 2, Old: []int{1}, New: []int{1, 2, 3}, Movers: 1, Silent: true, Options: steady(1)}, always, true},
		"1, 2, 3 to 3":    {paxos.Moving{Proposers: 2, Old: []int{1, 2, 3}, New: []int{3}, Movers: 1, Silent: true, Options: steady(1)}, always, true},
		"1, 2, 3 to 2, 3": {paxos.Moving{Proposers: 2, Old: []int{1, 2, 3}, New: []int{2, 3}, Movers: 1, Silent: true, Options: steady(1)}, always, true},
	} {
		t.Run(name, func(t *testing.T) {
			if c.long {
				soak(t)
			}
			nodes, err := c.Nodes()
			if err != nil {
				t.Fatal(err)
			}
			codec, err := protocol.NewCodec(append(paxos.Types[string]("string"), paxos.EpochTypes[string]("string")...)...)
			if err != nil {
				t.Fatal(err)
			}
			claims := check.Claims{Always: []spec.Property{spec.Agreement(), spec.Validity("v1", "v2")}, Sometimes: []spec.Property{spec.Learns("v1")}}
			if c.Proposers > 1 {
				claims.Sometimes = append(claims.Sometimes, spec.Learns("v2"))
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

// steady are options under which pauses do not grow: how often one has waited is then no part of a state.
func steady(rounds uint64) paxos.Options {
	return paxos.Options{Rounds: rounds, Retry: 1, RetryMost: 1}
}
