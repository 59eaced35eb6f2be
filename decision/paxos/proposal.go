package paxos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"assent/decision"
	"assent/engine"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/paxos"
	"assent/protocol/quorum"
	"assent/resource"
)

// proposal is a proposer at work. It stays in the Log's table until the decision is known to this
// member's storage, even when nobody waits any more: no ballot is ever used for two values.
type proposal struct {
	log     *Log
	id      commit.TransactionID
	own     Value
	entry   decision.Entry // what own holds, where it was proposed here
	machine Proposer
	loop    *engine.Loop
	// granted has the bits of the peers that have answered, and local says that this member has.
	granted atomic.Uint64
	local   atomic.Bool
	// bound is the latest phase 2 for another value than own, and forgotten the latest stamp with which
	// an acceptor has said that the transaction was forgotten.
	bound     atomic.Pointer[phase2a]
	forgotten atomic.Uint64
	done      chan struct{} // closed when stands or err is set
	stands    Value
	err       error
	once      sync.Once
}

// Proposer is the machine of a proposal. Its messages are dated by the payloads that they are in.
type Proposer struct{ paxos.EpochProposer[Value] }

// Step takes the events of a Proposer, and a paxos.Epoch as input: that the one before is over.
func (p *Proposer) Step(ev protocol.Event, out *protocol.Effects) {
	if in, ok := ev.(protocol.Input); ok {
		if e, ok := in.Value.(paxos.Epoch); ok {
			p.Turn(e, out)
			return
		}
	}
	p.Proposer.Step(ev, out)
}

// turn goes over to a later epoch.
func (p *proposal) turn(r *roster) {
	p.granted.Store(0)
	p.local.Store(false)
	p.loop.Deliver(protocol.Input{Value: r.system})
}

func (p *proposal) decided() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Decide implements decision.Log. Callers of one transaction share a proposer. When ctx ends first,
// what was proposed may still be decided.
func (l *Log) Decide(ctx context.Context, e decision.Entry) (decision.Entry, error) {
	const op = "decide"
	if err := l.ready(ctx, op); err != nil {
		return decision.Entry{}, err
	}
	if err := e.Check(); err != nil {
		return decision.Entry{}, invalid(op, err)
	}
	e = e.Normal()
	raw, err := e.Encode()
	if err != nil {
		return decision.Entry{}, invalid(op, err)
	}
	p, stands, err := l.propose(e.ID, Value{Status: e.Status(), Entry: raw}, e)
	if err != nil {
		return decision.Entry{}, err
	}
	if p == nil {
		return l.read(op, stands)
	}
	return l.await(ctx, op, p)
}

// propose returns the proposal of the transaction that is under way, beginning one for value where
// there is none, or what stands where that is known here. Entry is what value holds, if it is at hand.
func (l *Log) propose(id commit.TransactionID, value Value, entry decision.Entry) (*proposal, held, error) {
	l.mu.Lock()
	if p, ok := l.proposals[id]; ok {
		l.mu.Unlock()
		return p, held{}, nil
	}
	known, traced := held{}, false
	s := l.serving()
	if s != nil {
		if known, traced = s.look(id); known.chosen {
			l.mu.Unlock()
			return nil, known, nil
		}
	}
	// What is held here already, or was accepted somewhere, needs no room that it does not have.
	err := l.mayPropose(s, !traced && value.Stamp == 0)
	if err != nil {
		l.mu.Unlock()
		return nil, held{}, err
	}
	p := &proposal{log: l, id: id, own: value, entry: entry, done: make(chan struct{})}
	if p.own.Stamp == 0 {
		p.own.Stamp = l.stamps.next()
	}
	// Ballot 0 is for the one proposal that nobody has asked about before, as far as can be known.
	p.machine.EpochProposer = paxos.NewEpochProposer(paxos.Proposer[Value]{
		Instance: paxos.Instance(id), Self: l.self, Options: l.cfg.Options,
		Owner: !traced && s != nil && !l.faulted.Load() && owner(id) == l.self,
		// No round is used twice, not even after another proposer of this transaction.
		Round: l.stamps.next(),
	}, l.roster.Load().system)
	p.loop = engine.New(engine.Config{Scope: string(id), Node: l.cfg.Self, Machine: &p.machine, Hands: p, Clock: engine.SystemClock{}})
	l.proposals[id] = p
	l.mu.Unlock()
	l.outbox.crowd.Add(1)
	p.loop.Deliver(protocol.Input{Value: paxos.Propose[Value]{Value: p.own}})
	return p, held{}, nil
}

