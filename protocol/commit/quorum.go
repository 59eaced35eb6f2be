package commit

import (
	"cmp"
	"fmt"
	"slices"

	"assent/protocol"
)

// Quorums say how many votes suffice, in three-phase commit by quorums (Skeen 1982). A commit quorum
// and an abort quorum have a voter in common.
type Quorums struct {
	// Votes are those of each participant, in the order of the coordinator's list. 0 to 1000 each.
	Votes []int
	// Commit is how many votes must be prepared to commit before anybody commits.
	Commit int
	// Abort is how many votes must be prepared to abort before anybody aborts who has voted yes.
	Abort int
}

// Majority returns quorums of n participants with one vote each, of more than half of them.
func Majority(n int) Quorums {
	q := Quorums{Votes: make([]int, n), Commit: n/2 + 1, Abort: n/2 + 1}
	for i := range q.Votes {
		q.Votes[i] = 1
	}
	return q
}

// Validate returns an ErrSystem unless q is safe for n participants: each has 0 to 1000 votes, each
// quorum can be had, and the two together are more than all votes.
func (q Quorums) Validate(n int) error {
	if len(q.Votes) != n {
		return fmt.Errorf("%w: votes are given for %d of %d participants", ErrSystem, len(q.Votes), n)
	}
	total := 0
	for i, v := range q.Votes {
		if v < 0 || v > 1000 {
			return fmt.Errorf("%w: participant %d has %d votes; 0 to 1000 are allowed", ErrSystem, i+1, v)
		}
		total += v
	}
	for i, quorum := range []int{q.Commit, q.Abort} {
		if quorum < 1 || quorum > total {
			return fmt.Errorf("%w: the %s quorum is %d of %d votes; 1 to all are allowed", ErrSystem, Decision(i+1), quorum, total)
		}
	}
	if q.Commit+q.Abort <= total {
		return fmt.Errorf("%w: quorums of %d and %d have no vote of %d in common; together they must be more than all",
			ErrSystem, q.Commit, q.Abort, total)
	}
	return nil
}

// QuorumParticipant votes for one branch and finishes it as decided, in three-phase commit by
// quorums (Skeen 1982), with rounds as in E3PC (Keidar and Dolev 1998). When nothing is heard in
// time it leads a round of its own: it collects the states of the others, chooses by them, moves
// those who answer to pc or to pa, and decides when a quorum has moved.
//
// It is safe under partition, loss and any delay. A part of the sites that has no quorum waits.
type QuorumParticipant struct {
	Site
	// Round is the round that the site leads, or 0.
	Round int   `cbor:",omitempty" json:",omitempty"`
	Stage Stage `cbor:",omitempty" json:",omitempty"`
	// Reports are the answers of this round.
	Reports []Report `cbor:",omitempty" json:",omitempty"`
}

// NewQuorumParticipant returns the participant self of the transaction id, which answers to
// coordinator.
func NewQuorumParticipant(id TransactionID, self, coordinator protocol.NodeID, options Options) *QuorumParticipant {
	return &QuorumParticipant{Site: Site{ID: id, Self: self, Coordinator: coordinator, Options: options}}
}

