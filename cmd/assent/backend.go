package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"assent"
	"assent/decision"
	"assent/decision/etcd"
	"assent/decision/postgres"
	"assent/resource"
)

// The backends that several servers may share, each with its own manager.
const (
	backendEtcd     = "etcd"
	backendPostgres = "postgres"
)

// shared reports whether the decision log is in something that runs already, and that other servers may use
// at the same time.
func (c *config) shared() bool { return c.backend() == backendEtcd || c.backend() == backendPostgres }

// etcdLogConfig says which etcd cluster keeps the log.
type etcdLogConfig struct {
	Endpoints    []string       `yaml:"endpoints"`
	Prefix       string         `yaml:"prefix"`
	Username     string         `yaml:"username"`
	PasswordEnv  string         `yaml:"password_env"`
	PasswordFile string         `yaml:"password_file"`
	TLS          *etcdTLSConfig `yaml:"tls"`
}

type etcdTLSConfig struct {
	CAFile   string `yaml:"ca_file"`
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// postgresLogConfig says which database keeps the log.
type postgresLogConfig struct {
	DSN          string `yaml:"dsn"`
	DSNEnv       string `yaml:"dsn_env"`
	DSNFile      string `yaml:"dsn_file"`
	Schema       string `yaml:"schema"`
	CreateSchema bool   `yaml:"create_schema"`
}

// paths returns where the files are that the section names.
func (l *logConfig) paths() (paths []*string) {
	if l.Etcd != nil {
		paths = append(paths, &l.Etcd.PasswordFile)
		if t := l.Etcd.TLS; t != nil {
			paths = append(paths, &t.CAFile, &t.CertFile, &t.KeyFile)
		}
	}
	if l.Postgres != nil {
		paths = append(paths, &l.Postgres.DSNFile)
	}
	return paths
}

// validateBackend checks what a shared backend needs, and that no other is described.
func (c *config) validateBackend() error {
	for name, given := range map[string]bool{backendEtcd: c.Log.Etcd != nil, backendPostgres: c.Log.Postgres != nil} {
		switch is := c.backend() == name; {
		case given && !is:
			return c.wrong(fmt.Sprintf("log.%s describes a log that is not used: log.backend is %s", name, c.backend()),
				"set log.backend to "+name+", or take the section out", "log", name)
		case is && !given:
			return c.wrong(fmt.Sprintf("log.backend is %s, and there is no section log.%s", name, name), "it says where the log is", "log", "backend")
		}
	}
	if c.Log.OrphanGrace != 0 && !c.shared() {
		return c.wrong("log.orphan_grace is for a log that servers share", "leave it out, or set log.backend to etcd or postgres", "log", "orphan_grace")
	}
	if !c.shared() {
		return nil
	}
	if err := c.validateSharing(); err != nil {
		return err
	}
	if c.backend() == backendPostgres {
		p := c.Log.Postgres
		if count(p.DSN, p.DSNEnv, p.DSNFile) != 1 {
			return c.wrong("log.postgres needs one of dsn, dsn_env and dsn_file", "dsn_env names an environment variable that holds the connection string", "log", "postgres")
		}
		return nil
	}
	return c.validateEtcd(c.Log.Etcd)
}

// validateSharing refuses stores that no other server can reach: one that shares the log would take their
// branches for those of a store of its own. Nodes of a cluster know whose a store is by its name.
func (c *config) validateSharing() error {
	if c.Cluster != nil {
		return nil
	}
	for name, r := range c.served() {
		if r.Type == "kv" {
			return c.wrong(fmt.Sprintf("resource %q is a store of this server alone, and other servers may share the log", name),
				"share a log among servers with the same databases; or give the server a cluster section, and the store its node's name", "resources", name)
		}
	}
	return nil
}

func (c *config) validateEtcd(e *etcdLogConfig) error {
	at := func(key string) []string { return []string{"log", "etcd", key} }
	if len(e.Endpoints) == 0 {
		return c.wrong("log.etcd has no endpoints", "list etcd's members: [https://10.0.0.1:2379, https://10.0.0.2:2379]", at("endpoints")...)
	}
	secure := 0
	for _, endpoint := range e.Endpoints {
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return c.wrong("an endpoint in log.etcd is not a URL of http or https", "write it as https://10.0.0.1:2379", at("endpoints")...)
		}
		if u.User != nil {
			return c.wrong("an endpoint in log.etcd holds a password", "use username, and password_env or password_file", at("endpoints")...)
		}
		if u.Scheme == "https" {
			secure++
		}
	}
	switch {
	case secure != 0 && secure != len(e.Endpoints):
		return c.wrong("some endpoints in log.etcd are https and some http", "", at("endpoints")...)
	case e.TLS != nil && secure == 0:
		return c.wrong("log.etcd has tls, and endpoints of http", "write the endpoints with https", at("tls")...)
	case e.TLS != nil && (e.TLS.CertFile == "") != (e.TLS.KeyFile == ""):
		return c.wrong("log.etcd.tls needs cert_file and key_file together", "", at("tls")...)
	case (e.Username == "") != (count(e.PasswordEnv, e.PasswordFile) == 0) || count(e.PasswordEnv, e.PasswordFile) > 1:
		return c.wrong("log.etcd needs username together with one of password_env and password_file", "", at("username")...)
	}
	return nil
}

// count returns how many of the texts are not empty.
func count(texts ...string) (n int) {
	for _, t := range texts {
		if t != "" {
			n++
		}
	}
	return n
}

