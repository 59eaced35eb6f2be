package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// benchCommit measures every way at every concurrency. Where it fails or ctx ends, it returns what
// is known by then, too.
func benchCommit(ctx context.Context, o options, p *progress) (r *commitReport, err error) {
	r = newCommitReport(o)
	defer p.done()
	p.say("starting")
	d, err := openDatabases(ctx, o)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	r.Databases = d.describe()
	for _, callers := range o.concurrency {
		m := &measurement{o: o, d: d, p: p, callers: callers, r: r}
		err := m.run(ctx)
		m.report()
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

// measurement is that of all ways at one concurrency.
type measurement struct {
	o       options
	d       *databases
	p       *progress
	callers int
	r       *commitReport
	results []result // of each kind
}

// result is what is known of one way.
type result struct {
	kind   int
	slices []slice // of each round
	paced  []slice // of each round at a given load
	cost   cost
}

// cost is what one transaction takes, on average.
type cost struct {
	known      bool
	logSyncs   float64
	walSyncs   float64 // negative where the server does not tell
	roundTrips float64
}

func (m *measurement) run(ctx context.Context) error {
	for k, kind := range kinds {
		if !kind.asked(m.o) {
			continue
		}
		m.p.say("concurrency %d: counting, %s", m.callers, kind.name)
		c, err := m.count(ctx, k)
		if err != nil {
			return err
		}
		m.results = append(m.results, result{kind: k, cost: c})
	}
	s, err := openStage(ctx, m.d, m.o, m.callers)
	if err != nil {
		return err
	}
	defer s.close() // nothing is lost that a way has reported
	ways := make([]way, 0, len(m.results))
	defer func() {
		for _, w := range ways {
			_ = w.close() // its transactions are finished
		}
	}()
	for i := range m.results {
		w, err := kinds[m.results[i].kind].open(ctx, s)
		if err != nil {
			return err
		}
		ways = append(ways, w)
		if _, err := m.slice(ctx, w, m.warm(), 0); err != nil {
			return err
		}
	}
	if err := m.rounds(ctx, ways, 0); err != nil || m.o.load == 0 {
		return err
	}
	floor := summarize(m.results[0].slices, nil)
	return m.rounds(ctx, ways, m.o.load*floor.throughput)
}

// warm is for how long a way runs before it is measured.
func (m *measurement) warm() time.Duration { return m.o.duration/4 + time.Millisecond }

// rounds lets the ways take turns. Each round begins with another way, so that none always comes
// after the same one.
func (m *measurement) rounds(ctx context.Context, ways []way, rate float64) error {
	what := "all it takes"
	if rate > 0 {
		what = fmt.Sprintf("%.0f transactions/s", rate)
	}
	for round := range m.o.rounds {
		m.p.say("concurrency %d, %s: round %d of %d", m.callers, what, round+1, m.o.rounds)
		done := make([]slice, len(ways))
		for i := range ways {
			i = (i + round) % len(ways)
			var err error
			if done[i], err = m.slice(ctx, ways[i], m.o.duration, rate); err != nil {
				return err
			}
		}
		for i := range done {
			if rate > 0 {
				m.results[i].paced = append(m.results[i].paced, done[i])
			} else {
				m.results[i].slices = append(m.results[i].slices, done[i])
			}
		}
	}
	return nil
}

// slice measures one slice. A slice that Ctrl-C cuts short is an error, and no figure.
func (m *measurement) slice(ctx context.Context, w way, d time.Duration, rate float64) (slice, error) {
	s, err := drive(ctx, w, m.callers, m.o.rows, d, rate)
	if err == nil {
		err = ctx.Err()
	}
	return s, err
}

// count counts what transactions of one kind take while nothing else happens.
func (m *measurement) count(ctx context.Context, kind int) (c cost, err error) {
	before, err := m.d.syncs(ctx)
	if err != nil {
		return c, err
	}
	c, n, err := m.countOpen(ctx, kind)
	if err != nil {
		return c, err
	}
	after, err := m.d.syncs(ctx)
	if m.d.syncsSQL == "" {
		c.walSyncs = -1
		return c, err
	}
	c.walSyncs = ratio(float64(after-before), n)
	return c, err
}

// countOpen opens the way of that kind, runs n transactions and closes it.
func (m *measurement) countOpen(ctx context.Context, kind int) (c cost, n float64, err error) {
	s, err := openStage(ctx, m.d, m.o, m.callers)
	if err != nil {
		return c, 0, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	w, err := kinds[kind].open(ctx, s)
	if err != nil {
		return c, 0, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	// Connections are made and statements prepared before round trips are counted.
	first, err := m.slice(ctx, w, m.warm(), 0)
	if err != nil {
		return c, 0, err
	}
	trips, syncs := s.trips.Load(), logSyncs(w)
	steady, err := m.slice(ctx, w, m.o.duration/2+time.Millisecond, 0)
	if err != nil {
		return c, 0, err
	}
	n = float64(len(steady.latencies))
	c = cost{known: true, roundTrips: ratio(float64(s.trips.Load()-trips), n), logSyncs: ratio(float64(logSyncs(w)-syncs), n)}
	return c, n + float64(len(first.latencies)), nil
}

// logSyncs returns how often the decision log of w was forced.
func logSyncs(w way) uint64 {
	switch w := w.(type) {
	case *managed:
		return w.log.syncs()
	case *byHand:
		if w.log != nil {
			return w.log.syncs.Load()
		}
	}
	return 0
}
