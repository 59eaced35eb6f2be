package assent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"assent/decision"
	"assent/engine"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/resource"
)

// recoveryConcurrency bounds how many branches of one resource are recovered at a time.
const recoveryConcurrency = 16

// scan is the recovery of one resource.
type scan struct {
	name     string
	resource resource.Resource
	slots    chan struct{}

	mu     sync.Mutex
	status ScanStatus
	known  bool // the last scan failed, and the log says so
}

// ScanStatus is what the last scan of a resource for orphans found.
type ScanStatus struct {
	Resource string `json:"resource"`
	// Time is when the last scan ended; zero before the first.
	Time time.Time `json:"time"`
	// Err is why the last scan failed; empty where it did not.
	Err string `json:"error,omitempty"`
	// Prepared are the branches of this log's owner that it listed, live ones included.
	Prepared int `json:"prepared"`
	// Settled counts the orphans that scans have given to recovery since Open.
	Settled int `json:"settled"`
	// Foreign are the names of prepared branches that are not this owner's. They are never
	// touched. At most 100 are kept.
	Foreign []string `json:"foreign,omitempty"`
}

const maxForeign = 100

// Scans returns the state of recovery of each resource, by name.
func (m *Manager) Scans() map[string]ScanStatus {
	all := make(map[string]ScanStatus, len(m.scans))
	for name, s := range m.scans {
		s.mu.Lock()
		status := s.status
		s.mu.Unlock()
		status.Resource = name
		all[name] = status
	}
	return all
}

// Scan scans every resource for orphans now, once, and gives them to recovery. It does not wait
// for them to be finished; Quiesce does. It returns the errors of the scans that failed.
func (m *Manager) Scan(ctx context.Context) error {
	errs := make(chan error, len(m.scans))
	for _, s := range m.scans {
		go func() { errs <- m.scanOnce(ctx, s) }()
	}
	var first error
	for range m.scans {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// scanForEver scans s at once and then again and again until the manager's life ends.
func (m *Manager) scanForEver(s *scan) {
	examined := false
	for failures := 0; ; {
		ctx, cancel := context.WithTimeout(m.life, m.cfg.FinishTimeout)
		err := m.scanOnce(ctx, s)
		if err == nil && !examined {
			examined = true
			m.examine(ctx, s)
		}
		cancel()
		wait := m.cfg.ScanInterval
		if err != nil {
			wait = min(wait, m.cfg.Retry*time.Duration(1<<min(failures, 11)))
			failures++
		} else {
			failures = 0
		}
		// Some chance keeps managers from scanning in step.
		if !m.pause(wait + rand.N(wait/8+1)) {
			return
		}
	}
}

// examine has the resource examine itself, once, and logs what is not well: better now than at the
// first transaction.
func (m *Manager) examine(ctx context.Context, s *scan) {
	doctor, ok := s.resource.(resource.Doctor)
	if !ok {
		return
	}
	findings, err := doctor.Doctor(ctx)
	if err != nil {
		m.cfg.Logger.Warn("resource cannot be examined", "resource", s.name, "error", err)
	}
	for _, f := range findings {
		if f.Severity != resource.OK {
			m.cfg.Logger.Warn("doctor: "+f.Check, "resource", s.name, "severity", f.Severity, "detail", f.Detail, "hint", f.Hint)
		}
	}
}

// scanOnce finds orphans without a race against their owners: it lists what is prepared, looks
// which transactions live, and lists again. A branch that is in both lists, and of no living
// transaction in between, is an orphan. (The order is that of Citus.) Were it wrong all the
// same, no harm is done: the register decides, and an owner that comes late is told so.
func (m *Manager) scanOnce(ctx context.Context, s *scan) error {
	orphans, status, err := m.orphans(ctx, s)
	s.mu.Lock()
	status.Settled = s.status.Settled
	if err != nil {
		status = s.status
		status.Err = bounded(err.Error())
	}
	status.Time = time.Now()
	s.status = status
	announce := (err != nil) != s.known
	s.known = err != nil
	s.mu.Unlock()
	if announce && m.life.Err() == nil {
		if err != nil {
			m.cfg.Logger.Warn("resource cannot be scanned; its branches in doubt wait", "resource", s.name, "error", err)
		} else {
			m.cfg.Logger.Info("resource is scanned again", "resource", s.name)
		}
	}
	for _, p := range orphans {
		m.adopt(s, p)
	}
	return err
}

func (m *Manager) orphans(ctx context.Context, s *scan) ([]resource.Prepared, ScanStatus, error) {
	first, status, err := m.prepared(ctx, s)
	if err != nil || len(first) == 0 {
		return nil, status, err
	}
	candidates := map[resource.ID]bool{}
	m.mu.Lock()
	for _, p := range first {
		t := m.active[commit.TransactionID(p.ID.Transaction)]
		if t == nil || t.recovered {
			candidates[p.ID] = true
		}
	}
	m.mu.Unlock()
	if len(candidates) == 0 {
		return nil, status, nil
	}
	second, status, err := m.prepared(ctx, s)
	if err != nil {
		return nil, status, err
	}
	var orphans []resource.Prepared
	for _, p := range second {
		if candidates[p.ID] && !m.spares(p) {
			orphans = append(orphans, p)
		}
	}
	return orphans, status, nil
}

// spares reports whether the branch is left to the manager that began its transaction, for now.
func (m *Manager) spares(p resource.Prepared) bool {
	id := commit.TransactionID(p.ID.Transaction)
	if m.mine(id) || p.Age >= m.cfg.OrphanGrace {
		return false
	}
	return m.cfg.Alive == nil || m.cfg.Alive(id)
}

// prepared lists s's branches of this log's owner.
func (m *Manager) prepared(ctx context.Context, s *scan) ([]resource.Prepared, ScanStatus, error) {
	var status ScanStatus
	all, err := s.resource.Recover(ctx)
	if err != nil {
		return nil, status, fmt.Errorf("scan %s: %w", s.name, err)
	}
	var own []resource.Prepared
	for _, p := range all {
		switch {
		case p.Foreign == "" && p.ID.Owner == m.cfg.Log.Owner() && m.keeps(s, p.ID.Branch):
			own = append(own, p)
		case len(status.Foreign) < maxForeign:
			name := p.Foreign
			if name == "" {
				name = p.ID.String()
			}
			status.Foreign = append(status.Foreign, name)
		}
	}
	status.Prepared = len(own)
	return own, status, nil
}

// keeps reports whether the branches of that name are s's to settle: its own, and those of a name
// that is not configured any more. (The same database may be configured under two names.)
func (m *Manager) keeps(s *scan, name string) bool {
	return name == s.name || m.scans[name] == nil
}

// adopt gives an orphan of s to recovery: its participant asks a coordinator made anew, which
// proposes abort and abides by what stands.
func (m *Manager) adopt(s *scan, orphan resource.Prepared) {
	id := commit.TransactionID(orphan.ID.Transaction)
	t := m.recovering(id)
	if t == nil {
		return // it came alive, or is being retired: the next scan looks again
	}
	p, fresh := t.participant(protocol.NodeID(orphan.ID.Branch), orphan.Evidence)
	if p == nil {
		return
	}
	p.found(s.resource)
	if fresh {
		s.count()
		m.cfg.Logger.Info("settling an orphan", "transaction", id, "resource", orphan.ID.Branch, "age", orphan.Age)
		p.resume()
	}
}

// count counts an orphan that is given to recovery.
func (s *scan) count() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Settled++
}

// elsewhere reports whether the resource is another manager's.
func (m *Manager) elsewhere(name string) bool {
	return m.cfg.Elsewhere != nil && m.scans[name] == nil && m.cfg.Elsewhere(name)
}

// leastLogScan is the least pause between two scans of the log, which finds what no branch shows any more.
const leastLogScan = 2 * time.Second

// scanLogForEver scans the log again and again until the manager's life ends.
func (m *Manager) scanLogForEver() {
	for m.pause(max(leastLogScan, m.cfg.ScanInterval) + rand.N(leastLogScan)) {
		ctx, cancel := context.WithTimeout(m.life, m.cfg.FinishTimeout)
		if err := m.scanLog(ctx); err != nil && m.life.Err() == nil {
			m.cfg.Logger.Debug("the decision log cannot be scanned", "error", err)
		}
		cancel()
	}
}

// scanLog finishes what managers that have died since have decided and not finished. Their branches are
// found by the scans of the resources; this finds those transactions whose branches are all finished, and
// nobody has said so.
func (m *Manager) scanLog(ctx context.Context) error {
	entries, err := m.unfinished(ctx)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if m.mine(e.ID) {
			continue
		}
		now, err := m.cfg.Log.Lookup(ctx, e.ID) // it may have been finished meanwhile
		switch {
		case errors.Is(err, decision.ErrNotFound):
		case err != nil:
			return err
		case !hasFinished(now):
			m.resume(now)
		}
	}
	return nil
}

