package commit

import "assent/protocol"

// The messages between the sites of a decentralised protocol. Decisions travel as Finish, and
// Inquire asks for one, as between participants.
type (
	// PeerVoted tells a vote, yes or no. Site → every other.
	PeerVoted struct {
		ID   TransactionID
		Vote Vote
	}

	// PeerReady says that the sender has pre-committed: it knows that all have voted yes. Site →
	// every other, and as the answer to PeerMove.
	PeerReady struct{ ID TransactionID }

	// PeerStands answers Inquire where no decision is known: the sender has voted yes and, if Ready,
	// has pre-committed.
	PeerStands struct {
		ID    TransactionID
		Ready bool `cbor:",omitempty" json:",omitempty"`
	}

	// PeerMove asks a site to pre-commit, on the word of the sender that all have voted yes. Backup →
	// every site that stands behind it.
	PeerMove struct{ ID TransactionID }
)

// PeerRecord is a peer's promise in stable storage, under BranchKey: it has voted yes and, if Ready,
// has pre-committed. The branch is prepared before the record is written: see PreparedRecord.
type PeerRecord struct {
	ID       TransactionID
	Sites    []protocol.NodeID
	Phases   int
	Ready    bool `cbor:",omitempty" json:",omitempty"`
	ReadOnly bool `cbor:",omitempty" json:",omitempty"`
}

// PeerState is where a peer stands.
type PeerState uint8

// The states of a peer.
const (
	// PeerWorking has not voted and may still abort on its own.
	PeerWorking PeerState = iota
	// PeerPreparing waits for its branch to prepare.
	PeerPreparing
	// PeerWaiting has voted yes and waits for the votes of the others.
	PeerWaiting
	// PeerPrecommitted knows that all have voted yes, and waits until all know it.
	PeerPrecommitted
	// PeerCommitting knows that commit is decided and waits for its branch.
	PeerCommitting
	// PeerRollingBack knows that abort is decided and waits for its branch.
	PeerRollingBack
	// PeerFinished is done; Outcome says how.
	PeerFinished
)

var peerStateNames = [...]string{"working", "preparing", "waiting", "pre-committed", "committing", "rolling back", "finished"}

// String returns the state's name.
func (s PeerState) String() string { return name(peerStateNames[:], s) }

// MarshalText returns the state's name.
func (s PeerState) MarshalText() ([]byte, error) { return marshal(peerStateNames[:], s) }

// UnmarshalText sets s from its name. It fails on any other text.
func (s *PeerState) UnmarshalText(text []byte) error { return unmarshal(peerStateNames[:], text, s) }

// PeerRound is how far a peer is with the termination protocol of three-phase commit.
type PeerRound uint8

// The rounds.
const (
	// RoundNone: it trusts that the others go on.
	RoundNone PeerRound = iota
	// RoundElecting: it has asked the sites before it whether they live.
	RoundElecting
	// RoundAsking: it is the backup, and has asked the sites after it where they stand.
	RoundAsking
	// RoundMoving: it is the backup, and has asked the sites after it to pre-commit.
	RoundMoving
)

var peerRoundNames = [...]string{"none", "electing", "asking", "moving"}

// String returns the round's name.
func (r PeerRound) String() string { return name(peerRoundNames[:], r) }

// MarshalText returns the round's name.
func (r PeerRound) MarshalText() ([]byte, error) { return marshal(peerRoundNames[:], r) }

// UnmarshalText sets r from its name. It fails on any other text.
func (r *PeerRound) UnmarshalText(text []byte) error { return unmarshal(peerRoundNames[:], text, r) }

// peerTypes returns the encodings of the sites of decentralised and central protocols.
func peerTypes() []protocol.Type {
	return []protocol.Type{
		{Name: "commit.Peer", Zero: Peer{}},
		{Name: "commit.PeerNode", Zero: PeerNode{}},
		{Name: "commit.TwoPhaseSite", Zero: TwoPhaseSite{}},
		{Name: "commit.ThreePhaseSite", Zero: ThreePhaseSite{}},
		{Name: "commit.PeerVoted", Zero: PeerVoted{}},
		{Name: "commit.PeerReady", Zero: PeerReady{}},
		{Name: "commit.PeerStands", Zero: PeerStands{}},
		{Name: "commit.PeerMove", Zero: PeerMove{}},
		{Name: "commit.PeerRecord", Zero: PeerRecord{}},
	}
}
