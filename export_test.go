package assent

// WaitEnded waits until m's life has ended: from then on it begins no I/O.
func WaitEnded(m *Manager) { <-m.life.Done() }
