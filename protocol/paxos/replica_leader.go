package paxos

import (
	"cmp"
	"slices"

	"assent/protocol"
	"assent/protocol/quorum"
)

// begin starts a ballot that is higher than all that are known. The leader's own promise keeps it, so
// that no ballot is begun twice.
func (r *Replica[V, S]) begin(out *protocol.Effects) {
	round := max(r.Promised.Round, r.Round) + 1
	if most := r.Options.Ballots.Rounds; !r.mayLead() || most > 0 && round > most {
		if r.State != Following {
			r.State = Following
			r.rest(out)
		}
		return
	}
	r.State, r.Ballot, r.Round = Preparing, Ballot{Round: round, Node: r.Self}, round
	r.Promises, r.Bound = nil, nil
	r.raise(r.Ballot, out)
	r.follow("", out)
	r.count(r.self(), after(r.Log, r.Chosen))
	r.prepare(out)
	r.take(out)
}

// prepare asks those who have not promised yet.
func (r *Replica[V, S]) prepare(out *protocol.Effects) {
	r.canvass(out)
	pause, attempt := r.Options.Ballots.pause(r.Attempt, r.Self)
	r.Attempt = attempt
	out.Arm(LogTimer, pause)
}

// canvass asks those who have not promised. What was promised with a storage that has a successor by now is as good as
// not promised.
func (r *Replica[V, S]) canvass(out *protocol.Effects) {
	for _, n := range r.peers(false) {
		lasts := func(s Storage) bool {
			return s.Node == n && !slices.ContainsFunc(r.reigning(), func(x Reign) bool { return x.Configuration.replaces(s) })
		}
		if !slices.ContainsFunc(r.Promises, lasts) {
			out.Send(n, LogPhase1a[V]{Ballot: r.Ballot})
		}
	}
}

// promised counts a promise, unless the acceptor knows of more slots than the leader: these come first.
func (r *Replica[V, S]) promised(from protocol.NodeID, m LogPhase1b[V], out *protocol.Effects) {
	if m.Ballot != r.Ballot || r.State != Preparing && r.State != Leading {
		return
	}
	if m.Chosen > r.Chosen {
		r.fetch(from, out)
		return
	}
	r.count(Storage{Node: from, ID: m.Storage}, m.Accepted)
	r.take(out)
}

// count adds a promise and what comes with it: in each slot the leader is bound to the entry that was
// accepted in the highest ballot.
func (r *Replica[V, S]) count(s Storage, records []SlotRecord[V]) {
	r.Promises = enter(r.Promises, s)
	r.Bound = slices.Clone(r.Bound)
	for _, a := range records {
		if a.Slot <= r.Chosen || r.State == Leading && a.Slot < r.Next {
			continue
		}
		i, found := search(r.Bound, a.Slot)
		if found && (r.Bound[i].Chosen || !a.Chosen && a.Ballot.Compare(r.Bound[i].Ballot) <= 0) {
			continue
		}
		r.Bound = place(r.Bound, a)
	}
}

// enter returns all with s, sorted by node. A node's new storage takes the place of its old one.
func enter(all []Storage, s Storage) []Storage {
	i, found := slices.BinarySearchFunc(all, s.Node, func(x Storage, n protocol.NodeID) int { return cmp.Compare(x.Node, n) })
	all = slices.Clone(all)
	if found {
		all[i] = s
		return all
	}
	return slices.Insert(all, i, s)
}

// ready reports whether a read quorum of those who agree on a slot has promised.
func (r *Replica[V, S]) ready(s Slot) bool {
	return votes(r.Promises, r.configuration(s), quorum.System.ReadTally)
}

// take begins to lead when enough have promised, and goes on where leading waited for promises.
func (r *Replica[V, S]) take(out *protocol.Effects) {
	if r.State == Preparing && r.ready(r.Chosen+1) {
		r.State, r.Next, r.Attempt = Leading, r.Chosen+1, 0
		r.follow(r.Self, out)
		r.armBeat(out)
	}
	r.fill(out)
}

// fill tries slots while there is something to try, up to a window after what stands.
func (r *Replica[V, S]) fill(out *protocol.Effects) {
	for r.State == Leading && r.Next <= r.Chosen+r.window() && r.ready(r.Next) {
		e, ok := r.next()
		if !ok {
			return
		}
		r.try(e, out)
	}
}

