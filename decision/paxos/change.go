package paxos

import (
	"context"
	"fmt"
	"slices"
	"time"

	"assent/decision"
	"assent/protocol"
	"assent/protocol/paxos"
	"assent/resource"
)

// The members change while all goes on. A payload is of its sender's epoch. Whoever knows a later one answers
// with that, and does nothing else; whoever knows only an earlier one asks for it, and keeps the payload for
// as long. What a proposer has begun in an epoch that is over it begins again, higher, in the next.

// Epoch returns the latest epoch that is known here.
func (l *Log) Epoch() Epoch { return l.roster.Load().epoch }

// Storage returns the name of this node's directory; see Member.
func (l *Log) Storage() string { return l.storage }

// Enter makes the epoch this node's. It returns when that is stable. From then on whatever is of lower
// epochs is refused, and what is proposed goes on in this one. An epoch that is over has no effect.
func (l *Log) Enter(ctx context.Context, e Epoch) error {
	const op = "enter epoch"
	if err := l.ready(ctx, op); err != nil {
		return err
	}
	if err := l.check(e); err != nil {
		return invalid(op, err)
	}
	l.adopt(e)
	s := l.store.Load()
	if s == nil {
		return fmt.Errorf("%s: %w", op, decision.ErrClosed)
	}
	stable := make(chan struct{})
	s.batch.Then(func() { close(stable) })
	select {
	case <-stable:
		return nil
	case <-s.failed:
		return fmt.Errorf("%s %d: %w: %w", op, e.Number, decision.ErrStopped, s.cause)
	case <-l.quit:
		return fmt.Errorf("%s: %w", op, decision.ErrClosed)
	case <-ctx.Done():
		return fmt.Errorf("%s %d: %w", op, e.Number, context.Cause(ctx))
	}
}

// check returns why the epoch cannot be entered here, or nil.
func (l *Log) check(e Epoch) error {
	if err := e.Validate(); err != nil {
		return err
	}
	return l.cfg.reaches(e)
}

// adopt makes e the epoch by which this Log proposes, and has its storage enter it; unless it is over.
func (l *Log) adopt(e Epoch) {
	l.gate.Lock()
	was := l.roster.Load()
	if e.Number <= was.number() {
		l.gate.Unlock()
		return
	}
	r := newRoster(l.cfg.Self, e, was)
	if s := l.serving(); s != nil {
		s.enterEpoch(r)
	}
	l.publishRoster(r)
	l.gate.Unlock()
	l.cfg.Logger.Info("an epoch begins", "member", l.cfg.Self, "epoch", e.Number, "members", names(e.Members), "next", names(e.Next))

	l.mu.Lock()
	var under []*proposal
	for _, p := range l.proposals {
		under = append(under, p)
	}
	for _, c := range l.calls {
		c.turn()
	}
	early := l.early
	l.early, l.earlyBytes = nil, 0
	l.mu.Unlock()
	for _, p := range under {
		p.turn(r)
	}
	l.greet()
	for _, x := range early {
		l.receive(x.from, x.payload)
	}
}

// publishRoster makes r what this Log knows.
func (l *Log) publishRoster(r *roster) {
	for _, m := range r.own {
		l.stamps.member.Store(uint64(m.Place))
	}
	l.roster.Store(r)
}

func names(members []Member) (all []protocol.NodeID) {
	for _, m := range members {
		all = append(all, m.Node)
	}
	return all
}

// earlyPayload is one of an epoch that is not known yet.
type earlyPayload struct {
	from    protocol.NodeID
	payload []byte
}

// Limits of what is kept until the epoch is known.
const (
	maxEarly      = 512
	maxEarlyBytes = 16 << 20
)

// later takes a payload of a later epoch than is known here. It asks for the epoch, if that is not what the
// payload tells. What a node that is not a member tells or says of epochs is not believed: it may be of another
// cluster, of the same name, that was before. Who was let in since is believed when Enter has told of it; only a
// node that knows of no epoch believes anybody.
func (l *Log) later(from protocol.NodeID, payload []byte, number uint64, r *reader) {
	known := l.roster.Load()
	believed := known.number() == 0 || known.peers.of(from) != nil
	if len(r.data) > 0 {
		items, k := r.list(16), kind(r.most(255))
		if k == kindEpoch && items == 4 {
			if e := r.epoch(); believed && r.err == nil && l.cfg.reaches(e) == nil {
				l.adopt(e)
			}
			return
		}
	}
	l.mu.Lock()
	known = l.roster.Load()
	if known.number() >= number { // meanwhile
		l.mu.Unlock()
		l.receive(from, payload)
		return
	}
	if len(l.early) < maxEarly && l.earlyBytes+len(payload) <= maxEarlyBytes {
		l.early = append(l.early, earlyPayload{from, slices.Clone(payload)})
		l.earlyBytes += len(payload)
	}
	l.mu.Unlock()
	if believed && l.once(known.peers.of(from)) {
		l.cfg.Network.Send(from, l.payloadOf(256, known.number())) // it is of an epoch that is over: that is answered
	}
}

// tellEpoch answers what is of an epoch that is over.
func (l *Log) tellEpoch(to protocol.NodeID, r *roster) {
	if l.once(r.peers.of(to)) {
		l.cfg.Network.Send(to, appendEpoch(l.payloadOf(512, r.number()), byte(kindEpoch), r.epoch))
	}
}

// tellPause is the least time between two of the payloads by which a node is told of an epoch.
const tellPause = 5 * time.Millisecond

