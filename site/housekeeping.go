package site

import (
	"context"
	"fmt"
	"slices"
	"time"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/resource"
)

// scanForEver rolls back what is prepared in the resource name and was never promised, at once and then again and again:
// an earlier run may have left it, and the resource may be down, or come to it late.
func (h *Host) scanForEver(name string) {
	known := false // the last scan failed, and the log says so
	for pause := h.cfg.Retry; ; {
		err := h.scan(name)
		if h.life.Err() != nil {
			return
		}
		wait := h.cfg.ScanInterval
		switch {
		case err != nil:
			if !known {
				h.cfg.Logger.Warn("what is prepared cannot be listed and cleared yet; trying again", "resource", name, "error", err)
			}
			wait, pause = min(wait, pause), min(2*pause, h.cfg.RetryMost)
		case known:
			h.cfg.Logger.Info("what is prepared is listed again", "resource", name)
			fallthrough
		default:
			pause = h.cfg.Retry
		}
		known = err != nil
		select {
		case <-time.After(wait):
		case <-h.life.Done():
			return
		}
	}
}

// scan rolls back, once, what is prepared in the resource name and was never promised: no vote of it had left. It lists
// what is prepared, looks what this run has to do with it, and lists again, so that what is finished and forgotten
// meanwhile is not taken for what nobody knows. What is in both lists is barred from being begun before it is rolled back.
func (h *Host) scan(name string) error {
	ctx, cancel := h.withTimeout()
	defer cancel()
	first, err := h.unpromised(ctx, name)
	if err != nil || len(first) == 0 {
		return err
	}
	second, err := h.unpromised(ctx, name)
	if err != nil {
		return err
	}
	for _, p := range second {
		id := commit.TransactionID(p.ID.Transaction)
		if !slices.ContainsFunc(first, func(q resource.Prepared) bool { return q.ID == p.ID }) || !h.bar(id) {
			continue
		}
		_, err := h.cfg.Resources[name].Rollback(ctx, p)
		h.unbar(id)
		if err != nil {
			return fmt.Errorf("roll back %q: %w", id, err)
		}
		h.cfg.Logger.Info("a branch that was never promised is rolled back", "transaction", id, "resource", name)
	}
	return nil
}

// unpromised lists the branches of this site that are prepared in the resource name, and of which nothing is known that
// would let them be.
func (h *Host) unpromised(ctx context.Context, name string) ([]resource.Prepared, error) {
	prepared, err := h.cfg.Resources[name].Recover(ctx)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.DeleteFunc(prepared, func(p resource.Prepared) bool {
		return p.Foreign != "" || p.ID.Owner != h.store.owner || p.ID.Branch != name || h.answersFor(commit.TransactionID(p.ID.Transaction))
	}), nil
}

// answersFor reports whether this run has begun branches of the transaction, or is bound by a vote on it. What has only
// been heard of the transaction since a restart is no reason to keep what was prepared before. The caller holds h.mu.
func (h *Host) answersFor(id commit.TransactionID) bool {
	if w := h.works[id]; w != nil && w.busy() {
		return true
	}
	m := h.machines[machineKey{id, h.cfg.Self}]
	return m != nil && (m.work.busy() || m.bound())
}

// bar keeps the transaction from being begun here until unbar, unless this site answers for it.
func (h *Host) bar(id commit.TransactionID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.answersFor(id) {
		return false
	}
	h.barred[id]++
	return true
}

func (h *Host) unbar(id commit.TransactionID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.barred[id]--; h.barred[id] == 0 {
		delete(h.barred, id)
	}
}

// watchCoordinators gives up, from time to time, work whose coordinator has been down for long.
func (h *Host) watchCoordinators() {
	every := time.NewTicker(max(h.cfg.AbandonAfter/4, time.Millisecond))
	defer every.Stop()
	for {
		select {
		case now := <-every.C:
			h.abandonWork(now)
		case <-h.life.Done():
			return
		}
	}
}

// abandonWork gives up work that was not asked for its vote and whose coordinator has been started again since, or has
// seemed to be down, or been no member of the cluster, for Config.AbandonAfter: before it votes a site may abort alone. A
// coordinator that was only slow, or had asked at the last moment, is answered with a no.
func (h *Host) abandonWork(now time.Time) {
	open := map[protocol.NodeID][]Transaction{}
	h.mu.Lock()
	for _, w := range h.works {
		if !w.asked && w.t.Coordinator != h.cfg.Self {
			open[w.t.Coordinator] = append(open[w.t.Coordinator], w.t)
		}
	}
	h.mu.Unlock()
	view := h.view()
	silent := h.silent(open, view, now)
	for node, all := range open {
		i := slices.IndexFunc(view.Members, func(m Member) bool { return m.Node == node })
		for _, t := range all {
			why := ""
			switch {
			case silent[node]:
				why = "seems to be down"
			case i >= 0 && t.outlived(view.Members[i]):
				why = "was started again"
			default:
				continue
			}
			h.cfg.Logger.Warn("work is given up that its coordinator has not asked for its vote", "transaction", t.ID, "coordinator", node, "why", "it "+why)
			h.input(t, h.cfg.Self, commit.Abandon{Reason: fmt.Sprintf("its coordinator, node %s, %s", node, why)})
		}
	}
}

// silent returns which of the coordinators have seemed to be down, or been no members, for long, and notes since when.
func (h *Host) silent(coordinators map[protocol.NodeID][]Transaction, view View, now time.Time) map[protocol.NodeID]bool {
	down := map[protocol.NodeID]time.Time{}
	for node := range coordinators {
		member := slices.ContainsFunc(view.Members, func(m Member) bool { return m.Node == node })
		if !member || h.cfg.Suspects != nil && h.cfg.Suspects(node) {
			down[node] = now
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	silent := map[protocol.NodeID]bool{}
	for node := range down {
		if since, ok := h.down[node]; ok {
			down[node], silent[node] = since, now.Sub(since) >= h.cfg.AbandonAfter
		}
	}
	h.down = down
	return silent
}
