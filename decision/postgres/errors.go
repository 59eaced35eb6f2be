package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"assent/decision"
	"assent/resource"
)

// Errors that Open returns, wrapped in a *resource.Error that carries a hint.
var (
	// ErrNoTables says that the schema, or a table in it, is missing.
	ErrNoTables = errors.New("the tables of the decision log are not there")
	// ErrFormat says that the tables were made by a newer Assent.
	ErrFormat = errors.New("the decision log has an unknown format")
	// ErrUnsafe says that the database is set up to lose what it has committed.
	ErrUnsafe = errors.New("the database would lose decisions in a crash")
)

var (
	errReadOnly = errors.New("the server is read-only: a standby, or a session that is set so")
	// errReplaced says that a connection leads to another log than the one that was opened.
	errReplaced = errors.New("the database holds another decision log than when this one was opened")
	// errStale says that a decision that stands might not be seen. It is ErrUnsafe.
	errStale = fmt.Errorf("%w, or hide them for a while: default_transaction_use_follower_reads is on", ErrUnsafe)
)

func unsafeError(setting, hint string) error {
	return &resource.Error{Code: resource.Unsupported, Op: "trust the database", Hint: hint, Err: fmt.Errorf("%w: %s is off", ErrUnsafe, setting)}
}

// restart reports whether the server has rolled back and asks for the same again: it could not put the
// transaction into an order with others, or had to end a deadlock.
func restart(code string) bool { return code == "40001" || code == "40P01" }

func isCockroach(version string) bool { return strings.Contains(version, "CockroachDB") }

// invalid says that a request is wrong, and why.
func invalid(op string, err error) error {
	return &resource.Error{Code: resource.Invalid, Op: op, Err: err}
}

// damaged says that a row is not what this package writes.
func (l *Log) damaged(id string, err error) error {
	return &resource.Error{
		Code: resource.Unavailable, Op: "read " + l.tables.entries,
		Hint: "the row was changed by something else than Assent; do not delete it, and restore it from a backup",
		Err:  fmt.Errorf("the row of %q cannot be read: %w", id, err),
	}
}

// verdict is what an error means for what was tried.
type verdict struct {
	retry bool
	// unknown says that what was tried may have been done.
	unknown bool
	code    resource.Code
	hint    string
}

// judge classes an error by its SQLSTATE (PostgreSQL, appendix A). What has none is a matter of the
// connection: nobody knows then whether the statement was carried out.
func judge(err error) verdict {
	const unreachable = "look whether the database is up and can be reached; nothing that was decided is lost"
	if e, ok := errors.AsType[*resource.Error](err); ok {
		return verdict{code: e.Code, hint: e.Hint}
	}
	switch {
	case errors.Is(err, errReplaced), errors.Is(err, ErrFormat), errors.Is(err, ErrNoTables):
		return advice(err)
	case errors.Is(err, errReadOnly):
		return verdict{retry: true, code: resource.Unavailable,
			hint: "connect to the primary: target_session_attrs=read-write with all hosts in the connection string"}
	}
	refused, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return verdict{retry: true, unknown: true, code: resource.Unavailable, hint: unreachable}
	}
	switch code := refused.Code; {
	case restart(code), code == "55P03":
		return verdict{retry: true, code: resource.Unavailable, hint: "repeat the call"}
	case code == "40003", strings.HasPrefix(code, "08"), strings.HasPrefix(code, "57P"), code == "57014":
		return verdict{retry: true, unknown: true, code: resource.Unavailable, hint: unreachable}
	case code == "25006":
		return verdict{retry: true, code: resource.Unavailable, hint: "the server is read-only now; connect to the primary"}
	case code == "53100":
		return verdict{retry: true, code: resource.Capacity, hint: "make room on the database's disk"}
	case strings.HasPrefix(code, "53"):
		return verdict{retry: true, code: resource.Capacity, hint: "give the database more connections or memory"}
	}
	return advice(err)
}

// advice is judge for errors that do not go away by themselves.
func advice(err error) verdict {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch {
		case refused.Code == "42501":
			return verdict{code: resource.Permission, hint: "grant the user USAGE on the schema, and SELECT, INSERT, UPDATE and DELETE on its tables"}
		case strings.HasPrefix(refused.Code, "28"):
			return verdict{code: resource.Permission, hint: "look at the user and the password in the connection string"}
		case refused.Code == "3D000":
			return verdict{code: resource.Invalid, hint: "create the database, or name another in the connection string"}
		case refused.Code == "42P01", refused.Code == "3F000", refused.Code == "42703":
			return verdict{code: resource.Unavailable, hint: noTablesHint}
		}
		return verdict{code: resource.Unavailable, hint: "look at the database's log"}
	}
	switch {
	case errors.Is(err, ErrNoTables):
		return verdict{code: resource.Unavailable, hint: noTablesHint}
	case errors.Is(err, ErrFormat):
		return verdict{code: resource.Unsupported, hint: "use the program that made the tables, or a newer one"}
	}
	return verdict{code: resource.Unavailable, hint: "give back the database that holds the decisions; transactions in doubt need it"}
}

const noTablesHint = "make the tables: open the log once with CreateSchema (in assent serve: log.postgres.create_schema), or name the schema that has them"

// explain adds to err what a person can do about it. Errors that are explained stay as they are, and so
// are those that callers ask for by name.
func explain(op string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, decision.ErrClosed) || errors.Is(err, decision.ErrNotFound) {
		return fmt.Errorf("%s: %w", op, err)
	}
	if _, ok := errors.AsType[*resource.Error](err); ok {
		return err
	}
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && (refused.Code == "42P01" || refused.Code == "3F000") {
		err = fmt.Errorf("%w: %w", ErrNoTables, err)
	}
	v := judge(err)
	if errors.Is(err, errReplaced) {
		err = fmt.Errorf("%w: %w", decision.ErrStopped, err)
	}
	return &resource.Error{Code: v.code, Op: op, Hint: v.hint, Err: err}
}
