package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"assent/api"
	"assent/decision/disk"
	"assent/decision/paxos"
)

func (p *program) serveCommand() *cobra.Command {
	var (
		t       = target{p: p}
		member  memberFlags
		listen  string
		traceTo string
		example bool
		asJSON  bool
		level   slog.Level
	)
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "serve transactions over HTTP with JSON, gRPC and gRPC-Web",
		Long: `Serve transactions over HTTP with JSON, gRPC and gRPC-Web, all on one port.

Without a configuration it serves one embedded store called kv, whose data is in assent-data. With a
cluster section, or --node and --nodes, it is a node of a cluster: docs/cluster.md. With --join it becomes a
member of a cluster that is there already; it remembers that, and --join does nothing from then on.
What an earlier run left unfinished is finished at once. A line on standard output says when the
server is ready; the log goes to standard error. SIGINT or SIGTERM stops the server in order, a
second one at once: nothing that was decided is lost either way.`,
		Example: `  assent serve
  assent serve --print-config-example > assent.yaml
  ORDERS_DSN=postgres://app@db/orders assent serve -c assent.yaml
  assent serve --trace run.trace
  assent serve --resource orders=postgres:///orders --resource cache=kv:/var/lib/cache
  assent serve --node a --nodes a=127.0.0.1:7421,b=127.0.0.1:7422,c=127.0.0.1:7423 --data-dir a
  assent serve --node d --join a=127.0.0.1:7421,b=127.0.0.1:7422 --address 127.0.0.1:7424 --data-dir d`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if example {
				_, err := fmt.Fprint(p.out, exampleConfig)
				return err
			}
			cfg, err := t.load()
			if err != nil {
				return err
			}
			if err := member.apply(cfg); err != nil {
				return err
			}
			if listen != "" {
				cfg.Listen, cfg.name = listen, ""
				if err := cfg.validateExposure(); err != nil {
					return err
				}
			}
			cfg.trace = traceTo
			return p.serve(cmd.Context(), cfg, p.logger(asJSON, level))
		},
	}
	f := cmd.Flags()
	f.StringVarP(&t.config, "config", "c", "", "read the configuration from this `file`")
	f.StringVar(&t.dataDir, "data-dir", "", "keep the data in this `directory` (default "+defaultDataDir+")")
	f.StringArrayVar(&t.resources, "resource", nil, "serve this resource too: `NAME=SOURCE`, where SOURCE is postgres://… or kv:PATH")
	member.declare(cmd)
	f.StringVar(&listen, "listen", "", "listen on this `address` (default "+defaultListen+")")
	f.StringVar(&traceTo, "trace", "", "write what every transaction does to this `file`, for assent chart")
	f.BoolVar(&example, "print-config-example", false, "print a configuration with every key, and exit")
	f.BoolVar(&asJSON, "log-json", false, "write the log as JSON")
	f.TextVar(&level, "log-level", slog.LevelInfo, "write the log from this `level` on: debug, info, warn or error")
	return cmd
}

func (p *program) logger(asJSON bool, level slog.Level) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if asJSON {
		return slog.New(slog.NewJSONHandler(p.err, options))
	}
	return slog.New(slog.NewTextHandler(p.err, options))
}

// serve opens the site and serves it until a signal or an error ends it.
func (p *program) serve(ctx context.Context, cfg *config, logger *slog.Logger) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	patience := cfg.Timeouts.Shutdown
	if patience == 0 {
		patience = defaultShutdown
	}
	s, err := p.openAny(cfg, logger)
	if err != nil {
		return inUse(err)
	}
	defer s.close(logger, patience)
	if err := p.openResources(ctx, s, logger); err != nil {
		return inUse(err)
	}
	listener, scheme, err := p.listen(cfg)
	if err != nil {
		return err
	}
	defer listener.Close() // where it comes to nothing before it is served
	at := &front{}
	server := at.httpServer(logger)
	defer server.Close()
	served := make(chan error, 1)
	serve := sync.OnceFunc(func() { go func() { served <- server.Serve(listener) }() })
	if err := p.letIn(ctx, s, at, serve, logger); err != nil {
		return err
	}
	if err := p.furnish(ctx, s, logger); err != nil {
		return inUse(err)
	}
	at.Store(s.server)
	serve()
	if err := s.await(ctx, logger); err != nil {
		return err
	}
	names := strings.Join(slices.Sorted(maps.Keys(s.resources)), ", ")
	fmt.Fprintf(p.out, "assent is ready on %s://%s with %s\n", scheme, listener.Addr(), names)

	select {
	case err := <-served:
		return fmt.Errorf("stopped serving: %w", err)
	case <-ctx.Done():
	}
	stop() // a second signal ends the process at once
	logger.Info("stopping; a second signal stops at once", "patience", patience)
	patient, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s.drain(patience, logger)
	if err := s.server.Close(patient); err != nil {
		logger.Warn("open transactions were not all rolled back", "error", err)
	}
	if err := server.Shutdown(patient); err != nil {
		logger.Warn("calls were cut off", "error", err)
		_ = server.Close() // what is cut off has been told
	}
	return nil
}

