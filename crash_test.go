package assent_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"assent"
	"assent/spec"
	"assent/trace"
)

// observer calls a function at a named point of the protocol, and lists the points it sees. Its witness,
// if there is one, holds every transaction to the claims of the checker.
type observer struct {
	witness *spec.Witness

	mu     sync.Mutex
	points []string
	point  string
	then   func(id string)
}

func (o *observer) at(point string, then func(id string)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.point, o.then = point, then
}

func (o *observer) Observe(e trace.Event) {
	if e.Kind == trace.Timer {
		return // nothing comes between it and the next event that a crash could undo
	}
	if o.witness != nil {
		o.witness.Observe(e)
	}
	point := e.Point()
	o.mu.Lock()
	if !slices.Contains(o.points, point) {
		o.points = append(o.points, point)
	}
	then := o.then
	if point != o.point {
		then = nil
	}
	if then != nil {
		o.then = nil
	}
	o.mu.Unlock()
	if then != nil {
		then(e.Scope)
	}
}

// seen returns the points seen so far.
func (o *observer) seen() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.points)
}

// changeAll puts the same value in all three stores, in one transaction.
func (h *house) changeAll(ctx context.Context, value string) (id string, err error) {
	err = h.m.Run(ctx, func(ctx context.Context, tx *assent.Tx) error {
		id = tx.ID()
		var errs []error
		for _, name := range storeNames {
			errs = append(errs, put(ctx, tx, h.stores[name], "k", value))
		}
		return errors.Join(errs...)
	})
	return id, err
}

// TestStopAtEveryPoint stops the manager dead at every point of the protocol in turn, opens
// everything again, and finds the change everywhere or nowhere, and what was reported true.
// (internal/crashtest and cmd/assent do the same to processes, with SIGKILL.)
func TestStopAtEveryPoint(t *testing.T) {
	scout := &observer{witness: spec.NewWitness()}
	h := newHouse(t, func(c *assent.Config) { c.Observer = scout })
	if _, err := h.changeAll(context.Background(), "0"); err != nil {
		t.Fatal(err)
	}
	h.settled()
	points := slices.DeleteFunc(scout.seen(), func(point string) bool {
		// A slow machine passes these, and may not pass them again.
		return strings.Contains(point, "timer") || strings.Contains(point, "Inquire")
	})
	if len(points) < 30 {
		t.Fatalf("only %d points: %q", len(points), points)
	}
	committed := 0
	for i, point := range points {
		value := fmt.Sprint(i + 1)
		before := h.get("a", "k")
		stopped := make(chan struct{})
		// The step in which the manager "dies" never goes on: it waits for the life after.
		release := make(chan struct{})
		scout.at(point, func(string) {
			close(stopped)
			<-release
		})
		result := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_, err := h.changeAll(ctx, value)
			result <- err
		}()
		select {
		case <-stopped: // before Run returned, or soon after
		case <-time.After(30 * time.Second):
			close(release)
			t.Fatalf("%s was not passed; Run said %v", point, <-result)
		}
		h.die(release)
		err := <-result
		h.settled()
		got := []string{h.get("a", "k"), h.get("b", "k"), h.get("c", "k")}
		if got[0] != got[1] || got[1] != got[2] || got[0] != value && got[0] != before {
			t.Fatalf("stopped at %q: the stores hold %q; before %q, wanted %q", point, got, before, value)
		}
		if err == nil && got[0] != value {
			t.Fatalf("stopped at %q: reported committed, and is not", point)
		}
		if errors.Is(err, assent.ErrAborted) && got[0] == value {
			t.Fatalf("stopped at %q: reported aborted (%v), and is committed", point, err)
		}
		if got[0] == value {
			committed++
		}
	}
	if committed == 0 || committed == len(points) {
		t.Errorf("%d of %d stops ended in commit: the points do not surround the decision", committed, len(points))
	}
	if broken := scout.witness.Breaches(); len(broken) > 0 || scout.witness.Judged() <= len(points) {
		t.Errorf("%d transactions were judged, and break %v", scout.witness.Judged(), broken)
	}
	t.Logf("%d points, %d committed", len(points), committed)
}

func TestPointsNameTheProtocol(t *testing.T) {
	scout := &observer{witness: spec.NewWitness()}
	h := newHouse(t, func(c *assent.Config) { c.Observer = scout })
	if _, err := h.changeAll(context.Background(), "0"); err != nil {
		t.Fatal(err)
	}
	h.settled()
	all := strings.Join(scout.seen(), "\n")
	for _, want := range []string{
		"coordinator: send Prepare to a", "b force PreparedRecord", "c send Voted(yes) to coordinator:",
		"coordinator: emit Propose(commit)", "coordinator: deliver Decided(commit)",
		"coordinator: send Finish(commit) to b", "coordinator: emit Concluded(commit unanimous)",
		"a emit CommitBranch", "coordinator: emit Completed(commit)",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no point %q in:\n%s", want, all)
		}
	}
}
