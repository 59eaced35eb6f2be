package site

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"assent/protocol/commit"
)

// leavingFor is for how long a site takes no new work after it was last asked to be ready to leave. By then it is no
// member any more, or goes on.
const leavingFor = 30 * time.Second

// Leave makes the site ready to leave its cluster: for half a minute it takes no new work and begins nothing, and
// Storage is empty. It waits until what it takes part in is over, and returns ErrUnfinished, with what is not, when ctx
// ends. What it has accepted of others' votes as an acceptor does not keep it when nobody has asked for a while: the
// other acceptors suffice, unless a majority of them is gone. It may be called again.
func (h *Host) Leave(ctx context.Context) error {
	h.mu.Lock()
	h.leaving = time.Now().Add(leavingFor)
	h.mu.Unlock()
	for {
		unfinished := h.unfinished()
		if len(unfinished) == 0 {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			const most = 3
			text := strings.Join(unfinished[:min(len(unfinished), most)], ", ")
			if n := len(unfinished) - most; n > 0 {
				text += fmt.Sprintf(" and %d more", n)
			}
			return fmt.Errorf("site: node %s: %w: %s", h.cfg.Self, ErrUnfinished, text)
		case <-h.life.Done():
			return ErrClosed
		}
	}
}

// Stay ends what Leave has begun: the site takes work again.
func (h *Host) Stay() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leaving = time.Time{}
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
	for id, w := range h.works {
		if !w.asked && w.joined.Load() {
			found[id] = "open"
		}
	}
	h.mu.Unlock()
	// Whoever waits for anything says so again within these times.
	quiet := time.Now().Add(-max(3*h.cfg.RetryMost, 3*h.cfg.VoteTimeout))
	for _, m := range machines {
		if what := m.unfinished(quiet); what != "" {
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
// wanted anything since the time, have nothing.
func (m *machine) unfinished(quiet time.Time) string {
	s := m.status()
	branch := m.work != nil && m.work.joined.Load()
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case s.InDoubt:
		return "in doubt"
	case branch && !m.standing.Done:
		return s.Role
	case m.forgettable, m.result.Finished, m.key.address != m.h.cfg.Self && m.standing.Done:
		return ""
	case m.recover != nil && len(m.recover) == 0 && !m.wrote:
		return "" // it was made anew to answer somebody
	case m.stepped.Before(quiet):
		return ""
	case m.isHead() || m.votes:
		return s.Role
	}
	return ""
}
