//go:build race

package simtest

// UnderRace says that the race detector watches, under which a seed takes some seven times as long.
const UnderRace = true
