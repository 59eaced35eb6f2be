package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"assent"
	"assent/cluster"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/detector"
	"assent/resource"
	sites "assent/site"
)

// joinCluster makes this process a node of its cluster and opens the log.
func (p *program) joinCluster(cfg *config, logger *slog.Logger) (*site, error) {
	k := cfg.Cluster
	c := cluster.Config{
		Name: k.Name, Self: protocol.NodeID(k.Node), Address: k.Listen, Members: map[protocol.NodeID]cluster.Member{},
		AllowPlaintext: k.AllowPlaintext, Software: version(), Logger: logger,
		Dir: filepath.Join(cfg.DataDir, "cluster"), Retention: cfg.Log.Retention, RetainCount: cfg.Log.RetainCount,
	}
	for name, n := range k.Nodes {
		c.Members[protocol.NodeID(name)] = cluster.Member{Address: n.Address, API: n.API, Votes: n.Votes}
	}
	if len(k.Join) > 0 {
		c.As, c.Join = cluster.Member{Address: k.Address, API: k.API, Votes: k.Votes}, map[protocol.NodeID]string{}
		for name, address := range k.Join {
			c.Join[protocol.NodeID(name)] = address
		}
	}
	if k.SuspectAfter != 0 {
		c.Detector = detector.Options{Tick: k.SuspectAfter / 40, Beat: 2, Timeout: 40, Most: 120}
	}
	if k.TLS != nil {
		var err error
		if c.TLS, err = k.TLS.load(); err != nil {
			return nil, err
		}
	}
	s := &site{cfg: cfg, resources: map[string]resource.Resource{}}
	if cfg.backend() != backendPaxos {
		alone, err := p.openLog(cfg, logger, true)
		if err != nil {
			return nil, err
		}
		s, c.Log, c.LogName = alone, alone.log, "this node alone"
		if cfg.shared() {
			c.LogName = cfg.place()
		}
	}
	node, err := cluster.Open(c)
	if err != nil {
		s.close(logger, time.Second)
		return nil, &failure{exit: exitError, err: err, text: err.Error(), hint: resource.HintOf(err)}
	}
	s.node = node
	s.closers = append(s.closers, closer{"the cluster", node.Close})
	s.log = node.Log()
	if s.stats == nil {
		s.stats = node.LogStats
	}
	return s, nil
}

// Within a cluster, unless the configuration says otherwise.
const (
	// clusterScan is the pause between two scans: what a dead node leaves prepared is to be finished
	// within three seconds.
	clusterScan = 500 * time.Millisecond
	// clusterRetryMost is the greatest pause before something is tried again: what a cut has kept
	// from being finished is to be finished soon after it.
	clusterRetryMost = time.Second
	// clusterGrace is for how long a prepared branch of a live node is left alone.
	clusterGrace = time.Minute
)

// amongOthers changes the manager's configuration for one of several managers of one log.
func (s *site) amongOthers(c *assent.Config) {
	if c.ScanInterval == 0 {
		c.ScanInterval = clusterScan
	}
	c.RetryMost = clusterRetryMost
	if s.cfg.backend() == backendDisk {
		return // nobody else has this log
	}
	c.OrphanGrace, c.Elsewhere = clusterGrace, s.node.Elsewhere
	// A transaction is that of a node, or of an application that uses the log itself.
	c.Alive = func(id commit.TransactionID) bool { return s.register.Alive(id) || s.node.Alive(id) }
}

// load reads the certificates.
func (t *clusterTLSConfig) load() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fail("assent certs makes them", "cluster.tls: %v", err)
	}
	pem, err := os.ReadFile(t.CAFile)
	if err != nil {
		return nil, fail("assent certs makes it", "cluster.tls.ca_file: %v", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fail("", "cluster.tls.ca_file: %s holds no certificate in PEM form", t.CAFile)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool, ClientCAs: pool}, nil
}

// openSites opens this node's part in transactions among sites, and tells the others so. Who takes part in one, and who
// its acceptors are, is settled when it is to be committed, of the members that there are then.
func (s *site) openSites(ctx context.Context, logger *slog.Logger) error {
	t := s.cfg.Timeouts
	host, err := sites.Open(ctx, sites.Config{
		Self: s.node.Self(), Cluster: s.members, Network: s.node.Sites(), Dir: filepath.Join(s.cfg.DataDir, "sites"),
		Resources: s.resources,
		Timeout:   t.Transaction, BranchTimeout: t.Finish, ScanInterval: t.ScanInterval, Suspects: s.node.Suspected, Logger: logger,
	})
	if err != nil {
		return &failure{exit: exitError, err: err, text: err.Error(), hint: resource.HintOf(err)}
	}
	s.sites = host
	s.node.TellSites(host.Announcement)
	s.closers = append(s.closers, closer{"transactions among sites", host.Close})
	return nil
}

// members returns the cluster's members for transactions among sites.
func (s *site) members() sites.View {
	state := s.node.State()
	v := sites.View{Number: state.View.Number}
	for _, m := range state.Members {
		v.Members = append(v.Members, sites.Heard(m.Node, s.node.SitesOf(m.Node), m.Votes))
	}
	return v
}

// openRegistry has this node's resources compared with those of the others, in the background.
func (s *site) openRegistry(logger *slog.Logger) {
	s.registry = &registry{node: s.node, resources: s.resources, log: logger, barred: map[string]string{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.registry.keep(ctx)
	}()
	s.closers = append(s.closers, closer{"the registry of resources", func() error {
		cancel()
		<-done
		return nil
	}})
}
