package membership

import (
	"fmt"
	"slices"

	"assent/protocol"
	"assent/protocol/detector"
	"assent/protocol/election"
	"assent/protocol/paxos"
	"assent/protocol/quorum"
)

// Standing is where a node stands, in what changes seldom.
type Standing struct {
	// Leader is who leads the log, as far as the node knows; empty where nobody is known.
	Leader protocol.NodeID `cbor:",omitempty" json:",omitempty"`
	View   uint64
	Member bool
	// Primary says that the node is on the side that goes on. Why says why not: "2 of 5 votes, 3
	// needed: a, b and c unreachable".
	Primary   bool
	Why       string            `cbor:",omitempty" json:",omitempty"`
	Suspected []protocol.NodeID `cbor:",omitempty" json:",omitempty"`
}

// Status is emitted when its Standing has changed, and as the answer to Describe.
type Status struct {
	Standing
	Epoch uint64
	// Chosen is the slot up to which the node knows the log.
	Chosen paxos.Slot
	// Role is the replica's: following, preparing, leading or displaced.
	Role  paxos.ReplicaState
	Peers []PeerStatus `cbor:",omitempty" json:",omitempty"`
}

// PeerStatus is what a node knows of another member.
type PeerStatus struct {
	Node protocol.NodeID
	// Level is the level of suspicion in hundredths (detector.Detector.Level).
	Level     int  `cbor:",omitempty" json:",omitempty"`
	Suspected bool `cbor:",omitempty" json:",omitempty"`
	// Chosen is how far the member knows the log, as it has reported last. Only the leader is told.
	Chosen paxos.Slot `cbor:",omitempty" json:",omitempty"`
}

// answers reports whether a node is not suspected.
func (n *Node) answers(node protocol.NodeID) bool {
	if node == n.Self.Node {
		return true
	}
	i := slices.IndexFunc(n.Detector.Peers, func(p detector.Peer) bool { return p.Node == node })
	return i < 0 || !n.Detector.Peers[i].Suspected
}

// reach counts the votes that are not suspected.
func (n *Node) reach() quorum.Tally {
	return n.State.View.Quorums().WriteTally(func(node protocol.NodeID) quorum.Answer {
		if n.answers(node) {
			return quorum.Granted
		}
		return quorum.Unreachable
	})
}

// standing says where the node stands.
func (n *Node) standing() Standing {
	s := Standing{Leader: n.Log.Leader, View: n.State.View.Number, Member: n.member(), Suspected: n.Detector.Suspected()}
	reach := n.reach()
	switch {
	case s.View == 0:
		if s.Why = "no member of the cluster has answered yet"; n.Denied != "" {
			s.Why = "it is not let in: " + n.Denied
		}
	case !s.Member:
		if s.Why = fmt.Sprintf("not a member of view %d", s.View); n.Denied != "" {
			s.Why += ", and not let in: " + n.Denied
		}
	case n.Life.Lost:
		s.Why = WhyLost
	case n.Life.Blank:
		s.Why = n.unmet()
	case reach.Verdict() != quorum.Reached:
		s.Why = reach.String()
	case s.Leader == "":
		s.Why = "nobody is known to lead"
	default:
		s.Primary = true
	}
	return s
}

// Elected returns who leads in the eyes of the node's elector, and what that is doing. A node without a vote
// takes no part in elections and knows of nobody.
func (n *Node) Elected() (protocol.NodeID, election.State) {
	if !n.voter() {
		return "", election.Following
	}
	return n.Elector.Leader, n.Elector.State
}

// Status says how the node stands.
func (n *Node) Status() Status {
	s := Status{Standing: n.standing(), Epoch: n.State.Epoch, Chosen: n.Log.Chosen, Role: n.Log.State}
	for _, p := range n.Peers {
		s.Peers = append(s.Peers, PeerStatus{Node: p.Node, Level: int(100 * n.Detector.Level(p.Node)),
			Suspected: !n.answers(p.Node), Chosen: p.Chosen})
	}
	return s
}

// say emits the status if the standing has changed.
func (n *Node) say(out *protocol.Effects) {
	now := n.standing()
	if now.Leader == n.Last.Leader && now.View == n.Last.View && now.Member == n.Last.Member &&
		now.Primary == n.Last.Primary && now.Why == n.Last.Why && slices.Equal(now.Suspected, n.Last.Suspected) {
		return
	}
	n.Last = now
	out.Emit(n.Status())
}

