package main

import (
	"maps"
	"slices"
	"strings"

	"assent/protocol"
	"assent/sim"
	simcluster "assent/sim/cluster"
)

// cluster makes the simulated cluster that the flags, or a configuration of assent serve, describe.
func (p parameters) cluster() (sim.Subject, error) {
	c := &simcluster.Cluster{Log: p.log}
	switch {
	case p.config != "" && (p.nodes != 0 || len(p.weights) > 0 || p.log != ""):
		return nil, misuse("leave the others out", "--config says what --nodes, --weights and --log say")
	case p.config != "":
		if err := configured(c, p.config); err != nil {
			return nil, err
		}
	default:
		n := p.size(0, 3)
		if len(p.weights) > 0 && p.nodes == 0 {
			n = len(p.weights)
		}
		if len(p.weights) > 0 && len(p.weights) != n {
			return nil, misuse("give one to each", "--weights has %d numbers, and there are %d nodes", len(p.weights), n)
		}
		if n > 9 {
			return nil, misuse("see --nodes", "a simulated cluster of %d nodes; 1 to 9 are allowed", n)
		}
		for i := range n {
			m := simcluster.Member{Node: protocol.NodeID("abcdefghi"[i : i+1]), Votes: 1}
			if len(p.weights) > 0 {
				m.Votes = p.weights[i]
			}
			if m.Votes < 1 {
				return nil, misuse("each has 1 or more", "--weights gives node %s %d votes", m.Node, m.Votes)
			}
			c.Members = append(c.Members, m)
		}
	}
	if err := c.Validate(); err != nil {
		return nil, misuse("see --nodes, --weights, --log and --config", "%s", strings.TrimPrefix(err.Error(), sim.ErrSystem.Error()+": "))
	}
	return c, nil
}

// configured takes the cluster's names, votes and log from a configuration file.
func configured(c *simcluster.Cluster, file string) error {
	cfg, err := readConfig(file)
	if err != nil {
		return err
	}
	if cfg.Cluster == nil {
		return fail("docs/cluster.md shows one", "%s has no cluster section", file)
	}
	if len(cfg.Cluster.Nodes) == 0 {
		return fail("name a file of a founder, whose cluster section has nodes", "%s does not name the cluster's nodes", file)
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Cluster.Nodes)) {
		c.Members = append(c.Members, simcluster.Member{Node: protocol.NodeID(name), Votes: cfg.Cluster.Nodes[name].Votes})
	}
	if c.Log = cfg.backend(); c.Log != simcluster.Paxos && c.Log != simcluster.Disk {
		return fail("say --nodes, --weights and --log instead", "the log of %s is %s; the simulator knows %s and %s",
			file, c.Log, simcluster.Paxos, simcluster.Disk)
	}
	return nil
}
