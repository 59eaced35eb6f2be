package cluster

import (
	"math/rand/v2"
	"testing"
	"time"

	"assent/protocol"
	"assent/protocol/membership"
	"assent/sim"
	"assent/sim/simtest"
	"assent/trace"
)

// TestFlaws gives the cluster one fault each and wants it found by a claim, and the plan of the seed shrunk to a
// few faults and pieces of work, and its script to replay.
func TestFlaws(t *testing.T) {
	if simtest.UnderRace {
		t.Skip("it takes long here; make test runs it without the race detector")
	}
	moving := Cluster{Members: []Member{{Node: "a"}, {Node: "b"}, {Node: "c", Votes: 3}}, Changes: 8, Jobs: 24, Safety: 15 * time.Second}
	cut := []sim.Class{sim.Crash, sim.Loss, sim.Partition, sim.OneWay, sim.Delay}
	for name, f := range map[string]struct {
		flaw
		first   uint64 // a seed from which on it is found soon, to save time
		cluster Cluster
		classes []sim.Class
	}{
		"what the registers do not know is taken for aborted": {unknownIsAbort, 290, Cluster{}, Classes()},
		"an acceptor comes back without what it promised":     {forgetsRecord, 370, Cluster{}, Classes()},
		"one vote less than must be is read":                  {smallQuorum, 406, Cluster{}, Classes()},
		"what stands in the register is ignored":              {ignoresAnswer, 38, Cluster{}, Classes()},
		"commit is told when it is proposed":                  {tellsEarly, 3, Cluster{}, Classes()},
		"every life of a node has the same name":              {reusesName, 47, Cluster{}, Classes()},
		"votes leave an acceptor before they are stable":      {votesUnforced, 888, Cluster{}, Classes()},
		"who stays drops what it holds when an epoch begins":  {dropsHeld, 290, Cluster{}, Classes()},
		"the registers move and nobody reads the old ones":    {movesUnread, 327, moving, cut},
		"who has left an epoch votes in it":                   {votesLate, 761, Cluster{Changes: 4, Jobs: 60, Accounts: 20}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &f.cluster
			c.flaw = f.flaw
			small := simtest.Find(t, c, f.first, 3000, func(seed uint64) sim.Plan {
				plan := c.Draw(seed, f.classes)
				if f.flaw == votesLate {
					strand(c, &plan)
				}
				return plan
			}, c.Work(), 8)
			simtest.Replays(t, small, func(h trace.Header) (sim.Subject, sim.Plan, error) {
				again, plan, err := FromHeader(h)
				if err == nil {
					again.flaw = f.flaw // which no script names
				}
				return again, plan, err
			})
		})
	}
}

// strand makes the plan one in which a proposer does not hear that its epoch is over. No seed of thousands draws that: the
// proposer must be cut off alone, with its proposals on their way, when the weights change; meet one of those who know of
// that, and nobody else, before that one tells it; and the one whose weight suffices now must not hear of either. A plan
// without such a change is left as it is.
func strand(c *Cluster, plan *sim.Plan) {
	w := newWorld(c.filled(), sim.Plan{Seed: plan.Seed, Safety: plan.Safety}, nil)
	d := rand.New(rand.NewPCG(plan.Seed, 77))
	for number := w.c.Jobs; number < w.c.Work(); number++ {
		k := w.drawChange(number)
		heavy := w.byID[k.change.Node]
		if k.change.Kind != membership.Weigh || k.change.Votes < 3 || !heavy.founder() {
			continue
		}
		var others []protocol.NodeID
		for _, n := range w.nodes[:len(w.c.Members)] {
			if n != heavy {
				others = append(others, n.ID)
			}
		}
		d.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
		alone := max(k.at-time.Duration(d.Int64N(int64(400*time.Millisecond))), 0)
		met := k.at + 300*time.Millisecond + time.Duration(d.Int64N(int64(1200*time.Millisecond)))
		slow := max(alone-time.Second, 0)
		plan.Faults = []sim.Fault{
			{Class: sim.Delay, At: slow, For: met - slow, Node: others[0], By: time.Duration(200+d.IntN(400)) * time.Millisecond},
			{Class: sim.Partition, At: alone, For: met - alone, Side: others[:1]},
			{Class: sim.Partition, At: met, For: 4 * time.Second, Side: others},
		}
		for other := w.c.Jobs; other < w.c.Work(); other++ {
			if other != number {
				plan.Skip = append(plan.Skip, other)
			}
		}
		return
	}
}
