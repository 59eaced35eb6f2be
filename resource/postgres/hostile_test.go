package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"assent/internal/pgcluster"
	"assent/internal/pgcluster/cutproxy"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/postgres"
)

// trojans puts into public, for every function, operator and type of the catalogue that the adapter
// uses, one of the same name that fails when it is used; for operators and aggregates, also with
// argument types for which the catalogue has none, so that they fit best in whatever place of the path.
const trojans = `
CREATE FUNCTION public.trap(text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a trojan ran: %', $1; END $$;
DO $$
DECLARE f record; a text; b text; n int := 0;
BEGIN
	FOR f IN SELECT DISTINCT p.proname, oidvectortypes(p.proargtypes) AS args, format_type(p.prorettype, NULL) AS returns
		FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND NOT p.proretset AND p.prokind IN ('f', 'a')
		AND p.proname IN ('age', 'clock_timestamp', 'count', 'current_database', 'current_setting', 'date_part', 'extract', 'left', 'max',
			'pg_advisory_xact_lock_shared', 'pg_backend_pid', 'pg_current_snapshot', 'pg_current_wal_lsn', 'pg_current_xact_id',
			'pg_current_xact_id_if_assigned', 'pg_is_in_recovery', 'pg_snapshot_xmax', 'pg_terminate_backend', 'pg_walfile_name',
			'pg_xact_status', 'set_config', 'timezone', 'to_char')
		AND NOT EXISTS (SELECT FROM unnest(p.proargtypes) AS t WHERE t IN ('"any"'::regtype, 'internal'::regtype))
	LOOP
		EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', f.proname, f.args, f.returns,
			'BEGIN PERFORM public.trap(''' || f.proname || '''); ' || CASE f.returns WHEN 'void' THEN '' ELSE 'RETURN NULL; ' END || 'END');
		n := n + 1;
	END LOOP;
	IF n < 40 THEN RAISE EXCEPTION 'only % functions were found', n; END IF;
	FOREACH a IN ARRAY ARRAY['int4', 'int8', 'text', 'xid', 'oid'] LOOP
		EXECUTE format('CREATE FUNCTION public.count(%s) RETURNS int8 LANGUAGE plpgsql AS %L', a, 'BEGIN PERFORM public.trap(''count''); RETURN 0; END');
	END LOOP;
	FOREACH a IN ARRAY ARRAY['int2', 'int4', 'int8', 'text', 'name', 'oid', 'xid', 'timestamptz', 'numeric', 'float8'] LOOP
		FOREACH b IN ARRAY ARRAY['int2', 'int4', 'int8', 'text', 'name', 'oid', 'xid', 'timestamptz', 'numeric', 'float8'] LOOP
			EXECUTE format('CREATE FUNCTION public.compare(%s, %s) RETURNS bool LANGUAGE plpgsql AS %L', a, b, 'BEGIN PERFORM public.trap(''operator''); RETURN NULL; END');
			EXECUTE format('CREATE OPERATOR public.= (FUNCTION = public.compare, LEFTARG = %s, RIGHTARG = %s)', a, b);
			EXECUTE format('CREATE OPERATOR public.<> (FUNCTION = public.compare, LEFTARG = %s, RIGHTARG = %s)', a, b);
			EXECUTE format('CREATE OPERATOR public.~~ (FUNCTION = public.compare, LEFTARG = %s, RIGHTARG = %s)', a, b);
			EXECUTE format('CREATE OPERATOR public.- (FUNCTION = public.compare, LEFTARG = %s, RIGHTARG = %s)', a, b);
		END LOOP;
	END LOOP;
	CREATE TABLE public.pg_settings (name int);
	CREATE TABLE public.pg_roles (rolname int);
	CREATE TYPE public.text AS ENUM ('trojan');
	CREATE TYPE public.float8 AS ENUM ('trojan');
	CREATE TYPE public.xid8 AS ENUM ('trojan');
END $$`

