package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	assentv1 "assent/api/assent/v1"
	"assent/resource"
)

const defaultServer = "http://" + defaultListen

// target is where a command works: at a server, or on the data directory itself.
type target struct {
	p         *program
	server    string
	tokenFile string
	caFile    string
	certFile  string
	keyFile   string
	config    string
	dataDir   string
	resources []string
	timeout   time.Duration
}

// flags declares the flags that say where to work.
func (t *target) flags(cmd *cobra.Command) {
	t.callFlags(cmd)
	f := cmd.Flags()
	f.StringVarP(&t.config, "config", "c", "", "work without a server, on what this configuration `file` names")
	f.StringVar(&t.dataDir, "data-dir", "", "work without a server, on this data `directory`")
}

// callFlags declares the flags of commands that work at servers alone.
func (t *target) callFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.server, "server", "", "work at the server with this `URL`, or at one of several, separated by commas\n(default $ASSENT_SERVER, or "+defaultServer+")")
	f.StringVar(&t.tokenFile, "token-file", "", "send the token in this `file` (default: the token in $ASSENT_TOKEN)")
	f.StringVar(&t.caFile, "ca-file", "", "trust the certificate authority in this `file`")
	f.StringVar(&t.certFile, "cert-file", "", "show the server the certificate in this `file`")
	f.StringVar(&t.keyFile, "key-file", "", "whose key is in this `file`")
	t.timeout = time.Minute
	f.Var((*patience)(&t.timeout), "timeout", "give up after this `time`")
}

// patience is a flag whose value is a time to wait: some time, since no command can do its work in none.
type patience time.Duration

// String returns the time as it is written.
func (p *patience) String() string { return time.Duration(*p).String() }

// Type names the value in the help.
func (p *patience) Type() string { return "duration" }

// Set reads a time.
func (p *patience) Set(value string) error {
	d, err := time.ParseDuration(value)
	if err != nil || d <= 0 {
		return errors.New("write a time above zero, with its unit: 30s, say, or 2m")
	}
	*p = patience(d)
	return nil
}

// offline reports whether to work without a server.
func (t *target) offline() bool {
	return t.config != "" || t.dataDir != "" || len(t.resources) > 0
}

// load returns the configuration for work without a server.
func (t *target) load() (*config, error) {
	if t.server != "" {
		return nil, misuse("leave out --server, or -c, --data-dir and --resource", "--server says to work at a server, and another flag to work without one")
	}
	cfg := defaultConfig()
	if t.config != "" {
		var err error
		if cfg, err = readConfig(t.config); err != nil {
			return nil, err
		}
	}
	if t.dataDir != "" {
		cfg.DataDir = t.dataDir
	}
	return cfg, addResources(cfg, t.resources)
}

// addResources adds resources of the form NAME=postgres://… or NAME=kv:PATH.
func addResources(cfg *config, given []string) error {
	for _, g := range given {
		name, source, ok := strings.Cut(g, "=")
		r := &resourceConfig{Type: "postgres", DSN: source}
		if path, isKV := strings.CutPrefix(source, "kv:"); isKV {
			r = &resourceConfig{Type: "kv", Path: path}
		}
		if !ok || source == "" || resource.CheckName(name) != nil { // which may be a connection string
			return misuse("write it as NAME=postgres://user@host/database or NAME=kv:PATH; letters, digits, '.', '_' and '-' make a NAME",
				"--resource: it does not begin with a name, or has no source")
		}
		if cfg.Resources[name] != nil {
			return misuse("", "--resource: there are two resources %q", name)
		}
		if cfg.Resources == nil {
			cfg.Resources = map[string]*resourceConfig{}
		}
		if err := (&config{}).validateResource(name, r); err != nil {
			return err
		}
		cfg.Resources[name] = r
	}
	return nil
}

// remote is a connection to a server.
type remote struct {
	address      string
	transactions assentv1.TransactionServiceClient
	operator     assentv1.OperatorServiceClient
}

// dial makes clients of the server, or of several, of which one is asked. Nothing is sent yet.
func (t *target) dial() (*remote, error) {
	addresses := t.server
	if addresses == "" {
		addresses = t.p.getenv("ASSENT_SERVER")
	}
	if addresses == "" {
		addresses = defaultServer
	}
	var servers []*url.URL
	for address := range strings.SplitSeq(addresses, ",") {
		u, err := parseServer(strings.TrimSpace(address))
		if err != nil {
			return nil, err
		}
		servers = append(servers, u)
	}
	transport, err := t.transport()
	if err != nil {
		return nil, err
	}
	token := t.p.getenv("ASSENT_TOKEN")
	if t.tokenFile != "" {
		if token, err = readSecret(t.tokenFile); err != nil {
			return nil, err
		}
	}
	client := &http.Client{Transport: &failover{servers: servers, next: transport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	bearer := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			if token != "" {
				req.Header().Set("Authorization", "Bearer "+token)
			}
			response, err := next(ctx, req)
			return response, unreachable(hosts(servers), err)
		}
	})
	options := []connect.ClientOption{connect.WithInterceptors(bearer), connect.WithReadMaxBytes(64 << 20)}
	return &remote{
		address:      servers[0].String(),
		transactions: assentv1.NewTransactionServiceClient(client, servers[0].String(), options...),
		operator:     assentv1.NewOperatorServiceClient(client, servers[0].String(), options...),
	}, nil
}

// parseServer reads the URL of a server.
func parseServer(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, misuse("write it as "+defaultServer+"; several are separated by commas", "the address of the server is not a URL of http or https")
	}
	if u.User != nil {
		return nil, misuse("use --token-file or $ASSENT_TOKEN", "the address of the server holds a password")
	}
	return u, nil
}

// hosts names the servers, for errors.
func hosts(servers []*url.URL) string {
	var names []string
	for _, u := range servers {
		names = append(names, u.Host)
	}
	return strings.Join(names, ", ")
}

func (t *target) transport() (*http.Transport, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.caFile != "" {
		pem, err := os.ReadFile(t.caFile)
		if err != nil {
			return nil, fail("", "--ca-file: %v", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fail("", "--ca-file: %s holds no certificate in PEM form", t.caFile)
		}
	}
	if t.certFile != "" || t.keyFile != "" {
		cert, err := tls.LoadX509KeyPair(t.certFile, t.keyFile)
		if err != nil {
			return nil, fail("give --cert-file and --key-file together", "cannot load the certificate: %v", err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	transport.TLSClientConfig = config
	return transport, nil
}

// operator returns who answers an operator: the server or, offline, this process, which opens
// the site for it and, with it, finishes what is unfinished. Close it after.
func (t *target) operator(ctx context.Context) (assentv1.OperatorServiceHandler, func(), error) {
	if !t.offline() {
		r, err := t.dial()
		if err != nil {
			return nil, nil, err
		}
		return r.operator, func() {}, nil
	}
	s, err := t.open(ctx, false)
	if err != nil {
		return nil, nil, err
	}
	return s.server, func() { s.close(quiet(), t.timeout) }, nil
}

// open opens the site for work without a server.
func (t *target) open(ctx context.Context, create bool) (*site, error) {
	cfg, err := t.load()
	if err != nil {
		return nil, err
	}
	return t.p.openSite(ctx, cfg, quiet(), create)
}

// quiet is the logger of commands: their errors are returned, and their tables are all they say.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
