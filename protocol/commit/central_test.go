package commit

import (
	"testing"

	"assent/protocol"
	"assent/protocol/protocoltest"
)

// TestSitesThatCoordinateAreData holds the first sites of central protocols to the kernel's terms,
// with the messages of both parts.
func TestSitesThatCoordinateAreData(t *testing.T) {
	const id = TransactionID("t")
	events := []protocol.Event{protocol.Start{}, protocol.Recover{}, protocol.Input{Value: Abandon{}}, protocol.Input{Value: Cancel{}}}
	for _, timer := range []string{VoteTimer, PreCommitTimer, ResendTimer, InquireTimer, WaitTimer, BranchTimer} {
		events = append(events, protocol.Expire{Timer: timer}, protocol.Expire{Timer: headPrefix + timer})
	}
	for _, from := range []protocol.NodeID{"p1", "p2", "p3", "stranger"} {
		for _, m := range []protocol.Message{
			Voted{ID: id, Vote: Yes}, Voted{ID: id, Vote: No}, Acknowledge{ID: id, Outcome: Committed},
			PreAcknowledge{ID: id}, StateRequest{ID: id, Round: 2}, StateReport{ID: id, State: SitePrepared},
			PreCommit{ID: id}, Inquire{ID: id}, Prepare{ID: id}, Finish{ID: id, Decision: Abort}, Finish{ID: id, Decision: Commit},
		} {
			events = append(events, protocol.Receive{From: from, Message: m})
		}
	}
	var fresh []func() protocol.Machine
	for _, phases := range []int{2, 3} {
		nodes, err := Central{Sites: 3, Phases: phases}.Nodes()
		if err != nil {
			t.Fatal(err)
		}
		fresh = append(append(fresh, nodes[0].New...), nodes[0].Anew)
	}
	protocoltest.Run(t, protocoltest.Subject{New: fresh, Events: events, Codec: codec(t)})
}

// TestSiteVotesLast: a site that coordinates asks its own branch when all others have voted yes, and
// then everything happens in one step; the others' no spares its branch the work.
func TestSiteVotesLast(t *testing.T) {
	for _, c := range []struct {
		phases int
		other  Vote
		branch BranchState
		letter Letter
	}{
		{2, Yes, BranchCommitted, LetterCommitted},
		{2, No, BranchRolledBack, LetterAborted},
		{3, Yes, BranchInDoubt, LetterPrecommitted},
		{3, No, BranchRolledBack, LetterAborted},
	} {
		nodes, err := Central{Sites: 2, Phases: c.phases, Votes: []Vote{Yes}}.Nodes()
		if err != nil {
			t.Fatal(err)
		}
		m := nodes[0].New[0]().(interface {
			protocol.Machine
			Letter() Letter
			Standing() Standing
		})
		var out protocol.Effects
		m.Step(protocol.Start{}, &out)
		if s := m.Standing(); s.Branch != BranchWorking || m.Letter() != LetterWait || len(out.Sends) != 1 {
			t.Errorf("%+v: at first %+v in %s, and sends %v", c, s, m.Letter(), out.Sends)
		}
		m.Step(protocol.Receive{From: "p2", Message: Voted{ID: "t", Vote: c.other}}, &out)
		if s := m.Standing(); s.Branch != c.branch || m.Letter() != c.letter {
			t.Errorf("%+v: %+v in %s", c, s, m.Letter())
		}
		for _, s := range out.Sends {
			if s.To == "p1" {
				t.Errorf("%+v: a message to the site itself left it: %+v", c, s.Message)
			}
		}
	}
}

// TestSiteKeepsItsPartsApart: after a crash each part finds its own records.
func TestSiteKeepsItsPartsApart(t *testing.T) {
	nodes, err := Central{Sites: 2, Phases: 3, Votes: []Vote{Yes}}.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	var out protocol.Effects
	m := nodes[0].New[0]()
	m.Step(protocol.Start{}, &out)
	m.Step(protocol.Receive{From: "p2", Message: Voted{ID: "t", Vote: Yes}}, &out)
	records := protocol.Records{}
	for _, w := range out.Writes {
		records[w.Key] = w.Record
	}
	again := nodes[0].Anew().(*ThreePhaseSite)
	again.Step(protocol.Recover{Records: records}, &protocol.Effects{})
	if again.Head.State != CoordinatorInDoubt || again.Own.Participant.State != SitePreCommitted || again.Letter() != LetterPrecommitted {
		t.Errorf("recovered as %v and %v from %v", again.Head.State, again.Own.Participant.State, records)
	}
}
