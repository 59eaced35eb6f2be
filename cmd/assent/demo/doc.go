// Package demo is the subcommand `assent demo`: course registration on three machines, whose
// registrar is killed again and again while students enrol.
//
// Students are kept on machines A and B, courses and their seats on machine C. An enrolment is one
// transaction that writes the student's record on A or B and takes a seat on C; two friends enrol
// together or not at all, which takes all three machines. The registrar, who coordinates, is a
// process of its own and dies by SIGKILL at random instants, also while it recovers. The process
// that was never killed is the client: it remembers every answer, and when all is over it opens the
// machines and compares.
//
// The package promises that its verdict is founded on the stores and on those answers alone, that
// it names every mismatch, and that it can fail: its tests spoil the stores in each way that a
// check looks for. It kills only processes that it started. It shows what a crash of the process
// does, not one of the machine, for the system keeps what a killed process has written.
package demo
