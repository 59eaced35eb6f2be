package demo

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"assent"
)

// Mismatch is one thing that is not as it must be.
type Mismatch struct {
	Student     string `json:"student,omitempty"`
	Course      string `json:"course,omitempty"`
	Transaction string `json:"transaction,omitempty"`
	What        string `json:"what"`
}

// String returns the mismatch on one line.
func (m Mismatch) String() string {
	var b strings.Builder
	for _, part := range [...]struct{ name, value string }{
		{"student", m.Student}, {"course", m.Course}, {"transaction", m.Transaction},
	} {
		if part.value != "" {
			fmt.Fprintf(&b, "%s %s, ", part.name, part.value)
		}
	}
	return strings.TrimSuffix(b.String(), ", ") + ": " + m.What
}

func mismatch(p pair, transaction, format string, args ...any) Mismatch {
	return Mismatch{Student: p.student, Course: p.course, Transaction: transaction, What: fmt.Sprintf(format, args...)}
}

// books are what the machines hold.
type books struct {
	students map[string]map[pair]record // by machine
	courses  courseBook
}

// read reads the machines in one transaction.
func (c *campus) read(ctx context.Context) (b books, err error) {
	err = c.manager.Run(ctx, func(ctx context.Context, tx *assent.Tx) (err error) {
		b.students = map[string]map[pair]record{}
		if b.students[machineA], err = c.a.all(ctx, tx); err != nil {
			return err
		}
		if b.students[machineB], err = c.b.all(ctx, tx); err != nil {
			return err
		}
		b.courses, err = readCourses(ctx, c.courses, tx)
		return err
	})
	return b, err
}

// comparison compares the books with each other and with the client's ledger.
type comparison struct {
	ledger *ledger
	books  books
	// studentAt is the union of the books of A and B.
	studentAt  map[pair]record
	mismatches []Mismatch
	// committed counts the requests without answer that turned out to be committed.
	committed int
}

func compare(l *ledger, b books, doubts []doubt) *comparison {
	c := &comparison{ledger: l, books: b, studentAt: map[pair]record{}, mismatches: slices.Clone(l.mismatches)}
	for _, d := range doubts {
		c.found(Mismatch{Transaction: d.Transaction, What: "in doubt on " + d.Where + ": " + d.What})
	}
	for machine, records := range b.students {
		for p, r := range records {
			if home := homeOf(p.student); home != machine {
				c.found(mismatch(p, r.Transaction, "the record is on %s, where the student is not", machine))
			}
			c.studentAt[p] = r
		}
	}
	c.sides()
	c.acknowledged()
	c.settled()
	c.seats()
	slices.SortFunc(c.mismatches, func(a, b Mismatch) int { return cmp.Compare(a.String(), b.String()) })
	return c
}

func homeOf(student string) string {
	if strings.HasPrefix(student, "a") {
		return machineA
	}
	return machineB
}

func (c *comparison) found(m Mismatch) { c.mismatches = append(c.mismatches, m) }

// sides checks that no enrolment is half: students' records and seats are the same set.
func (c *comparison) sides() {
	for p, r := range c.studentAt {
		seat, ok := c.books.courses.seats[p]
		switch {
		case !ok:
			c.found(mismatch(p, r.Transaction, "half: %s has the record, %s has no seat", homeOf(p.student), machineC))
		case seat != r:
			c.found(mismatch(p, r.Transaction, "the seat is of transaction %s", seat.Transaction))
		}
	}
	for p, r := range c.books.courses.seats {
		if _, ok := c.studentAt[p]; !ok {
			c.found(mismatch(p, r.Transaction, "half: %s has the seat, %s has no record", machineC, homeOf(p.student)))
		}
	}
}

// acknowledged checks that everything is as the answers said: each enrolment is there, on both
// sides, and of each refusal, abort and withdrawal nothing is left.
func (c *comparison) acknowledged() {
	for p, a := range c.ledger.accounts {
		for side, records := range map[string]map[pair]record{homeOf(p.student): c.studentAt, machineC: c.books.courses.seats} {
			r, ok := records[p]
			switch {
			case a.standing == enrolled && !ok:
				c.found(mismatch(p, a.by.Transaction, "the enrolment was acknowledged and is not on %s", side))
			case a.standing == enrolled && r != a.by:
				c.found(mismatch(p, r.Transaction, "the record on %s is not of the acknowledged transaction %s", side, a.by.Transaction))
			case a.standing == absent && ok:
				c.found(mismatch(p, r.Transaction, "the record on %s was made by request %d, which was refused, aborted or withdrawn", side, r.Request))
			}
		}
	}
	for p, r := range c.studentAt {
		if c.ledger.accounts[p] == nil {
			c.found(mismatch(p, r.Transaction, "nobody asked for this enrolment"))
		}
	}
}

// settled finds out what became of the requests without answer: each was done as a whole or not
// at all.
func (c *comparison) settled() {
	for _, q := range c.ledger.unanswered {
		happened := 0
		for _, p := range q.pairs() {
			before := c.ledger.accounts[p].by
			r, ok := c.studentAt[p]
			switch {
			case q.Withdraw && !ok, !q.Withdraw && ok && r.Request == q.ID:
				happened++
			case ok && r != before:
				c.found(mismatch(p, r.Transaction, "the record is not of request %d, which was not answered, nor what was there before", q.ID))
			}
		}
		switch happened {
		case len(q.Students):
			c.committed++
		case 0:
		default:
			c.found(Mismatch{Student: strings.Join(q.Students, " and "), Course: q.Course,
				What: "half: they were to be enrolled together or not at all"})
		}
	}
}

// seats checks each course's numbers.
func (c *comparison) seats() {
	taken := map[string]int{}
	for p := range c.books.courses.seats {
		taken[p.course]++
	}
	if n := len(c.books.courses.capacity); n != c.ledger.o.courses {
		c.found(Mismatch{What: fmt.Sprintf("machine %s has %d courses of %d", machineC, n, c.ledger.o.courses)})
	}
	for course, capacity := range c.books.courses.capacity {
		free, ok := c.books.courses.free[course]
		if !ok || free < 0 || free+taken[course] != capacity {
			c.found(Mismatch{Course: course, What: fmt.Sprintf("%d seats are taken and %d free, of %d", taken[course], free, capacity)})
		}
	}
}
