package sim_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"assent/protocol/commit"
	"assent/sim"
	"assent/trace"
)

// FuzzPlan reads a plan from the parameters of a header, one on each line. What is read must come out
// of its own description again, and must run or be refused.
func FuzzPlan(f *testing.F) {
	f.Add(uint64(1), "safety 2s\nbound 1m0s\nbegin 0,1\nfault.001 whim at=1ms for=1s node=p1 sends=-1")
	f.Add(uint64(2), "safety 2s\nfault.001 torn at=1ms for=1s node=p1 rate=900\nfault.002 sync at=2ms for=1s node=c rate=100")
	f.Add(uint64(3), "safety 1s\nfault.001 flap at=0s for=1s side=c,p1 by=1ns\nfault.002 drift at=0s for=1s node=c")
	f.Add(uint64(4), "safety 1s\nfault.001 crash at=0s for=1ms node=p2 sends=1\nfault.002 lie at=0s for=1s rate=100\nfault.003 whim at=5ms for=0s node=p2 sends=7")
	f.Add(uint64(5), "safety 1s\nskip 1,2\nfault.1 corrupt at=20ms for=1s node=p1\nfault.2 one-way at=1ms for=1s side=\nfault.3 garble at=0s for=1s rate=50")
	f.Fuzz(func(t *testing.T, seed uint64, text string) {
		h := trace.Header{Seed: seed, Parameters: map[string]string{}}
		for line := range strings.Lines(text) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			h.Parameters[name] = value
		}
		plan, err := sim.ReadPlan(h)
		if err != nil {
			return
		}
		var again trace.Header
		plan.Describe(&again)
		same, err := sim.ReadPlan(again)
		if err != nil || !cmp.Equal(plan, same) {
			t.Fatalf("%v is read again as %v, %v", plan, same, err)
		}
		plan.Safety, plan.Bound = min(plan.Safety, 2*time.Second), min(plan.Bound, time.Minute)
		if _, err := twoPhase(t, 2, commit.Options{}).Run(plan, nil); err != nil && !errors.Is(err, sim.ErrSystem) {
			t.Fatal(err)
		}
	})
}
