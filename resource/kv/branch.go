package kv

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"assent/protocol/commit"
	"assent/resource"
)

var (
	_ resource.Branch   = (*Tx)(nil)
	_ resource.OnePhase = (*Tx)(nil)
)

// Tx is a branch in the store. Its methods may be called by several goroutines; they take turns.
// After an error from one that works (Get, Put, Scan and so on) the branch is broken: it takes no
// more work, votes no, and can only be rolled back.
type Tx struct {
	r     *Resource
	id    resource.ID
	owner *lockOwner

	// turn is held, by putting a value into it, by the call that is at work in the branch. All
	// below writes is read and changed by that call alone.
	turn   chan struct{}
	writes map[string]write
	size   int
	state  state
	ballot uint64
	// outcome is that of a finished branch.
	outcome commit.Outcome

	// doomed is closed when the branch can no more than be rolled back; reason says why.
	doomed chan struct{}
	doom   sync.Once
	reason error
}

type write struct {
	value  []byte
	delete bool
}

type state uint8

const (
	active   state = iota // at work; doomed or not
	unknown               // not begun here; a rollback looks into what became of it
	prepared              // voted yes
	over                  // voted read-only, or committed nothing
	done                  // finished, with an outcome
)

func (r *Resource) newTx(id resource.ID) *Tx {
	return &Tx{r: r, id: id, owner: r.locks.newOwner(), turn: make(chan struct{}, 1),
		doomed: make(chan struct{}), writes: map[string]write{}}
}

// ID returns the branch's id.
func (t *Tx) ID() resource.ID { return t.id }

// take waits for the branch's turn.
func (t *Tx) take(ctx context.Context, op string) error {
	if ctx.Err() != nil {
		return ended(ctx, op)
	}
	select {
	case t.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ended(ctx, op)
	case <-t.r.engine.failed:
		return unavailable(op, t.r.engine.failure())
	}
}

// yield gives the turn back.
func (t *Tx) yield() { <-t.turn }

// condemn makes sure that the branch never commits, unless it is prepared already. Its waits end.
func (t *Tx) condemn(reason error) {
	t.doom.Do(func() {
		t.reason = reason
		close(t.doomed)
	})
}

// condemned returns why the branch is doomed, or nil.
func (t *Tx) condemned() error {
	select {
	case <-t.doomed:
		return t.reason
	default:
		return nil
	}
}

// adopt makes t the prepared branch that p describes. It is for Open alone.
func (t *Tx) adopt(p preparedRecord) {
	for _, w := range p.Writes {
		t.writes[string(w.Key)] = write{w.Value, w.Delete}
		t.r.locks.lock(t.owner, point(string(w.Key)), true, exclusive) // granted: it has no rival yet
	}
	t.voted(p)
}

// voted enters t among the prepared branches.
func (t *Tx) voted(p preparedRecord) {
	t.state, t.ballot = prepared, p.Ballot
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	t.r.prepared[t.id] = resource.Prepared{ID: t.id, Evidence: evidence(t.r.store, p.Ballot), Since: time.UnixMilli(p.Since)}
}

// call is one call at work in the branch: it has the turn, and the store is open.
func (t *Tx) call(ctx context.Context, op string) (done func(), err error) {
	if err := t.r.engine.enter(); err != nil {
		return nil, unavailable(op, err)
	}
	if err := t.take(ctx, op); err != nil {
		t.r.engine.leave()
		return nil, err
	}
	return t.release, nil
}

func (t *Tx) release() {
	t.yield()
	t.r.engine.leave()
}

type answer[T any] struct {
	value T
	err   error
}

// force runs work, which has t's turn and forces the disk, and returns its answer, or an error
// when ctx ends earlier. work then goes on, and the next call in the branch waits for it.
func force[T any](ctx context.Context, t *Tx, op string, work func() (T, error)) (T, error) {
	release, err := t.call(ctx, op)
	if err != nil {
		var none T
		return none, err
	}
	return run(ctx, t, op, release, work)
}

