package commit

// Letter is a local state of the papers on nonblocking commitment (Skeen 1981): what a node's state
// comes to when everything is left out but how far the site has gone.
type Letter string

// The local states, in the order in which tables show them.
const (
	// LetterInitial: the site has not voted; a coordinator has not asked.
	LetterInitial Letter = "q"
	// LetterWait: the site has voted yes; a coordinator has asked and waits for votes.
	LetterWait Letter = "w"
	// LetterPrecommitted: the site knows that all have voted yes, and has not committed.
	LetterPrecommitted Letter = "p"
	// LetterAborted: the site has aborted.
	LetterAborted Letter = "a"
	// LetterCommitted: the site has committed.
	LetterCommitted Letter = "c"
)

// Letters are all of them, in order.
func Letters() []Letter {
	return []Letter{LetterInitial, LetterWait, LetterPrecommitted, LetterAborted, LetterCommitted}
}

// Final reports whether a site in this state has decided.
func (l Letter) Final() bool { return l == LetterAborted || l == LetterCommitted }

// letter is the final state that a decision leads to, or otherwise.
func (d Decision) letter(otherwise Letter) Letter {
	switch d {
	case Commit:
		return LetterCommitted
	case Abort:
		return LetterAborted
	}
	return otherwise
}

// letter is the final state that an outcome amounts to, or none.
func (o Outcome) letter() Letter {
	switch o {
	case Committed:
		return LetterCommitted
	case RolledBack:
		return LetterAborted
	}
	return ""
}

// Letter projects the participant's state. One that voted read-only, and one whose branch ended
// with a hazard, is in no state of the papers.
func (n *ParticipantNode) Letter() Letter {
	switch n.Participant.State {
	case ParticipantWorking, ParticipantPreparing, ParticipantOnePhase:
		return LetterInitial
	case ParticipantPrepared:
		return LetterWait
	case ParticipantCommitting:
		return LetterCommitted
	case ParticipantRollingBack:
		return LetterAborted
	case ParticipantFinished:
		return n.Participant.Outcome.letter()
	}
	return ""
}

// Letter projects the coordinator's state. It waits until a decision stands: proposing is part of w.
func (n *CoordinatorNode) Letter() Letter {
	switch n.Coordinator.State {
	case CoordinatorIdle:
		return LetterInitial
	case CoordinatorUnsure:
		return ""
	}
	return n.Coordinator.decision().letter(LetterWait)
}

// Letter projects the coordinator's state. It is in p from the moment at which all have voted yes.
func (c *ThreePhaseCoordinator) Letter() Letter {
	switch c.State {
	case CoordinatorIdle:
		return LetterInitial
	case CoordinatorPreCommitting, CoordinatorInDoubt:
		return LetterPrecommitted
	}
	return c.Decision.letter(LetterWait)
}

// Letter projects the participant's state.
func (n *ThreePhaseNode) Letter() Letter {
	switch n.Participant.State {
	case SiteWorking, SitePreparing:
		return LetterInitial
	case SitePrepared:
		return LetterWait
	case SitePreCommitted:
		return LetterPrecommitted
	case SiteCommitting:
		return LetterCommitted
	case SiteRollingBack:
		return LetterAborted
	}
	return n.Participant.Outcome.letter()
}

// Letter projects the state of a site that coordinates and takes part. Once its own branch has
// ended, so has the site; until then the coordinator says how far the site has gone.
func (n *TwoPhaseSite) Letter() Letter { return ownOrHead(n.Own.Letter(), n.Head.Letter()) }

// Letter projects the site's state as TwoPhaseSite's does.
func (n *ThreePhaseSite) Letter() Letter { return ownOrHead(n.Own.Letter(), n.Head.Letter()) }

func ownOrHead(own, head Letter) Letter {
	if own.Final() {
		return own
	}
	return head
}

// Letter projects the peer's state.
func (n *PeerNode) Letter() Letter {
	switch n.Peer.State {
	case PeerWorking, PeerPreparing:
		return LetterInitial
	case PeerWaiting:
		return LetterWait
	case PeerPrecommitted:
		return LetterPrecommitted
	case PeerCommitting:
		return LetterCommitted
	case PeerRollingBack:
		return LetterAborted
	}
	return n.Peer.Outcome.letter()
}

// StateName returns the coordinator's own name of its state.
func (n *CoordinatorNode) StateName() string { return n.Coordinator.State.String() }

// StateName returns the participant's own name of its state.
func (n *ParticipantNode) StateName() string {
	return ended(n.Participant.State.String(), n.Participant.Outcome)
}

// StateName returns the coordinator's own name of its state.
func (c *ThreePhaseCoordinator) StateName() string { return c.State.String() }

// StateName returns the participant's own name of its state.
func (n *ThreePhaseNode) StateName() string {
	return ended(n.Participant.State.String(), n.Participant.Outcome)
}

// StateName returns the peer's own name of its state.
func (n *PeerNode) StateName() string { return ended(n.Peer.State.String(), n.Peer.Outcome) }

// StateName returns the names of both parts' states, the coordinator's first.
func (n *TwoPhaseSite) StateName() string { return n.Head.StateName() + " + " + n.Own.StateName() }

// StateName returns the names of both parts' states, the coordinator's first.
func (n *ThreePhaseSite) StateName() string { return n.Head.StateName() + " + " + n.Own.StateName() }

// ended adds to the name of a state how the branch ended.
func ended(state string, o Outcome) string {
	if o == Unfinished {
		return state
	}
	return state + ": " + o.String()
}
