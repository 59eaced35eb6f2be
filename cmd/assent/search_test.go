//go:build !race

package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestSearchScripts has the program search states and seeds. The race detector makes a search some five times as long and
// has nothing to see in it: these commands start no goroutine, and those of packages check and sim are watched in their own
// tests. So the scripts have a line of their own in make test.
func TestSearchScripts(t *testing.T) {
	testscript.Run(t, scripts("testdata/search", nil))
}
