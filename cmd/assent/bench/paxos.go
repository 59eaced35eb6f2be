package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"assent/decision/paxos"
	"assent/protocol"
	"assent/transport"
)

// openPaxos opens three members of a cluster for decisions alone: nobody finishes these transactions.
func openPaxos(ctx context.Context, dir string) (decider, error) {
	return openMembers(ctx, dir, 8_000_000)
}

// openMembers opens three members of a cluster on this machine, which speak over TCP. All callers are at
// the first. maxOpen is paxos.Config.MaxOpen.
func openMembers(ctx context.Context, dir string, maxOpen int) (_ *logDecider, err error) {
	names := []protocol.NodeID{"a", "b", "c"}
	listeners, addresses := map[protocol.NodeID]net.Listener{}, map[protocol.NodeID]string{}
	d := &logDecider{}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	for _, n := range names {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		d.closers = append(d.closers, func() error { _ = l.Close(); return nil }) // the mesh has closed it, mostly
		listeners[n], addresses[n] = l, l.Addr().String()
	}
	var all []*paxos.Log
	for _, n := range names {
		m, err := transport.Listen(transport.Config{Cluster: "bench", Self: n, Listener: listeners[n], Peers: addresses, Logger: silent()})
		if err != nil {
			return nil, err
		}
		d.closers = append(d.closers, m.Close)
		l, err := paxos.Open(paxos.Config{
			Owner: "bench", Self: n, Epoch: paxos.Founders(names...), Network: m.Channel(0), Dir: filepath.Join(dir, string(n)),
			MaxOpen: maxOpen, Logger: silent(),
		})
		if err != nil {
			return nil, err
		}
		d.closers = append(d.closers, l.Close)
		all = append(all, l)
	}
	d.Log = all[0]
	d.syncs = func() (n uint64) {
		for _, l := range all {
			n += l.Stats().Syncs
		}
		return n
	}
	return d, waitForVotes(ctx, all[0])
}

// waitForVotes returns when all members of the log's cluster vote.
func waitForVotes(ctx context.Context, l *paxos.Log) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		voting := 0
		st := l.Status()
		for _, m := range st.Members {
			if m.Condition == "votes" {
				voting++
			}
		}
		if voting == len(st.Members) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the members did not find each other: %s: %w", st.Quorum, context.Cause(ctx))
		}
	}
}
