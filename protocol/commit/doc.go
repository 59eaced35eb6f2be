// Package commit holds the atomic commitment protocols: two-phase commit with presumed abort, as
// two machines, Coordinator and Participant.
//
// The package promises the properties AC1 to AC4 of Bernstein, Hadzilacos and Goodman (1987,
// chapter 7) under crashes, restarts, and lost, late, repeated and reordered messages. It does
// not promise that a participant in doubt can always finish (AC5): two-phase commit blocks while
// the register that holds the decision cannot be reached.
//
// The decision itself lives in a write-once register which the machines do not contain: the
// coordinator emits Propose and acts on Decided, which says what stands.
package commit

//go:generate go test -run ^TestTable$ . -rewrite-docs
