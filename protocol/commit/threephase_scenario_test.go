package commit_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/spec"
)

// TestThreePhaseScenarios runs the scripts of testdata/threephase, each of which names the passage that
// it plays. The trace is the golden output; `go test -rewrite` writes it anew. What a script is
// to show of AC1 it says with the command agree.
func TestThreePhaseScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/threephase", func(t *testing.T, path string) {
		s := &sitesScript{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return s.command(t, d) })
	})
}

// sitesScript is the state of one file: a world, and the trace since the last command.
type sitesScript struct {
	w     *sites
	trace strings.Builder
}

// The commands. A cut is written crash=K: the node crashes after K parts of what the step entails,
// where the stable writes are the first part and each message is one.
//
//	system elected|unilateral|quorum participants=N [no=p1]   make c and p1 to pN; one votes no
//	start                     everybody begins
//	run                       all that is under way arrives, and what follows from it
//	get TO MESSAGE [crash=K]  TO receives the first MESSAGE on its way to it
//	drop TO MESSAGE           that message is lost
//	expire NODE TIMER [crash=K]
//	split NODE...             these are cut off from the others; what is between them is lost
//	heal                      the network is whole again
//	crash|restart NODE
//	agree                     whether AC1 to AC3 hold
//	show                      where everybody stands
func (s *sitesScript) command(t *testing.T, d *datadriven.TestData) string {
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
	switch d.Cmd {
	case "system":
		s.system(t, d, arg(0))
	case "start":
		for i := range s.w.nodes {
			s.w.step(i, protocol.Start{}, whole)
		}
	case "run":
		s.w.run()
	case "get":
		s.w.deliver(s.find(d, arg(0), arg(1)), cut)
	case "drop":
		k := s.find(d, arg(0), arg(1))
		s.w.inFlight = append(s.w.inFlight[:k:k], s.w.inFlight[k+1:]...)
	case "expire":
		if !s.w.expire(s.node(d, arg(0)), arg(1), cut) {
			d.Fatalf(t, "no timer %s is armed at %s", arg(1), arg(0))
		}
	case "split":
		var apart []int
		for _, a := range d.CmdArgs {
			apart = append(apart, s.node(d, a.Key))
		}
		s.w.split(apart...)
	case "heal":
		s.w.split()
	case "crash":
		s.w.crash(s.node(d, arg(0)))
	case "restart":
		s.w.restart(s.node(d, arg(0)))
	case "agree":
		s.agree()
	case "show":
		s.show()
	default:
		d.Fatalf(t, "unknown command %q", d.Cmd)
	}
	if s.trace.Len() == 0 {
		return "ok\n"
	}
	return s.trace.String()
}

func (s *sitesScript) system(t *testing.T, d *datadriven.TestData, kind string) {
	var n int
	d.ScanArgs(t, "participants", &n)
	votes := []commit.Vote{commit.Yes, commit.No}
	var nodes []protocol.Node
	var err error
	switch kind {
	case "elected", "unilateral":
		nodes, err = commit.ThreePhase{Participants: n, Votes: votes, Options: commit.Options{Unilateral: kind == "unilateral"}}.Nodes()
	case "quorum":
		nodes, err = commit.QuorumThreePhase{Participants: n, Votes: votes}.Nodes()
	default:
		d.Fatalf(t, "unknown system %q", kind)
	}
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	ways := make([]int, len(nodes))
	if d.HasArg("no") {
		var id string
		d.ScanArgs(t, "no", &id)
		for i, node := range nodes {
			if string(node.ID) == id {
				ways[i] = 1
			}
		}
	}
	s.w = newSites(nodes, ways)
	s.w.log = func(f string, a ...any) { fmt.Fprintf(&s.trace, f+"\n", a...) }
}

func (s *sitesScript) node(d *datadriven.TestData, id string) int {
	i := s.w.index(protocol.NodeID(id))
	if i < 0 {
		panic(fmt.Sprintf("%s: there is no node %s", d.Pos, id))
	}
	return i
}

func (s *sitesScript) find(d *datadriven.TestData, to, what string) int {
	for k, l := range s.w.inFlight {
		if string(s.w.nodes[l.to].ID) == to && strings.HasPrefix(brief(l.message), what) {
			return k
		}
	}
	panic(fmt.Sprintf("%s: no %s is on its way to %s", d.Pos, what, to))
}

func (s *sitesScript) agree() {
	for _, p := range []spec.Property{spec.AC1(), spec.AC2(), spec.AC3()} {
		verdict := "holds"
		if !p.Holds(s.w) {
			verdict = "BROKEN"
		}
		s.w.log("%s: %s", p.Name, verdict)
	}
}

func (s *sitesScript) show() {
	for i, n := range s.w.nodes {
		text := "down"
		if m := s.w.machines[i]; m != nil {
			text = stands(m)
		}
		s.w.log("%s: %s", n.ID, text)
	}
}
