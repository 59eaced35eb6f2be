package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"connectrpc.com/connect"

	assentv1 "assent/api/assent/v1"
	"assent/decision/remote"
)

// Role is a right that a token carries.
type Role string

// The roles.
const (
	// RoleBegin may run transactions.
	RoleBegin Role = "begin"
	// RoleResolve may list, examine and resolve, and change the cluster.
	RoleResolve Role = "resolve"
	// RoleDecide may use the decision log itself, and so propose any decision: it is for applications that
	// coordinate their own transactions.
	RoleDecide Role = "decide"
	// RoleAdmin may do everything.
	RoleAdmin Role = "admin"
)

// MinSecret is the least length in bytes of a token's secret.
const MinSecret = 16

// Token is a bearer token.
type Token struct {
	// Name says whose it is, in logs and audit trails.
	Name   string
	Secret string
	Roles  []Role
}

func (t Token) validate() error {
	switch {
	case t.Name == "":
		return errors.New("a token has no name")
	case len(t.Secret) < MinSecret:
		return fmt.Errorf("the secret of token %q has fewer than %d bytes", t.Name, MinSecret)
	case len(t.Roles) == 0:
		return fmt.Errorf("token %q has no roles; give it begin, resolve, decide or admin", t.Name)
	}
	for _, r := range t.Roles {
		if !slices.Contains(Roles(), r) {
			return fmt.Errorf("token %q has the unknown role %q; known are begin, resolve, decide and admin", t.Name, r)
		}
	}
	return nil
}

// caller is who makes a request.
type caller struct {
	name  string
	roles []Role
}

func (c caller) has(r Role) bool {
	return slices.Contains(c.roles, RoleAdmin) || slices.Contains(c.roles, r)
}

type callerKey struct{}

// callerOf returns who makes the request of ctx. Without a guard it is the process itself.
func callerOf(ctx context.Context) caller {
	if c, ok := ctx.Value(callerKey{}).(caller); ok {
		return c
	}
	return caller{name: "local", roles: []Role{RoleAdmin}}
}

// Roles returns every role.
func Roles() []Role { return []Role{RoleBegin, RoleResolve, RoleDecide, RoleAdmin} }

// required says which role a procedure needs. For a procedure that is not in it, any will do.
var required = map[string]Role{
	assentv1.TransactionServiceBeginProcedure:    RoleBegin,
	assentv1.TransactionServiceExecuteProcedure:  RoleBegin,
	assentv1.TransactionServiceCommitProcedure:   RoleBegin,
	assentv1.TransactionServiceRollbackProcedure: RoleBegin,
	assentv1.TransactionServiceRunProcedure:      RoleBegin,
	assentv1.OperatorServiceListProcedure:        RoleResolve,
	assentv1.OperatorServiceResolveProcedure:     RoleResolve,
	assentv1.OperatorServiceDoctorProcedure:      RoleResolve,

	assentv1.OperatorServiceChangeClusterProcedure: RoleResolve,
	assentv1.OperatorServiceClusterStateProcedure:  RoleResolve,
}

// guard stands before the contract and decides who may pass.
type guard struct {
	opts   Options
	hashes [][sha256.Size]byte // of the tokens' secrets
	origin *http.CrossOriginProtection
	errors *connect.ErrorWriter
	next   http.Handler
	// busy says why the server takes no new transactions, not yet or no more, or is "".
	busy func() string
}

func newGuard(opts Options, next http.Handler, busy func() string) *guard {
	g := &guard{opts: opts, next: next, busy: busy, origin: http.NewCrossOriginProtection(), errors: connect.NewErrorWriter()}
	for _, t := range opts.Tokens {
		g.hashes = append(g.hashes, sha256.Sum256([]byte(t.Secret)))
	}
	return g
}

// ServeHTTP passes on what may pass.
func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	busy := g.busy()
	if busy != "" {
		// A caller that is answered now goes elsewhere with its next call, and none is sent on a
		// connection that is being closed.
		h.Set("Connection", "close")
	}
	if r.URL.Path == "/healthz" {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		if busy != "" {
			http.Error(w, busy, http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n")) // whoever asked has gone
		return
	}
	c, err := g.admit(r)
	if err != nil {
		g.opts.Logger.Warn("request refused", "path", r.URL.Path, "from", r.RemoteAddr, "reason", err)
		g.refuse(w, r, err)
		return
	}
	g.next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
}

// refuse answers in the protocol of the request where it has one of Connect's.
func (g *guard) refuse(w http.ResponseWriter, r *http.Request, err error) {
	err = contractError(err)
	if g.errors.IsSupported(r) {
		_ = g.errors.Write(w, r, err) // whoever asked has gone
		return
	}
	status := http.StatusForbidden
	if connect.CodeOf(err) == connect.CodeUnauthenticated {
		w.Header().Set("WWW-Authenticate", "Bearer")
		status = http.StatusUnauthorized
	}
	http.Error(w, err.Error(), status)
}

// admit says who makes the request, or why it must not pass.
func (g *guard) admit(r *http.Request) (caller, error) {
	// A page of another site must not use a browser's way to this server, with a name that its
	// owner points to 127.0.0.1 (DNS rebinding) or without.
	if err := g.origin.Check(r); err != nil {
		return caller{}, refuse(connect.CodePermissionDenied, "a browser sent this for another site",
			"requests from pages of other origins are refused")
	}
	if len(g.opts.Tokens) == 0 {
		if !g.addressed(r.Host) {
			return caller{}, refuse(connect.CodePermissionDenied,
				fmt.Sprintf("the request is addressed to %.100q", r.Host),
				"without tokens only requests to localhost, 127.0.0.1 or [::1] are answered")
		}
		return caller{name: "anonymous", roles: []Role{RoleAdmin}}, nil
	}
	c, ok := g.authenticate(r.Header.Get("Authorization"))
	if !ok {
		return caller{}, refuse(connect.CodeUnauthenticated, "the request carries no valid token",
			"send the header Authorization: Bearer TOKEN")
	}
	role := required[r.URL.Path]
	if strings.HasPrefix(r.URL.Path, remote.Path) {
		role = RoleDecide
	}
	if role != "" && !c.has(role) {
		return caller{}, refuse(connect.CodePermissionDenied,
			fmt.Sprintf("token %q has not the role %q", c.name, role), "")
	}
	return c, nil
}

// addressed reports whether host, a request's, is a loopback name or one of Options.Hosts.
func (g *guard) addressed(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(strings.Trim(name, "[]"), "."))
	if name == "localhost" || slices.Contains(g.opts.Hosts, "*") || slices.Contains(g.opts.Hosts, name) {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Unmap().IsLoopback()
}

// authenticate finds the token. It takes the same time whichever it is, and if it is none.
func (g *guard) authenticate(header string) (caller, bool) {
	scheme, secret, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return caller{}, false
	}
	given := sha256.Sum256([]byte(strings.TrimSpace(secret)))
	found := -1
	for i, h := range g.hashes {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(h[:], given[:]), i, found)
	}
	if found < 0 {
		return caller{}, false
	}
	t := g.opts.Tokens[found]
	return caller{name: t.Name, roles: t.Roles}, true
}
