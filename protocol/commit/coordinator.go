package commit

import (
	"slices"

	"assent/protocol"
)

// CoordinatorState is where a coordinator stands.
type CoordinatorState uint8

// The states of a coordinator.
const (
	// CoordinatorIdle has not started.
	CoordinatorIdle CoordinatorState = iota
	// CoordinatorVoting has asked for votes and waits for them.
	CoordinatorVoting
	// CoordinatorOnePhase has asked its only participant to commit alone.
	CoordinatorOnePhase
	// CoordinatorProposing has proposed a decision and waits to be told what stands.
	CoordinatorProposing
	// CoordinatorCommitting tells the decision commit until all have acknowledged.
	CoordinatorCommitting
	// CoordinatorAborting tells the decision abort until all have acknowledged.
	CoordinatorAborting
	// CoordinatorCommitted is done.
	CoordinatorCommitted
	// CoordinatorAborted is done.
	CoordinatorAborted
	// CoordinatorUnsure is done with a one-phase commit of which nobody knows the end.
	CoordinatorUnsure
	// CoordinatorRecovered was made anew after a crash and knows no decision: it abides by what
	// stands in the register, and proposes abort as soon as somebody asks.
	CoordinatorRecovered
	// CoordinatorPreCommitting (three-phase) has all yes votes and moves the participants to p.
	CoordinatorPreCommitting
	// CoordinatorInDoubt (three-phase) was made anew after it began to pre-commit, and asks.
	CoordinatorInDoubt
)

var coordinatorStateNames = [...]string{"idle", "voting", "one-phase", "proposing", "committing",
	"aborting", "committed", "aborted", "unsure", "recovered", "pre-committing", "in doubt"}

// String returns the state's name.
func (s CoordinatorState) String() string { return name(coordinatorStateNames[:], s) }

// MarshalText returns the state's name.
func (s CoordinatorState) MarshalText() ([]byte, error) {
	return marshal(coordinatorStateNames[:], s)
}

// UnmarshalText sets s from its name. It fails on any other text.
func (s *CoordinatorState) UnmarshalText(text []byte) error {
	return unmarshal(coordinatorStateNames[:], text, s)
}

// Done reports whether nothing is left to do but to answer those who ask.
func (s CoordinatorState) Done() bool {
	return s == CoordinatorCommitted || s == CoordinatorAborted || s == CoordinatorUnsure
}

// The coordinator's timers.
const (
	// VoteTimer bounds the wait for votes.
	VoteTimer = "vote"
	// ProposeTimer is the pause before a failed proposal is repeated.
	ProposeTimer = "propose"
	// ResendTimer is the pause before a message that was not answered is sent again.
	ResendTimer = "resend"
)

// Member is what a coordinator knows of one participant.
type Member struct {
	Node     protocol.NodeID
	Vote     Vote    `cbor:",omitempty" json:",omitempty"`
	Outcome  Outcome `cbor:",omitempty" json:",omitempty"`
	Evidence []byte  `cbor:",omitempty" json:",omitempty"`
}

// Coordinator asks for votes, has the decision taken by the register, and tells it until every
// participant has acknowledged (two-phase commit, presumed abort: Mohan, Lindsay and Obermarck
// 1986). It keeps no stable record of its own: the register is its memory, and no decision in
// the register means that abort may be proposed.
type Coordinator struct {
	ID       TransactionID
	State    CoordinatorState
	Proposal Decision `cbor:",omitempty" json:",omitempty"`
	Members  []Member
	// Why is the reason for which abort is proposed; it is set under Options.Contested only.
	Why     *Concluded `cbor:",omitempty" json:",omitempty"`
	Attempt int        `cbor:",omitempty" json:",omitempty"`
	Options Options
}

// NewCoordinator returns the coordinator of the transaction id among the participants nodes.
func NewCoordinator(id TransactionID, nodes []protocol.NodeID, options Options) *Coordinator {
	c := &Coordinator{ID: id, Members: make([]Member, 0, len(nodes)), Options: options}
	for _, n := range nodes {
		c.Members = append(c.Members, Member{Node: n})
	}
	return c
}

