package paxos

import (
	"context"
	"fmt"
	"time"

	"assent/decision"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/quorum"
)

// call is a question to all members, whose answers are being collected.
type call struct {
	answer  kind
	id      commit.TransactionID // of an answer of kindAnswer
	epoch   uint64               // in which it is asked, and must be answered
	replies chan reply
	// turned is closed when the epoch in which it was asked is over.
	turned chan struct{}
	over   bool // it is closed
}

// turn says that the epoch in which it was asked is over. The caller holds the Log's mu.
func (c *call) turn() {
	if !c.over {
		c.over = true
		close(c.turned)
	}
}

type reply struct {
	from  protocol.NodeID
	kind  kind
	state held // of an answer
	page  page // of a page
	moved moved
}

// question is what is asked of every member, this one included.
type question struct {
	op     string
	id     commit.TransactionID
	answer kind // of the answers
	write  bool // a write quorum is to answer; else a read quorum
	// here asks for this member's own answer besides, as long as it serves: it may hold notes that the
	// others have not heard of.
	here bool
	// encode makes the message for the others, and local asks this member's storage.
	encode func(b []byte, number uint64) []byte
	local  func(s *store, number uint64)
}

// askAgain is the pause after which members that have not answered are asked again.
const askAgain = 100 * time.Millisecond

// ask asks all members and returns the answers of a quorum. Where linger is given, it waits as long for the
// others that are reachable. When the epoch is over it asks again, in the next.
func (l *Log) ask(ctx context.Context, q question, linger time.Duration) ([]reply, error) {
	for {
		c, number, r := l.call(q.answer, q.id)
		replies, over, err := l.collect(ctx, q, c, number, r, linger)
		l.hangUp(number)
		if !over {
			return replies, err
		}
	}
}

// call begins a question in the present epoch.
func (l *Log) call(answer kind, id commit.TransactionID) (c *call, number uint64, r *roster) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r = l.roster.Load() // when the next one has come, this call is told
	c = &call{answer: answer, id: id, epoch: r.number(), replies: make(chan reply, 4*(len(r.peers)+1)), turned: make(chan struct{})}
	l.lastCall++
	l.calls[l.lastCall] = c
	return c, l.lastCall, r
}

func (l *Log) hangUp(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.calls, number)
}

// collect returns the answers of a quorum, or that the epoch is over.
func (l *Log) collect(ctx context.Context, q question, c *call, number uint64, r *roster, linger time.Duration) (_ []reply, turned bool, _ error) {
	if !r.member() {
		return nil, false, outsider(q.op, r)
	}
	got := map[protocol.NodeID]reply{}
	has := func(n protocol.NodeID) bool { _, ok := got[n]; return ok }
	l.send(q, number, r, has)
	again := time.NewTicker(askAgain)
	defer again.Stop()
	var over <-chan time.Time
	for {
		select {
		case a := <-c.replies:
			got[a.from] = a
		case <-again.C:
			l.send(q, number, r, has)
		case <-over:
			return values(got), false, nil
		case <-c.turned:
			return nil, true, nil
		case <-ctx.Done():
			return nil, false, l.unavailable(q.op, q.id, l.tally(r, q.write, has), context.Cause(ctx))
		case <-l.quit:
			return nil, false, fmt.Errorf("%s: %w", q.op, decision.ErrClosed)
		}
		t := l.tally(r, q.write, has)
		if t.Verdict() != quorum.Reached || q.here && !has(l.cfg.Self) && l.stoppedWhy() == "" {
			continue
		}
		if !t.silent() || linger == 0 {
			return values(got), false, nil
		}
		if over == nil {
			over = time.After(linger)
		}
	}
}

func values(m map[protocol.NodeID]reply) (all []reply) {
	for _, r := range m {
		all = append(all, r)
	}
	return all
}

// send asks the members that have not answered, in that epoch.
func (l *Log) send(q question, number uint64, r *roster, has func(protocol.NodeID) bool) {
	for _, p := range r.peers {
		if !has(p.node) {
			l.cfg.Network.Send(p.node, q.encode(l.payloadOf(256, r.number()), number))
		}
	}
	if !has(l.cfg.Self) {
		l.within(r, func(s *store) { q.local(s, number) })
	}
}

// within lets do have the storage of this node if it votes, is not behind, and the epoch is r still. What it delivers is
// then of that epoch.
func (l *Log) within(r *roster, do func(*store)) {
	l.gate.RLock()
	defer l.gate.RUnlock()
	if s := l.serving(); s != nil && s.mayVote() && l.roster.Load() == r && !s.behind() {
		do(s)
	}
}

// replied takes a peer's answer, of that epoch, to the call that it is for.
func (l *Log) replied(p *peer, epoch uint64, r *reader, k kind) {
	number := r.uint()
	answer := reply{from: p.node, kind: k}
	switch k {
	case kindAnswer:
		answer.state = r.held()
	case kindPage:
		answer.page = r.page()
	case kindMoved:
		answer.moved = r.moved()
	}
	if r.err == nil {
		l.hand(number, epoch, answer)
	}
}