// next returns the entry for the next slot: what the leader is bound to; a no-op in a gap before such a
// slot; what was submitted; a no-op where a new configuration waits for its slots to come.
func (r *Replica[V, S]) next() (e Entry[V], ok bool) {
	if i, found := search(r.Bound, r.Next); found {
		return r.Bound[i].Entry, true
	}
	if len(after(r.Bound, r.Next)) > 0 {
		return e, true
	}
	if last := r.Options.Last; last > 0 && r.Next > last {
		return e, false
	}
	if len(r.Queue) > 0 {
		e, r.Queue = r.Queue[0], slices.Clone(r.Queue[1:])
		return e, true
	}
	return e, r.Next < r.Reigns[len(r.Reigns)-1].From
}

// try begins phase 2 of the next slot.
func (r *Replica[V, S]) try(e Entry[V], out *protocol.Effects) {
	c, s := r.configuration(r.Next), r.Next
	r.Next++
	r.Open = append(slices.Clone(r.Open), OpenSlot[V]{Slot: s, Entry: e})
	for _, m := range c.System.Members {
		if m.Node != r.Self {
			out.Send(m.Node, LogPhase2a[V]{Ballot: r.Ballot, Slot: s, Entry: e, Chosen: r.Chosen})
		}
	}
	r.keep(SlotRecord[V]{Slot: s, Ballot: r.Ballot, Entry: e}, out)
	r.settle(len(r.Open)-1, r.self(), out)
}

// accepted counts an acceptance.
func (r *Replica[V, S]) accepted(from protocol.NodeID, m LogPhase2b[V], out *protocol.Effects) {
	if r.State != Leading || m.Ballot != r.Ballot {
		return
	}
	if i := slices.IndexFunc(r.Open, func(o OpenSlot[V]) bool { return o.Slot == m.Slot }); i >= 0 && !r.Open[i].Settled {
		r.settle(i, Storage{Node: from, ID: m.Storage}, out)
		r.fill(out)
	}
}

// settle counts an acceptance of an open slot. When a write quorum has accepted, the entry stands.
func (r *Replica[V, S]) settle(i int, s Storage, out *protocol.Effects) {
	r.Open = slices.Clone(r.Open)
	o := &r.Open[i]
	o.Accepted = enter(o.Accepted, s)
	if !votes(o.Accepted, r.configuration(o.Slot), quorum.System.WriteTally) {
		return
	}
	o.Settled, o.Accepted = true, nil
	r.goOn(r.Ballot, r.settled(), out)
}

// settled returns the slot up to which what stands is known, or has been settled by the leader.
func (r *Replica[V, S]) settled() Slot {
	s := r.Chosen
	for _, o := range r.Open {
		if o.Settled && o.Slot == s+1 {
			s++
		}
	}
	return s
}

// advanced lets go of what is behind Chosen, and goes on with what is before it. What was settled out of turn may
// stand next now, where another has told what stands before it.
func (r *Replica[V, S]) advanced(out *protocol.Effects) {
	if r.State != Preparing && r.State != Leading {
		return
	}
	r.Bound = slices.Clone(after(r.Bound, r.Chosen))
	r.Open = slices.DeleteFunc(slices.Clone(r.Open), func(o OpenSlot[V]) bool { return o.Slot <= r.Chosen })
	r.Next = max(r.Next, r.Chosen+1)
	if settled := r.settled(); settled > r.Chosen {
		r.goOn(r.Ballot, settled, out) // it has advanced then, and comes back here
		return
	}
	if !r.mayLead() {
		r.yield(out)
		return
	}
	if r.State == Preparing || !r.ready(min(r.Chosen+r.window(), r.Reigns[len(r.Reigns)-1].From)) {
		r.canvass(out)
	}
	r.take(out)
}