// inUse says what to do about what another server has open.
func inUse(err error) error {
	f, ok := errors.AsType[*failure](err)
	if ok && (errors.Is(err, disk.ErrLocked) || errors.Is(err, paxos.ErrLocked) || errors.Is(err, syscall.EAGAIN)) {
		f.hint = "another server has it open: stop that one, or give this one a place of its own: --data-dir or data_dir, or the resource's path"
	}
	return err
}

// openAny opens the log, whichever it is: the one that this process keeps alone, or the cluster's.
func (p *program) openAny(cfg *config, logger *slog.Logger) (*site, error) {
	if cfg.Cluster == nil {
		return p.openLog(cfg, logger, true)
	}
	return p.joinCluster(cfg, logger)
}

// letIn waits until a node that joins is a member, and says so when that takes long. Meanwhile a server of its own
// answers what can be answered: how the cluster stands, as far as the node knows, and for everything else why not.
func (p *program) letIn(ctx context.Context, s *site, at *front, serve func(), logger *slog.Logger) error {
	if s.node == nil {
		return nil
	}
	if _, joining := s.node.Joining(); !joining {
		return nil
	}
	if err := p.openServer(s, logger); err != nil {
		return err
	}
	at.Store(s.server)
	serve()
	for {
		patient, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := s.node.Ready(patient)
		cancel()
		switch {
		case err == nil:
			s.log, s.server = s.node.Log(), nil
			return nil
		case ctx.Err() != nil:
			return fail("assent cluster status at one of the members tells how the cluster stands; docs/cluster.md", "stopped before this node was let into the cluster")
		}
		what, _ := s.node.Joining()
		logger.Info("not a member of the cluster yet", "node", s.node.Self(), "state", what)
	}
}

// await opens the manager, which waits for the log, and says so when that takes long.
func (s *site) await(ctx context.Context, logger *slog.Logger) error {
	if s.node == nil {
		return s.manage(ctx, logger)
	}
	done := make(chan error, 1)
	go func() { done <- s.manage(ctx, logger) }()
	for ticker := time.NewTicker(5 * time.Second); ; {
		select {
		case err := <-done:
			ticker.Stop()
			return err
		case <-ticker.C:
			count, _ := s.node.Decides()
			logger.Info("waiting for the decision log", "quorum", count)
		}
	}
}

// drain lets a node of a cluster end what is open, and tells the others that it takes nothing new. It
// leaves some of the patience for what comes after.
func (s *site) drain(patience time.Duration, logger *slog.Logger) {
	if s.node == nil {
		return
	}
	s.node.Leave()
	ctx, cancel := context.WithTimeout(context.Background(), patience-patience/4)
	defer cancel()
	// Those who call now are told to go elsewhere, while their calls are still answered.
	said := time.After(min(farewell, patience/4))
	if err := s.server.Drain(ctx); err != nil {
		logger.Warn("leaving with open transactions; they are rolled back", "error", err)
	}
	<-said
}

// farewell is for how long a node that leaves goes on to answer at the least.
const farewell = 500 * time.Millisecond

// front passes requests on to the server that there is at the time: a node that joins has another one when it is let
// in. It is served when it has one.
type front struct{ atomic.Pointer[api.Server] }

// ServeHTTP passes a request on.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) { f.Load().ServeHTTP(w, r) }

// httpServer returns the server's way to the network.
func (f *front) httpServer(logger *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true) // gRPC, without TLS
	return &http.Server{
		Handler: f, Protocols: protocols,
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

// listen opens the port.
func (p *program) listen(cfg *config) (net.Listener, string, error) {
	listener, err := net.Listen("tcp", cfg.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, "", fail("another server runs there; choose another with --listen", "cannot listen on %s: the address is in use", cfg.Listen)
	}
	if err != nil {
		return nil, "", fail("name an address of this machine, or 127.0.0.1 and a port above 1023", "cannot listen on %s: %v", cfg.Listen, reason(err))
	}
	most := cfg.Limits.Connections
	if most == 0 {
		most = defaultConnections
	}
	listener = limitListener(listener, most)
	if cfg.TLS == nil {
		return listener, "http", nil
	}
	config, err := cfg.TLS.load()
	if err != nil {
		return nil, "", errors.Join(err, listener.Close())
	}
	return tls.NewListener(listener, config), "https", nil
}

// load reads the certificates.
func (t *tlsConfig) load() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fail("", "tls: %v", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}}
	if t.ClientCAFile != "" {
		pem, err := os.ReadFile(t.ClientCAFile)
		if err != nil {
			return nil, fail("", "tls.client_ca_file: %v", err)
		}
		config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !config.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fail("", "tls.client_ca_file: %s holds no certificate in PEM form", t.ClientCAFile)
		}
	}
	return config, nil
}
