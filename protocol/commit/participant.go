package commit

import (
	"assent/protocol"
)

// ParticipantState is where a participant stands.
type ParticipantState uint8

// The states of a participant.
const (
	// ParticipantWorking has promised nothing and may still abort on its own.
	ParticipantWorking ParticipantState = iota
	// ParticipantPreparing waits for its branch to prepare.
	ParticipantPreparing
	// ParticipantPrepared has voted yes and is in doubt until it is told the decision.
	ParticipantPrepared
	// ParticipantOnePhase waits for its branch to commit without having prepared.
	ParticipantOnePhase
	// ParticipantCommitting knows that commit is decided and waits for its branch.
	ParticipantCommitting
	// ParticipantRollingBack will never commit and waits for its branch.
	ParticipantRollingBack
	// ParticipantFinished is done; Outcome says how.
	ParticipantFinished
	// ParticipantLeft voted read-only and has nothing to finish.
	ParticipantLeft
)

var participantStateNames = [...]string{"working", "preparing", "prepared", "one-phase",
	"committing", "rolling back", "finished", "left"}

// String returns the state's name.
func (s ParticipantState) String() string { return name(participantStateNames[:], s) }

// MarshalText returns the state's name.
func (s ParticipantState) MarshalText() ([]byte, error) {
	return marshal(participantStateNames[:], s)
}

// UnmarshalText sets s from its name. It fails on any other text.
func (s *ParticipantState) UnmarshalText(text []byte) error {
	return unmarshal(participantStateNames[:], text, s)
}

// Done reports whether nothing is left to do but to answer those who ask.
func (s ParticipantState) Done() bool { return s == ParticipantFinished || s == ParticipantLeft }

// The participant's timers.
const (
	// InquireTimer is the pause before a participant in doubt asks for the decision.
	InquireTimer = "inquire"
	// BranchTimer is the pause before the branch is asked again to finish.
	BranchTimer = "branch"
)

// Participant votes for one branch and finishes it as decided. Its stable record is the promise:
// written before the vote is sent, and never taken back.
type Participant struct {
	ID          TransactionID
	Coordinator protocol.NodeID
	State       ParticipantState
	Peers       []protocol.NodeID `cbor:",omitempty" json:",omitempty"`
	Evidence    []byte            `cbor:",omitempty" json:",omitempty"`
	// Blank says that the participant was made anew after a crash and found no record. It
	// promised nothing that binds it, but it may have voted read-only, which is not recorded and
	// was perhaps counted: so nothing that it does alone proves that the transaction aborts, and
	// it must not tell a peer so.
	Blank bool `cbor:",omitempty" json:",omitempty"`
	// Decision is what the participant was told, or what it made certain alone by refusing.
	Decision Decision `cbor:",omitempty" json:",omitempty"`
	Outcome  Outcome  `cbor:",omitempty" json:",omitempty"`
	Attempt  int      `cbor:",omitempty" json:",omitempty"`
	Options  Options
}

// NewParticipant returns a participant of the transaction id, which answers to coordinator.
func NewParticipant(id TransactionID, coordinator protocol.NodeID, options Options) *Participant {
	return &Participant{ID: id, Coordinator: coordinator, Options: options}
}

// Step takes one event. Every pair of state and event is specified: docs/commit-table.md shows
// them all.
func (p *Participant) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Recover:
		p.recover(ev.Records, out)
	case protocol.Receive:
		p.receive(ev.From, ev.Message, out)
	case protocol.Expire:
		p.expire(ev.Timer, out)
	case protocol.Input:
		p.input(ev.Value, out)
	}
}

