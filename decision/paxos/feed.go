package paxos

import (
	"time"

	"assent/decision"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/resource"
)

// Members tell each other what they know to be decided, noted and forgotten, each to each: first a
// summary of every change, then whatever the other lacks. What a member has acknowledged is stable
// there. So those that were away catch up, and an entry can be dropped when all hold it.

// feed is what one peer is still to be told. It is guarded by the store's mu.
type feed struct {
	queue []*instance
	// sent is what was told and is not acknowledged, number names it, and at is when it was sent.
	sent   []feedItem
	number uint64
	at     time.Time
}

type feedItem struct {
	in      *instance
	version uint64
}

const (
	feedBytes = 128 << 10
	feedRetry = time.Second
)

// summary is what a feed tells of a transaction. Its id is part of the payload.
type summary struct {
	id        []byte
	chosen    bool
	done      bool
	stamp     uint64 // of the value that is decided
	forgotten uint64
	notes     int
	last      uint64 // the stamps of the notes, put together
}

func (in *instance) summary() summary {
	s := summary{chosen: in.Chosen, done: in.status == decision.Done, stamp: in.Value.Stamp,
		forgotten: in.Forgotten, notes: len(in.Notes)}
	for _, n := range in.Notes {
		s.last ^= n.Stamp * 0x9e3779b97f4a7c15
	}
	return s
}

func appendSummary(b []byte, in *instance) []byte {
	s := in.summary()
	b = appendBool(appendBool(appendText(appendArray(b, 7), in.ID), s.chosen), s.done)
	return appendUint(appendUint(appendUint(appendUint(b, s.stamp), s.forgotten), uint64(s.notes)), s.last)
}

func (r *reader) summary() summary {
	r.array(7)
	s := summary{id: r.take(majorText, resource.MaxTransaction), chosen: r.bool(), done: r.bool()}
	s.stamp = r.uint()
	s.forgotten = r.uint()
	s.notes = int(r.most(maxHeldNotes))
	s.last = r.uint()
	return s
}

// changed takes note that in knows something new, from the node from. The caller holds s.mu.
func (s *store) changed(in *instance, from protocol.NodeID) {
	status, err := in.Copy.status()
	if err != nil {
		s.log.cfg.Logger.Error("an entry cannot be read", "transaction", in.ID, "cause", err)
		status = decision.Damaged
	}
	s.setStatus(in, status)
	in.version++
	owed := ^uint64(0)
	if p := s.roster.peers.of(from); p != nil && in.owed&p.bit == 0 {
		owed &^= p.bit // it knows this, and was owed nothing else
	}
	s.owe(in, owed)
}

// owe lets the peers whose bits are set in mask be told of in. The caller holds s.mu.
func (s *store) owe(in *instance, mask uint64) {
	in.owed = 0
	s.oweAlso(in, mask)
}

// oweAlso lets the peers whose bits are set in mask be told of in, besides those who are to be. The caller
// holds s.mu.
func (s *store) oweAlso(in *instance, mask uint64) {
	if mask == 0 || !in.Chosen && in.Forgotten == 0 {
		return
	}
	for _, p := range s.roster.peers {
		if mask&p.bit == 0 {
			continue
		}
		in.owed |= p.bit
		if in.queued&p.bit == 0 {
			in.queued |= p.bit
			f := &s.feeds[p.place]
			f.queue = append(f.queue, in)
		}
	}
}

// setStatus files in under its status. The caller holds s.mu, or nobody else knows s.
func (s *store) setStatus(in *instance, status decision.Status) {
	if in.grave() {
		status = decision.Done // it is kept for a while, as what is done is
	}
	was := in.status
	in.status = status
	switch {
	case status == decision.Done && was != decision.Done:
		s.settled++
		in.since = s.log.now()
		s.done = append(s.done, doneItem{in, in.since})
	case status != decision.Done && was == decision.Done:
		s.settled--
	}
}

// measure counts the bytes of in. The caller holds s.mu, or nobody else knows s.
func (s *store) measure(in *instance) {
	n := int64(2*len(in.ID) + 96 + len(in.Value.Entry) + len(in.accepted().Entry))
	for _, note := range in.Notes {
		n += int64(len(note.Note) + 32)
	}
	s.bytes += n - in.bytes
	in.bytes = n
}

