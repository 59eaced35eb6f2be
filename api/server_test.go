package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"assent"
	"assent/api"
	assentv1 "assent/api/assent/v1"
	"assent/decision"
	"assent/decision/disk"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/kv"
)

// world is a server over two real stores and a real log, reached over real HTTP.
type world struct {
	t       testing.TB
	http    *httptest.Server
	server  *api.Server
	manager *assent.Manager
	log     *disk.Log
	stores  map[string]*kv.Resource
}

func serve(t testing.TB, opts api.Options, before ...func(decision.Log)) *world {
	t.Helper()
	dir := t.TempDir()
	quiet := slog.New(slog.DiscardHandler)
	log, err := disk.Open(filepath.Join(dir, "log"), disk.Config{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	for _, f := range before {
		f(log)
	}
	w := &world{t: t, log: log, stores: map[string]*kv.Resource{}}
	resources := map[string]resource.Resource{}
	for _, name := range []string{"left", "right"} {
		store, err := kv.Open(filepath.Join(dir, name), kv.Config{LockTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = store.Close() })
		w.stores[name], resources[name] = store, store
	}
	w.manager, err = assent.Open(t.Context(), assent.Config{Log: log, Resources: resources, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if opts.Logger == nil {
		opts.Logger = quiet
	}
	w.server, err = api.New(w.manager, resources, opts)
	if err != nil {
		t.Fatal(err)
	}
	w.http = httptest.NewUnstartedServer(w.server)
	w.http.Config.Protocols = new(http.Protocols)
	w.http.Config.Protocols.SetHTTP1(true)
	w.http.Config.Protocols.SetUnencryptedHTTP2(true)
	w.http.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := w.server.Close(ctx); err != nil {
			t.Errorf("close the server: %v", err)
		}
		w.http.Close()
		if err := w.manager.Close(ctx); err != nil {
			t.Errorf("close the manager: %v", err)
		}
	})
	return w
}

func (w *world) transactions(opts ...connect.ClientOption) assentv1.TransactionServiceClient {
	return assentv1.NewTransactionServiceClient(w.http.Client(), w.http.URL, opts...)
}

func (w *world) operator(opts ...connect.ClientOption) assentv1.OperatorServiceClient {
	return assentv1.NewOperatorServiceClient(w.http.Client(), w.http.URL, opts...)
}

// value returns what is committed under key in a store.
func (w *world) value(store, key string) string {
	w.t.Helper()
	v, ok, err := w.stores[store].Peek([]byte(key))
	if err != nil {
		w.t.Fatal(err)
	}
	if !ok {
		return "(none)"
	}
	return string(v)
}

func put(store, key, value string) *assentv1.Operation {
	return &assentv1.Operation{Resource: store, Action: &assentv1.Operation_Put{Put: &assentv1.PutKey{
		Key: text(key), Value: &assentv1.Value{Kind: &assentv1.Value_String_{String_: value}}}}}
}

func get(store, key string) *assentv1.Operation {
	return &assentv1.Operation{Resource: store, Action: &assentv1.Operation_Get{Get: &assentv1.GetKey{Key: text(key)}}}
}

func scan(store, prefix string) *assentv1.Operation {
	return &assentv1.Operation{Resource: store, Action: &assentv1.Operation_Scan{Scan: &assentv1.ScanKeys{Prefix: text(prefix)}}}
}

func text(key string) *assentv1.Key {
	return &assentv1.Key{Form: &assentv1.Key_Text{Text: key}}
}

func begin(t testing.TB, c assentv1.TransactionServiceClient, req *assentv1.BeginRequest) string {
	t.Helper()
	b, err := c.Begin(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return b.GetId()
}

func execute(t testing.TB, c assentv1.TransactionServiceClient, id string, op *assentv1.Operation) *assentv1.Result {
	t.Helper()
	r, err := c.Execute(t.Context(), &assentv1.ExecuteRequest{Id: id, Operation: op})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetResult()
}

// wantError checks an error's code and that its text and hint contain what they should.
func wantError(t testing.TB, err error, code connect.Code, parts ...string) *assentv1.ErrorDetail {
	t.Helper()
	var told *connect.Error
	if !errors.As(err, &told) || told.Code() != code {
		t.Fatalf("the error is %v; want %v", err, code)
	}
	detail := &assentv1.ErrorDetail{}
	for _, d := range told.Details() {
		if v, err := d.Value(); err == nil {
			detail = v.(*assentv1.ErrorDetail)
		}
	}
	for _, part := range parts {
		if !strings.Contains(told.Message()+"\n"+detail.GetHint(), part) {
			t.Errorf("the error is %q with the hint %q; want %q in it", told.Message(), detail.GetHint(), part)
		}
	}
	return detail
}

// TestProtocols runs the same transaction over every protocol that one port serves.
func TestProtocols(t *testing.T) {
	w := serve(t, api.Options{})
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	defer h2.CloseIdleConnections()
	for name, c := range map[string]assentv1.TransactionServiceClient{
		"connect":  w.transactions(),
		"json":     w.transactions(connect.WithProtoJSON()),
		"grpc-web": w.transactions(connect.WithGRPCWeb()),
		"grpc":     assentv1.NewTransactionServiceClient(&http.Client{Transport: h2}, w.http.URL, connect.WithGRPC()),
	} {
		t.Run(name, func(t *testing.T) {
			id := begin(t, c, &assentv1.BeginRequest{Timeout: durationpb.New(30 * time.Second)})
			execute(t, c, id, put("left", name, "1"))
			execute(t, c, id, put("right", name, "2"))
			read := execute(t, c, id, get("left", name))
			want := &assentv1.Result{
				Columns: []*assentv1.Column{{Name: "value", Type: "bytes"}},
				Rows:    []*assentv1.Row{{Values: []*assentv1.Value{{Kind: &assentv1.Value_String_{String_: "1"}}}}},
			}
			if d := cmp.Diff(want, read, protocmp.Transform()); d != "" {
				t.Error(d)
			}
			for range 2 { // the answer of the first may be lost
				done, err := c.Commit(t.Context(), &assentv1.CommitRequest{Id: id})
				if err != nil || done.GetOutcome().GetCommitted() == nil || done.GetOutcome().GetId() != id {
					t.Fatalf("commit: %v, %v", done, err)
				}
			}
			if l, r := w.value("left", name), w.value("right", name); l != "1" || r != "2" {
				t.Errorf("the stores hold %s and %s; want 1 and 2", l, r)
			}
			_, err := c.Execute(t.Context(), &assentv1.ExecuteRequest{Id: id, Operation: get("left", name)})
			if d := wantError(t, err, connect.CodeFailedPrecondition, "has ended"); !d.GetEnded() || d.GetId() != id {
				t.Errorf("the detail is %v", d)
			}
		})
	}
}

// TestPlainHTTP is what curl sends.
func TestPlainHTTP(t *testing.T) {
	w := serve(t, api.Options{})
	call := func(procedure, body string) (int, map[string]any) {
		t.Helper()
		r, err := http.Post(w.http.URL+procedure, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		var answer map[string]any
		if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, answer
	}
	status, answer := call("/assent.v1.TransactionService/Run", `{"operations": [
		{"resource": "left", "put": {"key": {"text": "a"}, "value": {"string": "1"}}},
		{"resource": "right", "put": {"key": {"bytes": "AP8="}, "value": {"bytes": "/w=="}}},
		{"resource": "right", "scan": {}}]}`)
	if status != 200 || answer["outcome"].(map[string]any)["committed"] == nil {
		t.Fatalf("run: %d %v", status, answer)
	}
	rows := answer["results"].([]any)[2].(map[string]any)["rows"]
	want := []any{map[string]any{"values": []any{map[string]any{"bytes": "AP8="}, map[string]any{"bytes": "/w=="}}}}
	if d := cmp.Diff(want, rows); d != "" {
		t.Error(d)
	}
	if status, answer := call("/assent.v1.TransactionService/Commit", `{"id": "never"}`); status != 404 || answer["code"] != "not_found" {
		t.Errorf("commit of an unknown id: %d %v", status, answer)
	}
	if status, answer := call("/assent.v1.TransactionService/Begin", `{"tineout": "3s"}`); status != 400 || answer["code"] != "invalid_argument" {
		t.Errorf("begin with an unknown field: %d %v", status, answer)
	}
	r, err := http.Get(w.http.URL + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if body, _ := io.ReadAll(r.Body); r.StatusCode != 200 || string(body) != "ok\n" {
		t.Errorf("healthz: %d %q", r.StatusCode, body)
	}
}

func TestRunAborts(t *testing.T) {
	w := serve(t, api.Options{})
	c := w.transactions()
	r, err := c.Run(t.Context(), &assentv1.RunRequest{Operations: []*assentv1.Operation{
		put("left", "k", "1"), put("right", strings.Repeat("k", 5000), "2"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	a := r.GetOutcome().GetAborted()
	if a.GetFailedOperation() != 2 || a.GetCode() != assentv1.ErrorCode_ERROR_CODE_INVALID || a.GetRetryable() {
		t.Errorf("the outcome is %v; want operation 2 to be invalid", r.GetOutcome())
	}
	if v := w.value("left", "k"); v != "(none)" {
		t.Errorf("left holds %s after an abort", v)
	}
	_, err = c.Run(t.Context(), &assentv1.RunRequest{Operations: []*assentv1.Operation{get("middle", "k")}})
	wantError(t, err, connect.CodeInvalidArgument, `operation 1: there is no resource "middle"`)
	_, err = c.Run(t.Context(), &assentv1.RunRequest{Operations: []*assentv1.Operation{{Resource: "left"}}})
	wantError(t, err, connect.CodeInvalidArgument, "nothing to do")
	_, err = c.Run(t.Context(), &assentv1.RunRequest{})
	wantError(t, err, connect.CodeInvalidArgument, "0 operations")
	_, err = c.Run(t.Context(), &assentv1.RunRequest{Operations: []*assentv1.Operation{{Resource: "left", Action: &assentv1.Operation_Statement{}}}})
	if err != nil {
		t.Fatal(err)
	}
}

// TestDeadlock makes two transactions wait for each other: one gives way, and is told to retry.
func TestDeadlock(t *testing.T) {
	w := serve(t, api.Options{})
	c := w.transactions()
	first, second := begin(t, c, &assentv1.BeginRequest{}), begin(t, c, &assentv1.BeginRequest{})
	execute(t, c, first, put("left", "a", "1"))
	execute(t, c, second, put("left", "b", "2"))
	errs := make(chan error, 2)
	for id, key := range map[string]string{first: "b", second: "a"} {
		go func() {
			_, err := c.Execute(t.Context(), &assentv1.ExecuteRequest{Id: id, Operation: put("left", key, "3")})
			if err != nil {
				_, _ = c.Rollback(t.Context(), &assentv1.RollbackRequest{Id: id}) // lets the other go on
			}
			errs <- err
		}()
	}
	one, two := <-errs, <-errs
	if one == nil {
		one, two = two, one
	}
	if d := wantError(t, one, connect.CodeAborted); d.GetCode() != assentv1.ErrorCode_ERROR_CODE_DEADLOCK || !d.GetRetryable() {
		t.Errorf("the detail is %v; want a retryable deadlock", d)
	}
	if two != nil {
		t.Errorf("the other was refused too: %v", two)
	}
}

func TestRollback(t *testing.T) {
	w := serve(t, api.Options{})
	c := w.transactions()
	id := begin(t, c, &assentv1.BeginRequest{})
	execute(t, c, id, put("left", "k", "1"))
	for range 2 {
		r, err := c.Rollback(t.Context(), &assentv1.RollbackRequest{Id: id})
		if err != nil || r.GetOutcome().GetAborted() == nil {
			t.Fatalf("rollback: %v, %v", r, err)
		}
	}
	r, err := c.Commit(t.Context(), &assentv1.CommitRequest{Id: id})
	if err != nil || r.GetOutcome().GetAborted() == nil {
		t.Errorf("commit after rollback: %v, %v; want aborted", r, err)
	}
	if v := w.value("left", "k"); v != "(none)" {
		t.Errorf("left holds %s after a rollback", v)
	}
	id = begin(t, c, &assentv1.BeginRequest{})
	if _, err := c.Commit(t.Context(), &assentv1.CommitRequest{Id: id}); err != nil {
		t.Fatal(err)
	}
	_, err = c.Rollback(t.Context(), &assentv1.RollbackRequest{Id: id})
	wantError(t, err, connect.CodeFailedPrecondition, "is committed")
	_, err = c.Rollback(t.Context(), &assentv1.RollbackRequest{Id: "never"})
	wantError(t, err, connect.CodeNotFound, "no outcome")
}

// TestOneCallAtATime holds a call in a lock and sends another, then takes the transaction away
// from under it.
func TestOneCallAtATime(t *testing.T) {
	w := serve(t, api.Options{})
	c := w.transactions()
	holder, waiter := begin(t, c, &assentv1.BeginRequest{}), begin(t, c, &assentv1.BeginRequest{})
	execute(t, c, holder, put("left", "k", "1"))
	waited := make(chan error, 1)
	go func() {
		for { // until the calls below leave it room
			_, err := c.Execute(t.Context(), &assentv1.ExecuteRequest{Id: waiter, Operation: put("left", "k", "2")})
			if err == nil || !strings.Contains(err.Error(), "another call") {
				waited <- err
				return
			}
		}
	}()
	for { // until the call above has begun
		_, err := c.Execute(t.Context(), &assentv1.ExecuteRequest{Id: waiter, Operation: get("right", "k")})
		if err != nil {
			wantError(t, err, connect.CodeAborted, "another call", "one call")
			break
		}
	}
	_, err := c.Commit(t.Context(), &assentv1.CommitRequest{Id: waiter})
	wantError(t, err, connect.CodeAborted, "one call")
	if _, err := c.Rollback(t.Context(), &assentv1.RollbackRequest{Id: waiter}); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err == nil {
		t.Error("the call that was waiting succeeded after the rollback")
	}
	if _, err := c.Commit(t.Context(), &assentv1.CommitRequest{Id: holder}); err != nil {
		t.Fatal(err)
	}
	if v := w.value("left", "k"); v != "1" {
		t.Errorf("left holds %s; want 1", v)
	}
}

// briefly begins a transaction whose time is short, and returns it when it holds a lock: on a busy machine
// that may take more than one, whose time was over before.
func briefly(t *testing.T, c assentv1.TransactionServiceClient, req *assentv1.BeginRequest) string {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		id := begin(t, c, req)
		_, err := c.Execute(t.Context(), &assentv1.ExecuteRequest{Id: id, Operation: put("left", "k", "1")})
		if err == nil {
			return id
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// commitOver asks for the commitment of a transaction whose time is over, again while it is being ended.
func commitOver(t *testing.T, c assentv1.TransactionServiceClient, id string) (*assentv1.CommitResponse, error) {
	t.Helper()
	for {
		r, err := c.Commit(t.Context(), &assentv1.CommitRequest{Id: id})
		if err == nil || !strings.Contains(err.Error(), "is being rolled back") {
			return r, err
		}
	}
}

func TestIdleIsRolledBack(t *testing.T) {
	w := serve(t, api.Options{IdleTimeout: 50 * time.Millisecond})
	c := w.transactions()
	id := briefly(t, c, &assentv1.BeginRequest{})
	// Another transaction gets the lock only when the idle one has been rolled back.
	if _, err := c.Run(t.Context(), &assentv1.RunRequest{Operations: []*assentv1.Operation{put("left", "k", "2")}}); err != nil {
		t.Fatal(err)
	}
	r, err := commitOver(t, c, id)
	if err != nil || !strings.Contains(r.GetOutcome().GetAborted().GetReason(), "idle for longer than 50ms") {
		t.Errorf("commit: %v, %v; want aborted for idleness", r, err)
	}
	_, err = c.Execute(t.Context(), &assentv1.ExecuteRequest{Id: id, Operation: get("left", "k")})
	if d := wantError(t, err, connect.CodeFailedPrecondition, "idle for longer than"); !d.GetEnded() {
		t.Error("the detail does not say that the transaction has ended")
	}
	if v := w.value("left", "k"); v != "2" {
		t.Errorf("left holds %s; want 2", v)
	}
}

// TestTimeoutIsRolledBack lets the manager end a transaction that the server holds open.
func TestTimeoutIsRolledBack(t *testing.T) {
	w := serve(t, api.Options{})
	c := w.transactions()
	id := briefly(t, c, &assentv1.BeginRequest{Timeout: durationpb.New(50 * time.Millisecond)})
	if _, err := c.Run(t.Context(), &assentv1.RunRequest{Operations: []*assentv1.Operation{put("left", "k", "2")}}); err != nil {
		t.Fatal(err)
	}
	r, err := c.Commit(t.Context(), &assentv1.CommitRequest{Id: id})
	if a := r.GetOutcome().GetAborted(); err != nil || !strings.Contains(a.GetReason(), "open for longer than") {
		t.Errorf("commit: %v, %v; want aborted", r, err)
	}
}

func TestLimits(t *testing.T) {
	w := serve(t, api.Options{MaxOpen: 2, MaxRows: 3, MaxResultBytes: 1000, MaxRequestBytes: 10_000, MaxOperations: 10})
	c := w.transactions()
	var fill []*assentv1.Operation
	for _, k := range []string{"a1", "a2", "a3", "a4"} {
		fill = append(fill, put("left", k, "v"))
	}
	fill = append(fill, put("left", "b1", strings.Repeat("v", 600)), put("left", "b2", strings.Repeat("v", 600)))
	if r, err := c.Run(t.Context(), &assentv1.RunRequest{Operations: fill}); err != nil || r.GetOutcome().GetCommitted() == nil {
		t.Fatal(r, err)
	}
	id := begin(t, c, &assentv1.BeginRequest{})
	refused := func(op *assentv1.Operation, code connect.Code, part string) {
		t.Helper()
		_, err := c.Execute(t.Context(), &assentv1.ExecuteRequest{Id: id, Operation: op})
		wantError(t, err, code, part)
	}
	refused(scan("left", "a"), connect.CodeResourceExhausted, "more than 3 rows")
	refused(scan("left", "b"), connect.CodeResourceExhausted, "more than 1000 bytes")
	limited := scan("left", "a")
	limited.MaxRows = 2
	refused(limited, connect.CodeResourceExhausted, "more than 2 rows")
	limited.MaxRows, limited.GetScan().Limit = 0, 2
	if n := len(execute(t, c, id, limited).GetRows()); n != 2 {
		t.Errorf("a scan with limit 2 gave %d rows", n)
	}
	refused(put("left", "k", strings.Repeat("v", 20_000)), connect.CodeResourceExhausted, "")
	begin(t, c, &assentv1.BeginRequest{})
	_, err := c.Begin(t.Context(), &assentv1.BeginRequest{})
	wantError(t, err, connect.CodeResourceExhausted, "2 transactions are open")
	_, err = c.Run(t.Context(), &assentv1.RunRequest{Operations: fill})
	wantError(t, err, connect.CodeResourceExhausted, "2 transactions are open")
	if _, err := c.Rollback(t.Context(), &assentv1.RollbackRequest{Id: id}); err != nil {
		t.Fatal(err)
	}
	begin(t, c, &assentv1.BeginRequest{})
	_, err = c.Run(t.Context(), &assentv1.RunRequest{Operations: append(fill, fill...)})
	wantError(t, err, connect.CodeInvalidArgument, "12 operations", "from 1 to 10")
	_, err = c.Begin(t.Context(), &assentv1.BeginRequest{Timeout: durationpb.New(-1)})
	wantError(t, err, connect.CodeInvalidArgument, "timeout")
}

// TestStatementTimeout lets an operation wait for a lock longer than it may.
func TestStatementTimeout(t *testing.T) {
	w := serve(t, api.Options{})
	c := w.transactions()
	holder, waiter := begin(t, c, &assentv1.BeginRequest{}), begin(t, c, &assentv1.BeginRequest{})
	execute(t, c, holder, put("left", "k", "1"))
	op := put("left", "k", "2")
	op.Timeout = durationpb.New(20 * time.Millisecond)
	_, err := c.Execute(t.Context(), &assentv1.ExecuteRequest{Id: waiter, Operation: op})
	wantError(t, err, connect.CodeDeadlineExceeded, "stopped after 20ms")
}

// TestOperator settles a heuristic outcome: the log has decided to commit what a store, which was
// emptied say, has never heard of.
func TestOperator(t *testing.T) {
	const id = "01JDP5V8Q4ZK3T6M2Y9RWXB7CE-1"
	w := serve(t, api.Options{Version: "v1", Owner: "me"}, func(log decision.Log) {
		_, err := log.Decide(t.Context(), decision.Entry{ID: id, Decision: commit.Commit, By: "coordinator",
			Branches: []decision.Branch{{Resource: "left", Evidence: []byte("lost")}}, Time: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
	})
	if err := w.manager.Quiesce(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := w.operator()
	list, err := o.List(t.Context(), &assentv1.ListRequest{Unfinished: true})
	if err != nil || len(list.GetTransactions()) != 1 || list.GetMore() {
		t.Fatalf("list: %v, %v", list, err)
	}
	tx := list.GetTransactions()[0]
	if tx.GetId() != id || tx.GetState() != assentv1.State_STATE_HEURISTIC || tx.GetBranches()[0].GetOutcome() != assentv1.BranchOutcome_BRANCH_OUTCOME_HAZARD {
		t.Fatalf("the transaction is %v; want a hazard", tx)
	}
	told, err := w.transactions().Commit(t.Context(), &assentv1.CommitRequest{Id: id})
	if h := told.GetOutcome().GetHeuristic(); err != nil || h.GetMixed() || len(h.GetBranches()) != 1 {
		t.Errorf("the outcome is %v, %v; want a hazard of one branch", told, err)
	}
	_, err = o.Resolve(t.Context(), &assentv1.ResolveRequest{Id: id, By: "alice"})
	wantError(t, err, connect.CodeFailedPrecondition, "who resolves it and why")
	_, err = o.Resolve(t.Context(), &assentv1.ResolveRequest{Id: id, By: "alice", Reason: "r", Outcome: 256})
	wantError(t, err, connect.CodeInvalidArgument, "no outcome 256")
	_, err = o.Resolve(t.Context(), &assentv1.ResolveRequest{Id: "never", By: "alice", Reason: "r"})
	wantError(t, err, connect.CodeNotFound)
	r, err := o.Resolve(t.Context(), &assentv1.ResolveRequest{Id: id, By: "alice", Reason: "paid by hand"})
	if err != nil || r.GetTransaction().GetState() != assentv1.State_STATE_COMMITTED {
		t.Fatalf("resolve: %v, %v", r, err)
	}
	notes := r.GetTransaction().GetNotes()
	if last := notes[len(notes)-1]; last.GetKind() != "resolved" || last.GetBy() != "alice" || last.GetReason() != "paid by hand" {
		t.Errorf("the last note is %v", last)
	}
	status, err := o.Status(t.Context(), &assentv1.StatusRequest{})
	if err != nil || status.GetVersion() != "v1" || status.GetOwner() != "me" || len(status.GetResources()) != 2 || status.GetResources()[0].GetKind() != "kv" {
		t.Errorf("status: %v, %v", status, err)
	}
	doctor, err := o.Doctor(t.Context(), &assentv1.DoctorRequest{})
	if err != nil || len(doctor.GetDiagnoses()) != 2 || len(doctor.GetDiagnoses()[0].GetFindings()) == 0 {
		t.Errorf("doctor: %v, %v", doctor, err)
	}
}

// TestErrorCodes holds the contract's codes to the library's.
func TestErrorCodes(t *testing.T) {
	for c := resource.Serialization; c <= resource.Broken; c++ {
		name := assentv1.ErrorCode_name[int32(c)]
		if name == "" {
			t.Errorf("the contract has no code for %v", c)
		}
		word := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, "ERROR_CODE_"), "_", " "))
		first, _, _ := strings.Cut(word, " ")
		if !strings.Contains(c.String(), first) {
			t.Errorf("code %d is %q in the contract and %q in the library", c, word, c)
		}
	}
	if len(assentv1.ErrorCode_name) != int(resource.Broken)+1 {
		t.Error("the contract has codes that the library has not")
	}
	for s := range assentv1.BranchOutcome_name {
		if s != 0 && !strings.EqualFold(strings.ReplaceAll(strings.TrimPrefix(assentv1.BranchOutcome(s).String(), "BRANCH_OUTCOME_"), "_", " "), commit.Outcome(s).String()) {
			t.Errorf("outcome %d differs: %v and %v", s, assentv1.BranchOutcome(s), commit.Outcome(s))
		}
	}
}

// TestAbandonedRollback gives up a rollback whose transaction is at work: the transaction ends all
// the same, for idleness, and makes room.
func TestAbandonedRollback(t *testing.T) {
	w := serve(t, api.Options{IdleTimeout: 50 * time.Millisecond, MaxOpen: 1})
	id, err := w.server.Begin(t.Context(), &assentv1.BeginRequest{})
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, _ = w.server.Rollback(gone, &assentv1.RollbackRequest{Id: id.GetId()}) // may or may not be in time
	for {
		_, err := w.server.Execute(t.Context(), &assentv1.ExecuteRequest{Id: id.GetId(), Operation: get("left", "k")})
		if err != nil && strings.Contains(err.Error(), "was rolled back") {
			break
		}
	}
	if _, err := w.server.Begin(t.Context(), &assentv1.BeginRequest{}); err != nil {
		t.Errorf("there is no room after the end: %v", err)
	}
}
