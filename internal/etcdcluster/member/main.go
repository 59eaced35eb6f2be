// Command member is one member of a private etcd cluster. Tests build it without the race detector, whose business
// etcd is not.
package main

import "assent/internal/etcdcluster"

func main() { etcdcluster.Main() }