// tell sends each peer that has acknowledged the last it was told a summary of what has changed
// since. What it tells is stable. The caller is the working goroutine.
func (s *store) tell() {
	s.telling = false
	if !s.clean() {
		s.tellSettled() // something was learned since
		return
	}
	if !s.mayVote() {
		return
	}
	now := s.log.cfg.Clock()
	for _, p := range s.roster.peers {
		if b := s.nextFeed(p, now); b != nil {
			s.log.cfg.Network.Send(p.node, b)
		}
	}
}

// tellSettled calls tell when all that is written by now is stable, as settle does: once, however often it is asked
// for until then. The caller is the working goroutine.
func (s *store) tellSettled() {
	switch {
	case !s.telling:
		s.telling = true
		s.settle(s.tell)
	case !s.forced && s.failure() == nil:
		s.rest()
	}
}

// nextFeed returns what the peer is to be told now, or nil.
func (s *store) nextFeed(p *peer, now time.Time) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, bit := &s.feeds[p.place], p.bit
	list := make([]byte, 0, min(80*max(len(f.queue), len(f.sent)), feedBytes+512))
	if len(f.sent) > 0 {
		if now.Sub(f.at) < feedRetry && !now.Before(f.at) {
			return nil
		}
	} else {
		n := 0
		for n < len(f.queue) && len(f.sent) < maxItems && len(list) < feedBytes {
			in := f.queue[n]
			n++
			in.queued &^= bit
			if !in.dropped && in.owed&bit != 0 {
				f.sent = append(f.sent, feedItem{in, in.version})
				list = appendSummary(list, in)
			}
		}
		f.queue = f.queue[n:]
		f.number = s.log.stamps.next()
		if len(f.sent) == 0 {
			f.queue = nil
			return nil
		}
	}
	if len(list) == 0 { // once more
		for _, item := range f.sent {
			list = appendSummary(list, item.in)
		}
	}
	f.at = now
	b := appendUint(append(appendArray(s.log.payloadOf(len(list)+128, s.roster.number()), 3), byte(kindFeed)), f.number)
	return append(appendArray(b, len(f.sent)), list...)
}

// acknowledged takes note that a peer holds, stable, all that it was told under that number.
func (s *store) acknowledged(p *peer, number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &s.feeds[p.place]
	if s.roster.places[p.place] != p || f.number != number {
		return
	}
	for _, item := range f.sent {
		if item.in.version == item.version {
			item.in.owed &^= p.bit
		}
	}
	f.sent = nil
	if len(f.queue) > 0 {
		s.batch.Then(s.tellSettled)
	}
}

// told takes what a peer has told under that number, and asks for what is missing here.
func (s *store) told(p *peer, number uint64, list []summary) {
	s.batch.Then(func() {
		missing, kept := s.compare(p, list)
		if s.failure() != nil || !kept {
			return // it is told again
		}
		if len(missing) == 0 {
			s.settle(func() { s.acknowledge(p, number) })
			return
		}
		b := appendUint(append(appendArray(s.payload(), 3), byte(kindFetch)), number)
		b = appendArray(b, len(missing))
		for _, id := range missing {
			b = appendText(b, id)
		}
		s.log.cfg.Network.Send(p.node, b)
	})
}

// keep takes note whether there was room for what was taught.
func (s *store) keep(p *peer, number uint64, states []held) {
	s.batch.Then(func() {
		for _, h := range states {
			if _, ok := s.look(h.id); !ok && h.teaches() {
				s.unkept[p.place] = number
			}
		}
	})
}

// acknowledge says that all that was told under that number is stable here. The caller is the working
// goroutine.
func (s *store) acknowledge(p *peer, number uint64) {
	s.log.cfg.Network.Send(p.node, appendUint(append(appendArray(s.payload(), 2), byte(kindFeedAck)), number))
}

