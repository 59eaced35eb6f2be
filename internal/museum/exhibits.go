package museum

import "slices"

const (
	coordinator      = "protocol/commit/coordinator.go"
	participant      = "protocol/commit/participant.go"
	register         = "protocol/commit/nodes.go"
	threeCoordinator = "protocol/commit/threephase_coordinator.go"
	threeParticipant = "protocol/commit/threephase_participant.go"
	threeSite        = "protocol/commit/threephase_site.go"
	quorum           = "protocol/commit/quorum.go"
	peer             = "protocol/commit/peer.go"
	peerTermination  = "protocol/commit/peertermination.go"
)

// Exhibits returns what is on show.
func Exhibits() []Exhibit {
	return slices.Concat(participants(), coordinators(), threePhase(), others(), agreements(), logs(), changes())
}

func participants() []Exhibit {
	return []Exhibit{
		{Name: "a yes vote is taken back", System: "2pc",
			Why:  "A participant that is in doubt may still be told to give up, and does. Its yes vote has been counted.",
			File: participant, Func: "Participant.abandon",
			Old: "if p.State != ParticipantWorking && p.State != ParticipantPreparing {",
			New: "if p.State == ParticipantFinished {"},
		{Name: "the vote is sent and is not on record", System: "2pc",
			Why:  "After a crash the participant knows nothing of its promise. An old copy of PREPARE then makes it roll back what is prepared.",
			File: participant, Func: "Participant.prepared",
			Old: "out.Put(BranchKey, PreparedRecord{ID: p.ID, Coordinator: p.Coordinator, Peers: p.Peers, Evidence: p.Evidence})"},
		{Name: "a restart rolls back what was promised", System: "2pc",
			Why:  "Whoever finds a prepared branch at a start and rolls it back undoes what may be committed elsewhere.",
			File: participant, Func: "Participant.recover",
			Old: "p.vote(out)",
			New: "p.rollBack(Abort, out)"},
		{Name: "a restart forgets that it may have voted read-only", System: "2pc",
			Why:  "A read-only vote is not recorded. A participant made anew that takes its own refusal for a proof of abort may be wrong: its vote was counted.",
			File: participant, Func: "Participant.refuse",
			Old: "decision = Undecided",
			New: "decision = Abort"},
		{Name: "a late PREPARE is answered with yes", System: "2pc",
			Why:  "The participant has given up and its refusal is on its way. A PREPARE that arrives after that gets a yes, and the yes may overtake the no.",
			File: participant, Func: "Participant.vote",
			Old: "v := Voted{ID: p.ID, Vote: No}",
			New: "v := Voted{ID: p.ID, Vote: Yes}"},
		{Name: "a peer in doubt decides for another", System: "2pc, cooperative",
			Why:  "Before it votes, a participant that is asked by a peer may make the transaction abort. After it, it may not.",
			File: participant, Func: "Participant.inquired",
			Old: "if p.State == ParticipantWorking && !p.Blank {",
			New: "if !p.State.Done() && !p.Blank {"},
		{Name: "the end is acknowledged before it has come", System: "2pc",
			Why:  "The coordinator forgets a commit that a branch has yet to do.",
			File: participant, Func: "Participant.finish",
			Old: "out.Emit(CommitBranch{})",
			New: "out.Send(p.Coordinator, Acknowledge{ID: p.ID, Outcome: Committed})"},
	}
}

func coordinators() []Exhibit {
	return []Exhibit{
		{Name: "a decision is told and is not on record", System: "2pc",
			Why:  "After a crash the register is empty, and the coordinator proposes abort, as is presumed.",
			File: register, Func: "Register.Step",
			Old: "out.Put(RegisterKey, DecisionRecord{Decision: r.Decision, Members: r.Members})"},
		{Name: "phase 2 begins before the register has answered", System: "2pc",
			Why:  "The coordinator takes its proposal for the decision. The register is asked, and nobody waits for what stands.",
			File: coordinator, Func: "Coordinator.propose",
			Old: "c.State, c.Proposal, c.Attempt = CoordinatorProposing, d, 0",
			New: "c.State, c.Proposal, c.Attempt = CoordinatorCommitting, d, 0"},
		{Name: "commit is presumed", System: "2pc",
			Why:  "A coordinator made anew that finds no decision proposes commit when the first yes vote is repeated to it.",
			File: coordinator, Func: "Coordinator.voted",
			Old: "c.propose(Abort, out)",
			New: "c.propose(Commit, out)"},
		{Name: "unknown is read as done", System: "2pc",
			Why:  "A coordinator made anew that finds no decision takes the transaction for one that is over.",
			File: coordinator, Func: "Coordinator.Step",
			Old: "c.State = CoordinatorRecovered",
			New: "c.State = CoordinatorCommitted"},
		{Name: "a restart begins the transaction again", System: "2pc",
			Why:  "A coordinator made anew knows no participants. So all of them have voted yes.",
			File: coordinator, Func: "Coordinator.Step",
			Old: "c.State = CoordinatorRecovered",
			New: "c.start(out)"},
		{Name: "a vote that is missing counts as yes", System: "2pc",
			Why:  "The first yes vote decides.",
			File: coordinator, Func: "Coordinator.tally",
			Old: "return false",
			New: "promises++"},
		{Name: "a no counts as read-only", System: "2pc",
			Why:  "Nobody waits for a participant that has voted no, and the others commit.",
			File: coordinator, Func: "Coordinator.count",
			Old: "if v.Vote == No {",
			New: "if v.Vote == No && m.Evidence != nil {"},
		{Name: "a commit is forgotten too early", System: "2pc",
			Why:  "The coordinator is at its end when all have voted, not when all have reported.",
			File: coordinator, Func: "Coordinator.finishIfAllReported",
			Old: "if m.Outcome == Unfinished && m.Vote != ReadOnly {",
			New: "if m.Vote == NoVote {"},
	}
}

