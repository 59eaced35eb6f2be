package commit

import (
	"testing"

	"assent/protocol"
)

// TestReadOnlyIsToldNothing: a leader that learns from the acceptors that a participant has voted read-only tells it no
// decision, and does not take it for one that has not done as decided.
func TestReadOnlyIsToldNothing(t *testing.T) {
	nodes, err := PaxosCommit{Participants: 2, F: 1, Votes: []Vote{Yes}}.Nodes()
	if err != nil {
		t.Fatal(err)
	}
	up := map[protocol.NodeID]protocol.Machine{}
	for _, n := range nodes {
		up[n.ID] = n.New[0]()
	}
	up["p2"].(*PaxosSite).Participant.Branch.Vote = ReadOnly
	type letter struct {
		from, to protocol.NodeID
		message  protocol.Message
	}
	var mail []letter
	concluded := Undecided
	step := func(id protocol.NodeID, ev protocol.Event) {
		var out protocol.Effects
		up[id].Step(ev, &out)
		for _, s := range out.Sends {
			mail = append(mail, letter{id, s.To, s.Message})
		}
		for _, v := range out.Emits {
			switch v := v.(type) {
			case Concluded:
				concluded = v.Decision
			case Contradicted:
				t.Errorf("%s takes it for heuristic that %s has %v", id, v.Node, v.Outcome)
			}
		}
	}
	run := func(lost func(letter) bool) {
		for len(mail) > 0 {
			l := mail[0]
			mail = mail[1:]
			if f, ok := l.message.(Finish); ok && l.to == "p2" {
				t.Errorf("p2 has left, and is told %v", f.Decision)
			}
			if !lost(l) {
				step(l.to, protocol.Receive{From: l.from, Message: l.message})
			}
		}
	}
	step("c", protocol.Start{})
	// The coordinator does not hear what the acceptors have accepted in ballot 0, and loses patience.
	run(func(l letter) bool { b, ok := l.message.(Bundle); return ok && l.to == "c" && len(b.Phase2b) > 0 })
	step("c", protocol.Expire{Timer: VoteTimer})
	run(func(letter) bool { return false })
	if concluded != Commit {
		t.Errorf("all could commit, and it is decided to %v", concluded)
	}
}