// answers reports whether r, of that epoch, is an answer to what was asked. One of a later epoch is not: who answers
// may have come to that as a new member, and hold nothing any more of what counts in the quorums of this one.
func (c *call) answers(epoch uint64, r reply) bool {
	return epoch == c.epoch && r.kind == c.answer && (r.kind != kindAnswer || r.state.id == c.id)
}

// hand gives an answer of that epoch to the call that it is for, if anybody waits for it.
func (l *Log) hand(number, epoch uint64, r reply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c, ok := l.calls[number]; ok && c.answers(epoch, r) {
		select {
		case c.replies <- r:
		default: // asked too often; what is missing is asked again
		}
	}
}

// respond sends the answer to a call, or hands it over where the call is this Log's own (p is nil). The caller is the
// working goroutine: what it has stepped since it was asked may have begun another epoch.
func (s *store) respond(p *peer, number uint64, k kind, r reply) {
	if p == nil {
		r.from, r.kind = s.log.cfg.Self, k
		s.log.hand(number, s.roster.number(), r)
		return
	}
	b := s.payload()
	switch k {
	case kindAnswer:
		b = appendHeld(appendUint(append(appendArray(b, 3), byte(k)), number), r.state)
	case kindPage:
		b = appendPage(appendUint(append(appendArray(b, 3), byte(k)), number), r.page)
	case kindMoved:
		b = appendMoved(appendUint(append(appendArray(b, 3), byte(k)), number), r.moved)
	default:
		b = appendUint(append(appendArray(b, 2), byte(k)), number)
	}
	s.log.cfg.Network.Send(p.node, b)
}

// answer tells what is held of a transaction, when it is stable.
func (s *store) answer(p *peer, number uint64, id commit.TransactionID) {
	s.batch.Then(func() {
		h, _ := s.look(id)
		s.respond(p, number, kindAnswer, reply{state: h})
	})
}

// find returns what a read quorum holds of the transaction.
func (l *Log) find(ctx context.Context, op string, id commit.TransactionID) (held, error) {
	replies, err := l.ask(ctx, question{
		op: op, id: id, answer: kindAnswer,
		encode: func(b []byte, number uint64) []byte {
			return appendText(appendUint(append(appendArray(b, 3), byte(kindQuery)), number), id)
		},
		local: func(s *store, number uint64) { s.answer(nil, number, id) },
	}, 0)
	if err != nil {
		return held{}, err
	}
	h := held{id: id}
	for _, r := range replies {
		h.merge(r.state)
	}
	if s := l.serving(); s != nil && !s.behind() {
		s.learn(h, l.self)
	}
	return h, nil
}

// patience is how long somebody who proposes is given before another settles the matter.
const patience = 20 * time.Millisecond

// settled returns what is decided about the transaction. Where somebody may have decided, it brings
// about that it is known: chosen is false in the end only where nothing was decided when settled was
// called.
func (l *Log) settled(ctx context.Context, op string, id commit.TransactionID) (held, error) {
	for try := 0; ; try++ {
		l.mu.Lock()
		p := l.proposals[id]
		l.mu.Unlock()
		if p != nil {
			return l.decidedBy(ctx, op, p)
		}
		h, err := l.find(ctx, op, id)
		if err != nil || h.chosen || h.value.Stamp == 0 {
			return h, err
		}
		if try == 0 {
			select {
			case <-time.After(patience):
			case <-ctx.Done():
			}
			continue
		}
		p, known, err := l.propose(id, h.value, decision.Entry{})
		if err == nil && p != nil {
			known, err = l.decidedBy(ctx, op, p)
		}
		known.merge(held{id: id, notes: h.notes, forgotten: h.forgotten})
		return known, err
	}
}

// decidedBy waits for a proposal, and returns what is then held.
func (l *Log) decidedBy(ctx context.Context, op string, p *proposal) (held, error) {
	if _, err := l.await(ctx, op, p); err != nil {
		return held{}, err
	}
	h := held{id: p.id, chosen: true, value: p.stands}
	if s := l.serving(); s != nil {
		known, _ := s.look(p.id)
		h.merge(known)
	}
	return h, nil
}

// known returns what is decided about the transaction, from what is held here if it can.
func (l *Log) known(ctx context.Context, op string, id commit.TransactionID) (held, error) {
	if s := l.serving(); s != nil {
		if h, _ := s.look(id); h.chosen {
			return h, nil
		}
	}
	h, err := l.settled(ctx, op, id)
	if err == nil && !h.chosen {
		err = fmt.Errorf("%s %q: %w", op, id, decision.ErrNotFound)
	}
	return h, err
}

