package paxos

import (
	"slices"

	"assent/protocol"
)

// promise is the acceptor's phase 1. It tells what the leader may not know: the entries after Chosen. A
// leader that does not know those up to Chosen must find them out first.
func (r *Replica[V, S]) promise(from protocol.NodeID, b Ballot, out *protocol.Effects) {
	if !r.sworn() {
		return
	}
	if b.Node != from || b.Compare(r.Promised) < 0 {
		out.Send(from, LogRefused[V]{Ballot: b, Promised: r.Promised})
		return
	}
	r.raise(b, out)
	out.Send(from, LogPhase1b[V]{Ballot: b, Storage: r.Storage, Chosen: r.Chosen, Accepted: slices.Clone(after(r.Log, r.Chosen))})
}

// sworn reports whether the replica may promise and accept. One that was blank once may be the successor
// of an acceptor that has lost its storage, and its promises, so it waits until a configuration names it.
func (r *Replica[V, S]) sworn() bool {
	if len(r.Reigns) == 0 {
		return false
	}
	return !r.Base.Joined || slices.ContainsFunc(r.reigning(), func(x Reign) bool { return x.Configuration.names(r.self()) })
}

// raise makes a promise stable. Whoever leads in a lower ballot leads no more.
func (r *Replica[V, S]) raise(b Ballot, out *protocol.Effects) {
	if b == r.Promised {
		return
	}
	r.Promised = b
	out.Put(PromiseKey, PromiseRecord[V]{Promised: b})
	if b.Node != r.Self {
		r.displaced(b, out)
	}
}

// accept is the acceptor's phase 2. What is too far ahead of what the replica knows is left alone: it
// has to catch up first.
func (r *Replica[V, S]) accept(from protocol.NodeID, m LogPhase2a[V], out *protocol.Effects) {
	if m.Ballot.Node != from || m.Ballot.Compare(r.Promised) < 0 {
		out.Send(from, LogRefused[V]{Ballot: m.Ballot, Promised: r.Promised})
		return
	}
	r.led(from, out)
	if r.sworn() && m.Slot <= r.Chosen+2*r.window() {
		r.raise(m.Ballot, out)
		r.keep(SlotRecord[V]{Slot: m.Slot, Ballot: m.Ballot, Entry: m.Entry}, out)
		out.Send(from, LogPhase2b[V]{Ballot: m.Ballot, Slot: m.Slot, Storage: r.Storage})
	}
	r.goOn(m.Ballot, m.Chosen, out)
}

// keep makes an acceptance stable, where what stands is not known already.
func (r *Replica[V, S]) keep(s SlotRecord[V], out *protocol.Effects) {
	if s.Slot <= r.Chosen {
		return
	}
	if i, found := search(r.Log, s.Slot); found {
		if r.Log[i].Ballot == s.Ballot && !s.Chosen || r.Log[i].Chosen {
			return
		}
	}
	r.Log = place(r.Log, s)
	out.Put(SlotKey(s.Slot), s)
}

// led takes note of a leader whose ballot is not refused.
func (r *Replica[V, S]) led(leader protocol.NodeID, out *protocol.Effects) {
	if r.State == Following || r.State == Displaced {
		r.follow(leader, out)
	}
	if r.State == Following {
		r.rest(out)
	}
}

func (r *Replica[V, S]) heartbeat(from protocol.NodeID, m Heartbeat[V], out *protocol.Effects) {
	if m.Ballot.Node != from {
		return
	}
	if m.Ballot.Compare(r.Promised) < 0 && r.mayLead() { // the promise of who has no vote is in nobody's way
		out.Send(from, LogRefused[V]{Ballot: m.Ballot, Promised: r.Promised})
	} else {
		r.displaced(m.Ballot, out)
		r.led(from, out)
	}
	r.goOn(m.Ballot, m.Chosen, out)
	if m.Chosen > r.Chosen {
		r.fetch(from, out)
	}
}

