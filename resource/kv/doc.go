// Package kv is an embedded store that takes part in transactions: ordered keys and values in one
// directory, on Pebble. It is the worker of the textbooks: strict two-phase locking over a log.
//
// The package promises what package resource asks, and that branches are serializable: shared and
// exclusive locks on keys, and shared locks on ranges so that no phantom appears, all held until
// the branch is finished (see Tx.Prepare for what a vote releases). Waiting is first come, first
// served; a circle of waiters is found at once and the youngest gives way; every other wait ends
// after Config.LockTimeout. A vote, a commit and an outcome are forced to disk before they are
// returned. When a write or a force fails, the store says so and does nothing more until it is
// opened again: it never acknowledges what may be lost, and it never ends the process.
//
// It does not replicate, it is open in one process at a time, and it keeps the outcomes of
// finished branches for a bounded time only (Config.KeepFor, Config.KeepOutcomes): later it
// answers that the outcome is not known.
package kv
