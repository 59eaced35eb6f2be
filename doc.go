// Package assent commits one change across several databases and stores, or none of it.
//
// A Manager coordinates transactions among resources with two-phase commit. It promises that a
// transaction whose Run or Commit returned nil is committed in every resource, that one which
// returned an AbortedError left nothing behind, and that any other outcome is said, with the
// transaction's id, and driven to its end: by this process, or by the next one that opens the
// same decision log, also after a kill at any instant.
//
// It does not isolate: each resource isolates its own branch. And it cannot finish a branch in
// doubt while the decision log is away; that is what two-phase commit costs.
package assent
