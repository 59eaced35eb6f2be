package commit

import "assent/protocol"

// PreCommitTimer bounds the wait of a three-phase coordinator for the acknowledgements of PreCommit.
const PreCommitTimer = "pre-commit"

// ThreePhaseCoordinator asks for votes, moves those who voted yes to p, and only then decides
// (three-phase commit: Skeen 1981; Bernstein, Hadzilacos and Goodman 1987, 7.5). With Quorums it
// waits until enough votes have moved (Skeen 1982); without, until all who are up have.
//
// It decides on its own: every site has the decision on record itself, and there is no register.
type ThreePhaseCoordinator struct {
	ID    TransactionID
	State CoordinatorState
	// Members are the participants, in the order in which they succeed the coordinator.
	Members []Member
	// Moved tells of each member whether it has acknowledged PreCommit.
	Moved    []bool   `cbor:",omitempty" json:",omitempty"`
	Quorums  *Quorums `cbor:",omitempty" json:",omitempty"`
	Decision Decision `cbor:",omitempty" json:",omitempty"`
	Attempt  int      `cbor:",omitempty" json:",omitempty"`
	Options  Options
}

// NewThreePhaseCoordinator returns the coordinator of the transaction id among the participants
// nodes, for ThreePhaseParticipants.
func NewThreePhaseCoordinator(id TransactionID, nodes []protocol.NodeID, options Options) *ThreePhaseCoordinator {
	c := &ThreePhaseCoordinator{ID: id, Options: options}
	c.enlist(nodes)
	return c
}

// NewQuorumCoordinator returns the coordinator of the transaction id among the participants nodes,
// for QuorumParticipants. It returns an ErrSystem if the quorums are not safe for them.
func NewQuorumCoordinator(id TransactionID, nodes []protocol.NodeID, q Quorums, options Options) (*ThreePhaseCoordinator, error) {
	if err := q.Validate(len(nodes)); err != nil {
		return nil, err
	}
	c := NewThreePhaseCoordinator(id, nodes, options)
	c.Quorums = &q
	return c, nil
}

func (c *ThreePhaseCoordinator) enlist(nodes []protocol.NodeID) {
	c.Members, c.Moved = nil, make([]bool, len(nodes))
	for _, n := range nodes {
		c.Members = append(c.Members, Member{Node: n})
	}
}

// Step takes one event. Every pair of state and event is specified: docs/three-phase-table.md shows
// them all.
func (c *ThreePhaseCoordinator) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Start:
		c.start(out)
	case protocol.Recover:
		c.recover(ev.Records, out)
	case protocol.Receive:
		c.receive(ev.From, ev.Message, out)
	case protocol.Expire:
		c.expire(ev.Timer, out)
	case protocol.Input:
		v, ok := ev.Value.(Cancel)
		if ok && (c.State == CoordinatorIdle || c.State == CoordinatorVoting) {
			c.decide(Concluded{Decision: Abort, Cause: Cancelled, Reason: v.Reason}, out)
		}
	}
}

func (c *ThreePhaseCoordinator) start(out *protocol.Effects) {
	if c.State != CoordinatorIdle {
		return
	}
	c.State = CoordinatorVoting
	if c.allYes() { // nobody to ask
		c.decide(Concluded{Decision: Commit, Cause: Unanimous}, out)
		return
	}
	c.askForVotes(out)
}

func (c *ThreePhaseCoordinator) askForVotes(out *protocol.Effects) {
	nodes := c.nodes()
	for _, m := range c.Members {
		if m.Vote == NoVote {
			out.Send(m.Node, Prepare{ID: c.ID, Peers: nodes, Quorums: c.Quorums})
		}
	}
	out.Arm(VoteTimer, c.Options.vote())
}

func (c *ThreePhaseCoordinator) nodes() []protocol.NodeID {
	nodes := make([]protocol.NodeID, 0, len(c.Members))
	for _, m := range c.Members {
		nodes = append(nodes, m.Node)
	}
	return nodes
}

// recover resumes from the stable records. Without any, PreCommit was never sent, so nobody is in p
// and nobody can have committed: the transaction aborts. With the record of PreCommit and no
// decision, others may have decided meanwhile.
func (c *ThreePhaseCoordinator) recover(records protocol.Records, out *protocol.Effects) {
	if c.State != CoordinatorIdle {
		return
	}
	site, preCommitted := records[BranchKey].(SiteRecord)
	switch d, decided := records[RegisterKey].(DecisionRecord); {
	case decided:
		c.enlist(nil)
		c.Members = append(c.Members, d.Members...)
		c.conclude(Concluded{Decision: d.Decision, Cause: Settled}, out)
	case !preCommitted:
		c.enlist(nil)
		c.decide(Concluded{Decision: Abort, Cause: Settled}, out)
	default:
		c.enlist(site.Peers)
		c.Quorums = site.Quorums
		c.resume(out)
	}
}

