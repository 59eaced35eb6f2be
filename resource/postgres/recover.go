package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"assent/protocol/commit"
	"assent/resource"
)

// Commit finishes a prepared branch by its id, on any session.
func (r *Resource) Commit(ctx context.Context, p resource.Prepared) (commit.Outcome, error) {
	return r.finishPrepared(ctx, opCommit, p)
}

// Rollback undoes a branch by its id, prepared or not. It terminates sessions that could still
// prepare it.
func (r *Resource) Rollback(ctx context.Context, p resource.Prepared) (commit.Outcome, error) {
	return r.finishPrepared(ctx, opRollback, p)
}

func (r *Resource) finishPrepared(ctx context.Context, op string, p resource.Prepared) (commit.Outcome, error) {
	if err := p.ID.Validate(); err != nil {
		return 0, &resource.Error{Code: resource.Invalid, Op: op, Err: err}
	}
	f := &finisher{r: r, op: op, gid: p.ID.String(), sent: nothingDoubtful}
	f.lock = lockKey(f.gid)
	f.e, f.bad = decodeEvidence(p.Evidence)
	return f.run(ctx)
}

// finisher finishes one branch by its id on a connection of its own.
type finisher struct {
	r    *Resource
	op   string
	gid  string
	lock int64
	e    evidence
	bad  error // why the evidence cannot be read
	sent doubt
	// incarnation is the one in which the evidence's number was seen, where it is doubtful.
	incarnation string
	// backend selects, in pg_stat_activity, the session of a branch that was lost and may not hold its lock;
	// else it is empty.
	backend string

	conn *pgx.Conn
	sess session
}

// How long finishing by id waits for others that are at the branch, where the context does not
// end before.
const finishPatience = 30 * time.Second

func (f *finisher) run(ctx context.Context) (commit.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, finishPatience)
	defer cancel()
	conn, err := f.r.acquireFinish(ctx, f.op)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	f.conn, f.sess = conn.Conn(), sessionOf(conn.Conn())
	outcome, err := f.finish(ctx)
	if err != nil {
		return 0, mapError(f.op, err)
	}
	return outcome, nil
}

// acquireFinish returns a connection to a primary. One that the server has closed meanwhile is
// replaced: the whole pool is, for the server was restarted.
func (r *Resource) acquireFinish(ctx context.Context, op string) (*pgxpool.Conn, error) {
	conn, err := r.finish.Acquire(ctx)
	if err == nil && conn.Ping(ctx) != nil && ctx.Err() == nil {
		closeNow(conn)
		r.finish.Reset()
		conn, err = r.finish.Acquire(ctx)
	}
	if err != nil {
		return nil, unavailable(op, err)
	}
	if sessionOf(conn.Conn()).standby {
		closeNow(conn) // it may become the primary: ask anew next time
		return nil, &resource.Error{
			Code: resource.Unavailable, Op: op, Err: errors.New("the server is a standby"),
			Hint: "connect to the primary: target_session_attrs=read-write with all hosts in the connection string",
		}
	}
	return conn, nil
}

// finish looks, acts on what it sees and looks again, until it has proof.
func (f *finisher) finish(ctx context.Context) (commit.Outcome, error) {
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		outcome, why, err := f.once(ctx)
		if err != nil || outcome != commit.Unfinished {
			return outcome, err
		}
		select {
		case <-ctx.Done():
			return 0, &resource.Error{Code: resource.Unavailable, Op: f.op, Detail: why, Err: ctx.Err()}
		case <-time.After(wait):
		}
	}
}

// once returns an outcome, or why there is none yet.
func (f *finisher) once(ctx context.Context) (outcome commit.Outcome, why string, err error) {
	if f.sent == sentNothing {
		// Nobody can have prepared or committed the branch: its session need only end.
		_, sessions, err := f.terminate(ctx)
		if err != nil || sessions > 0 {
			return 0, "the branch is open in its session", err
		}
		return commit.RolledBack, "", nil
	}
	listed, err := f.listed(ctx)
	if err != nil {
		return 0, "", err
	}
	if listed {
		_, err := f.query(ctx, finishSQL(f.op, f.gid))
		switch {
		case err == nil && f.op == opCommit:
			return commit.Committed, "", nil
		case err == nil:
			return commit.RolledBack, "", nil
		case isState(err, stateUndefinedObject), isState(err, stateObjectState):
			return 0, "another session is finishing the branch", nil
		}
		return 0, "", err
	}
	if f.e.xid != 0 {
		return f.judge(ctx)
	}
	return f.withoutEvidence(ctx)
}