// run is force for a caller that has the turn already, and has entered; release gives both back.
func run[T any](ctx context.Context, t *Tx, op string, release func(), work func() (T, error)) (T, error) {
	ready := make(chan answer[T], 1)
	go func() {
		defer release()
		value, err := work()
		ready <- answer[T]{value, err}
	}()
	var none T
	select {
	case a := <-ready:
		return a.value, a.err
	case <-ctx.Done():
		return none, ended(ctx, op)
	case <-t.r.engine.failed:
		return none, unavailable(op, t.r.engine.failure())
	}
}

// Prepare votes. With writes, it forces them in one record and votes yes; without, it votes
// read-only and the branch is over; a broken branch votes no. A branch that has voted yes votes
// so again.
//
// A yes vote keeps the exclusive locks on the keys that are written, also across a restart, and
// releases all others, as a read-only vote does. That is safe under two-phase locking as long as
// no resource of the transaction takes new locks by then; the transaction manager prepares only
// when the work is over everywhere.
func (t *Tx) Prepare(ctx context.Context) (resource.Vote, error) {
	return force(ctx, t, "prepare", t.vote)
}

func (t *Tx) vote() (resource.Vote, error) {
	const op = "prepare"
	no := resource.Vote{Vote: commit.No}
	switch reason := t.condemned(); {
	case t.state == prepared:
		return t.yes(), nil
	case t.state != active:
		return no, broken(op, errors.New("the branch is finished"))
	case reason != nil:
		return no, broken(op, reason)
	case len(t.writes) == 0:
		t.vanish()
		return resource.Vote{Vote: commit.ReadOnly}, nil
	}
	ballot, err := newBallot(t.r.cfg.Random)
	if err != nil {
		return no, unavailable(op, err)
	}
	p := preparedRecord{Ballot: ballot, Since: t.r.cfg.Clock().UnixMilli(), Writes: t.sorted()}
	data, err := t.r.codec.enc.Marshal(p)
	if err != nil {
		return no, invalid(op, err)
	}
	b := t.r.engine.db.NewBatch()
	if err := b.Set(keyOf(preparedKey, t.id.String()), data, nil); err != nil {
		return no, invalid(op, err)
	}
	if err := t.r.engine.apply(b, true); err != nil {
		return resource.Vote{}, unavailable(op, err)
	}
	t.voted(p)
	t.r.locks.release(t.owner, func(q *request) bool {
		_, written := t.writes[q.from]
		return q.single && q.mode == exclusive && written
	})
	return t.yes(), nil
}

func (t *Tx) yes() resource.Vote {
	return resource.Vote{Vote: commit.Yes, Evidence: evidence(t.r.store, t.ballot)}
}

// sorted returns the writes in the order of their keys.
func (t *Tx) sorted() []writeRecord {
	list := make([]writeRecord, 0, len(t.writes))
	for key, w := range t.writes {
		list = append(list, writeRecord{Key: []byte(key), Value: w.value, Delete: w.delete})
	}
	slices.SortFunc(list, func(a, b writeRecord) int { return strings.Compare(string(a.Key), string(b.Key)) })
	return list
}

// Commit commits the prepared branch. It answers as Resource.Commit does.
func (t *Tx) Commit(ctx context.Context) (commit.Outcome, error) {
	return force(ctx, t, "commit", func() (commit.Outcome, error) {
		if t.state == active {
			return 0, invalid("commit", errors.New("the branch is not prepared"))
		}
		return t.conclude("commit", true)
	})
}

// Rollback rolls the branch back, prepared or not. It answers as Resource.Rollback does.
func (t *Tx) Rollback(ctx context.Context) (commit.Outcome, error) {
	t.condemn(errors.New("the branch was rolled back"))
	return force(ctx, t, "rollback", func() (commit.Outcome, error) {
		return t.conclude("rollback", false)
	})
}

