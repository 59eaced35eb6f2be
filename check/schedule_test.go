package check_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"assent/check"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/spec"
)

// TestSchedules shows the shortest schedules; `go test -rewrite` writes them anew. Votes are yes. The
// commands:
//
//	blocks participants=N crashes=N [cooperative] [up-to-names]   to where somebody blocks
//	knows participants=2 crashes=N     to where one participant has committed, and the other is in
//	                                   doubt while the coordinator is down
//	agrees participants=N [liar=ID]    to where AC1 or AC4 does not hold, in the synchronous model,
//	                                   without a fault but for one lie: yes told as no, commit as abort
func TestSchedules(t *testing.T) {
	beside(t)
	datadriven.RunTest(t, "testdata/schedules", func(t *testing.T, d *datadriven.TestData) string {
		model := twoPhaseCommit{TwoPhase: commit.TwoPhase{Votes: []commit.Vote{commit.Yes}}}
		model.Options.Cooperative = d.HasArg("cooperative")
		d.ScanArgs(t, "participants", &model.Participants)
		d.MaybeScanArgs(t, "crashes", &model.Faults.Crashes)
		var claims check.Claims
		var liar protocol.NodeID
		switch d.Cmd {
		case "blocks":
			model.Faults.Duplicates = check.Unlimited
			claims.Decided = spec.ParticipantDone
		case "knows":
			model.Faults.Duplicates = check.Unlimited
			claims.Always = []spec.Property{{Name: "nobody is in doubt beside one who knows", Holds: func(v spec.View) bool {
				l := read(*v.(*check.State))
				return !l.inDoubt(1) && !l.inDoubt(2) || committed(v) != 1
			}}}
		case "agrees":
			model.Model, model.Steadfast = check.Synchronous, true
			claims.Always = []spec.Property{spec.AC1(), spec.AC4()}
			if text := ""; d.MaybeScanArgs(t, "liar", &text) {
				liar, model.Faults.Lies = protocol.NodeID(text), 1
			}
		default:
			d.Fatalf(t, "unknown command %q", d.Cmd)
		}
		sys, err := model.system()
		if err != nil {
			t.Fatal(err)
		}
		sys.Lie = func(from, to protocol.NodeID, m protocol.Message) []protocol.Message { return lieOf(from == liar, m) }
		if d.HasArg("up-to-names") {
			sys = interchangeable(sys)
		}
		r, err := check.Run(t.Context(), sys, claims, check.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		return schedule(r)
	})
}

// lieOf is what a liar says instead of m.
func lieOf(lies bool, m protocol.Message) []protocol.Message {
	if !lies {
		return nil
	}
	switch m := m.(type) {
	case commit.Voted:
		if m.Vote == commit.Yes {
			m.Vote = commit.No
			return []protocol.Message{m}
		}
	case commit.Finish:
		if m.Decision == commit.Commit {
			m.Decision = commit.Abort
			return []protocol.Message{m}
		}
	}
	return nil
}

// schedule tells the way that a report shows, and the states at its end.
func schedule(r check.Report) string {
	all := r.Broken
	if r.Blocked != nil {
		all = append(all, *r.Blocked)
	}
	if len(all) == 0 {
		return fmt.Sprintf("holds in all of %d states\n", r.States)
	}
	c := all[0]
	return c.String() + "then\n     " + strings.Join(c.Steps[len(c.Steps)-1].After, "\n     ") + "\n"
}
