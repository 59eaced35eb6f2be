//go:build race

package check_test

// underRace says that the race detector watches, under which a search takes some fifteen times as long.
const underRace = true
