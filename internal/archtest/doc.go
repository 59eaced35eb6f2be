// Package archtest keeps the rules of the house: which package may import which, what a protocol
// may do, which dependencies there are and why, how large things may be, and what must be
// documented. The rules are tests; the package has no other content.
//
// It promises that every rule can fail: each has at least one small bad source that it must find.
// The source is parsed in this process. A test that asks the go tool instead is answered from the
// test cache although the source has changed.
package archtest
