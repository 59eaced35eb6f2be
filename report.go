package assent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"assent/decision"
	"assent/protocol/commit"
	"assent/resource"
)

// State is where a transaction stands, for people.
type State string

// The states.
const (
	// StateOpen: it takes work.
	StateOpen State = "open"
	// StatePreparing: the branches are asked for their votes.
	StatePreparing State = "preparing"
	// StateInDoubt: branches are prepared and the log has not said what stands.
	StateInDoubt State = "in doubt"
	// StateCommitting: commit is decided; not all branches have reported.
	StateCommitting State = "committing"
	// StateAborting: abort is decided; not all branches have reported.
	StateAborting State = "aborting"
	// StateCommitted: all is committed.
	StateCommitted State = "committed"
	// StateAborted: nothing is left.
	StateAborted State = "aborted"
	// StateHeuristic: a branch's outcome contradicts the decision, or is not known, and nobody
	// has resolved it.
	StateHeuristic State = "heuristic"
)

// Unfinished reports whether something is still to be done, by Assent or by a person.
func (s State) Unfinished() bool {
	return s != StateOpen && s != StateCommitted && s != StateAborted
}

// Info is what is known of a transaction.
type Info struct {
	ID    string `json:"id"`
	State State  `json:"state"`
	// Began is when the transaction began, where this manager began it.
	Began    time.Time       `json:"began,omitzero"`
	Decision commit.Decision `json:"decision"`
	// By and Reason say who proposed the decision, and why.
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Decided is when the decision was proposed.
	Decided time.Time `json:"decided,omitzero"`
	// Recovered says that this manager found the transaction unfinished and drives it to its end.
	Recovered bool            `json:"recovered,omitempty"`
	Branches  []BranchInfo    `json:"branches,omitempty"`
	Notes     []decision.Note `json:"notes,omitempty"`
}

// BranchInfo is what is known of one branch.
type BranchInfo struct {
	Resource string         `json:"resource"`
	State    string         `json:"state"`
	Outcome  commit.Outcome `json:"outcome"`
	// Err is the last error met with the branch.
	Err string `json:"error,omitempty"`
}

// Filter selects transactions.
type Filter struct {
	// Unfinished leaves out those that are open and those that are done.
	Unfinished bool
	// Limit bounds the number of results. Defaults to 1,000.
	Limit int
}

// Transaction returns what is known of the transaction id, from this manager's memory or its
// log. ErrUnknown says that nothing is: that is no outcome.
func (m *Manager) Transaction(ctx context.Context, id string) (Info, error) {
	txid := commit.TransactionID(id)
	m.mu.Lock()
	t, tx := m.active[txid], m.open[txid]
	m.mu.Unlock()
	switch {
	case t != nil:
		return t.info(), nil
	case tx != nil:
		return tx.info(), nil
	}
	e, err := m.cfg.Log.Lookup(ctx, txid)
	if errors.Is(err, decision.ErrNotFound) {
		return Info{}, fmt.Errorf("%w: %s", ErrUnknown, id)
	}
	if err != nil {
		return Info{}, err
	}
	return EntryInfo(e), nil
}

// Transactions returns the transactions that the filter selects: those in memory, then those of
// the log, unfinished and heuristic ones first.
func (m *Manager) Transactions(ctx context.Context, f Filter) ([]Info, error) {
	if f.Limit <= 0 {
		f.Limit = 1000
	}
	var all []Info
	seen := map[string]bool{}
	add := func(i Info) bool {
		known := seen[i.ID]
		seen[i.ID] = true // in memory it may have come further than in the log
		if known || f.Unfinished && !i.State.Unfinished() {
			return true
		}
		all = append(all, i)
		return len(all) < f.Limit
	}
	for _, i := range m.inMemory() {
		if !add(i) {
			return all, nil
		}
	}
	statuses := []decision.Status{decision.Damaged, decision.Unfinished, decision.Done}
	if f.Unfinished {
		statuses = statuses[:2]
	}
	for _, status := range statuses {
		for e, err := range m.cfg.Log.List(ctx, status) {
			if err != nil {
				return all, err
			}
			if !add(EntryInfo(e)) {
				return all, nil
			}
		}
	}
	return all, nil
}

