package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"assent/resource"
)

// SQLSTATEs that decide something here.
const (
	stateUndefinedObject = "42704"
	stateObjectState     = "55000"
	stateInvalidValue    = "22023"
	stateNotInRepertoire = "22021"
	stateUntranslatable  = "22P05"
)

// meaning is what an SQLSTATE, or a class of them, means to a transaction manager.
type meaning struct {
	state string
	code  resource.Code
	hint  string
}

// meanings is searched from the top; an entry of two characters stands for a class.
// The states are those of the PostgreSQL manual, appendix A.
var meanings = []meaning{
	{"40001", resource.Serialization, "run the whole transaction again"},
	{"40P01", resource.Deadlock, "run the whole transaction again; take locks in one order to avoid it"},
	{"40", resource.Serialization, "run the whole transaction again"},
	{"55P03", resource.LockTimeout, "run the whole transaction again later; look in pg_locks and at prepared branches for who holds the lock"},
	{"57014", resource.LockTimeout, "the statement was cancelled or took longer than statement_timeout; run the whole transaction again"},
	{"23", resource.Constraint, ""},
	{"44000", resource.Constraint, ""},
	{"42710", resource.Duplicate, "transaction ids must never be used twice; the branch that was prepared first stands"},
	{"53200", resource.Capacity, "raise max_prepared_transactions (or, where the server says so, max_locks_per_transaction) and restart the server; finish prepared transactions that nobody finishes"},
	{"53300", resource.Unavailable, "the server has no connection left; raise max_connections or lower MaxConns"},
	{"53", resource.Capacity, "the server is out of a resource (disk, memory); its log says which"},
	{"54000", resource.Capacity, ""},
	{"0A000", resource.Unsupported, "PostgreSQL cannot prepare a transaction that used temporary objects, LISTEN, NOTIFY, a cursor WITH HOLD or an exported snapshot; do that in a transaction of its own"},
	{"42501", resource.Permission, "a branch is finished by the user that prepared it or by a superuser; use one user for all"},
	{"28", resource.Permission, "check user, password and pg_hba.conf"},
	{"3D000", resource.Unavailable, "the database does not exist"},
	{"25006", resource.Unavailable, "the transaction, or the server (a standby), is read-only; connect to the primary: target_session_attrs=read-write"},
	{"25P02", resource.Broken, "roll back and run the whole transaction again"},
	{"25P03", resource.Unavailable, "the server ended the session because the transaction was idle too long: idle_in_transaction_session_timeout"},
	{"25P04", resource.Unavailable, "the server ended the session because the transaction took too long: transaction_timeout"},
	{"57P", resource.Unavailable, "the server ended the session or is starting or stopping; try again"},
	{"08", resource.Unavailable, "the connection was lost or could not be made; try again"},
	{"58", resource.Unavailable, "the server met an error of its operating system; see its log"},
	{"XX", resource.Unavailable, "the server met an internal error; see its log"},
}

func meaningOf(state string) meaning {
	for _, m := range meanings {
		if strings.HasPrefix(state, m.state) {
			return m
		}
	}
	return meaning{code: resource.Invalid}
}

// special corrects a meaning that depends on what was being done.
func special(op string, e *pgconn.PgError, m meaning) meaning {
	finishing := op == opCommit || op == opRollback
	switch {
	case e.Code == stateObjectState && op == opPrepare:
		m.code, m.hint = resource.Disabled, "set max_prepared_transactions to at least max_connections and restart the server"
	case e.Code == stateObjectState && finishing:
		m.code, m.hint = resource.Unavailable, "another session is finishing the branch at this moment; try again"
	case e.Code == "0A000" && finishing:
		m.code, m.hint = resource.Permission, "the branch was prepared in another database of this server; connect to that database to finish it"
	case e.Code == "0A000" && op != opPrepare:
		m.hint = "" // a statement's own business; what cannot be prepared is refused at prepare
	case e.Code == stateInvalidValue && op == opPrepare:
		m.hint = "the branch's id is longer than the 199 bytes that PostgreSQL allows"
	case e.Code == "25001":
		m.hint = "branches are finished outside of a transaction block; a pooler in the path mixes sessions"
	}
	return m
}

// The operations whose errors need care.
const (
	opPrepare  = "prepare"
	opCommit   = "commit"
	opRollback = "rollback"
)

// mapError makes err a *resource.Error. Errors that pgx makes of wrong arguments stay as they are.
func mapError(op string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*resource.Error](err); ok {
		return err
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		m := special(op, e, meaningOf(e.Code))
		return &resource.Error{Code: m.code, Op: op, Detail: "SQLSTATE " + e.Code, Hint: m.hint, Err: err}
	}
	if lost(err) {
		return unavailable(op, err)
	}
	return err
}

// unavailable is mapError for an error after which the connection is gone, or was never made.
func unavailable(op string, err error) error {
	if long, ok := errors.AsType[*pgproto3.ExceededMaxBodyLenErr](err); ok {
		return &resource.Error{
			Code: resource.Capacity, Op: op, Err: errors.New("the server's answer is too long, and the branch's session was ended"),
			Detail: fmt.Sprintf("%d bytes in one message, a row say; at most %d are taken", long.ActualBodyLen, long.MaxExpectedBodyLen),
			Hint:   "ask for less in one row, with substring say, or take more: limits.result_bytes of assent serve, Config.MaxMessage in a Go program; run the whole transaction again",
		}
	}
	if _, ok := errors.AsType[*pgconn.PgError](err); ok {
		return mapError(op, err)
	}
	return &resource.Error{Code: resource.Unavailable, Op: op, Hint: dialHint(err), Err: err}
}

// dialHint says what to do where nobody listens at the address; it is empty for everything else.
func dialHint(err error) string {
	op, ok := errors.AsType[*net.OpError](err)
	if ok && op.Op == "dial" && (errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)) { // ENOENT: of a socket's file
		return "see that the server runs and listens at that address, and that the connection string names the right one"
	}
	return ""
}

// lost reports whether err says that the connection or its answer was lost, or never was.
func lost(err error) bool {
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	if _, ok := errors.AsType[*pgproto3.ExceededMaxBodyLenErr](err); ok {
		return true
	}
	return pgconn.Timeout(err) || pgconn.SafeToRetry(err) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

func isState(err error, state string) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == state
}
