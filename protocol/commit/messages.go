package commit

import "assent/protocol"

// The messages between coordinator and participants. Every one carries the transaction's id, by
// which late and misdirected messages are told apart.
type (
	// Prepare asks for a vote. Coordinator → participant.
	Prepare struct {
		ID TransactionID
		// Peers are the other participants, for cooperative termination. Empty where it is not used.
		// In three-phase commit they are all participants, in the order in which they succeed the
		// coordinator.
		Peers []protocol.NodeID `cbor:",omitempty" json:",omitempty"`
		// Quorums are given in three-phase commit by quorums only.
		Quorums *Quorums `cbor:",omitempty" json:",omitempty"`
		// Electorate is given in Paxos Commit only.
		Electorate *Electorate `cbor:",omitempty" json:",omitempty"`
	}

	// OnePhase asks the only participant to commit without preparing. Coordinator → participant.
	OnePhase struct{ ID TransactionID }

	// Voted answers Prepare. A Yes that is sent again is also how a participant in doubt asks
	// for the decision. Participant → coordinator.
	Voted struct {
		ID   TransactionID
		Vote Vote
		// Evidence lets the branch's fate be looked up later; opaque here.
		Evidence []byte `cbor:",omitempty" json:",omitempty"`
		// Reason says why the vote is No, for people.
		Reason string `cbor:",omitempty" json:",omitempty"`
	}

	// Finish tells the decision: the lectures' COMMIT and ABORT. Coordinator → participant, and
	// participant → participant as the answer to Inquire.
	Finish struct {
		ID       TransactionID
		Decision Decision
	}

	// Acknowledge says that the branch is finished, and how. Participant → coordinator.
	Acknowledge struct {
		ID      TransactionID
		Outcome Outcome
	}

	// Inquire asks a peer for the decision (cooperative termination; Bernstein, Hadzilacos and
	// Goodman 1987, 7.4). Participant → participant.
	Inquire struct{ ID TransactionID }
)

// What a coordinator emits.
type (
	// Propose asks the register to decide. Answered by the input Decided or ProposeFailed.
	Propose struct {
		Decision Decision
		// Members are those whose branches must be finished.
		Members []Member
	}

	// Concluded says that the transaction's fate is settled and stable: early reply is safe.
	// Decision is Undecided after a one-phase commit of which nobody knows how it ended.
	Concluded struct {
		Decision Decision
		Cause    Cause
		// By is the participant that Cause is about; it may be empty.
		By     protocol.NodeID `cbor:",omitempty" json:",omitempty"`
		Reason string          `cbor:",omitempty" json:",omitempty"`
	}

	// Contradicted says that the outcome at one branch is heuristic: it contradicts the decision
	// or is not known. It is emitted once for each such branch, before Completed.
	Contradicted struct {
		Node     protocol.NodeID
		Decision Decision
		Outcome  Outcome
	}

	// Completed says that every branch has reported: the transaction may be forgotten.
	Completed struct{ Decision Decision }
)

// What a coordinator takes as input.
type (
	// Decided says which decision stands in the register. Members are those that the register
	// knows of and the coordinator may not.
	Decided struct {
		Decision Decision
		Members  []Member `cbor:",omitempty" json:",omitempty"`
	}

	// ProposeFailed says that the register could not say what stands; Propose is emitted again
	// after a while.
	ProposeFailed struct{}

	// Cancel asks to abort. It comes too late once commit is proposed.
	Cancel struct{ Reason string }
)

// What a participant emits to its branch. Each is answered by BranchPrepared, or by
// BranchFinished or BranchFailed.
type (
	// PrepareBranch asks the branch to prepare.
	PrepareBranch struct{}
	// CommitBranch asks the branch to commit.
	CommitBranch struct{}
	// RollbackBranch asks the branch to roll back, whatever state it is in.
	RollbackBranch struct{}
	// CommitBranchOnePhase asks the branch to commit without having prepared. Asked again, the
	// branch says what became of it.
	CommitBranchOnePhase struct{}
)

// What a participant takes as input from its branch.
type (
	// BranchPrepared answers PrepareBranch.
	BranchPrepared struct {
		Vote     Vote
		Evidence []byte `cbor:",omitempty" json:",omitempty"`
		Reason   string `cbor:",omitempty" json:",omitempty"`
	}
	// BranchFinished says, with proof, what became of the branch.
	BranchFinished struct{ Outcome Outcome }
	// BranchFailed says that nothing is known yet; the request is emitted again after a while.
	BranchFailed struct{}
	// Abandon says that the branch's work is lost or given up before it was prepared: the
	// participant aborts on its own, as every participant may before it votes yes.
	Abandon struct{ Reason string }
	// Forget says that nobody will ask about the transaction any more.
	Forget struct{}
)

