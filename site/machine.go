package site

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"assent/engine"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/paxos"
	"assent/trace"
)

// machine is one machine of a transaction at this site, and its hands.
type machine struct {
	h       *Host
	key     machineKey
	named   atomic.Pointer[Transaction]
	machine stander
	loop    *engine.Loop
	work    *work            // what its branch is; nil for a coordinator that is a machine of its own
	recover protocol.Records // what it is made anew with; nil where it is new
	once    sync.Once

	decided, finished chan struct{} // closed, of a coordinator
	failed            chan struct{} // closed when something could not be recorded

	mu       sync.Mutex
	result   Result
	standing commit.Standing // after the last step
	promised bool            // its branch has voted yes
	stepped  time.Time       // when it made its last step
	// forgettable is since when it is known that every site has reported to some coordinator; zero while it is not.
	forgettable time.Time
	// votes says that it holds, as an acceptor, what others have voted.
	votes bool
	// awaited are the sites that a coordinator with a decision has not heard to have done it. Only the goroutine that
	// steps the machine changes it.
	awaited []protocol.NodeID
	leading bool                     // as a leader in Paxos Commit it waits for votes, or brings the decision about
	cleared map[protocol.NodeID]bool // who has said that the transaction is over there
	warned  bool                     // it was said that all those are gone
	notes   []Note
	wrote   bool // something is on record in this run
	forcing int  // how many writes are being made
	retired bool // what it remembers is being forgotten; it records nothing, and so says nothing, any more
	failure error
}

// stander is a machine that can say where it stands.
type stander interface {
	protocol.Machine
	Standing() commit.Standing
}

// install adds a machine. The caller holds h.mu.
func (h *Host) install(k machineKey, t Transaction, of protocol.Machine) *machine {
	m := &machine{h: h, key: k, machine: of.(stander), decided: make(chan struct{}), finished: make(chan struct{}), failed: make(chan struct{})}
	m.named.Store(&t)
	if k.address == h.cfg.Self {
		m.work = &work{h: h, t: t, asked: true, branches: map[string]*part{}}
	}
	m.loop = engine.New(engine.Config{Scope: string(t.ID), Node: k.address, Machine: of, Hands: m, Clock: h.cfg.Clock, Observer: m})
	h.machines[k] = m
	return m
}

// t returns the transaction.
func (m *machine) t() Transaction { return *m.named.Load() }

// settle gives the machine the parts of its transaction, if it has none yet: it was made to give up the work of one that
// nobody had asked to commit. It fails where t is not the machine's transaction. The caller holds h.mu.
func (m *machine) settle(t Transaction) error {
	own := m.t()
	switch {
	case own.is(t) || own.opens(t) && len(t.Parts) == 0:
		return nil
	case !own.opens(t) || len(own.Parts) > 0:
		return errors.New("the transaction that goes by its id is another, or has other parts")
	}
	m.named.Store(&t)
	return nil
}

// take makes w, which was done here, what the machine votes on. Its time goes on: the machine may have
// been made for another role of the site, and never be asked. The caller holds h.mu.
func (m *machine) take(w *work) {
	if w != nil {
		w.asked = true
		m.work = w
	}
}

// begin gives the machine its first event, once, before any other.
func (m *machine) begin() {
	m.once.Do(func() {
		if m.recover != nil {
			m.loop.Deliver(protocol.Recover{Records: m.recover})
			return
		}
		m.loop.Deliver(protocol.Start{})
	})
}

// Force implements engine.Hands.
func (m *machine) Force(writes []protocol.Write) error {
	m.mu.Lock()
	if m.retired {
		m.mu.Unlock()
		return errRetired
	}
	m.forcing++
	m.mu.Unlock()
	err := m.h.store.force(m.key, m.t(), writes)
	m.mu.Lock()
	m.forcing--
	if err == nil {
		m.note(writes)
	} else {
		m.failure = err
		closeOnce(m.failed)
	}
	m.mu.Unlock()
	if err != nil {
		m.h.cannotRecord(err)
		m.h.cfg.Logger.Error("a site cannot record what it promises; the transaction stands still here", "transaction", m.t().ID, "error", err)
	}
	return err
}

// errRetired says that a machine is being forgotten.
var errRetired = errors.New("what is remembered of the transaction is being forgotten")

// note notes what is stable now, and whether that is a promise. The caller holds m.mu.
func (m *machine) note(writes []protocol.Write) {
	m.wrote, m.stepped = true, time.Now()
	for _, w := range writes {
		switch w.Record.(type) {
		case paxos.AcceptorRecord[commit.Cast]:
			m.votes = true
		case commit.PreparedRecord, commit.SiteRecord:
			m.promised = m.promised || w.Key == commit.BranchKey && m.key.address == m.h.cfg.Self
		}
	}
}

// bound reports whether the site has voted yes, or knows that commit is decided: what it has prepared is then kept.
func (m *machine) bound() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.promised || m.standing.Decision == commit.Commit
}

