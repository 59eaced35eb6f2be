package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"assent/resource"
)

// oldBranch is the age from which the doctor warns of a prepared transaction.
const oldBranch = 15 * time.Minute

const examineSQL = `SELECT
pg_catalog.current_setting('server_version_num')::int AS version,
pg_catalog.current_setting('server_version') AS version_text,
pg_catalog.pg_is_in_recovery() AS standby,
pg_catalog.current_setting('max_prepared_transactions')::int AS slots,
pg_catalog.current_setting('max_connections')::int AS connections,
pg_catalog.current_setting('fsync') AS fsync,
pg_catalog.current_setting('full_page_writes') AS full_page_writes,
coalesce((SELECT reset_val FROM pg_catalog.pg_settings WHERE name = 'synchronous_commit'), 'on') AS synchronous_commit,
pg_catalog.current_setting('lock_timeout') AS lock_timeout,
pg_catalog.current_setting('idle_in_transaction_session_timeout') AS idle_timeout,
coalesce(pg_catalog.current_setting('transaction_timeout', true), '0') AS transaction_timeout,
current_user::text AS role,
(SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) AS superuser,
(SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_xacts)::int AS used,
(SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database() AND gid LIKE 'assent:%' AND owner <> current_user)::int AS others,
coalesce((SELECT pg_catalog.max(extract(epoch FROM pg_catalog.clock_timestamp() - prepared)) FROM pg_catalog.pg_prepared_xacts), 0)::float8 AS oldest,
coalesce((SELECT pg_catalog.max(pg_catalog.age(transaction)) FROM pg_catalog.pg_prepared_xacts), 0)::bigint AS held`

// examined has examineSQL's columns.
type examined struct {
	Version            int
	VersionText        string
	Standby            bool
	Slots, Connections int
	Fsync              string
	FullPageWrites     string
	SynchronousCommit  string
	LockTimeout        string
	IdleTimeout        string
	TransactionTimeout string
	Role               string
	Superuser          bool
	Used, Others       int
	Oldest             float64 // seconds
	Held               int64   // transactions that VACUUM must keep
}

// Identity names the database: "orders of system 7301843271093846001". It is the same by whichever name, address
// and standby one reaches it, and that of no other database, but for copies of its files. It is for people and
// for comparison, and holds no secret.
func (r *Resource) Identity(ctx context.Context) (string, error) {
	conn, err := r.acquireFinish(ctx, "identity")
	if err != nil {
		return "", err
	}
	defer conn.Release()
	var name string
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.current_database()").Scan(&name); err != nil {
		return "", mapError("identity", err)
	}
	return fmt.Sprintf("%s of system %s", name, sessionOf(conn.Conn()).system), nil
}

// Doctor examines the server: version, role, capacity, rights, durability, timeouts, poolers, and
// what lies prepared. It only reads.
func (r *Resource) Doctor(ctx context.Context) ([]resource.Finding, error) {
	conn, err := r.finish.Acquire(ctx)
	if err != nil {
		return nil, unavailable("doctor", err)
	}
	defer conn.Release()
	found, err := conn.Query(ctx, examineSQL)
	if err != nil {
		return nil, mapError("doctor", err)
	}
	e, err := pgx.CollectExactlyOneRow(found, pgx.RowToStructByPos[examined])
	if err != nil {
		return nil, mapError("doctor", err)
	}
	pooler, err := examinePooler(ctx, conn.Conn())
	if err != nil {
		return nil, mapError("doctor", err)
	}
	list := []resource.Finding{
		e.version(), e.primary(), e.enabled(), e.capacity(), e.oldest(), e.rights(),
	}
	list = append(list, e.durability()...)
	return append(list, e.timeouts(), pooler), nil
}

func finding(check string, severity resource.Severity, hint, format string, args ...any) resource.Finding {
	if severity == resource.OK {
		hint = ""
	}
	return resource.Finding{Check: check, Severity: severity, Detail: fmt.Sprintf(format, args...), Hint: hint}
}

// grade returns bad where it is so, and OK otherwise.
func grade(is bool, bad resource.Severity) resource.Severity {
	if is {
		return bad
	}
	return resource.OK
}

func (e examined) version() resource.Finding {
	return finding("server version", grade(e.Version < 140000, resource.Failure),
		"upgrade the server to PostgreSQL 14 or later", "PostgreSQL %s", e.VersionText)
}