// Step takes one event. Every pair of state and event is specified: docs/three-phase-table.md shows
// them all.
func (p *QuorumParticipant) Step(ev protocol.Event, out *protocol.Effects) {
	switch ev := ev.(type) {
	case protocol.Start:
		if p.State == SiteWorking {
			p.await(out)
		}
	case protocol.Recover:
		if p.resume(ev.Records, out) {
			p.vote("", out)
			p.await(out)
		}
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

func (p *QuorumParticipant) receive(from protocol.NodeID, message protocol.Message, out *protocol.Effects) {
	switch m := message.(type) {
	case Prepare:
		if m.ID == p.ID && (p.State != SiteWorking || m.Quorums != nil && m.Quorums.Validate(len(m.Peers)) == nil) {
			p.prepare(from, m, out)
		}
	case PreCommit:
		if m.ID == p.ID {
			p.move(from, m.Round, SitePreCommitted, out)
		}
	case PreAbort:
		if m.ID == p.ID {
			p.move(from, m.Round, SitePreAborted, out)
		}
	case Finish:
		if m.ID == p.ID {
			p.stepDown()
			p.told(from, m.Decision, out)
		}
	case Inquire:
		if m.ID == p.ID && p.Decision != Undecided {
			out.Send(from, Finish{ID: p.ID, Decision: p.Decision})
		}
	case StateRequest:
		if m.ID == p.ID {
			p.requested(from, m.Round, out)
		}
	case StateReport:
		if m.ID == p.ID && p.Stage == StageCollecting && m.Round == p.Round {
			p.note(Report{Node: from, State: m.State, Accepted: m.Accepted})
			p.chooseIfAllReported(out)
		}
	case PreAcknowledge:
		if m.ID == p.ID && p.Stage == StageMoving && m.Round == p.Round {
			p.note(Report{Node: from, State: p.State, Moved: true})
			p.decideIfQuorum(out)
		}
	}
}

// move takes the site to pc or to pa, on record, before it is acknowledged, unless it has promised a
// higher round. In one round all are moved to the same state.
func (p *QuorumParticipant) move(from protocol.NodeID, round int, to SiteState, out *protocol.Effects) {
	switch {
	case p.Decision != Undecided:
		out.Send(from, Finish{ID: p.ID, Decision: p.Decision})
		return
	case round < p.Promised || !p.State.InDoubt():
		return
	}
	if p.State != to || p.Accepted != round || p.Promised != round {
		p.stepDown()
		p.State, p.Promised, p.Accepted = to, round, round
		p.save(out)
	}
	out.Send(from, PreAcknowledge{ID: p.ID, Round: round})
	p.await(out)
}

// requested promises a new leader to take part in no lower round, on record, and reports the state.
// A site that has not voted makes the decision by refusing.
func (p *QuorumParticipant) requested(from protocol.NodeID, round int, out *protocol.Effects) {
	p.refuse("asked before it had voted", out)
	switch {
	case p.Decision != Undecided:
		out.Send(from, Finish{ID: p.ID, Decision: p.Decision})
		return
	case round < p.Promised || round == p.Round:
		return
	case round > p.Promised:
		p.stepDown()
		p.Promised = round
		p.save(out)
	}
	out.Send(from, StateReport{ID: p.ID, Round: round, State: p.State, Accepted: p.Accepted})
	p.await(out)
}

// timeout begins a round, higher than any that the site has heard of. A round that it leads and that
// has not come to a decision by now is given up, unless enough have reported.
func (p *QuorumParticipant) timeout(out *protocol.Effects) {
	switch {
	case p.State == SiteWorking:
		p.refuse("nobody asked for the vote", out)
	case !p.State.InDoubt():
	case p.Stage == StageCollecting && p.choose(out):
	default:
		p.lead(out)
	}
}

// lead begins the site's next round. Its rounds are its place in the succession and every further
// one at a distance of the number of participants, so no two sites lead the same.
func (p *QuorumParticipant) lead(out *protocol.Effects) {
	p.stepDown()
	round := p.rank()
	for round <= p.Promised {
		round += len(p.Peers)
	}
	p.await(out)
	if most := p.Options.Rounds; most > 0 && round > most {
		p.broadcast(Inquire{ID: p.ID}, out)
		return
	}
	p.Round, p.Promised, p.Stage = round, round, StageCollecting
	p.save(out)
	p.broadcast(StateRequest{ID: p.ID, Round: round}, out)
	p.chooseIfAllReported(out)
}

func (p *QuorumParticipant) stepDown() { p.Round, p.Stage, p.Reports = 0, StageNone, nil }

// note keeps a report, one of each voter, in the order of nodes.
func (p *QuorumParticipant) note(r Report) {
	if indexOf(p.Peers, r.Node) < 0 || r.Node == p.Self {
		return
	}
	i, known := slices.BinarySearchFunc(p.Reports, r.Node, func(r Report, n protocol.NodeID) int {
		return cmp.Compare(r.Node, n)
	})
	if !known {
		p.Reports = slices.Insert(p.Reports, i, r)
	}
}

func (p *QuorumParticipant) chooseIfAllReported(out *protocol.Effects) {
	if len(p.Reports) == len(p.Peers)-1 {
		p.choose(out)
	}
}

// tally is what the leader of a round knows of the sites that have answered, itself among them.
type tally struct {
	votes    int       // of all
	notPC    int       // of those that are not prepared to commit
	notPA    int       // of those that are not prepared to abort
	anyPC    bool      // some site is prepared to commit: all have voted yes
	latest   SiteState // in which the site is that was moved last
	accepted int       // the round of that move
}

func (t *tally) add(r Report, votes int) {
	t.votes += votes
	if r.State == SitePreCommitted {
		t.anyPC = true
	} else {
		t.notPC += votes
	}
	if r.State != SitePreAborted {
		t.notPA += votes
	}
	if r.State != SitePrepared && r.Accepted >= t.accepted {
		t.latest, t.accepted = r.State, r.Accepted
	}
}

// choice returns what may be attempted, or Undecided if nothing may.
//
// The first two lines are E3PC's: whoever was moved last tells which decision may have been taken,
// and the quorum that it takes now has met every quorum of the other kind. The others are Skeen's:
// those outside one kind's states are so many that this kind has had no quorum.
func (q Quorums) choice(t tally) Decision {
	switch {
	case t.latest == SitePreCommitted && t.votes >= q.Commit:
		return Commit
	case t.latest != SitePreCommitted && t.votes >= q.Abort:
		return Abort
	case t.notPC >= q.Abort:
		return Abort
	case t.anyPC && t.notPA >= q.Commit:
		return Commit
	}
	return Undecided
}

// choose moves the sites to pc or to pa, itself first and on record. It reports whether it could.
func (p *QuorumParticipant) choose(out *protocol.Effects) bool {
	var t tally
	t.add(Report{State: p.State, Accepted: p.Accepted}, p.votes(p.Self))
	for _, r := range p.Reports {
		t.add(r, p.votes(r.Node))
	}
	round := p.Round
	switch p.Quorums.choice(t) {
	case Commit:
		p.State = SitePreCommitted
		p.tellPeers(PreCommit{ID: p.ID, Round: round}, out)
	case Abort:
		p.State = SitePreAborted
		p.tellPeers(PreAbort{ID: p.ID, Round: round}, out)
	default:
		return false
	}
	p.Accepted, p.Stage, p.Reports = round, StageMoving, nil
	p.save(out)
	p.await(out)
	p.decideIfQuorum(out)
	return true
}

func (p *QuorumParticipant) votes(node protocol.NodeID) int {
	i := indexOf(p.Peers, node)
	if i < 0 {
		return 0
	}
	return p.Quorums.Votes[i]
}

// decideIfQuorum decides once those who have moved, the leader among them, have enough votes.
func (p *QuorumParticipant) decideIfQuorum(out *protocol.Effects) {
	votes := p.votes(p.Self)
	for _, r := range p.Reports {
		votes += p.votes(r.Node)
	}
	d, quorum := Commit, p.Quorums.Commit
	if p.State == SitePreAborted {
		d, quorum = Abort, p.Quorums.Abort
	}
	if votes < quorum {
		return
	}
	p.stepDown()
	p.decide(d, out)
	p.broadcast(Finish{ID: p.ID, Decision: d}, out)
}
