package main

import (
	"cmp"
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

// clusterConfig says which cluster a server is a node of: one that Nodes found, or one that is there already,
// of which Join names some members, by their addresses. Address, API and Votes are what a node that joins would
// have itself be.
type clusterConfig struct {
	Name           string                 `yaml:"name"`
	Node           string                 `yaml:"node"`
	Listen         string                 `yaml:"listen"`
	Nodes          map[string]*nodeConfig `yaml:"nodes"`
	Join           map[string]string      `yaml:"join"`
	Address        string                 `yaml:"address"`
	API            string                 `yaml:"api"`
	Votes          int                    `yaml:"votes"`
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
	cluster, node, nodes, join, address string
}

func (m *memberFlags) declare(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&m.node, "node", "", "be the node of this `name` in the cluster of --nodes, or of the configuration")
	f.StringVar(&m.nodes, "nodes", "", "the cluster's nodes, `NAME=HOST:PORT,…`, the same at all of them")
	f.StringVar(&m.join, "join", "", "join the cluster of which these are members, `NAME=HOST:PORT,…`; some will do")
	f.StringVar(&m.address, "address", "", "with --join: where the other nodes reach this one, `HOST:PORT`")
	f.StringVar(&m.cluster, "cluster", "", "the cluster's `name`, the same at all of its nodes (default assent)")
}

// apply changes the configuration as the flags say.
func (m *memberFlags) apply(c *config) error {
	if *m == (memberFlags{}) {
		return nil
	}
	if c.Cluster == nil {
		if m.node == "" || m.nodes == "" && m.join == "" {
			return misuse("for instance: --node a --nodes a=127.0.0.1:7421,b=127.0.0.1:7422,c=127.0.0.1:7423",
				"a node of a cluster needs --node, and --nodes or --join, or a cluster section in the configuration")
		}
		c.Cluster = &clusterConfig{Name: "assent"}
	}
	k := c.Cluster
	k.Name, k.Node, k.Address = cmp.Or(m.cluster, k.Name), cmp.Or(m.node, k.Node), cmp.Or(m.address, k.Address)
	switch {
	case m.nodes != "" && m.join != "":
		return misuse("--nodes names those that found a cluster, --join members of one that is there", "--nodes and --join are both given")
	case m.nodes != "":
		pairs, err := readPairs("--nodes", m.nodes)
		if err != nil {
			return err
		}
		k.Nodes, k.Join = map[string]*nodeConfig{}, nil
		for name, address := range pairs {
			k.Nodes[name] = &nodeConfig{Address: address}
		}
	case m.join != "":
		pairs, err := readPairs("--join", m.join)
		if err != nil {
			return err
		}
		k.Nodes, k.Join = nil, pairs
	}
	named := c.name
	c.name = "" // the mistake may be in the flags, which have no lines
	defer func() { c.name = named }()
	return c.validateCluster()
}

// readPairs reads NAME=HOST:PORT,….
func readPairs(flag, text string) (map[string]string, error) {
	pairs := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		name, address, _ := strings.Cut(strings.TrimSpace(part), "=")
		if _, twice := pairs[name]; twice {
			return nil, misuse("each node has a name of its own", "%s names the node %q twice", flag, name)
		}
		pairs[name] = address
	}
	return pairs, nil
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
	if err := c.validateMembers(); err != nil {
		return err
	}
	if k.TLS != nil && (k.TLS.CertFile == "" || k.TLS.KeyFile == "" || k.TLS.CAFile == "") {
		return c.wrong("cluster.tls needs cert_file, key_file and ca_file", "assent certs makes them", "cluster", "tls")
	}
	if k.SuspectAfter != 0 && (k.SuspectAfter < leastSuspicion || k.SuspectAfter > mostSuspicion) {
		return c.wrong(fmt.Sprintf("cluster.suspect_after is %v", k.SuspectAfter), fmt.Sprintf("give %v to %v", leastSuspicion, mostSuspicion), "cluster", "suspect_after")
	}
	return c.validateKept()
}

// validateMembers checks who is in the cluster: those that found it, or those that are asked to let this node
// join.
func (c *config) validateMembers() error {
	k := c.Cluster
	switch {
	case len(k.Join) > 0 && len(k.Nodes) > 0:
		return c.wrong("cluster.join and cluster.nodes are both given", "nodes are those that found a cluster; join names members of one that is there", "cluster", "join")
	case len(k.Join) > 0:
		return c.validateJoin()
	case k.Address != "" || k.API != "" || k.Votes != 0:
		return c.wrong("cluster.address, api and votes are of a node that joins, and cluster.join is missing", "among cluster.nodes each node has its own", "cluster")
	case k.Nodes[k.Node] == nil:
		return c.wrong(fmt.Sprintf("cluster.node is %q, which is not among cluster.nodes", k.Node),
			"they are "+strings.Join(slices.Sorted(maps.Keys(k.Nodes)), ", ")+"; a node that joins them later has join in place of nodes", "cluster", "node")
	}
	for name, n := range k.Nodes {
		if n == nil {
			n = &nodeConfig{}
		}
		if err := c.validateAddress(name, n.Address, "cluster", "nodes", name, "address"); err != nil {
			return err
		}
		if n.Votes < 0 {
			return c.wrong(fmt.Sprintf("node %q has %d votes", name, n.Votes), "leave votes out for 1", "cluster", "nodes", name, "votes")
		}
	}
	return nil
}

func (c *config) validateJoin() error {
	k := c.Cluster
	for name, address := range k.Join {
		if err := c.validateAddress(name, address, "cluster", "join", name); err != nil {
			return err
		}
		if name == k.Node || address == k.Address {
			return c.wrong(fmt.Sprintf("node %q at %s is to join the cluster by asking itself", k.Node, address), "name other nodes that are members", "cluster", "join", name)
		}
	}
	if k.Votes < 0 {
		return c.wrong(fmt.Sprintf("cluster.votes is %d", k.Votes), "leave votes out for 1", "cluster", "votes")
	}
	if k.Address == "" {
		return c.wrong(fmt.Sprintf("node %q does not say where the other nodes reach it", k.Node), "give cluster.address, or --address: host:port", "cluster", "join")
	}
	return c.validateAddress(k.Node, k.Address, "cluster", "address")
}

// validateAddress checks a node's name and address, which stands at the given path.
func (c *config) validateAddress(name, address string, path ...string) error {
	if err := transport.CheckName(name); err != nil {
		return c.wrong(fmt.Sprintf("cluster.%s: the name of a node: %v", path[1], err), "", path...)
	}
	if address == "" {
		return c.wrong(fmt.Sprintf("node %q has no address", name), "write host:port, where the other nodes reach it", path...)
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return c.wrong(fmt.Sprintf("the address of node %q: %v", name, err), "write host:port", path...)
	}
	return nil
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
