package decision

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"

	"assent/resource"
)

// groups is a Serve that waits for leave and remembers what it carried out.
type groups struct {
	begun, leave chan struct{}
	mu           sync.Mutex
	done         [][]int
}

func (s *groups) serve(group []int) {
	s.begun <- struct{}{}
	<-s.leave
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = append(s.done, group)
}

func newGroups(waiting int) (*groups, *Grouper[int]) {
	s := &groups{begun: make(chan struct{}, 100), leave: make(chan struct{}, 100)}
	return s, NewGrouper(GrouperConfig[int]{Serve: s.serve, Workers: 1, MostCalls: 3, MostBytes: 100,
		Size: func(n int) int { return n }, MostWaiting: waiting})
}

// put makes a call and returns when it waits; its result comes by the channel.
func put(t *testing.T, g *Grouper[int], n int) <-chan error {
	t.Helper()
	result := make(chan error, 1)
	waiting := func() int {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.queue)
	}
	before := waiting()
	go func() { result <- g.Do(t.Context(), n) }()
	for waiting() == before && t.Context().Err() == nil {
		runtime.Gosched()
	}
	return result
}

// Calls that come while a worker is busy are carried out together, in order, within the limits.
func TestCallsAreGrouped(t *testing.T) {
	s, g := newGroups(100)
	results := make([]<-chan error, 0, 8)
	first := make(chan error, 1)
	go func() { first <- g.Do(t.Context(), 1) }()
	<-s.begun
	for _, n := range []int{2, 3, 4, 60, 50, 300, 5} {
		results = append(results, put(t, g, n))
	}
	for range 100 {
		s.leave <- struct{}{}
	}
	for _, r := range append(results, first) {
		if err := <-r; err != nil {
			t.Error(err)
		}
	}
	g.Close()
	want := [][]int{{1}, {2, 3, 4}, {60}, {50}, {300}, {5}}
	if !slices.EqualFunc(s.done, want, slices.Equal) {
		t.Errorf("got %v; want %v", s.done, want)
	}
}

// Callers who are ready to call share a group, although each of them would find a free worker.
func TestReadyCallersAreGrouped(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that it is known who is ready
	const callers = 40
	served, groups := 0, 0
	g := NewGrouper(GrouperConfig[int]{Serve: func(group []int) { served += len(group); groups++ }, Workers: 1,
		MostCalls: callers, MostBytes: callers, Size: func(int) int { return 1 }, MostWaiting: callers})
	var wg sync.WaitGroup
	for n := range callers {
		wg.Go(func() {
			if err := g.Do(t.Context(), n); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	g.Close()
	// One, but that others in this process may take the processor at any time.
	if served != callers || groups > callers/4 {
		t.Errorf("%d calls were served in %d groups", served, groups)
	}
}

func TestTooManyWait(t *testing.T) {
	s, g := newGroups(2)
	go func() { _ = g.Do(t.Context(), 1) }()
	<-s.begun
	a, b := put(t, g, 2), put(t, g, 3)
	if err := g.Do(t.Context(), 4); resource.CodeOf(err) != resource.Capacity {
		t.Errorf("got %v; want %v", err, resource.Capacity)
	}
	// A caller may go; its call is carried out all the same.
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	s.leave <- struct{}{}
	<-s.begun
	left := make(chan error, 1)
	go func() { left <- g.Do(ctx, 5) }()
	cancel(gone)
	if err := <-left; !errors.Is(err, gone) {
		t.Errorf("got %v; want %v", err, gone)
	}
	for range 10 {
		s.leave <- struct{}{}
	}
	g.Close()
	g.Close()
	if err := errors.Join(<-a, <-b); err != nil {
		t.Error(err)
	}
	if err := g.Do(t.Context(), 6); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v; want %v", err, ErrClosed)
	}
	if all := slices.Concat(s.done...); !slices.Equal(all, []int{1, 2, 3, 5}) {
		t.Errorf("carried out are %v", all)
	}
}
