package api

import (
	"context"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"

	"assent"
	assentv1 "assent/api/assent/v1"
)

// session is a transaction that a caller has open.
type session struct {
	tx    *assent.Tx
	owner string        // the name of the caller that began it
	slot  chan struct{} // holds one element while a call is under way, and for good at the end
	over  chan struct{} // closed at the end
	idle  *time.Timer   // at its end the session is rolled back, unless a call is under way
	pause time.Duration // for which idle is set

	mu     sync.Mutex
	cancel context.CancelFunc // ends the operation under way
	ending bool
}

// sessions are those that are open, and what became of the latest ones that were.
type sessions struct {
	max    int
	idle   time.Duration
	expire func(*session)

	mu     sync.Mutex
	leaves bool // no new ones are taken
	closed bool
	open   map[string]*session
	held   int // open ones, and Runs under way
	past   map[string]past
	order  []string // of past, a ring
	next   int
}

// past is what is remembered of a session that has ended, so that a call can be repeated whose
// answer was lost.
type past struct {
	owner   string
	outcome *assentv1.Outcome
}

// remembered is how many ended sessions are remembered.
const remembered = 4096

func newSessions(opts Options, expire func(*session)) *sessions {
	return &sessions{
		max: opts.MaxOpen, idle: opts.IdleTimeout, expire: expire,
		open: map[string]*session{}, past: map[string]past{}, order: make([]string, remembered),
	}
}

// hold makes room for one more transaction, or says why there is none. Each hold that succeeds is
// followed by a drop.
func (s *sessions) hold() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return refuse(connect.CodeUnavailable, "the server is closing", "try again when it is back").anywhereElse()
	case s.leaves:
		return refuse(connect.CodeUnavailable, "the server is leaving and takes no new transactions", "ask another node of the cluster").anywhereElse()
	case s.held >= s.max:
		return refuse(connect.CodeResourceExhausted, fmt.Sprintf("%d transactions are open, the most that are allowed", s.held),
			"commit or roll back what is open, or raise limits.open_transactions")
	}
	s.held++
	return nil
}

// drain refuses new sessions from now on.
func (s *sessions) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaves = true
}

// draining reports whether no new sessions are taken.
func (s *sessions) draining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leaves || s.closed
}

func (s *sessions) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held--
}

// count returns how many transactions are held now.
func (s *sessions) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// add opens a session for tx, for which there is a hold.
func (s *sessions) add(tx *assent.Tx, owner string) {
	sess := &session{tx: tx, owner: owner, pause: s.idle, slot: make(chan struct{}, 1), over: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[tx.ID()] = sess
	sess.idle = time.AfterFunc(s.idle, func() { s.expire(sess) })
}

// find returns the open session id of c, or what became of it. Both are nil where nothing is known
// that c may know.
func (s *sessions) find(id string, c caller) (*session, *assentv1.Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sess := s.open[id]; sess != nil && (sess.owner == c.name || c.has(RoleAdmin)) {
		return sess, nil
	}
	if p, ok := s.past[id]; ok && (p.owner == c.name || c.has(RoleAdmin)) {
		return nil, p.outcome
	}
	return nil, nil
}

// end forgets the session, whose slot the caller holds, and remembers its outcome if it has one.
func (s *sessions) end(sess *session, outcome *assentv1.Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sess.idle.Stop()
	id := sess.tx.ID()
	if s.open[id] != sess {
		return
	}
	delete(s.open, id)
	close(sess.over)
	s.held--
	if outcome == nil || outcome.GetInDoubt() != nil {
		return
	}
	delete(s.past, s.order[s.next])
	s.order[s.next] = id
	s.next = (s.next + 1) % len(s.order)
	s.past[id] = past{owner: sess.owner, outcome: outcome}
}

// close refuses new sessions and returns the open ones.
func (s *sessions) close() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	all := make([]*session, 0, len(s.open))
	for _, sess := range s.open {
		all = append(all, sess)
	}
	return all
}

// take takes the session for one call. It fails while another call is under way.
func (sess *session) take() error {
	taken := false
	select {
	case sess.slot <- struct{}{}:
		taken = true
		sess.idle.Stop()
	default:
	}
	sess.mu.Lock()
	ending := sess.ending
	sess.mu.Unlock()
	switch {
	case ending:
		if taken {
			sess.rest() // whoever was to end the session may have given up
		}
		return refuse(connect.CodeAborted, "transaction "+sess.tx.ID()+" is being rolled back", "").about(sess.tx.ID(), true)
	case !taken:
		return refuse(connect.CodeAborted, "another call is under way in transaction "+sess.tx.ID(),
			"send one call of a transaction at a time").about(sess.tx.ID(), false)
	}
	return nil
}

// rest gives the slot back and lets the wait for the next call begin anew.
func (sess *session) rest() {
	// In this order, or the wait might end while the slot still looks taken, and not begin anew.
	<-sess.slot
	sess.idle.Reset(sess.pause)
}

// slotTaken takes the session for its end where no call is under way, and reports true where one is.
func (sess *session) slotTaken() bool {
	select {
	case sess.slot <- struct{}{}:
		sess.mu.Lock()
		defer sess.mu.Unlock()
		sess.ending = true
		return false
	default:
		return true
	}
}

// work takes the session for an operation and returns a context for it, which ends when somebody
// seizes the session, and what to call when the operation is over.
func (sess *session) work(ctx context.Context) (opCtx context.Context, done func(), err error) {
	if err := sess.take(); err != nil {
		return nil, nil, err
	}
	opCtx, cancel := context.WithCancel(ctx)
	sess.mu.Lock()
	sess.cancel = cancel
	if sess.ending {
		cancel()
	}
	sess.mu.Unlock()
	return opCtx, func() {
		cancel()
		sess.rest()
	}, nil
}

// seize takes the session for its end; an operation under way is cancelled. It reports false when
// another call has ended the session, and fails when ctx ends first; nobody else can work in the
// session then, and the caller must see to its end.
func (sess *session) seize(ctx context.Context) (bool, error) {
	sess.mu.Lock()
	sess.ending = true
	if sess.cancel != nil {
		sess.cancel()
	}
	sess.mu.Unlock()
	select {
	case sess.slot <- struct{}{}:
		return true, nil
	case <-sess.over:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}
