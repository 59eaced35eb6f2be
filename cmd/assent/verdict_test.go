package main

import (
	"strings"
	"testing"

	"assent/check"
	"assent/spec"
)

// TestAVerdictOfACheckThatWasStopped: what was known by then is said, and what was not.
func TestAVerdictOfACheckThatWasStopped(t *testing.T) {
	whole := composition{always: []spec.Property{spec.AC1(), spec.AC2()}, ends: "AC5: all come to their end"}
	v := summary(whole, check.Report{Complete: true, Broken: []check.Counterexample{{Claim: spec.AC2().Name}}}, check.Report{Complete: true, BlockingKnown: true})
	v.stopped = true
	var b strings.Builder
	if err := v.print(&b, false, colours{}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"AC1: all who decide, decide alike", "holds", "does not hold", "not known", "ended before the shortest run"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%d: it does not say %q:\n%s", i, want, b.String())
		}
	}
	if v.Complete || !v.Properties[0].Holds || v.Properties[1].Holds || v.Properties[2].Known {
		t.Errorf("%+v", v)
	}
	v.Properties = v.Properties[:1:1]
	v.Properties = append(v.Properties, judgment{})
	if err := v.failure(); err == nil || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("the failure is %v", err)
	}
}
