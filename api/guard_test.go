package api_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"assent/api"
	assentv1 "assent/api/assent/v1"
)

// as sends a token with every call.
func as(secret string) connect.ClientOption {
	return connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			req.Header().Set("Authorization", "Bearer "+secret)
			return next(ctx, req)
		}
	}))
}

const (
	shopSecret  = "shop-secret-0123456789"
	otherSecret = "other-secret-0123456789"
	opsSecret   = "ops-secret-0123456789"
	rootSecret  = "root-secret-0123456789"
)

// lines is a log that a test may read while it is written.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func guarded(t *testing.T) (*world, *lines) {
	said := &lines{}
	return serve(t, api.Options{
		Logger: slog.New(slog.NewTextHandler(said, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Tokens: []api.Token{
			{Name: "shop", Secret: shopSecret, Roles: []api.Role{api.RoleBegin}},
			{Name: "other", Secret: otherSecret, Roles: []api.Role{api.RoleBegin}},
			{Name: "ops", Secret: opsSecret, Roles: []api.Role{api.RoleResolve}},
			{Name: "root", Secret: rootSecret, Roles: []api.Role{api.RoleAdmin}},
		},
	}), said
}

func TestTokens(t *testing.T) {
	w, said := guarded(t)
	ctx := t.Context()
	for _, c := range []struct {
		secret       string
		begin, list  connect.Code
		status, none bool
	}{
		{secret: "", begin: connect.CodeUnauthenticated, list: connect.CodeUnauthenticated, none: true},
		{secret: "wrong", begin: connect.CodeUnauthenticated, list: connect.CodeUnauthenticated, none: true},
		{secret: shopSecret + "x", begin: connect.CodeUnauthenticated, list: connect.CodeUnauthenticated, none: true},
		{secret: shopSecret, list: connect.CodePermissionDenied},
		{secret: opsSecret, begin: connect.CodePermissionDenied},
		{secret: rootSecret},
	} {
		_, err := w.transactions(as(c.secret)).Begin(ctx, &assentv1.BeginRequest{})
		if c.begin != 0 {
			wantError(t, err, c.begin)
		} else if err != nil {
			t.Errorf("%s: begin: %v", c.secret, err)
		}
		_, err = w.operator(as(c.secret)).List(ctx, &assentv1.ListRequest{})
		if c.list != 0 {
			wantError(t, err, c.list)
		} else if err != nil {
			t.Errorf("%s: list: %v", c.secret, err)
		}
		_, err = w.operator(as(c.secret)).Status(ctx, &assentv1.StatusRequest{})
		if c.none {
			wantError(t, err, connect.CodeUnauthenticated, "Authorization: Bearer")
		} else if err != nil {
			t.Errorf("%s: status: %v", c.secret, err)
		}
	}
	if log := said.String(); strings.Contains(log, "secret-0123456789") || !strings.Contains(log, "caller=shop") {
		t.Errorf("the log shows a secret, or no call:\n%s", log)
	}
}

// TestTransactionsBelongToTheirCaller keeps one caller out of another's transaction.
func TestTransactionsBelongToTheirCaller(t *testing.T) {
	w, _ := guarded(t)
	ctx := t.Context()
	shop, other, root := w.transactions(as(shopSecret)), w.transactions(as(otherSecret)), w.transactions(as(rootSecret))
	id := begin(t, shop, &assentv1.BeginRequest{})
	execute(t, shop, id, put("left", "k", "1"))
	_, err := other.Execute(ctx, &assentv1.ExecuteRequest{Id: id, Operation: get("left", "k")})
	wantError(t, err, connect.CodeNotFound)
	_, err = other.Commit(ctx, &assentv1.CommitRequest{Id: id})
	wantError(t, err, connect.CodeNotFound)
	_, err = other.Rollback(ctx, &assentv1.RollbackRequest{Id: id})
	wantError(t, err, connect.CodeNotFound)
	execute(t, shop, id, put("right", "k", "1"))
	r, err := root.Rollback(ctx, &assentv1.RollbackRequest{Id: id})
	if err != nil || r.GetOutcome().GetAborted() == nil {
		t.Errorf("the admin's rollback: %v, %v", r, err)
	}
}

// TestOtherSites is what a browser sends for a page of another site.
func TestOtherSites(t *testing.T) {
	w := serve(t, api.Options{})
	for name, c := range map[string]struct {
		host, contentType string
		headers           map[string]string
		want              int
	}{
		"a program":                   {contentType: "application/json", want: 200},
		"localhost":                   {host: "localhost:7420", contentType: "application/json", want: 200},
		"IPv6":                        {host: "[::1]:7420", contentType: "application/json", want: 200},
		"its own page":                {contentType: "application/json", headers: map[string]string{"Sec-Fetch-Site": "same-origin"}, want: 200},
		"another origin":              {contentType: "application/json", headers: map[string]string{"Origin": "http://evil.example"}, want: 403},
		"another site":                {contentType: "application/json", headers: map[string]string{"Sec-Fetch-Site": "cross-site"}, want: 403},
		"a sandboxed frame":           {contentType: "application/json", headers: map[string]string{"Origin": "null"}, want: 403},
		"a rebound name":              {host: "evil.example:7420", contentType: "application/json", want: 403},
		"a name that begins so":       {host: "localhost.evil.example", contentType: "application/json", want: 403},
		"an address that begins so":   {host: "127.0.0.1.evil.example", contentType: "application/json", want: 403},
		"a form":                      {contentType: "application/x-www-form-urlencoded", want: 415},
		"text, as a form may send it": {contentType: "text/plain", want: 415},
		"no type":                     {want: 415},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), "POST", w.http.URL+assentv1.OperatorServiceStatusProcedure, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			req.Host = c.host
			if c.contentType != "" {
				req.Header.Set("Content-Type", c.contentType)
			}
			for k, v := range c.headers {
				req.Header.Set(k, v)
			}
			r, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			if r.StatusCode != c.want {
				t.Errorf("status %d; want %d", r.StatusCode, c.want)
			}
		})
	}
}

func TestBadOptions(t *testing.T) {
	w := serve(t, api.Options{})
	for part, o := range map[string]api.Options{
		"MaxRows is negative":    {MaxRows: -1},
		"fewer than 16 bytes":    {Tokens: []api.Token{{Name: "a", Secret: "short", Roles: []api.Role{api.RoleBegin}}}},
		`unknown role "begn"`:    {Tokens: []api.Token{{Name: "a", Secret: shopSecret, Roles: []api.Role{"begn"}}}},
		`token "a" has no roles`: {Tokens: []api.Token{{Name: "a", Secret: shopSecret}}},
	} {
		if _, err := api.New(w.manager, nil, o); err == nil || !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), shopSecret) {
			t.Errorf("New: %v; want %q", err, part)
		}
	}
}
