package paxos

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"assent/protocol"
	"assent/protocol/quorum"
)

// silence is how long a member may say nothing before it is called unreachable. Each speaks every
// helloTime.
const (
	silence   = time.Second
	helloTime = 250 * time.Millisecond
)

// reachable reports whether p has been heard lately.
func (l *Log) reachable(p *peer) bool {
	heard := p.heard.Load()
	return heard > 0 && time.Since(l.opened)-time.Duration(heard) < silence
}

// awaited names the peers whose bits are set in mask and that are away, as the end of a sentence.
func (l *Log) awaited(mask uint64) string {
	var away []string
	for _, p := range l.roster.Load().peers {
		if mask&p.bit != 0 && !l.reachable(p) {
			away = append(away, string(p.node))
		}
	}
	if len(away) == 0 {
		return ""
	}
	return fmt.Sprintf(" but not yet known to %s, away", strings.Join(away, ", "))
}

// hello is what a member says of itself.
type hello struct {
	storage string
	// admitted says that it votes, or would if it had votes.
	admitted bool
	stopped  bool
	// unfinished and retained count its entries.
	unfinished, retained uint64
}

func appendHello(b []byte, h hello) []byte {
	b = appendText(append(appendArray(b, 6), byte(kindHello)), h.storage)
	return appendUint(appendUint(appendBool(appendBool(b, h.admitted), h.stopped), h.unfinished), h.retained)
}

func (r *reader) hello() hello {
	h := hello{storage: r.text(maxName), admitted: r.bool(), stopped: r.bool()}
	h.unfinished = r.uint()
	h.retained = r.uint()
	return h
}

// greet tells all peers how this member is.
func (l *Log) greet() {
	r := l.roster.Load()
	if !r.member() {
		return // nobody would care
	}
	h := hello{storage: l.storage, stopped: true}
	if s := l.serving(); s != nil {
		_, stuck := s.stuck()
		s.mu.Lock()
		h.stopped, h.admitted = stuck, r.serves(s.name, s.admitted)
		h.unfinished, h.retained = uint64(len(s.table)-s.settled), uint64(s.settled)
		s.mu.Unlock()
	}
	for _, p := range r.peers {
		l.cfg.Network.Send(p.node, appendHello(l.payloadOf(256, r.number()), h))
	}
}

// greeted takes what a peer says of itself. The storage of one whose epoch names none is written down before
// it is welcomed, so that it cannot come back with another: an acceptor that has forgotten what it promised
// must not vote.
func (l *Log) greeted(p *peer, h hello) {
	if p.hello.Swap(&h) == nil {
		l.greet() // it may have missed what was said before it was up
	}
	s := l.serving()
	if s == nil || h.storage == "" || !p.unnamed {
		return
	}
	s.mu.Lock()
	known := s.members[p.node]
	s.mu.Unlock()
	if known == h.storage && h.admitted {
		return
	}
	s.batch.Then(func() { s.welcome(p, h) })
}

// welcome writes down a peer's storage, if none is known, and answers what is known to one that asks to
// be admitted. The caller is the working goroutine.
func (s *store) welcome(p *peer, h hello) {
	s.mu.Lock()
	known := s.members[p.node]
	if known == "" {
		s.members[p.node] = h.storage
	}
	s.mu.Unlock()
	if known == "" {
		known = h.storage
		s.put(func(b []byte) []byte { return appendMember(b, p.node, known) })
		if s.rest(); s.failure() != nil {
			return
		}
	}
	if known != h.storage && h.admitted {
		s.log.cfg.Logger.Error("a member votes with a storage that is not the one it was known with",
			"member", p.node, "storage", h.storage, "known", known)
	}
	if !h.admitted {
		b := appendText(append(appendArray(s.payload(), 3), byte(kindWelcome)), h.storage)
		s.log.cfg.Network.Send(p.node, appendText(b, known))
	}
}

// welcomed takes a peer's answer: known is the storage that it knows this member with.
func (s *store) welcomed(p *peer, storage, known string) {
	if storage != s.name {
		return
	}
	s.batch.Then(func() { s.admit(p, known) })
}

// admit lets this storage vote when those who have written it down have more than half of the other
// members' votes: no other storage of this member can then be admitted beside it. The caller is the
// working goroutine.
func (s *store) admit(p *peer, known string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.admitted {
		return
	}
	if known != s.name {
		if s.stranger == "" {
			s.stranger = fmt.Sprintf("%s knows this member with another storage: what was promised there is not "+
				"in %s, so it does not vote", p.node, s.log.cfg.Dir)
			s.log.cfg.Logger.Error("this member is not admitted", "member", s.log.cfg.Self, "cause", s.stranger)
		}
		return
	}
	s.welcomes[p.node] = true
	votes, total := 0, 0
	for _, o := range s.roster.peers {
		total += o.votes
		if s.welcomes[o.node] {
			votes += o.votes
		}
	}
	if 2*votes <= total {
		return
	}
	s.group = appendAdmitted(s.group)
	s.count++
	s.mu.Unlock()
	s.rest()
	s.mu.Lock()
	s.admitted = s.failure() == nil && s.stranger == ""
	s.judge()
}