// tick does what is due: it leads or follows, repeats what was not answered, and looks after the members.
func (n *Node) tick(out *protocol.Effects) {
	n.Ticks++
	n.lead(out)
	n.Peers = slices.Clone(n.Peers)
	for i := range n.Peers {
		if p := &n.Peers[i]; n.answers(p.Node) {
			p.Suspected = 0
		} else {
			p.Suspected++
		}
	}
	if n.Log.State == paxos.Leading {
		n.care()
	} else if leader := n.Log.Leader; leader != "" && n.Ticks%5 == 0 {
		out.Send(leader, Report{Storage: n.Self.Storage, Chosen: n.Log.Chosen, Founder: n.founder()})
	}
	n.show(out)
	n.enlist()
	n.age(out)
	n.press(out)
	n.say(out)
}

// due reports whether a snapshot is to be taken: after so many entries, and where others vote from here on. What stands
// after the snapshot a node that comes back has to be told, or to have agreed on again by those who voted on it; and
// those who have left, or have failed for good, are to be done without.
func (n *Node) due() bool {
	voters := func(x paxos.Reign) []quorum.Member { return x.Configuration.System.Members }
	reigns := n.Log.Reigns
	for i := 1; i < len(reigns) && reigns[i].From <= n.Log.Chosen+1; i++ {
		if !slices.Equal(voters(reigns[i-1]), voters(reigns[i])) {
			return true
		}
	}
	return n.Log.Chosen >= n.Log.Base.Slot+n.Options.Every
}

// lead tries to lead where nobody does, the election says so and enough votes are there; it stops where
// they are not, for then somebody else may have them. Where nobody leads for long although somebody is
// elected, who may be hearing nobody, the others try, one after the other. While the registers move nobody leads
// who has no part in them: the leader moves them.
func (n *Node) lead(out *protocol.Effects) {
	if l := n.Elector.Leader; l != "" && !n.answers(l) {
		n.elect(protocol.Input{Value: election.Suspect{Node: l}}, out)
	}
	leader, enough := n.Log.Leader, n.reach().Verdict() == quorum.Reached
	if leader != "" {
		n.Leaderless = 0
	} else {
		n.Leaderless++
	}
	r := n.State.Registers
	may := n.voter() && enough && (r.Next == nil || r.needs(n.Self.Node))
	switch {
	case n.Log.Wanted && (!may || leader != "" && leader != n.Self.Node):
		n.log(protocol.Input{Value: paxos.Follow[Change]{}}, out)
	case !n.Log.Wanted && may && leader == "" && (n.Elector.Leader == n.Self.Node || n.Leaderless >= n.turn()):
		n.log(protocol.Input{Value: paxos.Lead[Change]{}}, out)
	}
}

// turn is for how many ticks nobody must lead before this node tries without being elected.
func (n *Node) turn() int {
	rank := slices.Index(n.Elector.Nodes, n.Self.Node)
	return 50 + 25*(len(n.Elector.Nodes)-rank)
}

// care is what a leader does for the members: it notes the storages of founders, gives those votes who
// have caught up, and excludes who has been suspected for long enough, one at a time. Votes wait while the registers
// move: who has one may be elected, and must be able to move them.
func (n *Node) care() {
	n.regroup()
	var storages []paxos.Storage
	for _, m := range n.State.Members {
		h, known := n.heard(m.Node)
		switch {
		case m.Storage == "" && known && h.Founder:
			storages = append(storages, paxos.Storage{Node: m.Node, ID: h.Storage})
		case m.Storage == "" && h.Suspected == 0 && !known:
			return // it will tell soon
		case n.State.Registers.Next == nil && m.Votes == 0 && m.Wanted > 0 && known && h.Suspected == 0 && h.Storage == m.Storage && h.Chosen+n.Log.Options.Keep+4 >= n.Log.Chosen:
			n.wish(Change{Kind: Weigh, Node: m.Node, Votes: m.Wanted})
			return
		case n.Options.Exclude > 0 && h.Suspected >= n.Options.Exclude:
			if c := (Change{Kind: Exclude, Node: m.Node}); n.State.Judge(c, n.answers) == "" {
				n.wish(c)
				return
			}
		}
	}
	if len(storages) > 0 {
		n.wish(Change{Kind: Identify, Storages: storages})
	}
}

