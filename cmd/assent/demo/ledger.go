package demo

import (
	"fmt"
	"math/rand/v2"
)

// standing is what the client knows of a pair of student and course.
type standing uint8

const (
	// absent: never enrolled, or withdrawn, and that was acknowledged.
	absent standing = iota
	// enrolled: that was acknowledged.
	enrolled
	// open: the last request was not answered, so either may be. The client leaves such a pair
	// alone from then on, so that what became of the request can be seen in the end.
	open
)

// account is what the client knows of one pair.
type account struct {
	standing standing
	busy     bool   // a request is under way
	by       record // the last acknowledged enrolment, where there was one and no withdrawal
	place    int    // in ledger.enrolled
}

// ledger is the client's memory: what it asked for and what it was told.
type ledger struct {
	o        options
	random   *rand.Rand
	accounts map[pair]*account
	enrolled []pair // the pairs that are enrolled and not busy
	last     uint64 // the last request's number
	pending  map[uint64]request
	// unanswered are the requests that were under way at a kill, and those that the registrar
	// did not know the end of.
	unanswered []request
	counts     counts
	mismatches []Mismatch // those that show before the stores are compared
}

// counts of requests, by how they ended.
type counts struct{ enrolled, withdrawn, full, aborted, contradicted, heuristic int }

func newLedger(o options) *ledger {
	return &ledger{o: o, random: rand.New(rand.NewPCG(o.seed, 0)), accounts: map[pair]*account{}, pending: map[uint64]request{}}
}

// ended returns the number of requests that ended, with an answer or without.
func (l *ledger) ended() int { return int(l.last) - len(l.pending) }

func (l *ledger) account(p pair) *account {
	a := l.accounts[p]
	if a == nil {
		a = &account{place: -1}
		l.accounts[p] = a
	}
	return a
}

// Of 100 requests, so many are withdrawals, as long as anybody is enrolled; of 100 enrolments, so
// many are of two friends, of whom most study on different machines.
const (
	withdrawals = 42
	friends     = 35
)

// next makes a request. It reports false where it finds none: then most pairs are busy or open.
func (l *ledger) next() (request, bool) {
	if len(l.enrolled) > 0 && l.random.IntN(100) < withdrawals {
		return l.withdrawal(), true
	}
	for range 100 {
		q := request{Students: []string{l.student(l.random.IntN(2))}, Course: l.course()}
		if l.random.IntN(100) < friends {
			other := l.student(l.random.IntN(2))
			if other == q.Students[0] {
				continue
			}
			q.Students = append(q.Students, other)
		}
		if l.free(q) {
			return l.ask(q), true
		}
	}
	if len(l.enrolled) > 0 {
		return l.withdrawal(), true
	}
	return request{}, false
}

func (l *ledger) withdrawal() request {
	p := l.enrolled[l.random.IntN(len(l.enrolled))]
	return l.ask(request{Withdraw: true, Students: []string{p.student}, Course: p.course})
}

// free reports whether all of q's pairs are absent and nothing is under way about them.
func (l *ledger) free(q request) bool {
	for _, p := range q.pairs() {
		if a := l.account(p); a.standing != absent || a.busy {
			return false
		}
	}
	return true
}

func (l *ledger) student(machine int) string {
	return studentName(machine, l.random.IntN(l.o.students/2))
}

func studentName(machine, n int) string { return fmt.Sprintf("%c-%03d", 'a'+machine, n) }

// course returns one, the first ones more often: some courses are always full.
func (l *ledger) course() string {
	x := l.random.Float64()
	return courseName(int(x * x * float64(l.o.courses)))
}

func courseName(n int) string { return fmt.Sprintf("c-%03d", n) }

func (l *ledger) ask(q request) request {
	l.last++
	q.ID = l.last
	l.pending[q.ID] = q
	for _, p := range q.pairs() {
		l.account(p).busy = true
		l.delist(p)
	}
	return q
}

// enlist and delist keep l.enrolled.
func (l *ledger) enlist(p pair) {
	l.account(p).place = len(l.enrolled)
	l.enrolled = append(l.enrolled, p)
}

func (l *ledger) delist(p pair) {
	a := l.account(p)
	if a.place < 0 {
		return
	}
	end := len(l.enrolled) - 1
	l.enrolled[a.place] = l.enrolled[end]
	l.account(l.enrolled[a.place]).place = a.place
	l.enrolled, a.place = l.enrolled[:end], -1
}

// answered takes an answer.
func (l *ledger) answered(a answer) {
	q, ok := l.pending[a.ID]
	if !ok {
		l.mismatch(Mismatch{What: fmt.Sprintf("request %d was answered and not asked, or answered twice", a.ID), Transaction: a.Transaction})
		return
	}
	delete(l.pending, a.ID)
	switch a.Result {
	case done:
		l.changed(q, record{a.ID, a.Transaction})
	case full, aborted:
		if a.Result == full {
			l.counts.full++
		} else {
			l.counts.aborted++
		}
		l.restore(q)
	case contradicted, heuristic:
		if a.Result == contradicted {
			l.counts.contradicted++
		} else {
			l.counts.heuristic++
		}
		for _, p := range q.pairs() {
			l.mismatch(mismatch(p, a.Transaction, "%s", a.Reason))
		}
		l.leaveOpen(q)
	default:
		l.unanswered = append(l.unanswered, q)
		l.leaveOpen(q)
	}
}

// changed records that q was done.
func (l *ledger) changed(q request, by record) {
	if q.Withdraw {
		l.counts.withdrawn++
	} else {
		l.counts.enrolled++
	}
	for _, p := range q.pairs() {
		a := l.account(p)
		if q.Withdraw {
			a.standing, a.by = absent, record{}
		} else {
			a.standing, a.by = enrolled, by
		}
	}
	l.restore(q)
}

// restore ends the work about q's pairs.
func (l *ledger) restore(q request) {
	for _, p := range q.pairs() {
		a := l.account(p)
		a.busy = false
		if a.standing == enrolled {
			l.enlist(p)
		}
	}
}

func (l *ledger) leaveOpen(q request) {
	for _, p := range q.pairs() {
		l.account(p).standing = open
	}
}

// killed records that nobody will answer what is under way.
func (l *ledger) killed() {
	for id, q := range l.pending {
		delete(l.pending, id)
		l.unanswered = append(l.unanswered, q)
		l.leaveOpen(q)
	}
}

func (l *ledger) mismatch(m Mismatch) { l.mismatches = append(l.mismatches, m) }
