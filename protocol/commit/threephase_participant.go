package commit

import (
	"cmp"
	"slices"

	"assent/protocol"
)

// Stage is how far a participant has come in terminating a transaction whose coordinator is silent.
type Stage uint8

// The stages.
const (
	// StageNone: it waits to be told.
	StageNone Stage = iota
	// StageProbing: it asks those before it in the succession whether they are up.
	StageProbing
	// StageCollecting: it leads, and collects the states of the others.
	StageCollecting
	// StageMoving: it leads, and moves the others to its own state before it decides.
	StageMoving
)

var stageNames = [...]string{"none", "probing", "collecting", "moving"}

// String returns the stage's name.
func (s Stage) String() string { return name(stageNames[:], s) }

// MarshalText returns the stage's name.
func (s Stage) MarshalText() ([]byte, error) { return marshal(stageNames[:], s) }

// UnmarshalText sets s from its name. It fails on any other text.
func (s *Stage) UnmarshalText(text []byte) error { return unmarshal(stageNames[:], text, s) }

// Report is what one node has said of its state.
type Report struct {
	Node     protocol.NodeID
	State    SiteState
	Accepted int  `cbor:",omitempty" json:",omitempty"`
	Moved    bool `cbor:",omitempty" json:",omitempty"`
}

// ThreePhaseParticipant votes for one branch and finishes it as decided, in three-phase commit
// (Skeen 1981; Bernstein, Hadzilacos and Goodman 1987, 7.5). When the coordinator is silent it asks
// those who would succeed it earlier and, if they are all down, terminates the transaction itself.
//
// It is nonblocking while one site stays up, and safe only where a node that does not answer in
// time is down: not under partition, and not on a network without a bound on delay. Use
// QuorumParticipant, or two-phase commit, where that cannot be had.
type ThreePhaseParticipant struct {
	Site
	// Recovered says that the site was made anew in doubt. It has missed what the others did, so
	// it takes no part in terminating, and only asks.
	Recovered bool     `cbor:",omitempty" json:",omitempty"`
	Stage     Stage    `cbor:",omitempty" json:",omitempty"`
	Reports   []Report `cbor:",omitempty" json:",omitempty"`
}

// NewThreePhaseParticipant returns the participant self of the transaction id, which answers to
// coordinator.
func NewThreePhaseParticipant(id TransactionID, self, coordinator protocol.NodeID, options Options) *ThreePhaseParticipant {
	return &ThreePhaseParticipant{Site: Site{ID: id, Self: self, Coordinator: coordinator, Options: options}}
}

// Step takes one event. Every pair of state and event is specified: docs/three-phase-table.md shows
// them all.
func (p *ThreePhaseParticipant) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Start:
		if p.State == SiteWorking {
			p.await(out)
		}
	case protocol.Recover:
		p.recover(ev.Records, out)
	case protocol.Receive:
		p.receive(ev.From, ev.Message, out)
	case protocol.Expire:
		switch ev.Timer {
		case WaitTimer:
			p.timeout(out)
		case BranchTimer:
			p.retryBranch(out)
		}
	case protocol.Input:
		p.input(ev.Value, out)
	}
}

// recover resumes from the stable records. A site in doubt asks: while it was down the others may
// have decided without it. Where nobody is asked (Unilateral) it follows its failure transition.
func (p *ThreePhaseParticipant) recover(records protocol.Records, out *protocol.Effects) {
	if !p.resume(records, out) {
		return
	}
	if p.Options.Unilateral {
		p.transition(out)
		return
	}
	p.Recovered = true
	p.vote("", out)
	p.inquire(out)
}

func (p *ThreePhaseParticipant) inquire(out *protocol.Effects) {
	p.Reports = nil
	p.broadcast(Inquire{ID: p.ID}, out)
	p.Options.retryAfter(WaitTimer, &p.Attempt, out)
}

// transition follows Skeen's failure and timeout transitions, which need nobody else: from w to
// abort, for no site can have committed, and from p to commit, for none can have aborted.
func (p *ThreePhaseParticipant) transition(out *protocol.Effects) {
	if p.State == SitePreCommitted {
		p.conclude(Commit, out)
		return
	}
	p.conclude(Abort, out)
}

