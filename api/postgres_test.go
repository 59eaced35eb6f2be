package api_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"assent"
	"assent/api"
	assentv1 "assent/api/assent/v1"
	"assent/decision/disk"
	"assent/internal/pgcluster"
	"assent/internal/pgcluster/pgtest"
	"assent/resource"
	"assent/resource/postgres"
)

// onPostgres serves real databases: orders, billing, and one of another encoding.
func onPostgres(t *testing.T, schema string) (*api.Server, *assent.Manager, *pgcluster.Cluster) {
	t.Helper()
	cluster := pgtest.Start(t, pgcluster.Options{})
	for _, encoding := range []string{"LATIN1", "SQL_ASCII"} {
		sql := fmt.Sprintf("CREATE DATABASE %s TEMPLATE template0 ENCODING '%s' LC_COLLATE 'C' LC_CTYPE 'C'", encoding, encoding)
		if err := cluster.Exec(t.Context(), "", sql); err != nil {
			t.Fatal(err)
		}
	}
	quiet := slog.New(slog.DiscardHandler)
	log, err := disk.Open(filepath.Join(t.TempDir(), "log"), disk.Config{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	resources := map[string]resource.Resource{}
	for _, name := range []string{"orders", "billing", "latin1", "sql_ascii"} {
		dsn := cluster.DSN(name)
		if !strings.ContainsAny(name, "_1") {
			dsn = pgtest.Database(t, cluster, name, schema)
		}
		db, err := postgres.Open(t.Context(), dsn, postgres.Config{MaxMessage: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		resources[name] = db
	}
	m, err := assent.Open(t.Context(), assent.Config{Log: log, Resources: resources, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	s, err := api.New(m, resources, api.Options{Logger: quiet, MaxRows: 100})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = s.Close(ctx)
		_ = m.Close(ctx)
	})
	return s, m, cluster
}

func statement(name, sql string, args ...*assentv1.Value) *assentv1.Operation {
	return &assentv1.Operation{Resource: name, Action: &assentv1.Operation_Statement{Statement: &assentv1.Statement{Sql: sql, Args: args}}}
}

func vBool(b bool) *assentv1.Value { return &assentv1.Value{Kind: &assentv1.Value_Bool{Bool: b}} }
func vInt(i int64) *assentv1.Value { return &assentv1.Value{Kind: &assentv1.Value_Int64{Int64: i}} }
func vDouble(f float64) *assentv1.Value {
	return &assentv1.Value{Kind: &assentv1.Value_Double{Double: f}}
}
func vString(s string) *assentv1.Value {
	return &assentv1.Value{Kind: &assentv1.Value_String_{String_: s}}
}
func vText(s string) *assentv1.Value { return &assentv1.Value{Kind: &assentv1.Value_Text{Text: s}} }
func vBytes(b string) *assentv1.Value {
	return &assentv1.Value{Kind: &assentv1.Value_Bytes{Bytes: []byte(b)}}
}
func vNull() *assentv1.Value { return &assentv1.Value{Kind: &assentv1.Value_Null{Null: true}} }

func TestPostgresValues(t *testing.T) {
	s, m, cluster := onPostgres(t, `CREATE TYPE mood AS ENUM ('glad', 'sad'); CREATE TABLE t (i int, s text, n numeric)`)
	for _, c := range []struct {
		sql  string
		args []*assentv1.Value
		typ  string
		want *assentv1.Value
	}{
		{sql: "SELECT NULL::int", typ: "int4", want: vNull()},
		{sql: "SELECT true", typ: "bool", want: vBool(true)},
		{sql: "SELECT 7::smallint", typ: "int2", want: vInt(7)},
		{sql: "SELECT 9223372036854775807", typ: "int8", want: vInt(9223372036854775807)},
		{sql: "SELECT 1.1::real", typ: "float4", want: vDouble(1.1)},
		{sql: "SELECT 1e300::float8", typ: "float8", want: vDouble(1e300)},
		{sql: "SELECT 'Größe'::text", typ: "text", want: vString("Größe")},
		{sql: `SELECT '\x00ff'::bytea`, typ: "bytea", want: vBytes("\x00\xff")},
		{sql: "SELECT 12345678901234567890.123456789::numeric", typ: "numeric", want: vText("12345678901234567890.123456789")},
		{sql: "SELECT 'NaN'::numeric", typ: "numeric", want: vText("NaN")},
		{sql: `SELECT '{"n": 12345678901234567890}'::jsonb`, typ: "jsonb", want: vText(`{"n": 12345678901234567890}`)},
		{sql: "SELECT '2026-11-21'::date", typ: "date", want: vText("2026-11-21")},
		{sql: "SELECT '2026-11-21 09:30:00+02'::timestamptz", typ: "timestamptz", want: vText("2026-11-21 07:30:00Z")},
		{sql: "SELECT 'infinity'::timestamptz", typ: "timestamptz", want: vText("infinity")},
		{sql: "SELECT '6b1f2c9e-0000-4000-8000-000000000001'::uuid", typ: "uuid", want: vText("6b1f2c9e-0000-4000-8000-000000000001")},
		{sql: "SELECT ARRAY[1, NULL, 3]", typ: "_int4", want: vText("{1,NULL,3}")},
		{sql: "SELECT ARRAY['a b', 'c\"d']", typ: "_text", want: vText(`{"a b","c\"d"}`)},
		{sql: "SELECT '10.0.0.0/8'::cidr", typ: "cidr", want: vText("10.0.0.0/8")},
		{sql: "SELECT '1 day 02:00:00'::interval", typ: "interval", want: vText("1 day 02:00:00")},
		{sql: "SELECT '[1,5)'::int4range::text", typ: "text", want: vString("[1,5)")},
		{sql: "SELECT 'glad'::mood", want: vText("glad")},
		{sql: "SELECT $1::int + 1", args: []*assentv1.Value{vInt(1)}, typ: "int4", want: vInt(2)},
		{sql: "SELECT $1::int + 1", args: []*assentv1.Value{vText("1")}, typ: "int4", want: vInt(2)},
		{sql: "SELECT $1::numeric", args: []*assentv1.Value{vString("0.10")}, typ: "numeric", want: vText("0.10")},
		{sql: "SELECT $1::bytea", args: []*assentv1.Value{vBytes("")}, typ: "bytea", want: vBytes("")},
		{sql: "SELECT $1::text IS NULL", args: []*assentv1.Value{vNull()}, typ: "bool", want: vBool(true)},
		{sql: "SELECT $1::bool", args: []*assentv1.Value{vBool(false)}, typ: "bool", want: vBool(false)},
		{sql: "SELECT $1::float8", args: []*assentv1.Value{vDouble(0.5)}, typ: "float8", want: vDouble(0.5)},
		{sql: "SELECT $1::timestamptz", args: []*assentv1.Value{vText("2026-11-21 07:30:00Z")}, typ: "timestamptz", want: vText("2026-11-21 07:30:00Z")},
	} {
		r, err := s.Run(t.Context(), &assentv1.RunRequest{Operations: []*assentv1.Operation{statement("orders", c.sql, c.args...)}})
		if err != nil || r.GetOutcome().GetCommitted() == nil {
			t.Errorf("%s: %v, %v", c.sql, r, err)
			continue
		}
		result := r.GetResults()[0]
		if d := cmp.Diff(c.want, result.GetRows()[0].GetValues()[0], protocmp.Transform()); d != "" {
			t.Errorf("%s: %s", c.sql, d)
		}
		if typ := result.GetColumns()[0].GetType(); c.typ != "" && typ != c.typ || typ == "" {
			t.Errorf("%s: type %q; want %q", c.sql, typ, c.typ)
		}
	}
	t.Run("two databases", func(t *testing.T) { twoDatabases(t, s) })
	t.Run("errors", func(t *testing.T) { postgresErrors(t, s) })
	t.Run("no UTF-8", func(t *testing.T) { noUTF8(t, s, m, cluster) })
}

// Whatever bytes a database sends, the answer can be sent on.
func noUTF8(t *testing.T, s *api.Server, m *assent.Manager, cluster *pgcluster.Cluster) {
	ctx := t.Context()
	// The database then sends text as it is.
	raw := statement("latin1", "SET client_encoding = 'SQL_ASCII'")
	sent := func(what string, message proto.Message, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		} else if _, err := proto.Marshal(message); err != nil {
			t.Errorf("%s cannot be sent: %v", what, err)
		}
	}
	run, err := s.Run(ctx, &assentv1.RunRequest{Operations: []*assentv1.Operation{raw, statement("latin1", `SELECT E'caf\351'::text AS U&"caf\00E9"`)}})
	sent("a column's name", run, err)
	if r := run.GetResults(); len(r) != 2 || r[1].GetColumns()[0].GetName() != "caf\uFFFD" || string(r[1].GetRows()[0].GetValues()[0].GetBytes()) != "caf\xe9" {
		t.Errorf("the result is %v", r)
	}
	fails := statement("latin1", `DO $$ BEGIN RAISE EXCEPTION '% %', E'caf\351', repeat('x', 100000); END $$`)
	run, err = s.Run(ctx, &assentv1.RunRequest{Operations: []*assentv1.Operation{raw, fails}})
	sent("an abort", run, err)
	if a := run.GetOutcome().GetAborted(); !strings.Contains(a.GetReason(), "caf\uFFFD xxx") || len(a.GetReason()) > 5000 {
		t.Errorf("the abort is %.300v", a)
	}

	web := httptest.NewServer(s)
	defer web.Close()
	client := assentv1.NewTransactionServiceClient(web.Client(), web.URL, connect.WithGRPC())
	plain := assentv1.NewTransactionServiceClient(web.Client(), web.URL)
	for _, c := range []assentv1.TransactionServiceClient{client, plain} {
		begun, err := plain.Begin(ctx, &assentv1.BeginRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := plain.Execute(ctx, &assentv1.ExecuteRequest{Id: begun.GetId(), Operation: raw}); err != nil {
			t.Fatal(err)
		}
		_, err = c.Execute(ctx, &assentv1.ExecuteRequest{Id: begun.GetId(), Operation: fails})
		var told *connect.Error
		if !errors.As(err, &told) || !strings.Contains(told.Message(), "caf\uFFFD") || len(told.Details()) != 1 {
			t.Errorf("an error: %.300v", err)
		}
		if _, err := plain.Rollback(ctx, &assentv1.RollbackRequest{Id: begun.GetId()}); err != nil {
			t.Error(err)
		}
	}

	if err := cluster.Exec(ctx, "sql_ascii", `BEGIN; CREATE TABLE foreigner (); PREPARE TRANSACTION E'caf\351'`); err != nil {
		t.Fatal(err)
	}
	if err := m.Scan(ctx); err != nil {
		t.Fatal(err)
	}
	status, err := s.Status(ctx, &assentv1.StatusRequest{})
	sent("a foreign name", status, err)
	if !strings.Contains(status.String(), "caf\uFFFD") {
		t.Errorf("the status is %v", status)
	}
}

func twoDatabases(t *testing.T, s *api.Server) {
	r, err := s.Run(t.Context(), &assentv1.RunRequest{Operations: []*assentv1.Operation{
		statement("orders", "INSERT INTO t (i) VALUES ($1), ($2)", vInt(1), vInt(2)),
		statement("billing", "INSERT INTO t (i) VALUES (3) RETURNING i"),
	}})
	if err != nil || r.GetOutcome().GetCommitted() == nil {
		t.Fatal(r, err)
	}
	if first := r.GetResults()[0]; first.GetCommand() != "INSERT 0 2" || first.GetRowsAffected() != 2 {
		t.Errorf("the first result is %v", first)
	}
	if second := r.GetResults()[1]; len(second.GetRows()) != 1 || second.GetColumns()[0].GetName() != "i" {
		t.Errorf("the second result is %v", second)
	}
	got, err := s.Get(t.Context(), &assentv1.GetRequest{Id: r.GetOutcome().GetId()})
	if err != nil || len(got.GetTransaction().GetBranches()) != 2 {
		t.Errorf("get: %v, %v", got, err)
	}
}

func postgresErrors(t *testing.T, s *api.Server) {
	ctx := t.Context()
	aborts := func(part string, ops ...*assentv1.Operation) *assentv1.Aborted {
		t.Helper()
		r, err := s.Run(ctx, &assentv1.RunRequest{Operations: ops})
		a := r.GetOutcome().GetAborted()
		if err != nil || a == nil || !strings.Contains(a.GetReason(), part) {
			t.Fatalf("run: %v, %v; want aborted with %q", r, err, part)
		}
		return a
	}
	a := aborts("operation 2", statement("billing", "DELETE FROM t"), statement("orders", "SELEKT 1"))
	if a.GetCode() != assentv1.ErrorCode_ERROR_CODE_INVALID || a.GetFailedOperation() != 2 {
		t.Errorf("a bad statement gives %v", a)
	}
	aborts("more than 100 rows", statement("orders", "SELECT generate_series(1, 101)"))
	aborts("has no text form here", statement("orders", "SELECT '[1,5)'::int4range AS r"))
	if a := aborts("answer is too long", statement("orders", "SELECT repeat('x', 2000000)")); a.GetCode() != assentv1.ErrorCode_ERROR_CODE_CAPACITY {
		t.Errorf("a row that is too long gives %v", a)
	}
	aborts("does not do this", put("orders", "k", "v"))
	r, err := s.Run(ctx, &assentv1.RunRequest{Operations: []*assentv1.Operation{statement("billing", "SELECT count(*) FROM t")}})
	if err != nil || r.GetResults()[0].GetRows()[0].GetValues()[0].GetInt64() != 1 {
		t.Errorf("billing after the aborts: %v, %v; want 1 row", r, err)
	}
	id, err := s.Begin(ctx, &assentv1.BeginRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Execute(ctx, &assentv1.ExecuteRequest{Id: id.GetId(), Operation: statement("orders", "INSERT INTO t (i) SELECT generate_series(1, 200) RETURNING i")})
	if err == nil || !strings.Contains(err.Error(), "more than 100 rows") {
		t.Errorf("a result that is too long: %v", err)
	}
	done, err := s.Commit(ctx, &assentv1.CommitRequest{Id: id.GetId()})
	if err != nil || done.GetOutcome().GetCommitted() == nil {
		t.Errorf("commit after a result that was too long: %v, %v; the statement itself succeeded", done, err)
	}
	op := statement("orders", "SELECT pg_sleep(30)")
	op.Timeout = durationpb.New(50 * time.Millisecond)
	aborts("stopped after 50ms", op)
}
