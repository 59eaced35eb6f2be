package assent

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"assent/decision"
	"assent/protocol/commit"
	"assent/resource"
)

// Manager coordinates transactions. All methods are safe for concurrent use.
type Manager struct {
	cfg         Config
	names       map[resource.Resource]string
	incarnation string
	counter     atomic.Uint64
	scans       map[string]*scan
	recorder    recorder

	mu     sync.Mutex
	active map[commit.TransactionID]*transaction
	open   map[commit.TransactionID]*Tx
	left   chan struct{} // closed when a transaction leaves; nil while nobody waits for that
	closed bool
	over   chan struct{} // closed when Close has ended

	// life ends when Close gives up waiting; all work in the background hangs on it.
	life     context.Context
	end      context.CancelFunc
	lifeLock sync.RWMutex // a worker starts under it for reading, and life ends under it
	workers  sync.WaitGroup
	tasks    chan func() // to a worker that has nothing to do
	idle     atomic.Int32
}

// Open returns a manager and starts recovery: first what the log says is unfinished, then, now
// and every ScanInterval, what the resources hold prepared for this log's owner. Open does not
// wait for recovery, nor for a resource that is down. It fails on a bad Config and on a log that
// cannot be read; ctx bounds the reading of the log.
func Open(ctx context.Context, cfg Config) (*Manager, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	incarnation, err := newIncarnation(cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("assent: make an id: %w", err)
	}
	m := &Manager{
		cfg: cfg, incarnation: incarnation,
		names:  map[resource.Resource]string{},
		scans:  map[string]*scan{},
		active: map[commit.TransactionID]*transaction{},
		open:   map[commit.TransactionID]*Tx{},
		tasks:  make(chan func()),
		over:   make(chan struct{}),
	}
	m.recorder.log, _ = cfg.Log.(decision.Batcher)
	m.life, m.end = context.WithCancel(context.Background())
	for name, r := range cfg.Resources {
		m.names[r] = name
		m.scans[name] = &scan{name: name, resource: r, slots: make(chan struct{}, recoveryConcurrency)}
	}
	unfinished, err := m.unfinished(ctx)
	if err != nil {
		m.end()
		return nil, fmt.Errorf("assent: read the decision log: %w", err)
	}
	for _, e := range unfinished {
		m.resume(e)
	}
	for _, s := range m.scans {
		m.spawn(func() { m.scanForEver(s) })
	}
	if cfg.Alive != nil || cfg.OrphanGrace > 0 { // there are other managers
		m.spawn(m.scanLogForEver)
	}
	return m, nil
}

// newIncarnation returns a name that no other manager has, which begins with the log's prefix where it
// has one.
func newIncarnation(log decision.Log) (string, error) {
	id, err := ulid.New(ulid.Now(), rand.Reader)
	if err != nil {
		return "", err
	}
	p, ok := log.(decision.Prefixer)
	if !ok {
		return id.String(), nil
	}
	prefix := p.Prefix()
	if err := resource.CheckName(prefix); err != nil || len(prefix) > decision.MaxPrefix {
		return "", fmt.Errorf("the log's prefix %.40q is not one of 1 to %d letters and digits", prefix, decision.MaxPrefix)
	}
	// 40 random bits tell it from the few other managers that have this very log open.
	return prefix + id.String()[len(id.String())-8:], nil
}

// unfinished reads the entries whose branches must be finished before anything else is done, so
// that nothing is decided meanwhile about the same ids. A damaged entry may be one of them.
func (m *Manager) unfinished(ctx context.Context) ([]decision.Entry, error) {
	var entries []decision.Entry
	for _, status := range []decision.Status{decision.Unfinished, decision.Damaged} {
		for e, err := range m.cfg.Log.List(ctx, status) {
			if err != nil {
				return nil, err
			}
			if !hasFinished(e) && !m.leaves(e) {
				entries = append(entries, e)
			}
		}
	}
	return entries, nil
}

// hasFinished reports whether every branch of the entry's transaction has reported.
func hasFinished(e decision.Entry) bool {
	return slices.ContainsFunc(e.Notes, func(n decision.Note) bool { return n.Kind == decision.Finished })
}

// Close rolls back the transactions that are open, waits until those that are being finished are
// finished or ctx ends, and stops. What is prepared then and still unfinished is finished by the
// next manager of the same log; that is no error. What is not prepared is rolled back first, once,
// also after ctx has ended. That, and the return of calls into resources, whose contexts have ended,
// is waited for a little longer than Config.FinishTimeout at most. Close returns an error only where
// such a call has not returned then: it names the calls that it leaves behind. A second Close waits
// for the first. The log and the resources stay open: close them after.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	already := m.closed
	m.closed = true
	open := slices.Collect(maps.Values(m.open))
	m.mu.Unlock()
	if already {
		<-m.over
		return nil
	}
	defer close(m.over)
	for _, tx := range open {
		m.spawn(func() { tx.abandon("the manager is closing") })
	}
	if err := m.wait(ctx, func() int { return len(m.active) + len(m.open) }); err != nil {
		m.cfg.Logger.Warn("closing with unfinished transactions; the next manager of this log finishes them", "error", err)
	}
	m.lifeLock.Lock()
	m.end()
	m.lifeLock.Unlock()
	left := m.transactions()
	for _, t := range left {
		t.stop()
	}
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		m.undoAll(left)
	}()
	// undoAll takes FinishTimeout at most where every call keeps to its context.
	if within(returned, m.cfg.FinishTimeout+m.cfg.FinishTimeout/4) {
		return nil
	}
	return hung(left)
}

