package cluster

import (
	"crypto/rand"

	"assent/decision"
)

// openLog gives the log that the nodes share a prefix for this life's ids, where it has none.
func (n *Node) openLog() {
	n.log = n.cfg.Log
	if p, ok := n.log.(decision.Prefixer); ok {
		n.prefix = p.Prefix()
		return
	}
	n.prefix = rand.Text()[:20] // 100 bits
	n.log = prefixed{n.cfg.Log, n.prefix}
}

// prefixed is a log that has no prefix of its own, with one by which the nodes know whose a transaction
// is.
type prefixed struct {
	decision.Log
	prefix string
}

// Prefix returns the prefix.
func (p prefixed) Prefix() string { return p.prefix }
