package cluster

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"assent/decision"
	"assent/decision/paxos"
	"assent/protocol"
	"assent/protocol/commit"
	proposing "assent/protocol/paxos"
	"assent/resource"
)

// openLog opens the log that the nodes keep among themselves, if the state says that this node has a part in it,
// or gives the one that they share already a prefix for this life's ids, where it has none.
func (n *Node) openLog() error {
	if n.cfg.Log != nil {
		n.shareLog()
		return nil
	}
	epoch := epochOf(n.State().Registers)
	if epoch.Number == 0 || !slices.ContainsFunc(slices.Concat(epoch.Members, epoch.Next), func(m paxos.Member) bool { return m.Node == n.cfg.Self }) {
		return nil // tend opens it
	}
	l := n.life.Load()
	log, err := paxos.Open(paxos.Config{
		Owner: n.cfg.Name, Self: n.cfg.Self, Epoch: epoch, Network: n.mesh.Channel(logChannel),
		Dir: n.decisionsDir(), Storage: l.records.storage,
		Retention: n.cfg.Retention, RetainCount: n.cfg.RetainCount, Logger: n.cfg.Logger,
		Options: proposing.Options{RetryMost: mostPause},
	})
	if err == nil {
		if err = l.records.force([]protocol.Write{{Key: beganKey, Record: began{Decisions: true}}}); err != nil {
			err = errors.Join(err, log.Close())
		}
	}
	if err != nil {
		return fmt.Errorf("open this node's part of the decision log: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.log, n.own, n.prefix = log, log, log.Prefix()
	n.readyLocked()
	return nil
}

// beganKey is the key of the record that says what else the node keeps.
const beganKey = "cluster/began"

// began says what else the node keeps, so that it is missed when it is lost.
type began struct {
	// Decisions is its part of the log that the nodes keep among themselves.
	Decisions bool
}

// shareLog takes the log that the nodes share already.
func (n *Node) shareLog() {
	log := n.cfg.Log
	p, ok := log.(decision.Prefixer)
	if !ok {
		own := prefixed{log, rand.Text()[:20]} // 100 bits
		log, p = own, own
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.log, n.prefix = log, p.Prefix()
	n.readyLocked()
}

// readyLocked notes that the log is open, if it is, and that the members are known, if they are.
func (n *Node) readyLocked() {
	select {
	case <-n.opened:
	default:
		if n.log != nil && n.known {
			close(n.opened)
		}
	}
}

// register returns this node's part of the log that the nodes keep among themselves; nil where they keep none,
// or it is not open yet.
func (n *Node) register() *paxos.Log {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.own
}

// Log returns the log that all nodes share. Its ids' prefix is this node's and this life's alone. A node that joins
// has none until it is a member: wait for Ready.
func (n *Node) Log() decision.Log {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.log == nil {
		return late{n}
	}
	return n.log
}

// Ready returns when the log is open and the members are known: at once, but for a node that joins. It fails with
// ctx's error, or when the node is closed.
func (n *Node) Ready(ctx context.Context) error {
	select {
	case <-n.opened:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-n.quit:
		return errors.New("cluster: the node is being closed")
	}
}

// Joining reports whether this node is not Ready: it is to become a member, or to learn who the members are. It says
// what it waits for: "waits to be let in by a or b: no member of the cluster has answered yet".
func (n *Node) Joining() (what string, joining bool) {
	select {
	case <-n.opened:
		return "", false
	default:
	}
	what = "waits to be let in"
	if whom := n.cfg.seeds(); len(whom) > 0 {
		what += " by " + list(whom, "or")
	}
	if why := n.life.Load().machine.status().Why; why != "" {
		what += ": " + why
	}
	return what, true
}

// mostPause bounds the pauses of proposers that have reached too few: what could not be decided while the
// nodes were cut off from each other is decided soon after.
const mostPause = time.Second

// LogStats returns what this node's part of the log has done since Open, by name; nil where the nodes do not
// keep the log among themselves.
func (n *Node) LogStats() map[string]int64 {
	own := n.register()
	if own == nil {
		return nil
	}
	s := own.Stats()
	return map[string]int64{"forces": int64(s.Forces), "groups": int64(s.Groups), "syncs": int64(s.Syncs), "bytes": int64(s.Bytes)}
}

// describeLog says what keeps the log and how its parts are.
func (n *Node) describeLog(s *Status) {
	log := n.register()
	switch {
	case n.cfg.Log != nil:
		s.Log = "kept by " + cmp.Or(n.cfg.LogName, "something that the nodes share")
		return
	case log == nil:
		s.Log = "kept by the nodes; this node has no part in it yet"
		return
	}
	own := log.Status()
	s.Log = "kept by the nodes"
	if len(own.Members) > 0 { // this node first
		s.Log += fmt.Sprintf("; %d transactions unfinished and %d done here", own.Members[0].Unfinished, own.Members[0].Retained)
	}
	if own.Stopped != "" {
		s.Log = "kept by the nodes; this node's part does not vote: " + own.Stopped
	}
	for i := range s.Members {
		for _, m := range own.Members {
			if m.Node == s.Members[i].Node {
				s.Members[i].Log = m.Condition
				if m.Lag > 0 {
					s.Members[i].Log += fmt.Sprintf(", %d behind", m.Lag)
				}
			}
		}
	}
}

// prefixed is a log that has no prefix of its own, with one by which the nodes know whose a transaction
// is.
type prefixed struct {
	decision.Log
	prefix string
}

// Prefix returns the prefix.
func (p prefixed) Prefix() string { return p.prefix }

// late is the log of a node that joins: until it is a member nothing can be asked of it.
type late struct{ node *Node }

// open returns the log, or that there is none yet.
func (l late) open(op string) (decision.Log, error) {
	if log := l.node.Log(); log != decision.Log(l) {
		return log, nil
	}
	return nil, &resource.Error{Code: resource.Unavailable, Op: op, Detail: "this node has not joined its cluster yet", Hint: "ask another node"}
}

// Prefix returns the log's prefix, "" until it is open.
func (l late) Prefix() string {
	l.node.mu.Lock()
	defer l.node.mu.Unlock()
	return l.node.prefix
}

// Owner returns the cluster's name.
func (l late) Owner() string { return l.node.cfg.Name }

// Decide is the log's.
func (l late) Decide(ctx context.Context, e decision.Entry) (decision.Entry, error) {
	log, err := l.open("decide")
	if err != nil {
		return decision.Entry{}, err
	}
	return log.Decide(ctx, e)
}

// Lookup is the log's.
func (l late) Lookup(ctx context.Context, id commit.TransactionID) (decision.Entry, error) {
	log, err := l.open("look up")
	if err != nil {
		return decision.Entry{}, err
	}
	return log.Lookup(ctx, id)
}

// Annotate is the log's.
func (l late) Annotate(ctx context.Context, id commit.TransactionID, note decision.Note) error {
	log, err := l.open("annotate")
	if err != nil {
		return err
	}
	return log.Annotate(ctx, id, note)
}

// List is the log's.
func (l late) List(ctx context.Context, status decision.Status) iter.Seq2[decision.Entry, error] {
	log, err := l.open("list")
	if err != nil {
		return func(yield func(decision.Entry, error) bool) { yield(decision.Entry{}, err) }
	}
	return log.List(ctx, status)
}

// Forget is the log's.
func (l late) Forget(ctx context.Context, id commit.TransactionID) error {
	log, err := l.open("forget")
	if err != nil {
		return err
	}
	return log.Forget(ctx, id)
}
