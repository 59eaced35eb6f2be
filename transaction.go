package assent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"assent/decision"
	"assent/engine"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/resource"
)

// coordinatorNode is the coordinator's id within a transaction; participants go by their
// resource's name, which cannot hold a ':'.
const coordinatorNode = protocol.NodeID("coordinator:")

// transaction drives the machines of one transaction that is being committed, rolled back or
// recovered. It is the coordinator's hands.
type transaction struct {
	m         *Manager
	id        commit.TransactionID
	began     time.Time
	recovered bool
	loop      *engine.Loop
	concluded chan struct{} // closed when conclusion is set
	unsure    chan struct{} // closed when a one-phase commit has not said how it ended; nil where there is none
	finished  chan struct{} // closed when all is finished and a heuristic outcome, if any, is stable
	errands   errands
	single    bool // it has one branch; set before it is driven

	mu             sync.Mutex
	participants   map[protocol.NodeID]*participant
	conclusion     commit.Concluded
	hasConcluded   bool
	concludedAt    time.Time
	completed      bool // the coordinator has heard of all it waits for
	retiring       bool
	stopped        bool
	proposed       bool            // the register may have been asked
	entry          *decision.Entry // what stands in the register, once asked
	contradictions []Contradiction
	proposeErr     error         // the register's last error
	cause          *AbortedError // why the application or the manager gave it up
	impatience     error         // the end of the context of whoever waits
	asked          bool          // somebody was told to ask later
	recording      sync.Mutex    // held while notes are added to the entry
}

func newTransaction(m *Manager, id commit.TransactionID, began time.Time) *transaction {
	return &transaction{
		m: m, id: id, began: began,
		concluded:    make(chan struct{}),
		finished:     make(chan struct{}),
		participants: map[protocol.NodeID]*participant{},
	}
}

// add gives the transaction a participant that has done its work in b.
func (t *transaction) add(name string, b resource.Branch) {
	p := newParticipant(t, name, t.m.cfg.Resources[name], nil)
	p.branch = b
	t.participants[p.node] = p
}

// assemble makes the coordinator among the participants there are.
func (t *transaction) assemble() {
	nodes := make([]protocol.NodeID, 0, len(t.participants))
	onePhase := true
	for node, p := range t.participants {
		nodes = append(nodes, node)
		if _, ok := p.branch.(resource.OnePhase); !ok {
			onePhase = false
		}
	}
	if t.single = len(nodes) == 1; t.single {
		t.unsure = make(chan struct{})
	}
	slices.Sort(nodes) // so that a run passes its points in the same order every time
	options := t.m.cfg.options()
	options.NoOnePhase = !onePhase
	t.loop = engine.New(engine.Config{
		Scope: string(t.id), Node: coordinatorNode,
		Machine: commit.NewCoordinator(t.id, nodes, options),
		Hands:   t, Clock: t.m.cfg.Clock, Observer: t.m.cfg.Observer,
	})
}

// start begins phase 1.
func (t *transaction) start() {
	t.m.spawn(func() { t.drive(protocol.Start{}) })
}

// cancel aborts a transaction that has not started.
func (t *transaction) cancel(reason string) {
	t.loop.Deliver(protocol.Input{Value: commit.Cancel{Reason: bounded(reason)}})
}

// stop drops everything, as a crash would.
func (t *transaction) stop() {
	t.mu.Lock()
	t.stopped = true
	loops := []*engine.Loop{t.loop}
	for _, p := range t.participants {
		loops = append(loops, p.loop)
	}
	t.mu.Unlock()
	for _, l := range loops {
		l.Stop()
	}
}

// unprepared returns the participants of a stopped transaction that have given no yes vote: without
// it nobody has proposed, or will propose, commit.
func (t *transaction) unprepared() (found []*participant) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.participants {
		if p.branch != nil && p.promisesNothing() && !p.inCall() {
			found = append(found, p)
		}
	}
	return found
}

// calls names the branches of a stopped transaction in which a call has not returned.
func (t *transaction) calls() (names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for node, p := range t.participants {
		if p.inCall() {
			names = append(names, fmt.Sprintf("transaction %s in %s", t.id, node))
		}
	}
	return names
}

// conclude tells whoever waits for a stopped transaction what became of it, where that is certain:
// the register has said so, or the only participant has, or nobody has been asked and nobody will
// be. The caller knows that no worker is left. Of what is recovered nothing is certain, and nobody
// waits for it.
func (t *transaction) conclude() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.hasConcluded || t.recovered {
		return
	}
	decided := commit.Undecided
	switch {
	case t.entry != nil:
		decided = t.entry.Decision
	case !t.proposed:
		decided = commit.Abort
		for _, p := range t.participants {
			if asked, outcome := p.alone(); asked {
				decided = decisionOf(outcome)
			}
		}
	}
	if decided == commit.Undecided {
		return
	}
	if decided == commit.Abort && t.entry == nil && t.cause == nil {
		t.cause = &AbortedError{ID: t.id, Cause: commit.Cancelled, By: "manager", Reason: "the manager was closed", Err: ErrClosed}
	}
	t.setConclusion(commit.Concluded{Decision: decided, Cause: commit.Settled})
}

