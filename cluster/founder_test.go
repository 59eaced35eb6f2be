package cluster_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"assent/cluster"
	"assent/decision"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/membership"
)

// A founder of one whom others have joined, and that has lost its directory, founds no second cluster: it stops when it
// hears of them, says why, also when it is started again, and is let in when it asks.
func TestLoneFounderLosesItsDirectory(t *testing.T) {
	h := newHouse(t, "a")
	h.openKeeping("a")
	h.openAs("d", h.joining("d", "a"))
	h.settled("a d")
	h.openAs("e", h.joining("e", "a"))
	h.settled("a d e")
	lose := func() {
		h.close("a")
		if err := os.RemoveAll(filepath.Join(h.dir, "a")); err != nil {
			t.Fatal(err)
		}
	}
	lose()
	h.openKeeping("a")
	h.eventually("a has stopped", func() bool {
		s := h.nodes["a"].Status()
		return !s.Primary && strings.Contains(s.Why, membership.WhyLost)
	})
	h.eventually("a decides nothing", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := h.nodes["a"].Log().Decide(ctx, decision.Entry{ID: h.id("a"), Decision: commit.Abort, By: "a", Time: time.Now()})
		return err != nil
	})
	h.close("a")
	if n, err := cluster.Open(h.keeping("a")); err == nil {
		t.Error("it goes on when it is started again", n.Close())
	} else if !strings.Contains(err.Error(), membership.WhyLost) {
		t.Error(err)
	}
	if err := os.RemoveAll(filepath.Join(h.dir, "a")); err != nil {
		t.Fatal(err)
	}
	cfg := h.keeping("a")
	cfg.Join = map[protocol.NodeID]string{"d": h.addresses["d"], "e": h.addresses["e"]}
	h.openAs("a", cfg)
	h.settled("a d e")
}
