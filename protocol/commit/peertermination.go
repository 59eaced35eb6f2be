package commit

import "assent/protocol"

// The termination protocol of decentralised three-phase commit (Skeen 1981, section 6; Bernstein,
// Hadzilacos and Goodman 1987, 7.5). The first site in order that lives is the backup. It learns
// that it is by asking those before it and hearing nothing. Only then does it ask those after it
// where they stand, so that no answer is older than the last act of the backup before it. If
// anybody has pre-committed it has all who live pre-commit, and then commits; if nobody has, it aborts.

func (p *Peer) expire(timer string, out *protocol.Effects) {
	switch {
	case timer == BranchTimer && p.State == PeerCommitting:
		out.Emit(CommitBranch{})
	case timer == BranchTimer && p.State == PeerRollingBack:
		out.Emit(RollbackBranch{})
	case timer == TerminateTimer && (p.State == PeerWaiting || p.State == PeerPrecommitted):
		if p.Outside || p.Phases != 3 {
			p.inquire(out)
			return
		}
		p.terminate(out)
	}
}

// inquire asks everybody: for the decision or, in two phases, for a vote that is not known. Whose vote is
// known is asked, too: it may know the vote of one that is down, and have decided.
func (p *Peer) inquire(out *protocol.Effects) {
	p.tellAll(Inquire{ID: p.ID}, out)
	p.Options.retryAfter(TerminateTimer, &p.Attempt, out)
}

// terminate goes on to the next round.
func (p *Peer) terminate(out *protocol.Effects) {
	switch p.Round {
	case RoundNone:
		if p.elect(out) {
			return
		}
		p.ask(out)
	case RoundElecting:
		if p.anybody(true, func(s PeerSite) bool { return s.Answered }) {
			p.rest(out) // that one is the backup, or somebody before it
			return
		}
		p.ask(out)
	case RoundAsking:
		p.conclude(out)
	case RoundMoving:
		p.finishAll(Commit, out)
	}
}

// elect asks the sites before this one whether they live. It reports whether there are any.
func (p *Peer) elect(out *protocol.Effects) bool {
	return p.begin(RoundElecting, true, out)
}

// ask asks the sites after this one where they stand.
func (p *Peer) ask(out *protocol.Effects) {
	if !p.begin(RoundAsking, false, out) {
		p.conclude(out)
	}
}

// begin asks all sites before this one, or all after it, anew. It reports whether there are any.
func (p *Peer) begin(round PeerRound, before bool, out *protocol.Effects) bool {
	sites := p.side(before)
	for i := range sites {
		sites[i].Answered = false
		out.Send(sites[i].Node, Inquire{ID: p.ID})
	}
	if len(sites) == 0 {
		return false
	}
	p.Round = round
	p.Options.retryAfter(TerminateTimer, &p.Attempt, out)
	return true
}

// rest leaves the matter to the backup until the timer runs out once more.
func (p *Peer) rest(out *protocol.Effects) {
	p.Round = RoundNone
	p.Options.retryAfter(TerminateTimer, &p.Attempt, out)
}

// conclude decides, or has those who are behind pre-commit first.
func (p *Peer) conclude(out *protocol.Effects) {
	ready := func(s PeerSite) bool { return s.Ready }
	if p.State == PeerWaiting && !p.anybody(false, ready) {
		p.finishAll(Abort, out)
		return
	}
	if p.State == PeerWaiting {
		p.precommit(out)
	}
	p.Round = RoundNone
	for _, s := range p.side(false) {
		if s.Answered && !s.Ready {
			p.Round = RoundMoving
			out.Send(s.Node, PeerMove{ID: p.ID})
		}
	}
	if p.Round == RoundNone {
		p.finishAll(Commit, out)
		return
	}
	p.Options.retryAfter(TerminateTimer, &p.Attempt, out)
}

// finishAll is the backup's decision.
func (p *Peer) finishAll(d Decision, out *protocol.Effects) {
	p.decide(d, out)
	p.tellAll(Finish{ID: p.ID, Decision: d}, out)
}

// moved pre-commits on the backup's word, and says so.
func (p *Peer) moved(from protocol.NodeID, out *protocol.Effects) {
	if p.Outside {
		return
	}
	if p.State == PeerWaiting {
		p.precommit(out)
	}
	switch {
	case p.State == PeerPrecommitted:
		out.Send(from, PeerReady{ID: p.ID})
	case p.Decision != Undecided:
		out.Send(from, Finish{ID: p.ID, Decision: p.Decision})
	}
}

// inquired answers with the decision or, before the vote, makes it. Who is in doubt says where it
// stands, unless it has been down and the termination protocol does not count on it.
func (p *Peer) inquired(from protocol.NodeID, out *protocol.Effects) {
	switch {
	case p.State == PeerWorking || p.State == PeerPreparing:
		p.refuse(out)
	case p.Decision != Undecided:
		out.Send(from, Finish{ID: p.ID, Decision: p.Decision})
	case !p.Outside || p.Phases != 3:
		out.Send(from, PeerStands{ID: p.ID, Ready: p.State == PeerPrecommitted})
	}
}

// side returns the sites before this one, or those after it.
func (p *Peer) side(before bool) []PeerSite {
	for i, s := range p.Sites {
		if s.Node == p.Self {
			if before {
				return p.Sites[:i]
			}
			return p.Sites[i+1:]
		}
	}
	return nil
}

func (p *Peer) anybody(before bool, holds func(PeerSite) bool) bool {
	for _, s := range p.side(before) {
		if holds(s) {
			return true
		}
	}
	return false
}