// Step takes one event. Every pair of state and event is specified: docs/commit-table.md shows
// them all.
func (c *Coordinator) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Start:
		c.start(out)
	case protocol.Recover:
		if c.State == CoordinatorIdle {
			c.State = CoordinatorRecovered
		}
	case protocol.Receive:
		c.receive(ev.From, ev.Message, out)
	case protocol.Expire:
		c.expire(ev.Timer, out)
	case protocol.Input:
		c.input(ev.Value, out)
	}
}

func (c *Coordinator) start(out *protocol.Effects) {
	if c.State != CoordinatorIdle {
		return
	}
	if len(c.Members) == 1 && !c.Options.NoOnePhase {
		c.State = CoordinatorOnePhase
		out.Send(c.Members[0].Node, OnePhase{ID: c.ID})
		c.Options.retryAfter(ResendTimer, &c.Attempt, out)
		return
	}
	c.State = CoordinatorVoting
	if c.tally(out) { // nobody to ask
		return
	}
	c.askForVotes(out)
}

func (c *Coordinator) askForVotes(out *protocol.Effects) {
	for _, m := range c.Members {
		if m.Vote == NoVote {
			out.Send(m.Node, Prepare{ID: c.ID, Peers: c.peers(m.Node)})
		}
	}
	out.Arm(VoteTimer, c.Options.vote())
}

// peers returns the participants other than node, where they are to help one another.
func (c *Coordinator) peers(node protocol.NodeID) (peers []protocol.NodeID) {
	if !c.Options.Cooperative {
		return nil
	}
	for _, m := range c.Members {
		if m.Node != node {
			peers = append(peers, m.Node)
		}
	}
	return peers
}

func (c *Coordinator) receive(from protocol.NodeID, message protocol.Message, out *protocol.Effects) {
	switch m := message.(type) {
	case Voted:
		if m.ID == c.ID {
			c.voted(from, m, out)
		}
	case Acknowledge:
		if m.ID == c.ID {
			c.acknowledged(from, m.Outcome, out)
		}
	}
}

func (c *Coordinator) voted(from protocol.NodeID, v Voted, out *protocol.Effects) {
	switch c.State {
	case CoordinatorVoting:
		c.count(from, v, out)
	case CoordinatorRecovered:
		if v.Vote == Yes {
			c.admit(Member{Node: from, Vote: Yes, Evidence: v.Evidence})
			c.propose(Abort, out)
		}
	case CoordinatorProposing:
		// Somebody else in doubt turned up while the register is being asked.
		if v.Vote == Yes && c.Proposal == Abort {
			c.admit(Member{Node: from, Vote: Yes, Evidence: v.Evidence})
		}
	case CoordinatorAborting:
		c.votedTooLate(from, v, out)
	case CoordinatorCommitting:
		if v.Vote == Yes {
			out.Send(from, Finish{ID: c.ID, Decision: Commit})
		}
	case CoordinatorCommitted, CoordinatorAborted:
		if v.Vote == Yes {
			out.Send(from, Finish{ID: c.ID, Decision: c.decision()})
		}
	}
}

// count takes a vote in time. The first vote stands: there are no take-backs.
func (c *Coordinator) count(from protocol.NodeID, v Voted, out *protocol.Effects) {
	m := memberOf(c.Members, from)
	if m == nil || m.Vote != NoVote {
		return
	}
	m.Vote, m.Evidence = v.Vote, v.Evidence
	if v.Vote == No {
		m.Outcome = RolledBack
		c.giveUp(Concluded{Decision: Abort, Cause: VotedNo, By: from, Reason: v.Reason}, out)
		return
	}
	c.tally(out)
}

// tally proposes commit once all votes are in and none is no. It reports whether they are.
func (c *Coordinator) tally(out *protocol.Effects) bool {
	promises := 0
	for _, m := range c.Members {
		switch m.Vote {
		case NoVote:
			return false
		case Yes:
			promises++
		}
	}
	out.Disarm(VoteTimer)
	if promises == 0 { // nobody changed anything: there is nothing to decide
		c.State = CoordinatorCommitted
		out.Emit(Concluded{Decision: Commit, Cause: Unanimous})
		out.Emit(Completed{Decision: Commit})
		return true
	}
	c.propose(Commit, out)
	return true
}

