package cluster

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"time"

	"assent/decision"
	"assent/protocol"
	"assent/protocol/detector"
	"assent/protocol/election"
	"assent/protocol/membership"
	"assent/protocol/paxos"
	"assent/protocol/quorum"
	"assent/resource"
	"assent/transport"
)

// Config says what a node is part of. Name, Self, Dir and one of Members and Join are required.
type Config struct {
	// Name is the cluster's name, the same at all nodes. It is the owner of the log, and thereby part of
	// the names of prepared branches: no two clusters that reach the same database may share it.
	Name string
	// Self is this node: one of Members, or one that joins.
	Self protocol.NodeID
	// Members are the nodes that found the cluster, the same at all of them. They matter at the first start.
	Members map[protocol.NodeID]Member
	// Join are addresses, as host:port, of nodes of a cluster that is there already: of some of its members.
	// A node with an empty Dir asks them to let it join. It may be given together with Members.
	Join map[protocol.NodeID]string
	// As is what this node is to be as a member where it is not among Members. Its Address, where the others
	// reach it, defaults to Config.Address.
	As Member

	// Listener is where the other nodes come in. Defaults to one on Address, which defaults to this
	// node's address in Members.
	Listener net.Listener
	Address  string
	// TLS and AllowPlaintext are those of transport.Config.
	TLS            *tls.Config
	AllowPlaintext bool
	// Software is the version of this program, for the others to see.
	Software string

	// Log is a decision log that all nodes share already: an etcd's or a database's. It is not closed.
	// Where there is none, the nodes keep one among themselves, by Paxos.
	Log decision.Log
	// LogName says in words what keeps Log, for the status.
	LogName string
	// Dir is where this node keeps its part of what the cluster agrees on: of its members, and of the log,
	// where the nodes keep one among themselves. It must not be another node's, nor a copy of it. A node
	// whose Dir is lost joins anew, under its name.
	Dir string
	// Retention and RetainCount are those of decision/paxos.
	Retention   time.Duration
	RetainCount int

	// Detector are the failure detector's times. Default to a heartbeat every 200 ms, suspicion after
	// some 0.8 s of silence in a steady network, and later in an unsteady one, but never after more
	// than 3 s.
	Detector detector.Options
	// Election are the election's times. Default to 300 ms for an answer, and a leader that says so
	// every second.
	Election election.Options
	// Deference is for how long nodes that do not lead leave the transactions of a dead node to the
	// leader. Defaults to 1 s.
	Deference time.Duration
	// Benefit is for how long a transaction that nobody is known to have begun is taken for that of a
	// live node that has not been heard of yet. Defaults to 1 s.
	Benefit time.Duration

	// Logger hears of nodes that come and go. Defaults to slog.Default().
	Logger *slog.Logger
}

// Member is a node of the cluster, as the configuration has it.
type Member struct {
	// Address is where the other nodes reach it, as host:port.
	Address string
	// API is the URL at which clients reach it. It may be empty.
	API string
	// Votes is its weight in the log's quorums. Defaults to 1.
	Votes int
}

