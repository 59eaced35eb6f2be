package main

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/sim"
	"assent/spec"
	"assent/trace"
)

// TestParametersStandInHeaders: what a trace's header says of a system makes the same system again.
func TestParametersStandInHeaders(t *testing.T) {
	for _, want := range []parameters{
		{participants: 2},
		{nodes: 3, proposers: 1},
		{participants: 3, votes: []commit.Vote{commit.Yes, commit.ReadOnly}, cooperative: true, voteRetries: 2,
			steadfast: true, unilateral: true, rounds: 4},
	} {
		got, err := readParameters(want.text())
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v: got %+v, want %+v; %v", want.text(), got, want, err)
		}
	}
	for name, value := range map[string]string{"participants": "two", "rounds": "", "votes": "maybe"} {
		if p, err := readParameters(map[string]string{name: value}); err == nil {
			t.Errorf("%s=%q is taken for %+v", name, value, p)
		}
	}
}

// TestSystemsAreMade: each protocol has as many nodes as it should, and says which of them are alike.
func TestSystemsAreMade(t *testing.T) {
	got := map[string][][]int{}
	for _, s := range systems() {
		if s.calm {
			continue // those have other parameters
		}
		c, err := s.make(parameters{participants: 3})
		if err != nil {
			t.Fatal(s.name, err)
		}
		got[s.name] = append([][]int{{len(c.nodes)}}, c.symmetric...)
		for _, n := range []int{0, 9} {
			if _, err := s.make(parameters{participants: n}); err == nil {
				t.Errorf("%s is made with %d participants", s.name, n)
			}
		}
	}
	want := map[string][][]int{"2pc": {{4}, {1, 2, 3}}, "2pc-peers": {{3}, {0, 1, 2}}, "3pc": {{4}}, "3pc-peers": {{3}}, "q3pc": {{4}}, "paxos": {{3}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestAgreementsAreMade: what agrees has as many nodes as it should in the checker and in the simulator, and claims
// of its own.
func TestAgreementsAreMade(t *testing.T) {
	got := map[string][]int{}
	for _, s := range systems() {
		if !s.calm {
			continue
		}
		for _, simulated := range []bool{false, true} {
			for _, nodes := range []int{0, 2} {
				c, err := s.make(parameters{nodes: nodes, rounds: s.rounds, simulated: simulated})
				if err != nil {
					t.Fatal(s.name, err)
				}
				if len(c.always) == 0 || len(c.sometimes) == 0 || c.done == nil && simulated || c.ends != "" {
					t.Errorf("%s claims %d always, %d sometimes, ends %q", s.name, len(c.always), len(c.sometimes), c.ends)
				}
				got[s.name] = append(got[s.name], len(c.nodes))
			}
		}
	}
	want := map[string][]int{"register": {4, 4, 7, 4}, "moving": {6, 6, 8, 7}, "log": {3, 2, 5, 2}, "membership": {3, 2, 6, 3}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestCheckWritesWhatReplays: the trace that assent check writes makes the same system again, and in the
// simulator the same claim is broken at its end.
func TestCheckWritesWhatReplays(t *testing.T) {
	for _, args := range [][]string{
		{"3pc", "--votes", "yes", "--partition", "--crashes", "0"},
		{"3pc", "--votes", "no,yes", "--unilateral"},
		{"3pc-peers", "--votes", "yes", "--model", "async"},
	} {
		var out, told bytes.Buffer
		p := program{out: &out, err: &told, getenv: func(string) string { return "" }}
		if code := p.run(append([]string{"check", "--trace", "-"}, args...)); code != exitUnsound {
			t.Fatalf("%v: exit code %d\n%s", args, code, told.String())
		}
		r, err := trace.NewReader(bytes.NewReader(out.Bytes()), nil)
		if err != nil {
			t.Fatal(err)
		}
		params, err := readParameters(r.Header().Parameters)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := sim.ReadPlan(r.Header())
		if err != nil {
			t.Fatal(err)
		}
		sys, err := findSystem(r.Header().System)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := sys.make(params)
		if err != nil {
			t.Fatal(err)
		}
		again := sim.System{Name: sys.name, Nodes: whole.nodes, Codec: whole.codec, Always: whole.always[:1]}
		report, err := again.Replay(plan, events(t, &out, whole.codec), nil)
		if err != nil || report.Failure == nil || report.Failure.Claim != spec.AC1().Name {
			t.Errorf("%v: %v, %v", args, report.Failure, err)
		}
	}
}

func events(t *testing.T, in io.Reader, codec *protocol.Codec) (all []trace.Event) {
	t.Helper()
	r, err := trace.NewReader(in, codec)
	if err != nil {
		t.Fatal(err)
	}
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
}
