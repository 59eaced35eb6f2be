package paxos

import (
	"cmp"
	"context"
	"iter"
	"slices"

	"assent/decision"
	"assent/protocol/commit"
)

// A page of a listing is small, so that nobody waits for it long.
const (
	pageEntries = 512
	pageBytes   = maxPayload
)

// place is where a listing stands: behind the value with that stamp, of that transaction.
type place struct {
	stamp uint64
	id    commit.TransactionID
}

func (a place) compare(b place) int {
	return cmp.Or(cmp.Compare(a.stamp, b.stamp), cmp.Compare(a.id, b.id))
}

// pageQuery asks for what is held, behind a place, of entries of a status; 0 is any. With ids it asks for
// what is held of these.
type pageQuery struct {
	status decision.Status
	after  place
	ids    []commit.TransactionID
}

func appendPageQuery(b []byte, q pageQuery) []byte {
	b = appendText(appendUint(appendUint(b, uint64(q.status)), q.after.stamp), q.after.id)
	b = appendArray(b, len(q.ids))
	for _, id := range q.ids {
		b = appendText(b, id)
	}
	return b
}

func (r *reader) pageQuery() pageQuery {
	q := pageQuery{status: decision.Status(r.most(uint64(decision.Done)))}
	q.after.stamp = r.uint()
	q.after.id = r.id()
	for range r.list(maxItems) {
		q.ids = append(q.ids, r.id())
	}
	return q
}

// page is a member's answer: states in the order of their places, and whether there are more.
type page struct {
	states []held
	more   bool
}

func appendPage(b []byte, p page) []byte {
	b = appendArray(appendBool(appendArray(b, 2), p.more), len(p.states))
	for _, h := range p.states {
		b = appendHeld(b, h)
	}
	return b
}

func (r *reader) page() (p page) {
	r.array(2)
	p.more = r.bool()
	for range r.list(maxItems) {
		p.states = append(p.states, r.held())
	}
	return p
}

// answerPage tells what is held, when it is stable.
func (s *store) answerPage(p *peer, number uint64, q pageQuery) {
	s.batch.Then(func() { s.respond(p, number, kindPage, reply{page: s.page(q)}) })
}

