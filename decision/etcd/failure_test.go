package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"assent/decision"
	"assent/decision/decisiontest"
	"assent/internal/etcdcluster"
	"assent/protocol/commit"
	"assent/resource"
)

// TestInOneCluster shares three members among tests that leave them running.
func TestInOneCluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *etcdcluster.Cluster)
	}{
		{"Format", unknownFormat}, {"Replaced", replaced}, {"Damage", damage}, {"Retention", retention},
		{"OpenTogether", openTogether}, {"Compacted", compacted}, {"MinorityKilled", minorityKilled}, {"MajorityKilled", majorityKilled},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, c) })
	}
}

// refused wants an error that wraps want, with that code and a hint that says what to do.
func refused(t *testing.T, err, want error, code resource.Code, hint string) {
	t.Helper()
	if want != nil && !errors.Is(err, want) || resource.CodeOf(err) != code || !strings.Contains(resource.HintOf(err), hint) {
		t.Errorf("got %v (hint %q); want %v, %v, a hint with %q", err, resource.HintOf(err), want, code, hint)
	}
}

// change does what somebody else may do to the keys.
func change(t *testing.T, l *Log, ops ...clientv3.Op) {
	t.Helper()
	for _, op := range ops {
		if _, err := l.client.Do(t.Context(), op); err != nil {
			t.Fatal(err)
		}
	}
}

func unknownFormat(t *testing.T, c *etcdcluster.Cluster) {
	l := mustOpen(t, fresh(c))
	change(t, l, clientv3.OpPut(l.keys.log(), strings.Replace(l.record, "format 1", "format 2", 1)))
	_, err := Open(t.Context(), l.cfg)
	refused(t, err, ErrFormat, resource.Unsupported, "prefix")
	_, err = Open(t.Context(), Config{})
	refused(t, err, nil, resource.Invalid, "")
}

// A cluster that was emptied, or replaced by another, is noticed before anything is decided in it.
func replaced(t *testing.T, c *etcdcluster.Cluster) {
	l := mustOpen(t, fresh(c))
	mustDecide(t, l, "tx")
	change(t, l, clientv3.OpDelete(l.keys.prefix, clientv3.WithPrefix()))
	for e, err := range l.List(t.Context(), decision.Unfinished) {
		refused(t, err, decision.ErrStopped, resource.Unavailable, "give back")
		l.replaced.Store(e.ID != "") // the others are to find out by themselves
	}
	if l.Stats().Failures == 0 {
		t.Error("a store that was emptied lists nothing, and no error")
	}
	for range 2 {
		_, err := l.Decide(t.Context(), entry("tx"))
		refused(t, err, decision.ErrStopped, resource.Unavailable, "give back")
		_, err = l.Lookup(t.Context(), "tx")
		refused(t, err, decision.ErrStopped, resource.Unavailable, "give back")
	}
	other := mustOpen(t, l.cfg)
	if other.Owner() == l.Owner() {
		t.Errorf("the owner is %q still", l.Owner())
	}
	if _, err := other.Lookup(t.Context(), "tx"); !errors.Is(err, decision.ErrNotFound) {
		t.Errorf("decided in another log: %v", err)
	}
}

// A listing whose revision etcd has dropped is begun anew at once: that is no outage.
func compacted(t *testing.T, c *etcdcluster.Cluster) {
	l := mustOpen(t, fresh(c))
	mustDecide(t, l, "tx")
	_, revision, err := l.scanKeys(t.Context(), l.keys.open(""), 0)
	if err != nil {
		t.Fatal(err)
	}
	mustDecide(t, l, "tx-2")
	if _, err := l.client.Compact(t.Context(), revision+1); err != nil {
		t.Fatal(err)
	}
	before := l.Stats().Failures
	_, _, err = l.scanKeys(t.Context(), l.keys.open(""), revision)
	if after := l.Stats().Failures; !errors.Is(rpctypes.Error(err), rpctypes.ErrCompacted) || after != before+1 || l.away.Load() != nil {
		t.Errorf("%v after %d attempts", err, after-before)
	}
}