func (c *Config) setDefaults() {
	if c.Detector == (detector.Options{}) {
		c.Detector = detector.Options{Tick: 100 * time.Millisecond, Beat: 2, Timeout: 12, Phi: 60, Most: 30}
	}
	if c.Election == (election.Options{}) {
		c.Election = election.Options{Answer: 300 * time.Millisecond, Again: time.Second}
	}
	c.Deference = cmp.Or(c.Deference, time.Second)
	c.Benefit = cmp.Or(c.Benefit, time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	members := maps.Clone(c.Members)
	for node, m := range members {
		m.Votes = cmp.Or(m.Votes, 1)
		members[node] = m
	}
	c.Members = members
	if c.Detector.Tick <= 0 {
		c.Detector.Tick = 100 * time.Millisecond // the detector's own default
	}
	c.Address = cmp.Or(c.Address, c.own().Address)
}

func (c *Config) validate() error {
	if err := transport.CheckName(c.Name); err != nil {
		return fmt.Errorf("cluster: the cluster's name: %w", err)
	}
	if len(c.Name) > resource.MaxOwner {
		return fmt.Errorf("cluster: the cluster's name %q has %d bytes; at most %d are allowed", c.Name, len(c.Name), resource.MaxOwner)
	}
	if err := transport.CheckName(string(c.Self)); err != nil {
		return fmt.Errorf("cluster: this node's name: %w", err)
	}
	_, founder := c.Members[c.Self]
	switch _, _, err := net.SplitHostPort(c.own().Address); {
	case founder || err == nil:
	case len(c.Join) == 0:
		return fmt.Errorf("cluster: %w", c.stranger())
	default:
		return fmt.Errorf("cluster: the address at which the others reach node %s: %w", c.Self, err)
	}
	for node, m := range c.Members {
		if err := transport.CheckName(string(node)); err != nil {
			return fmt.Errorf("cluster: the name of a node: %w", err)
		}
		if _, _, err := net.SplitHostPort(m.Address); err != nil {
			return fmt.Errorf("cluster: the address of node %s: %w", node, err)
		}
		if m.Votes < 0 || m.Votes > quorum.MaxVotes {
			return fmt.Errorf("cluster: node %s has %d votes; at most %d are allowed, and not fewer than none", node, m.Votes, quorum.MaxVotes)
		}
	}
	if c.Dir == "" {
		return errors.New("cluster: Config.Dir is missing, where this node keeps its part of what the cluster agrees on")
	}
	if len(c.Members) == 0 {
		return nil
	}
	if _, err := membership.Found(c.Name, c.founders()...); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return nil
}

// ErrStranger says that a node is neither a founder, nor told whom to ask to let it join.
var ErrStranger = errors.New("the node belongs to no cluster")

func (c *Config) stranger() error {
	return fmt.Errorf("%w: node %q is not among the members, which are %s, and is not told whom to ask to let it join", ErrStranger, c.Self, words(c.nodes()))
}

// own returns what this node is to be as a member.
func (c *Config) own() Member {
	if m, ok := c.Members[c.Self]; ok {
		return m
	}
	m := c.As
	m.Votes = cmp.Or(m.Votes, 1)
	m.Address = cmp.Or(m.Address, c.Address)
	return m
}

// asked returns the addresses of the nodes that this one may ask to let it join.
func (c *Config) asked() map[protocol.NodeID]string {
	all := maps.Clone(c.Join)
	if len(all) == 0 {
		all = map[protocol.NodeID]string{}
		for node, m := range c.Members {
			all[node] = m.Address
		}
	}
	delete(all, c.Self)
	return all
}

// seeds returns the names of those nodes.
func (c *Config) seeds() []protocol.NodeID { return slices.Sorted(maps.Keys(c.asked())) }

// patience is for how long a change waits for its answer.
const patience = 10 * time.Second

// options returns the times of the membership's machine.
func (c *Config) options() membership.Options {
	return membership.Options{Detector: c.Detector, Election: c.Election, Patience: max(int(patience/c.Detector.Tick), 1),
		Log: paxos.LogOptions{Keep: keptEntries}}
}

// keptEntries is how many changes are kept beyond the state's snapshot, for members that have missed a few.
const keptEntries = 64

// nodes returns the members' names in their order, which is that of their ranks in elections.
func (c *Config) nodes() []protocol.NodeID { return slices.Sorted(maps.Keys(c.Members)) }

// founders returns the members as the cluster's state has them in the beginning.
func (c *Config) founders() []membership.Member {
	var all []membership.Member
	for _, node := range c.nodes() {
		m := c.Members[node]
		all = append(all, membership.Member{Node: node, Votes: m.Votes, Address: m.Address, API: m.API})
	}
	return all
}