func (p *ThreePhaseParticipant) receive(from protocol.NodeID, message protocol.Message, out *protocol.Effects) {
	switch m := message.(type) {
	case Prepare:
		if m.ID == p.ID {
			p.prepare(from, m, out)
		}
	case PreCommit:
		if m.ID == p.ID {
			p.preCommit(from, m.Round, out)
		}
	case Finish:
		if m.ID == p.ID {
			p.forgetStage()
			p.told(from, m.Decision, out)
		}
	case Inquire:
		if m.ID == p.ID {
			p.asked(from, 0, out)
		}
	case StateRequest:
		if m.ID == p.ID {
			p.requested(from, m.Round, out)
		}
	case StateReport:
		if m.ID == p.ID {
			p.reported(from, m, out)
		}
	case PreAcknowledge:
		if m.ID == p.ID && p.Stage == StageMoving && m.Round == p.rank() {
			p.moved(from, out)
		}
	}
}

// preCommit moves the site from w to p, on record, before it is acknowledged. A site that has
// failed since it voted is not moved: whoever leads does without it.
func (p *ThreePhaseParticipant) preCommit(from protocol.NodeID, round int, out *protocol.Effects) {
	switch {
	case p.Decision != Undecided:
		out.Send(from, Finish{ID: p.ID, Decision: p.Decision})
	case round < p.Promised || p.Recovered || !p.State.InDoubt():
	default:
		if p.State == SitePrepared {
			p.State = SitePreCommitted
			p.save(out)
		}
		out.Send(from, PreAcknowledge{ID: p.ID, Round: round})
		p.await(out)
	}
}

// asked answers whoever asks with the decision or, where it is not known, with the site's state. A
// site that has not voted makes the decision by refusing.
func (p *ThreePhaseParticipant) asked(from protocol.NodeID, round int, out *protocol.Effects) {
	p.refuse("asked before it had voted", out)
	if p.Decision != Undecided {
		out.Send(from, Finish{ID: p.ID, Decision: p.Decision})
		return
	}
	out.Send(from, StateReport{ID: p.ID, Round: round, State: p.State, Recovered: p.Recovered})
}

// requested answers the new coordinator of that rank, and obeys none of a lower one from then on.
func (p *ThreePhaseParticipant) requested(from protocol.NodeID, round int, out *protocol.Effects) {
	if round < p.Promised {
		return
	}
	if p.State.InDoubt() && !p.Recovered {
		p.forgetStage()
		p.Promised = round
		p.await(out)
	}
	p.asked(from, round, out)
}

func (p *ThreePhaseParticipant) timeout(out *protocol.Effects) {
	switch {
	case p.State == SiteWorking:
		p.refuse("nobody asked for the vote", out)
	case !p.State.InDoubt():
	case p.Options.Unilateral:
		p.transition(out)
	case p.Recovered:
		p.inquire(out)
	case p.Stage == StageNone:
		p.probe(out)
	case p.Stage == StageProbing:
		p.lead(out)
	case p.Stage == StageCollecting:
		p.terminate(out)
	case p.Stage == StageMoving: // who has not acknowledged is down
		p.commitAll(out)
	}
}

// probe asks those who come before in the succession, so that a coordinator which is only waiting
// for somebody else is never taken for one that is down.
func (p *ThreePhaseParticipant) probe(out *protocol.Effects) {
	p.Stage, p.Reports = StageProbing, nil
	out.Send(p.Coordinator, Inquire{ID: p.ID})
	for _, n := range p.Peers[:max(p.rank()-1, 0)] {
		out.Send(n, Inquire{ID: p.ID})
	}
	out.Arm(WaitTimer, p.Options.vote())
}

// lead begins the termination protocol: all who come before are down.
func (p *ThreePhaseParticipant) lead(out *protocol.Effects) {
	p.Stage, p.Reports, p.Promised = StageCollecting, nil, p.rank()
	p.broadcast(StateRequest{ID: p.ID, Round: p.rank()}, out)
	out.Arm(WaitTimer, p.Options.vote())
}