// compare returns the transactions of which the peer knows more than is known here. What follows from
// the summary alone is learned at once; kept says that there was room for it. The caller is the working goroutine.
func (s *store) compare(p *peer, list []summary) (missing []commit.TransactionID, kept bool) {
	var out protocol.Effects
	kept = true
	for _, there := range list {
		s.mu.Lock()
		in, ok := s.table[commit.TransactionID(there.id)]
		learn, lacks := s.lesson(in, there)
		s.mu.Unlock()
		if lacks {
			missing = append(missing, commit.TransactionID(there.id))
		}
		if !learn.Chosen && learn.Forgotten == 0 {
			continue
		}
		if !ok {
			in, ok = s.Machine(string(there.id)).(*instance)
		}
		if kept = kept && ok; ok {
			out.Reset()
			in.Step(protocol.Receive{From: p.node, Message: learn}, &out)
			s.enter(in, out.Writes)
		}
	}
	return missing, kept
}

// lesson returns what in, which may be nil, has to learn from the summary, and whether it lacks what
// the summary does not tell. The caller holds s.mu.
func (s *store) lesson(in *instance, there summary) (l Learn, lacks bool) {
	var here summary
	if in != nil {
		here = in.summary()
	}
	if there.forgotten > here.forgotten {
		l.Forgotten = there.forgotten
	}
	switch {
	case !there.chosen, there.stamp <= here.forgotten, in == nil && there.done && there.stamp <= s.horizon:
	case here.chosen && here.stamp == there.stamp && (there.notes == 0 || here.notes == there.notes && here.last == there.last):
		// It knows nothing more. More notes here do not say that those there are among them.
	case in != nil && there.notes == 0 && !in.Chosen && in.accepted().Stamp == there.stamp:
		l.Chosen, l.Value = true, in.accepted()
	default:
		lacks = true
	}
	return l, lacks
}

// fetched sends a peer what it has asked for.
func (s *store) fetched(p *peer, number uint64, ids []commit.TransactionID) {
	s.batch.Then(func() {
		var states []held
		size := 0
		flush := func(last bool) {
			s.log.cfg.Network.Send(p.node, appendStates(s.payload(), number, last, states))
			states, size = nil, 0
		}
		for _, id := range ids {
			if h, ok := s.look(id); ok {
				states = append(states, h)
				size += len(h.value.Entry) + 128*len(h.notes) + 128
			}
			if size > maxPayload/2 {
				flush(false)
			}
		}
		flush(true)
	})
}

// appendStates appends the message that answers the fetch of that number, or a part of it.
func appendStates(b []byte, number uint64, last bool, states []held) []byte {
	b = appendBool(appendUint(append(appendArray(b, 4), byte(kindStates)), number), last)
	b = appendArray(b, len(states))
	for _, h := range states {
		b = appendHeld(b, h)
	}
	return b
}

// teaches reports whether there is something to learn from h.
func (h held) teaches() bool { return h.chosen || h.forgotten > 0 }

// learn takes what a peer, or several, know of a transaction.
func (s *store) learn(h held, from protocol.NodeID) {
	if h.teaches() {
		s.deliver(h.id, from, Learn{Chosen: h.chosen, Value: h.value, Notes: h.notes, Forgotten: h.forgotten})
	}
}

// retire drops what was Done long ago, or is too much, and held by everybody. The caller is the working
// goroutine.
func (s *store) retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.log.now()
	for n := 0; len(s.done) > 0 && n < maxItems; n++ {
		in := s.done[0].in
		if in.dropped || in.status != decision.Done || in.since != s.done[0].since {
			s.done = s.done[1:] // it stands further on, if it is Done again
			continue
		}
		if s.settled <= s.log.cfg.RetainCount && now-in.since < s.log.cfg.Retention.Milliseconds() {
			return
		}
		if in.owed != 0 {
			return // somebody does not hold it yet
		}
		s.done = s.done[1:]
		s.drop(in)
	}
}

// drop removes in. The caller is the working goroutine and holds s.mu.
func (s *store) drop(in *instance) {
	in.dropped = true
	delete(s.table, in.ID)
	s.settled--
	s.bytes -= in.bytes
	s.horizon = max(s.horizon, in.Value.Stamp)
	s.group = appendDropped(s.group, in.ID)
	s.count++
}
