//go:build race

package cluster_test

// underRace says that the race detector watches, which makes everything slow.
const underRace = true
