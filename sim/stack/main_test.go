package stack_test

import (
	"os"
	"runtime/debug"
	"testing"
)

// TestMain lets the garbage of thousands of small stores, of which little lives, pile up for longer.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}
