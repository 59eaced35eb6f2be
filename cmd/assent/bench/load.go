package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// patience bounds one transaction: what takes longer is an error.
const patience = 30 * time.Second

// drive has callers run transactions of w for d. With a rate of 0 each begins the next one when
// the last one has ended; else one arrives 1/rate seconds after the other and is taken by the
// first caller who is free, and a transaction that had to wait has waited since it arrived. What
// has begun is finished, also where ctx ends, and counted with the time that it takes.
func drive(ctx context.Context, w way, callers, rows int, d time.Duration, rate float64) (slice, error) {
	var arrivals atomic.Int64
	var failed atomic.Bool
	latencies := make([][]time.Duration, callers)
	errs := make([]error, callers)
	begin := time.Now()
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(begin.UnixNano()), uint64(c)))
			for ctx.Err() == nil && !failed.Load() {
				start := time.Now()
				if rate > 0 {
					due := begin.Add(time.Duration(float64(arrivals.Add(1)-1) / rate * float64(time.Second)))
					if due.Sub(begin) >= d {
						return
					}
					start = due
					if ahead := time.Until(due); ahead > 0 {
						time.Sleep(ahead)
						start = time.Now() // a late timer is not the way's fault
					}
				} else if start.Sub(begin) >= d && len(latencies[c]) > 0 { // however late it comes, it does one
					return
				}
				// Each caller has rows of its own, so nobody waits for a lock.
				row := c + callers*random.IntN(rows/callers)
				if errs[c] = transactOnce(ctx, w, row); errs[c] != nil {
					failed.Store(true)
					return
				}
				latencies[c] = append(latencies[c], time.Since(start))
			}
		})
	}
	wg.Wait()
	drained, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	err := errors.Join(append(errs, w.drain(drained))...)
	s := slice{took: time.Since(begin)}
	if rate > 0 {
		s.took = max(s.took, d)
	}
	s.latencies = slices.Concat(latencies...)
	slices.Sort(s.latencies)
	return s, err
}

// transactOnce runs one transaction, which Ctrl-C does not cut in two.
func transactOnce(ctx context.Context, w way, row int) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := w.transact(ctx, row); err != nil {
		return fmt.Errorf("%s: %w", w.name(), err)
	}
	return nil
}

// both runs f for 0 in this goroutine and for 1 in another, and joins their errors.
func both(f func(i int) error) error {
	second := make(chan error, 1)
	go func() { second <- f(1) }()
	return errors.Join(f(0), <-second)
}