// setConclusion tells whoever waits how it ended. The caller holds t.mu, and is the first.
func (t *transaction) setConclusion(c commit.Concluded) {
	t.conclusion, t.hasConcluded, t.concludedAt = c, true, time.Now()
	close(t.concluded)
}

// decisionOf returns the decision that the outcome of a transaction's only branch amounts to.
func decisionOf(outcome commit.Outcome) commit.Decision {
	switch outcome {
	case commit.Committed:
		return commit.Commit
	case commit.RolledBack:
		return commit.Abort
	}
	return commit.Undecided
}

// Force has nothing to do: the coordinator's only record is the decision, in the register.
func (t *transaction) Force([]protocol.Write) error { return nil }

// Send gives a message to the participant to. A participant that this process does not know yet
// is made from what the register tells of it.
func (t *transaction) Send(to protocol.NodeID, message protocol.Message) {
	p, fresh := t.participant(to, nil)
	if p == nil {
		return
	}
	if fresh {
		p.resume()
	}
	p.loop.Deliver(protocol.Receive{From: coordinatorNode, Message: message})
}

// participant returns the participant node, made anew from its evidence where there is none; nil
// where it would be one too late.
func (t *transaction) participant(node protocol.NodeID, evidence []byte) (p *participant, fresh bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p = t.participants[node]; p != nil {
		return p, false
	}
	if t.retiring || t.stopped {
		return nil, false
	}
	if t.entry != nil && evidence == nil {
		for _, b := range t.entry.Branches {
			if b.Resource == string(node) {
				evidence = b.Evidence
			}
		}
	}
	p = newParticipant(t, string(node), t.m.cfg.Resources[string(node)], evidence)
	t.participants[node] = p
	return p, true
}

// Emit takes what the coordinator says to those above and below it.
func (t *transaction) Emit(value protocol.Value) {
	switch v := value.(type) {
	case commit.Propose:
		t.mu.Lock()
		t.proposed = true
		t.mu.Unlock()
		if !t.errands.takeProposal(v) {
			t.m.spawn(func() { t.drive(t.propose(v)) })
		}
	case commit.Concluded:
		t.mu.Lock()
		if !t.hasConcluded { // else Close has said the same, while a caller was giving up
			t.setConclusion(v)
		}
		t.mu.Unlock()
	case commit.Contradicted:
		t.mu.Lock()
		t.contradictions = append(t.contradictions, Contradiction{Resource: string(v.Node), Outcome: v.Outcome})
		t.mu.Unlock()
		// Now, and not when the last branch has reported: that may take for ever.
		t.m.spawn(func() { t.persist(t.recordHeuristics) })
	case commit.Completed:
		t.mu.Lock()
		t.completed = true
		t.mu.Unlock()
		t.retireIfDone()
	}
}

// propose asks the register and returns what the coordinator must be told.
func (t *transaction) propose(p commit.Propose) protocol.Event {
	e := decision.Entry{ID: t.id, Decision: p.Decision, By: "coordinator", Time: time.Now()}
	if p.Decision == commit.Abort {
		e.By, e.Reason = "recovery", "a branch is prepared and no decision is recorded"
	}
	for _, member := range p.Members {
		e.Branches = append(e.Branches, decision.Branch{Resource: string(member.Node), Evidence: member.Evidence})
	}
	stands, err := t.m.cfg.Log.Decide(t.m.life, e)
	if err != nil {
		t.mu.Lock()
		first := t.proposeErr == nil
		t.proposeErr = err
		t.mu.Unlock()
		if first && t.m.life.Err() == nil {
			t.m.cfg.Logger.Error("the decision log does not decide; trying again", "transaction", t.id, "error", err)
		}
		return protocol.Input{Value: commit.ProposeFailed{}}
	}
	return t.decided(stands)
}

// decided takes what stands in the register and returns what the coordinator must be told.
func (t *transaction) decided(stands decision.Entry) protocol.Event {
	t.mu.Lock()
	t.proposeErr = nil
	if t.entry == nil { // else there may be notes in it that came later
		t.entry = &stands
	}
	t.mu.Unlock()
	v := commit.Decided{Decision: stands.Decision}
	for _, b := range stands.Branches {
		v.Members = append(v.Members, commit.Member{Node: protocol.NodeID(b.Resource), Evidence: b.Evidence})
	}
	return protocol.Input{Value: v}
}

