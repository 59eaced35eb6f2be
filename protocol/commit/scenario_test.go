package commit

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"assent/protocol"
)

// TestScenarios runs the scripts of testdata/scenarios, each of which names the passage of the
// lectures that it plays. The trace is the golden output; `go test -rewrite` writes it anew.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
		s := &script{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			return s.command(t, d)
		})
	})
}

// script is the state of one file: a world, and the trace since the last command.
type script struct {
	w     *world
	trace strings.Builder
}

// The commands. A cut is written crash=K: the node crashes after K parts of what the step entails,
// where the stable writes are the first part and each message is one.
//
//	world a b [retries=N] [cooperative] [two-phase]   make participants a and b
//	start                        the coordinator begins
//	run                          everything happens, except timers and what is held
//	get TO MESSAGE [crash=K]     TO receives the first MESSAGE on its way to it
//	do NODE [crash=K]            NODE's first request to its branch or register is answered
//	drop|hold|free|repeat TO MESSAGE   treat a message on its way: lose it, delay it, end the delay, copy it
//	vote NODE yes|no|read-only   what NODE's branch will answer
//	settle                       somebody else has abort written in the register, if nothing is
//	deaf|hear NODE               NODE's branch (for c: the register) cannot be reached, or can again
//	expire NODE TIMER [crash=K]  a timer runs out
//	cancel                       the application gives up
//	crash|restart NODE
//	show                         states, and what is under way
func (s *script) command(t *testing.T, d *datadriven.TestData) string {
	s.trace.Reset()
	arg := func(i int) string {
		if i < len(d.CmdArgs) {
			return d.CmdArgs[i].Key
		}
		return ""
	}
	cut := whole
	if d.HasArg("crash") {
		d.ScanArgs(t, "crash", &cut)
	}
	node := protocol.NodeID(arg(0))
	switch d.Cmd {
	case "world":
		s.world(t, d)
	case "start":
		s.w.step(coordinator, protocol.Start{}, cut)
	case "run":
		s.w.run()
	case "get":
		s.w.deliver(s.find(d, node, arg(1)), cut)
	case "do":
		s.do(d, node, cut)
	case "drop", "hold", "free", "repeat":
		s.meddle(d, node, arg(1))
	case "vote":
		s.w.branches[node].vote = map[string]Vote{"yes": Yes, "no": No, "read-only": ReadOnly}[arg(1)]
	case "settle":
		if s.w.register == Undecided {
			s.w.register = Abort
		}
	case "deaf", "hear":
		if node == coordinator {
			s.w.refusing = d.Cmd == "deaf"
		} else {
			s.w.branches[node].deaf = d.Cmd == "deaf"
		}
	case "expire":
		if !s.w.expire(node, arg(1), cut) {
			d.Fatalf(t, "no timer %s is armed at %s", arg(1), node)
		}
	case "cancel":
		s.w.step(coordinator, protocol.Input{Value: Cancel{Reason: "given up"}}, cut)
	case "crash":
		s.w.crash(node)
	case "restart":
		s.w.restart(node)
	case "show":
		s.show()
	default:
		d.Fatalf(t, "unknown command %q", d.Cmd)
	}
	s.w.check(t)
	if s.trace.Len() == 0 {
		return "ok\n"
	}
	return s.trace.String()
}

func (s *script) world(t *testing.T, d *datadriven.TestData) {
	var names []protocol.NodeID
	var o Options
	for _, a := range d.CmdArgs {
		switch a.Key {
		case "retries":
			n, err := strconv.Atoi(a.Vals[0])
			if err != nil {
				d.Fatalf(t, "retries: %v", err)
			}
			o.VoteRetries = n
		case "cooperative":
			o.Cooperative = true
		case "two-phase":
			o.NoOnePhase = true
		default:
			names = append(names, protocol.NodeID(a.Key))
		}
	}
	s.w = newWorld(names, o)
	s.w.log = func(f string, a ...any) { fmt.Fprintf(&s.trace, f+"\n", a...) }
}

// find returns the first message to node whose description begins with what.
func (s *script) find(d *datadriven.TestData, to protocol.NodeID, what string) int {
	for i, e := range s.w.inFlight {
		if e.to == to && strings.HasPrefix(describe(e.message), what) {
			return i
		}
	}
	panic(fmt.Sprintf("%s: no %s is on its way to %s", d.Pos, what, to))
}

func (s *script) do(d *datadriven.TestData, node protocol.NodeID, cut int) {
	for i, r := range s.w.pending {
		if r.node == node {
			s.w.log("%s: %s is answered", node, describe(r.value))
			s.w.answer(i, cut)
			return
		}
	}
	panic(fmt.Sprintf("%s: %s has asked for nothing", d.Pos, node))
}

func (s *script) meddle(d *datadriven.TestData, to protocol.NodeID, what string) {
	i := s.find(d, to, what)
	switch d.Cmd {
	case "drop":
		s.w.inFlight = append(s.w.inFlight[:i:i], s.w.inFlight[i+1:]...)
	case "hold", "free":
		s.w.inFlight[i].held = d.Cmd == "hold"
	case "repeat":
		s.w.inFlight = append(s.w.inFlight, s.w.inFlight[i])
	}
}

func (s *script) show() {
	for _, n := range append([]protocol.NodeID{coordinator}, s.w.names...) {
		text := "down"
		if m := s.w.machines[n]; m != nil {
			text = state(m)
		}
		if b := s.w.branches[n]; b != nil {
			text += ", branch " + b.state
		} else {
			text += fmt.Sprintf(", register %v", s.w.register)
		}
		s.w.log("%s: %s", n, text)
	}
	for _, e := range s.w.inFlight {
		s.w.log("under way: %s from %s to %s", describe(e.message), e.from, e.to)
	}
	for _, a := range s.w.armed() {
		s.w.log("armed: %s at %s", a[1], a[0])
	}
}