// recover resumes from the stable record. Without one nothing was promised, and the branch's
// work is gone: the branch itself will answer a late PREPARE with no.
func (p *Participant) recover(records protocol.Records, out *protocol.Effects) {
	if p.State != ParticipantWorking {
		return
	}
	switch r := records[BranchKey].(type) {
	case PreparedRecord:
		p.State, p.Coordinator, p.Peers, p.Evidence = ParticipantPrepared, r.Coordinator, r.Peers, r.Evidence
		p.vote(out)
		p.Options.retryAfter(InquireTimer, &p.Attempt, out)
	case Tombstone:
		p.State, p.Decision = ParticipantRollingBack, r.Decision
		out.Emit(RollbackBranch{})
	case FinishedRecord:
		p.State, p.Decision, p.Outcome = ParticipantFinished, r.Decision, r.Outcome
	default:
		p.Blank = true
	}
}

func (p *Participant) receive(from protocol.NodeID, message protocol.Message, out *protocol.Effects) {
	switch m := message.(type) {
	case Prepare:
		if m.ID == p.ID {
			p.prepare(from, m, out)
		}
	case OnePhase:
		if m.ID == p.ID {
			p.onePhase(from, out)
		}
	case Finish:
		if m.ID == p.ID {
			p.finish(m.Decision, out)
		}
	case Inquire:
		if m.ID == p.ID {
			p.inquired(from, out)
		}
	}
}

func (p *Participant) prepare(from protocol.NodeID, m Prepare, out *protocol.Effects) {
	switch p.State {
	case ParticipantWorking:
		p.Coordinator, p.Peers, p.State = from, m.Peers, ParticipantPreparing
		out.Emit(PrepareBranch{})
	case ParticipantPrepared, ParticipantRollingBack, ParticipantLeft:
		p.vote(out)
	case ParticipantFinished:
		// After a commit this is an old copy on its way for long: the vote was counted.
		if p.Decision != Commit {
			p.vote(out)
		}
	}
}

// vote sends the vote that the state stands for, as often as it is asked for.
func (p *Participant) vote(out *protocol.Effects) {
	v := Voted{ID: p.ID, Vote: No}
	switch p.State {
	case ParticipantPrepared:
		v.Vote, v.Evidence = Yes, p.Evidence
	case ParticipantLeft:
		v.Vote = ReadOnly
	}
	out.Send(p.Coordinator, v)
}

func (p *Participant) onePhase(from protocol.NodeID, out *protocol.Effects) {
	switch p.State {
	case ParticipantWorking:
		p.Coordinator, p.State = from, ParticipantOnePhase
		out.Emit(CommitBranchOnePhase{})
	case ParticipantFinished:
		p.acknowledge(out)
	}
}

func (p *Participant) finish(d Decision, out *protocol.Effects) {
	switch p.State {
	case ParticipantWorking, ParticipantPreparing, ParticipantPrepared:
		switch d {
		case Commit:
			if p.State == ParticipantPreparing {
				return // nobody can have counted a vote that was not cast
			}
			// Without a record: the promise was kept and forgotten; the branch knows.
			p.State, p.Decision, p.Attempt = ParticipantCommitting, Commit, 0
			out.Disarm(InquireTimer)
			out.Emit(CommitBranch{})
		case Abort:
			p.rollBack(Abort, out)
		}
	case ParticipantRollingBack:
		p.learn(d)
	case ParticipantFinished, ParticipantLeft:
		p.learn(d)
		p.acknowledge(out)
	}
}

// learn keeps a decision that the participant did not know and no longer depends on.
func (p *Participant) learn(d Decision) {
	if p.Decision == Undecided {
		p.Decision = d
	}
}

// refuse leaves for the abort side before a yes vote was given. Unless the participant is blank
// this makes certain that the transaction aborts.
func (p *Participant) refuse(out *protocol.Effects) {
	decision := Abort
	if p.Blank {
		decision = Undecided
	}
	p.rollBack(decision, out)
}

// rollBack gives up the branch for good. From Prepared the promise stays on record until the
// branch is gone; from before the vote a tombstone keeps a late PREPARE from preparing.
func (p *Participant) rollBack(d Decision, out *protocol.Effects) {
	if p.State != ParticipantPrepared {
		out.Put(BranchKey, Tombstone{ID: p.ID, Decision: d})
	}
	p.State, p.Decision, p.Attempt = ParticipantRollingBack, d, 0
	out.Disarm(InquireTimer)
	out.Emit(RollbackBranch{})
}

