package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"assent/protocol/commit"
	"assent/resource"
)

const (
	prepareTag = "PREPARE TRANSACTION"
	commitTag  = "COMMIT"
)

// Prepare votes as resource.Branch says. See the package comment for what proves a vote. A branch in
// which a statement still runs votes no at once: what the statement does would be in or out of the
// transaction by chance.
func (t *Tx) Prepare(ctx context.Context) (resource.Vote, error) {
	if !t.free() {
		return resource.Vote{Vote: commit.No}, busy(opPrepare)
	}
	defer t.yield()
	return t.vote(ctx)
}

// StartPrepare sends PREPARE TRANSACTION where the branch is known to have written and nothing else
// is to be asked first.
func (t *Tx) StartPrepare(ctx context.Context) (answer func() (resource.Vote, error)) {
	if !t.free() {
		return nil
	}
	if len(t.queue) > 0 && t.travels() && t.queueFits(opPrepare) == nil {
		if b := t.bundle(true, t.lockLimit(ctx)); len(b.missing(t.plans())) == 0 {
			answer := t.prepareQueue(ctx, b)
			return func() (resource.Vote, error) {
				defer t.yield()
				return answer()
			}
		}
	}
	if len(t.queue) > 0 || t.xid == 0 || t.soiled != clean || t.fit(opPrepare) != nil {
		t.yield()
		return nil
	}
	t.sent = sentPrepare
	answers := t.request(ctx, prepareSQL(t.gid))
	return func() (resource.Vote, error) {
		defer t.yield()
		return t.promised(t.preparedBy(answers()))
	}
}

// vote is Prepare in the branch's turn.
func (t *Tx) vote(ctx context.Context) (resource.Vote, error) {
	no := resource.Vote{Vote: commit.No}
	if len(t.queue) > 0 {
		if err := t.queueFits(opPrepare); err != nil {
			return no, err
		}
		if t.travels() {
			return t.prepareQueue(ctx, t.bundle(true, t.lockLimit(ctx)))()
		}
		if err := t.flush(ctx); err != nil {
			return no, err
		}
	}
	if t.state == fresh && t.fate() == nil {
		t.leave()
		return resource.Vote{Vote: commit.ReadOnly}, nil
	}
	if err := t.fit(opPrepare); err != nil {
		return no, err
	}
	if t.xid == 0 && !t.wrote {
		if err := t.askXID(ctx); err != nil {
			return no, err
		}
		if t.xid == 0 {
			if err := t.commitNothing(ctx); err != nil {
				return no, err
			}
			return resource.Vote{Vote: commit.ReadOnly}, nil
		}
	}
	return t.promised(t.prepare(ctx))
}

// promised makes a vote of what came of PREPARE.
func (t *Tx) promised(err error) (resource.Vote, error) {
	if err != nil {
		return resource.Vote{Vote: commit.No}, err
	}
	return resource.Vote{Vote: commit.Yes, Evidence: t.evidence().encode()}, nil
}

// askXID asks for the transaction's number, which only a transaction that has written has.
func (t *Tx) askXID(ctx context.Context) error {
	answers, err := t.send(ctx, xidSQL)
	if err != nil {
		return t.failed(opPrepare, err)
	}
	t.asked = true
	return t.setXID(answers[0].row)
}

// leave ends a branch that has written nothing: to commit it and to roll it back is the same.
func (t *Tx) leave() {
	t.release()
	t.state = left
}

// commitNothing commits a branch that has written nothing.
func (t *Tx) commitNothing(ctx context.Context) error {
	answers, err := t.send(ctx, "COMMIT")
	if err != nil {
		return t.failed(opPrepare, err)
	}
	if tag := answers[0].tag.String(); tag != commitTag {
		return t.mistagged(opPrepare, tag)
	}
	t.leave()
	return nil
}

