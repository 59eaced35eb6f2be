package stack

import (
	"context"
	"fmt"

	"assent/protocol/commit"
	"assent/resource"
	"assent/sim/bank"
)

// settle compares, at the end, what the accounts hold with what the transactions have done that committed.
func (w *world) settle() {
	var holders []bank.Holder
	for _, s := range w.sites {
		balances, err := s.balances()
		if err != nil {
			w.Fail(err)
			return
		}
		holders = append(holders, bank.Holder{Node: s.ID, Balances: balances})
	}
	w.book.Settle(holders, func(t *bank.Entry) bool {
		if t.Alone {
			return w.committedAlone(t)
		}
		return t.Stands == commit.Commit
	})
}

// committedAlone asks the only site of a transaction what became of it: its answer may have been lost
// together with whoever would have asked again.
func (w *world) committedAlone(t *bank.Entry) bool {
	s := w.processes[t.Parts[0].Node].role.(*site)
	id := resource.ID{Owner: w.homes[t.ID], Transaction: string(t.ID), Branch: string(s.ID)}
	outcome, err := s.store.Commit(context.Background(), resource.Prepared{ID: id})
	w.Fail(err)
	if t.Committed(s.ID) && outcome != commit.Committed && !bank.Idle(t.Parts) {
		w.Broken(bank.ClaimPlace, fmt.Sprintf("%s was committed at %s, which now says %s", t.ID, s.ID, outcome))
	}
	return outcome == commit.Committed
}
