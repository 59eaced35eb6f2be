//go:build race

package sim_test

// underRace says that the race detector watches, under which a seed takes some seven times as long.
const underRace = true