// mayPropose returns why no further proposal may begin, or nil. Adds says that it is one of a transaction that
// is new. The caller holds l.mu.
func (l *Log) mayPropose(s *store, adds bool) error {
	const op = "decide"
	if l.closed {
		return fmt.Errorf("%s: %w", op, decision.ErrClosed)
	}
	if r := l.roster.Load(); !r.member() {
		return outsider(op, r)
	}
	if len(l.proposals) >= l.cfg.MaxWaiting {
		return &resource.Error{Code: resource.Capacity, Op: op,
			Detail: fmt.Sprintf("%d transactions wait for their decision", len(l.proposals)),
			Hint:   "see whether enough members are up; wait and repeat the call"}
	}
	if s == nil || !adds {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.full(); err != nil {
		return &resource.Error{Code: resource.Capacity, Op: op, Err: err,
			Hint: "finish what is unfinished, and bring back the members that are away"}
	}
	return nil
}

// await waits for the decision, and returns the entry that stands.
func (l *Log) await(ctx context.Context, op string, p *proposal) (decision.Entry, error) {
	select {
	case <-p.done:
	case <-ctx.Done():
		return decision.Entry{}, l.unavailable(op, p.id, p.tally(), context.Cause(ctx))
	case <-l.quit:
		return decision.Entry{}, fmt.Errorf("%s %q: %w", op, p.id, decision.ErrClosed)
	}
	if p.err != nil {
		return decision.Entry{}, fmt.Errorf("%s: %w", op, p.err)
	}
	if p.entry.ID != "" && p.stands.equal(p.own) {
		return p.entry, nil
	}
	h := held{id: p.id, chosen: true, value: p.stands}
	if s := l.serving(); s != nil {
		if known, ok := s.look(p.id); ok {
			h.merge(known)
		}
	}
	return l.read(op, h)
}

// read returns the entry that h holds.
func (l *Log) read(op string, h held) (decision.Entry, error) {
	e, err := h.entry()
	if err != nil {
		return decision.Entry{}, l.explain(op, &DamageError{Path: l.cfg.Dir, Offset: -1, Reason: err.Error(), Err: err})
	}
	return e, nil
}

// tally returns how the proposal's votes stand.
func (p *proposal) tally() tallies {
	granted, r := p.granted.Load(), p.log.roster.Load()
	return p.log.tally(r, true, func(n protocol.NodeID) bool {
		if n == p.log.cfg.Self {
			return p.local.Load()
		}
		return granted&r.peers.of(n).bit != 0
	})
}

// tally counts those who have answered, and tells who of the others is unreachable.
func (l *Log) tally(r *roster, write bool, has func(protocol.NodeID) bool) tallies {
	return r.count(write, func(n protocol.NodeID) quorum.Answer {
		switch p := r.peers.of(n); {
		case has(n):
			return quorum.Granted
		case p == nil && l.stoppedWhy() != "", p != nil && !l.reachable(p):
			return quorum.Unreachable
		}
		return quorum.Silent
	})
}

// unavailable says that the caller's time was over before enough members had answered.
func (l *Log) unavailable(op string, id commit.TransactionID, t tallies, cause error) error {
	if errors.Is(cause, context.Canceled) {
		return fmt.Errorf("%s %q: %v: %w", op, id, t, cause)
	}
	if id != "" {
		op = fmt.Sprintf("%s %q", op, id)
	}
	return &resource.Error{Code: resource.Unavailable, Op: op, Detail: t.String(), Err: cause,
		Hint: "see whether the members are up and can reach each other; the call may be repeated"}
}

// Force implements engine.Hands. A proposer's record of its rounds is for one that comes back after a
// crash under the same name. This one's name is its incarnation's, which does not come back.
func (p *proposal) Force([]protocol.Write) error { return nil }

// Send implements engine.Hands.
func (p *proposal) Send(to protocol.NodeID, message protocol.Message) {
	l := p.log
	if m, ok := message.(phase2a); ok && m.Value.Stamp != p.own.Stamp {
		p.bound.Store(&m)
	}
	if to != l.cfg.Self {
		l.outbox.add(l, to, p.machine.Epoch.Number, message)
		return
	}
	l.gate.RLock()
	defer l.gate.RUnlock()
	if s := l.serving(); s != nil && s.mayVote() && !s.behind() && !l.roster.Load().system.Over(p.machine.Epoch.Number) {
		s.deliver(p.id, l.self, message)
	}
}

// Emit implements engine.Hands.
func (p *proposal) Emit(value protocol.Value) {
	d, ok := value.(paxos.Decided[Value])
	if !ok {
		return
	}
	p.log.stamps.heard(p.machine.Proposer.Round)
	p.finish(d.Value, nil)
}

// finish tells those who wait what came of the proposal, and lets it go once the storage knows.
func (p *proposal) finish(stands Value, err error) {
	p.once.Do(func() {
		p.stands, p.err = stands, err
		close(p.done)
		p.log.outbox.crowd.Add(-1)
		s := p.log.serving()
		if err == nil && (s == nil || !s.mayVote()) {
			p.log.publish(held{id: p.id, chosen: true, value: stands})
		}
		if s == nil {
			p.remove()
			return
		}
		if err == nil {
			s.deliver(p.id, p.log.self, Learn{Chosen: true, Value: stands})
		}
		s.batch.Then(func() {
			if _, ok := s.look(p.id); !ok {
				p.log.faulted.Store(true) // there was no room: it is not known here that it was begun
			}
			p.remove()
		})
		if s.failure() != nil {
			p.remove()
		}
	})
}

// publish tells the other members what is decided, where this one's storage does not.
func (l *Log) publish(h held) {
	r := l.roster.Load()
	for _, p := range r.peers {
		l.cfg.Network.Send(p.node, appendStates(l.payloadOf(256, r.number()), 0, false, []held{h}))
	}
}

func (p *proposal) remove() {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	if p.log.proposals[p.id] == p {
		delete(p.log.proposals, p.id)
	}
}

// answered gives a proposer the answer of an acceptor.
func (l *Log) answered(from protocol.NodeID, id commit.TransactionID, message protocol.Message) {
	l.mu.Lock()
	p := l.proposals[id]
	l.mu.Unlock()
	if p != nil {
		p.answered(from, message)
	}
}

func (p *proposal) answered(from protocol.NodeID, message protocol.Message) {
	if p.decided() {
		return
	}
	l := p.log
	switch m := message.(type) {
	case phase2b:
		if m.Ballot.Node != l.self {
			return
		}
		if m.Ballot.Round == 0 && m.Value.Stamp != p.own.Stamp {
			// It has kept what was decided about this id long ago and dropped elsewhere.
			message = refused{Instance: m.Instance, Ballot: m.Ballot, Promised: m.Ballot}
			break
		}
		p.vote(from)
	case Void:
		l.stamps.heard(m.Forgotten)
		if s := l.serving(); s != nil {
			s.deliver(p.id, from, Learn{Forgotten: m.Forgotten})
		}
		if m.Forgotten >= p.own.Stamp {
			p.loop.Stop()
			p.finish(Value{}, fmt.Errorf("%q was forgotten meanwhile: %w", p.id, decision.ErrNotFound))
			return
		}
		if message = p.voided(m); message == nil {
			return
		}
	case phase1b:
		if m.Value.Stamp != 0 && m.Value.Stamp <= max(l.forgottenAt(p.id), p.forgotten.Load()) {
			m.Accepted, m.Value = paxos.Ballot{}, Value{} // the acceptor has not heard of that yet
		}
		message = m
	}
	p.loop.Deliver(protocol.Receive{From: from, Message: message})
}

// voided returns what an acceptor has said that calls void a proposal older than the proposer's own: that
// it refuses the ballot that is bound to it, or nothing where that is of another proposer.
func (p *proposal) voided(m Void) protocol.Message {
	for was := p.forgotten.Load(); was < m.Forgotten && !p.forgotten.CompareAndSwap(was, m.Forgotten); {
		was = p.forgotten.Load()
	}
	bound := p.bound.Load()
	if bound == nil || bound.Value.Stamp > m.Forgotten {
		return nil
	}
	return refused{Instance: m.Instance, Ballot: bound.Ballot, Promised: bound.Ballot}
}

// vote takes note that a member has accepted, for the count that a caller is told.
func (p *proposal) vote(from protocol.NodeID) {
	if from == p.log.cfg.Self {
		p.local.Store(true)
	} else if peer := p.log.roster.Load().peers.of(from); peer != nil {
		p.granted.Or(peer.bit)
	}
}

// forgottenAt returns the stamp with which the transaction was forgotten, as far as is known here.
func (l *Log) forgottenAt(id commit.TransactionID) uint64 {
	if s := l.serving(); s != nil {
		if h, ok := s.look(id); ok {
			return h.forgotten
		}
	}
	return 0
}
