//go:build !race

package check_test

// underRace says that the race detector watches.
const underRace = false