// Status is what there is to know of a Log and its members.
type Status struct {
	// Self is this node, and Prefix what begins the ids that it decides about fastest.
	Self   protocol.NodeID
	Prefix string
	// Stopped says why this node's storage does not answer or vote; empty where it does.
	Stopped string
	// Underway is the number of transactions whose decision this Log is bringing about.
	Underway int
	// Epoch is the number of the latest epoch that is known.
	Epoch uint64
	// Quorum says whether decisions are possible: "3 of 3 votes, 2 needed". While the members change it
	// says so of both sets.
	Quorum string
	// Members are all members, this node first, then the others by name.
	Members []MemberStatus
}

// MemberStatus is what is known of one member.
type MemberStatus struct {
	Node  protocol.NodeID
	Votes int
	// Reachable says that it was heard of within the last second, and Heard how long ago; Heard is
	// negative where it was never heard of.
	Reachable bool
	Heard     time.Duration
	// Condition says in plain words how it is: "votes", "learns", "its storage has stopped", "not admitted".
	Condition string
	// Unfinished and Retained count the entries that it holds: those that are not done, and those
	// that are kept for information.
	Unfinished, Retained int
	// Lag is the number of entries of which this node does not know that the member has heard the
	// latest.
	Lag int
}

// Status returns how this Log and, as far as it knows, the other members are.
func (l *Log) Status() Status {
	r := l.roster.Load()
	st := Status{Self: l.cfg.Self, Prefix: l.Prefix(), Stopped: l.stoppedWhy(), Epoch: r.number()}
	l.mu.Lock()
	st.Underway = len(l.proposals)
	l.mu.Unlock()
	own := MemberStatus{Node: l.cfg.Self, Votes: r.votes(), Reachable: true, Condition: condition(r.votes())}
	if st.Stopped != "" {
		own.Condition = st.Stopped
	}
	var lag [MaxMembers]int
	if s := l.serving(); s != nil {
		s.mu.Lock()
		own.Unfinished, own.Retained = len(s.table)-s.settled, s.settled
		for i := range s.feeds {
			lag[i] = len(s.feeds[i].queue) + len(s.feeds[i].sent)
		}
		s.mu.Unlock()
	}
	st.Members = append(st.Members, own)
	for _, p := range r.peers {
		st.Members = append(st.Members, l.memberStatus(p, lag[p.place]))
	}
	slices.SortFunc(st.Members[1:], func(a, b MemberStatus) int { return strings.Compare(string(a.Node), string(b.Node)) })
	st.Quorum = r.count(true, func(n protocol.NodeID) quorum.Answer {
		for _, m := range st.Members {
			if m.Node == n && m.Reachable && m.Condition == condition(m.Votes) {
				return quorum.Granted
			}
		}
		return quorum.Unreachable
	}).String()
	return st
}

// condition returns how a member is whose storage serves.
func condition(votes int) string {
	if votes == 0 {
		return "learns"
	}
	return "votes"
}

func (l *Log) memberStatus(p *peer, lag int) MemberStatus {
	m := MemberStatus{Node: p.node, Votes: p.votes, Reachable: l.reachable(p), Heard: -1, Lag: lag}
	if heard := p.heard.Load(); heard > 0 {
		m.Heard = time.Since(l.opened) - time.Duration(heard)
	}
	h := p.hello.Load()
	switch {
	case h == nil:
		m.Condition = "never heard of"
		return m
	case !m.Reachable:
		m.Condition = fmt.Sprintf("not heard of for %v", m.Heard.Round(time.Second))
	case h.stopped:
		m.Condition = "its storage has stopped"
	case !h.admitted:
		m.Condition = "not admitted to vote"
	default:
		m.Condition = condition(m.Votes)
	}
	m.Unfinished, m.Retained = int(h.unfinished), int(h.retained)
	return m
}

// stoppedWhy returns why this node's storage does not vote, or "".
func (l *Log) stoppedWhy() string {
	s := l.store.Load()
	if s == nil {
		return "the log is closed"
	}
	if err := s.failure(); err != nil {
		return "its storage has stopped: " + err.Error()
	}
	if d, stuck := s.stuck(); stuck {
		return fmt.Sprintf("its disk has not answered for %v", d.Round(time.Second))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.silentWhy()
}
