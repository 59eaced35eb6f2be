package commit

import "assent/protocol"

// SiteState is where a participant in three-phase commit stands. The letters are Skeen's (1981).
type SiteState uint8

// The states of a site.
const (
	// SiteWorking (q) has promised nothing and may still abort on its own.
	SiteWorking SiteState = iota
	// SitePreparing (q) waits for its branch to prepare.
	SitePreparing
	// SitePrepared (w) has voted yes and does not know whether all have.
	SitePrepared
	// SitePreCommitted (p; pc under quorums) knows that all have voted yes.
	SitePreCommitted
	// SitePreAborted (pa) is prepared to abort. It is used under quorums only.
	SitePreAborted
	// SiteCommitting (c) knows that commit is decided and waits for its branch.
	SiteCommitting
	// SiteRollingBack (a) knows that abort is decided and waits for its branch.
	SiteRollingBack
	// SiteFinished (c or a) is done; Outcome says how.
	SiteFinished
)

var siteStateNames = [...]string{"working", "preparing", "prepared", "pre-committed", "pre-aborted",
	"committing", "rolling back", "finished"}

// String returns the state's name.
func (s SiteState) String() string { return name(siteStateNames[:], s) }

// MarshalText returns the state's name.
func (s SiteState) MarshalText() ([]byte, error) { return marshal(siteStateNames[:], s) }

// UnmarshalText sets s from its name. It fails on any other text.
func (s *SiteState) UnmarshalText(text []byte) error {
	return unmarshal(siteStateNames[:], text, s)
}

// InDoubt reports whether a site in this state has voted yes and does not know the decision.
func (s SiteState) InDoubt() bool {
	return s == SitePrepared || s == SitePreCommitted || s == SitePreAborted
}

// WaitTimer bounds the wait of a participant in three-phase commit for whatever comes next: to be
// asked for its vote, to be told, or to be answered when it asks.
const WaitTimer = "wait"

// SiteRecord is what a site keeps under BranchKey while it is in doubt: the yes vote, and how far it
// has been moved since. The coordinator keeps one from the moment at which all have voted yes. The
// decision is a DecisionRecord of its own, under RegisterKey.
type SiteRecord struct {
	ID          TransactionID
	Coordinator protocol.NodeID
	State       SiteState
	Peers       []protocol.NodeID `cbor:",omitempty" json:",omitempty"`
	Quorums     *Quorums          `cbor:",omitempty" json:",omitempty"`
	Evidence    []byte            `cbor:",omitempty" json:",omitempty"`
	ReadOnly    bool              `cbor:",omitempty" json:",omitempty"`
	Promised    int               `cbor:",omitempty" json:",omitempty"`
	Accepted    int               `cbor:",omitempty" json:",omitempty"`
}

// Site is the part that both participants of three-phase commit share, with a branch below it: the
// vote, the promise on record, and finishing the branch as decided.
type Site struct {
	ID          TransactionID
	Self        protocol.NodeID
	Coordinator protocol.NodeID
	State       SiteState
	// Peers are all participants, this one too, in the order in which they succeed the coordinator.
	Peers   []protocol.NodeID `cbor:",omitempty" json:",omitempty"`
	Quorums *Quorums          `cbor:",omitempty" json:",omitempty"`
	// Promised is the highest round that the site takes part in; lower ones are refused.
	Promised int `cbor:",omitempty" json:",omitempty"`
	// Accepted is the round in which the site was moved to the state that it is in.
	Accepted int    `cbor:",omitempty" json:",omitempty"`
	Evidence []byte `cbor:",omitempty" json:",omitempty"`
	// ReadOnly says that the branch has nothing to finish. The site stays all the same: its state
	// counts when the others terminate.
	ReadOnly bool     `cbor:",omitempty" json:",omitempty"`
	Decision Decision `cbor:",omitempty" json:",omitempty"`
	Outcome  Outcome  `cbor:",omitempty" json:",omitempty"`
	Attempt  int      `cbor:",omitempty" json:",omitempty"`
	Options  Options
}

// rank is the site's place in the succession, from 1; the coordinator's is 0.
func (s *Site) rank() int { return 1 + indexOf(s.Peers, s.Self) }

func indexOf(nodes []protocol.NodeID, node protocol.NodeID) int {
	for i, n := range nodes {
		if n == node {
			return i
		}
	}
	return -1
}

// broadcast sends m to the coordinator and to the other participants.
func (s *Site) broadcast(m protocol.Message, out *protocol.Effects) {
	out.Send(s.Coordinator, m)
	s.tellPeers(m, out)
}

func (s *Site) tellPeers(m protocol.Message, out *protocol.Effects) {
	for _, n := range s.Peers {
		if n != s.Self {
			out.Send(n, m)
		}
	}
}

// save puts the promise and the state on record, before anything is said of it.
func (s *Site) save(out *protocol.Effects) {
	out.Put(BranchKey, SiteRecord{ID: s.ID, Coordinator: s.Coordinator, State: s.State, Peers: s.Peers, Quorums: s.Quorums,
		Evidence: s.Evidence, ReadOnly: s.ReadOnly, Promised: s.Promised, Accepted: s.Accepted})
}

