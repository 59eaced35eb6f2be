package trace_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"assent/protocol"
	"assent/trace"
)

// TestFilter selects from ten events by number.
func TestFilter(t *testing.T) {
	events := script(t,
		"0 -    b crash",                            // 1
		"1 tx-1 coordinator: deliver start",         // 2
		"1 tx-1 coordinator: send to b m{}",         // 3
		"2 tx-2 coordinator: deliver start",         // 4
		"2 -    b cut from coordinator:",            // 5
		"3 -    a cut from b",                       // 6
		"3 tx-1 b deliver receive coordinator: m{}", // 7
		"4 -    a crash",                            // 8
		"5 tx-2 a deliver start",                    // 9
		"6 -    b crash",                            // 10
	)
	for _, c := range []struct {
		name   string
		filter trace.Filter
		want   []int
		err    string
	}{
		{"all", trace.Filter{}, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, ""},
		{"a scope, with what happens to nodes meanwhile", trace.Filter{Scope: "tx-1"}, []int{2, 3, 5, 6, 7}, ""},
		{"by the end of its name", trace.Filter{Scope: "-2"}, []int{4, 5, 6, 8, 9}, ""},
		{"a name that fits two", trace.Filter{Scope: "tx"}, []int{2, 3, 4, 5, 6, 7, 8, 9}, `2 scopes begin or end with "tx"`},
		{"no such scope", trace.Filter{Scope: "ty"}, nil, "no event is in this part"},
		{"nodes", trace.Filter{Nodes: []protocol.NodeID{"b", "coordinator"}}, []int{1, 2, 3, 4, 5, 7, 10}, ""},
		{"numbers", trace.Filter{From: 3, To: 4}, []int{3, 4}, ""},
		{"times", trace.Filter{Since: 2 * time.Second, Until: 3 * time.Second}, []int{4, 5, 6, 7}, ""},
		{"choices", trace.Filter{Choices: true, From: 2, To: 5}, []int{2, 4, 5}, ""},
	} {
		s := c.filter.Select()
		for _, e := range events {
			s.Add(e)
		}
		if d := cmp.Diff(c.want, s.Numbers); d != "" || len(s.Events) != len(s.Numbers) {
			t.Errorf("%s: %d events\n%s", c.name, len(s.Events), d)
		}
		err := s.End()
		if (err == nil) != (c.err == "") || err != nil && !bytes.Contains([]byte(err.Error()), []byte(c.err)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.err)
		}
		if len(c.want) == 0 && !errors.Is(err, trace.ErrNothing) {
			t.Errorf("%s: %v is not ErrNothing", c.name, err)
		}
		var b bytes.Buffer
		if err := s.Write(&b, trace.Header{}, true); err != nil {
			t.Fatal(err)
		}
		if _, again, err := read(b.Bytes(), nil); err != nil || len(again) != len(s.Events) {
			t.Errorf("%s: written, it has %d events, %v", c.name, len(again), err)
		}
	}
}

func TestDigest(t *testing.T) {
	d := trace.NewDigest()
	for _, e := range script(t,
		"1 t1 c deliver start", "1 t1 p deliver start", "2 t2 c deliver start",
		`3 t2 c emit commit.Concluded{"Decision":"commit"}`, "4 - p crash", "5 t1 p deliver recover",
		"6 t1 p emit other{}", "7 t3 p deliver start", `8 t1 c emit commit.Concluded{"Decision":"abort","Cause":"settled"}`) {
		d.Add(e)
	}
	var got []string
	for _, s := range d.Scopes() {
		got = append(got, fmt.Sprintf("%s: %d events from %d, %v, %d nodes; %s", s.Name, s.Events, s.First, s.Ended-s.Began, s.Nodes, s.Remark()))
	}
	want := []string{
		"t1: 5 events from 1, 7s, 2 nodes; crossed by a crash, Concluded(abort settled)",
		"t2: 2 events from 3, 1s, 1 nodes; Concluded(commit)",
		"t3: 1 events from 8, 0s, 1 nodes; ",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
