package assent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"assent/decision"
	"assent/protocol"
	"assent/protocol/commit"
)

// retireIfDone records the end, in the background, once the coordinator and all participants
// have nothing left to do. Nobody waits for that record, which only spares recovery work, unless
// a heuristic outcome is in it.
func (t *transaction) retireIfDone() {
	t.mu.Lock()
	done := t.completed && !t.retiring && !t.stopped
	for _, p := range t.participants {
		done = done && p.isDone()
	}
	if done {
		t.retiring = true
		t.contradictions = append(t.contradictions, t.unforeseen()...)
	}
	heuristic := len(t.contradictions) > 0
	plain := !heuristic && t.entry != nil && !hasFinished(*t.entry)
	needsRecord := t.entry != nil || heuristic || t.asked || closed(t.unsure)
	t.mu.Unlock()
	if !done {
		return
	}
	if !needsRecord {
		t.m.retire(t)
	}
	if !heuristic {
		close(t.finished)
	}
	if needsRecord && !(plain && t.m.recorder.take(t)) {
		t.m.spawn(func() { t.record(heuristic) })
	}
}

// recorder notes the ends of transactions, many at once.
type recorder struct {
	log decision.Batcher // nil where each must be noted alone

	mu      sync.Mutex
	busy    bool // a worker is at it
	waiting []*transaction
}

// take leaves to the recorder to note that t is finished. It reports false where t must do that itself.
func (r *recorder) take(t *transaction) bool {
	if r.log == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = append(r.waiting, t)
	if !r.busy {
		r.busy = t.m.spawn(func() { r.work(t.m) })
	}
	return true
}

