package main

import (
	"bytes"
	"context"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestModels: both models are of eight resource managers, and so is the number of states.
func TestModels(t *testing.T) {
	if want := eighth(6) + eighth(4) + eighth(2); distinct != want {
		t.Errorf("%d states; want %d", distinct, want)
	}
	if !bytes.Contains(promela, []byte("#define N 8\n")) || !bytes.Contains(murphi, []byte("const N: 8;\n")) {
		t.Error("a model is of another size")
	}
}

// eighth returns the eighth power.
func eighth(base int) int {
	square := base * base
	return square * square * square * square
}

// TestSearch: a tool is measured when it finds the right number of states, and else is not.
func TestSearch(t *testing.T) {
	for said, want := range map[string]string{
		"1 states, stored; 1745408 states, stored": "",
		"1745407 states, stored":                   "does not find 1745408 states",
		"no":                                       "does not find 1745408 states",
	} {
		echo := tool{name: "echo", run: []string{"echo", said}, states: regexp.MustCompile(`(\d+) states, stored`)}
		m, err := echo.search(context.Background(), t.TempDir())
		switch {
		case want == "" && (err != nil || m.wall <= 0 || m.memory <= 0):
			t.Errorf("%q: %+v, %v", said, m, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: got %v; want %q", said, err, want)
		}
	}
	if _, err := (tool{name: "false", run: []string{"false"}}).search(context.Background(), t.TempDir()); err == nil {
		t.Error("a tool that fails is measured")
	}
}

func TestReport(t *testing.T) {
	seconds := func(all ...float64) (m []measure) {
		for _, s := range all {
			m = append(m, measure{wall: time.Duration(s * 1e9), processor: time.Duration(s * 1e9), memory: 10 * distinct})
		}
		return m
	}
	got := report([]tool{{name: "a"}, {name: "b"}}, map[string][]measure{"a": seconds(2, 1, 3), "b": seconds(4, 3, 3)}, 3)
	for _, want := range []string{"| a | 2.00 | 872704 | 2.00 | 872704 | 10 | 1.0, 1.0, 1.0 |", "| b | 3.00 | 581803 | 3.00 | 581803 | 10 | 2.0, 3.0, 1.0 |"} {
		if !strings.Contains(got, want) {
			t.Errorf("no line %q in\n%s", want, got)
		}
	}
}
