// Package site runs transactions among sites: nodes that host resources. Each site has a participant
// of its own, with stable records of its own, and the machines of package commit speak to one another
// over a network. A transaction says by which protocol it is decided: two-phase commit, three-phase
// commit, three-phase commit by quorums, or Paxos Commit.
//
// The package promises what the protocol that was asked for promises, and no more: Protocol.Warning says
// what that is not. The machines are those that the simulator and the checker run; this package is
// their hands. It promises that no vote and no decision leaves a site before it is stable there, and
// that whatever was promised is taken up again when the site is opened again. It does not find sites,
// authenticate them or carry their messages: a Network does.
package site

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/engine"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/resource"
	"assent/trace"
)

// Protocol names the way in which a transaction among sites is decided.
type Protocol string

// The protocols.
const (
	// TwoPhase is two-phase commit with presumed abort and cooperative termination. It blocks while the
	// coordinating site is down and nobody else knows the decision.
	TwoPhase Protocol = "2pc"
	// ThreePhase is three-phase commit. It does not block when sites crash, and is not safe when the
	// network is cut or slow.
	ThreePhase Protocol = "3pc"
	// QuorumThreePhase is three-phase commit by quorums. It is safe however the network behaves, and
	// ends where a majority of the transaction's sites is connected.
	QuorumThreePhase Protocol = "q3pc"
	// PaxosCommit is Paxos Commit. It is safe however the network behaves, and ends while a majority of
	// the acceptors is up.
	PaxosCommit Protocol = "paxos"
)

// Protocols are all of them.
func Protocols() []Protocol {
	return []Protocol{TwoPhase, ThreePhase, QuorumThreePhase, PaxosCommit}
}

// Warning returns what whoever asks for the protocol should know before, or nothing.
func (p Protocol) Warning() string {
	switch p {
	case TwoPhase:
		return "two-phase commit blocks: while the coordinating site is down, sites that voted yes stay in doubt and keep their locks"
	case ThreePhase:
		return "three-phase commit is not safe when the network is cut or slow: some sites may commit and others abort"
	}
	return ""
}

// Check returns an error unless p is one of Protocols.
func (p Protocol) Check() error {
	if !slices.Contains(Protocols(), p) {
		return fmt.Errorf("protocol %q is not known; choose 2pc, 3pc, q3pc or paxos", string(p))
	}
	return nil
}

// Network carries payloads between nodes. It may lose, delay, repeat and reorder them.
type Network interface {
	// Send hands payload, which is not changed afterwards, to the node to. It never waits.
	Send(to protocol.NodeID, payload []byte)
	// Receive sets what is called with each payload that arrives, by one goroutine at a time for one
	// sender. It is called once, before anything is sent.
	Receive(func(from protocol.NodeID, payload []byte))
}

// Config says what a Host is. Self, Network, Dir and Cluster are required.
type Config struct {
	// Self is this node's name: letters, digits, dots, hyphens and underscores.
	Self protocol.NodeID
	// Cluster tells who is in the cluster now, as this node knows it. It is asked when a transaction is to be
	// committed, and what it says then counts for that transaction for good: other nodes may know another view, and
	// later ones change nothing. It is called concurrently, and must not wait.
	Cluster func() View
	Network Network
	// Dir is the directory of the stable records. One Host at a time has it open. Who has lost it does not
	// know any more what was promised: what is prepared then stays so, and is a person's to settle.
	Dir string
	// FS is the file system that holds Dir. Defaults to the operating system's.
	FS vfs.FS
	// Resources are what transactions may change here, by name.
	Resources map[string]resource.Resource

	// Timeout is how long a site waits to be asked for its vote; then it aborts. Defaults to 60 s. See AbandonAfter.
	Timeout time.Duration
	// VoteTimeout is how long a coordinator waits for votes. A participant takes a coordinator that is
	// silent for twice as long to be down. Defaults to 2 s.
	VoteTimeout time.Duration
	// Retry and RetryMost are the first and the greatest pause before something is tried again. Default
	// to 100 ms and 2 s.
	Retry, RetryMost time.Duration
	// ResendMost is the greatest pause before a coordinator tells its decision again to a site that has not reported. The
	// pauses grow to it as Retry grows to RetryMost. Sites in doubt ask by themselves, and do not wait for it. Defaults to
	// 30 s; it counts as RetryMost where it is less.
	ResendMost time.Duration
	// BranchTimeout bounds one call into a resource. Defaults to 10 s.
	BranchTimeout time.Duration
	// ScanInterval is the pause between two searches of a resource for what was prepared in this site's name and never
	// promised. Defaults to 15 s.
	ScanInterval time.Duration
	// Suspects reports whether another node seems to be down. It may be wrong. It is called concurrently, and must not
	// wait. Defaults to nobody.
	Suspects func(protocol.NodeID) bool
	// AbandonAfter is for how long the coordinator of work that was not asked for its vote must have seemed to be down, or
	// have been no member, before the work is given up and its locks are free. Defaults to 5 s.
	AbandonAfter time.Duration
	// KeepFor is how long what is finished is remembered at least, to answer those who ask late. It must be
	// longer than a message can be under way. What other sites may still depend on is kept until the
	// coordinator has heard from all. Defaults to 1 minute.
	KeepFor time.Duration
	// KeepResolved is how long a transaction about which an operator has said something (Host.Resolve) is remembered, and
	// for how long after its last step one that a site which is gone may still be in doubt about. Defaults to 7 days.
	KeepResolved time.Duration
	// MaxTransactions is how many transactions, finished ones included, a site takes part in at a time.
	// Defaults to 100,000.
	MaxTransactions int

	// Logger gets what an operator should know. Defaults to slog.Default().
	Logger *slog.Logger
	// Clock runs the machines' timers. Defaults to engine.SystemClock.
	Clock engine.Clock
	// Observer is told of every step of every machine. Defaults to none.
	Observer trace.Observer
}

