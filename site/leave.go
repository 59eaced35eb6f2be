package site

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"assent/protocol"
	"assent/protocol/commit"
)

// leavingFor is for how long a site takes no new work after it was last asked to be ready to leave. By then it is no
// member any more, or goes on.
const leavingFor = 30 * time.Second

// Leave makes the site ready to leave its cluster: for half a minute, until the time that it returns, it takes no new
// work and begins nothing, and its Announcement says so. What it takes part in goes on; Leave waits until that is over,
// and returns ErrUnfinished, with what is not, when ctx ends. What it has accepted of others' votes as an acceptor does
// not keep it when nobody has asked for a while: the other acceptors suffice, unless a majority of them is gone. Nor
// does a decision that only nodes have not heard of which are gone from the cluster. It may be called again.
func (h *Host) Leave(ctx context.Context) (until time.Time, err error) {
	h.mu.Lock()
	until = time.Now().Add(leavingFor)
	h.leaving = until
	h.mu.Unlock()
	for {
		unfinished := h.unfinished()
		if len(unfinished) == 0 {
			return until, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			const most = 3
			text := strings.Join(unfinished[:min(len(unfinished), most)], ", ")
			if n := len(unfinished) - most; n > 0 {
				text += fmt.Sprintf(" and %d more", n)
			}
			return until, fmt.Errorf("site: node %s: %w: %s", h.cfg.Self, ErrUnfinished, text)
		case <-h.life.Done():
			return until, ErrClosed
		}
	}
}

// Stay ends what the Leave has begun that returned until: the site takes work again, unless it was asked to leave once
// more since. Of the time no more counts than its nanoseconds since 1970.
func (h *Host) Stay(until time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.leaving.UnixNano() == until.UnixNano() {
		h.leaving = time.Time{}
	}
}

func (h *Host) isLeaving() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Before(h.leaving)
}

// unfinished names the transactions that are not over here, and what this site is in them.
func (h *Host) unfinished() []string {
	h.mu.Lock()
	machines := slices.Collect(maps.Values(h.machines))
	found := map[commit.TransactionID]string{}
	for id, since := range h.begun {
		if time.Since(since) <= h.cfg.Timeout {
			found[id] = "begun"
		}
	}
	for id, w := range h.works {
		if !w.asked && w.busy() {
			found[id] = "open"
		}
	}
	h.mu.Unlock()
	view := h.view()
	// Whoever waits for anything says so again within these times.
	quiet := time.Now().Add(-max(3*h.cfg.RetryMost, 3*h.cfg.VoteTimeout))
	for _, m := range machines {
		if what := m.unfinished(quiet, view); what != "" {
			found[m.key.id] = what
		}
	}
	var all []string
	for _, id := range slices.Sorted(maps.Keys(found)) {
		all = append(all, fmt.Sprintf("%s (%s)", id, found[id]))
	}
	return all
}

// unfinished says what the machine has left to do, or "". An acceptor, and a coordinator made anew, of whom nobody has
// wanted anything since the time, have nothing; nor has a coordinator that waits for nodes only that are gone.
func (m *machine) unfinished(quiet time.Time, view View) string {
	s := m.status()
	branch := m.work != nil && m.work.busy()
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case s.InDoubt:
		return "in doubt"
	case (branch || m.promised) && !m.standing.Done:
		return s.Role
	case !m.forgettable.IsZero(), m.isResolved(), m.result.Finished, m.key.address != m.h.cfg.Self && m.standing.Done:
		return ""
	case m.recover != nil && len(m.recover) == 0 && !m.wrote:
		return "" // it was made anew to answer somebody
	case m.isHead() && m.recover == nil || len(m.awaited) > 0: // it is not done
		if m.waitsInVain(view) {
			return ""
		}
		return s.Role
	case !m.stepped.IsZero() && m.stepped.Before(quiet):
		return ""
	case m.isHead() || m.votes || m.stepped.IsZero():
		return s.Role
	}
	return ""
}

// waitsInVain reports whether the coordinator has a decision, and all sites that have not said to have done it are gone
// from the cluster. The caller holds m.mu.
func (m *machine) waitsInVain(view View) bool {
	t := m.t()
	_, knows := view.member(m.h.cfg.Self) // who is no member does not know who is
	if !knows || len(m.awaited) == 0 || slices.ContainsFunc(m.awaited, func(node protocol.NodeID) bool {
		p, ok := t.part(node)
		return !ok || !view.gone(p)
	}) {
		return false
	}
	if !m.warned {
		m.warned = true
		m.h.cfg.Logger.Warn("sites that are gone from the cluster have not said that they did as decided; nobody waits for them when this node leaves",
			"transaction", t.ID, "decision", m.standing.Decision, "sites", fmt.Sprint(m.awaited))
	}
	return true
}