// regroup has the registers follow the members. It waits for those who are about to be given their votes, for a
// while, so that one that joins costs one move and not two; but a storage that is lost is done without at once.
func (n *Node) regroup() {
	if !n.State.Trails() {
		n.Trails = 0
		return
	}
	n.Trails++
	r := n.State.Registers
	coming := len(n.State.following()) == len(n.State.Members) && slices.ContainsFunc(n.State.Members, func(m Member) bool { return m.Votes == 0 && m.Wanted > 0 && n.answers(m.Node) })
	if r.Next == nil && (!coming || n.Trails > n.Options.Patience) || r.Next != nil && n.Moved >= r.Number {
		n.wish(Change{Kind: Regroup, Registers: r.Number + 1})
	}
}

// heard returns what is known of a member; of itself the node knows all.
func (n *Node) heard(node protocol.NodeID) (h Heard, known bool) {
	if node == n.Self.Node {
		return Heard{Node: node, Storage: n.Self.Storage, Chosen: n.Log.Chosen, Founder: n.founder()}, true
	}
	for _, p := range n.Peers {
		if p.Node == node {
			return p, p.Storage != ""
		}
	}
	return h, false
}

// enlist asks for membership, and for another address, where the node is not what it wants to be.
func (n *Node) enlist() {
	m, ok := n.State.Member(n.Self.Node)
	switch {
	case n.Log.Leader == "" && len(n.Log.Seeds) == 0 || n.Self.Wanted == 0 || n.departed():
	case !ok || !n.fits(m.Storage):
		n.wish(Change{Kind: Join, Node: n.Self.Node, Member: n.Self})
	case m.Address != n.Self.Address || m.API != n.Self.API:
		n.wish(Change{Kind: Readdress, Node: n.Self.Node, Member: n.Self})
	}
}

// Left reports whether the node has left on request, as far as it knows: a founder perhaps before the others had noted
// its storage.
func (n *Node) Left() bool {
	return n.State.HasLeft(n.Self.Node, n.Self.Storage) || n.Life.Founder && n.State.HasLeft(n.Self.Node, "")
}

// departed reports whether the node has left on request, or is about to.
func (n *Node) departed() bool {
	return n.Retired || n.Left() ||
		slices.ContainsFunc(n.Asks, func(a PendingAsk) bool { return a.Change.Kind == Leave && a.Change.Node == n.Self.Node })
}

// wish asks for a change by the node itself, unless it does already.
func (n *Node) wish(c Change) {
	same := func(a PendingAsk) bool { return a.Own && a.Change.Kind == c.Kind && a.Change.Node == c.Node }
	if !slices.ContainsFunc(n.Asks, same) && len(n.Asks) < MaxAsks {
		n.enqueue(PendingAsk{Change: c, Own: true})
	}
}

func (n *Node) enqueue(a PendingAsk) {
	n.Asked++
	a.Change.By, a.Change.Storage, a.Change.Number = n.Self.Node, n.Self.Storage, n.Asked
	n.Asks = append(slices.Clone(n.Asks), a)
}

func (n *Node) ask(a Ask, out *protocol.Effects) {
	why := ""
	switch {
	case n.Life.Lost:
		why = WhyLost
	case len(n.Asks) >= MaxAsks:
		why = "too many changes wait"
	case a.Change.Kind == Identify || a.Change.Kind == Regroup || a.Change.Kind == Void:
		why = "the cluster does that by itself"
	}
	if why != "" {
		out.Emit(Answered{Ref: a.Ref, Result: Refused, Why: why, Epoch: n.State.Epoch})
		return
	}
	n.enqueue(PendingAsk{Ref: a.Ref, Change: a.Change})
}

// age gives those changes up that have waited for too long.
func (n *Node) age(out *protocol.Effects) {
	n.Asks = slices.Clone(n.Asks)
	for i := range n.Asks {
		n.Asks[i].Ticks++
	}
	for len(n.Asks) > 0 && n.Asks[0].Ticks > n.Options.Patience {
		n.answer(Unsure, "no answer", out)
	}
}

// goOn brings the next change forward as soon as the one before it is answered.
func (n *Node) goOn(out *protocol.Effects) {
	if len(n.Asks) > 0 && n.Asks[0].Change.Number != n.Pressed {
		n.press(out)
	}
}

// press brings the first change before whoever leads.
func (n *Node) press(out *protocol.Effects) {
	if len(n.Asks) == 0 {
		return
	}
	c, own := n.Asks[0].Change, n.Asks[0].Own
	why, settled := n.State.settled(c)
	n.Pressed = c.Number
	switch leader := n.Log.Leader; {
	case settled: // it came with a state transfer
		n.settle(why, out)
	case n.Log.State == paxos.Leading:
		if why := n.propose(c, own, out); why != "" {
			n.answer(Refused, why, out)
		}
	case leader != "" && leader != n.Self.Node:
		out.Send(leader, Request{Change: c, Own: own})
	case len(n.Log.Seeds) > 0 && len(n.Log.Reigns) == 0:
		out.Send(n.Log.Seeds[n.Ticks%len(n.Log.Seeds)], Request{Change: c, Own: own})
	}
}

