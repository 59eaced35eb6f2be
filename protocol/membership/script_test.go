package membership

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"assent/protocol"
	"assent/protocol/paxos"
)

// TestScripts plays the scripts of testdata. `go test -rewrite` writes their output anew.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{refs: map[string]ref{}}
		datadriven.RunTest(t, path, s.command)
	})
}

// script is the state of one file: nodes with a network on which messages take no time.
type script struct {
	n    *net
	last uint64
	refs map[string]ref
}

// ref names what was asked at a node.
type ref struct {
	node   protocol.NodeID
	number uint64
}

// The commands.
//
//	founders a b c               found a cluster
//	run TICKS                    let so many tenths of a second pass
//	cut NODE… | heal NODE…       cut nodes off from all others; let them be heard again
//	mute NODE                    what the node proposes is lost from now on; nothing, without a node
//	ask NAME NODE KIND TARGET    ask a node for a change of another
//	told NAME…                   what came of it
//	show NODE…                   views, and where the nodes stand
func (s *script) command(t *testing.T, d *datadriven.TestData) string {
	var words []string
	var nodes []protocol.NodeID
	for _, a := range d.CmdArgs {
		words, nodes = append(words, a.Key), append(nodes, protocol.NodeID(a.Key))
	}
	switch d.Cmd {
	case "founders":
		s.n = newNet(t, Options{}, nodes...)
	case "run":
		var ticks int
		if _, err := fmt.Sscan(words[0], &ticks); err != nil {
			t.Fatal(err)
		}
		s.n.run(ticks)
	case "cut", "heal":
		for _, id := range nodes {
			s.n.cut[id] = d.Cmd == "cut"
		}
	case "mute":
		s.n.lost = func(from, _ protocol.NodeID, m protocol.Message) bool {
			_, proposal := m.(paxos.LogPhase2a[Change])
			return proposal && len(nodes) > 0 && from == nodes[0]
		}
	case "ask":
		c := Change{Node: nodes[3], Operator: "alice"}
		if err := c.Kind.UnmarshalText([]byte(words[2])); err != nil {
			t.Fatal(err)
		}
		s.last++
		s.refs[words[0]] = ref{nodes[1], s.last}
		s.n.give(nodes[1], protocol.Input{Value: Ask{Ref: s.last, Change: c}})
	case "told":
		return s.told(words)
	case "show":
		return s.show(nodes)
	default:
		t.Fatalf("there is no command %s", d.Cmd)
	}
	return ""
}

func (s *script) told(names []string) string {
	var b strings.Builder
	for _, name := range names {
		r := s.refs[name]
		switch a := s.n.answered(r.node, r.number); {
		case a.Result == 0:
			fmt.Fprintf(&b, "%s: nothing yet\n", name)
		case a.Why != "":
			fmt.Fprintf(&b, "%s: %v: %s\n", name, a.Result, a.Why)
		default:
			fmt.Fprintf(&b, "%s: %v\n", name, a.Result)
		}
	}
	return b.String()
}

func (s *script) show(nodes []protocol.NodeID) string {
	var b strings.Builder
	for _, id := range nodes {
		at := s.n.standing(id)
		fmt.Fprintf(&b, "%s: view %s, led by %q", id, voters(s.n.nodes[id].State.View), at.Leader)
		if at.Why != "" {
			fmt.Fprintf(&b, ", %s", at.Why)
		}
		b.WriteString("\n")
	}
	return b.String()
}
