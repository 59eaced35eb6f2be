// Package crashtest breaks everything that takes part in a transaction, one thing at a time and
// then all at once, and looks whether the promises hold. It contains tests alone.
//
// The coordinator of these tests is a process of its own, started from the test binary, with a
// decision log and a kv store on disk and two PostgreSQL clusters that the tests start. It is
// killed with SIGKILL at every point of the protocol, and so are the clusters; connections are cut;
// an operator of a database meddles;
// nodes of a cluster are lost for good, stalled, or cut off from each other. After each blow the tests promise to have looked at
// everything: no branch is left prepared, the change is everywhere or nowhere, and whatever was
// reported is true. They prove nothing about machines that lose what they have forced.
package crashtest
