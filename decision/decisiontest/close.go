package decisiontest

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"assent/decision"
	"assent/protocol/commit"
)

// queued is a context that says when whoever was called with it waits.
type queued struct {
	context.Context
	waits func()
}

// Done is context.Context's.
func (q queued) Done() <-chan struct{} {
	q.waits()
	return q.Context.Done()
}

// CloseUnanswered closes a log whose storage does not answer while so many callers wait in its decision.Grouper, and wants
// most of them to be told decision.ErrClosed: a log does not try for each group as long as it would for one. There must be
// many groups of callers.
func CloseUnanswered(t *testing.T, log interface {
	decision.Log
	io.Closer
}, callers int) {
	t.Helper()
	var waiting, done sync.WaitGroup
	var untried atomic.Int64
	waiting.Add(callers)
	for i := range callers {
		done.Go(func() {
			_, err := log.Decide(queued{t.Context(), waiting.Done}, entry(name("late", i), commit.Commit))
			if errors.Is(err, decision.ErrClosed) {
				untried.Add(1)
			} else if err == nil {
				t.Error("it is decided")
			}
		})
	}
	waiting.Wait()
	if err := log.Close(); err != nil {
		t.Error(err)
	}
	done.Wait()
	if n := int(untried.Load()); n < callers/2 {
		t.Errorf("%d of %d were told that the log is closed; want the most of them", n, callers)
	}
}
