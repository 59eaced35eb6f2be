package assent

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"assent/decision"
	"assent/protocol"
	"assent/protocol/commit"
)

// Resolution is what an operator says about a transaction that Assent cannot end by itself. It
// is kept with the transaction, as its audit trail.
type Resolution struct {
	// ID is the transaction.
	ID string
	// Branch is the resource whose branch is resolved. Empty means all that are heuristic; and,
	// where nothing is decided, that the transaction is to abort.
	Branch string
	// Outcome is how the branch ended, as the operator has found or made it: Committed or
	// RolledBack. It may be Unfinished, for "noted", where the outcome was heuristic already.
	Outcome commit.Outcome
	// By and Reason are required: UTF-8, and at most 256 and decision.MaxReason bytes long.
	By, Reason string
}

const maxBy = 256

func (r Resolution) validate() error {
	switch {
	case r.ID == "":
		return errors.New("resolve: which transaction?")
	case r.By == "" || r.Reason == "":
		return errors.New("resolve: say who resolves it and why; both are kept")
	case len(r.By) > maxBy || len(r.Reason) > decision.MaxReason:
		return fmt.Errorf("resolve: who may have %d bytes, and why %d", maxBy, decision.MaxReason)
	case !utf8.ValidString(r.By) || !utf8.ValidString(r.Reason):
		return errors.New("resolve: who and why must be UTF-8")
	case r.Outcome == commit.Hazard || r.Outcome > commit.Hazard:
		return errors.New("resolve: say committed or rolled back; a hazard is what is to be resolved")
	}
	return nil
}

// Resolve records what an operator says and lets the transaction end accordingly:
//
//   - A heuristic outcome is noted as resolved.
//   - A branch that cannot be finished, because its resource is gone for good say, is taken to
//     have ended as the operator says, and is not tried again. Branch and Outcome are required.
//   - A transaction of which nothing is decided is proposed to abort. If commit stands already,
//     Resolve says so in an error: an operator cannot reverse a decision.
//
// It returns the transaction's state after. ErrUnknown says that the transaction is not known.
func (m *Manager) Resolve(ctx context.Context, r Resolution) (Info, error) {
	if err := r.validate(); err != nil {
		return Info{}, err
	}
	info, err := m.Transaction(ctx, r.ID)
	if err != nil {
		return Info{}, err
	}
	t := m.unfinishedBranch(r)
	switch {
	case t != nil:
		err = m.resolveUnfinished(t, r)
	case info.State == StateHeuristic:
		err = m.resolveHeuristic(ctx, r, info)
	case info.State == StateInDoubt:
		err = m.resolveInDoubt(ctx, r)
	case info.State == StateCommitting || info.State == StateAborting:
		err = fmt.Errorf("resolve: transaction %s is decided; name the branch that cannot be finished and say how it ended", r.ID)
	default:
		err = fmt.Errorf("resolve: transaction %s is %s; there is nothing to resolve", r.ID, info.State)
	}
	if err != nil {
		return info, err
	}
	m.cfg.Logger.Warn("resolved by an operator", "transaction", r.ID, "branch", r.Branch, "outcome", r.Outcome, "by", r.By, "reason", r.Reason)
	return m.Transaction(ctx, r.ID)
}

func (r Resolution) note(kind decision.Kind, branch string) decision.Note {
	return decision.Note{Kind: kind, Time: time.Now(), Branch: branch, Outcome: r.Outcome,
		By: r.By, Reason: r.Reason, Forced: true}
}

func (m *Manager) resolveHeuristic(ctx context.Context, r Resolution, info Info) error {
	open := map[string]bool{}
	for _, n := range info.Notes {
		switch n.Kind {
		case decision.Heuristic:
			open[n.Branch] = true
		case decision.Resolved:
			delete(open, n.Branch)
		}
	}
	if r.Branch != "" && !open[r.Branch] {
		return fmt.Errorf("resolve: branch %q of transaction %s has no unresolved heuristic outcome", r.Branch, r.ID)
	}
	if len(open) == 0 {
		return fmt.Errorf("resolve: the heuristic outcome of transaction %s is being recorded; try again", r.ID)
	}
	txid := commit.TransactionID(r.ID)
	m.mu.Lock()
	t := m.active[txid]
	m.mu.Unlock()
	for branch := range open {
		if r.Branch != "" && branch != r.Branch {
			continue
		}
		annotate := func(n decision.Note) error { return m.cfg.Log.Annotate(ctx, txid, n) }
		if t != nil {
			annotate = t.annotate // which knows of it then, too
		}
		if err := annotate(r.note(decision.Resolved, branch)); err != nil {
			return err
		}
	}
	if t != nil {
		return nil
	}
	// A crash may have come between the note of the outcome and that of the end.
	e, err := m.cfg.Log.Lookup(ctx, txid)
	if err == nil && e.Status() == decision.Unfinished {
		m.resume(e)
	}
	return err
}

func (m *Manager) resolveInDoubt(ctx context.Context, r Resolution) error {
	if r.Branch != "" || r.Outcome == commit.Committed {
		return fmt.Errorf("resolve: nothing is decided about transaction %s; it can only be aborted as a whole", r.ID)
	}
	stands, err := m.cfg.Log.Decide(ctx, decision.Entry{ID: commit.TransactionID(r.ID), Decision: commit.Abort,
		By: "operator " + r.By, Reason: r.Reason, Time: time.Now()})
	if err != nil {
		return err
	}
	m.mu.Lock()
	t := m.active[stands.ID]
	m.mu.Unlock()
	if t != nil {
		t.loop.Deliver(t.decided(stands))
	}
	if stands.Decision == commit.Commit {
		return fmt.Errorf("resolve: commit stands for transaction %s, by %s; it cannot be reversed", r.ID, stands.By)
	}
	return nil
}

// unfinishedBranch returns the transaction whose decided, unfinished branch the resolution names.
func (m *Manager) unfinishedBranch(r Resolution) *transaction {
	m.mu.Lock()
	t := m.active[commit.TransactionID(r.ID)]
	m.mu.Unlock()
	if t == nil || r.Branch == "" {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.participants[protocol.NodeID(r.Branch)]
	if p == nil || p.isDone() || !t.hasConcluded {
		return nil
	}
	return t
}

// resolveUnfinished takes the operator's word for a branch's end.
func (m *Manager) resolveUnfinished(t *transaction, r Resolution) error {
	if r.Outcome == commit.Unfinished {
		return fmt.Errorf("resolve: say how branch %q of transaction %s ended: committed or rolled back", r.Branch, r.ID)
	}
	t.recording.Lock()
	defer t.recording.Unlock()
	entry, err := t.recorded()
	if err != nil {
		return err
	}
	// The outcome is an operator's word, not proof: that is a heuristic outcome, resolved.
	if !noted(entry, r.Branch) {
		if err := t.annotate(r.note(decision.Heuristic, r.Branch)); err != nil {
			return err
		}
	}
	if err := t.annotate(r.note(decision.Resolved, r.Branch)); err != nil {
		return err
	}
	t.mu.Lock()
	p := t.participants[protocol.NodeID(r.Branch)]
	t.mu.Unlock()
	p.loop.Stop()
	p.Send(coordinatorNode, commit.Acknowledge{ID: t.id, Outcome: r.Outcome})
	return nil
}
