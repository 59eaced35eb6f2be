package decision

import (
	"context"
	"fmt"
	"sync"

	"assent/engine"
	"assent/resource"
)

// Grouper has calls that are made at the same time carried out together, so that one round trip or
// one forced write serves many. A call that finds a free worker waits for nothing but that those who are
// ready to run, and may be about to call, go first. All methods are safe for concurrent use.
type Grouper[C any] struct {
	cfg     GrouperConfig[C]
	mu      sync.Mutex
	queue   []*grouped[C]
	closed  bool
	wake    chan struct{} // has a value where a worker should look at the queue
	ending  chan struct{}
	workers sync.WaitGroup
}

// GrouperConfig says how calls are grouped. Every field is required.
type GrouperConfig[C any] struct {
	// Serve carries out a group and leaves each answer in its call. The calls are in the order in
	// which they were made. Up to Workers groups are carried out at a time.
	Serve   func(group []C)
	Workers int
	// MostCalls and MostBytes bound a group; a single call may have more bytes. Size tells a call's.
	MostCalls, MostBytes int
	Size                 func(C) int
	// MostWaiting is the greatest number of calls that wait; more are refused.
	MostWaiting int
}

type grouped[C any] struct {
	call C
	done chan struct{}
}

// NewGrouper starts the workers. Close ends them.
func NewGrouper[C any](cfg GrouperConfig[C]) *Grouper[C] {
	g := &Grouper[C]{cfg: cfg, wake: make(chan struct{}, cfg.Workers), ending: make(chan struct{})}
	for range cfg.Workers {
		g.workers.Go(g.work)
	}
	return g
}

// Do returns nil when the call has been carried out. When ctx ends first, it returns ctx's cause, and
// the call may still be carried out, so the caller must not touch it again. It returns ErrClosed
// after Close, and an error with resource.Capacity where too many wait.
func (g *Grouper[C]) Do(ctx context.Context, call C) error {
	w := &grouped[C]{call, make(chan struct{})}
	g.mu.Lock()
	switch {
	case g.closed:
		g.mu.Unlock()
		return ErrClosed
	case len(g.queue) >= g.cfg.MostWaiting:
		g.mu.Unlock()
		return &resource.Error{
			Code: resource.Capacity, Op: "wait for the decision log", Hint: "the log does not keep up; wait and repeat the call",
			Err: fmt.Errorf("%d calls are waiting already", g.cfg.MostWaiting),
		}
	}
	g.queue = append(g.queue, w)
	g.mu.Unlock()
	g.rouse()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close refuses further calls, carries out those that wait, and returns when that is done.
func (g *Grouper[C]) Close() {
	g.mu.Lock()
	if !g.closed {
		g.closed = true
		close(g.ending)
	}
	g.mu.Unlock()
	g.workers.Wait()
}

func (g *Grouper[C]) rouse() {
	select {
	case g.wake <- struct{}{}:
	default: // somebody is about to look
	}
}

func (g *Grouper[C]) work() {
	for {
		engine.Gather(g.waiting)
		group, closed := g.take()
		if len(group) == 0 {
			if closed {
				return
			}
			select {
			case <-g.wake:
			case <-g.ending:
			}
			continue
		}
		calls := make([]C, len(group))
		for i, w := range group {
			calls[i] = w.call
		}
		g.cfg.Serve(calls)
		for _, w := range group {
			close(w.done)
		}
	}
}

func (g *Grouper[C]) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.queue)
}

// take takes the next group off the queue.
func (g *Grouper[C]) take() (group []*grouped[C], closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, size := 0, 0
	for n < len(g.queue) && n < g.cfg.MostCalls {
		if size += g.cfg.Size(g.queue[n].call); size > g.cfg.MostBytes && n > 0 {
			break
		}
		n++
	}
	group, g.queue = g.queue[:n:n], g.queue[n:]
	if len(g.queue) > 0 {
		g.rouse()
	} else {
		g.queue = nil
	}
	return group, g.closed
}
