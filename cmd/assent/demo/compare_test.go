package demo

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	ann = pair{"a-000", "c-000"}
	bob = pair{"b-000", "c-000"}
)

// story is a ledger and books that agree: ann and bob enrolled together by request 1.
func story() (*ledger, books) {
	l := newLedger(options{seed: 1, students: 4, courses: 1, seats: 3})
	l.ask(request{Students: []string{ann.student, bob.student}, Course: ann.course})
	l.answered(answer{ID: 1, Result: done, Transaction: "t1"})
	r := record{1, "t1"}
	return l, books{
		students: map[string]map[pair]record{machineA: {ann: r}, machineB: {bob: r}},
		courses: courseBook{
			seats: map[pair]record{ann: r, bob: r},
			free:  map[string]int{"c-000": 1}, capacity: map[string]int{"c-000": 3},
		},
	}
}

func texts(all []Mismatch) (lines []string) {
	for _, m := range all {
		lines = append(lines, m.String())
	}
	return lines
}

func TestCompareAgreement(t *testing.T) {
	l, b := story()
	if c := compare(l, b, nil); len(c.mismatches) != 0 {
		t.Errorf("found %v", c.mismatches)
	}
}

// TestCompareRest shows the checks what sabotage does not.
func TestCompareRest(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*ledger, *books)
		want   []string
	}{
		"on the wrong machine": {func(_ *ledger, b *books) {
			b.students[machineB][ann] = b.students[machineA][ann]
			delete(b.students[machineA], ann)
		}, []string{"student a-000, course c-000, transaction t1: the record is on students-b, where the student is not"}},
		"nobody asked": {func(_ *ledger, b *books) {
			p, r := pair{"a-001", "c-000"}, record{9, "t9"}
			b.students[machineA][p], b.courses.seats[p] = r, r
			b.courses.free["c-000"] = 0
		}, []string{"student a-001, course c-000, transaction t9: nobody asked for this enrolment"}},
		"negative": {func(_ *ledger, b *books) {
			b.courses.free["c-000"], b.courses.capacity["c-000"] = -1, 1
		}, []string{"course c-000: 2 seats are taken and -1 free, of 1"}},
		"a course is gone": {func(_ *ledger, b *books) {
			clear(b.courses.capacity)
		}, []string{": machine courses has 0 courses of 1"}},
		"friends apart": {func(l *ledger, b *books) {
			clear(l.accounts)
			l.pending[1] = request{ID: 1, Students: []string{ann.student, bob.student}, Course: "c-000"}
			l.killed()
			delete(b.students[machineB], bob)
			delete(b.courses.seats, bob)
			b.courses.free["c-000"] = 2
		}, []string{"student a-000 and b-000, course c-000: half: they were to be enrolled together or not at all"}},
		"unanswered, and another's record": {func(l *ledger, b *books) {
			l.ask(request{Withdraw: true, Students: []string{ann.student}, Course: "c-000"})
			l.killed()
			b.students[machineA][ann] = record{7, "t7"}
			b.courses.seats[ann] = record{7, "t7"}
		}, []string{"student a-000, course c-000, transaction t7: the record is not of request 2, which was not answered, nor what was there before"}},
		"answered twice": {func(l *ledger, _ *books) {
			l.answered(answer{ID: 1, Result: done, Transaction: "t1"})
		}, []string{"transaction t1: request 1 was answered and not asked, or answered twice"}},
		"contradicted": {func(l *ledger, _ *books) {
			l.ask(request{Withdraw: true, Students: []string{ann.student}, Course: "c-000"})
			l.answered(answer{ID: 2, Result: contradicted, Transaction: "t2", Reason: "not there"})
		}, []string{"student a-000, course c-000, transaction t2: not there"}},
	} {
		t.Run(name, func(t *testing.T) {
			l, b := story()
			c.change(l, &b)
			if diff := cmp.Diff(c.want, texts(compare(l, b, nil).mismatches)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestUnansweredIsCounted(t *testing.T) {
	for _, committed := range []bool{true, false} {
		l, b := story()
		l.ask(request{Withdraw: true, Students: []string{ann.student}, Course: "c-000"})
		l.killed()
		want := 0
		if committed {
			want = 1
			delete(b.students[machineA], ann)
			delete(b.courses.seats, ann)
			b.courses.free["c-000"]++
		}
		if c := compare(l, b, nil); c.committed != want || len(c.mismatches) != 0 || l.ended() != 2 {
			t.Errorf("committed %d of %d, want %d; found %v", c.committed, l.ended(), want, c.mismatches)
		}
	}
}

// TestLedger checks the client's memory against a plain one, over many random answers.
func TestLedger(t *testing.T) {
	l := newLedger(options{seed: 5, students: 400, courses: 10, seats: 2})
	plain := map[pair]bool{}
	asked := map[pair]bool{}
	for range 5000 {
		q, ok := l.next()
		if !ok {
			t.Fatal("no request was found")
		}
		for _, p := range q.pairs() {
			if asked[p] {
				t.Fatalf("request %d asks about %v, about which another is under way", q.ID, p)
			}
			if plain[p] != q.Withdraw {
				t.Fatalf("request %+v, but enrolled is %v", q, plain[p])
			}
			asked[p] = true
		}
		if len(l.pending) < 4 {
			continue
		}
		for id, q := range l.pending {
			answer := answer{ID: id, Result: []result{done, full, aborted}[l.random.IntN(3)], Transaction: fmt.Sprint("t", id)}
			for _, p := range q.pairs() {
				delete(asked, p)
				if answer.Result == done {
					plain[p] = !q.Withdraw
				}
			}
			l.answered(answer)
		}
	}
	maps.DeleteFunc(plain, func(_ pair, in bool) bool { return !in })
	order := func(a, b pair) int { return strings.Compare(a.student+a.course, b.student+b.course) }
	slices.SortFunc(l.enrolled, order)
	for id := range l.pending { // what is under way is not listed
		for _, p := range l.pending[id].pairs() {
			delete(plain, p)
		}
	}
	if diff := cmp.Diff(slices.SortedFunc(maps.Keys(plain), order), l.enrolled, cmp.AllowUnexported(pair{})); diff != "" {
		t.Error(diff)
	}
}
