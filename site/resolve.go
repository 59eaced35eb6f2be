package site

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"assent/protocol"
	"assent/protocol/commit"
)

// Resolution is what an operator says of a transaction that cannot end by itself, because a node is gone for good.
type Resolution struct {
	ID commit.TransactionID
	// Site is the node whose part ended so: one that has not reported to this node (Status.Awaits), or this node itself,
	// where it is in doubt and nobody is left who could decide (Status.Missing).
	Site protocol.NodeID
	// Outcome is how its branches ended, or are to end: Committed or RolledBack.
	Outcome commit.Outcome
	// By and Reason are required: UTF-8, of at most 256 and 1024 bytes.
	By, Reason string
}

// Note is a Resolution on record.
type Note struct {
	Site    protocol.NodeID `json:"site"`
	Outcome commit.Outcome  `json:"outcome"`
	By      string          `json:"by"`
	Reason  string          `json:"reason"`
	// Time is when it was said, in milliseconds since 1970.
	Time int64 `json:"time"`
}

const (
	maxBy     = 256
	maxReason = 1024
	// noteKey begins the keys of notes among a machine's records; the site follows.
	noteKey = "note/"
)

// Errors of Resolve.
var (
	// ErrUnknown says that this node knows nothing of the transaction.
	ErrUnknown = errors.New("the transaction is not known here")
	// ErrNothingToResolve says that the transaction does not wait here for what was to be resolved, or may still end by itself.
	ErrNothingToResolve = errors.New("there is nothing to resolve")
)

func (r Resolution) validate() error {
	switch {
	case r.By == "" || r.Reason == "":
		return errors.New("site: resolve: say who resolves it and why; both are kept")
	case len(r.By) > maxBy || len(r.Reason) > maxReason:
		return fmt.Errorf("site: resolve: who may have %d bytes, and why %d", maxBy, maxReason)
	case !utf8.ValidString(r.By) || !utf8.ValidString(r.Reason):
		return errors.New("site: resolve: who and why must be UTF-8")
	case r.Site == "":
		return errors.New("site: resolve: name the node whose part ended so")
	case r.Outcome != commit.Committed && r.Outcome != commit.RolledBack:
		return errors.New("site: resolve: say how it ended: committed or rolled back")
	}
	return nil
}

// Resolve takes an operator's word for what nobody will say any more, and puts it on record, with who said it and why,
// for Config.KeepResolved:
//
//   - A site that has not reported is taken to have ended so. It is not told again; when no other is awaited, the
//     transaction is over. If the site comes back in doubt, it is answered with the decision.
//   - This node itself, in doubt about what cannot be decided without nodes that are gone, or coordinating it, does as
//     the operator says. That is a decision of a person, who must know what others did, or will do.
//
// It returns ErrUnknown or ErrNothingToResolve, and nothing has changed, where neither is so.
func (h *Host) Resolve(r Resolution) error {
	if err := r.validate(); err != nil {
		return err
	}
	h.mu.Lock()
	var known []*machine
	for k, m := range h.machines {
		if k.id == r.ID {
			known = append(known, m)
		}
	}
	h.mu.Unlock()
	if len(known) == 0 {
		return fmt.Errorf("site: resolve: %q: %w", r.ID, ErrUnknown)
	}
	view := h.view()
	var waits []string
	resolved := false
	for _, m := range known {
		s := m.status()
		stuck := s.InDoubt || m.isHead() && s.Decision == commit.Undecided && !s.Done
		switch {
		case slices.Contains(s.Awaits, r.Site) || r.Site == h.cfg.Self && stuck && s.Transaction.missing(view) != "":
			if err := m.resolve(r); err != nil {
				return err
			}
			resolved = true
		case stuck:
			waits = append(waits, "this node is in doubt, and may still learn the decision")
		case len(s.Awaits) > 0:
			waits = append(waits, fmt.Sprintf("it waits for %v", s.Awaits))
		}
	}
	if resolved {
		return nil
	}
	why := fmt.Sprintf("node %s does not wait for node %s; ask the node that coordinates it, or one that lists it", h.cfg.Self, r.Site)
	if len(waits) > 0 {
		why = strings.Join(waits, ", and ")
	}
	return fmt.Errorf("site: resolve: %q: %w: %s", r.ID, ErrNothingToResolve, why)
}

// resolve puts the operator's word on record, and then acts on it.
func (m *machine) resolve(r Resolution) error {
	n := Note{Site: r.Site, Outcome: r.Outcome, By: r.By, Reason: r.Reason, Time: time.Now().UnixMilli()}
	if err := m.Force([]protocol.Write{{Key: noteKey + string(n.Site), Record: n}}); err != nil {
		return err
	}
	m.mu.Lock()
	m.notes = append(m.notes, n)
	m.mu.Unlock()
	m.h.cfg.Logger.Warn("resolved by an operator", "transaction", r.ID, "site", r.Site, "outcome", r.Outcome, "by", r.By, "reason", r.Reason)
	m.act(n)
	return nil
}

// act gives the machine what the site would have said, or, where it is this one that is in doubt, what it would have been told.
func (m *machine) act(n Note) {
	t := m.t()
	m.mu.Lock()
	awaited := slices.Contains(m.awaited, n.Site)
	m.mu.Unlock()
	if n.Site != m.h.cfg.Self || awaited {
		m.loop.Deliver(protocol.Receive{From: n.Site, Message: commit.Acknowledge{ID: t.ID, Outcome: n.Outcome}})
		return
	}
	d := commit.Abort
	if n.Outcome == commit.Committed {
		d = commit.Commit
	}
	m.loop.Deliver(protocol.Receive{From: t.headOf(), Message: commit.Finish{ID: t.ID, Decision: d}})
}

// remind takes up the notes that are on record.
func (m *machine) remind() {
	for key, record := range m.recover {
		if n, ok := record.(Note); ok && strings.HasPrefix(key, noteKey) {
			m.notes = append(m.notes, n)
		}
	}
	slices.SortFunc(m.notes, func(a, b Note) int { return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Site, b.Site)) })
}

// isResolved reports whether an operator has said how the transaction ends here, and no other site is awaited. The caller
// holds m.mu.
func (m *machine) isResolved() bool {
	return len(m.awaited) == 0 && slices.ContainsFunc(m.notes, func(n Note) bool { return n.Site == m.h.cfg.Self })
}

// keepsNotes reports whether what an operator has said is to be remembered at the time. The caller holds m.mu.
func (m *machine) keepsNotes(t time.Time) bool {
	return slices.ContainsFunc(m.notes, func(n Note) bool { return !time.UnixMilli(n.Time).Before(t.Add(-m.h.cfg.KeepResolved)) })
}
