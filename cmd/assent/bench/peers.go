//go:build peers

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"assent/decision"
	decisionetcd "assent/decision/etcd"
	"assent/internal/etcdcluster"
)

// peerKinds returns the systems that others make, three members each in this process, with every sync
// on.
func peerKinds() []deciderKind {
	return []deciderKind{
		{"etcd", "etcd, 3 members", openEtcd},
		{"etcdlog", "decision log in etcd", openEtcdLog},
		{"raft", "hashicorp/raft, 3 members", openRaft},
	}
}

const (
	peersLong = `
  etcd      three members; a transaction that puts a key on condition that it is not there
  etcdlog   the decision log in such a cluster
  raft      hashicorp/raft with its raft-wal store, three members; called at the leader itself
`
	peersAdvice = ""
	peersHint   = ""
)

func startEtcd(ctx context.Context, dir string) (*etcdcluster.Cluster, error) {
	return etcdcluster.New(ctx, etcdcluster.Options{Dir: dir, InProcess: true})
}

// etcdPuts is etcd by itself.
type etcdPuts struct {
	cluster *etcdcluster.Cluster
	client  *clientv3.Client
}

func openEtcd(ctx context.Context, dir string) (decider, error) {
	c, err := startEtcd(ctx, dir)
	if err != nil {
		return nil, err
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), Logger: zap.NewNop()})
	if err != nil {
		c.Close()
		return nil, err
	}
	return &etcdPuts{c, client}, nil
}

func (e *etcdPuts) decide(ctx context.Context, entry decision.Entry) error {
	data, err := entry.Encode()
	if err != nil {
		return err
	}
	key := string(entry.ID)
	resp, err := e.client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, string(data))).Else(clientv3.OpGet(key)).Commit()
	if err == nil && !resp.Succeeded {
		err = fmt.Errorf("%s is decided already", key)
	}
	return err
}

func (e *etcdPuts) close() error {
	err := e.client.Close()
	e.cluster.Close()
	return err
}

func openEtcdLog(ctx context.Context, dir string) (decider, error) {
	c, err := startEtcd(ctx, dir)
	if err != nil {
		return nil, err
	}
	l, err := decisionetcd.Open(ctx, decisionetcd.Config{Client: clientv3.Config{Endpoints: c.Endpoints()}, Logger: silent()})
	if err != nil {
		c.Close()
		return nil, err
	}
	return &logDecider{Log: l, closers: []func() error{func() error { c.Close(); return nil }, l.Close}}, nil
}

// raftGroup is three members of hashicorp/raft that talk over loopback.
type raftGroup struct {
	members []*raft.Raft
	leader  *raft.Raft
	closers []func() error
}

// register is a member's state: what was decided first stands.
type register map[string][]byte

// Apply implements raft.FSM.
func (r register) Apply(l *raft.Log) any {
	n := int(l.Data[0])
	id := string(l.Data[1 : 1+n])
	if stands, ok := r[id]; ok {
		return stands
	}
	r[id] = l.Data[1+n:]
	return nil
}

// Snapshot implements raft.FSM. No run is long enough for one.
func (r register) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("no snapshots") }

// Restore implements raft.FSM.
func (r register) Restore(io.ReadCloser) error { return errors.New("no snapshots") }

func openRaft(ctx context.Context, dir string) (decider, error) {
	g := &raftGroup{}
	var servers []raft.Server
	var transports []*raft.NetworkTransport
	for i := range 3 {
		t, err := raft.NewTCPTransport("127.0.0.1:0", nil, 3, 10*time.Second, io.Discard)
		if err != nil {
			return nil, errors.Join(err, g.close())
		}
		g.closers = append(g.closers, t.Close)
		transports = append(transports, t)
		servers = append(servers, raft.Server{ID: raft.ServerID(fmt.Sprint("member-", i+1)), Address: t.LocalAddr()})
	}
	for i, t := range transports {
		if err := g.start(filepath.Join(dir, fmt.Sprint("member-", i+1)), servers, servers[i].ID, t); err != nil {
			return nil, errors.Join(err, g.close())
		}
	}
	for g.leader == nil {
		for _, m := range g.members {
			if m.State() == raft.Leader {
				g.leader = m
			}
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), g.close())
		case <-time.After(10 * time.Millisecond): // polling the members
		}
	}
	return g, nil
}

func (g *raftGroup) start(dir string, servers []raft.Server, id raft.ServerID, t raft.Transport) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	log, err := wal.Open(dir, wal.WithLogger(hclog.NewNullLogger()))
	if err != nil {
		return err
	}
	g.closers = append(g.closers, log.Close)
	cfg := raft.DefaultConfig()
	cfg.LocalID, cfg.Logger = id, hclog.NewNullLogger()
	cfg.SnapshotThreshold, cfg.SnapshotInterval = 1<<62, time.Hour
	cfg.BatchApplyCh, cfg.MaxAppendEntries = true, 1024 // what waits is appended together
	snapshots := raft.NewInmemSnapshotStore()
	if err := raft.BootstrapCluster(cfg, log, log, snapshots, t, raft.Configuration{Servers: servers}); err != nil {
		return err
	}
	m, err := raft.NewRaft(cfg, register{}, log, log, snapshots, t)
	if err != nil {
		return err
	}
	g.members = append(g.members, m)
	return nil
}

func (g *raftGroup) decide(_ context.Context, e decision.Entry) error {
	body, err := e.Encode()
	if err != nil {
		return err
	}
	data := append([]byte{byte(len(e.ID))}, e.ID...)
	f := g.leader.Apply(append(data, body...), patience)
	if err := f.Error(); err != nil {
		return err
	}
	if f.Response() != nil {
		return fmt.Errorf("%s is decided already", e.ID)
	}
	return nil
}

func (g *raftGroup) close() (err error) {
	for _, m := range g.members {
		err = errors.Join(err, m.Shutdown().Error())
	}
	for _, c := range g.closers {
		err = errors.Join(err, c())
	}
	return err
}