// work notes what waits until nothing does. Where that fails each tries for itself.
func (r *recorder) work(m *Manager) {
	for {
		r.mu.Lock()
		finished := r.waiting
		if r.waiting = nil; len(finished) == 0 {
			r.busy = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		ids := make([]commit.TransactionID, len(finished))
		for i, t := range finished {
			ids[i] = t.id
		}
		err := r.log.AnnotateAll(m.life, ids, decision.Note{Kind: decision.Finished, Time: time.Now()})
		for _, t := range finished {
			if err == nil {
				m.retire(t)
			} else {
				m.spawn(func() { t.record(false) })
			}
		}
	}
}

// leave notes that the branch is another manager's to finish. When nothing but such branches is left, the
// transaction is that manager's: nothing is recorded, and it is let go of here.
func (t *transaction) leave(p *participant) {
	p.mu.Lock()
	p.left, p.state = true, "left to the node that keeps the resource"
	p.mu.Unlock()
	t.mu.Lock()
	done := t.recovered && t.entry != nil && !t.retiring && !t.stopped
	if done {
		for _, b := range t.entry.Branches {
			known := t.participants[protocol.NodeID(b.Resource)]
			done = done && known != nil && known.settled()
		}
	}
	for _, other := range t.participants {
		done = done && other.settled()
	}
	if done {
		t.retiring = true
	}
	t.mu.Unlock()
	if done {
		t.stop()
		t.m.retire(t)
	}
}

// unforeseen returns the heuristic outcomes of participants that voted no. To the coordinator a no
// is a branch that is undone, but an error of the branch is taken for a no as well, and a branch
// whose answer was lost may have been prepared, and then committed by somebody else, before it
// could be rolled back. The caller holds t.mu.
func (t *transaction) unforeseen() (found []Contradiction) {
	for node, p := range t.participants {
		outcome := p.info().Outcome
		known := slices.ContainsFunc(t.contradictions, func(c Contradiction) bool { return c.Resource == string(node) })
		if !known && t.conclusion.Decision.Heuristic(outcome) {
			found = append(found, Contradiction{Resource: string(node), Outcome: outcome})
		}
	}
	return found
}

// record writes down the heuristic outcomes, forced, and then that the transaction is finished.
func (t *transaction) record(awaited bool) {
	if !t.persist(t.recordEnd) {
		return
	}
	t.m.retire(t)
	if awaited {
		close(t.finished)
	}
}

// persist does what writes to the log until it has succeeded, with growing pauses. It reports false
// when the manager's life ends first.
func (t *transaction) persist(write func() error) bool {
	for pause := t.m.cfg.Retry; ; pause = min(2*pause, t.m.cfg.RetryMost) {
		err := write()
		if err == nil || errors.Is(err, decision.ErrNotFound) { // somebody else has forgotten it
			return true
		}
		if t.m.life.Err() == nil {
			t.m.cfg.Logger.Error("cannot record what became of a transaction; trying again", "transaction", t.id, "error", err)
		}
		if !t.m.pause(pause) {
			return false
		}
	}
}

func (t *transaction) recordEnd() error {
	if err := t.recordHeuristics(); err != nil {
		return err
	}
	entry, err := t.recorded()
	if err != nil || hasFinished(entry) {
		return err
	}
	return t.annotate(decision.Note{Kind: decision.Finished})
}

// recordHeuristics notes, forced, every heuristic outcome that is not noted yet.
func (t *transaction) recordHeuristics() error {
	t.recording.Lock()
	defer t.recording.Unlock()
	t.mu.Lock()
	contradictions, c := slices.Clone(t.contradictions), t.conclusion
	t.mu.Unlock()
	if len(contradictions) == 0 {
		return nil
	}
	entry, err := t.recorded()
	if err != nil {
		return err
	}
	for _, x := range contradictions {
		if noted(entry, x.Resource) {
			continue
		}
		reason := fmt.Sprintf("decision %s; the branch is found %s", c.Decision, x.Outcome)
		err := t.annotate(decision.Note{Kind: decision.Heuristic, Branch: x.Resource,
			Outcome: x.Outcome, By: "coordinator", Reason: reason, Forced: true})
		if err != nil {
			return err
		}
		t.m.cfg.Logger.Error("heuristic outcome", "transaction", t.id, "resource", x.Resource,
			"decision", c.Decision, "outcome", x.Outcome, "hint", "assent resolve "+string(t.id))
	}
	return nil
}

// recorded returns the transaction's entry in the log, made now for an abort or a one-phase
// commit, of which nothing is on record yet.
func (t *transaction) recorded() (decision.Entry, error) {
	t.mu.Lock()
	entry, c := t.entry, t.conclusion
	t.mu.Unlock()
	if entry != nil {
		return *entry, nil
	}
	e := decision.Entry{ID: t.id, Decision: c.Decision, By: "coordinator", Reason: bounded(c.Reason), Time: time.Now()}
	e.Branches = t.disputed()
	if c.Decision == commit.Undecided {
		e.Decision, e.Reason = commit.Commit, "one-phase commit whose only branch did not say how it ended"
	}
	stands, err := t.m.cfg.Log.Decide(t.m.life, e)
	if err != nil {
		return stands, err
	}
	t.mu.Lock()
	t.entry = &stands
	t.mu.Unlock()
	return stands, nil
}

// disputed returns the branches of a transaction with a heuristic outcome. Otherwise what is recorded
// late has nothing left to finish, and names none that a restart would try to finish again.
func (t *transaction) disputed() (branches []decision.Branch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.contradictions) == 0 {
		return nil
	}
	for node, p := range t.participants {
		branches = append(branches, decision.Branch{Resource: string(node), Evidence: p.proof()})
	}
	slices.SortFunc(branches, func(a, b decision.Branch) int { return strings.Compare(a.Resource, b.Resource) })
	return branches
}

// annotate adds a note to the transaction's entry, in the log and here.
func (t *transaction) annotate(note decision.Note) error {
	note.Time = time.Now()
	if err := t.m.cfg.Log.Annotate(t.m.life, t.id, note); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entry == nil { // a recovery that has just begun: the register tells it all
		return nil
	}
	entry := *t.entry
	entry.Notes = append(entry.Notes[:len(entry.Notes):len(entry.Notes)], note)
	t.entry = &entry
	return nil
}

// noted reports whether e holds a heuristic note on the branch already, resolved or not: what a
// person has dealt with is not raised again.
func noted(e decision.Entry, branch string) bool {
	for _, n := range e.Notes {
		if n.Kind == decision.Heuristic && n.Branch == branch {
			return true
		}
	}
	return false
}

// closed reports whether c is closed.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
