package commit

import (
	"slices"

	"assent/protocol"
)

// TerminateTimer bounds a peer's wait for the others. When it runs out the peer asks who still
// knows something: in two phases for the decision, in three by the termination protocol.
const TerminateTimer = "terminate"

// PeerSite is what a peer knows of one site, itself included.
type PeerSite struct {
	Node protocol.NodeID
	// Yes: its yes vote is known.
	Yes bool `cbor:",omitempty" json:",omitempty"`
	// Ready: it is known to have pre-committed.
	Ready bool `cbor:",omitempty" json:",omitempty"`
	// Answered: it has answered since this round began.
	Answered bool `cbor:",omitempty" json:",omitempty"`
}

// Peer is one site of a decentralised commit protocol (Skeen 1981): there is no coordinator, every
// site sends its vote to every other, and each concludes for itself. In two phases a site commits
// when it knows that all have voted yes. In three it then pre-commits, tells the others, and
// commits when it knows that all have pre-committed.
//
// In two phases AC1 to AC4 hold under crashes, restarts, and lost, late, repeated and reordered
// messages; a site that has voted yes blocks while nobody who is up knows the votes of all. In three
// phases nobody who stays up blocks, however many others crash, and AC1 to AC4 hold, as long as
// timers never run out early and no message is lost: with a partition, or a timer that runs out
// while an answer is on its way, AC1 does not hold. A site that has been down takes no part in the
// termination protocol and only asks for the decision; so nobody decides after a total failure.
type Peer struct {
	ID   TransactionID
	Self protocol.NodeID
	// Sites are all sites. Their order is that in which they become backup.
	Sites []PeerSite
	// Phases is 2 or 3.
	Phases int
	State  PeerState
	Round  PeerRound `cbor:",omitempty" json:",omitempty"`
	// Outside says that the peer was made anew after a crash, in doubt.
	Outside bool `cbor:",omitempty" json:",omitempty"`
	// ReadOnly says that the branch has nothing to finish. The site votes yes and stays, because
	// the others may need to ask it.
	ReadOnly bool     `cbor:",omitempty" json:",omitempty"`
	Decision Decision `cbor:",omitempty" json:",omitempty"`
	Outcome  Outcome  `cbor:",omitempty" json:",omitempty"`
	Attempt  int      `cbor:",omitempty" json:",omitempty"`
	Options  Options
}

// NewPeer returns the peer at the site self among all sites, for the transaction id, with 2 or 3
// phases. Every site is given the same sites in the same order.
func NewPeer(id TransactionID, self protocol.NodeID, sites []protocol.NodeID, phases int, options Options) *Peer {
	p := &Peer{ID: id, Self: self, Phases: phases, Options: options}
	p.know(sites)
	return p
}

func (p *Peer) know(sites []protocol.NodeID) {
	p.Sites = make([]PeerSite, 0, len(sites))
	for _, n := range sites {
		p.Sites = append(p.Sites, PeerSite{Node: n})
	}
}

// Step takes one event. Start is the transaction's arrival at this site.
func (p *Peer) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Start:
		if p.State == PeerWorking {
			p.State = PeerPreparing
			out.Emit(PrepareBranch{})
		}
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

// recover resumes from the stable record. Without one the site has not voted: it never will.
func (p *Peer) recover(records protocol.Records, out *protocol.Effects) {
	if p.State != PeerWorking {
		return
	}
	switch r := records[BranchKey].(type) {
	case PeerRecord:
		p.know(r.Sites)
		p.State, p.Phases, p.Outside, p.ReadOnly = PeerWaiting, r.Phases, true, r.ReadOnly
		own := p.site(p.Self)
		if own != nil {
			own.Yes, own.Ready = true, r.Ready
		}
		if r.Ready {
			p.State = PeerPrecommitted
		}
		p.inquire(out)
	case Tombstone:
		p.State, p.Decision = PeerRollingBack, Abort
		out.Emit(RollbackBranch{})
	case FinishedRecord:
		p.State, p.Decision, p.Outcome = PeerFinished, r.Decision, r.Outcome
	default:
		p.decide(Abort, out)
	}
}

func (p *Peer) receive(from protocol.NodeID, message protocol.Message, out *protocol.Effects) {
	site := p.site(from)
	if site == nil || from == p.Self {
		return // a stranger
	}
	switch m := message.(type) {
	case PeerVoted:
		if m.ID == p.ID {
			p.voted(site, m.Vote, out)
		}
	case PeerReady:
		if m.ID == p.ID {
			site.Yes, site.Ready, site.Answered = true, true, true
			p.advance(out)
		}
	case PeerStands:
		if m.ID == p.ID {
			site.Yes, site.Ready, site.Answered = true, site.Ready || m.Ready, true
			p.advance(out)
		}
	case PeerMove:
		if m.ID == p.ID {
			p.moved(from, out)
		}
	case Inquire:
		if m.ID == p.ID {
			p.inquired(from, out)
		}
	case Finish:
		if m.ID == p.ID && m.Decision != Undecided {
			p.told(m.Decision, out)
		}
	}
}

func (p *Peer) voted(site *PeerSite, v Vote, out *protocol.Effects) {
	switch v {
	case Yes:
		site.Yes = true
		p.advance(out)
	case No:
		p.told(Abort, out)
	}
}

