//go:build !race

package stack_test

// underRace says that the race detector watches.
const underRace = false