// resume goes on after all had voted yes. Under quorums it moves the sites as before; nothing
// that it could do is unsafe. Otherwise it must ask: it may have been succeeded.
func (c *ThreePhaseCoordinator) resume(out *protocol.Effects) {
	switch {
	case c.Quorums != nil:
		c.State = CoordinatorPreCommitting
		c.move(out)
	case c.Options.Unilateral:
		c.decide(Concluded{Decision: Commit, Cause: Settled}, out)
	default:
		c.State = CoordinatorInDoubt
		c.inquire(out)
	}
}

func (c *ThreePhaseCoordinator) inquire(out *protocol.Effects) {
	for _, m := range c.Members {
		out.Send(m.Node, Inquire{ID: c.ID})
	}
	c.Options.retryAfter(InquireTimer, &c.Attempt, out)
}

func (c *ThreePhaseCoordinator) receive(from protocol.NodeID, message protocol.Message, out *protocol.Effects) {
	switch m := message.(type) {
	case Voted:
		if m.ID == c.ID {
			c.voted(from, m, out)
		}
	case PreAcknowledge:
		if m.ID == c.ID && c.State == CoordinatorPreCommitting && m.Round == 0 {
			c.moved(from, out)
		}
	case Acknowledge:
		if m.ID == c.ID {
			c.acknowledged(from, m.Outcome, out)
		}
	case Finish: // a successor has decided
		if m.ID == c.ID && c.Decision == Undecided && m.Decision != Undecided {
			c.decide(Concluded{Decision: m.Decision, Cause: Settled, By: from}, out)
		}
	case Inquire:
		if m.ID == c.ID {
			c.asked(from, 0, out)
		}
	case StateRequest:
		if m.ID == c.ID {
			c.asked(from, m.Round, out)
		}
	}
}

func (c *ThreePhaseCoordinator) voted(from protocol.NodeID, v Voted, out *protocol.Effects) {
	m := memberOf(c.Members, from)
	switch {
	case c.Decision != Undecided:
		if v.Vote == Yes {
			out.Send(from, Finish{ID: c.ID, Decision: c.Decision})
		}
	case c.State != CoordinatorVoting || m == nil || m.Vote != NoVote:
	case v.Vote == No:
		m.Vote = No
		c.decide(Concluded{Decision: Abort, Cause: VotedNo, By: from, Reason: v.Reason}, out)
	case v.Vote == Yes:
		m.Vote, m.Evidence = Yes, v.Evidence
		if c.allYes() {
			c.preCommit(out)
		}
	}
}

func (c *ThreePhaseCoordinator) allYes() bool {
	for _, m := range c.Members {
		if m.Vote != Yes {
			return false
		}
	}
	return true
}

// preCommit begins phase 2: that all have voted yes is on record before anybody is told.
func (c *ThreePhaseCoordinator) preCommit(out *protocol.Effects) {
	c.State, c.Attempt = CoordinatorPreCommitting, 0
	out.Put(BranchKey, SiteRecord{ID: c.ID, State: SitePreCommitted, Peers: c.nodes(), Quorums: c.Quorums})
	out.Disarm(VoteTimer)
	c.move(out)
}

func (c *ThreePhaseCoordinator) move(out *protocol.Effects) {
	for i, m := range c.Members {
		if !c.Moved[i] {
			out.Send(m.Node, PreCommit{ID: c.ID})
		}
	}
	out.Arm(PreCommitTimer, c.Options.vote())
}

// moved counts who has acknowledged PreCommit, and commits when that is enough.
func (c *ThreePhaseCoordinator) moved(from protocol.NodeID, out *protocol.Effects) {
	votes, missing := 0, 0
	for i, m := range c.Members {
		if m.Node == from {
			c.Moved[i] = true
		}
		switch {
		case !c.Moved[i]:
			missing++
		case c.Quorums != nil:
			votes += c.Quorums.Votes[i]
		}
	}
	if missing == 0 || c.Quorums != nil && votes >= c.Quorums.Commit {
		c.decide(Concluded{Decision: Commit, Cause: Unanimous}, out)
	}
}

