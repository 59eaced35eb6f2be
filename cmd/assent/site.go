package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"assent"
	"assent/api"
	"assent/cluster"
	"assent/decision"
	"assent/decision/disk"
	"assent/decision/paxos"
	remotelog "assent/decision/remote"
	"assent/resource"
	"assent/resource/kv"
	"assent/resource/postgres"
	sites "assent/site"
)

// site is what this process opens: the decision log, the resources, and, where transactions are
// to be run or finished, their manager and server.
type site struct {
	cfg       *config
	log       decision.Log
	node      *cluster.Node      // nil where there is no cluster, as sites is
	register  *remotelog.Handler // nil where the log is this process's alone
	registry  *registry          // nil where there is no cluster
	sites     *sites.Host
	stats     func() map[string]int64
	resources map[string]resource.Resource
	manager   *assent.Manager
	server    *api.Server
	closers   []closer // in the order of opening
}

type closer struct {
	what  string
	close func() error
}

// logFolder is where the decision log is.
func (c *config) logFolder() string { return filepath.Join(c.DataDir, "log") }

// refuseFile refuses a data directory that is a file, or below one.
func (c *config) refuseFile() error {
	info, err := os.Stat(c.DataDir)
	if errors.Is(err, syscall.ENOTDIR) || err == nil && !info.IsDir() {
		return fail("name a directory with --data-dir or data_dir; assent serve makes it where there is none",
			"the data directory %s is a file, or below one", c.DataDir)
	}
	return nil
}

// refuseNode refuses to make a log of its own in the data directory of a cluster's node: the node's stores and what is in
// doubt in them would seem to be gone.
func (c *config) refuseNode() error {
	if _, err := os.Stat(filepath.Join(c.DataDir, "cluster")); err != nil || c.Cluster != nil {
		return nil
	}
	return fail("say which node it is, with --node and --nodes or a cluster section; or name another directory",
		"the data directory %s is that of a node of a cluster", c.DataDir)
}

// openLog opens the decision log that this process keeps alone, or one that is shared. Where create is false
// there must be one.
func (p *program) openLog(cfg *config, logger *slog.Logger, create bool) (*site, error) {
	if cfg.shared() {
		return p.openShared(cfg, logger, create)
	}
	if cfg.backend() != backendDisk {
		return nil, fail("ask one of the nodes, with --server", "the decision log is the cluster's, and no process has it alone")
	}
	dir := cfg.logFolder()
	if err := cfg.refuseFile(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if !create {
			return nil, fail("name the configuration of the server with -c", "there is no decision log in %s", dir)
		}
		if err := cfg.refuseNode(); err != nil {
			return nil, err
		}
	}
	log, err := disk.Open(dir, disk.Config{
		Retention: cfg.Log.Retention, RetainCount: cfg.Log.RetainCount, Logger: logger,
	})
	if errors.Is(err, disk.ErrLocked) {
		return nil, &failure{exit: exitError, err: err, text: fmt.Sprintf("the decision log in %s is in use by another process", dir),
			hint: "a server is running; talk to it with --server instead of -c"}
	}
	if err != nil {
		return nil, &failure{exit: exitError, err: err, text: fmt.Sprintf("cannot open the decision log in %s: %v", dir, err), hint: resource.HintOf(err)}
	}
	s := &site{cfg: cfg, log: log, stats: func() map[string]int64 { return diskStats(log) }, resources: map[string]resource.Resource{}}
	s.closers = append(s.closers, closer{"the decision log", log.Close})
	return s, nil
}

// openSite opens everything: what it finds unfinished is being finished from then on. Where create
// is false there must be a decision log.
func (p *program) openSite(ctx context.Context, cfg *config, logger *slog.Logger, create bool) (*site, error) {
	s, err := p.openLog(cfg, logger, create)
	if err != nil {
		return nil, err
	}
	if err = p.openResources(ctx, s, logger); err == nil {
		if err = p.furnish(ctx, s, logger); err == nil {
			err = s.manage(ctx, logger)
		}
	}
	if err != nil {
		s.close(logger, time.Second)
		return nil, err
	}
	return s, nil
}