func (t *Tx) prepare(ctx context.Context) error {
	sql := ""
	if t.soiled >= resettable {
		// The prepared transaction belongs to the current user, and must belong to the one who will
		// finish it. Triggers that are due run before that, as whoever queued them.
		sql = "SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL SESSION AUTHORIZATION DEFAULT; SET LOCAL ROLE " + quote(t.sess.role) + "; "
	}
	if t.xid == 0 {
		sql += "SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text; "
	}
	t.sent = sentPrepare
	return t.preparedBy(t.send(ctx, sql+prepareSQL(t.gid)))
}

func prepareSQL(gid string) string { return prepareTag + " " + quote(gid) }

// preparedBy takes the answers to PREPARE TRANSACTION and to what was sent before it.
func (t *Tx) preparedBy(answers []answer, err error) error {
	for _, a := range answers {
		if t.xid == 0 && len(a.row) == 1 {
			err = errors.Join(err, t.setXID(a.row))
		}
	}
	if err != nil {
		return t.failed(opPrepare, err)
	}
	if tag := answers[len(answers)-1].tag.String(); tag != prepareTag {
		return t.mistagged(opPrepare, tag)
	}
	t.state, t.sent = prepared, nothingDoubtful
	return nil
}

// mistagged makes of a wrong command tag an error. The transaction is over: it was rolled back.
func (t *Tx) mistagged(op, tag string) error {
	if tag == "ROLLBACK" {
		t.end(commit.RolledBack)
	} else {
		t.lose()
	}
	return t.broken(op, fmt.Errorf("the server answered with the command tag %q", tag))
}

// failed deals with an error of a request that the branch sent: it finds out what is left of the
// transaction.
func (t *Tx) failed(op string, err error) error {
	switch {
	case t.conn.Conn().IsClosed():
		// Whether the request was sent is not asked: pgconn.SafeToRetry says yes of errors that
		// follow the first one on a closed connection, too.
		t.lose()
		return unavailable(op, err)
	case t.status() == 'I' && t.state == open && op != opRollback:
		// An error at PREPARE or COMMIT rolls back, and leaves no transaction.
		t.end(commit.RolledBack)
	}
	return mapError(op, err)
}

// fit reports why the branch cannot be prepared or committed, or nil.
func (t *Tx) fit(op string) error {
	doomed := t.fate()
	switch {
	case doomed != nil:
		return t.broken(op, doomed)
	case t.state == spoiled:
		return t.broken(op, t.cause)
	case t.state == gone:
		return t.broken(op, errConnLost)
	case t.state != open:
		return &resource.Error{Code: resource.Invalid, Op: op, Err: errors.New("the branch is prepared or finished already")}
	case t.rows != nil:
		return &resource.Error{
			Code: resource.Invalid, Op: op, Err: errors.New("the rows of a query are still open"),
			Hint: "read all rows or close them",
		}
	case t.conn.Conn().IsClosed():
		t.lose()
		return t.broken(op, errConnLost)
	case t.status() != 'T':
		return t.broken(op, t.cause)
	}
	return nil
}

var errConnLost = errors.New("the branch's connection was lost, or closed because a context ended")

func (t *Tx) broken(op string, cause error) error {
	if cause == nil {
		cause = errors.New("a statement failed before")
	}
	return &resource.Error{
		Code: resource.Broken, Op: op, Err: cause,
		Hint: "a branch in which a statement failed can only be rolled back; run the whole transaction again",
	}
}

// Commit finishes the branch after a yes vote, on its own session while that lives.
func (t *Tx) Commit(ctx context.Context) (commit.Outcome, error) {
	if err := t.take(ctx, opCommit); err != nil {
		return 0, err
	}
	defer t.yield()
	switch t.state {
	case ended:
		return t.outcome, nil
	case left:
		return commit.Committed, nil
	case prepared:
		return t.settle(ctx, opCommit, commit.Committed)
	case gone:
		return t.byID(ctx, opCommit)
	}
	return 0, &resource.Error{Code: resource.Invalid, Op: opCommit, Err: errors.New("the branch is not prepared")}
}

