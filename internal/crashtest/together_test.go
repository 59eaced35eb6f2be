package crashtest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"assent"
	"assent/decision/disk"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/kv"
	"assent/resource/postgres"
	"assent/spec"
)

// between returns a transfer between the databases alone.
func (s *site) between() transfer {
	t := s.new()
	t.Legs = []leg{{Resource: "pg1", Account: t.Legs[0].Account, Delta: -4}, {Resource: "pg2", Account: t.Legs[0].Account, Delta: 4}}
	return t
}

// TestTwoLogsOneDatabase: two coordinators with logs of their own work in the same databases, die,
// and recover at once. Neither touches what is the other's.
func TestTwoLogsOneDatabase(t *testing.T) {
	a := newSite(t)
	b := a.beside()
	points := []string{"coordinator: emit Propose(commit)", "coordinator: deliver Decided(commit)", "pg1 deliver BranchFinished(committed)"}
	for i := range 2 * len(points) {
		ofA, ofB := points[i%len(points)], points[(i+1+i/len(points))%len(points)]
		a.open(arm{Point: ofA, Kill: true})
		b.open(arm{Point: ofB, Kill: true})
		ta := a.between()
		ca := a.start(ta)
		tb := b.between()
		cb := b.start(tb)
		if ra, rb := a.finish(ta, ca), b.finish(tb, cb); ra != nil || rb != nil {
			t.Fatalf("the coordinators were killed, and reported %+v and %+v", ra, rb)
		}
		before := a.prepared("pg2")
		if i == 0 {
			b.open()
			b.p.do(request{Settle: true})
			if after := a.prepared("pg2"); len(after) != 1 || len(before) != 2 {
				t.Errorf("prepared were %q, and when one has recovered %q", before, after)
			}
			b.p.kill()
		}
		a.open()
		b.open()
		ca, cb = a.p.send(request{Settle: true}), b.p.send(request{Settle: true})
		ca.answered()
		cb.answered()
		a.check()
		b.check()
		if books := a.books(a.p.do(request{Settle: true}).State); books.happened(ta.ID) != (ofA != points[0]) || books.happened(tb.ID) != (ofB != points[0]) {
			t.Errorf("killed at %q and %q: committed %v and %v", ofA, ofB, books.happened(ta.ID), books.happened(tb.ID))
		}
		a.p.kill()
		b.p.kill()
	}
}

// TestOneLogTwice: a second coordinator cannot open the log of one that lives.
func TestOneLogTwice(t *testing.T) {
	s := newSite(t)
	s.open()
	first := s.p
	second := launch(s, nil)
	m, ok := second.send(request{Open: &s.setup}).answered()
	if !ok || !strings.Contains(m.Err, disk.ErrLocked.Error()) {
		t.Errorf("opened twice: %q, %v", m.Err, ok)
	}
	second.kill()
	s.p = first
	s.mustReport(s.run(s.new()), committed, "", nil, false)
	s.check()
}

// TestIDsThatBeginAlike: the id of one transaction is the beginning of another's. One is decided
// and one is in doubt when the coordinator dies; neither's end is taken for the other's.
func TestIDsThatBeginAlike(t *testing.T) {
	const decided, doubtful = "pg1 emit CommitBranch", "coordinator: emit Propose(commit)"
	for _, points := range [][2]string{{decided, doubtful}, {doubtful, decided}} {
		s := newSite(t)
		s.open()
		at := func(n int) transfer {
			return transfer{ID: fmt.Sprintf("t%d", len(s.made)), Legs: []leg{
				{Resource: kvName, Account: n, Delta: 2}, {Resource: "pg1", Account: n, Delta: -3}, {Resource: "pg2", Account: n, Delta: 1}}}
		}
		s.hold(points[0])
		short := at(0)
		s.start(short)
		s.p.atPoint(points[0])
		for i := range 34 {
			s.mustReport(s.run(at(1+i%6)), committed, "", nil, false)
		}
		s.hold(points[1])
		long := at(7)
		s.start(long)
		s.p.atPoint(points[1])
		gids := s.prepared("pg2")
		slices.SortFunc(gids, func(a, b string) int { return len(a) - len(b) })
		if len(gids) != 2 || !strings.HasPrefix(strings.Split(gids[1], ":")[2], strings.Split(gids[0], ":")[2]) {
			t.Fatalf("the ids do not begin alike: %q", gids)
		}
		s.p.kill()
		s.open()
		b := s.check()
		if b.happened(short.ID) != (points[0] == decided) || b.happened(long.ID) != (points[1] == decided) {
			t.Errorf("the short one was held at %q and is committed: %v; the long one at %q: %v",
				points[0], b.happened(short.ID), points[1], b.happened(long.ID))
		}
	}
}

