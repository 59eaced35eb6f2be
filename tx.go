package assent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"assent/protocol/commit"
	"assent/resource"
)

// Tx is a transaction that is open for work. Resources join it; Commit or Rollback ends it. All
// methods are safe for concurrent use; the work in one branch is done by one goroutine at a time.
type Tx struct {
	m     *Manager
	id    commit.TransactionID
	began time.Time
	early bool

	mu       sync.Mutex
	ended    bool
	why      *AbortedError // set when the manager ended it
	branches map[string]*joined
	order    []string
	stop     func()          // of the timeout
	work     context.Context // that of Run's work; nil without
	endWork  context.CancelFunc
}

// joined is a branch that is being begun, or was.
type joined struct {
	ctx    context.Context    // that of Begin, which ends with the transaction: nobody waits for what comes too late
	cancel context.CancelFunc // ends it
	done   bool               // what follows is set; guarded by the transaction's mu
	ready  chan struct{}      // closed then; nil while nobody waits for it
	branch resource.Branch
	err    error
	gaveUp bool // because the context of whoever was to begin the branch has ended, or the transaction
}

// wait returns what is closed when the branch has been begun, or not. The caller holds the transaction's mu.
func (j *joined) wait() <-chan struct{} {
	if j.ready == nil {
		j.ready = make(chan struct{})
		if j.done {
			close(j.ready)
		}
	}
	return j.ready
}

var _ resource.Transaction = (*Tx)(nil)

// Begin opens a transaction. The context is checked and not kept: the transaction ends by
// Commit, by Rollback, when Config.Timeout (or the Timeout option) has passed, or with the
// manager. Run is simpler where the work is one function.
func (m *Manager) Begin(ctx context.Context, options ...Option) (*Tx, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o := m.options(options)
	tx := &Tx{m: m, id: m.newID(), began: time.Now(), early: o.early, branches: map[string]*joined{}}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil, ErrClosed
	}
	m.open[tx.id] = tx
	m.mu.Unlock()
	stop := m.cfg.Clock.AfterFunc(o.timeout, func() {
		tx.abandon(fmt.Sprintf("open for longer than %v", o.timeout))
	})
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.stop = stop; tx.ended {
		stop()
	}
	return tx, nil
}

// ID returns the transaction's id, by which its outcome can be asked for while the log retains
// it. What needs no record leaves none, and is ErrUnknown once it is over: an abort, a commit in one
// phase (of a single branch), and one of branches that have written nothing.
func (tx *Tx) ID() string { return string(tx.id) }

// setWork says which context the work of Run has, and how to end it.
func (tx *Tx) setWork(ctx context.Context, end context.CancelFunc) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.work, tx.endWork = ctx, end
}

// Join returns the transaction's branch in r, beginning it if it has none. Adapters call it;
// applications call the adapter's own Join. It fails with ErrNotOpen after the end, and where r
// is not one of the manager's resources. A failed Join leaves the transaction as it was. Where two
// goroutines join r at once, one of them begins the branch; the other begins it anew if the first
// fails because its own context has ended.
func (tx *Tx) Join(ctx context.Context, r resource.Resource) (resource.Branch, error) {
	name, ok := tx.m.names[r]
	if !ok {
		return nil, fmt.Errorf("join transaction %s: %T is not a resource of this manager; add it to Config.Resources", tx.id, r)
	}
	for {
		j, begun, err := tx.enlist(ctx, name)
		if err != nil {
			return nil, err
		}
		if begun == nil {
			tx.beginBranch(r, name, j)
			return j.branch, j.err
		}
		select {
		case <-begun:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if !j.gaveUp {
			return j.branch, j.err
		}
	}
}

// enlist returns the place of name's branch, and what to wait for until it is begun; nil where the caller
// is the first there and must begin it.
func (tx *Tx) enlist(ctx context.Context, name string) (j *joined, begun <-chan struct{}, err error) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.ended {
		return nil, nil, tx.notOpen()
	}
	if j = tx.branches[name]; j != nil {
		return j, j.wait(), nil
	}
	j = &joined{err: errBeginPanicked}
	if ctx == tx.work {
		j.ctx, j.cancel = ctx, tx.endWork
	} else {
		j.ctx, j.cancel = context.WithCancel(ctx)
	}
	tx.branches[name] = j
	tx.order = append(tx.order, name)
	return j, nil, nil
}

// errBeginPanicked stands until Begin has returned.
var errBeginPanicked = errors.New("the resource panicked, or ended the goroutine, when it was to begin the branch")

// beginBranch begins the branch of j, and lets those go who wait for it, come what may.
func (tx *Tx) beginBranch(r resource.Resource, name string, j *joined) {
	defer func() {
		tx.mu.Lock()
		defer tx.mu.Unlock()
		if j.err != nil {
			j.err = fmt.Errorf("join %s: %w", name, j.err)
			j.gaveUp = j.ctx.Err() != nil
			delete(tx.branches, name)
			tx.order = remove(tx.order, name)
		}
		if j.ctx != tx.work {
			j.cancel()
		}
		if j.done = true; j.ready != nil {
			close(j.ready)
		}
	}()
	j.branch, j.err = r.Begin(j.ctx, tx.m.branchID(tx.id, name))
}