// inquired answers a peer in doubt, where this participant knows the decision or can still make
// it: before it votes it may refuse, and then commit is impossible.
func (p *Participant) inquired(from protocol.NodeID, out *protocol.Effects) {
	if p.State == ParticipantWorking && !p.Blank {
		p.refuse(out)
	}
	if p.Decision != Undecided {
		out.Send(from, Finish{ID: p.ID, Decision: p.Decision})
	}
}

func (p *Participant) expire(timer string, out *protocol.Effects) {
	switch {
	case timer == InquireTimer && p.State == ParticipantPrepared:
		p.vote(out)
		if p.Options.Cooperative {
			for _, peer := range p.Peers {
				out.Send(peer, Inquire{ID: p.ID})
			}
		}
		p.Options.retryAfter(InquireTimer, &p.Attempt, out)
	case timer == BranchTimer && p.State == ParticipantCommitting:
		out.Emit(CommitBranch{})
	case timer == BranchTimer && p.State == ParticipantRollingBack:
		out.Emit(RollbackBranch{})
	case timer == BranchTimer && p.State == ParticipantOnePhase:
		out.Emit(CommitBranchOnePhase{})
	}
}

func (p *Participant) input(value protocol.Value, out *protocol.Effects) {
	switch v := value.(type) {
	case BranchPrepared:
		if p.State == ParticipantPreparing {
			p.prepared(v, out)
		}
	case BranchFinished:
		p.finished(v.Outcome, out)
	case BranchFailed:
		switch p.State {
		case ParticipantCommitting, ParticipantRollingBack, ParticipantOnePhase:
			p.Options.retryAfter(BranchTimer, &p.Attempt, out)
		}
	case Abandon:
		p.abandon(v.Reason, out)
	case Forget:
		if p.State == ParticipantFinished {
			out.Delete(BranchKey)
		}
	}
}

func (p *Participant) prepared(v BranchPrepared, out *protocol.Effects) {
	switch v.Vote {
	case Yes:
		p.State, p.Evidence, p.Attempt = ParticipantPrepared, v.Evidence, 0
		out.Put(BranchKey, PreparedRecord{ID: p.ID, Coordinator: p.Coordinator, Peers: p.Peers, Evidence: p.Evidence})
		p.vote(out)
		p.Options.retryAfter(InquireTimer, &p.Attempt, out)
	case ReadOnly:
		p.State = ParticipantLeft
		p.vote(out)
	default:
		p.abandon(v.Reason, out)
	}
}

// abandon is the no vote, cast whether or not it was asked for.
func (p *Participant) abandon(reason string, out *protocol.Effects) {
	if p.State != ParticipantWorking && p.State != ParticipantPreparing {
		return
	}
	p.refuse(out)
	out.Send(p.Coordinator, Voted{ID: p.ID, Vote: No, Reason: reason})
}

func (p *Participant) finished(outcome Outcome, out *protocol.Effects) {
	switch p.State {
	case ParticipantOnePhase:
		switch outcome {
		case Committed:
			p.Decision = Commit
		case RolledBack:
			p.Decision = Abort
		}
	case ParticipantCommitting, ParticipantRollingBack:
	default:
		return
	}
	if outcome == Unfinished {
		return
	}
	p.State, p.Outcome = ParticipantFinished, outcome
	out.Put(BranchKey, FinishedRecord{ID: p.ID, Decision: p.Decision, Outcome: outcome})
	out.Disarm(BranchTimer)
	p.acknowledge(out)
}

func (p *Participant) acknowledge(out *protocol.Effects) {
	outcome := p.Outcome
	if p.State == ParticipantLeft { // there was nothing to undo
		outcome = RolledBack
	}
	out.Send(p.Coordinator, Acknowledge{ID: p.ID, Outcome: outcome})
}