// pair are two managers in this process that share a log and a kv store.
func pair(t *testing.T, s *site, grace time.Duration) (*disk.Log, [2]*coordinator) {
	t.Helper()
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	log, err := disk.Open(filepath.Join(s.setup.Dir, "log"), disk.Config{Logger: quiet, SegmentBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	store, err := kv.Open(filepath.Join(s.setup.Dir, "kv"), kv.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	// What the two do together is held to the claims of the checker.
	witness := spec.NewWitness()
	t.Cleanup(func() {
		if broken := witness.Breaches(); len(broken) > 0 || witness.Judged() == 0 {
			t.Errorf("%d transactions were judged, and break %v", witness.Judged(), broken)
		}
	})
	var both [2]*coordinator
	for i := range both {
		c := &coordinator{log: log, store: store, bases: map[string]*postgres.Resource{}}
		c.observer = newObserver(func(message) {})
		c.observer.witness = witness
		resources := map[string]resource.Resource{kvName: store}
		for name, dsn := range s.setup.DSN {
			r, err := postgres.Open(t.Context(), dsn, postgres.Config{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = r.Close() })
			c.bases[name], resources[name] = r, r
		}
		c.m, err = assent.Open(t.Context(), assent.Config{Log: log, Resources: resources, Logger: quiet, OrphanGrace: grace,
			Observer: c.observer, Retry: 5 * time.Millisecond, RetryMost: 50 * time.Millisecond, ScanInterval: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			_ = c.m.Close(ctx)
		})
		both[i] = c
	}
	return log, both
}

// TestTwoManagersOneLog: two managers of one log scan the same resources all the time. With a
// grace they leave each other's living transactions alone; without one they may abort them, and
// say so, and do no harm.
func TestTwoManagersOneLog(t *testing.T) {
	for _, grace := range []time.Duration{0, time.Hour} {
		t.Run(grace.String(), func(t *testing.T) {
			s := newSite(t)
			_, both := pair(t, s, grace)
			var mu sync.Mutex
			var all sync.WaitGroup
			settled, done := 0, 0
			for worker := range 2 * accounts {
				all.Go(func() {
					for range 10 {
						mu.Lock()
						tr := s.new()
						s.made[tr.ID] = tr
						mu.Unlock()
						r := both[worker%2].run(tr)
						mu.Lock()
						s.reports[tr.ID] = r
						if r.Cause == commit.Settled {
							settled++
						}
						if r.Kind == committed {
							done++
						}
						mu.Unlock()
					}
				})
			}
			all.Wait()
			for _, c := range both {
				if err := c.settle(); err != nil {
					t.Fatal(err)
				}
			}
			st, err := both[0].state(true)
			if err != nil {
				t.Fatal(err)
			}
			if len(st.Unfinished)+len(st.Damaged) > 0 {
				t.Errorf("unfinished are %q, damaged %q", st.Unfinished, st.Damaged)
			}
			s.audit(s.books(st))
			if grace > 0 && settled > 0 || done == 0 {
				t.Errorf("%d transfers are committed, and %d were aborted by the other manager within its grace", done, settled)
			}
			t.Logf("%d of %d committed, %d aborted by the other manager", done, len(s.made), settled)
		})
	}
}