// listed reports whether the branch is prepared. A prepared transaction of the same name and
// another number than the evidence's is not this branch: its id was used twice.
func (f *finisher) listed(ctx context.Context) (bool, error) {
	row, err := f.query(ctx, "SELECT transaction::text FROM pg_catalog.pg_prepared_xacts WHERE gid = "+quote(f.gid))
	if err != nil || len(row) == 0 {
		return false, err
	}
	xid, err := strconv.ParseUint(row[0], 10, 32)
	if err != nil {
		return false, fmt.Errorf("the number of the prepared transaction %s: %w", f.gid, err)
	}
	return f.e.xid == 0 || f.e.system != f.sess.system || uint32(xid) == uint32(f.e.xid), nil
}

// judge asks the server what became of the transaction that the evidence names.
func (f *finisher) judge(ctx context.Context) (commit.Outcome, string, error) {
	if f.e.system != f.sess.system {
		return f.hazard("the branch was prepared in another cluster", "prepared in", f.e.system, "this is", f.sess.system)
	}
	moved := f.e.timeline != f.sess.timeline
	// The number of a transaction that is not known to be stable may have been lost in a crash
	// and be another's now.
	stable := f.sent == nothingDoubtful || !moved && f.incarnation == f.sess.incarnation
	if f.sent == sentPrepare && !stable {
		return f.withoutEvidence(ctx)
	}
	row, err := f.query(ctx, fmt.Sprintf("SELECT pg_catalog.pg_xact_status('%d'::xid8)", f.e.xid))
	switch {
	case isState(err, stateInvalidValue) && f.sent != nothingDoubtful && !moved:
		return commit.RolledBack, "", nil // lost in a crash, and a commit is not lost
	case isState(err, stateInvalidValue):
		return f.hazard("the cluster has not seen the branch's transaction: it was restored or has lost it", "error", err)
	case err != nil:
		return 0, "", err
	case moved:
		return f.hazard("the cluster's timeline has changed since the branch was prepared, so its transaction number may be another's now",
			"prepared on", f.e.timeline, "this is", f.sess.timeline, "status", row[0])
	}
	switch row[0] {
	case "committed":
		if !stable {
			return f.hazard("the server has crashed since COMMIT was sent, so the branch's transaction number may be another's now")
		}
		return commit.Committed, "", nil
	case "aborted":
		return commit.RolledBack, "", nil
	case "in progress":
		if f.op == opCommit {
			return 0, "the branch's transaction is in progress: another session is finishing it", nil
		}
		_, _, err := f.terminate(ctx)
		return 0, "the branch's transaction is in progress in another session", err
	}
	return f.hazard("the server no longer knows what became of the branch's transaction: it is too old")
}

// withoutEvidence decides about a branch that is not prepared and of which nothing is known.
func (f *finisher) withoutEvidence(ctx context.Context) (commit.Outcome, string, error) {
	if f.op == opCommit {
		return f.hazard("the branch is not prepared and there is no evidence", "evidence", f.bad)
	}
	holders, _, err := f.terminate(ctx)
	if err == nil && holders == 0 && f.backend != "" {
		// A session ends after what it prepared is listed, and that may be later than it was listed above.
		var listed bool
		if listed, err = f.listed(ctx); listed {
			holders = 1
		}
	}
	switch {
	case err != nil:
		return 0, "", err
	case holders > 0:
		return 0, "the branch is open in another session", nil
	case f.bad != nil:
		return f.hazard("the branch is not prepared and its evidence cannot be read", "evidence", f.bad)
	}
	return commit.RolledBack, "", nil
}

