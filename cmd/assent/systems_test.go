package main

import (
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"assent/protocol/commit"
)

// TestParametersStandInHeaders: what a trace's header says of a system makes the same system again.
func TestParametersStandInHeaders(t *testing.T) {
	for _, want := range []parameters{
		{participants: 2},
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
	want := map[string][][]int{"2pc": {{4}, {1, 2, 3}}, "2pc-peers": {{3}, {0, 1, 2}}, "3pc": {{4}}, "3pc-peers": {{3}}, "q3pc": {{4}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
