package sim

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"
)

// Summary is what many seeds have shown.
type Summary struct {
	// Seeds counts those that were run; Failed are the reports of those that broke a claim, by seed, at
	// most MaxFailed of them; Failures counts them all.
	Seeds, Failures int
	Failed          []Report
	// Events and Messages are sums; Simulated is the sum of the runs' own times, Elapsed the real time.
	Events, Messages   uint64
	Simulated, Elapsed time.Duration
	// Drawn counts the seeds whose plan has a fault of the class, Fired those in which one has had an
	// effect, and Reached those that have reached what is named.
	Drawn, Fired map[Class]int
	Reached      map[string]int
}

// MaxFailed is the greatest number of reports that a Summary keeps.
const MaxFailed = 100

// Seeds runs the seeds from first up to last, on all processors unless workers says otherwise.
// progress, if set, is called about once a second and at the end. It ends at the first error, and when
// ctx ends, with what is known.
func Seeds(ctx context.Context, s Subject, first, last uint64, classes []Class, workers int, progress func(Summary)) (Summary, error) {
	c := campaign{subject: s, classes: classes, next: first, last: last, begun: time.Now(), progress: progress,
		sum: Summary{Drawn: map[Class]int{}, Fired: map[Class]int{}, Reached: map[string]int{}}}
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var all sync.WaitGroup
	for range workers {
		all.Go(func() { c.work(ctx) })
	}
	all.Wait()
	c.sum.Elapsed = time.Since(c.begun)
	slices.SortFunc(c.sum.Failed, func(a, b Report) int {
		if a.Plan.Seed < b.Plan.Seed {
			return -1
		}
		return 1
	})
	if progress != nil {
		progress(c.sum)
	}
	return c.sum, c.err
}

// campaign is one call of Seeds.
type campaign struct {
	subject  Subject
	classes  []Class
	last     uint64
	begun    time.Time
	progress func(Summary)

	mu   sync.Mutex
	next uint64
	over bool
	told time.Time
	sum  Summary
	err  error
}

func (c *campaign) take() (seed uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.next > c.last || c.err != nil {
		return 0, false
	}
	seed = c.next
	c.next++
	c.over = seed == c.last // or else the last number of all would be followed by the first
	return seed, true
}

func (c *campaign) work(ctx context.Context) {
	for ctx.Err() == nil {
		seed, ok := c.take()
		if !ok {
			return
		}
		plan := c.subject.Draw(seed, c.classes)
		r, err := c.subject.Run(plan, nil)
		r.Plan = plan
		c.add(r, err)
	}
}

func (c *campaign) add(r Report, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if c.err == nil {
			c.err = err
		}
		return
	}
	c.sum.Seeds++
	c.sum.Events += r.Events
	c.sum.Messages += r.Messages
	c.sum.Simulated += r.Simulated
	if r.Failure != nil {
		c.sum.Failures++
		if len(c.sum.Failed) < MaxFailed {
			c.sum.Failed = append(c.sum.Failed, r)
		}
	}
	drawn := map[Class]bool{}
	for _, f := range r.Plan.Faults {
		drawn[f.Class] = true
	}
	for class := range drawn {
		c.sum.Drawn[class]++
	}
	for class := range r.Fired {
		c.sum.Fired[class]++
	}
	for name := range r.Reached {
		c.sum.Reached[name]++
	}
	if c.progress != nil && time.Since(c.told) > time.Second {
		c.told = time.Now()
		s := c.sum
		s.Elapsed = time.Since(c.begun)
		s.Drawn, s.Fired, s.Reached = maps.Clone(s.Drawn), maps.Clone(s.Fired), maps.Clone(s.Reached)
		s.Failed = slices.Clone(s.Failed)
		c.progress(s)
	}
}
