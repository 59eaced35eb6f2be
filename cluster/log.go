package cluster

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"time"

	"assent/decision"
	"assent/decision/paxos"
	proposing "assent/protocol/paxos"
)

// openLog opens the log that the nodes keep among themselves, or gives the one that they share already a
// prefix for this life's ids, where it has none.
func (n *Node) openLog() error {
	if n.cfg.Log == nil {
		log, err := paxos.Open(paxos.Config{
			Owner: n.cfg.Name, Self: n.cfg.Self, Epoch: n.cfg.epoch(), Network: n.mesh.Channel(logChannel), Dir: n.cfg.Dir,
			Retention: n.cfg.Retention, RetainCount: n.cfg.RetainCount, Logger: n.cfg.Logger,
			Options: proposing.Options{RetryMost: mostPause},
		})
		if err != nil {
			return fmt.Errorf("open this node's part of the decision log: %w", err)
		}
		n.log, n.own, n.prefix = log, log, log.Prefix()
		return nil
	}
	n.log = n.cfg.Log
	if p, ok := n.log.(decision.Prefixer); ok {
		n.prefix = p.Prefix()
		return nil
	}
	n.prefix = rand.Text()[:20] // 100 bits
	n.log = prefixed{n.cfg.Log, n.prefix}
	return nil
}

// epoch returns the founders: all members, in places by their names.
func (c *Config) epoch() paxos.Epoch {
	e := paxos.Founders(c.nodes()...)
	for i := range e.Members {
		e.Members[i].Votes = c.Members[e.Members[i].Node].Votes
	}
	return e
}

// mostPause bounds the pauses of proposers that have reached too few: what could not be decided while the
// nodes were cut off from each other is decided soon after.
const mostPause = time.Second

// LogStats returns what this node's part of the log has done since Open, by name; nil where the nodes do not
// keep the log among themselves.
func (n *Node) LogStats() map[string]int64 {
	if n.own == nil {
		return nil
	}
	s := n.own.Stats()
	return map[string]int64{"forces": int64(s.Forces), "groups": int64(s.Groups), "syncs": int64(s.Syncs), "bytes": int64(s.Bytes)}
}

// describeLog says what keeps the log and how its parts are.
func (n *Node) describeLog(s *Status) {
	if n.own == nil {
		s.Log = "kept by " + cmp.Or(n.cfg.LogName, "something that the nodes share")
		return
	}
	own := n.own.Status()
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