// Lookup implements decision.Register. What is known here to be decided is told without asking; a note
// that was added at another node shortly before may then be missing.
func (l *Log) Lookup(ctx context.Context, id commit.TransactionID) (decision.Entry, error) {
	const op = "look up"
	if err := l.ready(ctx, op); err != nil {
		return decision.Entry{}, err
	}
	if err := decision.CheckID(id); err != nil {
		return decision.Entry{}, invalid(op, err)
	}
	h, err := l.known(ctx, op, id)
	if err != nil {
		return decision.Entry{}, err
	}
	return l.read(op, h)
}

// Annotate implements decision.Log. A note that is not Forced is stable at this node within a few
// hundredths of a second, and at the others soon after.
func (l *Log) Annotate(ctx context.Context, id commit.TransactionID, n decision.Note) error {
	const op = "annotate"
	if err := l.ready(ctx, op); err != nil {
		return err
	}
	if err := decision.CheckID(id); err != nil {
		return invalid(op, err)
	}
	if err := n.Check(); err != nil {
		return invalid(op, err)
	}
	raw, err := n.Normal().Encode()
	if err != nil {
		return invalid(op, err)
	}
	h, err := l.known(ctx, op, id)
	if err == nil && n.Kind != decision.Finished && len(l.roster.Load().peers) > 0 {
		var elsewhere held // its place is behind the notes of others
		elsewhere, err = l.find(ctx, op, id)
		h.merge(elsewhere)
	}
	if err != nil {
		return err
	}
	e, err := l.read(op, h)
	if err != nil {
		return err
	}
	if len(e.Notes) >= decision.MaxNotes {
		return invalid(op, fmt.Errorf("%q has %d notes; no more are allowed", id, len(e.Notes)))
	}
	for _, o := range h.notes {
		l.stamps.heard(o.Stamp)
	}
	a := Annotate{Note: Note{Stamp: l.stamps.next(), Node: l.self, Note: raw}, Forced: n.Forced}
	if s := l.serving(); s != nil && !n.Forced && s.mayVote() {
		return l.annotateHere(ctx, s, id, a)
	}
	a.Forced = true
	_, err = l.ask(ctx, question{
		op: op, id: id, answer: kindDone, write: true,
		encode: func(b []byte, number uint64) []byte {
			b = appendText(appendUint(append(appendArray(b, 5), byte(kindNote)), number), id)
			return appendNote(appendBool(b, a.Forced), a.Note)
		},
		local: func(s *store, number uint64) { s.annotated(nil, number, id, a) },
	}, 0)
	return err
}

// annotateHere adds a note to what this member holds. The others are told by and by.
func (l *Log) annotateHere(ctx context.Context, s *store, id commit.TransactionID, a Annotate) error {
	s.deliver(id, l.self, a)
	added := make(chan struct{})
	s.batch.Then(func() { close(added) })
	select {
	case <-added:
		return nil
	case <-s.failed:
		return fmt.Errorf("annotate %q: %w: %w", id, decision.ErrStopped, s.cause)
	case <-l.quit:
		return fmt.Errorf("annotate: %w", decision.ErrClosed)
	case <-ctx.Done():
		return fmt.Errorf("annotate %q: %w", id, context.Cause(ctx))
	}
}

// annotated adds a note, and says so when it is stable. Whoever asks for it need not hold the entry, nor
// the note: it is to be told as the others are.
func (s *store) annotated(p *peer, number uint64, id commit.TransactionID, a Annotate) {
	s.deliver(id, s.log.self, a)
	s.batch.Then(func() {
		if _, ok := s.look(id); ok { // else there is no room
			s.respond(p, number, kindDone, reply{})
		}
	})
}

// lingering is how long Forget waits for reachable members beyond a quorum.
const lingering = 2 * time.Second

// Forget implements decision.Log. All members that can be reached have forgotten when it returns, and a
// write quorum in any case. A member that is away drops what it holds when it is back.
func (l *Log) Forget(ctx context.Context, id commit.TransactionID) error {
	const op = "forget"
	if err := l.ready(ctx, op); err != nil {
		return err
	}
	if err := decision.CheckID(id); err != nil {
		return invalid(op, err)
	}
	h, err := l.known(ctx, op, id)
	if err != nil {
		return err
	}
	for _, o := range h.notes {
		l.stamps.heard(o.Stamp)
	}
	l.stamps.heard(h.value.Stamp)
	stamp := l.stamps.next()
	_, err = l.ask(ctx, question{
		op: op, id: id, answer: kindDone, write: true,
		encode: func(b []byte, number uint64) []byte {
			return appendUint(appendText(appendUint(append(appendArray(b, 4), byte(kindForget)), number), id), stamp)
		},
		local: func(s *store, number uint64) { s.forgotten(nil, number, id, stamp) },
	}, lingering)
	return err
}

// forgotten drops what is held of a transaction, and says so when that is stable. Whoever asks for it
// need not have done so itself.
func (s *store) forgotten(p *peer, number uint64, id commit.TransactionID, stamp uint64) {
	s.deliver(id, s.log.self, Learn{Forgotten: stamp})
	s.batch.Then(func() { s.respond(p, number, kindDone, reply{}) })
}