// A value that somebody has changed is reported and not taken for a decision.
func damage(t *testing.T, c *etcdcluster.Cluster) {
	l := mustOpen(t, fresh(c))
	for _, id := range []string{"tx-1", "tx-2", "tx-3", "tx-4"} {
		mustDecide(t, l, id)
	}
	body, err := entry("tx-4").Normal().Encode()
	if err != nil {
		t.Fatal(err)
	}
	change(t, l,
		clientv3.OpPut(l.keys.entry("tx-1"), "x"),
		clientv3.OpPut(l.keys.entry("tx-2"), string(body)),
		clientv3.OpPut(l.keys.sheet("tx-3", 1), ""),
	)
	for _, id := range []string{"tx-1", "tx-2", "tx-3"} {
		_, err := l.Lookup(t.Context(), commit.TransactionID(id))
		refused(t, err, nil, resource.Unavailable, "backup")
		_, err = l.Decide(t.Context(), entry(id))
		refused(t, err, nil, resource.Unavailable, "backup")
	}
	mustDecide(t, l, "tx-4")
}

func retention(t *testing.T, c *etcdcluster.Cluster) {
	cfg := fresh(c)
	var now atomic.Int64
	now.Store(1_700_000_000_000)
	cfg.Clock = func() time.Time { return time.UnixMilli(now.Add(1)) }
	cfg.RetainCount, cfg.Retention, cfg.RetireInterval = 5, time.Hour, time.Hour
	l := mustOpen(t, cfg)
	note := func(i int, n decision.Note) {
		t.Helper()
		if err := l.Annotate(t.Context(), entry(fmt.Sprint("tx-", i)).ID, n); err != nil {
			t.Fatal(err)
		}
	}
	hazard := decision.Note{Kind: decision.Heuristic, Branch: "orders", Outcome: commit.Hazard}
	for i := range 20 {
		mustDecide(t, l, fmt.Sprint("tx-", i))
		if i >= 4 { // the first four stay open
			note(i, decision.Note{Kind: decision.Finished})
		}
	}
	note(4, hazard) // and is not Done any longer
	note(6, hazard)
	note(6, decision.Note{Kind: decision.Resolved, Branch: "orders"})
	left := func() string {
		t.Helper()
		if err := l.retireOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		var ids []string
		for e, err := range l.List(t.Context(), 0) {
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, strings.TrimPrefix(string(e.ID), "tx-"))
		}
		return strings.Join(ids, " ")
	}
	if got, want := left(), "0 1 2 3 4 6 16 17 18 19"; got != want {
		t.Errorf("left are %s; want %s", got, want)
	}
	now.Add(30 * time.Minute.Milliseconds())
	note(17, decision.Note{Kind: decision.Finished}) // it counts from here
	now.Add(31 * time.Minute.Milliseconds())
	if got, want := left(), "0 1 2 3 4 17"; got != want {
		t.Errorf("left are %s; want %s", got, want)
	}
	resp, err := l.client.Get(t.Context(), l.keys.prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	// The log's own, five open entries with two keys each, tx-4's notes; tx-17, its notes, its done key.
	if len(resp.Kvs) != 1+2*5+1+3 {
		t.Errorf("%d keys are left: %v", len(resp.Kvs), resp.Kvs)
	}
}

func openTogether(t *testing.T, c *etcdcluster.Cluster) {
	cfg := fresh(c)
	owners := make([]string, 8)
	var wg sync.WaitGroup
	for i := range owners {
		wg.Go(func() {
			l, err := Open(t.Context(), cfg)
			if err != nil {
				t.Error(err)
				return
			}
			owners[i] = l.Owner()
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, o := range owners {
		if o != owners[0] || o == "" {
			t.Errorf("owners are %q", owners)
		}
	}
}

// Each member in turn is killed while decisions are made. They go on, and what was told stands.
func minorityKilled(t *testing.T, c *etcdcluster.Cluster) {
	l := mustOpen(t, fresh(c))
	for victim := range 3 {
		var told atomic.Int64
		var stop atomic.Bool
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for i := 0; !stop.Load(); i++ {
					e := entry(fmt.Sprintf("tx-%d-%d", victim, i)) // all propose for the same ones
					e.By = fmt.Sprint("worker ", w)
					stands, err := l.Decide(t.Context(), e)
					if err != nil {
						t.Error(err)
						return
					}
					if again, err := l.Lookup(t.Context(), e.ID); err != nil || again.By != stands.By {
						t.Errorf("%s: told %q, found %q, %v", e.ID, stands.By, again.By, err)
					}
					told.Add(1)
				}
			})
		}
		until := func(n int64) {
			for told.Load() < n && !t.Failed() {
				time.Sleep(time.Millisecond) // polling the workers
			}
		}
		until(50)
		c.Kill(victim)
		until(told.Load() + 50)
		if err := c.StartAll(t.Context()); err != nil {
			t.Error(err)
		}
		until(told.Load() + 50)
		stop.Store(true)
		wg.Wait()
	}
}