// isPromise reports whether a participant's record is a yes vote of which the decision may not be known.
func isPromise(r protocol.Record) bool {
	switch r.(type) {
	case commit.PreparedRecord, commit.SiteRecord:
		return true
	}
	return false
}

// Send implements engine.Hands.
func (m *machine) Send(to protocol.NodeID, message protocol.Message) {
	m.h.send(m.t(), m.key.address, to, message)
}

// Emit implements engine.Hands.
func (m *machine) Emit(value protocol.Value) {
	switch v := value.(type) {
	case commit.PrepareBranch, commit.CommitBranch, commit.RollbackBranch:
		m.do(v)
	case commit.Concluded:
		m.conclude(v)
	case commit.Contradicted:
		m.mu.Lock()
		m.result.Heuristic = append(m.result.Heuristic, v)
		m.mu.Unlock()
		m.h.cfg.Logger.Error("a site's outcome contradicts the decision", "transaction", m.t().ID, "site", v.Node, "decision", v.Decision, "outcome", v.Outcome)
	case commit.Completed:
		m.complete(v.Decision)
	}
}

// complete notes that every site has reported, and has all that have a part told.
func (m *machine) complete(d commit.Decision) {
	m.mu.Lock()
	m.result.Finished = true
	m.mu.Unlock()
	closeOnce(m.finished)
	t := m.t()
	r, _ := m.recover[commit.RegisterKey].(commit.DecisionRecord)
	if t.Protocol != ThreePhase && t.Protocol != QuorumThreePhase || d != commit.Commit || m.recover != nil && len(r.Members) == 0 {
		m.tellAll()
		return
	}
	// From now on the others may forget their part, and would answer as if they had never voted. A coordinator made anew
	// from a decision on record tells it once more to the members that stand there: so none stands there any more.
	m.h.spawn(func() {
		if m.Force([]protocol.Write{{Key: commit.RegisterKey, Record: commit.DecisionRecord{Decision: d}}}) == nil {
			m.tellAll()
		}
	})
}

// tellAll tells all that have a part that every site has reported, so that they may forget it, unless somebody may still
// need them. Then they ask one another when they have been idle (askOthers).
func (m *machine) tellAll() {
	t := m.t()
	if t.Protocol == PaxosCommit && t.Coordinator != m.h.cfg.Self {
		// The coordinator may be cut off and want to abort. It must find those who know better, else it says so to its caller.
		return
	}
	m.mu.Lock()
	resolved := len(m.notes) > 0
	if resolved && m.forgettable.IsZero() {
		m.forgettable = time.Now()
	}
	m.mu.Unlock()
	// A site of which only an operator has said how it ended may come back in doubt, and ask any other.
	if !resolved {
		m.h.tellCompleted(t)
	}
}

// conclude notes the decision.
func (m *machine) conclude(v commit.Concluded) {
	m.mu.Lock()
	m.result.Decision, m.result.Cause, m.result.By, m.result.Reason = v.Decision, v.Cause, v.By, v.Reason
	m.mu.Unlock()
	closeOnce(m.decided)
}

// closeOnce closes c unless it is closed. One goroutine at a time calls it for c.
func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// do has the branch do what the machine wants, and gives the machine its answer.
func (m *machine) do(request protocol.Value) {
	records := m.recover
	m.h.spawn(func() {
		var answer protocol.Value
		switch request.(type) {
		case commit.PrepareBranch:
			answer = m.work.prepare()
		case commit.CommitBranch:
			answer = m.work.commit(records)
		default:
			answer = m.work.rollback(records)
		}
		m.loop.Deliver(protocol.Input{Value: answer})
	})
}

// Observe implements trace.Observer: it notes where the machine stands after each step, and passes on
// what it is told.
func (m *machine) Observe(e trace.Event) {
	if e.Kind == trace.Stepped {
		s := m.machine.Standing()
		p, acceptor := m.machine.(*commit.PaxosSite)
		m.mu.Lock()
		m.stepped, m.standing = time.Now(), s
		m.votes = acceptor && len(p.Acceptor.Acceptors)+len(p.Acceptor.Records) > 0
		m.awaited = m.awaited[:0]
		if !m.result.Finished {
			m.awaited = awaited(m.awaited, m.machine)
		}
		m.leading = acceptor && (p.Leader.Coordinator.State == commit.CoordinatorVoting || p.Leader.Coordinator.State == commit.CoordinatorProposing)
		notes := m.notes
		m.mu.Unlock()
		for _, n := range notes { // a coordinator made anew waits for those again of whom an operator has spoken
			if slices.Contains(m.awaited, n.Site) {
				m.act(n)
			}
		}
	}
	if o := m.h.cfg.Observer; o != nil {
		o.Observe(e)
	}
}

