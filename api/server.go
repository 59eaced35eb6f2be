package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"assent"
	assentv1 "assent/api/assent/v1"
	"assent/cluster"
	"assent/decision/remote"
	"assent/resource"
	"assent/site"
)

// Options say what a Server grants. The zero value is ready to use.
type Options struct {
	// Tokens are the bearer tokens that are accepted. With none, every request is granted
	// everything, and must be addressed to a loopback name (see Hosts).
	Tokens []Token

	// Hosts are further names, beside loopback ones, to which requests may be addressed where
	// there are no tokens; "*" stands for all and is for servers that verify client certificates.
	// Defaults to none.
	Hosts []string

	// MaxOpen is how many transactions may be open at once. Defaults to 1,000.
	MaxOpen int

	// MaxRequestBytes bounds a request, decompressed. Defaults to 4 MiB.
	MaxRequestBytes int

	// MaxOperations bounds the operations of one Run. Defaults to 1,000.
	MaxOperations int

	// MaxRows and MaxResultBytes bound the result of one operation, and MaxResultBytes also those
	// of one Run together. Default to 10,000 and 8 MiB.
	MaxRows, MaxResultBytes int

	// Timeout is the longest, and the default, time from Begin to Commit. Defaults to 60 s.
	Timeout time.Duration

	// IdleTimeout is for how long an open transaction may go without a call before it is rolled
	// back. Defaults to 30 s.
	IdleTimeout time.Duration

	// StatementTimeout is the longest, and the default, time of one operation. Defaults to 30 s.
	StatementTimeout time.Duration

	// Version, Owner and LogStats are what Status tells: the program's version, the decision
	// log's owner, and the log's figures. LogStats may be nil; it is called by many goroutines.
	Version, Owner string
	LogStats       func() map[string]int64

	// Node is the cluster's node that this server is, or nil. The server then answers for transactions
	// that live at other nodes, says where resources are kept, and, where NeedsQuorum is set, begins
	// nothing while the node reaches too few others to decide anything.
	Node        *cluster.Node
	NeedsQuorum bool

	// Barred says why a resource must not be worked in, or "": its name stands for another database at the
	// cluster's other nodes. It is called by many goroutines, and may be nil.
	Barred func(resource string) (why string)

	// Register answers applications that use the decision log itself, below remote.Path, or is nil. With
	// tokens it takes one with RoleDecide.
	Register http.Handler

	// Sites runs the transactions that ask for a protocol of their own, or is nil. It needs Node.
	Sites *site.Host

	// Logger hears of refused callers, of transactions rolled back for idleness, and of every call
	// at the debug level; never of a token or of what a statement says. Defaults to slog.Default().
	Logger *slog.Logger
}

// DefaultResultBytes is what Options.MaxResultBytes defaults to, in bytes.
const DefaultResultBytes = 8 << 20