// With a majority gone, calls fail when their context ends, and say why; what comes waits in groups, up
// to a limit. When the members are back it goes on, and nothing is lost.
func majorityKilled(t *testing.T, c *etcdcluster.Cluster) {
	cfg := fresh(c)
	const waiting = 150
	cfg.MaxWaiting, cfg.Patience, cfg.AttemptTimeout = waiting, time.Minute, time.Second
	l := mustOpen(t, cfg)
	mustDecide(t, l, "before")
	closed := mustOpen(t, fresh(c))
	closed.cfg.Patience, closed.cfg.AttemptTimeout = 500*time.Millisecond, 50*time.Millisecond // opening may take longer
	c.Kill(0, 1)
	decisiontest.CloseUnanswered(t, closed, 16*groupCalls)
	within := func(d time.Duration) context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		t.Cleanup(cancel)
		return ctx
	}
	var both sync.WaitGroup
	both.Go(func() {
		_, err := l.Lookup(within(5*time.Second), "before")
		refused(t, err, context.DeadlineExceeded, resource.Unavailable, "a majority of etcd's members")
	})
	both.Go(func() {
		_, err := Open(within(5*time.Second), cfg)
		refused(t, err, context.DeadlineExceeded, resource.Unavailable, "a majority of etcd's members")
	})
	both.Wait()

	before := l.Stats()
	const callers = waiting + decideWorkers*groupCalls + 50
	results := make(chan error, callers)
	for i := range callers {
		go func() {
			_, err := l.Decide(t.Context(), entry(fmt.Sprint("tx-", i)))
			results <- err
		}()
	}
	for range 50 {
		refused(t, <-results, nil, resource.Capacity, "wait")
	}
	if err := c.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	decided := 0
	for range callers - 50 {
		if err := <-results; err == nil {
			decided++
		} else {
			refused(t, err, nil, resource.Capacity, "wait")
		}
	}
	after := l.Stats()
	if groups := after.Groups - before.Groups; decided < waiting || int(after.Decisions-before.Decisions) > decided || groups > 8 {
		t.Errorf("%d decisions took %d requests; want %d at least, by eight at most", decided, groups, waiting)
	}
	if e, err := l.Lookup(t.Context(), "before"); err != nil || e.Decision != commit.Commit {
		t.Errorf("what was decided before: %+v, %v", e, err)
	}
	listed := 0
	for _, err := range l.List(t.Context(), decision.Unfinished) {
		if err != nil {
			t.Fatal(err)
		}
		listed++
	}
	if listed != decided+1 {
		t.Errorf("%d are listed, %d were told", listed, decided+1)
	}
}

// A user may be given rights on the prefix alone; without them the refusal says what is missing.
func TestRights(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	cfg := fresh(c)
	root := mustOpen(t, cfg).client
	for _, err := range []error{
		second(root.UserAdd(t.Context(), "root", "secret")), second(root.UserGrantRole(t.Context(), "root", "root")),
		second(root.UserAdd(t.Context(), "clerk", "secret")), second(root.RoleAdd(t.Context(), "clerks")),
		second(root.UserGrantRole(t.Context(), "clerk", "clerks")), second(root.AuthEnable(t.Context())),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	clerk := cfg
	clerk.Client.Username, clerk.Client.Password = "clerk", "wrong"
	_, err := Open(t.Context(), clerk)
	refused(t, err, nil, resource.Permission, "grant")
	clerk.Client.Password = "secret"
	_, err = Open(t.Context(), clerk)
	refused(t, err, nil, resource.Permission, "grant")

	cfg.Client.Username, cfg.Client.Password = "root", "secret"
	_, err = mustOpen(t, cfg).client.RoleGrantPermission(t.Context(), "clerks", cfg.Prefix, clientv3.GetPrefixRangeEnd(cfg.Prefix),
		clientv3.PermissionType(clientv3.PermReadWrite))
	if err != nil {
		t.Fatal(err)
	}
	l := mustOpen(t, clerk)
	mustDecide(t, l, "tx")
	if err := l.Annotate(t.Context(), "tx", decision.Note{Kind: decision.Finished}); err != nil {
		t.Error(err)
	}
	if err := l.Forget(t.Context(), "tx"); err != nil {
		t.Error(err)
	}
	for _, err := range l.List(t.Context(), 0) {
		t.Errorf("forgotten, but listed: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }
