package main

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"assent/transport"
)

// The backends of the decision log.
const (
	backendDisk  = "disk"
	backendPaxos = "paxos"
)

// clusterConfig says which cluster a server is a node of.
type clusterConfig struct {
	Name           string                 `yaml:"name"`
	Node           string                 `yaml:"node"`
	Listen         string                 `yaml:"listen"`
	Nodes          map[string]*nodeConfig `yaml:"nodes"`
	TLS            *clusterTLSConfig      `yaml:"tls"`
	AllowPlaintext bool                   `yaml:"allow_plaintext"`
	SuspectAfter   time.Duration          `yaml:"suspect_after"`
}

type nodeConfig struct {
	Address string `yaml:"address"`
	API     string `yaml:"api"`
	Votes   int    `yaml:"votes"`
}

type clusterTLSConfig struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	CAFile   string `yaml:"ca_file"`
}

// memberFlags make a server a node of a cluster from the command line.
type memberFlags struct {
	cluster, node, nodes string
}

func (m *memberFlags) declare(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&m.node, "node", "", "be the node of this `name` in the cluster of --nodes, or of the configuration")
	f.StringVar(&m.nodes, "nodes", "", "the cluster's nodes, `NAME=HOST:PORT,…`, the same at all of them")
	f.StringVar(&m.cluster, "cluster", "", "the cluster's `name`, the same at all of its nodes (default assent)")
}

// apply changes the configuration as the flags say.
func (m *memberFlags) apply(c *config) error {
	if *m == (memberFlags{}) {
		return nil
	}
	if c.Cluster == nil {
		if m.node == "" || m.nodes == "" {
			return misuse("for instance: --node a --nodes a=127.0.0.1:7421,b=127.0.0.1:7422,c=127.0.0.1:7423", "a node of a cluster needs --node and --nodes, or a cluster section in the configuration")
		}
		c.Cluster = &clusterConfig{Name: "assent"}
	}
	if m.cluster != "" {
		c.Cluster.Name = m.cluster
	}
	if m.node != "" {
		c.Cluster.Node = m.node
	}
	if m.nodes != "" {
		c.Cluster.Nodes = map[string]*nodeConfig{}
		for part := range strings.SplitSeq(m.nodes, ",") {
			name, address, _ := strings.Cut(strings.TrimSpace(part), "=")
			if c.Cluster.Nodes[name] != nil {
				return misuse("each node has a name of its own", "--nodes names the node %q twice", name)
			}
			c.Cluster.Nodes[name] = &nodeConfig{Address: address}
		}
	}
	named := c.name
	c.name = "" // the mistake may be in the flags, which have no lines
	defer func() { c.name = named }()
	return c.validateCluster()
}

// backend returns what keeps the decision log.
func (c *config) backend() string {
	switch {
	case c.Log.Backend != "":
		return c.Log.Backend
	case c.Cluster != nil:
		return backendPaxos
	}
	return backendDisk
}

// defaultResource names the store that there is where no resources are configured.
func (c *config) defaultResource() string {
	if c.Cluster != nil {
		return "kv-" + c.Cluster.Node
	}
	return "kv"
}

// validateCluster checks the log's backend and the cluster section.
func (c *config) validateCluster() error {
	backends := []string{backendDisk, backendPaxos, backendEtcd, backendPostgres}
	if !slices.Contains(backends, c.backend()) {
		return c.wrong(fmt.Sprintf("log.backend is %q", c.Log.Backend), "known are "+strings.Join(backends, ", "), "log", "backend")
	}
	k := c.Cluster
	if k == nil {
		if c.backend() == backendPaxos {
			return c.wrong("log.backend is paxos, and there is no cluster section", "it names the nodes that keep the log; docs/cluster.md", "log", "backend")
		}
		return nil
	}
	for key, name := range map[string]string{"name": k.Name, "node": k.Node} {
		if err := transport.CheckName(name); err != nil {
			return c.wrong(fmt.Sprintf("cluster.%s: %v", key, err), "", "cluster", key)
		}
	}
	if k.Nodes[k.Node] == nil {
		return c.wrong(fmt.Sprintf("cluster.node is %q, which is not among cluster.nodes", k.Node),
			"they are "+strings.Join(slices.Sorted(maps.Keys(k.Nodes)), ", "), "cluster", "node")
	}
	for name, n := range k.Nodes {
		if err := transport.CheckName(name); err != nil {
			return c.wrong(fmt.Sprintf("cluster.nodes: the name of a node: %v", err), "", "cluster", "nodes", name)
		}
		if n == nil || n.Address == "" {
			return c.wrong(fmt.Sprintf("node %q has no address", name), "write host:port, where the other nodes reach it", "cluster", "nodes", name)
		}
		if _, _, err := net.SplitHostPort(n.Address); err != nil {
			return c.wrong(fmt.Sprintf("the address of node %q: %v", name, err), "write host:port", "cluster", "nodes", name, "address")
		}
		if n.Votes < 0 {
			return c.wrong(fmt.Sprintf("node %q has %d votes", name, n.Votes), "leave votes out for 1", "cluster", "nodes", name, "votes")
		}
	}
	if k.TLS != nil && (k.TLS.CertFile == "" || k.TLS.KeyFile == "" || k.TLS.CAFile == "") {
		return c.wrong("cluster.tls needs cert_file, key_file and ca_file", "assent certs makes them", "cluster", "tls")
	}
	if k.SuspectAfter != 0 && (k.SuspectAfter < leastSuspicion || k.SuspectAfter > mostSuspicion) {
		return c.wrong(fmt.Sprintf("cluster.suspect_after is %v", k.SuspectAfter), fmt.Sprintf("give %v to %v", leastSuspicion, mostSuspicion), "cluster", "suspect_after")
	}
	return c.validateKept()
}

// The bounds of suspect_after: below, every pause of a process is taken for its end.
const (
	leastSuspicion = 500 * time.Millisecond
	mostSuspicion  = 10 * time.Minute
)

// validateKept checks the names of the resources that no other node can reach: each must say whose it is,
// or another node would take its branches for those of a store of its own.
func (c *config) validateKept() error {
	for name, r := range c.Resources {
		if r.Type == "kv" && !strings.HasSuffix(name, "-"+c.Cluster.Node) {
			return c.wrong(fmt.Sprintf("resource %q is a store of this node alone, and its name does not say so", name),
				fmt.Sprintf("name it %s-%s", name, c.Cluster.Node), "resources", name)
		}
	}
	return nil
}