// terminate ends the sessions that are in the branch. It returns how many hold the branch's lock, or
// are to take it, and how many of those are sessions: another may be the branch itself, prepared
// meanwhile.
func (f *finisher) terminate(ctx context.Context) (holders, sessions int, err error) {
	found := "SELECT pid FROM pg_catalog.pg_locks WHERE pid IS DISTINCT FROM pg_catalog.pg_backend_pid() AND " + lockCondition(f.lock)
	if f.backend != "" {
		found += " UNION SELECT pid FROM pg_catalog.pg_stat_activity WHERE " + f.backend
	}
	row, err := f.query(ctx, "SELECT count(*), count(pid), count(pg_catalog.pg_terminate_backend(pid)) FROM ("+found+") AS found")
	if err != nil {
		return 0, 0, err
	}
	holders, err1 := strconv.Atoi(row[0])
	sessions, err2 := strconv.Atoi(row[1])
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, fmt.Errorf("count the holders of a lock: %w", err)
	}
	if sessions > 0 {
		f.r.cfg.Logger.Info("ended the session of a branch that is rolled back", "branch", f.gid)
	}
	return holders, sessions, nil
}

func (f *finisher) hazard(why string, details ...any) (commit.Outcome, string, error) {
	f.r.cfg.Logger.Warn("the branch's outcome is a hazard: "+why, append([]any{"op", f.op, "branch", f.gid}, details...)...)
	return commit.Hazard, why, nil
}

// query runs one statement and returns its last row; none is nil.
func (f *finisher) query(ctx context.Context, sql string) ([]string, error) {
	f.r.trips.Add(1)
	answers, err := simple(ctx, f.conn, sql)
	if err != nil {
		if f.conn.IsClosed() {
			err = unavailable(f.op, err)
		}
		return nil, err
	}
	return answers[len(answers)-1].row, nil
}

// recoverSQL lists this database's prepared transactions. Those of others in the same cluster
// can only be finished from there.
const recoverSQL = `SELECT %s, p.transaction::text::bigint, p.prepared,
greatest(extract(epoch FROM pg_catalog.clock_timestamp() - p.prepared), 0)::float8,
pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint
FROM pg_catalog.pg_prepared_xacts AS p WHERE p.database = pg_catalog.current_database() ORDER BY p.prepared, p.gid`

// Recover lists the prepared transactions of this database. Those of other programs are foreign.
func (r *Resource) Recover(ctx context.Context) ([]resource.Prepared, error) {
	conn, err := r.acquireFinish(ctx, "recover")
	if err != nil {
		return nil, err
	}
	defer conn.Release()
	list, err := r.list(ctx, conn.Conn(), "p.gid")
	if isState(err, stateNotInRepertoire) || isState(err, stateUntranslatable) {
		// A foreign name is no UTF-8, nor can the server make it that: it is shown as its bytes.
		// convert_to to the database's own encoding changes nothing.
		list, err = r.list(ctx, conn.Conn(), "pg_catalog.convert_to(p.gid, pg_catalog.getdatabaseencoding())")
	}
	if err != nil {
		return nil, mapError("recover", err)
	}
	return list, nil
}

// list lists the prepared transactions, with what the expression name makes of their names.
func (r *Resource) list(ctx context.Context, conn *pgx.Conn, name string) ([]resource.Prepared, error) {
	sess := sessionOf(conn)
	r.trips.Add(1)
	found, err := conn.Query(ctx, fmt.Sprintf(recoverSQL, name))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(found, func(row pgx.CollectableRow) (resource.Prepared, error) {
		var (
			p         resource.Prepared
			gid       []byte
			xid, next int64
			seconds   float64
		)
		if err := row.Scan(&gid, &xid, &p.Since, &seconds, &next); err != nil {
			return p, err
		}
		p.Age = time.Duration(seconds * float64(time.Second))
		p.Evidence = evidence{system: sess.system, timeline: sess.timeline, xid: fullXID(uint32(xid), uint64(next))}.encode()
		var ok bool
		if p.ID, ok = resource.ParseID(string(gid)); !ok {
			p.Foreign = string(gid)
		}
		return p, nil
	})
}