// openShared opens a log that other servers may have open, too. Where create is false it must be there.
func (p *program) openShared(cfg *config, logger *slog.Logger, create bool) (*site, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s := &site{cfg: cfg, resources: map[string]resource.Resource{}}
	var err error
	var closeLog func() error
	if cfg.backend() == backendEtcd {
		var l *etcd.Log
		if l, err = p.openEtcd(ctx, cfg, logger, create); err == nil {
			s.log, closeLog, s.stats = l, l.Close, func() map[string]int64 { return etcdStats(l) }
		}
	} else {
		var l *postgres.Log
		if l, err = p.openPostgres(ctx, cfg, logger, create); err == nil {
			s.log, closeLog, s.stats = l, l.Close, func() map[string]int64 { return postgresStats(l) }
		}
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return nil, f
	}
	if err != nil {
		return nil, &failure{exit: exitError, err: err, text: fmt.Sprintf("cannot open the decision log in %s: %v", cfg.backend(), err), hint: resource.HintOf(err)}
	}
	s.closers = append(s.closers, closer{"the decision log", closeLog})
	return s, nil
}

func (p *program) openPostgres(ctx context.Context, cfg *config, logger *slog.Logger, create bool) (*postgres.Log, error) {
	c := cfg.Log.Postgres
	dsn, err := p.dsn("log", &resourceConfig{DSN: c.DSN, DSNEnv: c.DSNEnv, DSNFile: c.DSNFile})
	if err != nil {
		return nil, err
	}
	return postgres.Open(ctx, dsn, postgres.Config{
		Schema: c.Schema, CreateSchema: c.CreateSchema && create,
		Retention: cfg.Log.Retention, RetainCount: cfg.Log.RetainCount, Logger: logger,
	})
}

func (p *program) openEtcd(ctx context.Context, cfg *config, logger *slog.Logger, create bool) (*etcd.Log, error) {
	c := cfg.Log.Etcd
	client := clientv3.Config{Endpoints: c.Endpoints, Username: c.Username, Password: p.getenv(c.PasswordEnv)}
	var err error
	if c.PasswordFile != "" {
		if client.Password, err = readSecret(c.PasswordFile); err != nil {
			return nil, fail("", "log.etcd.password_file: %v", err)
		}
	}
	if c.Username != "" && client.Password == "" {
		return nil, fail("", "log.etcd: the password in %s is empty", c.PasswordEnv+c.PasswordFile)
	}
	if strings.HasPrefix(c.Endpoints[0], "https:") {
		if client.TLS, err = c.TLS.load(); err != nil {
			return nil, err
		}
	}
	return etcd.Open(ctx, etcd.Config{
		Client: client, Prefix: c.Prefix, Existing: !create,
		Retention: cfg.Log.Retention, RetainCount: cfg.Log.RetainCount, Logger: logger,
	})
}

// load reads the certificates; without any, the system's authorities are trusted.
func (t *etcdTLSConfig) load() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if t == nil {
		return config, nil
	}
	if t.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fail("", "log.etcd.tls: %v", err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fail("", "log.etcd.tls.ca_file: %v", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fail("", "log.etcd.tls.ca_file: %s holds no certificate in PEM form", t.CAFile)
		}
	}
	return config, nil
}

// Where servers share a log without being nodes of a cluster, unless the configuration says otherwise.
const (
	// sharedGrace is for how long another server's prepared branch is left alone: nobody can tell whether
	// that server lives.
	sharedGrace = 3 * time.Second
	// sharedScan is the pause between two scans, so that little comes on top of the grace.
	sharedScan = 500 * time.Millisecond
)

// share changes the manager's configuration for one of several servers that share a log.
func (c *config) share(m *assent.Config) {
	if m.ScanInterval == 0 {
		m.ScanInterval = sharedScan
	}
	if m.OrphanGrace = c.Log.OrphanGrace; m.OrphanGrace == 0 {
		m.OrphanGrace = sharedGrace
	}
}

// place says in words where the shared log is.
func (c *config) place() string {
	if c.backend() == backendEtcd {
		return "etcd at " + strings.Join(c.Log.Etcd.Endpoints, ", ")
	}
	return "a PostgreSQL database"
}

// examineLog opens the shared log, as a server would, and says what comes of it.
func (p *program) examineLog(cfg *config) assent.Diagnosis {
	d := assent.Diagnosis{Resource: "decision log"}
	s, err := p.openShared(cfg, quiet(), false)
	if err != nil {
		f, _ := errors.AsType[*failure](err)
		d.Findings = []resource.Finding{{Check: "opens", Severity: resource.Failure, Detail: f.text, Hint: f.hint}}
		return d
	}
	defer s.close(quiet(), time.Second)
	d.Findings = []resource.Finding{{Check: "opens", Severity: resource.OK, Detail: fmt.Sprintf("owner %s, in %s", s.log.Owner(), cfg.place())}}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	damaged := 0
	for _, err := range s.log.List(ctx, decision.Damaged) {
		if err != nil {
			d.Err = err.Error()
			return d
		}
		damaged++
	}
	found := resource.Finding{Check: "heuristic outcomes", Severity: resource.OK, Detail: fmt.Sprintf("%d are not resolved", damaged)}
	if damaged > 0 {
		found.Severity, found.Hint = resource.Warning, "assent list shows them; docs/operations.md says what to do"
	}
	d.Findings = append(d.Findings, found)
	return d
}

func etcdStats(l *etcd.Log) map[string]int64 {
	st := l.Stats()
	return map[string]int64{
		"decisions": int64(st.Decisions), "groups": int64(st.Groups), "requests": int64(st.Requests),
		"failures": int64(st.Failures), "retired": int64(st.Retired),
	}
}

func postgresStats(l *postgres.Log) map[string]int64 {
	st := l.Stats()
	return map[string]int64{
		"decisions": int64(st.Decisions), "groups": int64(st.Groups), "attempts": int64(st.Attempts),
		"failures": int64(st.Failures), "retired": int64(st.Retired),
	}
}
