// Package transport carries messages between the nodes of a cluster: one long-lived stream each way
// between two nodes, over TCP, with mutual TLS wherever the way leaves the machine.
//
// The package promises that a message that arrives is one that the named node of the same cluster
// sent, whole and unchanged; that messages of one node on one connection arrive in the order in which
// they were sent; that Send never waits, whatever the receivers do; that everything is bounded; and
// that a peer that has gone without a word is noticed. It does not promise that a message arrives:
// one that is sent while the peer is away, or when its queue is full, or shortly before a connection
// breaks, is lost, and some of those before a break may have arrived. It knows nothing of protocols.
package transport