// advance goes as far as what is known of the others allows. A site that has been down leaves
// three-phase commit to those that have not.
func (p *Peer) advance(out *protocol.Effects) {
	if p.Outside && p.Phases == 3 {
		return
	}
	if p.State == PeerWaiting && p.all(func(s PeerSite) bool { return s.Yes }) {
		if p.Phases != 3 {
			p.decide(Commit, out)
			return
		}
		p.precommit(out)
		p.tellAll(PeerReady{ID: p.ID}, out)
	}
	if p.State == PeerPrecommitted && p.all(func(s PeerSite) bool { return s.Ready }) {
		p.decide(Commit, out)
	}
}

// precommit makes it stable that all have voted yes.
func (p *Peer) precommit(out *protocol.Effects) {
	p.State = PeerPrecommitted
	p.site(p.Self).Ready = true
	out.Put(BranchKey, p.record())
	p.Options.retryAfter(TerminateTimer, &p.Attempt, out)
}

func (p *Peer) record() PeerRecord {
	r := PeerRecord{ID: p.ID, Phases: p.Phases, Ready: p.State == PeerPrecommitted, ReadOnly: p.ReadOnly}
	for _, s := range p.Sites {
		r.Sites = append(r.Sites, s.Node)
	}
	return r
}

// told takes a decision that somebody else has come to. Abort may find the site anywhere before the
// end; commit finds it in doubt.
func (p *Peer) told(d Decision, out *protocol.Effects) {
	switch p.State {
	case PeerWaiting, PeerPrecommitted:
		p.decide(d, out)
	case PeerWorking, PeerPreparing:
		if d == Abort {
			p.decide(Abort, out)
		}
	}
}

// decide ends the site's doubt. Before it has voted a tombstone sees to it that it never will; later
// the promise stays on record until the branch is finished.
func (p *Peer) decide(d Decision, out *protocol.Effects) {
	promised := p.State == PeerWaiting || p.State == PeerPrecommitted
	p.Decision, p.Round, p.Attempt = d, RoundNone, 0
	p.forgetOthers()
	out.Disarm(TerminateTimer)
	out.Emit(Concluded{Decision: d, Cause: Settled})
	switch {
	case p.ReadOnly:
		p.end(d.outcome(), out)
	case d == Commit:
		p.State = PeerCommitting
		out.Emit(CommitBranch{})
	default:
		p.State = PeerRollingBack
		if !promised {
			out.Put(BranchKey, Tombstone{ID: p.ID, Decision: Abort})
		}
		out.Emit(RollbackBranch{})
	}
}

// outcome returns what a branch does that follows the decision.
func (d Decision) outcome() Outcome {
	if d == Commit {
		return Committed
	}
	return RolledBack
}

// forgetOthers drops what was known of the others: it no longer matters.
func (p *Peer) forgetOthers() {
	for i := range p.Sites {
		p.Sites[i] = PeerSite{Node: p.Sites[i].Node}
	}
}

func (p *Peer) end(outcome Outcome, out *protocol.Effects) {
	p.State, p.Outcome = PeerFinished, outcome
	out.Put(BranchKey, FinishedRecord{ID: p.ID, Decision: p.Decision, Outcome: outcome})
	out.Disarm(BranchTimer)
	if p.Decision.Heuristic(outcome) {
		out.Emit(Contradicted{Node: p.Self, Decision: p.Decision, Outcome: outcome})
	}
	out.Emit(Completed{Decision: p.Decision})
}

func (p *Peer) input(value protocol.Value, out *protocol.Effects) {
	switch v := value.(type) {
	case BranchPrepared:
		if p.State == PeerPreparing {
			p.prepared(v.Vote, out)
		}
	case BranchFinished:
		if (p.State == PeerCommitting || p.State == PeerRollingBack) && v.Outcome != Unfinished {
			p.end(v.Outcome, out)
		}
	case BranchFailed:
		if p.State == PeerCommitting || p.State == PeerRollingBack {
			p.Options.retryAfter(BranchTimer, &p.Attempt, out)
		}
	case Abandon:
		p.refuse(out)
	case Forget:
		if p.State == PeerFinished {
			out.Delete(BranchKey)
		}
	}
}

func (p *Peer) prepared(v Vote, out *protocol.Effects) {
	if v != Yes && v != ReadOnly {
		p.refuse(out)
		return
	}
	p.State, p.ReadOnly, p.Attempt = PeerWaiting, v == ReadOnly, 0
	p.site(p.Self).Yes = true
	out.Put(BranchKey, p.record())
	p.tellAll(PeerVoted{ID: p.ID, Vote: Yes}, out)
	p.Options.retryAfter(TerminateTimer, &p.Attempt, out)
	p.advance(out)
}

// refuse is the no vote, cast whether or not the transaction has arrived.
func (p *Peer) refuse(out *protocol.Effects) {
	if p.State != PeerWorking && p.State != PeerPreparing {
		return
	}
	p.decide(Abort, out)
	p.tellAll(PeerVoted{ID: p.ID, Vote: No}, out)
}

func (p *Peer) tellAll(m protocol.Message, out *protocol.Effects) {
	for _, s := range p.Sites {
		if s.Node != p.Self {
			out.Send(s.Node, m)
		}
	}
}

func (p *Peer) site(node protocol.NodeID) *PeerSite {
	i := slices.IndexFunc(p.Sites, func(s PeerSite) bool { return s.Node == node })
	if i < 0 {
		return nil
	}
	return &p.Sites[i]
}

func (p *Peer) all(holds func(PeerSite) bool) bool {
	return !slices.ContainsFunc(p.Sites, func(s PeerSite) bool { return !holds(s) })
}
