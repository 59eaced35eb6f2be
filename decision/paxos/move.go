package paxos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"assent/decision"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/quorum"
)

// The acceptors change in three epochs (protocol/paxos.Epoch): that of the members before, that of both, and
// that of the members after. What the members before had accepted or knew when the epoch of both began is
// their inventory. Each goes through its own: what is decided reaches the members after as everything
// reaches a member that was away, by its feed, and what is not is settled by whoever moves. When each of
// a read quorum of the members before has come to the end of its inventory, the last epoch may begin.

// inventory is what a member held when the epoch of both had begun, without what it has seen to.
type inventory struct{ ids []commit.TransactionID }

// moved is how far a member has come with its inventory.
type moved struct {
	left uint64 // how much it has not seen to
	more bool   // not all of that was looked at
	// unsettled are some of those that were accepted and are not known to be decided.
	unsettled []held
}

// maxUnsettled bounds moved.unsettled, and maxExamined what is looked at at a time: everybody waits meanwhile.
const (
	maxUnsettled = 128
	maxExamined  = 4096
)

func appendMoved(b []byte, m moved) []byte {
	b = appendBool(appendUint(appendArray(b, 3), m.left), m.more)
	b = appendArray(b, len(m.unsettled))
	for _, h := range m.unsettled {
		b = appendHeld(b, h)
	}
	return b
}

func (r *reader) moved() (m moved) {
	r.array(3)
	m.left = r.uint()
	m.more = r.bool()
	for range r.list(maxUnsettled) {
		m.unsettled = append(m.unsettled, r.held())
	}
	return m
}

// answerMoved goes on with the inventory of that epoch, and tells how far that is.
func (s *store) answerMoved(both *roster, p *peer, number uint64) {
	s.batch.Then(func() {
		if s.roster != both || both.system.Next == nil {
			return // it is over
		}
		if s.rest(); s.failure() != nil { // what is told to be held is stable
			return
		}
		s.respond(p, number, kindMoved, reply{moved: s.examine()})
	})
}

// examine looks at a part of the inventory. What was seen to stays so: it is held by a write quorum of the
// members after, each of which keeps it. The caller is the working goroutine.
func (s *store) examine() (m moved) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inventory == nil {
		s.inventory = &inventory{ids: make([]commit.TransactionID, 0, len(s.table))}
		for id := range s.table {
			s.inventory.ids = append(s.inventory.ids, id)
		}
	}
	all, size := s.inventory.ids, 0
	n := min(len(all), maxExamined)
	var left []commit.TransactionID
	for _, id := range all[:n] {
		in, ok := s.table[id]
		if !ok || s.seenTo(in) {
			continue
		}
		left = append(left, id)
		if h := in.held(); !h.chosen && h.value.Stamp != 0 && len(m.unsettled) < maxUnsettled && size < pageBytes {
			m.unsettled = append(m.unsettled, h)
			size += len(h.value.Entry) + 128*len(h.notes)
		}
	}
	s.inventory.ids = append(all[n:], left...)
	m.left, m.more = uint64(len(s.inventory.ids)), n < len(all)
	return m
}

// seenTo reports whether there is nothing left to do about in: a write quorum of the members after holds what
// is decided or forgotten, or nothing was ever accepted. The caller holds s.mu.
func (s *store) seenTo(in *instance) bool {
	if !in.Chosen && (in.accepted().Stamp != 0 || in.Forgotten == 0) {
		return in.accepted().Stamp == 0
	}
	return s.roster.system.Next.Writing(func(n protocol.NodeID) quorum.Answer {
		if p := s.roster.peers.of(n); p == nil || in.owed&p.bit == 0 {
			return quorum.Granted
		}
		return quorum.Silent
	}) == quorum.Reached
}

// Pauses of a move.
const (
	movePause  = 25 * time.Millisecond  // between two questions to a member
	moveAgain  = 200 * time.Millisecond // before one that was not answered is asked again
	moveReport = 5 * time.Second
	// movePatience is how long a proposer is given that has had something accepted when the epoch began.
	movePatience = 250 * time.Millisecond
	// settlers is how many transactions are settled at a time.
	settlers = 64
)

// move is a Move at work.
type move struct {
	log  *Log
	both *roster
	// after is the number of the epoch that follows.
	after uint64
	// asked is when each member before was asked last, zero once it has answered; left is what it has last
	// told, and done are those that have come to the end.
	asked map[protocol.NodeID]time.Time
	left  map[protocol.NodeID]uint64
	done  map[protocol.NodeID]bool
	// met is when a transaction was first told to be unsettled, and busy has those that are being settled.
	met  map[commit.TransactionID]time.Time
	mu   sync.Mutex
	busy map[commit.TransactionID]bool
	work sync.WaitGroup
}

