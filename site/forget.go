package site

import (
	"maps"
	"slices"
	"time"

	"assent/protocol"
	"assent/protocol/commit"
)

// sweepForEver forgets, from time to time, what has been finished for long.
func (h *Host) sweepForEver() {
	every := time.NewTicker(min(h.cfg.KeepFor, time.Minute))
	defer every.Stop()
	for {
		select {
		case now := <-every.C:
			h.sweep(now.Add(-h.cfg.KeepFor))
			h.askOthers(now.Add(-h.cfg.KeepFor))
		case <-h.life.Done():
			return
		}
	}
}

// sweep forgets what has been over since the time.
func (h *Host) sweep(before time.Time) {
	h.mu.Lock()
	maps.DeleteFunc(h.begun, func(_ commit.TransactionID, since time.Time) bool { return time.Since(since) > h.cfg.Timeout })
	machines := slices.Collect(maps.Values(h.machines))
	h.mu.Unlock()
	var old []*machine
	for _, m := range machines {
		over, completed := m.retire(before)
		if !over {
			continue
		}
		// A machine that has been stopped takes nothing more, and is there until its records are not: nobody
		// makes it anew in between.
		m.loop.Stop()
		if completed { // and not only forgotten here, as by a coordinator that was made anew and asked nobody
			h.tellCompleted(m.t()) // once more: the first word may have been lost
		}
		old = append(old, m)
	}
	for batch := range slices.Chunk(old, mostForgotten) {
		if err := h.forget(batch); err != nil {
			h.cfg.Logger.Warn("what is over cannot be forgotten; trying again", "transactions", len(old), "error", err)
			return
		}
	}
}

// mostForgotten bounds the machines that are forgotten in one write.
const mostForgotten = 256

// forget drops the records of machines that have been stopped, and then the machines.
func (h *Host) forget(old []*machine) error {
	keys := make([]machineKey, len(old))
	for i, m := range old {
		keys[i] = m.key
	}
	if err := h.store.forget(keys); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range keys {
		if w := h.works[k.id]; w != nil && k.address == h.cfg.Self {
			w.timer()
			delete(h.works, k.id)
		}
		delete(h.machines, k)
	}
	return nil
}

// tellCompleted tells all that have a part that every site has reported: nobody can be in doubt any more, so what they
// remember of the transaction may be forgotten. In two-phase commit nobody need be told: a site that
// has forgotten its part answers nothing.
func (h *Host) tellCompleted(t Transaction) {
	if t.Protocol == TwoPhase {
		return
	}
	for _, p := range t.Parts {
		if p.Node == h.cfg.Self {
			h.completed(t)
			continue
		}
		h.tell(p.Node, completed{t})
	}
}

// completed notes that what is remembered of the transaction may be forgotten.
func (h *Host) completed(t Transaction) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, address := range []protocol.NodeID{h.cfg.Self, t.headOf()} {
		if m := h.machines[machineKey{t.ID, address}]; m != nil && m.t().is(t) {
			m.mu.Lock()
			if m.forgettable.IsZero() {
				m.forgettable = time.Now()
			}
			m.mu.Unlock()
		}
	}
}

// mostAsked bounds the transactions about which others are asked at a time.
const mostAsked = 1000

// askOthers asks, of transactions that have been over here since the time and of which nobody has said that all sites
// have reported, whether they are over at the others as well. The word may have been lost, or forgotten in a restart of
// this node, and its coordinator may have forgotten the transaction, or have crashed before it knew.
func (h *Host) askOthers(before time.Time) {
	h.mu.Lock()
	machines := slices.Collect(maps.Values(h.machines))
	h.mu.Unlock()
	view := h.view()
	asked := 0
	for _, m := range machines {
		if asked == mostAsked {
			return
		}
		if m.lingers(before) && h.isOver(m.t()) {
			asked++
			for _, node := range m.unclear(view, before) {
				h.tell(node, askOver{m.t()})
			}
		}
	}
}

// lingers reports whether the machine has made no step since the time, and is kept for others that may be in doubt.
func (m *machine) lingers(before time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.key.address == m.h.cfg.Self && m.t().Protocol != TwoPhase && !m.retired && m.forgettable.IsZero() &&
		m.stepped.Before(before) && (m.wrote || len(m.recover) > 0)
}

// unclear returns who has not said yet that the transaction is over there. Every site must have: then nobody will ever
// ask again. The coordinator must, too, unless it is gone: it would tell a decision once more or, in Paxos Commit, bring
// one about. A site that is gone may come back in doubt; for that the machine waits, from its last step to the time
// before, as long as for one that an operator has resolved. Where nobody is left the machine may be forgotten.
func (m *machine) unclear(view View, before time.Time) (nodes []protocol.NodeID) {
	_, knows := view.member(m.h.cfg.Self) // who is no member does not know who is
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.t()
	waited := m.stepped.Before(before.Add(-m.h.cfg.KeepResolved))
	for _, p := range t.Parts {
		gone := knows && view.gone(p)
		asked := p.Site && !(gone && waited) || p.Node == t.Coordinator && !gone
		if p.Node != m.h.cfg.Self && asked && !m.cleared[p.Node] {
			nodes = append(nodes, p.Node)
		}
	}
	if len(nodes) == 0 && m.forgettable.IsZero() {
		m.forgettable = time.Now()
	}
	return nodes
}

// isOver reports whether this site is in doubt about nothing in the transaction, and never will be. A site that knows
// nothing of it has nothing to vote yes on; or it has forgotten it.
func (h *Host) isOver(t Transaction) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w := h.works[t.ID]; w != nil && !w.asked {
		return false
	}
	for _, address := range []protocol.NodeID{h.cfg.Self, t.headOf()} {
		if m := h.machines[machineKey{t.ID, address}]; m != nil && !m.isOver() {
			return false
		}
	}
	return true
}

// isOver reports whether nothing is left to do but to answer.
func (m *machine) isOver() bool {
	branch := m.work != nil && m.work.busy()
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.failure != nil || m.leading || m.stepped.IsZero():
		return false
	case m.key.address != m.h.cfg.Self:
		return !m.forgettable.IsZero()
	}
	return m.standing.Done || !branch && !m.promised
}

// clear notes that the transaction is over at a node.
func (h *Host) clear(node protocol.NodeID, t Transaction) {
	h.mu.Lock()
	m := h.machines[machineKey{t.ID, h.cfg.Self}]
	h.mu.Unlock()
	if m == nil || !m.t().is(t) {
		return
	}
	m.mu.Lock()
	if m.cleared == nil {
		m.cleared = map[protocol.NodeID]bool{}
	}
	m.cleared[node] = true
	m.mu.Unlock()
	if h.isOver(t) {
		m.unclear(h.view(), time.Now().Add(-h.cfg.KeepFor))
	}
}