// StartCommit sends COMMIT PREPARED where the branch has its own session yet.
func (t *Tx) StartCommit(ctx context.Context) (answer func() (commit.Outcome, error)) {
	if !t.free() {
		return nil
	}
	if t.state != prepared || t.conn.Conn().IsClosed() {
		t.yield()
		return nil
	}
	answers := t.request(ctx, finishSQL(opCommit, t.gid))
	return func() (commit.Outcome, error) {
		defer t.yield()
		_, err := answers()
		return t.settled(ctx, opCommit, commit.Committed, err)
	}
}

// Rollback undoes the branch, whatever its state. It may be called while a statement runs in
// another goroutine: the statement is cancelled. One that does not return then (a CopyFrom whose source
// waits, say) is waited for until ctx ends.
func (t *Tx) Rollback(ctx context.Context) (commit.Outcome, error) {
	t.interrupt()
	if err := t.take(ctx, opRollback); err != nil {
		return 0, err
	}
	defer t.yield()
	if t.rows != nil {
		t.rows.close()
	}
	if t.state == open && t.conn.Conn().IsClosed() {
		t.lose()
	}
	switch t.state {
	case ended:
		return t.outcome, nil
	case left:
		return commit.RolledBack, nil
	case fresh:
		t.end(commit.RolledBack)
		return t.outcome, nil
	case prepared:
		return t.settle(ctx, opRollback, commit.RolledBack)
	case open:
		return t.undo(ctx)
	case spoiled:
		return t.unspoil(ctx)
	}
	return t.byID(ctx, opRollback)
}

// undo rolls an open transaction back on its session.
func (t *Tx) undo(ctx context.Context) (commit.Outcome, error) {
	answers, err := t.send(ctx, "ROLLBACK")
	if err == nil && answers[0].tag.String() == "ROLLBACK" {
		t.end(commit.RolledBack)
		return t.outcome, nil
	}
	// Whatever happened to the session, without it the transaction is found by its id.
	t.lose()
	return t.byID(ctx, opRollback)
}

// unspoil ends a branch whose session is no longer in the transaction that began, or never was.
func (t *Tx) unspoil(ctx context.Context) (commit.Outcome, error) {
	if !t.begun {
		t.end(commit.RolledBack)
		return t.outcome, nil
	}
	// The caller ended the transaction by a statement of its own: ask how.
	t.lose()
	t.sent = sentCommit
	if t.xid == 0 {
		t.r.cfg.Logger.Warn("branch ended by a statement of its own user; no transaction number is known", "branch", t.gid)
		t.outcome, t.state = commit.Hazard, ended
		return t.outcome, nil
	}
	return t.byID(ctx, opRollback)
}

// settle finishes a prepared branch on its own session, which is neither slower nor less safe than
// any other, and by id where the session is lost.
func (t *Tx) settle(ctx context.Context, op string, want commit.Outcome) (commit.Outcome, error) {
	_, err := t.send(ctx, finishSQL(op, t.gid))
	return t.settled(ctx, op, want, err)
}

// settled takes the answer to COMMIT PREPARED or ROLLBACK PREPARED.
func (t *Tx) settled(ctx context.Context, op string, want commit.Outcome, err error) (commit.Outcome, error) {
	if err == nil {
		t.end(want)
		return t.outcome, nil
	} else if !t.conn.Conn().IsClosed() && !isState(err, stateUndefinedObject) {
		return 0, mapError(op, err)
	}
	t.lose()
	return t.byID(ctx, op)
}

func (t *Tx) byID(ctx context.Context, op string) (commit.Outcome, error) {
	f := &finisher{r: t.r, op: op, gid: t.gid, lock: t.lock, e: t.evidence(), incarnation: t.sess.incarnation, sent: t.sent}
	if t.tried && !t.locked && t.sent != nothingDoubtful && t.sess.backend != "" {
		f.backend = t.sess.backend
		if t.sent == sentNothing {
			f.backend += notIdle
		}
	}
	outcome, err := f.run(ctx)
	if err != nil {
		return 0, err
	}
	t.outcome, t.state = outcome, ended
	return outcome, nil
}