// undoAll ends what is left of stopped transactions. It returns when all workers have, and a branch
// in which a call hangs is rolled back when that returns.
func (m *Manager) undoAll(left []*transaction) {
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		m.workers.Wait()
	}()
	all := within(returned, m.cfg.FinishTimeout/2)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), m.cfg.FinishTimeout/2)
		var group sync.WaitGroup
		for _, t := range left {
			group.Go(func() { m.undo(ctx, t) })
			if all {
				t.conclude()
			}
		}
		group.Wait()
		cancel()
		if all {
			return
		}
		<-returned
		all = true
	}
}

// within reports whether c is closed within d.
func within(c <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c:
		return true
	case <-timer.C:
		return closed(c)
	}
}

// hung names the calls into resources that have not returned.
func hung(left []*transaction) error {
	var calls []string
	for _, t := range left {
		calls = append(calls, t.calls()...)
	}
	const most = 10
	slices.Sort(calls)
	if more := len(calls) - most; more > 0 {
		calls = append(calls[:most:most], fmt.Sprintf("%d more", more))
	}
	if len(calls) == 0 {
		calls = []string{"a branch that is being begun"}
	}
	return fmt.Errorf("assent: close: calls into resources have not returned although their contexts have ended: %s", strings.Join(calls, "; "))
}

// undo rolls back, once, what no next manager can find: the branches of a stopped transaction that
// have promised nothing. Without their votes it cannot commit any more. A branch in which a call has
// not returned takes no second one.
func (m *Manager) undo(ctx context.Context, t *transaction) {
	var group sync.WaitGroup
	for _, p := range t.unprepared() {
		group.Go(func() {
			if _, err := p.branch.Rollback(ctx); err != nil {
				m.cfg.Logger.Warn("branch is left behind", "transaction", t.id, "resource", p.node, "error", err)
			}
		})
	}
	group.Wait()
}

// Quiesce waits until no transaction is being committed, rolled back or recovered. It does not
// wait for transactions that are open for work. It returns ctx's error if that comes first, with
// the number of transactions that are left.
func (m *Manager) Quiesce(ctx context.Context) error {
	return m.wait(ctx, func() int { return len(m.active) })
}

// wait waits until count, called with m.mu held, is zero.
func (m *Manager) wait(ctx context.Context, count func() int) error {
	for {
		m.mu.Lock()
		n := count()
		if m.left == nil {
			m.left = make(chan struct{})
		}
		left := m.left
		m.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-left:
		case <-ctx.Done():
			return fmt.Errorf("%d transactions are unfinished: %w", n, ctx.Err())
		}
	}
}

// spawn runs f in a goroutine that Close waits for, and reports true, unless the manager's life has ended.
func (m *Manager) spawn(f func()) bool {
	m.lifeLock.RLock()
	defer m.lifeLock.RUnlock()
	if m.life.Err() != nil {
		return false
	}
	select {
	case m.tasks <- f:
	default:
		m.workers.Go(func() { m.work(f) })
	}
	return true
}

// mostIdle bounds the workers that wait for something to do.
const mostIdle = 256

// work runs f and then whatever comes next. A worker is used again because its stack has grown to
// what a resource's driver needs, which takes longer than to make a goroutine.
func (m *Manager) work(f func()) {
	for {
		f()
		if m.idle.Add(1) > mostIdle {
			m.idle.Add(-1)
			return
		}
		select {
		case f = <-m.tasks:
			m.idle.Add(-1)
		case <-m.life.Done():
			return
		}
	}
}

// transactions returns those that are active now.
func (m *Manager) transactions() []*transaction {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*transaction, 0, len(m.active))
	for _, t := range m.active {
		all = append(all, t)
	}
	return all
}

// newID returns an id that no other transaction has: the manager's incarnation and a number.
func (m *Manager) newID() commit.TransactionID {
	return commit.TransactionID(m.incarnation + "-" + strconv.FormatUint(m.counter.Add(1), 36))
}

// mine reports whether this manager, and not an earlier or another one, made the id.
func (m *Manager) mine(id commit.TransactionID) bool {
	return strings.HasPrefix(string(id), m.incarnation+"-")
}

func (m *Manager) branchID(id commit.TransactionID, name string) resource.ID {
	return resource.ID{Owner: m.cfg.Log.Owner(), Transaction: string(id), Branch: name}
}

// forgetOpen drops a transaction that ended without a branch.
func (m *Manager) forgetOpen(id commit.TransactionID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.open, id)
	m.signal()
}

// retire drops t once everything about it is recorded.
func (m *Manager) retire(t *transaction) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.active, t.id)
	m.signal()
}

// signal wakes those who wait for fewer transactions. The caller holds m.mu.
func (m *Manager) signal() {
	if m.left != nil {
		close(m.left)
		m.left = nil
	}
}

// pause sleeps for d and reports whether the manager still lives.
func (m *Manager) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-m.life.Done():
		return false
	}
}