// goOn goes through the slots up to chosen, of which the leader of a ballot knows what stands: what it
// has itself proposed, where this acceptor has accepted it in that very ballot. What an acceptor has
// of an earlier ballot may be something else. Beyond, it goes on with what it knows to stand.
func (r *Replica[V, S]) goOn(ballot Ballot, chosen Slot, out *protocol.Effects) {
	before := r.Chosen
	for len(r.Reigns) > 0 { // a log without its beginning is none
		i, found := search(r.Log, r.Chosen+1)
		if !found || !r.Log[i].Chosen && (r.Chosen >= chosen || r.Log[i].Ballot != ballot) {
			break
		}
		r.append(r.Log[i].Entry, out)
	}
	if r.Chosen > before {
		r.advanced(out)
	}
}

// append goes on by one slot, whose entry is in Log.
func (r *Replica[V, S]) append(e Entry[V], out *protocol.Effects) {
	r.Chosen++
	if c := e.Configuration; e.Kind == Reconfiguration && c != nil && len(r.Reigns) > 0 {
		if last := r.Reigns[len(r.Reigns)-1]; c.Number == last.Configuration.Number+1 {
			r.Reigns = append(slices.Clone(r.Reigns), Reign{From: r.Chosen + r.window(), Configuration: *c})
		}
	}
	out.Emit(Appended[V]{Slot: r.Chosen, Entry: e})
}

// tell answers who lags: with entries, or with the snapshot where they are gone.
func (r *Replica[V, S]) tell(to protocol.NodeID, m Fetch[V], out *protocol.Effects) {
	if r.State == Leading && !slices.Contains(r.peers(true), to) {
		out.Send(to, Heartbeat[V]{Ballot: r.Ballot, Chosen: r.Chosen}) // to whom no others go
	}
	if len(r.Reigns) == 0 || m.From > r.Chosen && !m.Blank {
		return
	}
	i, found := search(r.Log, m.From)
	if !found || m.Blank {
		out.Send(to, Transfer[S]{Snapshot: r.Base, Chosen: r.Chosen})
		return
	}
	n := min(i+r.Options.withDefaults().Page, len(r.Log)-len(after(r.Log, r.Chosen)))
	out.Send(to, Fetched[V]{Entries: slices.Clone(r.Log[i:n]), Chosen: r.Chosen})
}

// fetched goes on by what it is told, and asks for more while there is more. A leader that is told of a higher ballot is
// displaced: what stands by that ballot may not be what the leader has tried, and whoever has accepted what it has tried
// must not hear from it that the slot stands.
func (r *Replica[V, S]) fetched(from protocol.NodeID, m Fetched[V], out *protocol.Effects) {
	if len(r.Reigns) == 0 {
		return
	}
	before := r.Chosen
	for _, s := range m.Entries {
		if s.Slot > r.Chosen && s.Slot <= before+Slot(len(m.Entries)) {
			r.displaced(s.Ballot, out)
			s.Chosen = true
			r.keep(s, out)
		}
	}
	r.goOn(Ballot{}, r.Chosen, out)
	if r.Chosen > before && m.Chosen > r.Chosen {
		r.fetch(from, out)
	}
}

// transferred takes over the state at a cut. By which ballots that stands it does not say: a leader that has tried one of
// the slots before the cut, and has not settled it, gives up (see fetched).
func (r *Replica[V, S]) transferred(from protocol.NodeID, m Transfer[S], out *protocol.Effects) {
	s := m.Snapshot
	if len(s.Reigns) == 0 || s.Slot <= r.Chosen && len(r.Reigns) > 0 {
		return
	}
	if slices.ContainsFunc(r.Open, func(o OpenSlot[V]) bool { return o.Slot <= s.Slot && !o.Settled }) {
		r.giveUp(out)
	}
	s.Joined = r.Base.Joined || len(r.Reigns) == 0
	r.Base, r.Reigns, r.Chosen = s, s.Reigns, s.Slot
	out.Put(SnapshotKey, s)
	r.truncate(s.Slot, out)
	if s.State != nil {
		out.Emit(Restored[S]{Slot: s.Slot, State: *s.State})
	}
	r.goOn(Ballot{}, r.Chosen, out)
	r.advanced(out)
	if m.Chosen > r.Chosen {
		r.fetch(from, out)
	}
}
