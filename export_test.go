package assent

import (
	"context"
	"time"

	"assent/protocol/commit"
)

// WaitEnded waits until m's life has ended: from then on it begins no I/O.
func WaitEnded(m *Manager) { <-m.life.Done() }

// HoldTransactions keeps everybody from m's transactions until release is called. Those who wait are
// then served in the order in which they came: a sync.Mutex does that once somebody has been woken
// in vain after a millisecond.
func HoldTransactions(m *Manager) (release func()) {
	m.mu.Lock()
	return func() {
		for range 3 {
			m.mu.Unlock()
			m.mu.Lock()
			time.Sleep(2 * time.Millisecond)
		}
		m.mu.Unlock()
	}
}

// ScanLog scans m's log once, as a manager does now and again that is told who is alive.
func ScanLog(ctx context.Context, m *Manager) error { return m.scanLog(ctx) }

// GiveUpTooLate returns what a caller of Commit is told that gives up in the moment in which its
// transaction is found to have ended.
func GiveUpTooLate(m *Manager, ended commit.Decision) error {
	t := newTransaction(m, m.newID(), time.Now())
	t.setConclusion(commit.Concluded{Decision: ended, Cause: commit.ByOnePhase})
	return t.undecided(context.Canceled)
}
