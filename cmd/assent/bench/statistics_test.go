package bench

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// percentile is what the definition says, found by trying every value.
func TestPercentileIsItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Range(0, 20).Draw(t, "value"))
		}), 1, 50).Draw(t, "values")
		p := rapid.SampledFrom([]float64{0, 0.01, 0.25, 0.5, 0.75, 0.9, 0.99, 1}).Draw(t, "p")
		want := slices.Max(values)
		for _, candidate := range values {
			atMost := 0
			for _, v := range values {
				if v <= candidate {
					atMost++
				}
			}
			if float64(atMost) >= p*float64(len(values)) && candidate < want {
				want = candidate
			}
		}
		slices.Sort(values)
		if got := percentile(values, p); got != want {
			t.Fatalf("percentile(%v, %v) = %v, want %v", values, p, got, want)
		}
	})
}

// As many values lie below the median as above it.
func TestMedianIsInTheMiddle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(-10, 10), 1, 30).Draw(t, "values")
		m, below, above := median(values), 0, 0
		for _, v := range values {
			if v < m {
				below++
			}
			if v > m {
				above++
			}
		}
		if 2*below > len(values) || 2*above > len(values) {
			t.Fatalf("median(%v) = %v: %d below, %d above", values, m, below, above)
		}
		if len(values)%2 == 1 && !slices.Contains(values, m) {
			t.Fatalf("median(%v) = %v is none of them", values, m)
		}
	})
}

func TestStatisticsOfNothing(t *testing.T) {
	s := summarize(nil, nil)
	if s != (summary{}) || percentile(nil, 0.5) != 0 || median(nil) != 0 || ratio(1, 0) != 0 {
		t.Fatalf("nothing is summed up as %+v", s)
	}
	empty := summarize([]slice{{took: time.Second}}, []slice{{took: time.Second}})
	if math.IsNaN(empty.ofFloor) || math.IsInf(empty.p50OfFloor, 0) {
		t.Fatalf("slices without transactions are summed up as %+v", empty)
	}
}

// The ratio is that of each round: a machine that gets slower changes no ratio.
func TestRatiosAreOfTheSameRound(t *testing.T) {
	of := func(n int, latency time.Duration) slice {
		s := slice{took: time.Second}
		for range n {
			s.latencies = append(s.latencies, latency)
		}
		return s
	}
	floor := []slice{of(1000, 1*time.Millisecond), of(100, 10*time.Millisecond), of(10, 100*time.Millisecond)}
	half := []slice{of(500, 2*time.Millisecond), of(50, 20*time.Millisecond), of(5, 200*time.Millisecond)}
	got := summarize(half, floor)
	want := summary{
		throughput: 50, ofFloor: 0.5, p50: 2 * time.Millisecond, p99: 20 * time.Millisecond, p50OfFloor: 2, p99OfFloor: 2,
	}
	if got != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}
