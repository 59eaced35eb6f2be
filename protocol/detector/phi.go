package detector

import "math"

// Phi returns the level of suspicion after a silence of elapsed, when the intervals between signs of
// life have the given mean and standard deviation, which must not be zero: the negative decimal
// logarithm of the probability that the next sign is still to come (φ accrual: Hayashibara, Défago,
// Yared and Katayama 2004). All are in the same unit. At 1 about one suspicion in ten is a mistake, at
// 2 one in a hundred, if the intervals are distributed normally. It is at most 300.
//
// The tail of the normal distribution is taken from a logistic approximation, which overstates phi far
// out, where only its order matters.
func Phi(elapsed, mean, deviation float64) float64 {
	y := (elapsed - mean) / deviation
	e := math.Exp(-y * (1.5976 + 0.070566*y*y))
	tail := e / (1 + e)
	if math.IsInf(e, 1) {
		tail = 1
	}
	return min(-math.Log10(tail), 300) + 0 // not -0
}

// spread returns the mean and the standard deviation of intervals.
func spread(intervals []int) (mean, deviation float64) {
	for _, n := range intervals {
		mean += float64(n)
	}
	mean /= float64(len(intervals))
	for _, n := range intervals {
		deviation += (float64(n) - mean) * (float64(n) - mean)
	}
	return mean, math.Sqrt(deviation / float64(len(intervals)))
}