func (c *Coordinator) propose(d Decision, out *protocol.Effects) {
	c.State, c.Proposal, c.Attempt = CoordinatorProposing, d, 0
	out.Emit(c.proposal())
}

func (c *Coordinator) proposal() Propose {
	p := Propose{Decision: c.Proposal}
	for _, m := range c.Members {
		if m.Vote == Yes {
			p.Members = append(p.Members, m)
		}
	}
	return p
}

// votedTooLate takes a vote after abort was decided: who voted yes is told, who voted otherwise
// has nothing left to undo.
func (c *Coordinator) votedTooLate(from protocol.NodeID, v Voted, out *protocol.Effects) {
	m := memberOf(c.Members, from)
	switch {
	case v.Vote == Yes:
		if m == nil {
			c.admit(Member{Node: from, Vote: Yes, Evidence: v.Evidence})
		} else if m.Vote == NoVote {
			m.Vote, m.Evidence = Yes, v.Evidence
		}
		out.Send(from, Finish{ID: c.ID, Decision: Abort})
	case m != nil && m.Outcome == Unfinished:
		m.Vote, m.Outcome = v.Vote, RolledBack
		c.finishIfAllReported(out)
	}
}

func (c *Coordinator) acknowledged(from protocol.NodeID, outcome Outcome, out *protocol.Effects) {
	m := memberOf(c.Members, from)
	// Who voted read-only has left, and may be made anew and blank by an old PREPARE: its word that
	// nothing was committed contradicts no decision.
	if m == nil || m.Vote == ReadOnly || m.Outcome != Unfinished || outcome == Unfinished {
		return
	}
	switch c.State {
	case CoordinatorOnePhase:
		m.Outcome = outcome
		c.concludeOnePhase(from, outcome, out)
	case CoordinatorCommitting, CoordinatorAborting:
		m.Outcome = outcome
		if c.decision().Heuristic(outcome) {
			out.Emit(Contradicted{Node: from, Decision: c.decision(), Outcome: outcome})
		}
		c.finishIfAllReported(out)
	}
}

func (c *Coordinator) concludeOnePhase(from protocol.NodeID, outcome Outcome, out *protocol.Effects) {
	conclusion := Concluded{Cause: ByOnePhase, By: from}
	switch outcome {
	case Committed:
		c.State, conclusion.Decision = CoordinatorCommitted, Commit
	case RolledBack:
		c.State, conclusion.Decision = CoordinatorAborted, Abort
	default:
		c.State = CoordinatorUnsure
	}
	out.Disarm(ResendTimer)
	out.Emit(conclusion)
	if c.State == CoordinatorUnsure {
		out.Emit(Contradicted{Node: from, Outcome: outcome})
	}
	out.Emit(Completed{Decision: conclusion.Decision})
}

func (c *Coordinator) expire(timer string, out *protocol.Effects) {
	switch {
	case timer == VoteTimer && c.State == CoordinatorVoting:
		if c.Attempt < c.Options.VoteRetries {
			c.Attempt++
			c.askForVotes(out)
			return
		}
		i := slices.IndexFunc(c.Members, func(m Member) bool { return m.Vote == NoVote })
		c.giveUp(Concluded{Decision: Abort, Cause: NoAnswer, By: c.Members[i].Node}, out)
	case timer == ProposeTimer && c.State == CoordinatorProposing:
		out.Emit(c.proposal())
	case timer == ResendTimer && c.State == CoordinatorOnePhase:
		out.Send(c.Members[0].Node, OnePhase{ID: c.ID})
		c.Options.retryAfter(ResendTimer, &c.Attempt, out)
	case timer == ResendTimer && (c.State == CoordinatorCommitting || c.State == CoordinatorAborting):
		c.tell(out)
	}
}

