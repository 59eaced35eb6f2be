package bench

import (
	"slices"
	"time"
)

// percentile returns the least of the sorted values that at least the share p of them, from 0 to
// 1, does not exceed (the nearest-rank definition), or 0 where there are none.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(p * float64(len(sorted)))
	if float64(rank) < p*float64(len(sorted)) {
		rank++
	}
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// median returns the middle of values, or the mean of the two in the middle, or 0.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// ratio returns a/b, or 0 where b is 0: a figure that is not known.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// slice is what came of one way in one slice of time.
type slice struct {
	took      time.Duration
	latencies []time.Duration // sorted
}

func (s slice) throughput() float64 { return ratio(float64(len(s.latencies)), s.took.Seconds()) }

func (s slice) p50() float64 { return float64(percentile(s.latencies, 0.5)) }

// summary is what came of one way in all rounds.
type summary struct {
	throughput, ofFloor    float64
	p50, p99               time.Duration
	p50OfFloor, p99OfFloor float64
}

// summarize sums up the slices of one way, beside those of the floor in the same rounds.
func summarize(way, floor []slice) summary {
	var s summary
	var all []time.Duration
	var throughputs, ofFloor, p50s, p99s []float64
	for i, x := range way {
		all = append(all, x.latencies...)
		throughputs = append(throughputs, x.throughput())
		if i < len(floor) {
			ofFloor = append(ofFloor, ratio(x.throughput(), floor[i].throughput()))
			p50s = append(p50s, ratio(x.p50(), floor[i].p50()))
			p99s = append(p99s, ratio(float64(percentile(x.latencies, 0.99)), float64(percentile(floor[i].latencies, 0.99))))
		}
	}
	slices.Sort(all)
	s.throughput, s.ofFloor = median(throughputs), median(ofFloor)
	s.p50, s.p99 = percentile(all, 0.5), percentile(all, 0.99)
	s.p50OfFloor, s.p99OfFloor = median(p50s), median(p99s)
	return s
}
