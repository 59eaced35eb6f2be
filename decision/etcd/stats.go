package etcd

import "sync/atomic"

// Stats counts what this process has done with a log since Open. The counts are of one moment only
// approximately.
type Stats struct {
	// Decisions is the number of decisions that this process was the first to write.
	Decisions uint64
	// Groups is the number of requests that wrote decisions or notes. One serves many.
	Groups uint64
	// Requests is the number of all requests, Failures that of those which did not succeed.
	Requests, Failures uint64
	// Retired is the number of entries that were dropped after their time.
	Retired uint64
}

type counters struct{ decisions, groups, requests, failures, retired atomic.Uint64 }

// Stats returns what this process has done with l since Open.
func (l *Log) Stats() Stats {
	c := &l.stats
	return Stats{
		Decisions: c.decisions.Load(), Groups: c.groups.Load(), Requests: c.requests.Load(),
		Failures: c.failures.Load(), Retired: c.retired.Load(),
	}
}