// inMemory returns the transactions that are active or open, by id.
func (m *Manager) inMemory() []Info {
	// Under one lock: what goes from open to active in between would be in neither.
	m.mu.Lock()
	active := slices.Collect(maps.Values(m.active))
	open := slices.Collect(maps.Values(m.open))
	m.mu.Unlock()
	infos := make([]Info, 0, len(active)+len(open))
	for _, t := range active {
		infos = append(infos, t.info())
	}
	for _, tx := range open {
		infos = append(infos, tx.info())
	}
	slices.SortFunc(infos, func(a, b Info) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return infos
}

func (tx *Tx) info() Info {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	i := Info{ID: string(tx.id), State: StateOpen, Began: tx.began}
	switch {
	case tx.ended && tx.why != nil:
		i.State, i.Decision, i.By, i.Reason = StateAborting, commit.Abort, tx.why.By, tx.why.Reason
	case tx.ended:
		i.State = StatePreparing
	}
	for _, name := range tx.order {
		i.Branches = append(i.Branches, BranchInfo{Resource: name, State: "working"})
	}
	return i
}

func (t *transaction) info() Info {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := Info{ID: string(t.id), Began: t.began, Recovered: t.recovered, State: StatePreparing}
	if t.entry != nil {
		fill(&i, *t.entry)
	}
	prepared := len(t.participants) > 0
	for _, p := range t.participants {
		b := p.info()
		prepared = prepared && b.State == "prepared"
		i.Branches = append(i.Branches, b)
	}
	slices.SortFunc(i.Branches, func(a, b BranchInfo) int {
		if a.Resource < b.Resource {
			return -1
		}
		return 1
	})
	if t.hasConcluded {
		i.Decision = t.conclusion.Decision
		if i.Reason == "" {
			i.Reason = t.conclusion.Reason
		}
	}
	switch {
	case t.unresolved():
		i.State = StateHeuristic
	case t.retiring && i.Decision == commit.Commit:
		i.State = StateCommitted
	case t.retiring && i.Decision == commit.Abort:
		i.State = StateAborted
	case i.Decision == commit.Commit:
		i.State = StateCommitting
	case i.Decision == commit.Abort:
		i.State = StateAborting
	case prepared || t.recovered:
		i.State = StateInDoubt
	}
	return i
}

// unresolved reports whether there is a heuristic outcome that nobody has resolved, recorded or
// not. The caller holds t.mu.
func (t *transaction) unresolved() bool {
	if t.entry != nil && t.entry.Status() == decision.Damaged {
		return true
	}
	return slices.ContainsFunc(t.contradictions, func(c Contradiction) bool {
		return t.entry == nil || !noted(*t.entry, c.Resource)
	})
}

func (p *participant) info() BranchInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := BranchInfo{Resource: string(p.node), State: p.state, Outcome: p.outcome}
	if p.err != nil {
		b.Err = p.err.Error()
	}
	return b
}

// EntryInfo tells of a transaction of which only a decision log knows, for those who read one that no
// manager has open. Of a branch nothing is known but what is noted, until the transaction is finished.
func EntryInfo(e decision.Entry) Info {
	i := Info{ID: string(e.ID)}
	fill(&i, e)
	outcomes := map[string]commit.Outcome{}
	for _, n := range e.Notes {
		if n.Kind == decision.Heuristic || n.Kind == decision.Resolved && n.Outcome != commit.Unfinished {
			outcomes[n.Branch] = n.Outcome
		}
	}
	done, agreed := StateCommitted, commit.Committed
	doing := StateCommitting
	if e.Decision == commit.Abort {
		done, doing, agreed = StateAborted, StateAborting, commit.RolledBack
	}
	switch e.Status() {
	case decision.Damaged:
		i.State = StateHeuristic
	case decision.Done:
		i.State = done
	default:
		i.State = doing
	}
	if !hasFinished(e) {
		agreed = commit.Unfinished
	}
	for _, b := range e.Branches {
		info := BranchInfo{Resource: b.Resource, State: "finished", Outcome: agreed}
		if o, ok := outcomes[b.Resource]; ok {
			info.Outcome = o
		} else if agreed == commit.Unfinished {
			info.State = "unknown"
		}
		i.Branches = append(i.Branches, info)
	}
	return i
}

func fill(i *Info, e decision.Entry) {
	i.Decision, i.By, i.Reason, i.Decided, i.Notes = e.Decision, e.By, e.Reason, e.Time, e.Notes
}

// Diagnosis is what the examination of one resource gave.
type Diagnosis struct {
	Resource string             `json:"resource"`
	Findings []resource.Finding `json:"findings"`
	// Err is why the resource could not be examined; empty where it was.
	Err string `json:"error,omitempty"`
}

// Doctor examines all resources that can be examined, and returns a diagnosis of each, by name.
// ctx bounds the examination.
func (m *Manager) Doctor(ctx context.Context) []Diagnosis {
	results := make(chan Diagnosis, len(m.cfg.Resources))
	for name, r := range m.cfg.Resources {
		go func() {
			d := Diagnosis{Resource: name}
			if doctor, ok := r.(resource.Doctor); ok {
				findings, err := doctor.Doctor(ctx)
				d.Findings = findings
				if err != nil {
					d.Err = err.Error()
				}
			}
			results <- d
		}()
	}
	all := make([]Diagnosis, 0, len(m.cfg.Resources))
	for range m.cfg.Resources {
		all = append(all, <-results)
	}
	slices.SortFunc(all, func(a, b Diagnosis) int {
		if a.Resource < b.Resource {
			return -1
		}
		return 1
	})
	return all
}
