//go:build race

package cluster

// UnderRace says that the race detector watches, which makes everything slow.
const UnderRace = true
