//go:build !peers

package bench

// peerKinds returns the systems that others make, of which this build has none: they would make it
// three times as large.
func peerKinds() []deciderKind { return nil }

const (
	peersLong = `
Built with the tag peers it also measures etcd and hashicorp/raft, three members each.
`
	peersAdvice = "\netcd and hashicorp/raft are compared by: go run -tags peers ./cmd/assent bench decide\n"
	peersHint   = "; etcd and hashicorp/raft need a build with -tags peers"
)