func (c *Coordinator) input(value protocol.Value, out *protocol.Effects) {
	switch v := value.(type) {
	case Decided:
		c.decided(v, out)
	case ProposeFailed:
		if c.State == CoordinatorProposing {
			c.Options.retryAfter(ProposeTimer, &c.Attempt, out)
		}
	case Cancel:
		if c.State == CoordinatorIdle || c.State == CoordinatorVoting {
			c.giveUp(Concluded{Decision: Abort, Cause: Cancelled, Reason: v.Reason}, out)
		}
	}
}

func (c *Coordinator) decided(v Decided, out *protocol.Effects) {
	if c.State != CoordinatorProposing && c.State != CoordinatorRecovered || v.Decision == Undecided {
		return
	}
	cause := Settled
	if c.Proposal == Commit && v.Decision == Commit {
		cause = Unanimous
	}
	for _, m := range v.Members {
		c.admit(Member{Node: m.Node, Vote: Yes, Evidence: m.Evidence})
	}
	out.Disarm(ProposeTimer)
	if v.Decision == Abort {
		conclusion := Concluded{Decision: Abort, Cause: cause}
		if c.Why != nil {
			conclusion, c.Why = *c.Why, nil
		}
		c.abort(conclusion, out)
		return
	}
	c.Why = nil
	c.State, c.Attempt = CoordinatorCommitting, 0
	out.Emit(Concluded{Decision: Commit, Cause: cause})
	c.tell(out)
	c.finishIfAllReported(out)
}

// giveUp aborts before commit was proposed.
func (c *Coordinator) giveUp(conclusion Concluded, out *protocol.Effects) {
	if !c.Options.Contested {
		c.abort(conclusion, out)
		return
	}
	c.Why = &conclusion
	out.Disarm(VoteTimer)
	c.propose(Abort, out)
}

// abort begins phase 2 with the decision abort. It writes nothing: a transaction without a
// decision in the register is presumed aborted, and this coordinator will never propose commit.
func (c *Coordinator) abort(conclusion Concluded, out *protocol.Effects) {
	c.State, c.Attempt = CoordinatorAborting, 0
	out.Disarm(VoteTimer)
	out.Emit(conclusion)
	c.tell(out)
	c.finishIfAllReported(out)
}

// tell sends the decision to all who have not reported. Read-only participants have left.
func (c *Coordinator) tell(out *protocol.Effects) {
	for _, m := range c.Members {
		if m.Outcome == Unfinished && m.Vote != ReadOnly {
			out.Send(m.Node, Finish{ID: c.ID, Decision: c.decision()})
		}
	}
	c.Options.retryAfter(ResendTimer, &c.Attempt, out)
}

func (c *Coordinator) finishIfAllReported(out *protocol.Effects) {
	for _, m := range c.Members {
		if m.Outcome == Unfinished && m.Vote != ReadOnly {
			return
		}
	}
	out.Disarm(ResendTimer)
	out.Emit(Completed{Decision: c.decision()})
	if c.State == CoordinatorCommitting {
		c.State = CoordinatorCommitted
	} else {
		c.State = CoordinatorAborted
	}
}

func (c *Coordinator) decision() Decision {
	switch c.State {
	case CoordinatorCommitting, CoordinatorCommitted:
		return Commit
	case CoordinatorAborting, CoordinatorAborted:
		return Abort
	}
	return Undecided
}

// memberOf returns the member of all that is at node, or nil.
func memberOf(all []Member, node protocol.NodeID) *Member {
	for i := range all {
		if all[i].Node == node {
			return &all[i]
		}
	}
	return nil
}

// left notes that a participant has voted read-only, where its vote was not known.
func (c *Coordinator) left(node protocol.NodeID) {
	if m := memberOf(c.Members, node); m != nil && m.Vote == NoVote {
		m.Vote = ReadOnly
	}
}

// admit adds a participant that a coordinator made anew did not know of.
func (c *Coordinator) admit(m Member) {
	if known := memberOf(c.Members, m.Node); known != nil {
		if known.Vote == NoVote {
			known.Vote, known.Evidence = m.Vote, m.Evidence
		}
		return
	}
	c.Members = append(c.Members, m)
}
