//go:build !race

package simtest

// UnderRace says that the race detector watches.
const UnderRace = false