func (o *Options) setDefaults() {
	defaultTo(&o.MaxOpen, 1000)
	defaultTo(&o.MaxRequestBytes, 4<<20)
	defaultTo(&o.MaxOperations, 1000)
	defaultTo(&o.MaxRows, 10_000)
	defaultTo(&o.MaxResultBytes, DefaultResultBytes)
	defaultTo(&o.Timeout, time.Minute)
	defaultTo(&o.IdleTimeout, 30*time.Second)
	defaultTo(&o.StatementTimeout, 30*time.Second)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

func defaultTo[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (o *Options) validate() error {
	for _, f := range [...]struct {
		name  string
		value int64
	}{
		{"MaxOpen", int64(o.MaxOpen)}, {"MaxRequestBytes", int64(o.MaxRequestBytes)},
		{"MaxOperations", int64(o.MaxOperations)}, {"MaxRows", int64(o.MaxRows)},
		{"MaxResultBytes", int64(o.MaxResultBytes)}, {"Timeout", int64(o.Timeout)},
		{"IdleTimeout", int64(o.IdleTimeout)}, {"StatementTimeout", int64(o.StatementTimeout)},
	} {
		if f.value < 0 {
			return fmt.Errorf("api: Options.%s is negative", f.name)
		}
	}
	for _, t := range o.Tokens {
		if err := t.validate(); err != nil {
			return fmt.Errorf("api: %w", err)
		}
	}
	return nil
}

// Server serves the contract. It is an http.Handler, and its methods may be called directly too,
// by the process it is in: they then act with every right. All methods are safe for concurrent use.
//
// Who calls a method owns the request: nothing of it, its bytes included, is kept or changed once the
// call has returned. An answer may be kept and must not be changed, for parts of it (an outcome that
// is remembered, the columns of a result) are given to others too; the bytes in its values are its own.
// Every string in it is UTF-8 and bounded, whatever a database has sent.
type Server struct {
	m         atomic.Pointer[assent.Manager] // nil while the server is starting
	executors map[string]executor
	opts      Options
	started   time.Time
	sessions  *sessions
	handler   http.Handler
}

var (
	_ assentv1.TransactionServiceHandler = (*Server)(nil)
	_ assentv1.OperatorServiceHandler    = (*Server)(nil)
)

// New returns a server of m's transactions. The resources are those of m's Config, by the same
// names. It fails where it does not know how to work in one of them, and on bad options. Where m is
// nil the server refuses everything but what is about itself and the cluster until Manage gives it one: a node whose log
// waits for others, or that is not let into its cluster yet, can so be asked what it waits for.
func New(m *assent.Manager, resources map[string]resource.Resource, opts Options) (*Server, error) {
	opts.setDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	s := &Server{
		opts: opts, started: time.Now(),
		executors: map[string]executor{},
	}
	s.m.Store(m)
	s.sessions = newSessions(opts, s.expire)
	for name, r := range resources {
		e, err := executorOf(r)
		if err != nil {
			return nil, fmt.Errorf("api: resource %q: %w", name, err)
		}
		s.executors[name] = e
	}
	if opts.Node != nil {
		opts.Node.Answer(s.answer)
	}
	mux := http.NewServeMux()
	handle := []connect.HandlerOption{
		connect.WithReadMaxBytes(opts.MaxRequestBytes),
		connect.WithInterceptors(s.logging()),
		connect.WithRecover(s.recovered),
		connect.WithCodec(strictJSON{"json"}), connect.WithCodec(strictJSON{"json; charset=utf-8"}),
	}
	mux.Handle(assentv1.NewTransactionServiceHandler(s, handle...))
	mux.Handle(assentv1.NewOperatorServiceHandler(s, handle...))
	if opts.Register != nil {
		mux.Handle(remote.Path, opts.Register)
	}
	s.handler = newGuard(opts, mux, s.busy)
	return s, nil
}

// Manage gives a server that has no manager its own.
func (s *Server) Manage(m *assent.Manager) { s.m.Store(m) }

// manager returns the server's manager. There is one wherever a call comes from: calls that are made
// earlier are refused before.
func (s *Server) manager() *assent.Manager { return s.m.Load() }

// joining says what the server's node waits for that is not let into its cluster yet, or is "".
func (s *Server) joining() string {
	if s.opts.Node == nil {
		return ""
	}
	what, _ := s.opts.Node.Joining()
	return what
}

// busy says why no new transactions are taken, or is "". Anybody may read it.
func (s *Server) busy() string {
	switch {
	case s.manager() == nil && s.joining() != "":
		return "joining: this node waits to be let into its cluster"
	case s.manager() == nil:
		return "starting: the server waits for its decision log"
	case s.sessions.draining():
		return "leaving: no new transactions"
	}
	return ""
}

// starting says that the server has no manager yet, and what it waits for.
func (s *Server) starting() error {
	text := "the server is starting and waits for its decision log"
	if s.opts.Node != nil {
		if what := s.joining(); what != "" {
			return refuse(connect.CodeUnavailable, fmt.Sprintf("node %s is joining its cluster: it %s", s.opts.Node.Self(), what),
				"ask a member of the cluster; assent cluster status tells, here and there, how the cluster stands").anywhereElse()
		}
		count, _ := s.opts.Node.Decides()
		text = fmt.Sprintf("node %s is starting and waits for its decision log: %s", s.opts.Node.Self(), count)
	}
	return refuse(connect.CodeUnavailable, text, "try again soon, or ask another node of the cluster").anywhereElse()
}

// ServeHTTP serves the contract, and /healthz, which answers whoever asks:
// 200, or 503 while no new transactions are taken, and why.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.handler.ServeHTTP(w, r)
}

// Drain refuses new transactions and waits until those that are open have ended, or ctx ends. Close after.
func (s *Server) Drain(ctx context.Context) error {
	s.sessions.drain()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for s.sessions.count() > 0 {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%d transactions are still open: %w", s.sessions.count(), ctx.Err())
		}
	}
	return nil
}

// Close refuses new transactions and rolls back those that are open. Close the manager after.
func (s *Server) Close(ctx context.Context) error {
	var errs []error
	for _, sess := range s.sessions.close() {
		if _, err := s.rollback(ctx, sess, "the server is closing"); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// early reports whether a call is answered before there is a manager: those that tell how the server is, and, where
// its node is a member, those that change the cluster, which may wait for a node that will not come back.
func (s *Server) early(procedure string) bool {
	switch procedure {
	case assentv1.OperatorServiceStatusProcedure, assentv1.OperatorServiceClusterProcedure:
		return true
	case assentv1.OperatorServiceChangeClusterProcedure, assentv1.OperatorServiceClusterStateProcedure:
		return s.joining() == ""
	}
	return false
}

// logging tells the log of every call, and turns errors into those of the contract.
func (s *Server) logging() connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			began := time.Now()
			var response connect.AnyResponse
			err := error(nil)
			if s.manager() == nil && !s.early(req.Spec().Procedure) {
				err = s.starting()
			} else {
				response, err = next(ctx, req)
			}
			code := "ok"
			if err != nil {
				err = contractError(err)
				code = connect.CodeOf(err).String()
			}
			s.opts.Logger.Debug("call", "procedure", req.Spec().Procedure, "caller", callerOf(ctx).name,
				"code", code, "took", time.Since(began))
			return response, err
		}
	}
}

func (s *Server) recovered(_ context.Context, spec connect.Spec, _ http.Header, p any) error {
	s.opts.Logger.Error("a call panicked", "procedure", spec.Procedure, "panic", p)
	return connect.NewError(connect.CodeInternal, errors.New("internal error; the server's log says more"))
}