// resume takes up the state that is on record. A site without a record has never voted yes, so it
// may abort on its own, and does. It reports whether the site is in doubt.
func (s *Site) resume(records protocol.Records, out *protocol.Effects) bool {
	if s.State != SiteWorking || s.Decision != Undecided {
		return false
	}
	r, promised := records[BranchKey].(SiteRecord)
	if promised {
		s.Coordinator, s.State, s.Peers, s.Quorums = r.Coordinator, r.State, r.Peers, r.Quorums
		s.Evidence, s.ReadOnly, s.Promised, s.Accepted = r.Evidence, r.ReadOnly, r.Promised, r.Accepted
	}
	if f, ok := records[BranchKey].(FinishedRecord); ok {
		s.State, s.Decision, s.Outcome = SiteFinished, f.Decision, f.Outcome
		return false
	}
	if d, ok := records[RegisterKey].(DecisionRecord); ok {
		s.Decision = d.Decision
		s.act(out)
		return false
	}
	if !promised {
		s.refuse("the work is lost", out)
		return false
	}
	return true
}

func (s *Site) prepare(from protocol.NodeID, m Prepare, out *protocol.Effects) {
	switch {
	case s.State == SiteWorking:
		s.Coordinator, s.Peers, s.Quorums, s.State = from, m.Peers, m.Quorums, SitePreparing
		out.Disarm(WaitTimer)
		out.Emit(PrepareBranch{})
	case s.State != SitePreparing && s.Decision != Commit:
		s.vote("", out)
	}
}

// vote sends the vote that the state stands for, as often as it is asked for.
func (s *Site) vote(reason string, out *protocol.Effects) {
	v := Voted{ID: s.ID, Vote: Yes, Evidence: s.Evidence, Reason: reason}
	if s.Decision == Abort {
		v.Vote, v.Evidence = No, nil
	}
	out.Send(s.Coordinator, v)
}

// refuse is the no vote, cast whether or not it was asked for: before it votes yes a site may abort
// on its own, and commit is impossible from then on.
func (s *Site) refuse(reason string, out *protocol.Effects) {
	if s.State != SiteWorking && s.State != SitePreparing {
		return
	}
	s.decide(Abort, out)
	s.vote(reason, out)
}

// decide puts the decision on record and acts on it. The first stands. Commit means nothing to a
// site that has not voted yes: nobody can have decided it.
func (s *Site) decide(d Decision, out *protocol.Effects) {
	if s.Decision != Undecided || d == Undecided || d == Commit && !s.State.InDoubt() {
		return
	}
	s.Decision, s.Attempt = d, 0
	out.Put(RegisterKey, DecisionRecord{Decision: d})
	out.Disarm(WaitTimer)
	s.act(out)
}

func (s *Site) act(out *protocol.Effects) {
	switch {
	case s.ReadOnly && s.Decision == Commit:
		s.finish(Committed, out)
	case s.ReadOnly:
		s.finish(RolledBack, out)
	case s.Decision == Commit:
		s.State = SiteCommitting
		out.Emit(CommitBranch{})
	default:
		s.State = SiteRollingBack
		out.Emit(RollbackBranch{})
	}
}

// finish notes the end, and tells the coordinator of it.
func (s *Site) finish(o Outcome, out *protocol.Effects) {
	s.State, s.Outcome = SiteFinished, o
	out.Put(BranchKey, FinishedRecord{ID: s.ID, Decision: s.Decision, Outcome: o})
	out.Disarm(BranchTimer)
	s.acknowledge(out)
}

func (s *Site) acknowledge(out *protocol.Effects) {
	out.Send(s.Coordinator, Acknowledge{ID: s.ID, Outcome: s.Outcome})
}

// told takes a decision from whoever knows it. The coordinator wants to hear of the end again.
func (s *Site) told(from protocol.NodeID, d Decision, out *protocol.Effects) {
	if s.State == SiteFinished && from == s.Coordinator {
		s.acknowledge(out)
		return
	}
	s.decide(d, out)
}

func (s *Site) input(value protocol.Value, out *protocol.Effects) {
	switch v := value.(type) {
	case BranchPrepared:
		if s.State == SitePreparing {
			s.prepared(v, out)
		}
	case BranchFinished:
		if (s.State == SiteCommitting || s.State == SiteRollingBack) && v.Outcome != Unfinished {
			s.finish(v.Outcome, out)
		}
	case BranchFailed:
		if s.State == SiteCommitting || s.State == SiteRollingBack {
			s.Options.retryAfter(BranchTimer, &s.Attempt, out)
		}
	case Abandon:
		s.refuse(v.Reason, out)
	case Forget:
		if s.State == SiteFinished {
			out.Delete(BranchKey)
			out.Delete(RegisterKey)
		}
	}
}

func (s *Site) prepared(v BranchPrepared, out *protocol.Effects) {
	if v.Vote != Yes && v.Vote != ReadOnly {
		s.refuse(v.Reason, out)
		return
	}
	s.State, s.Evidence, s.ReadOnly = SitePrepared, v.Evidence, v.Vote == ReadOnly
	s.save(out)
	s.vote("", out)
	s.await(out)
}

// retryBranch asks the branch once more to do as decided.
func (s *Site) retryBranch(out *protocol.Effects) {
	switch s.State {
	case SiteCommitting:
		out.Emit(CommitBranch{})
	case SiteRollingBack:
		out.Emit(RollbackBranch{})
	}
}

// await arms the timer for what the coordinator, or whoever has succeeded it, is to say next. Those
// who come later in the succession wait longer.
func (s *Site) await(out *protocol.Effects) {
	out.Arm(WaitTimer, s.Options.wait(s.rank()))
}