// await waits for the outcome as Tx.Commit promises. Where nothing goes wrong it is woken once.
func (t *transaction) await(ctx context.Context, early bool) error {
	ended, unsure := t.finished, t.unsure
	if early {
		ended = t.concluded
	}
	wait := time.NewTimer(t.m.cfg.FinishWait)
	defer wait.Stop()
	for {
		select {
		case <-ended:
			if !early || t.committed() {
				return t.outcome()
			}
			ended, early = t.finished, false
		case <-wait.C: // it was set before the wait began that it is for
			left := t.finishWait()
			if left <= 0 {
				return t.outcome()
			}
			wait.Reset(left)
		case <-unsure:
			if err := t.awaitBranch(ctx); err != nil {
				return err
			}
			unsure = nil
		case <-t.m.life.Done():
			if !closed(t.concluded) {
				select {
				case <-t.m.over: // Close may say yet how it ended
				case <-ctx.Done():
				}
			}
			if !closed(t.concluded) {
				return t.undecided(ErrClosed)
			}
			return t.outcome()
		case <-ctx.Done():
			return t.hurry(ctx)
		}
	}
}

// finishWait is how much longer Commit waits for branches to be finished: as long as ever, while nothing is
// decided.
func (t *transaction) finishWait() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.hasConcluded {
		return t.m.cfg.FinishWait
	}
	return t.m.cfg.FinishWait - time.Since(t.concludedAt)
}

func (t *transaction) committed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.conclusion.Decision == commit.Commit
}

// hurry returns the outcome to a caller whose context has ended.
func (t *transaction) hurry(ctx context.Context) error {
	if !closed(t.concluded) {
		t.mu.Lock()
		t.impatience = ctx.Err()
		t.mu.Unlock()
		// Before commit is proposed this aborts; after, it has no effect.
		t.loop.Deliver(protocol.Input{Value: commit.Cancel{Reason: bounded(ctx.Err().Error())}})
		if err := t.awaitDecision(ctx); err != nil {
			return err
		}
	}
	return t.outcome()
}

// awaitDecision gives the register, or the only participant, a last chance after the caller's
// context has ended.
func (t *transaction) awaitDecision(ctx context.Context) error {
	wait := time.NewTimer(min(t.m.cfg.FinishWait, time.Second))
	defer wait.Stop()
	select {
	case <-t.concluded:
		return nil
	case <-wait.C:
	case <-t.m.over:
	}
	if closed(t.concluded) {
		return nil
	}
	return t.undecided(ctx.Err())
}

// awaitBranch gives the only participant time to find out how its one-phase commit ended.
func (t *transaction) awaitBranch(ctx context.Context) error {
	wait := time.NewTimer(t.m.cfg.FinishWait)
	defer wait.Stop()
	select {
	case <-t.concluded:
		return nil
	case <-wait.C:
	case <-ctx.Done():
	case <-t.m.over:
	}
	if closed(t.concluded) {
		return nil
	}
	why := ctx.Err()
	t.mu.Lock()
	for _, p := range t.participants {
		why = errors.Join(why, p.lastError())
	}
	t.mu.Unlock()
	return t.undecided(why)
}

// undecided is what is said to a caller that cannot be told the outcome. Whoever is told to ask later is told so
// before the conclusion, or the end would leave no record of what needs none.
func (t *transaction) undecided(why error) error {
	t.mu.Lock()
	concluded := t.hasConcluded
	t.asked = t.asked || !concluded
	err := &InDoubtError{ID: t.id, Err: errors.Join(why, t.proposeErr)}
	t.mu.Unlock()
	if concluded { // in this very moment
		return t.outcome()
	}
	return err
}

// outcome is what is known now of a concluded transaction.
func (t *transaction) outcome() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.conclusion
	if len(t.contradictions) > 0 {
		return &HeuristicError{ID: t.id, Decision: c.Decision, Branches: append([]Contradiction(nil), t.contradictions...)}
	}
	switch c.Decision {
	case commit.Commit:
		return nil
	case commit.Abort:
		return t.aborted(c)
	}
	return &InDoubtError{ID: t.id, Err: errors.New("the only branch did not say how it ended")}
}

// aborted explains an abort. The caller holds t.mu.
func (t *transaction) aborted(c commit.Concluded) error {
	if t.cause != nil {
		return t.cause
	}
	e := &AbortedError{ID: t.id, Cause: c.Cause, By: string(c.By), Reason: c.Reason}
	if p := t.participants[c.By]; p != nil {
		e.Err = p.whyNot()
	}
	if c.Cause == commit.Cancelled {
		e.By, e.Err = "application", t.impatience
	}
	if c.Cause == commit.Settled && t.entry != nil {
		e.By, e.Reason = t.entry.By, t.entry.Reason
	}
	return e
}
