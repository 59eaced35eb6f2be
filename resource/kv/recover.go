package kv

import (
	"context"
	"errors"
	"slices"
	"strings"

	"assent/protocol/commit"
	"assent/resource"
)

// Commit commits a prepared branch. Where the branch is not prepared here, the outcome that is on
// record is the answer; it is Hazard where there is none (the branch never voted yes here, or its
// outcome was dropped after Config.KeepFor), and where the evidence is of another store or of
// another vote (the directory was emptied, or restored from an older copy). The branch then
// stays as it is. A branch that is still at work is not committed either.
func (r *Resource) Commit(ctx context.Context, p resource.Prepared) (commit.Outcome, error) {
	const op = "commit"
	if err := p.ID.Validate(); err != nil {
		return 0, invalid(op, err)
	}
	t := r.find(p.ID)
	if t == nil {
		return r.answerFromRecord(ctx, op, p)
	}
	return force(ctx, t, op, func() (commit.Outcome, error) {
		switch {
		case t.state == active, t.state == over:
			return commit.Hazard, nil
		case t.state == unknown:
			return r.answerFromRecord(ctx, op, p)
		case t.state == prepared && r.answer(p, commit.Committed, t.ballot) == commit.Committed:
			if _, err := t.conclude(op, true); err != nil {
				return 0, err
			}
		case t.state == prepared:
			return commit.Hazard, nil
		}
		return r.answer(p, t.outcome, t.ballot), nil
	})
}

// Rollback rolls a branch back, prepared or not. A branch that is at work, or is preparing, is
// rolled back too, and an id that is not known here can never be begun any more, as long as the
// outcome stays on record.
//
// Where there is neither branch nor record, the answer depends on the evidence. With evidence
// there was a yes vote, and what became of it is not known: Hazard. Without evidence the caller
// knows of no yes vote, so that there can be no decision to commit: RolledBack.
func (r *Resource) Rollback(ctx context.Context, p resource.Prepared) (commit.Outcome, error) {
	const op = "rollback"
	if err := p.ID.Validate(); err != nil {
		return 0, invalid(op, err)
	}
	if ctx.Err() != nil {
		return 0, ended(ctx, op)
	}
	if err := r.engine.enter(); err != nil {
		return 0, unavailable(op, err)
	}
	t, found := r.findOrMake(p.ID)
	work := func() (commit.Outcome, error) { return t.rollBackByID(p) }
	if !found {
		return run(ctx, t, op, t.release, work)
	}
	defer r.engine.leave()
	t.condemn(errors.New("the branch was rolled back"))
	return force(ctx, t, op, work)
}

func (t *Tx) rollBackByID(p resource.Prepared) (commit.Outcome, error) {
	const op = "rollback"
	switch t.state {
	case unknown:
		was, known, err := t.r.recorded(t.id)
		if err != nil {
			t.leave() // the store is damaged; whoever has t as well comes here too
			return 0, unavailable(op, err)
		}
		if known {
			t.ballot = was.Ballot
			t.finished(was.outcome())
			break
		}
		if _, err := t.conclude(op, false); err != nil {
			return 0, err
		}
	case prepared:
		if t.r.answer(p, commit.RolledBack, t.ballot) != commit.RolledBack {
			return commit.Hazard, nil
		}
		if _, err := t.conclude(op, false); err != nil {
			return 0, err
		}
	case active, over:
		if _, err := t.conclude(op, false); err != nil {
			return 0, err
		}
		return t.r.answer(p, commit.RolledBack, t.ballot), nil
	}
	return t.r.answer(p, t.outcome, t.ballot), nil
}

// answer is the outcome, if the caller's evidence is of the vote that had this ballot, or if the
// caller has no evidence. Otherwise it is Hazard.
func (r *Resource) answer(p resource.Prepared, outcome commit.Outcome, ballot uint64) commit.Outcome {
	if len(p.Evidence) == 0 {
		return outcome
	}
	if claimed, ok := ballotOf(p.Evidence, r.store); !ok || claimed != ballot {
		return commit.Hazard
	}
	return outcome
}

func (r *Resource) answerFromRecord(ctx context.Context, op string, p resource.Prepared) (commit.Outcome, error) {
	if ctx.Err() != nil {
		return 0, ended(ctx, op)
	}
	if err := r.engine.enter(); err != nil {
		return 0, unavailable(op, err)
	}
	defer r.engine.leave()
	was, known, err := r.recorded(p.ID)
	if err != nil {
		return 0, unavailable(op, err)
	}
	if !known {
		return commit.Hazard, nil
	}
	return r.answer(p, was.outcome(), was.Ballot), nil
}

// find returns the unfinished branch id, or nil.
func (r *Resource) find(id resource.ID) *Tx {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.branches[id]
}

// findOrMake returns the unfinished branch id. If there is none it makes one whose state is
// unknown, and takes its turn, so that the branch cannot be begun meanwhile.
func (r *Resource) findOrMake(id resource.ID) (t *Tx, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t, found = r.branches[id]; found {
		return t, true
	}
	t = r.newTx(id)
	t.state = unknown
	t.turn <- struct{}{} // nobody else has it
	r.branches[id] = t
	return t, false
}

// Recover lists the prepared branches, in the order of their ids. It does not wait for branches
// that are preparing or finishing at the moment.
func (r *Resource) Recover(ctx context.Context) ([]resource.Prepared, error) {
	const op = "recover"
	if ctx.Err() != nil {
		return nil, ended(ctx, op)
	}
	if err := r.engine.enter(); err != nil {
		return nil, unavailable(op, err)
	}
	defer r.engine.leave()
	now := r.cfg.Clock()
	r.mu.Lock()
	list := make([]resource.Prepared, 0, len(r.prepared))
	for _, p := range r.prepared {
		p.Age = max(0, now.Sub(p.Since))
		list = append(list, p)
	}
	r.mu.Unlock()
	slices.SortFunc(list, func(a, b resource.Prepared) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	return list, nil
}
