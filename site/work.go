package site

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/resource"
)

// work is what a transaction does at this site: a branch in each of some resources, which prepare and
// finish as one.
type work struct {
	h     *Host
	t     Transaction
	timer func() // stops the time after which the work is given up, unless the site has voted
	asked bool   // for its vote, so no more work is taken; h.mu

	joined  atomic.Bool  // there is a branch
	joining atomic.Int32 // how many callers are about to begin one, or have one returned

	mu       sync.Mutex // held while branches prepare and finish, which may take long
	branches map[string]*part
	over     bool
}

// part is the work in one resource.
type part struct {
	resource resource.Resource
	branch   resource.Branch // nil after a restart
	vote     resource.Vote
	outcome  commit.Outcome
}

// evidence is what a site's vote keeps: that of each branch that voted yes.
type evidence struct{ Branches []branchEvidence }

type branchEvidence struct {
	Resource string
	Evidence []byte
}

// busy reports whether there is a branch, or may be one any moment.
func (w *work) busy() bool { return w.joined.Load() || w.joining.Load() > 0 }

func (w *work) id(name string) resource.ID {
	return resource.ID{Owner: w.h.store.owner, Transaction: string(w.t.ID), Branch: name}
}

func (w *work) join(ctx context.Context, name string, r resource.Resource) (resource.Branch, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return nil, fmt.Errorf("site: %q: %w", w.t.ID, ErrOver)
	}
	if p := w.branches[name]; p != nil {
		return p.branch, nil
	}
	b, err := r.Begin(ctx, w.id(name))
	if err != nil {
		return nil, err
	}
	w.branches[name] = &part{resource: r, branch: b}
	w.joined.Store(true)
	return b, nil
}

// prepare has every branch prepare, all at once. The site votes yes if one does and none votes no.
func (w *work) prepare() protocol.Value {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over || len(w.branches) == 0 {
		return commit.BranchPrepared{Vote: commit.No, Reason: "the work is lost"}
	}
	w.over = true
	ctx, cancel := w.h.withTimeout()
	defer cancel()
	names := slices.Sorted(maps.Keys(w.branches))
	refusals := make([]error, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		p := w.branches[name]
		all.Go(func() {
			v, err := p.branch.Prepare(ctx)
			switch {
			case err != nil:
				refusals[i] = fmt.Errorf("%s: %w", name, err)
			case v.Vote != commit.Yes && v.Vote != commit.ReadOnly:
				refusals[i] = fmt.Errorf("%s votes %v", name, v.Vote)
			}
			p.vote = v
		})
	}
	all.Wait()
	if err := errors.Join(refusals...); err != nil {
		return commit.BranchPrepared{Vote: commit.No, Reason: bounded(err.Error())}
	}
	var e evidence
	for _, name := range names {
		if p := w.branches[name]; p.vote.Vote == commit.Yes {
			e.Branches = append(e.Branches, branchEvidence{name, p.vote.Evidence})
		}
	}
	if len(e.Branches) == 0 {
		return commit.BranchPrepared{Vote: commit.ReadOnly}
	}
	data, err := w.h.codec.Encode(e)
	if err != nil {
		return commit.BranchPrepared{Vote: commit.No, Reason: bounded(err.Error())}
	}
	return commit.BranchPrepared{Vote: commit.Yes, Evidence: data}
}

// commit has every branch commit; rollback, roll back. Records are what the site was made anew with:
// they tell which branches there are.
func (w *work) commit(records protocol.Records) protocol.Value {
	return w.finish(records, commit.Committed, func(ctx context.Context, p *part, prepared resource.Prepared) (commit.Outcome, error) {
		if p.branch != nil {
			return p.branch.Commit(ctx)
		}
		return p.resource.Commit(ctx, prepared)
	})
}

func (w *work) rollback(records protocol.Records) protocol.Value {
	return w.finish(records, commit.RolledBack, func(ctx context.Context, p *part, prepared resource.Prepared) (commit.Outcome, error) {
		if p.branch != nil {
			return p.branch.Rollback(ctx)
		}
		return p.resource.Rollback(ctx, prepared)
	})
}