// Whatever somebody has put into a schema of the path, no statement of the adapter's own uses it.
func hostileSchema(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	exec(t, cluster, f.db, trojans)
	proxy := newProxy(t, cluster)
	for _, path := range []string{"", " options='-c search_path=public,pg_catalog'"} {
		r := open(t, proxy.DSN(pgcluster.User, f.db)+path, postgres.Config{})
		item := 1000 + len(path)
		work := func() *postgres.Tx {
			t.Helper()
			tx, _ := f.begin(r)
			item++
			f.exec(tx, "INSERT INTO item VALUES ($1, 1)", item)
			return tx
		}
		if _, err := r.Join(f.ctx, transaction{r}); err != nil {
			t.Fatal(err)
		}

		tx := work() // a savepoint makes the adapter look for its lock
		f.exec(tx, "SAVEPOINT a; ROLLBACK TO a")
		vote, err := tx.Prepare(f.ctx)
		if vote.Vote != commit.Yes || err != nil {
			t.Fatalf("path%q: prepare: %v, %v", path, vote.Vote, err)
		}
		list, err := r.Recover(f.ctx)
		if len(list) != 1 || err != nil {
			t.Fatalf("path%q: recover: %v, %v", path, list, err)
		}
		f.outcome(commit.Committed)(tx.Commit(f.ctx))
		for range 2 { // the second needs evidence
			f.outcome(commit.Committed)(r.Commit(f.ctx, list[0]))
		}

		tx = work()
		f.outcome(commit.Committed)(tx.CommitOnePhase(f.ctx))

		tx = work() // a lost PREPARE is looked for by the lock and its session is ended
		late := proxy.On("PREPARE TRANSACTION", cutproxy.CutLate)
		if vote, err := tx.Prepare(f.ctx); vote.Vote != commit.No || err == nil {
			t.Fatalf("path%q: a lost prepare: %v, %v", path, vote.Vote, err)
		}
		<-late.Happened()
		f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))

		tx, _ = f.begin(r) // and so is a first statement that is cancelled
		ctx, cancel := context.WithCancel(f.ctx)
		go func() {
			f.until(sleeping)
			cancel()
		}()
		if _, err := tx.Exec(ctx, "SELECT pg_catalog.pg_sleep($1::int)", 3000); !errors.Is(err, context.Canceled) {
			t.Fatalf("path%q: a cancelled statement: %v", path, err)
		}
		f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))

		tx, _ = f.begin(r) // the session is made anew
		f.exec(tx, "SET lock_timeout = 1")
		f.outcome(commit.Committed)(tx.CommitOnePhase(f.ctx))
		if _, err := r.Doctor(f.ctx); err != nil {
			t.Errorf("path%q: doctor: %v", path, err)
		}
		f.leaves(0)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// transaction is one that is joined by itself.
type transaction struct{ r *postgres.Resource }

func (t transaction) Join(ctx context.Context, _ resource.Resource) (resource.Branch, error) {
	return t.r.Begin(ctx, newID())
}

// The encoding of a database is its own: what is not UTF-8 neither stops a branch nor the scan.
func encodings(t *testing.T, cluster *pgcluster.Cluster) {
	for _, encoding := range []string{"LATIN1", "SQL_ASCII"} {
		f := newFixture(t, cluster, postgres.Config{})
		f.db = strings.ToLower(encoding)
		exec(t, cluster, "", fmt.Sprintf("CREATE DATABASE %s TEMPLATE template0 ENCODING '%s' LC_COLLATE 'C' LC_CTYPE 'C'", f.db, encoding))
		exec(t, cluster, f.db, shop+"; CREATE TABLE note (t text)")
		f.r = open(t, cluster.DSN(f.db)+" client_encoding=LATIN1", postgres.Config{})

		tx, _ := f.take(f.r)
		f.exec(tx, "INSERT INTO note VALUES ($1)", "Größe")
		vote, err := tx.Prepare(f.ctx)
		if vote.Vote != commit.Yes || err != nil {
			t.Fatalf("%s: prepare: %v, %v", encoding, vote.Vote, err)
		}
		f.outcome(commit.Committed)(tx.Commit(f.ctx))
		tx, _ = f.begin(f.r)
		var text string
		if err := tx.QueryRow(f.ctx, "SELECT t FROM note WHERE $1", true).Scan(&text); err != nil || text != "Größe" {
			t.Errorf("%s: %q, %v", encoding, text, err)
		}
		f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))

		tx, _ = f.take(f.r)
		_, err = tx.Exec(f.ctx, "INSERT INTO note VALUES ($1)", "ein €")
		if wants := encoding == "LATIN1"; (err != nil) != wants {
			t.Errorf("%s: a letter that it has not: %v", encoding, err)
		} else if wants {
			f.refuse(tx, resource.Broken)
		} else {
			f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
		}

		exec(t, cluster, f.db, `BEGIN; CREATE TABLE foreigner (); PREPARE TRANSACTION E'caf\351'`)
		list, err := f.r.Recover(f.ctx)
		want := map[string]string{"LATIN1": "café", "SQL_ASCII": "caf\xe9"}[encoding]
		if len(list) != 1 || err != nil || list[0].Foreign != want {
			t.Errorf("%s: recover: %q, %v", encoding, list, err)
		}
		exec(t, cluster, f.db, `ROLLBACK PREPARED E'caf\351'`)
	}
}

