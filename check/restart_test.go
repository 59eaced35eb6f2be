package check_test

import (
	"strings"
	"testing"

	"assent/check"
	"assent/protocol"
	"assent/spec"
)

// phoenix says once in its life that it came back: it puts that on record and tells p. It takes it that
// nothing can come between.
type phoenix struct{}

type (
	wasBack struct{}
	iAmBack struct{}
)

func (*phoenix) Step(ev protocol.Event, out *protocol.Effects) {
	if r, ok := ev.(protocol.Recover); ok && r.Records["back"] == nil {
		out.Put("back", wasBack{})
		out.Send("p", iAmBack{})
	}
}

// listener hears it.
type listener struct{ Heard bool }

func (l *listener) Step(ev protocol.Event, _ *protocol.Effects) {
	if _, ok := ev.(protocol.Receive); ok {
		l.Heard = true
	}
}

// TestCrashWithinARestart: what a node does when it is made anew is a step like others, and a crash may
// fall within it.
func TestCrashWithinARestart(t *testing.T) {
	codec, err := protocol.NewCodec(protocol.Type{Name: "phoenix", Zero: phoenix{}}, protocol.Type{Name: "listener", Zero: listener{}},
		protocol.Type{Name: "wasBack", Zero: wasBack{}}, protocol.Type{Name: "iAmBack", Zero: iAmBack{}})
	if err != nil {
		t.Fatal(err)
	}
	told := spec.Property{Name: "what is on record is told", Holds: func(v spec.View) bool {
		underWay := false
		v.(*check.State).UnderWay(func(int, int, protocol.Message) { underWay = true })
		return v.Record(0, "back") == nil || underWay || v.Machine(1).(*listener).Heard
	}}
	sys := check.System{Codec: codec, Nodes: []protocol.Node{
		{ID: "c", New: []func() protocol.Machine{func() protocol.Machine { return &phoenix{} }}},
		{ID: "p", New: []func() protocol.Machine{func() protocol.Machine { return &listener{} }}},
	}, Faults: check.Faults{Crashes: 1, Restarts: 1}}
	if r := complete(t, sys, check.Claims{Always: []spec.Property{told}}); len(r.Broken) != 0 {
		t.Errorf("one crash: %s", r.Broken[0])
	}
	sys.Faults.Crashes = 2
	r := complete(t, sys, check.Claims{Always: []spec.Property{told}})
	if len(r.Broken) != 1 || !strings.Contains(r.Broken[0].String(), "c is made anew, and crashes before a message has left") {
		t.Fatalf("a crash within the restart: %v", r.Broken)
	}
	replay(t, sys, r.Broken[0], nil)
}
