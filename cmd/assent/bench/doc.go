// Package bench is the subcommand `assent bench`: what a transaction costs beyond what its
// databases charge.
//
// `assent bench commit` changes one row in each of two PostgreSQL databases, in several ways side
// by side: by hand with two-phase commit and no log, which is the floor; with Assent; and with two
// plain commits, which is what one gives up. `assent bench log` compares the decision log with a
// file to which as much is appended and forced. `assent bench scale` compares a transaction over many
// participants with one over few. `assent bench decide` compares the places where a decision can live
// with a bare file, and with three of them, two behind connections.
//
// The package promises that the ways take turns in short slices of one run, so that a machine that
// is busy with something else now and then does not favour one of them; that ratios are medians of
// the ratios in each round; that every latency is recorded and none is estimated; and that the
// floor does what a careful programmer would write: a statement after the other and, pipelined or in one
// trip, with as few round trips as Assent takes. It judges nothing: docs/performance.md has figures and what
// follows from them.
package bench
