package site

import (
	"fmt"
	"time"

	"assent/protocol"
	"assent/protocol/commit"
)

// head makes the coordinator of t.
func (h *Host) head(t Transaction, sites []protocol.NodeID) (*machine, error) {
	o := h.cfg.telling()
	k := machineKey{t.ID, t.headOf()}
	var coordinator protocol.Machine
	switch t.Protocol {
	case TwoPhase:
		coordinator = &commit.CoordinatorNode{Coordinator: *commit.NewCoordinator(t.ID, sites, o)}
	case ThreePhase:
		coordinator = commit.NewThreePhaseCoordinator(t.ID, sites, o)
	case QuorumThreePhase:
		c, err := commit.NewQuorumCoordinator(t.ID, sites, commit.Majority(len(sites)), o)
		if err != nil {
			return nil, fmt.Errorf("site: %w", err)
		}
		coordinator = c
	case PaxosCommit:
		coordinator = h.paxosSite(t, t.electorate())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	if h.machines[k] != nil {
		return nil, fmt.Errorf("site: %q: %w", t.ID, ErrOver)
	}
	m := h.install(k, t, coordinator)
	delete(h.begun, t.ID)
	if t.Protocol == PaxosCommit {
		m.take(h.works[t.ID])
	}
	return m, nil
}

// alone makes the machine of this site in Paxos Commit, for a transaction that nobody is to lead.
func (h *Host) alone(t Transaction) (*machine, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := machineKey{t.ID, h.cfg.Self}
	if h.closed {
		return nil, ErrClosed
	}
	if h.machines[k] != nil {
		return nil, fmt.Errorf("site: %q: %w", t.ID, ErrOver)
	}
	return h.fresh(k, t), nil
}

// has reports whether there is a machine of that name.
func (h *Host) has(k machineKey) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.machines[k] != nil
}

// deliver gives a message to the machine that it is for, which is made where there is none. It fails where the
// transaction is not the one that is known here by that id.
func (h *Host) deliver(t Transaction, from, to protocol.NodeID, message protocol.Message) error {
	_, ends := message.(commit.Finish) // its answer lets the coordinator end, and promises nothing
	// A coordinator of its own that remembers nothing tells who is in doubt that the transaction aborts; nobody else can.
	ends = ends || to == t.headOf() && t.Protocol != PaxosCommit
	m, err := h.find(t, to, ends)
	if m != nil {
		m.begin()
		m.loop.Deliver(protocol.Receive{From: from, Message: message})
	}
	return err
}

// input gives a value from this site to one of its machines.
func (h *Host) input(t Transaction, to protocol.NodeID, v protocol.Value) {
	m, err := h.find(t, to, true)
	if m != nil {
		m.begin()
		m.loop.Deliver(protocol.Input{Value: v})
	}
	if err != nil {
		h.cfg.Logger.Error("a transaction cannot go on here", "transaction", t.ID, "error", err)
	}
}

// find returns a machine, which is made where there is none: with the work that was done here or, where
// there is none, as after a crash with nothing on record. It returns nil where the host is closed, and an error where no
// more machines are allowed, or what is known by the transaction's id is not that transaction. While the node is about
// to leave, nothing is made for a transaction of which nothing is known here, unless always says so: as if the node
// were down.
func (h *Host) find(t Transaction, address protocol.NodeID, always bool) (*machine, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, nil
	}
	k := machineKey{t.ID, address}
	w := h.works[t.ID]
	m := h.machines[k]
	switch {
	case m != nil:
		if err := m.settle(t); err != nil {
			return nil, err
		}
		return m, nil
	case address == h.cfg.Self && w != nil:
		if !w.t.opens(t) {
			return nil, fmt.Errorf("the work that goes by its id is not of this transaction")
		}
		return h.fresh(k, t), nil
	case !always && time.Now().Before(h.leaving) && h.machines[machineKey{t.ID, t.headOf()}] == nil:
		return nil, ErrLeaving
	case len(h.works)+len(h.machines) >= h.cfg.MaxTransactions:
		return nil, fmt.Errorf("%d transactions are remembered; no more are allowed at a time", h.cfg.MaxTransactions)
	}
	return h.fresh(k, t), nil
}

// fresh makes a machine of a transaction of which nothing is on record: with the work that was done here, if any. The
// caller holds h.mu.
func (h *Host) fresh(k machineKey, t Transaction) *machine {
	if w := h.works[t.ID]; w != nil && k.address == h.cfg.Self {
		m := h.install(k, t, h.participant(t))
		m.take(w)
		return m
	}
	m := h.makeAnew(k, t)
	m.recover = protocol.Records{}
	return m
}

// makeAnew makes a machine as after a crash. The caller holds h.mu.
func (h *Host) makeAnew(k machineKey, t Transaction) *machine {
	if k.address == h.cfg.Self {
		return h.install(k, t, h.participant(t))
	}
	if t.Protocol == TwoPhase {
		return h.install(k, t, &commit.CoordinatorNode{Coordinator: *commit.NewCoordinator(t.ID, nil, h.cfg.telling())})
	}
	return h.install(k, t, commit.NewThreePhaseCoordinator(t.ID, nil, h.cfg.telling()))
}

// participant makes the machine that votes for this site.
func (h *Host) participant(t Transaction) protocol.Machine {
	o, outside := h.cfg.options(), commit.Branch{Outside: true}
	switch t.Protocol {
	case ThreePhase:
		return &commit.ThreePhaseNode{Participant: *commit.NewThreePhaseParticipant(t.ID, h.cfg.Self, t.headOf(), o), Branch: outside}
	case QuorumThreePhase:
		return &commit.QuorumNode{Participant: *commit.NewQuorumParticipant(t.ID, h.cfg.Self, t.headOf(), o), Branch: outside}
	case PaxosCommit:
		return h.paxosSite(t, nil)
	default:
		return &commit.ParticipantNode{Participant: *commit.NewParticipant(t.ID, t.headOf(), o), Branch: outside}
	}
}

// paxosSite makes the machine of this site in Paxos Commit. Whoever coordinates gives the electorate.
func (h *Host) paxosSite(t Transaction, e *commit.Electorate) *commit.PaxosSite {
	o := h.cfg.options()
	leader := commit.NewPaxosLeader(t.ID, h.cfg.Self, e, o)
	leader.Coordinator.Options.RetryMost = h.cfg.telling().RetryMost
	return &commit.PaxosSite{
		Self: h.cfg.Self, Leader: leader, Acceptor: &commit.VoteAcceptor{ID: t.ID},
		Participant: &commit.PaxosParticipant{Participant: *commit.NewParticipant(t.ID, t.headOf(), o),
			Branch: commit.Branch{Outside: true}, Self: h.cfg.Self},
	}
}