func (w *work) finish(records protocol.Records, want commit.Outcome,
	attempt func(context.Context, *part, resource.Prepared) (commit.Outcome, error)) protocol.Value {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	if err := w.restore(records); err != nil {
		w.h.cfg.Logger.Error("a branch cannot be finished", "transaction", w.t.ID, "error", err)
		return commit.BranchFailed{}
	}
	ctx, cancel := w.h.withTimeout()
	defer cancel()
	var failed error
	for name, p := range w.branches {
		if p.outcome != commit.Unfinished || p.vote.Vote == commit.ReadOnly {
			continue
		}
		o, err := attempt(ctx, p, resource.Prepared{ID: w.id(name), Evidence: p.vote.Evidence})
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", name, err))
			continue
		}
		p.outcome = o
	}
	if len(w.branches) == 0 && want == commit.Committed {
		return w.recall(ctx)
	}
	if failed != nil {
		w.h.cfg.Logger.Warn("a branch cannot be finished yet; trying again", "transaction", w.t.ID, "error", failed)
		return commit.BranchFailed{}
	}
	return commit.BranchFinished{Outcome: w.outcome(want)}
}

// recall finds out what became of a vote that must have been yes and of which nothing is known here any more. The site
// forgets when it is done, and a coordinator that was down tells it once more: then the resources know, which
// remember for longer. Where none knows of a commit, or one knows of the contrary, the records were lost.
func (w *work) recall(ctx context.Context) protocol.Value {
	committed := false
	var failed error
	for name, r := range w.h.cfg.Resources {
		o, err := r.Commit(ctx, resource.Prepared{ID: w.id(name)})
		switch {
		case err != nil:
			failed = errors.Join(failed, fmt.Errorf("%s: %w", name, err))
		case o == commit.RolledBack:
			return commit.BranchFinished{Outcome: commit.Hazard}
		case o == commit.Committed:
			committed = true
		}
	}
	switch {
	case failed != nil:
		w.h.cfg.Logger.Warn("it cannot be found out yet how a branch ended; trying again", "transaction", w.t.ID, "error", failed)
		return commit.BranchFailed{}
	case committed:
		return commit.BranchFinished{Outcome: commit.Committed}
	}
	return commit.BranchFinished{Outcome: commit.Hazard}
}

// outcome is what became of all branches together.
func (w *work) outcome(want commit.Outcome) commit.Outcome {
	other := 0
	first := commit.Unfinished
	finished := 0
	for _, p := range w.branches {
		if p.outcome == commit.Unfinished { // it voted read-only
			continue
		}
		finished++
		if p.outcome != want {
			other++
			first = p.outcome
		}
	}
	switch {
	case other == 0:
		return want
	case other == finished:
		return first
	}
	return commit.Hazard
}

// restore finds out, after a restart, which branches had voted yes.
func (w *work) restore(records protocol.Records) error {
	if len(w.branches) > 0 || len(records) == 0 {
		return nil
	}
	var data []byte
	switch r := records[commit.BranchKey].(type) {
	case commit.PreparedRecord:
		data = r.Evidence
	case commit.SiteRecord:
		data = r.Evidence
	}
	if len(data) == 0 {
		return nil
	}
	v, err := w.h.codec.Decode(data)
	if err != nil {
		return err
	}
	e, ok := v.(evidence)
	if !ok {
		return fmt.Errorf("the evidence is a %T", v)
	}
	found := map[string]*part{}
	for _, b := range e.Branches {
		r := w.h.cfg.Resources[b.Resource]
		if r == nil {
			return fmt.Errorf("no resource is named %q; configure it again", b.Resource)
		}
		found[b.Resource] = &part{resource: r, vote: resource.Vote{Vote: commit.Yes, Evidence: b.Evidence}}
	}
	w.branches = found
	w.joined.Store(len(found) > 0)
	return nil
}

// bounded makes of a text what fits into a message.
func bounded(text string) string {
	const most = 512
	if len(text) > most {
		text = text[:most] + "…"
	}
	return text
}