// Move brings about that the epoch after may begin, where both is of the members before and of those after,
// and enters both. It returns nil when both has begun at a read quorum of the members before, and whatever
// one of these had accepted or knew is decided, and held by a write quorum of the members after; or when the
// epoch after has begun already. It may be repeated, and be done by several nodes at once. Everything else
// goes on meanwhile.
func (l *Log) Move(ctx context.Context, both, after Epoch) error {
	const op = "change the members"
	if err := l.ready(ctx, op); err != nil {
		return err
	}
	if err := errors.Join(l.check(both), l.check(after)); err != nil {
		return invalid(op, err)
	}
	if after.Number <= both.Number || !slices.Equal(byPlace(both.Next), byPlace(after.Members)) {
		return invalid(op, fmt.Errorf("%w: epoch %d does not lead to epoch %d", ErrEpoch, both.Number, after.Number))
	}
	l.adopt(both)
	c, number, r := l.call(kindMoved, "")
	defer l.hangUp(number)
	switch {
	case r.number() >= after.Number:
		return nil
	case r.number() != both.Number:
		return invalid(op, l.over(both.Number))
	case !r.member():
		return outsider(op, r)
	}
	m := &move{log: l, both: r, after: after.Number, asked: map[protocol.NodeID]time.Time{}, left: map[protocol.NodeID]uint64{},
		done: map[protocol.NodeID]bool{}, met: map[commit.TransactionID]time.Time{}, busy: map[commit.TransactionID]bool{}}
	within, stop := context.WithCancel(ctx)
	err := m.run(within, c, number)
	stop()
	m.work.Wait()
	return err
}

// over says that an epoch is, and which it is now.
func (l *Log) over(number uint64) error {
	return fmt.Errorf("%w: epoch %d is over, this is epoch %d", ErrEpoch, number, l.Epoch().Number)
}

// run asks the members before until enough have come to the end.
func (m *move) run(ctx context.Context, c *call, number uint64) error {
	const op = "change the members"
	l, began, reported := m.log, time.Now(), time.Now()
	tick := time.NewTicker(movePause)
	defer tick.Stop()
	m.ask(number, "")
	for !m.both.system.Fenced(func(n protocol.NodeID) bool { return m.done[n] }) {
		select {
		case a := <-c.replies:
			if m.heard(ctx, a) {
				m.ask(number, a.from)
			}
		case <-tick.C:
			m.ask(number, "")
		case <-c.turned:
			if l.Epoch().Number >= m.after {
				return nil // somebody else has got that far
			}
			return invalid(op, l.over(m.both.number()))
		case <-ctx.Done():
			return l.unavailable(op, "", l.tally(m.both, false, func(n protocol.NodeID) bool { return m.done[n] }), context.Cause(ctx))
		case <-l.quit:
			return fmt.Errorf("%s: %w", op, decision.ErrClosed)
		}
		if time.Since(reported) >= moveReport {
			reported = time.Now()
			l.cfg.Logger.Info("the members change", "epoch", m.both.number(), "left", m.progress(), "for", time.Since(began).Round(time.Second))
		}
	}
	l.cfg.Logger.Info("the members have changed: what the old ones knew is with the new ones",
		"epoch", m.both.number(), "for", time.Since(began).Round(time.Millisecond))
	return nil
}

// ask asks how far the members before are: the one that is named, or all that are due.
func (m *move) ask(number uint64, only protocol.NodeID) {
	l, now := m.log, time.Now()
	for _, v := range m.both.system.System.Members {
		if m.done[v.Node] || only != "" && only != v.Node || only == "" && now.Sub(m.asked[v.Node]) < moveAgain {
			continue
		}
		m.asked[v.Node] = now
		if v.Node == l.cfg.Self {
			l.within(m.both, func(s *store) { s.answerMoved(m.both, nil, number) })
		} else if p := m.both.peers.of(v.Node); p != nil {
			l.cfg.Network.Send(p.node, appendUint(append(appendArray(l.payloadOf(256, m.both.number()), 2), byte(kindMovedQuery)), number))
		}
	}
}

// heard takes a member's answer. It reports whether that is getting on and has more to look at.
func (m *move) heard(ctx context.Context, a reply) (on bool) {
	before, told := m.left[a.from]
	on = a.moved.more && (!told || a.moved.left < before)
	m.asked[a.from] = time.Now().Add(movePause - moveAgain)
	m.left[a.from] = a.moved.left
	if a.moved.left == 0 {
		m.done[a.from] = true
	}
	if len(m.met) > 8*maxExamined {
		clear(m.met)
	}
	for _, h := range a.moved.unsettled {
		since, met := m.met[h.id]
		if !met {
			m.met[h.id] = time.Now()
		} else if time.Since(since) >= movePatience { // its own proposer has not come to an end
			m.settle(ctx, h)
		}
	}
	return on
}

// settle brings about that the transaction is decided, unless that is under way or there is enough to do.
func (m *move) settle(ctx context.Context, h held) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy[h.id] || len(m.busy) >= settlers {
		return
	}
	m.busy[h.id] = true
	m.work.Go(func() {
		defer func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			delete(m.busy, h.id)
		}()
		p, _, err := m.log.propose(h.id, h.value, decision.Entry{})
		if err != nil || p == nil {
			return // there is no room now; or it is known here, and told
		}
		select {
		case <-p.done:
		case <-ctx.Done():
		case <-m.log.quit:
		}
	})
}

// progress says how much the members before have left, for people.
func (m *move) progress() string {
	var all []string
	for _, v := range m.both.system.System.Members {
		left, told := m.left[v.Node]
		switch {
		case m.done[v.Node]:
			all = append(all, fmt.Sprintf("%s: none", v.Node))
		case told:
			all = append(all, fmt.Sprintf("%s: %d", v.Node, left))
		default:
			all = append(all, fmt.Sprintf("%s: no answer", v.Node))
		}
	}
	return strings.Join(all, ", ")
}
