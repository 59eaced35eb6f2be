package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"assent/decision"
)

func TestDecide(t *testing.T) {
	dir := t.TempDir()
	out, err := run(t.Context(), append([]string{"decide", "--json", "--dir", dir, "--only", "majority,disk,postgres"}, tiny()...)...)
	if err != nil {
		t.Fatal(err)
	}
	var r decideReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	want := []string{"floor", "majority", "disk", "postgres"}
	if len(r.Missing) > 0 && os.Getenv("ASSENT_REQUIRE_POSTGRES") != "1" {
		want = want[:3]
	}
	var places []string
	for _, x := range r.Lines {
		places = append(places, x.Place)
		f := x.Figure
		if f.Throughput <= 0 || f.P50 <= 0 || f.P99 < f.P50 || x.Place == "floor" && f.OfFloor != 1 {
			t.Errorf("%s at %d: %+v", x.Place, x.Concurrency, f)
		}
	}
	if !slices.Equal(places, slices.Concat(want, want)) || r.Incomplete {
		t.Errorf("got %v; want %v twice", places, want)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
}

func TestDecideRefuses(t *testing.T) {
	if _, err := run(t.Context(), "decide", "--only", "disk,clay-tablet"); err == nil || !strings.Contains(err.Error(), "clay-tablet") {
		t.Errorf("got %v", err)
	}
}

// stub is a place that forgets everything.
type stub struct {
	err    error
	closed *int
}

func (s stub) decide(context.Context, decision.Entry) error { return s.err }

func (s stub) close() error {
	*s.closed++
	return nil
}

// A place that is missing is named, one that cannot be made or fails is an error, and what was made is
// closed.
func TestDecideWithoutAPlace(t *testing.T) {
	failed := errors.New("the disk is on fire")
	for _, c := range []struct {
		opens, decides error
		lines          int
	}{
		{nil, nil, 4},
		{fmt.Errorf("%w: no such program", errMissing), nil, 2},
		{failed, nil, 0},
		{nil, failed, 0},
	} {
		closed := 0
		kinds := []deciderKind{
			{"floor", "floor", func(context.Context, string) (decider, error) { return stub{nil, &closed}, nil }},
			{"tablet", "clay tablet", func(context.Context, string) (decider, error) {
				if c.opens != nil {
					return nil, c.opens
				}
				return stub{c.decides, &closed}, nil
			}},
		}
		o := options{concurrency: []int{1, 2}, duration: time.Millisecond, rounds: 1, dir: t.TempDir()}
		r, err := benchDecide(t.Context(), o, kinds, newProgress(&bytes.Buffer{}))
		if len(r.Lines) != c.lines || errors.Is(err, failed) != (c.lines == 0) {
			t.Errorf("%v, %v: %d lines, %v", c.opens, c.decides, len(r.Lines), err)
		}
		if missing := errors.Is(c.opens, errMissing); missing != (len(r.Missing) == 1) {
			t.Errorf("%v: missing are %q", c.opens, r.Missing)
		}
		if opened := map[bool]int{true: 2, false: 1}[c.opens == nil]; closed != opened {
			t.Errorf("%d closed; want %d", closed, opened)
		}
	}
}