// page returns what q asks for. What is not known to be decided has any status.
func (s *store) page(q pageQuery) (p page) {
	size := 0
	for _, id := range q.ids {
		if size > pageBytes {
			p.more = true
			break
		}
		if h, ok := s.look(id); ok {
			p.states = append(p.states, h)
			size += len(h.value.Entry) + 128*len(h.notes)
		}
	}
	if len(q.ids) > 0 {
		return p
	}
	var places []place
	s.mu.Lock()
	for id, in := range s.table {
		at := place{in.Value.Stamp, id}
		if !in.Chosen {
			at.stamp = in.accepted().Stamp
		} else if q.status != 0 && in.status != q.status {
			continue
		}
		if at.stamp != 0 && at.compare(q.after) > 0 {
			places = append(places, at)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(places, place.compare)
	for _, at := range places {
		if len(p.states) == pageEntries || size > pageBytes {
			p.more = true
			break
		}
		if h, ok := s.look(at.id); ok && h.value.Stamp == at.stamp {
			p.states = append(p.states, h)
			size += len(h.value.Entry) + 128*len(h.notes)
		}
	}
	return p
}

// List implements decision.Log. It asks a read quorum, a page at a time, and brings about that what
// may have been decided by somebody who is gone is known. Entries whose decision is under way at this
// node may be missing.
func (l *Log) List(ctx context.Context, status decision.Status) iter.Seq2[decision.Entry, error] {
	const op = "list"
	return func(yield func(decision.Entry, error) bool) {
		q := pageQuery{status: status}
		seen := map[commit.TransactionID]bool{} // those that were settled, and so may have moved
		for more := true; more; {
			var all []held
			err := l.ready(ctx, op)
			if err == nil {
				all, q.after, more, err = l.nextPage(ctx, op, q)
			}
			for _, h := range all {
				var e decision.Entry
				if h, err = l.listed(ctx, op, h, seen); err != nil {
					break
				}
				if !h.chosen {
					continue
				}
				if e, err = l.read(op, h); err != nil {
					break
				}
				if (status == 0 || e.Status() == status) && !yield(e, nil) {
					return
				}
			}
			if err != nil {
				yield(decision.Entry{}, err)
				return
			}
		}
	}
}

// listed settles what is not known to be decided. What comes back undecided is not to be listed.
func (l *Log) listed(ctx context.Context, op string, h held, seen map[commit.TransactionID]bool) (held, error) {
	if seen[h.id] {
		return held{id: h.id}, nil
	}
	if h.chosen {
		return h, nil
	}
	l.mu.Lock()
	p := l.proposals[h.id]
	l.mu.Unlock()
	if p != nil && !p.decided() {
		return h, nil
	}
	h, err := l.settled(ctx, op, h.id)
	if h.chosen {
		seen[h.id] = true
	}
	return h, err
}

// nextPage returns what a read quorum holds behind q.after, in order, put together with what is known
// here; and up to where it goes.
func (l *Log) nextPage(ctx context.Context, op string, q pageQuery) (all []held, after place, more bool, err error) {
	replies, err := l.askPage(ctx, op, q)
	if err != nil {
		return nil, place{}, false, err
	}
	byID := map[commit.TransactionID]*held{}
	times := map[commit.TransactionID]int{}
	var limit *place // beyond it somebody has more to tell
	for _, r := range replies {
		gather(byID, r.page)
		for _, h := range r.page.states {
			times[h.id]++
		}
		if n := len(r.page.states); r.page.more && n > 0 {
			last := r.page.states[n-1]
			at := place{last.value.Stamp, last.id}
			if limit == nil || at.compare(*limit) < 0 {
				limit = &at
			}
		}
	}
	if limit != nil {
		after = *limit
		for id, h := range byID {
			if (place{h.value.Stamp, id}).compare(*limit) > 0 {
				delete(byID, id)
			}
		}
	}
	if err := l.complete(ctx, op, byID, times, len(replies)); err != nil {
		return nil, place{}, false, err
	}
	s := l.serving()
	for id, h := range byID {
		if s != nil {
			if !s.behind() {
				s.learn(*h, "")
			}
			known, _ := s.look(id)
			h.merge(known)
		}
		if h.value.Stamp != 0 {
			all = append(all, *h)
		}
	}
	slices.SortFunc(all, func(a, b held) int { return place{a.value.Stamp, a.id}.compare(place{b.value.Stamp, b.id}) })
	return all, after, limit != nil, nil
}

// complete asks about those entries of which not all members who were asked have told: the others may
// hold notes that give the entry another status.
func (l *Log) complete(ctx context.Context, op string, byID map[commit.TransactionID]*held, times map[commit.TransactionID]int, of int) error {
	var ids []commit.TransactionID
	for id := range byID {
		if times[id] < of {
			ids = append(ids, id)
		}
	}
	for part := range slices.Chunk(ids, pageEntries) {
		replies, err := l.askPage(ctx, op, pageQuery{ids: part})
		if err != nil {
			return err
		}
		short := false
		for _, r := range replies {
			gather(byID, r.page)
			short = short || r.page.more
		}
		for i := 0; short && i < len(part); i++ { // they are long: one at a time
			h, err := l.find(ctx, op, part[i])
			if err != nil {
				return err
			}
			byID[h.id].merge(h)
		}
	}
	return nil
}

// gather adds a page to what is known of its entries.
func gather(byID map[commit.TransactionID]*held, p page) {
	for _, h := range p.states {
		known, ok := byID[h.id]
		if !ok {
			known = &held{id: h.id}
			byID[h.id] = known
		}
		known.merge(h)
	}
}

// askPage asks a read quorum, this member among it.
func (l *Log) askPage(ctx context.Context, op string, q pageQuery) ([]reply, error) {
	return l.ask(ctx, question{
		op: op, answer: kindPage, here: true,
		encode: func(b []byte, number uint64) []byte {
			return appendPageQuery(appendUint(append(appendArray(b, 6), byte(kindPageQuery)), number), q)
		},
		local: func(s *store, number uint64) { s.answerPage(nil, number, q) },
	}, 0)
}