func remove(names []string, name string) []string {
	for i, n := range names {
		if n == name {
			return append(names[:i:i], names[i+1:]...)
		}
	}
	return names
}

// Commit ends the transaction and returns nil if it is committed: the decision is stable, and
// the branches are finished, or will be (see Config.FinishWait). Else it returns an
// *AbortedError, *InDoubtError or *HeuristicError, or ErrNotOpen when the transaction has ended
// before. When ctx ends during the voting the transaction aborts; later it makes Commit return
// early, and changes nothing.
func (tx *Tx) Commit(ctx context.Context) error {
	branches, err := tx.finish(nil)
	if err != nil {
		return err
	}
	if len(branches) == 0 {
		return nil
	}
	t, err := tx.m.begin(tx, branches, nil)
	if err != nil {
		return err
	}
	t.start()
	return t.await(ctx, tx.early)
}

// Rollback ends the transaction and undoes its work. It returns nil when nothing is left of it,
// also when it was rolled back before. When ctx ends, or Config.FinishWait is over, it returns
// nil too: the abort is certain, and the rest is undone in the background. After Commit it
// returns ErrNotOpen.
func (tx *Tx) Rollback(ctx context.Context) error {
	err := tx.rollback(ctx, &AbortedError{ID: tx.id, Cause: commit.Cancelled, By: "application"})
	if errors.Is(err, ErrAborted) {
		return nil
	}
	return err
}

// rollback ends the transaction as why says and returns what came of it: mostly why itself.
func (tx *Tx) rollback(ctx context.Context, why *AbortedError) error {
	branches, err := tx.finish(why)
	if err != nil {
		return err
	}
	if len(branches) == 0 {
		return why
	}
	t, err := tx.m.begin(tx, branches, why)
	if err != nil {
		return err
	}
	t.cancel(why.Reason)
	err = t.await(ctx, false)
	if errors.Is(err, ErrInDoubt) { // the manager's life has ended before anybody was told
		return why // no branch was asked to prepare, and none will be
	}
	return err
}

// abandon is the manager's own rollback. Nobody waits for it.
func (tx *Tx) abandon(reason string) {
	why := &AbortedError{ID: tx.id, Cause: commit.Cancelled, By: "manager", Reason: reason}
	branches, err := tx.finish(why)
	if err != nil || len(branches) == 0 {
		return
	}
	t, err := tx.m.begin(tx, branches, why)
	if err != nil {
		return
	}
	tx.m.cfg.Logger.Warn("transaction rolled back", "transaction", tx.id, "reason", reason)
	t.cancel(reason)
}

// finish closes the transaction to work and returns its branches, those that joined first first.
func (tx *Tx) finish(why *AbortedError) ([]branch, error) {
	tx.mu.Lock()
	if tx.ended {
		err := tx.notOpen()
		tx.mu.Unlock()
		return nil, err
	}
	tx.ended, tx.why = true, why
	if tx.stop != nil {
		tx.stop()
	}
	var begun []<-chan struct{}
	for _, j := range tx.branches {
		if !j.done {
			j.cancel()
			begun = append(begun, j.wait())
		}
	}
	if begun != nil {
		tx.mu.Unlock()
		for _, b := range begun {
			<-b // the context of Begin has ended
		}
		tx.mu.Lock() // those that were not begun are gone
	}
	branches := make([]branch, 0, len(tx.order))
	for _, name := range tx.order {
		branches = append(branches, branch{name, tx.branches[name].branch})
	}
	tx.mu.Unlock()

	if len(branches) == 0 {
		tx.m.forgetOpen(tx.id)
	}
	return branches, nil
}

// branch is a branch with the name of its resource.
type branch struct {
	name   string
	branch resource.Branch
}

// notOpen says why the transaction takes no work. The caller holds tx.mu.
func (tx *Tx) notOpen() error {
	if tx.why != nil {
		return fmt.Errorf("%w: %w", ErrNotOpen, tx.why)
	}
	return fmt.Errorf("%w: transaction %s was committed or is being committed", ErrNotOpen, tx.id)
}

// begin makes the driver of tx, and moves tx from the open to the active transactions. When the
// manager's life is over it rolls the branches back and returns an *AbortedError: there is nobody
// left to drive them.
func (m *Manager) begin(tx *Tx, branches []branch, cause *AbortedError) (*transaction, error) {
	t := newTransaction(m, tx.id, tx.began)
	t.cause = cause
	for _, b := range branches {
		t.add(b.name, b.branch)
	}
	t.assemble()
	m.mu.Lock()
	delete(m.open, tx.id)
	over := m.life.Err() != nil
	if !over {
		m.active[tx.id] = t
	}
	m.signal()
	m.mu.Unlock()
	if over {
		ctx, cancel := context.WithTimeout(context.Background(), m.cfg.FinishTimeout)
		defer cancel()
		m.undo(ctx, t)
		return nil, &AbortedError{ID: tx.id, Cause: commit.Cancelled, By: "manager", Reason: "the manager is closed", Err: ErrClosed}
	}
	return t, nil
}