// leaves reports whether the entry is another manager's to finish: it lives, or keeps one of the branches.
func (m *Manager) leaves(e decision.Entry) bool {
	if m.cfg.Alive != nil && m.cfg.Alive(e.ID) {
		return true
	}
	if m.cfg.Alive == nil && time.Since(e.Time) < m.cfg.OrphanGrace {
		return true // whoever decided it is likely to be about to finish it
	}
	return slices.ContainsFunc(e.Branches, func(b decision.Branch) bool { return m.elsewhere(b.Resource) })
}

// resume drives an entry of the log to its end.
func (m *Manager) resume(e decision.Entry) {
	if t := m.recovering(e.ID); t != nil {
		m.cfg.Logger.Info("finishing a transaction of an earlier run", "transaction", e.ID, "decision", e.Decision)
		t.loop.Deliver(t.decided(e))
	}
}

// recovering returns the recovery of the transaction id, begun if there is none; nil where the
// transaction is live or its end is being recorded.
func (m *Manager) recovering(id commit.TransactionID) *transaction {
	fresh := newTransaction(m, id, time.Time{})
	fresh.recovered = true
	fresh.loop = engine.New(engine.Config{
		Scope: string(id), Node: coordinatorNode,
		Machine: commit.NewCoordinator(id, nil, m.cfg.options()),
		Hands:   fresh, Clock: m.cfg.Clock, Observer: m.cfg.Observer,
	})
	fresh.loop.Deliver(protocol.Recover{})

	m.mu.Lock()
	t := m.active[id]
	if t == nil && !m.closed {
		t = fresh
		m.active[id] = t
	}
	m.mu.Unlock()
	if t == nil || !t.recovered {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.retiring || t.stopped {
		return nil
	}
	return t
}