// A row that is longer than is allowed fails its statement; nothing of it is kept, and no other
// branch gets the session.
func longRow(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{MaxConns: 1, MaxMessage: 100_000})
	for _, begun := range []bool{false, true} {
		tx, _ := f.begin(f.r)
		f.exec(tx, "UPDATE item SET n = n - 1 WHERE id = $1", 1)
		if !begun {
			f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
			tx, _ = f.begin(f.r)
		}
		var text string
		if err := tx.QueryRow(f.ctx, "SELECT repeat('x', $1)", 90_000).Scan(&text); err != nil || len(text) != 90_000 {
			t.Fatalf("a row that is allowed: %d, %v", len(text), err)
		}
		err := tx.QueryRow(f.ctx, "SELECT repeat('x', $1)", 100_000).Scan(&text)
		hint := resource.HintOf(err)
		if resource.CodeOf(err) != resource.Capacity || !strings.Contains(hint, "Config.MaxMessage") || !strings.Contains(hint, "limits.result_bytes") {
			t.Errorf("a row that is too long: %v, hint %q; want capacity", err, hint)
		}
		f.refuse(tx, resource.Broken)
		for _, call := range []func(*postgres.Tx) error{
			func(tx *postgres.Tx) error { _, err := tx.Exec(f.ctx, "SELECT repeat('x', 100000)"); return err },
			func(tx *postgres.Tx) error { _, err := tx.Exec(f.ctx, "SELECT repeat('x', $1)", 100_000); return err },
		} {
			tx, _ := f.begin(f.r)
			if begun {
				f.exec(tx, "SELECT 1")
			}
			if err := call(tx); resource.CodeOf(err) != resource.Capacity {
				t.Errorf("a row that is too long: %v; want capacity", err)
			}
			f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
		}
	}
	f.items(100)
}

// A session that is idle is spared: behind a pooler it may be another's by now.
func idleSessionIsSpared(t *testing.T, cluster *pgcluster.Cluster) {
	f := newFixture(t, cluster, postgres.Config{})
	proxy := newProxy(t, cluster)
	r := open(t, proxy.DSN(pgcluster.User, f.db), postgres.Config{})
	tx, _ := f.begin(r)
	late := proxy.On("BEGIN", cutproxy.CutLate) // its session stays, as it would at a pooler
	ctx, cancel := context.WithCancel(f.ctx)
	go func() {
		<-late.Happened()
		cancel() // or the branch would begin on another connection
	}()
	if _, err := tx.Exec(ctx, "UPDATE item SET n = n - 1 WHERE id = $1", 1); err == nil {
		t.Fatal("the connection was not cut")
	}
	// The sessions that there are now, whatever connections the pool opens meanwhile.
	now := f.ask("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
	sessions := fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'assent' "+
		"AND extract(epoch FROM backend_start) * 1000000 < %d", now)
	before := f.ask(sessions)
	f.outcome(commit.RolledBack)(tx.Rollback(f.ctx))
	if after := f.ask(sessions); before == 0 || after != before {
		t.Errorf("of %d sessions %d are left", before, after)
	}
	f.items(100)
}
