package site

import (
	"fmt"
	"maps"
	"time"

	"assent/protocol"
	"assent/protocol/commit"
)

// rollBackUnpromised rolls back what an earlier run left prepared in the resource name and had not
// promised: no vote of it had left. It tries until the resource answers.
func (h *Host) rollBackUnpromised(name string, promised map[commit.TransactionID]bool) {
	for pause := h.cfg.Retry; ; pause = min(2*pause, h.cfg.RetryMost) {
		err := h.rollBackOnce(name, promised)
		if err == nil || h.life.Err() != nil {
			return
		}
		h.cfg.Logger.Warn("what is prepared cannot be listed and cleared yet; trying again", "resource", name, "error", err)
		select {
		case <-time.After(pause):
		case <-h.life.Done():
			return
		}
	}
}

func (h *Host) rollBackOnce(name string, promised map[commit.TransactionID]bool) error {
	ctx, cancel := h.withTimeout()
	defer cancel()
	r := h.cfg.Resources[name]
	prepared, err := r.Recover(ctx)
	if err != nil {
		return err
	}
	for _, p := range prepared {
		id := commit.TransactionID(p.ID.Transaction)
		if p.Foreign != "" || p.ID.Owner != h.store.owner || p.ID.Branch != name || promised[id] || h.begunHere(id, name) {
			continue
		}
		if _, err := r.Rollback(ctx, p); err != nil {
			return fmt.Errorf("roll back %q: %w", id, err)
		}
		h.cfg.Logger.Info("a branch that was never promised is rolled back", "transaction", id, "resource", name)
	}
	return nil
}

// begunHere reports whether the transaction's branch in the resource began in this run.
func (h *Host) begunHere(id commit.TransactionID, name string) bool {
	h.mu.Lock()
	w := h.works[id]
	h.mu.Unlock()
	return w != nil && w.has(name)
}

// sweepForEver forgets, from time to time, what has been finished for long.
func (h *Host) sweepForEver() {
	every := time.NewTicker(min(h.cfg.KeepFor, time.Minute))
	defer every.Stop()
	for {
		select {
		case now := <-every.C:
			h.sweep(now.Add(-h.cfg.KeepFor))
		case <-h.life.Done():
			return
		}
	}
}

// sweep forgets what has been over since the time.
func (h *Host) sweep(before time.Time) {
	h.mu.Lock()
	maps.DeleteFunc(h.begun, func(_ commit.TransactionID, since time.Time) bool { return time.Since(since) > h.cfg.Timeout })
	var old []*machine
	for _, m := range h.machines {
		if m.overBefore(before) {
			old = append(old, m)
		}
	}
	h.mu.Unlock()
	for _, m := range old {
		// A machine that has been stopped takes nothing more, and is there until its records are not: nobody
		// makes it anew in between.
		m.loop.Stop()
		if m.isHead() {
			h.tellCompleted(m.t()) // once more: the first word may have been lost
		}
		if err := h.store.forget(m.key); err != nil {
			h.cfg.Logger.Warn("what is over cannot be forgotten", "transaction", m.key.id, "error", err)
			return
		}
		h.mu.Lock()
		if w := h.works[m.key.id]; w != nil && m.key.address == h.cfg.Self {
			w.timer()
			delete(h.works, m.key.id)
		}
		delete(h.machines, m.key)
		h.mu.Unlock()
	}
}

// tellCompleted tells all that have a part that every site has reported: nobody can be in doubt any more, so what they
// remember of the transaction may be forgotten. In two-phase commit nobody need be told: a site that
// has forgotten its part answers nothing.
func (h *Host) tellCompleted(t Transaction) {
	if t.Protocol == TwoPhase {
		return
	}
	data, err := h.codec.Encode(completed{t})
	if err != nil {
		h.cfg.Logger.Error("a message cannot be sent", "transaction", t.ID, "error", err)
		return
	}
	for _, p := range t.Parts {
		if p.Node == h.cfg.Self {
			h.completed(t)
			continue
		}
		h.cfg.Network.Send(p.Node, data)
	}
}

// completed notes that what is remembered of the transaction may be forgotten.
func (h *Host) completed(t Transaction) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, address := range []protocol.NodeID{h.cfg.Self, t.headOf()} {
		if m := h.machines[machineKey{t.ID, address}]; m != nil && m.t().is(t) {
			m.mu.Lock()
			m.forgettable = true
			m.mu.Unlock()
		}
	}
}