// served returns the resources of the configuration, or the one that there is without any.
func (c *config) served() map[string]*resourceConfig {
	if len(c.Resources) == 0 {
		return map[string]*resourceConfig{c.defaultResource(): {Type: "kv"}}
	}
	return c.Resources
}

// storePath returns where the embedded store of that name is.
func (c *config) storePath(name string, r *resourceConfig) string {
	if r.Path == "" {
		return filepath.Join(c.DataDir, "kv", name)
	}
	return r.Path
}

// furnish opens what a site with a log and resources needs besides: its server, which has no manager yet.
func (p *program) furnish(ctx context.Context, s *site, logger *slog.Logger) error {
	if s.node != nil {
		if err := s.openSites(ctx, logger); err != nil {
			return err
		}
		s.openRegistry(logger)
	}
	return p.openServer(s, logger)
}

// openResources opens the resources of the configuration. It waits for no database.
func (p *program) openResources(ctx context.Context, s *site, logger *slog.Logger) error {
	configs := s.cfg.served()
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		r := configs[name]
		logger := logger.With("resource", name)
		switch r.Type {
		case "kv":
			path := s.cfg.storePath(name, r)
			store, err := kv.Open(path, kv.Config{LockTimeout: r.LockTimeout, Logger: logger})
			if errors.Is(err, syscall.EAGAIN) {
				return &failure{exit: exitError, err: err, text: fmt.Sprintf("cannot open resource %q: another process has the store in %s open", name, path),
					hint: "a server is running: ask it, without -c, --data-dir and --resource, or stop it first"}
			}
			if err != nil {
				return &failure{exit: exitError, err: err, text: fmt.Sprintf("cannot open resource %q in %s: %v", name, path, err), hint: resource.HintOf(err)}
			}
			s.resources[name] = store
			s.closers = append(s.closers, closer{"resource " + name, store.Close})
		case "postgres":
			dsn, err := p.dsn(name, r)
			if err != nil {
				return err
			}
			db, err := postgres.Open(ctx, dsn, postgres.Config{
				MaxConns: r.MaxConns, LockTimeout: r.LockTimeout, MaxMessage: longestMessage(s.cfg.Limits.ResultBytes), Logger: logger,
			})
			if err != nil {
				return &failure{exit: exitError, err: err, text: fmt.Sprintf("cannot open resource %q: %v", name, err), hint: resource.HintOf(err)}
			}
			s.resources[name] = db
			s.closers = append(s.closers, closer{"resource " + name, db.Close})
		}
	}
	return nil
}

// longestMessage bounds what a database may send in one row, so that a row is refused before it fills the
// memory. A database's form of a value may be some times as long as ours: of an array of small numbers.
func longestMessage(resultBytes int) int {
	const least, most = 1 << 20, 1 << 30
	return max(least, 4*min(cmp.Or(resultBytes, api.DefaultResultBytes), most/4))
}

// dsn finds the connection string of a postgres resource.
func (p *program) dsn(name string, r *resourceConfig) (string, error) {
	switch {
	case r.DSNEnv != "":
		dsn := p.getenv(r.DSNEnv)
		if dsn == "" {
			return "", fail("set it to the connection string: postgres://user@host:5432/database",
				"resource %q: the environment variable %s is not set", name, r.DSNEnv)
		}
		return dsn, nil
	case r.DSNFile != "":
		dsn, err := readSecret(r.DSNFile)
		if err != nil {
			return "", fail("", "resource %q: %v", name, err)
		}
		return dsn, nil
	}
	return r.DSN, nil
}