func (e examined) primary() resource.Finding {
	detail := "the server is a primary"
	if e.Standby {
		detail = "the server is a standby: it cannot prepare or finish anything"
	}
	return finding("primary server", grade(e.Standby, resource.Failure),
		"connect to the primary: target_session_attrs=read-write with all hosts in the connection string", "%s", detail)
}

func (e examined) enabled() resource.Finding {
	const check = "prepared transactions enabled"
	switch {
	case e.Slots == 0:
		return finding(check, resource.Failure, "set max_prepared_transactions to at least max_connections and restart the server",
			"max_prepared_transactions is 0")
	case e.Slots < e.Connections:
		return finding(check, resource.Warning, "raise max_prepared_transactions to max_connections, so that every session can prepare; restart the server",
			"max_prepared_transactions is %d, max_connections is %d", e.Slots, e.Connections)
	}
	return finding(check, resource.OK, "", "max_prepared_transactions is %d, max_connections is %d", e.Slots, e.Connections)
}

func (e examined) capacity() resource.Finding {
	severity := resource.OK
	switch {
	case e.Slots > 0 && e.Used >= e.Slots:
		severity = resource.Failure
	case 5*e.Used >= 4*e.Slots && e.Used > 0:
		severity = resource.Warning
	}
	return finding("room for prepared transactions", severity,
		"finish those that nobody finishes (pg_prepared_xacts shows them), or raise max_prepared_transactions",
		"%d of %d are in use, in all databases of the server", e.Used, e.Slots)
}

func (e examined) oldest() resource.Finding {
	age := time.Duration(e.Oldest * float64(time.Second)).Round(time.Second)
	return finding("age of prepared transactions", grade(age >= oldBranch, resource.Warning),
		"find out who should finish the oldest in pg_prepared_xacts; it holds its locks and keeps VACUUM from removing old rows",
		"the oldest is %v old and holds back %d transactions from VACUUM", age, e.Held)
}

func (e examined) rights() resource.Finding {
	return finding("rights to finish branches", grade(e.Others > 0 && !e.Superuser, resource.Failure),
		"connect as the user that prepared them, or as a superuser",
		"user %s; %d prepared branches belong to other users", e.Role, e.Others)
}

func (e examined) durability() []resource.Finding {
	return []resource.Finding{
		finding("fsync", grade(e.Fsync != "on", resource.Failure),
			"set fsync to on, or a crash of the machine loses what was committed", "fsync is %s", e.Fsync),
		finding("full_page_writes", grade(e.FullPageWrites != "on", resource.Warning),
			"set full_page_writes to on, unless the storage never tears a page", "full_page_writes is %s", e.FullPageWrites),
		finding("synchronous_commit", grade(e.SynchronousCommit == "off", resource.Warning),
			"nothing need be done for branches, for whose sessions it is set to local; other programs' commits may be lost in a crash",
			"synchronous_commit is %s", e.SynchronousCommit),
	}
}

func (e examined) timeouts() resource.Finding {
	severity := grade(e.LockTimeout == "0" || e.TransactionTimeout != "0", resource.Warning)
	return finding("timeouts", severity,
		"set Config.LockTimeout, so that a deadlock through several databases ends; transaction_timeout and idle_in_transaction_session_timeout must be longer than any transaction",
		"lock_timeout %s, idle_in_transaction_session_timeout %s, transaction_timeout %s (0 is none)",
		e.LockTimeout, e.IdleTimeout, e.TransactionTimeout)
}

// examinePooler looks for a pooler in the path: it gives a client another process number than the
// server's own, and, where it pools transactions, several.
func examinePooler(ctx context.Context, conn *pgx.Conn) (resource.Finding, error) {
	const check = "no pooler that pools transactions"
	const hint = "connect to the server itself, or set the pooler to session pooling"
	announced := conn.PgConn().PID()
	for range 3 {
		answers, err := simple(ctx, conn, "SELECT pg_catalog.pg_backend_pid()")
		if err != nil {
			return resource.Finding{}, err
		}
		if len(answers) != 1 || len(answers[0].row) != 1 {
			return resource.Finding{}, errors.New("no answer to pg_backend_pid")
		}
		pid, err := strconv.ParseUint(answers[0].row[0], 10, 32)
		if err != nil {
			return resource.Finding{}, fmt.Errorf("the server's process number: %w", err)
		}
		if uint32(pid) != announced {
			return finding(check, resource.Warning, hint, "the session was announced as process %d and runs in %d", announced, pid), nil
		}
	}
	return finding(check, resource.OK, "", "the session runs in process %d, as announced", announced), nil
}