func (p *ThreePhaseParticipant) reported(from protocol.NodeID, m StateReport, out *protocol.Effects) {
	switch {
	case p.Decision != Undecided:
	case p.Recovered && m.Round == 0:
		p.note(from, m)
		if m.Recovered {
			p.decideAfterTotalFailure(out)
		}
	case m.Recovered: // it knows less than those who never failed
	case p.Stage == StageProbing && m.Round == 0:
		p.forgetStage() // somebody before this site is up and will lead
		p.await(out)
	case p.Stage == StageCollecting && m.Round == p.rank():
		p.note(from, m)
	}
}

// note keeps a report, the latest of each node, in the order of nodes. A node that has not failed is
// noted as working by a site that has: it is not one that all have to wait for.
func (p *ThreePhaseParticipant) note(from protocol.NodeID, m StateReport) {
	r := Report{Node: from, State: m.State}
	if p.Recovered && !m.Recovered {
		r.State = SiteWorking
	}
	i, known := slices.BinarySearchFunc(p.Reports, from, func(r Report, n protocol.NodeID) int {
		return cmp.Compare(r.Node, n)
	})
	if known {
		p.Reports[i] = r
		return
	}
	p.Reports = slices.Insert(p.Reports, i, r)
}

// terminate is the termination rule for a new coordinator (Bernstein, Hadzilacos and Goodman 1987,
// 7.5). The decisions of those who have one have arrived as Finish already. If all are in w, none
// has committed: abort. If any is in p, all have voted yes: move the others to p, then commit.
func (p *ThreePhaseParticipant) terminate(out *protocol.Effects) {
	committable := p.State == SitePreCommitted
	for _, r := range p.Reports {
		committable = committable || r.State == SitePreCommitted
	}
	if !committable {
		p.concludeForAll(Abort, out)
		return
	}
	if p.State == SitePrepared {
		p.State = SitePreCommitted
		p.save(out)
	}
	p.Stage = StageMoving
	p.Reports = slices.DeleteFunc(p.Reports, func(r Report) bool {
		return r.State != SitePrepared || r.Node == p.Coordinator // a coordinator is not moved
	})
	for _, r := range p.Reports {
		out.Send(r.Node, PreCommit{ID: p.ID, Round: p.rank()})
	}
	out.Arm(WaitTimer, p.Options.vote())
	p.commitIfMoved(out)
}

// moved notes that a site has gone from w to p.
func (p *ThreePhaseParticipant) moved(from protocol.NodeID, out *protocol.Effects) {
	p.Reports = slices.DeleteFunc(p.Reports, func(r Report) bool { return r.Node == from })
	p.commitIfMoved(out)
}

func (p *ThreePhaseParticipant) commitIfMoved(out *protocol.Effects) {
	if len(p.Reports) == 0 {
		p.commitAll(out)
	}
}

func (p *ThreePhaseParticipant) commitAll(out *protocol.Effects) { p.concludeForAll(Commit, out) }

// decideAfterTotalFailure decides when every site has failed and all are back, still in doubt. What a
// site decided it has on record, so nobody has decided; nobody will lead, and sites that have
// failed are not moved, so all of them see the same states and decide alike.
func (p *ThreePhaseParticipant) decideAfterTotalFailure(out *protocol.Effects) {
	if len(p.Reports) < len(p.Peers) { // all others, and the coordinator
		return
	}
	d := Abort
	if p.State == SitePreCommitted {
		d = Commit
	}
	for _, r := range p.Reports {
		switch r.State {
		case SiteWorking:
			return // it has not failed: it, or another such, decides
		case SitePreCommitted:
			d = Commit
		}
	}
	p.conclude(d, out)
}

// conclude decides at this site; the others find out by asking.
func (p *ThreePhaseParticipant) conclude(d Decision, out *protocol.Effects) {
	p.forgetStage()
	p.decide(d, out)
}

// concludeForAll decides as the new coordinator.
func (p *ThreePhaseParticipant) concludeForAll(d Decision, out *protocol.Effects) {
	p.conclude(d, out)
	p.broadcast(Finish{ID: p.ID, Decision: d}, out)
}

func (p *ThreePhaseParticipant) forgetStage() { p.Stage, p.Reports = StageNone, nil }