func (c *Config) setDefaults() {
	for _, d := range [...]struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.Timeout, 60 * time.Second}, {&c.VoteTimeout, 2 * time.Second}, {&c.Retry, 100 * time.Millisecond},
		{&c.RetryMost, 2 * time.Second}, {&c.BranchTimeout, 10 * time.Second}, {&c.KeepFor, time.Minute},
		{&c.ScanInterval, 15 * time.Second}, {&c.AbandonAfter, 5 * time.Second}, {&c.ResendMost, 30 * time.Second},
		{&c.KeepResolved, 7 * 24 * time.Hour},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.MaxTransactions == 0 {
		c.MaxTransactions = 100_000
	}
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Clock == nil {
		c.Clock = engine.SystemClock{}
	}
}

func (c *Config) validate() error {
	if err := checkNode(c.Self); err != nil {
		return err
	}
	if c.Network == nil || c.Dir == "" || c.Cluster == nil {
		return errors.New("site: a network, a directory and a view of the cluster are required")
	}
	for name, r := range c.Resources {
		if err := resource.CheckName(name); err != nil {
			return fmt.Errorf("site: %w", err)
		}
		if r == nil {
			return fmt.Errorf("site: resource %q is nil", name)
		}
	}
	for name, d := range map[string]time.Duration{"Timeout": c.Timeout, "VoteTimeout": c.VoteTimeout, "Retry": c.Retry,
		"RetryMost": c.RetryMost, "BranchTimeout": c.BranchTimeout, "KeepFor": c.KeepFor, "ScanInterval": c.ScanInterval, "AbandonAfter": c.AbandonAfter,
		"ResendMost": c.ResendMost, "KeepResolved": c.KeepResolved} {
		if d < 0 || d > 30*24*time.Hour {
			return fmt.Errorf("site: %s is %v; it must be from 0 to 30 days", name, d)
		}
	}
	return nil
}

func checkNode(n protocol.NodeID) error {
	fits := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r)
	}
	if n == "" || len(n) > 64 || strings.IndexFunc(string(n), func(r rune) bool { return !fits(r) }) >= 0 {
		return fmt.Errorf("site: node name %q; use 1 to 64 letters, digits, dots, hyphens and underscores", n)
	}
	return nil
}

// options are the machines'.
func (c *Config) options() commit.Options {
	return commit.Options{Vote: c.VoteTimeout, Retry: c.Retry, RetryMost: c.RetryMost, Cooperative: true, NoOnePhase: true}
}

// telling are the options of those that tell a decision.
func (c *Config) telling() commit.Options {
	o := c.options()
	o.RetryMost = max(c.RetryMost, c.ResendMost)
	return o
}

// Result is how a transaction ended.
type Result struct {
	Decision commit.Decision `json:"decision"`
	// Cause says why, By who is the reason, for an abort.
	Cause  commit.Cause    `json:"cause"`
	By     protocol.NodeID `json:"by,omitempty"`
	Reason string          `json:"reason,omitempty"`
	// Finished says that every site has done as decided. Otherwise they are being driven to it.
	Finished bool `json:"finished"`
	// Heuristic lists the sites whose outcome contradicts the decision or is not known.
	Heuristic []commit.Contradicted `json:"heuristic,omitempty"`
}

// Errors.
var (
	// ErrInDoubt says that it is not known in time what was decided. The sites go on finding out.
	ErrInDoubt = errors.New("the outcome is not known yet")
	// ErrClosed says that the host was closed.
	ErrClosed = errors.New("the site is closed")
	// ErrOver says that the transaction is no longer open for work at this site.
	ErrOver = errors.New("the transaction is no longer open for work")
	// ErrAlone says that this node does not know enough of the cluster to commit anything among its sites, or is no
	// member of it. Another node may be asked.
	ErrAlone = errors.New("this node cannot commit anything among sites")
	// ErrLeaving says that the node is about to leave the cluster.
	ErrLeaving = errors.New("the node is about to leave the cluster")
	// ErrStopped says that the site's records cannot be written any more, because their disk is full or has failed. What
	// it takes part in stands still here, and it takes part in nothing more, until the node is started again.
	ErrStopped = errors.New("the site's records cannot be written; see to their disk and start the node again")
	// ErrUnfinished says that the node takes part in transactions that are not over.
	ErrUnfinished = errors.New("the node has transactions among sites that are not over")
)

// withTimeout is context.WithTimeout for calls into resources.
func (h *Host) withTimeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(h.life, h.cfg.BranchTimeout)
}
