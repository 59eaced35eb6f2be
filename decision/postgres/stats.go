package postgres

import "sync/atomic"

// Stats counts what this process has done with a log since Open. The counts are of one moment only
// approximately.
type Stats struct {
	// Decisions is the number of decisions that this process was the first to write.
	Decisions uint64
	// Groups is the number of statements that wrote decisions or notes. One serves many.
	Groups uint64
	// Attempts is the number of times that the database was asked for something, Failures that of
	// those which did not succeed.
	Attempts, Failures uint64
	// Retired is the number of entries that were dropped after their time.
	Retired uint64
}

type counters struct{ decisions, groups, trips, failures, retired atomic.Uint64 }

// Stats returns what this process has done with l since Open.
func (l *Log) Stats() Stats {
	c := &l.stats
	return Stats{
		Decisions: c.decisions.Load(), Groups: c.groups.Load(), Attempts: c.trips.Load(),
		Failures: c.failures.Load(), Retired: c.retired.Load(),
	}
}