// CommitOnePhase commits the branch without preparing it. It has the transaction's number before
// it sends COMMIT, so a lost reply leaves evidence. A branch in which a statement still runs is rolled
// back.
func (t *Tx) CommitOnePhase(ctx context.Context) (commit.Outcome, error) {
	if !t.free() {
		cause := busy(opCommit)
		outcome, err := t.Rollback(ctx)
		if err != nil {
			outcome = commit.Hazard // for now: the next Rollback tells
		}
		return outcome, errors.Join(cause, err)
	}
	defer t.yield()
	if len(t.queue) > 0 {
		err := t.queueFits(opCommit)
		if err == nil {
			err = t.flush(ctx)
		}
		if err != nil {
			return t.onePhaseFailed(ctx, err)
		}
	}
	if t.state == fresh {
		if doomed := t.fate(); doomed != nil {
			t.end(commit.RolledBack)
			return t.outcome, t.broken(opCommit, doomed)
		}
		t.end(commit.Committed)
		return t.outcome, nil
	}
	err := t.fit(opCommit)
	if err == nil && t.xid == 0 {
		err = t.askXID(ctx)
	}
	if err == nil {
		t.sent = sentCommit
		var answers []answer
		if answers, err = t.send(ctx, "COMMIT"); err == nil && answers[0].tag.String() == commitTag {
			t.end(commit.Committed)
			return t.outcome, nil
		} else if err == nil {
			err = t.mistagged(opCommit, answers[0].tag.String())
		} else {
			err = t.failed(opCommit, err)
		}
	}
	return t.onePhaseFailed(ctx, err)
}

// onePhaseFailed finds out what became of a branch that did not hear of its COMMIT.
func (t *Tx) onePhaseFailed(ctx context.Context, cause error) (commit.Outcome, error) {
	if t.rows != nil {
		t.interrupt() // they may be many
		t.rows.close()
	}
	switch t.state {
	case fresh:
		t.end(commit.RolledBack)
		return t.outcome, cause
	case ended:
		return t.outcome, cause
	case open:
		outcome, err := t.undo(ctx)
		return outcome, errors.Join(cause, err)
	case spoiled:
		outcome, err := t.unspoil(ctx)
		return outcome, errors.Join(cause, err)
	}
	if t.xid == 0 && t.asked {
		// It has written nothing, so nothing of it can be lost.
		t.outcome, t.state = commit.Committed, ended
		return t.outcome, nil
	}
	if ctx.Err() != nil {
		// There is no second call that could look, so this one looks for a moment longer.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
	}
	outcome, err := t.byID(ctx, opRollback)
	switch {
	case err != nil:
		return commit.Hazard, errors.Join(cause, err)
	case outcome == commit.Committed:
		return outcome, nil
	}
	return outcome, cause
}

// grace is for how long a lost one-phase commit is looked for after its context has ended.
const grace = 2 * time.Second

// evidence is what is known of the transaction; its xid is 0 where nothing is.
func (t *Tx) evidence() evidence {
	return evidence{system: t.sess.system, timeline: t.sess.timeline, xid: t.xid}
}

const xidSQL = "SELECT pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text"

// setXID takes the answer to xidSQL: one column, empty for NULL.
func (t *Tx) setXID(row []string) error {
	if len(row) != 1 || row[0] == "" {
		return nil
	}
	xid, err := strconv.ParseUint(row[0], 10, 64)
	if err != nil {
		return fmt.Errorf("the server's transaction number: %w", err)
	}
	t.xid = xid
	return nil
}

func finishSQL(op, gid string) string {
	if op == opCommit {
		return "COMMIT PREPARED " + quote(gid)
	}
	return "ROLLBACK PREPARED " + quote(gid)
}