// What a participant keeps in stable storage, under BranchKey.
type (
	// PreparedRecord is the yes vote: the promise to commit or to roll back as decided. The branch
	// is prepared before the record is written, so an executor whose branches outlive it looks at
	// them first: a branch that is found prepared without a record stands for this record.
	PreparedRecord struct {
		ID          TransactionID
		Coordinator protocol.NodeID
		Peers       []protocol.NodeID `cbor:",omitempty" json:",omitempty"`
		Evidence    []byte            `cbor:",omitempty" json:",omitempty"`
	}
	// Tombstone is the promise never to prepare: the no vote, or an abort that came first.
	// Decision is Abort where that is certain for the whole transaction.
	Tombstone struct {
		ID       TransactionID
		Decision Decision
	}
	// FinishedRecord is the end: the decision, and what happened.
	FinishedRecord struct {
		ID       TransactionID
		Decision Decision
		Outcome  Outcome
	}
)

// BranchKey is the key of a participant's one stable record.
const BranchKey = "branch"

// Cause says why a transaction ended as it did.
type Cause uint8

// The causes.
const (
	// Unanimous: all voted yes or read-only, and the register took the decision.
	Unanimous Cause = iota + 1
	// VotedNo: a participant voted no.
	VotedNo
	// NoAnswer: a participant did not vote in time.
	NoAnswer
	// Cancelled: whoever began the transaction gave it up.
	Cancelled
	// Settled: the register already held the decision, or took it from somebody other than the
	// transaction's coordinator.
	Settled
	// ByOnePhase: the only participant decided alone.
	ByOnePhase
)

var causeNames = [...]string{"none", "unanimous", "voted no", "no answer", "cancelled", "settled", "one phase"}

// String returns the cause's name.
func (c Cause) String() string { return name(causeNames[:], c) }

// MarshalText returns the cause's name.
func (c Cause) MarshalText() ([]byte, error) { return marshal(causeNames[:], c) }

// UnmarshalText sets c from its name. It fails on any other text.
func (c *Cause) UnmarshalText(text []byte) error { return unmarshal(causeNames[:], text, c) }

// Types returns the encodings of this package's states, messages, values and records.
func Types() []protocol.Type {
	return append(append(append(peerTypes(), threePhaseTypes()...), paxosTypes()...), []protocol.Type{
		{Name: "commit.Coordinator", Zero: Coordinator{}},
		{Name: "commit.Participant", Zero: Participant{}},
		{Name: "commit.Prepare", Zero: Prepare{}},
		{Name: "commit.OnePhase", Zero: OnePhase{}},
		{Name: "commit.Voted", Zero: Voted{}},
		{Name: "commit.Finish", Zero: Finish{}},
		{Name: "commit.Acknowledge", Zero: Acknowledge{}},
		{Name: "commit.Inquire", Zero: Inquire{}},
		{Name: "commit.Propose", Zero: Propose{}},
		{Name: "commit.Concluded", Zero: Concluded{}},
		{Name: "commit.Contradicted", Zero: Contradicted{}},
		{Name: "commit.Completed", Zero: Completed{}},
		{Name: "commit.Decided", Zero: Decided{}},
		{Name: "commit.ProposeFailed", Zero: ProposeFailed{}},
		{Name: "commit.Cancel", Zero: Cancel{}},
		{Name: "commit.PrepareBranch", Zero: PrepareBranch{}},
		{Name: "commit.CommitBranch", Zero: CommitBranch{}},
		{Name: "commit.RollbackBranch", Zero: RollbackBranch{}},
		{Name: "commit.CommitBranchOnePhase", Zero: CommitBranchOnePhase{}},
		{Name: "commit.BranchPrepared", Zero: BranchPrepared{}},
		{Name: "commit.BranchFinished", Zero: BranchFinished{}},
		{Name: "commit.BranchFailed", Zero: BranchFailed{}},
		{Name: "commit.Abandon", Zero: Abandon{}},
		{Name: "commit.Forget", Zero: Forget{}},
		{Name: "commit.PreparedRecord", Zero: PreparedRecord{}},
		{Name: "commit.Tombstone", Zero: Tombstone{}},
		{Name: "commit.FinishedRecord", Zero: FinishedRecord{}},
		{Name: "commit.CoordinatorNode", Zero: CoordinatorNode{}},
		{Name: "commit.ParticipantNode", Zero: ParticipantNode{}},
		{Name: "commit.DecisionRecord", Zero: DecisionRecord{}},
		{Name: "commit.BranchRecord", Zero: BranchRecord{}},
	}...)
}