// asked answers a participant with the decision, or says that the coordinator is up and will decide.
// Under quorums it has no vote, so there is nothing to report.
func (c *ThreePhaseCoordinator) asked(from protocol.NodeID, round int, out *protocol.Effects) {
	report := StateReport{ID: c.ID, Round: round, State: SitePrepared}
	switch c.State {
	case CoordinatorIdle:
		return
	case CoordinatorPreCommitting:
		report.State = SitePreCommitted
	case CoordinatorInDoubt:
		report.State, report.Recovered = SitePreCommitted, true
	}
	switch {
	case c.Decision != Undecided:
		out.Send(from, Finish{ID: c.ID, Decision: c.Decision})
	case c.Quorums == nil:
		out.Send(from, report)
	}
}

func (c *ThreePhaseCoordinator) expire(timer string, out *protocol.Effects) {
	switch {
	case timer == VoteTimer && c.State == CoordinatorVoting:
		c.giveUpOrAskAgain(out)
	case timer == PreCommitTimer && c.State == CoordinatorPreCommitting:
		c.preCommitTimeout(out)
	case timer == InquireTimer && c.State == CoordinatorInDoubt:
		c.inquire(out)
	case timer == ResendTimer && (c.State == CoordinatorCommitting || c.State == CoordinatorAborting):
		c.tell(out)
	}
}

func (c *ThreePhaseCoordinator) giveUpOrAskAgain(out *protocol.Effects) {
	if c.Attempt < c.Options.VoteRetries {
		c.Attempt++
		c.askForVotes(out)
		return
	}
	conclusion := Concluded{Decision: Abort, Cause: NoAnswer}
	for _, m := range c.Members {
		if m.Vote == NoVote {
			conclusion.By = m.Node
			break
		}
	}
	c.decide(conclusion, out)
}

// preCommitTimeout is the wait for acknowledgements at its end. Who has not acknowledged is down and
// will ask when it is back; so the coordinator commits without it. Under quorums it may be cut off
// instead, and is asked again. Where nobody asks (Unilateral) a participant that failed in w
// aborts on its own, and so must all.
func (c *ThreePhaseCoordinator) preCommitTimeout(out *protocol.Effects) {
	switch {
	case c.Quorums != nil:
		c.move(out)
	case c.Options.Unilateral:
		c.decide(Concluded{Decision: Abort, Cause: NoAnswer}, out)
	default:
		c.decide(Concluded{Decision: Commit, Cause: Unanimous}, out)
	}
}

// decide puts the decision on record and tells it.
func (c *ThreePhaseCoordinator) decide(conclusion Concluded, out *protocol.Effects) {
	members := make([]Member, 0, len(c.Members))
	for _, m := range c.Members {
		members = append(members, Member{Node: m.Node, Vote: m.Vote, Evidence: m.Evidence})
	}
	out.Put(RegisterKey, DecisionRecord{Decision: conclusion.Decision, Members: members})
	out.Disarm(VoteTimer)
	out.Disarm(PreCommitTimer)
	out.Disarm(InquireTimer)
	c.conclude(conclusion, out)
}

func (c *ThreePhaseCoordinator) conclude(conclusion Concluded, out *protocol.Effects) {
	c.Decision, c.Attempt, c.State = conclusion.Decision, 0, CoordinatorAborting
	if c.Decision == Commit {
		c.State = CoordinatorCommitting
	}
	for i := range c.Members {
		if c.Members[i].Vote == No {
			c.Members[i].Outcome = RolledBack
		}
	}
	out.Emit(conclusion)
	c.tell(out)
	c.completeIfAllReported(out)
}

// tell sends the decision to all who have not reported.
func (c *ThreePhaseCoordinator) tell(out *protocol.Effects) {
	for _, m := range c.Members {
		if m.Outcome == Unfinished {
			out.Send(m.Node, Finish{ID: c.ID, Decision: c.Decision})
		}
	}
	c.Options.retryAfter(ResendTimer, &c.Attempt, out)
}

func (c *ThreePhaseCoordinator) acknowledged(from protocol.NodeID, outcome Outcome, out *protocol.Effects) {
	m := memberOf(c.Members, from)
	if m == nil || m.Outcome != Unfinished || outcome == Unfinished ||
		c.State != CoordinatorCommitting && c.State != CoordinatorAborting {
		return
	}
	m.Outcome = outcome
	if c.Decision.Heuristic(outcome) {
		out.Emit(Contradicted{Node: from, Decision: c.Decision, Outcome: outcome})
	}
	c.completeIfAllReported(out)
}

func (c *ThreePhaseCoordinator) completeIfAllReported(out *protocol.Effects) {
	for _, m := range c.Members {
		if m.Outcome == Unfinished {
			return
		}
	}
	out.Disarm(ResendTimer)
	out.Emit(Completed{Decision: c.Decision})
	c.State = CoordinatorAborted
	if c.Decision == Commit {
		c.State = CoordinatorCommitted
	}
}