// beat tells all who leads, and asks those again who have not answered for a beat, or have not promised and are needed
// for one of the next slots.
func (r *Replica[V, S]) beat(out *protocol.Effects) {
	for _, n := range r.peers(true) {
		out.Send(n, Heartbeat[V]{Ballot: r.Ballot, Chosen: r.Chosen})
	}
	r.Open = slices.Clone(r.Open)
	for i := range r.Open {
		o := &r.Open[i]
		if !o.Old {
			o.Old = true
			continue
		}
		c := r.configuration(o.Slot)
		answer := c.count(o.Accepted)
		for _, m := range c.System.Members {
			if !o.Settled && m.Node != r.Self && answer(m.Node) == quorum.Silent {
				out.Send(m.Node, LogPhase2a[V]{Ballot: r.Ballot, Slot: o.Slot, Entry: o.Entry, Chosen: r.Chosen})
			}
		}
	}
	if slices.ContainsFunc(r.reigning(), func(x Reign) bool { return !r.ready(max(x.From, r.Chosen+1)) }) {
		r.canvass(out)
		if r.Options.withDefaults().Poll > 0 {
			r.ask(out) // who agrees on the next slots may have left by what stands in them: it promises nothing any more
		}
	}
	r.armBeat(out)
}

func (r *Replica[V, S]) armBeat(out *protocol.Effects) {
	if beat := r.Options.withDefaults().Beat; beat > 0 {
		out.Arm(LogTimer, beat)
	} else {
		out.Disarm(LogTimer)
	}
}

// refused takes note of a higher ballot. Who has no vote cannot stand in the way.
func (r *Replica[V, S]) refused(from protocol.NodeID, m LogRefused[V], out *protocol.Effects) {
	if m.Ballot == r.Ballot && slices.Contains(r.peers(false), from) {
		r.displaced(m.Promised, out)
	}
}

// displaced gives the ballot up where there is a higher one.
func (r *Replica[V, S]) displaced(by Ballot, out *protocol.Effects) {
	r.Round = max(r.Round, by.Round)
	if (r.State == Preparing || r.State == Leading) && by.Compare(r.Ballot) > 0 {
		r.giveUp(out)
	}
}

// giveUp loses the ballot. Who is to lead begins a higher one, after a pause.
func (r *Replica[V, S]) giveUp(out *protocol.Effects) {
	r.yield(out)
	if r.Wanted {
		r.State = Displaced
		pause, attempt := r.Options.Ballots.pause(r.Attempt, r.Self)
		r.Attempt = attempt
		out.Arm(LogTimer, pause)
	}
}

// yield stops leading.
func (r *Replica[V, S]) yield(out *protocol.Effects) {
	waiting := r.Queue
	r.State, r.Promises, r.Bound, r.Open, r.Queue, r.Next = Following, nil, nil, nil, nil, 0
	if r.Leader == r.Self {
		r.follow("", out)
	}
	for _, e := range waiting {
		out.Emit(Rejected[V]{Entry: e, Leader: r.Leader, Why: NotLeading})
	}
	r.rest(out)
}

// submit takes an entry into the queue, or says why not.
func (r *Replica[V, S]) submit(e Entry[V], out *protocol.Effects) {
	why := Rejection(0)
	switch {
	case r.State != Leading:
		why = NotLeading
	case len(r.Queue) >= r.Options.withDefaults().Queue:
		why = Busy
	case e.Kind == Reconfiguration:
		why = r.judge(e.Configuration)
	}
	if why != 0 {
		out.Emit(Rejected[V]{Entry: e, Leader: r.Leader, Why: why})
		return
	}
	r.Queue = append(slices.Clone(r.Queue), e)
	r.fill(out)
}

// judge says why a configuration cannot be taken now, or 0. The last one must reign, so that at most two
// do at a time.
func (r *Replica[V, S]) judge(c *Configuration) Rejection {
	last := r.Reigns[len(r.Reigns)-1]
	if c == nil || c.Number != last.Configuration.Number+1 || c.System.Validate() != nil {
		return Invalid
	}
	changes := func(e Entry[V]) bool { return e.Kind == Reconfiguration }
	if last.From > r.Chosen+1 || slices.ContainsFunc(r.Queue, changes) ||
		slices.ContainsFunc(r.Open, func(o OpenSlot[V]) bool { return changes(o.Entry) }) ||
		slices.ContainsFunc(r.Bound, func(s SlotRecord[V]) bool { return changes(s.Entry) }) {
		return Busy
	}
	return 0
}
