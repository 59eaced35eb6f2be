package disk

import "sync/atomic"

// Stats counts what a log has done since Open. The counts are of one moment only approximately.
type Stats struct {
	// Decisions is the number of decisions written and forced.
	Decisions uint64
	// Groups is the number of writes that carried decisions, notes and forgettings.
	Groups uint64
	// Syncs is the number of times the log was forced. One sync may serve many decisions.
	Syncs uint64
	// Bytes is the number of bytes written to the log.
	Bytes uint64
	// Failures is the number of times the log has stopped, and Reopens that of its recoveries.
	Failures, Reopens uint64
}

type counters struct {
	decisions, groups, syncs, bytes, failures, reopens atomic.Uint64
}

// Stats returns what the log has done since Open.
func (l *Log) Stats() Stats {
	c := &l.stats
	return Stats{
		Decisions: c.decisions.Load(), Groups: c.groups.Load(), Syncs: c.syncs.Load(), Bytes: c.bytes.Load(),
		Failures: c.failures.Load(), Reopens: c.reopens.Load(),
	}
}