// readSecret returns the content of a small file without the space around it.
func readSecret(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("cannot read the secret: %w", err)
	}
	const most = 64 << 10
	if info.Size() > most {
		return "", fmt.Errorf("the secret in %s has %d bytes; at most %d are allowed", path, info.Size(), most)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("cannot read the secret: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// openServer makes the server of the site's resources.
func (p *program) openServer(s *site, logger *slog.Logger) error {
	t := s.cfg.Timeouts
	tokens, err := p.tokens(s.cfg)
	if err != nil {
		return err
	}
	options := api.Options{
		Tokens: tokens, Logger: logger, Version: version(), Owner: s.log.Owner(), LogStats: s.stats,
		Timeout: t.Transaction, IdleTimeout: t.Idle, StatementTimeout: t.Statement,
		MaxOpen: s.cfg.Limits.OpenTransactions, MaxRequestBytes: s.cfg.Limits.RequestBytes,
		MaxRows: s.cfg.Limits.ResultRows, MaxResultBytes: s.cfg.Limits.ResultBytes,
		Node: s.node, NeedsQuorum: s.cfg.backend() == backendPaxos, Sites: s.sites,
	}
	if s.registry != nil {
		options.Barred = s.registry.Barred
	}
	if s.cfg.backend() != backendDisk {
		s.register = remotelog.NewHandler(s.log)
		options.Register = s.register
	}
	if s.cfg.TLS != nil && s.cfg.TLS.ClientCAFile != "" {
		options.Hosts = []string{"*"} // nobody comes this far without a certificate
	}
	s.server, err = api.New(nil, s.resources, options)
	return err
}

// manage opens the site's manager, which waits for the log, and gives it to the server.
func (s *site) manage(ctx context.Context, logger *slog.Logger) error {
	t := s.cfg.Timeouts
	observer, err := s.openTrace()
	if err != nil {
		return err
	}
	if s.node != nil { // one that joins has a log when it is a member
		if err := s.node.Ready(ctx); err != nil {
			return err
		}
		s.log = s.node.Log()
	}
	c := assent.Config{
		Log: s.log, Resources: s.resources, Logger: logger, Observer: observer,
		Timeout: t.Transaction, PrepareTimeout: t.Prepare, FinishTimeout: t.Finish,
		FinishWait: t.FinishWait, ScanInterval: t.ScanInterval,
	}
	switch {
	case s.node != nil:
		s.amongOthers(&c)
	case s.cfg.shared():
		s.cfg.share(&c)
	}
	if s.manager, err = openWhenMember(ctx, c); err != nil {
		return err
	}
	s.server.Manage(s.manager)
	return nil
}

// openWhenMember opens the manager. A node that has lost its directory, or was excluded while it was away, is no member
// of its log until the others let it in, which the cluster asks for meanwhile: it tries again until then.
func openWhenMember(ctx context.Context, c assent.Config) (*assent.Manager, error) {
	const pause = 100 * time.Millisecond
	for {
		m, err := assent.Open(ctx, c)
		if !errors.Is(err, paxos.ErrNotMember) || ctx.Err() != nil {
			return m, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// tokens finds the secrets of the tokens.
func (p *program) tokens(cfg *config) ([]api.Token, error) {
	var tokens []api.Token
	for _, t := range cfg.Tokens {
		secret, from := p.getenv(t.Env), "the environment variable "+t.Env
		if t.File != "" {
			var err error
			if secret, err = readSecret(t.File); err != nil {
				return nil, fail("", "token %q: %v", t.Name, err)
			}
			from = t.File
		}
		if len(secret) < api.MinSecret {
			return nil, fail("make one with: openssl rand -hex 32",
				"token %q: the secret in %s has %d bytes; at least %d are needed", t.Name, from, len(secret), api.MinSecret)
		}
		tokens = append(tokens, api.Token{Name: t.Name, Secret: secret, Roles: t.Roles})
	}
	return tokens, nil
}

func diskStats(log *disk.Log) map[string]int64 {
	st := log.Stats()
	return map[string]int64{
		"decisions": int64(st.Decisions), "groups": int64(st.Groups), "syncs": int64(st.Syncs),
		"bytes": int64(st.Bytes), "failures": int64(st.Failures), "reopens": int64(st.Reopens),
	}
}

// close closes everything, the latest first, and waits for at most patience: what is unfinished
// then is finished by whoever opens the site next.
func (s *site) close(logger *slog.Logger, patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if s.server != nil {
		if err := s.server.Close(ctx); err != nil {
			logger.Warn("transactions were left open", "error", err)
		}
	}
	if s.manager != nil {
		if err := s.manager.Close(ctx); err != nil {
			logger.Warn("the manager was not closed in order", "error", err)
		}
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		for _, c := range slices.Backward(s.closers) {
			if err := c.close(); err != nil {
				logger.Warn("not closed in order", "what", c.what, "error", err)
			}
		}
	}()
	select {
	case <-closed:
	case <-time.After(patience):
		logger.Warn("left without closing everything; nothing that was decided is lost")
	}
}
