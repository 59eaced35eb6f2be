package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	assentv1 "assent/api/assent/v1"
)

// among has the node run a transaction by Paxos Commit that puts the key into the stores.
func (p *people) among(at, key string, stores ...string) (committed bool, err error) {
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	req := &assentv1.RunRequest{Protocol: "paxos"}
	for _, store := range stores {
		req.Operations = append(req.Operations, put(store, key))
	}
	r, err := assentv1.NewTransactionServiceClient(&http.Client{}, "http://"+p.apis[at]).Run(ctx, req)
	if err == nil && r.GetOutcome().GetCommitted() == nil {
		err = fmt.Errorf("%v", r.GetOutcome())
	}
	return err == nil, err
}

// commitsAmong has the node commit so as soon as it can.
func (p *people) commitsAmong(at, key string, stores ...string) {
	p.t.Helper()
	var lastErr error
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		ok := false
		if ok, lastErr = p.among(at, key, stores...); ok {
			return
		}
	}
	p.t.Fatalf("node %s does not commit among sites: %v", at, lastErr)
}

// TestJoinedSites: a node that has joined coordinates transactions among sites, its own among them, and takes part in
// one that another coordinates: when that is killed in the middle, all or nothing of each of its transactions stands,
// and the stores of those who are left are free. Then a founder leaves, and the others commit without it.
func TestJoinedSites(t *testing.T) {
	t.Parallel()
	p := newPeople(t, "a", "b", "c", "d")
	for _, name := range []string{"a", "b", "c", "d"} {
		// Work that has not been asked for its vote is given up after this time.
		if err := os.WriteFile(filepath.Join(p.dir, name, "assent.yaml"), []byte("timeouts: {transaction: 8s}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	founders := p.pairs("a", "b", "c")
	var all []func()
	for _, name := range []string{"a", "b", "c"} {
		all = append(all, p.launch(name, "-c", "assent.yaml", "--resource", "kv-"+name+"=kv:kv", "--nodes", founders))
	}
	for _, ready := range all {
		ready()
	}
	p.launch("d", "-c", "assent.yaml", "--resource", "kv-d=kv:kv", "--join", p.pairs("a", "b"), "--address", p.peers["d"])()
	p.votes("d", "a", "b", "c", "d")
	p.commitsAmong("d", "by d", "kv-a", "kv-b", "kv-d")
	p.commitsAmong("a", "by a", "kv-d", "kv-b")

	var mu sync.Mutex
	told := map[string]bool{} // what a has said is committed
	var count atomic.Int64
	var workers sync.WaitGroup
	var killed atomic.Bool
	enough := make(chan struct{})
	for worker := range 4 {
		workers.Go(func() {
			for i := 0; !killed.Load(); i++ {
				key := fmt.Sprintf("%d/%d", worker, i)
				if ok, _ := p.among("a", key, "kv-b", "kv-d"); !ok {
					continue
				}
				mu.Lock()
				told[key] = true
				mu.Unlock()
				if count.Add(1) == 20 {
					close(enough)
				}
			}
		})
	}
	select {
	case <-enough:
	case <-time.After(90 * time.Second):
		t.Fatal("a does not commit among sites")
	}
	_ = p.running["a"].end(syscall.SIGKILL) // it does not end well
	killed.Store(true)
	workers.Wait()
	p.commitsAmong("d", "after a", "kv-b", "kv-c", "kv-d")
	atB, atD := everything(t, p.running["b"], "kv-b"), everything(t, p.running["d"], "kv-d")
	if !maps.Equal(atB, atD) {
		t.Errorf("b holds %v, and d %v", slices.Sorted(maps.Keys(atB)), slices.Sorted(maps.Keys(atD)))
	}
	for key := range told {
		if !atD[key] {
			t.Errorf("a has said that %s is committed, and it is not", key)
		}
	}
	p.sees("d", "c is gone", func(c *assentv1.ClusterResponse) bool {
		if len(c.GetMembers()) == 3 {
			return true
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		leave := &assentv1.ChangeClusterRequest_Leave{Leave: &assentv1.LeaveCluster{Node: "c"}}
		_, err := p.operator("d").ChangeCluster(ctx, &assentv1.ChangeClusterRequest{By: "alice", Change: leave})
		t.Logf("c is asked to leave: %v", err) // something may not be over yet
		return false
	})
	p.commitsAmong("b", "without c", "kv-b", "kv-d")
}
