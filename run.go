package assent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"assent/protocol/commit"
	"assent/resource"
)

// Option changes one transaction. Options of the manager's Config hold where none is given.
type Option func(*options)

type options struct {
	timeout time.Duration
	early   bool
	retries int
}

func (m *Manager) options(given []Option) options {
	o := options{timeout: m.cfg.Timeout, early: m.cfg.EarlyReply}
	for _, f := range given {
		f(&o)
	}
	if o.timeout <= 0 {
		o.timeout = m.cfg.Timeout
	}
	return o
}

// Timeout bounds the transaction instead of Config.Timeout.
func Timeout(d time.Duration) Option { return func(o *options) { o.timeout = d } }

// EarlyReply makes Commit return when the decision is stable, or not, instead of
// Config.EarlyReply.
func EarlyReply(on bool) Option { return func(o *options) { o.early = on } }

// Retry makes Run do the work again, in a new transaction and at most n more times, when it
// aborted because it conflicted with a concurrent one: a serialization failure, a deadlock or a
// lock timeout. Begin ignores it.
func Retry(n int) Option { return func(o *options) { o.retries = n } }

// Run begins a transaction, calls work, and commits if work returns nil. It rolls back when work
// returns an error, which the returned *AbortedError then wraps, or panics, which goes on. The
// context given to work ends with the transaction's timeout. Errors are those of Commit. Work must
// leave the end of tx to Run: where it has called tx.Commit or tx.Rollback itself, that call told the
// outcome, and Run returns ErrNotOpen, whatever the outcome was.
func (m *Manager) Run(ctx context.Context, work func(ctx context.Context, tx *Tx) error, given ...Option) error {
	o := m.options(given)
	for try := 0; ; try++ {
		err := m.runOnce(ctx, work, given, o)
		if err == nil || try >= o.retries || !errors.Is(err, ErrAborted) || !retryable(err) {
			return err
		}
		if !m.backOff(ctx, try) {
			return err
		}
	}
}

// retryable looks at all errors in err's tree: work may have wrapped a resource's error.
func retryable(err error) bool { return resource.CodeOf(err).Retryable() }

// backOff pauses before try number try+2, for a random time so that those who collided do not
// collide again.
func (m *Manager) backOff(ctx context.Context, try int) bool {
	most := time.Millisecond << min(try+1, 7)
	t := time.NewTimer(rand.N(most) + time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (m *Manager) runOnce(ctx context.Context, work func(context.Context, *Tx) error, given []Option, o options) error {
	tx, err := m.Begin(ctx, given...)
	if err != nil {
		return err
	}

	workCtx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	tx.setWork(workCtx, cancel)
	completed := false
	defer func() {
		if !completed { // work panicked, or ended its goroutine
			m.giveUp(ctx, tx, "the work panicked", nil)
		}
	}()
	err = work(workCtx, tx)
	completed = true
	if err != nil {
		return m.giveUp(ctx, tx, "", err)
	}
	return tx.Commit(ctx)
}

// giveUp rolls back, also when ctx has ended already, and returns what came of it.
func (m *Manager) giveUp(ctx context.Context, tx *Tx, reason string, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.cfg.FinishWait)
	defer cancel()
	why := &AbortedError{ID: tx.id, Cause: commit.Cancelled, By: "application", Reason: reason, Err: cause}
	err := tx.rollback(ctx, why)
	if errors.Is(err, ErrNotOpen) && cause != nil { // the timeout was quicker
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}