// settle answers the first change, which stands in the log: it is refused if there is a reason.
func (n *Node) settle(why string, out *protocol.Effects) {
	if why != "" {
		n.answer(Refused, why, out)
		return
	}
	n.answer(Applied, "", out)
}

// answer lets go of the first change.
func (n *Node) answer(result Result, why string, out *protocol.Effects) {
	a := n.Asks[0]
	n.Asks = slices.Clone(n.Asks[1:])
	if a.Change.Kind == Join && a.Own {
		if n.Denied = ""; result == Refused {
			n.Denied = why
		}
	}
	if !a.Own {
		out.Emit(Answered{Ref: a.Ref, Result: result, Why: why, Epoch: n.State.Epoch})
	}
}

// requested tries a change for another node, or passes it on.
func (n *Node) requested(from protocol.NodeID, m Request, out *protocol.Effects) {
	if n.Log.State == paxos.Leading {
		if why := n.propose(m.Change, m.Own, out); why != "" {
			out.Send(m.Change.By, Refusal{Number: m.Change.Number, Why: why})
		}
		return
	}
	if leader := n.Log.Leader; !m.Forwarded && leader != "" && leader != n.Self.Node && leader != from {
		out.Send(leader, Request{Change: m.Change, Own: m.Own, Forwarded: true})
	}
}

// propose submits a change, or says why it is refused. One that is under way or applied is left alone, and
// so is one that must wait: whoever asks will ask again. An earlier leader may have tried the change, and found it
// good; what it has sent may be chosen yet. So a refusal that this leader would give stands only when it is chosen,
// in the log. It is not waited for where a node asks by itself: it promises nothing to anybody.
func (n *Node) propose(c Change, own bool, out *protocol.Effects) (why string) {
	same := func(e paxos.Entry[Change]) bool {
		return e.Kind != paxos.NoOp && e.Value.By == c.By && e.Value.Storage == c.Storage && e.Value.Number == c.Number
	}
	if _, settled := n.State.settled(c); settled || slices.ContainsFunc(n.Log.Queue, same) ||
		slices.ContainsFunc(n.Log.Open, func(o paxos.OpenSlot[Change]) bool { return same(o.Entry) }) ||
		slices.ContainsFunc(n.Log.Bound, func(s paxos.SlotRecord[Change]) bool { return same(s.Entry) }) {
		return ""
	}
	if why := n.State.Judge(c, n.answers); why != "" {
		if own || c.wrong() != "" {
			return why
		}
		c = c.void(why)
	}
	n.log(protocol.Input{Value: paxos.Submit[Change]{Entry: n.State.entry(c)}}, out)
	return ""
}

// reported notes how far a node is. One that is a member no more is dismissed when the registers do without it
// and those who are members know all that it has voted on: until then its vote may be needed.
func (n *Node) reported(from protocol.NodeID, m Report, out *protocol.Effects) {
	n.Peers = slices.Clone(n.Peers)
	for i := range n.Peers {
		if p := &n.Peers[i]; p.Node == from {
			p.Storage, p.Chosen, p.Founder = m.Storage, m.Chosen, m.Founder
			return
		}
	}
	if n.Log.State != paxos.Leading || n.State.View.Has(from) || n.State.Registers.needs(from) || len(n.Log.Reigns) == 0 {
		return
	}
	last := n.Log.Reigns[len(n.Log.Reigns)-1].From - 1
	tally := n.State.View.Quorums().WriteTally(func(node protocol.NodeID) quorum.Answer {
		if h, known := n.heard(node); known && h.Chosen >= last {
			return quorum.Granted
		}
		return quorum.Silent
	})
	if m.Chosen >= last && tally.Verdict() == quorum.Reached {
		out.Send(from, Dismissed{View: n.State.View.Number})
	}
}

// unmet says why a founder that is blank has no vote.
func (n *Node) unmet() string {
	w := n.welcome()
	return fmt.Sprintf("it has nothing on disk, as at the very first start: more than half of the others' votes must have met it first, and %d of %d have", w.For, w.Total)
}

func (n *Node) dismissed(m Dismissed, out *protocol.Effects) {
	if !n.Retired && !n.State.View.Has(n.Self.Node) && m.View >= n.State.View.Number {
		n.Retired = true
		out.Emit(Retired(m))
	}
}