// awaited appends to list the sites that a coordinator has told the decision and not heard to have finished.
func awaited(list []protocol.NodeID, of protocol.Machine) []protocol.NodeID {
	var members []commit.Member
	var state commit.CoordinatorState
	switch c := of.(type) {
	case *commit.CoordinatorNode:
		members, state = c.Coordinator.Members, c.Coordinator.State
	case *commit.ThreePhaseCoordinator:
		members, state = c.Members, c.State
	case *commit.PaxosSite:
		members, state = c.Leader.Coordinator.Members, c.Leader.Coordinator.State
	}
	if state != commit.CoordinatorCommitting && state != commit.CoordinatorAborting {
		return list
	}
	for _, m := range members {
		if m.Outcome == commit.Unfinished && m.Vote != commit.ReadOnly {
			list = append(list, m.Node)
		}
	}
	return list
}

// status says where the machine stands.
func (m *machine) status() Status {
	branch := m.work != nil && m.work.joined.Load()
	m.mu.Lock()
	defer m.mu.Unlock()
	s := Status{Transaction: m.t(), Role: "participant", Decision: m.standing.Decision, Done: m.standing.Done,
		InDoubt: m.inDoubt(), Notes: slices.Clone(m.notes)}
	if !m.result.Finished && m.forgettable.IsZero() {
		s.Awaits = slices.DeleteFunc(slices.Clone(m.awaited), func(node protocol.NodeID) bool {
			return slices.ContainsFunc(m.notes, func(n Note) bool { return n.Site == node })
		})
	}
	switch {
	case m.t().Protocol == PaxosCommit && m.isHead():
		s.Role = "coordinator and acceptor"
		// One made anew only answers, until it has a decision to tell.
		s.Done = (m.result.Finished || m.recover != nil && !m.leading) && (!branch && !m.promised || m.standing.Done)
	case m.t().Protocol == PaxosCommit && !branch && !m.promised:
		s.Role, s.Done = "acceptor", true // it only answers
	case m.t().Protocol == PaxosCommit:
		s.Role = "participant and acceptor"
	case m.key.address != m.h.cfg.Self:
		s.Role = "coordinator"
	}
	if s.Decision == commit.Undecided {
		s.Decision = m.result.Decision
	}
	s.Done = s.Done && len(s.Awaits) == 0
	return s
}

// inDoubt reports whether the site has voted yes and does not know the decision. The caller holds m.mu.
func (m *machine) inDoubt() bool { return m.promised && m.standing.Decision == commit.Undecided }

// isHead reports whether this is the transaction's coordinator, whatever else it is.
func (m *machine) isHead() bool {
	return m.t().Coordinator == m.h.cfg.Self && m.key.address == m.t().headOf()
}

// retire reports whether the machine is over since the time, and whether every site has reported to it. What it
// remembers may then be forgotten: from now on it records nothing, so a step that is being made, or about to be, says
// nothing that would depend on a record. Who asks finds it silent, as if the node were down.
func (m *machine) retire(before time.Time) (over, completed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retired = m.retired || m.overBefore(before)
	return m.retired, m.result.Finished
}

// overBefore reports whether the machine has made no step since the time and nobody depends on what it
// remembers. In two-phase commit that is so when it is done. In the other
// protocols a site that has forgotten its part would answer as one that never voted, so it remembers until
// all have reported, unless that is what it is: it gave its work up, or never did any. The caller holds m.mu.
func (m *machine) overBefore(t time.Time) bool {
	branch := m.work != nil && m.work.busy()
	if m.forcing > 0 || m.stepped.IsZero() || m.keepsNotes(t) {
		return false
	}
	if !m.stepped.Before(t) { // as a leader that goes on telling what all have done already, or asking those that are gone
		needless := !m.forgettable.IsZero() && m.forgettable.Before(t) || m.isResolved()
		return needless && (m.standing.Done || !branch && !m.promised)
	}
	if len(m.recover) == 0 && !m.wrote && !branch {
		return true // it holds no more than one that is made anew
	}
	if m.t().Protocol == TwoPhase {
		return m.standing.Done
	}
	gaveUp := m.key.address == m.h.cfg.Self && len(m.recover) == 0 && !m.promised && !m.votes &&
		m.standing.Done && m.standing.Decision != commit.Commit
	return (!m.forgettable.IsZero() || m.isResolved()) && !m.inDoubt() || gaveUp
}

// await waits for the result.
func (m *machine) await(ctx context.Context, wait bool) (Result, error) {
	until := m.decided
	if wait {
		until = m.finished
	}
	var err error
	select {
	case <-until:
	case <-ctx.Done():
		err = ctx.Err()
	case <-m.failed:
	case <-m.h.life.Done():
		err = ErrClosed
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.result
	if r.Decision != commit.Undecided {
		return r, nil
	}
	if m.failure != nil {
		err = m.failure
	}
	return r, fmt.Errorf("site: %q: %w: %w", m.t().ID, ErrInDoubt, err)
}