func threePhase() []Exhibit {
	return []Exhibit{
		{Name: "three phases, and commit from w", System: "3pc",
			Why:  "Without the phase between, one site commits while another is in w, and who terminates from w aborts.",
			File: threeCoordinator, Func: "ThreePhaseCoordinator.voted",
			Old: "c.preCommit(out)",
			New: "c.decide(Concluded{Decision: Commit, Cause: Unanimous}, out)"},
		{Name: "pre-commit is told and is not on record", System: "3pc",
			Why:  "A coordinator made anew takes it that nobody is in p, and aborts what its successor has committed.",
			File: threeCoordinator, Func: "ThreePhaseCoordinator.preCommit",
			Old: "out.Put(BranchKey, SiteRecord{ID: c.ID, State: SitePreCommitted, Peers: c.nodes(), Quorums: c.Quorums})"},
		{Name: "a yes vote is sent and is not on record, in three phases", System: "3pc",
			Why:  "After a crash the site takes it that it has never voted, and aborts on its own.",
			File: threeSite, Func: "Site.prepared",
			Old: "s.save(out)"},
		{Name: "a yes vote is taken back, in three phases", System: "3pc",
			Why:  "A site in w or p that is told to give up does so.",
			File: threeSite, Func: "Site.refuse",
			Old: "if s.State != SiteWorking && s.State != SitePreparing {",
			New: "if s.State == SiteFinished {"},
		{Name: "a restart follows the failure transition alone", System: "3pc",
			Why:  "From w to abort, from p to commit: so the lessons have it. But a site that comes back in w may have been passed over, and the others have committed while it was down.",
			File: threeParticipant, Func: "ThreePhaseParticipant.recover",
			Old: "if p.Options.Unilateral {",
			New: "if !p.Options.Unilateral {"},
		{Name: "a timeout follows its transition alone", System: "3pc, two crashes",
			Why:  "The same, of those who stay up and ask nobody. A crash while PRE-COMMIT is being sent leaves one in w, which aborts, and one in p, which commits.",
			File: threeParticipant, Func: "ThreePhaseParticipant.timeout",
			Old: "case p.Options.Unilateral:",
			New: "case !p.Options.Unilateral:"},
		{Name: "a site that has been down leads", System: "3pc, two crashes",
			Why:  "It has missed what the others did while it was down.",
			File: threeParticipant, Func: "ThreePhaseParticipant.recover",
			Old: "p.Recovered = true"},
		{Name: "a site that has been down is counted", System: "3pc, two crashes",
			Why:  "Its state is from before the crash. Who terminates must do without.",
			File: threeParticipant, Func: "ThreePhaseParticipant.reported",
			Old: "case m.Recovered: // it knows less than those who never failed",
			New: "case m.Recovered && m.State == SitePreAborted:"},
		{Name: "termination commits before the others have moved", System: "3pc, three sites",
			Why:  "If the new coordinator then dies as well, those left in w abort.",
			File: threeParticipant, Func: "ThreePhaseParticipant.terminate",
			Old: "p.Stage = StageMoving",
			New: "p.Reports = nil"},
	}
}

func others() []Exhibit {
	return []Exhibit{
		{Name: "a commit quorum that is too small", System: "3pc by quorums",
			Why:  "One vote less than a quorum has none in common with the abort quorum on the other side of a partition.",
			File: threeCoordinator, Func: "ThreePhaseCoordinator.moved",
			Old: "if missing == 0 || c.Quorums != nil && votes >= c.Quorums.Commit {",
			New: "if missing == 0 || c.Quorums != nil && votes+1 >= c.Quorums.Commit {"},
		{Name: "a move is acknowledged and is not on record", System: "3pc by quorums, a crash",
			Why:  "After a crash the site is in w again, and the quorum that has counted it has one vote too many.",
			File: quorum, Func: "QuorumParticipant.move",
			Old: "p.save(out)"},
		{Name: "a vote is sent to all and is not on record", System: "decentralised 2pc",
			Why:  "The others commit by it. The site itself, made anew, aborts.",
			File: peer, Func: "Peer.prepared",
			Old: "out.Put(BranchKey, p.record())"},
		{Name: "one's own yes is enough", System: "decentralised 2pc",
			Why:  "A site commits without waiting for the votes of the others.",
			File: peer, Func: "Peer.advance",
			Old: "if p.State == PeerWaiting && p.all(func(s PeerSite) bool { return s.Yes }) {",
			New: "if p.State == PeerWaiting && p.site(p.Self).Yes {"},
		{Name: "a site that has been down terminates", System: "decentralised 3pc",
			Why:  "It takes itself for the backup, and decides by what it knew before it went down.",
			File: peerTermination, Func: "Peer.expire",
			Old: "if p.Outside || p.Phases != 3 {",
			New: "if p.Phases != 3 {"},
		{Name: "commit from w, decentralised", System: "decentralised 3pc, three sites",
			Why:  "A site that knows all votes commits before it knows that the others know them.",
			File: peer, Func: "Peer.advance",
			Old: "if p.State == PeerPrecommitted && p.all(func(s PeerSite) bool { return s.Ready }) {",
			New: "if p.State == PeerPrecommitted {"},
	}
}
