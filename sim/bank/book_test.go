package bank_test

import (
	"testing"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/sim"
	"assent/sim/bank"
	"assent/spec"
)

// TestBook has things happen to a transfer of 5 from a to b, and wants to be told of what is wrong.
func TestBook(t *testing.T) {
	const id commit.TransactionID = "t"
	both := func(do func(protocol.NodeID)) { do("a"); do("b") }
	commits := func(b *bank.Book) {
		both(func(n protocol.NodeID) { b.Voted(id, n, commit.Yes) })
		b.Decided(id, commit.Commit)
		both(func(n protocol.NodeID) { b.Finished(id, n, commit.Committed) })
	}
	for name, c := range map[string]struct {
		happens func(*bank.Book)
		a, b    int64 // balances at the end
		breaks  string
	}{
		"a transfer":              {commits, 95, 105, ""},
		"one that aborts":         {func(b *bank.Book) { b.Told(id, commit.Abort) }, 100, 100, ""},
		"money is lost":           {commits, 95, 100, bank.ClaimPlace},
		"a branch was not asked":  {func(b *bank.Book) { b.Finished(id, "a", commit.Committed) }, 95, 100, spec.AC2().Name},
		"two ends of a branch":    {func(b *bank.Book) { commits(b); b.Finished(id, "a", commit.RolledBack) }, 95, 105, bank.ClaimHeuristic},
		"a branch is lost":        {func(b *bank.Book) { commits(b); b.Finished(id, "a", commit.Hazard) }, 95, 105, bank.ClaimHeuristic},
		"two decisions":           {func(b *bank.Book) { commits(b); b.Decided(id, commit.Abort) }, 95, 105, bank.ClaimAgreement},
		"another is concluded":    {func(b *bank.Book) { commits(b); b.Concluded(id, commit.Concluded{Decision: commit.Abort}) }, 95, 105, bank.ClaimAgreement},
		"a client was told else":  {func(b *bank.Book) { commits(b); b.Told(id, commit.Abort) }, 95, 105, bank.ClaimTold},
		"a client was told twice": {func(b *bank.Book) { b.Told(id, commit.Abort); b.Told(id, commit.Commit) }, 100, 100, bank.ClaimTold},
		"a vote is no": {func(b *bank.Book) {
			b.Voted(id, "a", commit.Yes)
			b.Voted(id, "b", commit.No)
			b.Decided(id, commit.Commit)
		}, 100, 100, spec.AC3().Name},
		"half is read": {func(b *bank.Book) { b.Audited(150, 2) }, 100, 100, bank.ClaimMoney},
	} {
		t.Run(name, func(t *testing.T) {
			run := sim.NewRun(sim.Plan{}, nil, nil, nil, nil)
			b := bank.NewBook(run)
			b.Begin(id, []bank.Part{{Node: "a", Operations: []bank.Operation{{Change: -5}}},
				{Node: "b", Operations: []bank.Operation{{Change: 5}}}}, false)
			c.happens(b)
			b.Judge([]spec.Property{spec.AC1(), spec.AC2(), spec.AC3()})
			b.Settle([]bank.Holder{{Node: "a", Balances: []int64{c.a}}, {Node: "b", Balances: []int64{c.b}}},
				func(t *bank.Entry) bool { return t.Stands == commit.Commit })
			broken := ""
			if f := run.Report().Failure; f != nil {
				broken = f.Claim
			}
			if broken != c.breaks {
				t.Errorf("it breaks %q, and should break %q", broken, c.breaks)
			}
		})
	}
}