// CommitOnePhase commits the branch without a vote, in one forced write. A broken branch is
// rolled back. If ctx ends, or the store stops, while the disk is being forced, or while a call that
// is at work in the branch does not return, the answer is Hazard with an error; Rollback, or
// Resource.Commit with the branch's id, tells later what happened.
func (t *Tx) CommitOnePhase(ctx context.Context) (commit.Outcome, error) {
	const op = "commit in one phase"
	// When ctx ends before the write begins, the branch is rolled back: that has a sure answer,
	// and nothing long to wait for.
	stop := context.AfterFunc(ctx, func() { t.condemn(ctx.Err()) })
	defer stop()
	turn, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	// A call at work that waits for a lock ends when the branch is doomed. One that waits for the disk
	// may not, and nobody waits for that long.
	defer context.AfterFunc(ctx, func() { time.AfterFunc(onePhaseGrace, cancel) })()
	release, err := t.call(turn, op)
	if err != nil && turn.Err() != nil {
		err = ended(ctx, op)
	}
	if err != nil {
		return commit.Hazard, err
	}
	if ctx.Err() != nil {
		t.condemn(ctx.Err())
		ctx = context.WithoutCancel(ctx)
	}
	outcome, err := run(ctx, t, op, release, func() (commit.Outcome, error) {
		switch {
		case t.state == done || t.state == over:
			return t.conclude(op, true)
		case t.state == prepared:
			return commit.Hazard, invalid(op, errors.New("the branch is prepared"))
		case t.condemned() != nil:
			return t.conclude("rollback", false)
		case len(t.writes) == 0:
			t.vanish()
			return commit.Committed, nil
		}
		ballot, err := newBallot(t.r.cfg.Random)
		if err != nil {
			return commit.Hazard, unavailable(op, err)
		}
		t.ballot = ballot
		return t.conclude(op, true)
	})
	if err != nil {
		outcome = commit.Hazard
	}
	return outcome, err
}

// onePhaseGrace is for how long CommitOnePhase waits, when its context has ended, for a call that is
// at work in the branch: to roll back has a sure answer.
const onePhaseGrace = 500 * time.Millisecond

// conclude finishes the branch, commits it or rolls it back, and puts its outcome on record, all in
// one write. A branch that is finished already keeps its outcome.
//
// All is forced, but for the rollback of a branch that has never voted: a crash undoes that branch
// by itself. The rollback of a prepared branch is forced, although presumed abort would find the
// branch and roll it back again after a crash: RolledBack is a proof, here as everywhere.
func (t *Tx) conclude(op string, commits bool) (commit.Outcome, error) {
	outcome := commit.RolledBack
	if commits {
		outcome = commit.Committed
	}
	switch t.state {
	case done:
		return t.outcome, nil
	case over:
		return outcome, nil // the branch changed nothing: either is true
	}
	b := t.r.engine.db.NewBatch()
	if commits {
		if err := t.writeTo(b); err != nil {
			return 0, unavailable(op, err)
		}
	}
	if t.state == prepared {
		if err := b.Delete(keyOf(preparedKey, t.id.String()), nil); err != nil {
			return 0, unavailable(op, err)
		}
	}
	if err := t.r.putOutcome(b, t.id, commits, t.ballot); err != nil {
		return 0, unavailable(op, err)
	}
	if err := t.r.engine.apply(b, t.state != active || commits); err != nil {
		return 0, unavailable(op, err)
	}
	t.finished(outcome)
	t.r.pruneSometimes()
	return outcome, nil
}

func (t *Tx) writeTo(b *pebble.Batch) error {
	for key, w := range t.writes {
		var err error
		if w.delete {
			err = b.Delete(keyOf(dataKey, key), nil)
		} else {
			err = b.Set(keyOf(dataKey, key), w.value, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// finished ends the branch: its locks are free, and it is in the store's list no more.
func (t *Tx) finished(outcome commit.Outcome) {
	t.state, t.outcome = done, outcome
	t.leave()
}

// vanish ends a branch that has changed nothing. It needs no record.
func (t *Tx) vanish() {
	t.state = over
	t.leave()
}

func (t *Tx) leave() {
	t.writes = nil
	t.condemn(errors.New("the branch is finished"))
	t.r.locks.release(t.owner, nil)
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	if t.r.branches[t.id] == t {
		delete(t.r.branches, t.id)
		delete(t.r.prepared, t.id)
	}
}
