// Package cluster is a node of a cluster: the network between the nodes, who seems to be up, who should
// try first, and the decision log that all nodes share.
//
// The package promises that every node of a cluster settles what a dead node has left behind, from the
// same log, and that it says how the cluster stands in words that need no explanation. Nothing that it
// believes about others (who is up, who leads, who has begun a transaction) is ever needed for safety:
// that is the log's, and these beliefs only spare the living from being disturbed. It holds no
// transactions and no resources: package assent does.
package cluster
