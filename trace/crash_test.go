package trace_test

import (
	"testing"

	"assent/trace"
)

func TestSentBefore(t *testing.T) {
	for _, c := range []struct {
		event  trace.Event
		n      int
		within bool
	}{
		{trace.Event{Kind: trace.Crash}, 0, false},
		{trace.Event{Kind: trace.Crash, Value: trace.Sent(0)}, 0, true},
		{trace.Event{Kind: trace.Crash, Value: trace.Sent(12)}, 12, true},
		{trace.Event{Kind: trace.Crash, Value: "after -1 sends"}, -1, false},
		{trace.Event{Kind: trace.Crash, Value: "because"}, 0, false},
		{trace.Event{Kind: trace.Damage, Value: trace.Sent(1)}, 0, false},
	} {
		if n, within := trace.SentBefore(c.event); within != c.within || within && n != c.n {
			t.Errorf("%v %v: got %d, %v; want %d, %v", c.event.Kind, c.event.Value, n, within, c.n, c.within)
		}
	}
}
