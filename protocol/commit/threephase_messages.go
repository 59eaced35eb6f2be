package commit

import "assent/protocol"

// The messages that three-phase commit has beside those of two-phase commit. A round is a numbered
// attempt to terminate: 0 is the coordinator's own.
type (
	// PreCommit says that all have voted yes and moves the receiver to p (pc). Whoever leads the
	// round → participant.
	PreCommit struct {
		ID    TransactionID
		Round int `cbor:",omitempty" json:",omitempty"`
	}

	// PreAbort moves the receiver to pa. It is used under quorums only. Whoever leads the round →
	// participant.
	PreAbort struct {
		ID    TransactionID
		Round int `cbor:",omitempty" json:",omitempty"`
	}

	// PreAcknowledge says that the sender was moved in this round, to p, pc or pa.
	PreAcknowledge struct {
		ID    TransactionID
		Round int `cbor:",omitempty" json:",omitempty"`
	}

	// StateRequest is a new coordinator's: it asks for the state, and for obedience to no lower
	// round from now on. Answered by StateReport or Finish.
	StateRequest struct {
		ID    TransactionID
		Round int
	}

	// StateReport answers StateRequest and, without quorums, Inquire, where the decision is not
	// known.
	StateReport struct {
		ID    TransactionID
		Round int `cbor:",omitempty" json:",omitempty"`
		State SiteState
		// Accepted is the round in which the site was moved to State.
		Accepted int `cbor:",omitempty" json:",omitempty"`
		// Recovered says that the site was made anew in doubt, and does not terminate.
		Recovered bool `cbor:",omitempty" json:",omitempty"`
	}
)

// threePhaseTypes are the encodings of three-phase commit's states, messages and records.
func threePhaseTypes() []protocol.Type {
	return []protocol.Type{
		{Name: "commit.ThreePhaseCoordinator", Zero: ThreePhaseCoordinator{}},
		{Name: "commit.ThreePhaseParticipant", Zero: ThreePhaseParticipant{}},
		{Name: "commit.QuorumParticipant", Zero: QuorumParticipant{}},
		{Name: "commit.ThreePhaseNode", Zero: ThreePhaseNode{}},
		{Name: "commit.QuorumNode", Zero: QuorumNode{}},
		{Name: "commit.PreCommit", Zero: PreCommit{}},
		{Name: "commit.PreAbort", Zero: PreAbort{}},
		{Name: "commit.PreAcknowledge", Zero: PreAcknowledge{}},
		{Name: "commit.StateRequest", Zero: StateRequest{}},
		{Name: "commit.StateReport", Zero: StateReport{}},
		{Name: "commit.SiteRecord", Zero: SiteRecord{}},
	}
}
