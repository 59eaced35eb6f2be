package trace_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"assent/trace"
)

// script reads a trace in text without a codec, each line without its end.
func script(t *testing.T, lines ...string) []trace.Event {
	t.Helper()
	_, events, err := read([]byte(textHead+strings.Join(lines, "\n")), nil)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func TestCauses(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		want  []int
	}{
		{"numbers tell equal messages apart", []string{
			"0 t a send #1 to b m{}", "0 t a send #2 to b m{}",
			"0 t b deliver #2 receive a m{}", "0 t b deliver #1 receive a m{}",
		}, []int{-1, -1, 1, 0}},
		{"without numbers, in the order in which they left", []string{
			"0 t a send to b m{}", "0 t a send to b m{}", `0 t a send to b m{"x":1}`, "0 u a send to b m{}", "0 t a send to c m{}",
			`0 t b deliver receive a m{"x":1}`, "0 t b deliver receive a m{}", "0 u b deliver receive a m{}",
			"0 t b deliver receive a m{}", "0 t b deliver receive a m{}",
		}, []int{-1, -1, -1, -1, -1, 2, 0, 3, 1, -1}},
		{"a copy has a number of its own", []string{
			"0 t a send #1 to b m{}", "0 t b duplicate #2 from a m{}", "0 t b deliver #2 receive a m{}", "0 t b deliver #1 receive a m{}",
		}, []int{-1, 0, 1, 0}},
		{"a copy without numbers", []string{
			"0 t a send to b m{}", "0 t b duplicate from a m{}", "0 t b deliver receive a m{}", "0 t b lose from a m{}",
		}, []int{-1, 0, 0, 1}},
		{"what is altered arrives as what it became", []string{
			"0 t a send #1 to b m{}", `0 t b alter #1 from a m{"x":1}`, `0 t b deliver #1 receive a m{"x":1}`,
		}, []int{-1, 0, 1}},
		{"altered without numbers", []string{
			"0 t a send to b m{}", "0 t a send to b n{}", `0 t b alter from a m{"x":1}`, `0 t b deliver receive a m{"x":1}`, "0 t b deliver receive a n{}",
		}, []int{-1, -1, 0, 2, 1}},
		{"lost, by its number", []string{"0 t a send #1 to b m{}", "0 t b lose #1 from a"}, []int{-1, 0}},
		{"from nowhere", []string{"0 t b deliver #9 receive a m{}", "0 t b duplicate #8 from a m{}"}, []int{-1, -1}},
	} {
		if d := cmp.Diff(c.want, trace.Causes(script(t, c.lines...))); d != "" {
			t.Errorf("%s:\n%s", c.name, d)
		}
	}
}

// TestUntyped: typed events become what is read without a codec.
func TestUntyped(t *testing.T) {
	codec := newCodec(t)
	header, events := every()
	_, want, err := read(write(t, codec, header, events), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []trace.Event
	for _, e := range events {
		raw, err := trace.Untyped(e, codec)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, raw)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, err := trace.Untyped(trace.Event{Node: "c", Kind: trace.Emit, Value: struct{}{}}, codec); err == nil {
		t.Error("a value that is not registered became Raw")
	}
}

// TestShiVizClocks checks a log against what clocks mean: an event is before another if and only if
// its clock is less.
func TestShiVizClocks(t *testing.T) {
	events := script(t,
		"0 t a deliver start", "0 t a send #1 to b m{}", "0 t b deliver start", "0 t b deliver #1 receive a m{}",
		"0 t b send #2 to c m{}", `0 t "c d" deliver #2 receive b m{}`, "0 - a crash", "0 t a deliver recover")
	var b bytes.Buffer
	if err := trace.WriteShiViz(&b, events); err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		trace.ShiVizPattern, "",
		"starts", `a {"a":1}`,
		"sends m to b", `a {"a":2}`,
		"starts", `b {"b":1}`,
		"receives m from a", `b {"a":2,"b":2}`,
		"sends m to c", `b {"a":2,"b":3}`,
		"receives m from b", `c_d {"a":2,"b":3,"c_d":1}`,
		"crashes", `a {"a":3}`,
		"recovers without records", `a {"a":4}`, "",
	}, "\n")
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
}

// TestDescribe pins how events read, on the sample that has one of each kind.
func TestDescribe(t *testing.T) {
	data, err := os.ReadFile("chart/testdata/faults.txt")
	if err != nil {
		t.Fatal(err)
	}
	codec := newCodec(t)
	_, typed, err := read(data, codec)
	if err != nil {
		t.Fatal(err)
	}
	_, raw, err := read(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	for i, e := range raw {
		if a, b := trace.Describe(e), trace.Describe(typed[i]); a != b {
			t.Errorf("event %d reads %q without a codec and %q with it", i+1, a, b)
		}
		fmt.Fprintf(&said, "%s %s\n", e.Node, trace.Describe(e))
	}
	for _, want := range []string{
		"c sends Prepare to p1", "p3 Prepare from c is lost", "p2 Prepare from c is copied", "p1 receives Prepare from c",
		"p1 forced to stable storage: PreparedRecord", "p1 arms the timer inquire for 100ms", "p2 could not force to stable storage: PreparedRecord",
		"p2 crashes", "p3 is cut off from what c sends", "p1 timer inquire expires", "p2 recovers without records",
		"c what p2 sends becomes Voted(yes)", "p3 damage to stable storage: torn tail", "c hears from p3 again",
		"c says Concluded(abort no answer)", "c crashes within the step, after 3 of its messages",
		"c recovers with DecisionRecord(abort)", "p3 disarms the timer inquire", "c has done: starts",
	} {
		if !strings.Contains(said.String(), want+"\n") {
			t.Errorf("no event reads %q in\n%s", want, said.String())
		}
	}
}

// TestBriefRaw: without types, what is short and telling is told.
func TestBriefRaw(t *testing.T) {
	for json, want := range map[string]string{
		`{}`:                            "Elect",
		`{"ID":"t","Candidate":"n3"}`:   "Elect(n3)",
		`{"Ballot":3,"Leader":true}`:    "Elect(Ballot 3 Leader)",
		`{"Decision":"commit","N":1}`:   "Elect(commit)",
		`{"Decision":"undecided"}`:      "Elect",
		`{"List":[1,2],"Deep":{"a":1}}`: "Elect",
	} {
		if got := trace.Brief(trace.Raw{Name: "ring.Elect", JSON: []byte(json)}); got != want {
			t.Errorf("%s: got %q, want %q", json, got, want)
		}
	}
}
