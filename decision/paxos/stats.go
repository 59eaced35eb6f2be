package paxos

import "sync/atomic"

// Stats counts what a member has done since Open. The counts are of one moment only approximately.
type Stats struct {
	// Groups is the number of writes to the journal, and Bytes the number of bytes.
	Groups, Bytes uint64
	// Forces is the number of times the journal was forced before promises and acceptances were told,
	// of which one may serve many; Syncs counts those for the sake of housekeeping, too.
	Forces, Syncs uint64
}

type counters struct{ groups, bytes, forces, syncs atomic.Uint64 }

// Stats returns what this member has done since Open.
func (l *Log) Stats() Stats {
	c := &l.stats
	return Stats{Groups: c.groups.Load(), Bytes: c.bytes.Load(), Forces: c.forces.Load(), Syncs: c.syncs.Load()}
}
