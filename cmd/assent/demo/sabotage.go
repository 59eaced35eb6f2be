package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"assent/decision"
	"assent/protocol/commit"
	"assent/resource"
)

// A verdict that cannot fail proves nothing. So the machines can be spoiled before they are
// compared, in each way that a check looks for.
const (
	lostRecord = "lost-record" // a student's record disappears
	lostSeat   = "lost-seat"   // a seat disappears
	lostBoth   = "lost-both"   // an acknowledged enrolment disappears without a trace
	half       = "half"        // a student's record is committed alone, without a transaction
	refused    = "refused"     // what was not acknowledged is there, on both sides
	forged     = "forged"      // a seat is another transaction's
	extraSeat  = "extra-seat"  // a course gains a free seat
	prepared   = "prepared"    // a branch is left in doubt
	unfinished = "unfinished"  // the log holds a decision that nobody finished
)

func sabotages() []string {
	return []string{lostRecord, lostSeat, lostBoth, half, refused, forged, extraSeat, prepared, unfinished}
}

func isSabotage(kind string) bool { return slices.Contains(sabotages(), kind) }

// lone is what happens without a transaction manager: a branch on each machine, committed by
// itself.
type lone struct {
	id       resource.ID
	branches map[resource.Resource]resource.Branch
}

// Join implements resource.Transaction.
func (t *lone) Join(ctx context.Context, r resource.Resource) (resource.Branch, error) {
	if b := t.branches[r]; b != nil {
		return b, nil
	}
	b, err := r.Begin(ctx, t.id)
	if err == nil {
		t.branches[r] = b
	}
	return b, err
}

func (t *lone) commit(ctx context.Context) error {
	for _, b := range t.branches {
		one, ok := b.(resource.OnePhase)
		if !ok {
			return fmt.Errorf("%T cannot commit alone", b)
		}
		if outcome, err := one.CommitOnePhase(ctx); err != nil || outcome != commit.Committed {
			return errors.Join(err, fmt.Errorf("the branch ended %v", outcome))
		}
	}
	return nil
}

// spoil spoils what the machines or the log hold.
func (c *campus) spoil(ctx context.Context, kind string, l *ledger) error {
	victim, ok := l.first(enrolled, func(pair) bool { return true })
	if !ok {
		return errors.New("sabotage: nobody is enrolled")
	}
	id := commit.TransactionID("sabotage-" + kind)
	switch kind {
	case unfinished:
		_, err := c.log.Decide(ctx, decision.Entry{ID: id, Decision: commit.Abort, By: "sabotage", Time: time.Now()})
		return err
	case prepared:
		t := &lone{resource.ID{Owner: c.log.Owner(), Transaction: string(id), Branch: machineC}, map[resource.Resource]resource.Branch{}}
		if err := c.spoilIn(ctx, t, extraSeat, victim, l); err != nil {
			return err
		}
		_, err := t.branches[c.courses].Prepare(ctx)
		return err
	}
	t := &lone{resource.ID{Owner: "sabotage", Transaction: string(id), Branch: "alone"}, map[resource.Resource]resource.Branch{}}
	if err := c.spoilIn(ctx, t, kind, victim, l); err != nil {
		return fmt.Errorf("sabotage %s: %w", kind, err)
	}
	return t.commit(ctx)
}

// spoilIn does the work of a sabotage in t.
func (c *campus) spoilIn(ctx context.Context, t *lone, kind string, victim pair, l *ledger) error {
	courses, err := c.courses.Join(ctx, t)
	if err != nil {
		return err
	}
	machine := c.machineOf(victim.student)
	forgery := record{Request: 1, Transaction: t.id.Transaction}
	switch kind {
	case lostRecord:
		return machine.remove(ctx, t, victim)
	case lostSeat:
		return courses.Delete(ctx, seatKey(victim))
	case lostBoth:
		return errors.Join(machine.remove(ctx, t, victim), courses.Delete(ctx, seatKey(victim)),
			changeFree(ctx, courses, victim.course, 1))
	case forged:
		return put(ctx, courses, seatKey(victim), forgery)
	case extraSeat:
		return changeFree(ctx, courses, victim.course, 1)
	}
	// The others need somebody who is not enrolled, in a course that is not full.
	taken := map[string]int{}
	for p, a := range l.accounts {
		if a.standing != absent {
			taken[p.course]++
		}
	}
	outsider, ok := l.first(absent, func(p pair) bool { return kind == half || taken[p.course] < l.o.seats })
	if !ok {
		return errors.New("there is nobody whom to enrol")
	}
	err = c.machineOf(outsider.student).add(ctx, t, outsider, forgery)
	if kind == refused {
		err = errors.Join(err, changeFree(ctx, courses, outsider.course, -1), put(ctx, courses, seatKey(outsider), forgery))
	}
	return err
}

// first returns the first pair of the given standing that fits.
func (l *ledger) first(s standing, fits func(pair) bool) (pair, bool) {
	var found []pair
	for p, a := range l.accounts {
		if a.standing == s && fits(p) {
			found = append(found, p)
		}
	}
	if len(found) == 0 {
		return pair{}, false
	}
	return slices.MinFunc(found, func(a, b pair) int {
		return cmp.Or(strings.Compare(a.student, b.student), strings.Compare(a.course, b.course))
	}), true
}
