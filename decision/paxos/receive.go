package paxos

import (
	"time"

	"assent/decision"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/paxos"
	"assent/resource"
)

// receive takes a payload from another node. What cannot be understood is left out: it is as if it were
// lost. So is what comes from a node that is not a member, but that it is told the epoch where it knows only
// an earlier one.
func (l *Log) receive(from protocol.NodeID, payload []byte) {
	known := l.roster.Load()
	p := known.peers.of(from)
	r := &reader{data: payload, names: [2]string{l.cfg.Owner}}
	if p != nil {
		r.names[1] = p.lastIncarnation()
	}
	e := r.envelope()
	if r.err != nil || e.owner != l.cfg.Owner {
		l.strange(p, e, r.err)
		return
	}
	if p != nil {
		if is := p.incarnation.Load(); is == nil || *is != e.incarnation {
			p.incarnation.Store(&e.incarnation)
		}
		p.heard.Store(int64(time.Since(l.opened)) + 1)
	}
	switch {
	case e.epoch > known.number():
		l.later(from, payload, e.epoch, r)
		return
	case known.system.Over(e.epoch):
		l.tellEpoch(from, known)
		return
	case p == nil:
		return
	}
	l.stamps.heard(e.stamp)
	r.names = [2]string{string(l.self), string(e.incarnation)}
	for len(r.data) > 0 {
		items := r.list(16)
		k := kind(r.most(255))
		if k >= kindPhase1a && k <= kindVoid {
			l.protocolMessage(known, p, e.incarnation, r, k, items)
		} else {
			l.otherMessage(known, p, r, k)
		}
		if r.err != nil {
			l.strange(p, e, r.err)
			return
		}
	}
}

// strange tells, now and then, of payloads that are not of this cluster.
func (l *Log) strange(p *peer, e envelope, err error) {
	if p == nil {
		return
	}
	if n := p.strange.Add(1); n&(n-1) == 0 { // 1, 2, 4, 8 …
		l.cfg.Logger.Warn("a payload cannot be used", "member", p.node, "owner", e.owner, "count", n, "cause", err)
	}
}

// protocolMessage takes a message of the protocol to the acceptor or the proposer that it is for.
func (l *Log) protocolMessage(known *roster, p *peer, incarnation protocol.NodeID, r *reader, k kind, items int) {
	if k == kindPhase2b {
		l.acceptance(p, r, items)
		return
	}
	id, m := r.message(k, items)
	if r.err != nil {
		return
	}
	switch ballot, asks := asked(m); {
	case !asks:
		l.answered(p.node, id, m)
	case ballot.Epoch == known.number() && decision.CheckID(id) == nil:
		l.within(known, func(s *store) { s.deliver(id, incarnation, m) })
	}
}

// asked returns the ballot in which a proposer asks for something.
func asked(m protocol.Message) (b paxos.Ballot, asks bool) {
	switch m := m.(type) {
	case phase1a:
		return m.Ballot, true
	case phase2a:
		return m.Ballot, true
	}
	return b, false
}

// acceptance takes a Phase2b, the message that comes most often, to its proposer.
func (l *Log) acceptance(p *peer, r *reader, items int) {
	id := r.take(majorText, resource.MaxTransaction)
	ballot, stamp := r.ballot(), r.uint()
	if items != 6 {
		r.fail()
	}
	if r.err != nil {
		return
	}
	l.mu.Lock()
	proposal := l.proposals[commit.TransactionID(id)]
	l.mu.Unlock()
	if proposal != nil {
		proposal.answered(p.node, phase2b{Instance: proposal.machine.Proposer.Instance, Ballot: ballot, Value: Value{Stamp: stamp}})
	}
}

// otherMessage takes a message of the members among themselves.
func (l *Log) otherMessage(known *roster, p *peer, r *reader, k kind) {
	switch k {
	case kindHello:
		if h := r.hello(); r.err == nil {
			l.greeted(p, h)
		}
		return
	case kindWelcome:
		storage, name := r.text(maxName), r.text(maxName)
		if s := l.serving(); r.err == nil && s != nil {
			s.welcomed(p, storage, name)
		}
		return
	case kindEpoch:
		r.epoch() // it is the one that is known
		return
	case kindAnswer, kindDone, kindPage, kindMoved:
		l.replied(p, known.number(), r, k)
		return
	}
	number := r.uint()
	if act := l.request(known, p, r, k, number); r.err == nil {
		l.within(known, act)
	}
}

// request reads a message that asks something of this member's storage.
func (l *Log) request(known *roster, p *peer, r *reader, k kind, number uint64) func(*store) {
	switch k {
	case kindQuery:
		id := r.id()
		return func(s *store) { s.answer(p, number, id) }
	case kindNote:
		id, forced, n := r.id(), r.bool(), r.note()
		return func(s *store) { s.annotated(p, number, id, Annotate{Note: n, Forced: forced}) }
	case kindForget:
		id, stamp := r.id(), r.uint()
		return func(s *store) { s.forgotten(p, number, id, stamp) }
	case kindMovedQuery:
		return func(s *store) { s.answerMoved(known, p, number) }
	case kindPageQuery:
		q := r.pageQuery()
		return func(s *store) { s.answerPage(p, number, q) }
	case kindFeed:
		n := r.list(maxItems)
		list := make([]summary, 0, n)
		for range n {
			list = append(list, r.summary())
		}
		return func(s *store) { s.told(p, number, list) }
	case kindFetch:
		var ids []commit.TransactionID
		for range r.list(maxItems) {
			ids = append(ids, r.id())
		}
		return func(s *store) { s.fetched(p, number, ids) }
	case kindStates:
		last := r.bool()
		var states []held
		for range r.list(maxItems) {
			states = append(states, r.held())
		}
		return func(s *store) { s.taught(p, number, last, states) }
	case kindFeedAck:
		return func(s *store) { s.acknowledged(p, number) }
	}
	r.fail()
	return nil
}

// taught takes what was missing here, or what a member without storage has published.
func (s *store) taught(p *peer, number uint64, last bool, states []held) {
	from := p.node
	if number == 0 {
		from = "" // its storage has stopped: it is to be told when it is back
	}
	for _, h := range states {
		s.learn(h, from)
	}
	s.keep(p, number, states)
	if last {
		s.batch.Then(func() {
			if s.unkept[p.place] != number { // else it is told again
				s.settle(func() { s.acknowledge(p, number) })
			}
		})
	}
}
