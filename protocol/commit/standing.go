package commit

// Standing is what a node shows of one transaction to whoever judges a run: the machine while it is
// up, its stable records while it is down. Machines of other protocols of atomic commitment show
// the same, so that all are held to the same properties (package spec).
type Standing struct {
	// Decision is what the node knows to be decided, or what it alone has made certain. It never
	// changes once it is not Undecided.
	Decision Decision
	// Unregistered says that the node keeps the register of the whole transaction and that commit
	// does not stand there: until it does, no branch may be committed.
	Unregistered bool
	// Participant says that the node has a branch; Branch and Vote are about it. A machine without
	// a branch of its own that decides for a site shows what its branch would be.
	Participant bool
	Branch      BranchState
	// Vote is what the branch votes when it is asked in time, as far as the node knows.
	Vote Vote
	// Done says that nothing is left for the node to do but to answer those who ask.
	Done bool
}

// Join returns what two records of the same node show together. What s shows comes first.
func (s Standing) Join(o Standing) Standing {
	if s.Decision == Undecided {
		s.Decision = o.Decision
	}
	if !s.Participant && o.Participant {
		s.Participant, s.Branch, s.Vote = true, o.Branch, o.Vote
	}
	s.Unregistered = s.Unregistered || o.Unregistered
	s.Done = s.Done || o.Done
	return s
}

// Standing returns what the register holds or, before anything stands there, what its coordinator
// has concluded.
func (n *CoordinatorNode) Standing() Standing {
	s := Standing{Decision: n.Register.Decision, Unregistered: n.Register.Decision != Commit,
		Done: n.Coordinator.State.Done()}
	if s.Decision == Undecided {
		s.Decision = n.Coordinator.decision()
	}
	return s
}

// Standing returns what the participant knows and where its branch stands.
func (n *ParticipantNode) Standing() Standing {
	return Standing{Decision: n.Participant.Decision, Participant: true, Branch: n.Branch.State,
		Vote: n.Branch.Vote, Done: n.Participant.State.Done()}
}

// Standing returns the decision that is on record.
func (r DecisionRecord) Standing() Standing { return Standing{Decision: r.Decision} }

// Standing returns where the branch stands.
func (r BranchRecord) Standing() Standing {
	return Standing{Participant: true, Branch: r.State}
}

// Standing returns the decision, where the promise never to prepare has made it certain.
func (r Tombstone) Standing() Standing { return Standing{Decision: r.Decision} }

// Standing returns the decision, and that the branch is finished.
func (r FinishedRecord) Standing() Standing { return Standing{Decision: r.Decision, Done: true} }
