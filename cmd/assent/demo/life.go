package demo

import (
	"context"
	"fmt"
	"time"
)

// When the registrar is killed: so long after it was ready; and every fifth time while it
// recovers from the kill before.
const (
	soonest         = 50 * time.Millisecond
	latest          = 1500 * time.Millisecond
	recoveringEvery = 5
)

// life is one run of the registrar, from its start to its end by a kill or an orderly one.
type life struct {
	*demo
	*process
	ready      time.Time // zero before
	asked      int
	doomed     bool // a kill is due
	recovering bool // the kill is due before it is ready
	killed     bool
	closing    bool // it was told to end
	due        <-chan time.Time
}

// live starts the registrar and lets it work until it is killed, or until all is done: then it
// reports that all is over.
func (d *demo) live(ctx context.Context) (over bool, err error) {
	p, err := startRegistrar(d.arguments, d.setup)
	if err != nil {
		return false, err
	}
	defer p.end()
	l := &life{demo: d, process: p}
	l.doomed = d.kills < d.o.kills && !d.interrupted
	l.recovering = l.doomed && (d.kills+1)%recoveringEvery == 0
	interrupt := ctx.Done()
	if d.interrupted {
		interrupt = nil
	}
	silence := time.NewTimer(patience)
	defer silence.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case m, more := <-p.messages:
			if !more {
				return l.ended()
			}
			silence.Reset(patience)
			err = l.take(m)
		case <-l.due:
			l.due, l.killed = nil, true
			err = p.kill()
		case <-interrupt:
			interrupt, d.interrupted = nil, true
			if !l.killed {
				l.doomed, l.due = false, nil
			}
			err = l.ask()
		case <-tick.C:
			d.show()
		case <-silence.C:
			err = fmt.Errorf("the registrar has said nothing for %v", patience)
		}
		if err != nil {
			return false, err
		}
	}
}

// take takes a message.
func (l *life) take(m message) error {
	switch {
	case m.Opening:
		if l.recovering {
			most := median(l.opens) + median(l.recoveries)
			l.due = time.After(l.within(0, most*5/4))
		}
	case len(m.Found) > 0:
		for _, id := range m.Found {
			l.found[id] = true
		}
	case m.Ready != nil:
		l.ready = time.Now()
		l.restarts = append(l.restarts, l.ready.Sub(l.started))
		l.opens = append(l.opens, m.Ready.Opening)
		l.recoveries = append(l.recoveries, m.Ready.Recovery)
		if l.doomed && !l.recovering {
			l.due = time.After(l.within(soonest, latest))
		}
	case m.Answer != nil:
		l.ledger.answered(*m.Answer)
	}
	return l.ask()
}

func (l *life) within(from, to time.Duration) time.Duration {
	return from + time.Duration(l.random.Int64N(int64(to-from)+1))
}

// ask keeps the registrar busy, or tells it to end when there is nothing left to ask.
func (l *life) ask() error {
	if l.ready.IsZero() || l.killed || l.closing {
		return nil
	}
	if l.enough() {
		l.closing = true
		return l.in.Close()
	}
	for len(l.ledger.pending) < l.o.workers {
		q, ok := l.ledger.next()
		if !ok {
			break
		}
		l.asked++
		if err := l.send(q); err != nil {
			return err
		}
	}
	if len(l.ledger.pending) == 0 {
		return fmt.Errorf("%d students and %d courses are too few for so many requests", l.o.students, l.o.courses)
	}
	return nil
}

// enough reports whether nothing more is to be asked. The last registrar must have done some work.
func (l *life) enough() bool {
	if l.interrupted {
		return true
	}
	return !l.doomed && int(l.ledger.last) >= l.o.transactions && l.asked >= 5*l.o.workers
}

// ended deals with the registrar's end.
func (l *life) ended() (over bool, err error) {
	if !l.ready.IsZero() {
		l.served += time.Since(l.ready)
	}
	err = l.wait()
	switch {
	case l.killed:
		l.kills++
		if l.ready.IsZero() {
			l.killsRecovering++
		}
		l.ledger.killed()
		return false, l.bad
	case l.interrupted && l.ready.IsZero() && err != nil:
		// Ctrl-C reached it before it could ignore that.
		return false, nil
	case err != nil:
		return false, err
	case !l.closing:
		return false, fmt.Errorf("the registrar ended by itself; see %s", l.process.log.Name())
	case len(l.ledger.pending) > 0:
		return false, fmt.Errorf("the registrar ended with %d requests unanswered", len(l.ledger.pending))
	}
	return true, nil
}

// show shows how far the demonstration is.
func (d *demo) show() {
	share := min(1, float64(d.ledger.ended())/float64(d.o.transactions))
	if d.o.kills > 0 {
		share = min(share, float64(d.kills)/float64(d.o.kills))
	}
	d.progress.show(share, fmt.Sprintf("%s transactions, %d of %d kills, %d recovered",
		thousands(d.ledger.ended()), d.kills, d.o.kills, len(d.found)))
}