// once reports whether the node has not been told of an epoch a moment ago. One that is no member is told
// whenever it asks.
func (l *Log) once(p *peer) bool {
	if p == nil {
		return true
	}
	now := int64(time.Since(l.opened)) + 1
	was := p.told.Load()
	return (was == 0 || now-was >= int64(tellPause)) && p.told.CompareAndSwap(was, now)
}

// fenceName is the name under which a store's epoch is stepped. It is not a transaction's: ids are UTF-8.
const fenceName = "\xffepoch"

// fence is the machine that keeps the epoch of a store's acceptors: one for all of them. What was delivered
// before it enters an epoch was of the one before.
type fence struct{ store *store }

// entering has the epoch of a store's acceptors begin.
type entering struct{ roster *roster }

// epochRecord is what a fence keeps. Blank says that what the acceptors held before is void.
type epochRecord struct {
	Epoch Epoch
	Blank bool
}

// Step implements protocol.Machine.
func (f fence) Step(ev protocol.Event, out *protocol.Effects) {
	r, ok := ev.(protocol.Receive)
	if !ok {
		return
	}
	m, ok := r.Message.(entering)
	if !ok {
		return
	}
	s := f.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.roster.number() <= s.roster.number() {
		return
	}
	blank := s.anew(s.roster, m.roster)
	s.turn(m.roster)
	out.Put(paxos.EpochKey, epochRecord{Epoch: m.roster.epoch, Blank: blank})
}

// enterEpoch lets the store go over to the epoch, behind all that was delivered before. The caller holds the
// Log's gate.
func (s *store) enterEpoch(r *roster) {
	s.batch.Deliver(fenceName, protocol.Receive{From: s.log.self, Message: entering{r}})
}

// payload begins a payload of the storage's epoch, which may be behind the Log's for a moment: what was served
// before a new member has dropped what it held is not of the epoch in which it begins anew. The caller is the
// working goroutine.
func (s *store) payload() []byte { return s.log.payloadOf(256, s.roster.number()) }

// turn goes over to another epoch: those who are members no more are owed nothing, and those who are new, or
// have another storage, or have left and come back, everything. The caller holds s.mu.
func (s *store) turn(r *roster) {
	was := s.roster
	gone, fresh := uint64(0), uint64(0)
	for place := range r.places {
		before, now := was.places[place], r.places[place]
		if before == nil && now == nil || before != nil && now != nil && s.same(before, now) {
			continue
		}
		if s.feeds[place] = (feed{}); before != nil {
			gone |= before.bit
		}
		if now != nil {
			fresh |= now.bit
		}
	}
	s.roster, s.inventory = r, nil
	s.judge()
	if gone|fresh == 0 {
		return
	}
	for _, in := range s.table {
		in.owed &^= gone
		in.queued &^= gone
		s.oweAlso(in, fresh)
	}
}

// anew reports whether this node comes back in the epoch r as a new member, and drops what it holds from the
// time before, was being the last epoch that it has entered: whatever counts of that the others have, some of it
// was dropped by them long ago, and the rest was never decided. The caller holds s.mu, or nobody else knows s.
func (s *store) anew(was, r *roster) bool {
	if !r.member() || was.number() == 0 || was.member() && was.since() == r.since() {
		return false
	}
	for id, in := range s.table {
		in.dropped = true
		if owner(id) == s.log.self {
			s.log.faulted.Store(true) // it is not known here any more what was begun
		}
	}
	clear(s.table)
	s.done, s.settled, s.bytes, s.horizon = nil, 0, 0, 0
	return true
}

// same reports whether two entries of members are of one storage of one node. The caller holds s.mu.
func (s *store) same(a, b *peer) bool {
	storage := func(p *peer) string {
		if p.storage != "" {
			return p.storage
		}
		return s.members[p.node]
	}
	return a.node == b.node && a.since == b.since && (a.storage == b.storage || storage(a) == storage(b))
}

// judge finds out what is known of this storage in the epoch. The caller holds s.mu, or nobody else knows s.
func (s *store) judge() {
	if s.roster.member() && len(s.roster.peers) == 0 {
		s.admitted = true // there is nobody who could know another
	}
	if !s.roster.unnamed() {
		s.stranger = ""
	}
}

// mayVote reports whether this storage is the member's in the latest epoch that is known.
func (s *store) mayVote() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.roster.Load().serves(s.name, s.admitted)
}

// waits reports whether this storage waits for the others to write it down.
func (s *store) waits() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.log.roster.Load()
	return r.unnamed() && !r.serves(s.name, s.admitted)
}

// silentWhy says why this storage does not vote, or "". The caller holds s.mu.
func (s *store) silentWhy() string {
	r := s.log.roster.Load()
	switch {
	case r.serves(s.name, s.admitted):
		return ""
	case !r.member():
		return r.outside().Error()
	case s.stranger != "":
		return s.stranger
	}
	for _, m := range r.own {
		if m.Storage != "" && m.Storage != s.name {
			return fmt.Sprintf("epoch %d names another storage of this member: what was promised there is not in %s, "+
				"so it does not vote", r.number(), s.log.cfg.Dir)
		}
	}
	return "it waits for the other members to write down its storage"
}

// outsider says that nothing can be asked by a node that is not a member.
func outsider(op string, r *roster) error {
	return &resource.Error{Code: resource.Unavailable, Op: op, Err: r.outside(), Hint: "ask a member, or let this node join first"}
}
