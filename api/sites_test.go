package api

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"assent"
	assentv1 "assent/api/assent/v1"
	"assent/cluster"
	"assent/decision/disk"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/kv"
	"assent/site"
)

// startNodes starts servers that are nodes of one cluster in this process, each with a store of its own. Sites
// wait for each other's votes for so long.
func startNodes(t *testing.T, patience time.Duration, names ...protocol.NodeID) map[protocol.NodeID]*Server {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	members, listeners := map[protocol.NodeID]cluster.Member{}, map[protocol.NodeID]net.Listener{}
	for _, id := range names {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		members[id], listeners[id] = cluster.Member{Address: l.Addr().String()}, l
	}
	servers := map[protocol.NodeID]*Server{}
	for _, id := range names {
		dir := t.TempDir()
		log := check1(disk.Open(filepath.Join(dir, "log"), disk.Config{Logger: quiet}))(t)
		t.Cleanup(func() { log.Close() })
		store := check1(kv.Open(filepath.Join(dir, "kv"), kv.Config{}))(t)
		t.Cleanup(func() { store.Close() })
		resources := map[string]resource.Resource{"kv-" + string(id): store}
		node := check1(cluster.Open(cluster.Config{Name: "shop", Self: id, Members: members, Listener: listeners[id], Log: log, Dir: filepath.Join(dir, "cluster"), Logger: quiet}))(t)
		t.Cleanup(func() { node.Close() })
		view := func() site.View {
			v := site.View{Number: node.State().View.Number}
			for _, m := range node.Members() {
				v.Members = append(v.Members, site.Heard(m.Node, node.SitesOf(m.Node), m.Votes))
			}
			return v
		}
		host := check1(site.Open(t.Context(), site.Config{Self: id, Cluster: view, Network: node.Sites(), Dir: filepath.Join(dir, "sites"),
			Resources: resources, Logger: quiet, VoteTimeout: patience, Retry: patience, RetryMost: patience}))(t)
		t.Cleanup(func() { host.Close() })
		node.TellSites(host.Announcement)
		manager := check1(assent.Open(t.Context(), assent.Config{Log: log, Resources: resources, Logger: quiet, Elsewhere: node.Elsewhere}))(t)
		t.Cleanup(func() { manager.Close(context.Background()) })
		servers[id] = check1(New(manager, resources, Options{Node: node, Sites: host, Logger: quiet}))(t)
	}
	for _, id := range names {
		for { // until all hear one another; the test's time bounds it
			count, enough := servers[id].opts.Node.Decides()
			if enough && !strings.Contains(count, "unreachable") {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	return servers
}

// check1 takes what a function returns and fails the test on its error.
func check1[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func putOp(resource, key, value string) *assentv1.Operation {
	return &assentv1.Operation{Resource: resource, Action: &assentv1.Operation_Put{Put: &assentv1.PutKey{
		Key: &assentv1.Key{Form: &assentv1.Key_Text{Text: key}}, Value: &assentv1.Value{Kind: &assentv1.Value_String_{String_: value}}}}}
}

func getOp(resource, key string) *assentv1.Operation {
	return &assentv1.Operation{Resource: resource, Action: &assentv1.Operation_Get{Get: &assentv1.GetKey{Key: &assentv1.Key{Form: &assentv1.Key_Text{Text: key}}}}}
}

// TestRunAmongSites: with each protocol a change is made in the stores of three nodes, and read there.
func TestRunAmongSites(t *testing.T) {
	servers := startNodes(t, time.Minute, "a", "b", "c")
	for i, p := range site.Protocols() {
		value := fmt.Sprint(i)
		r, err := servers["a"].Run(t.Context(), &assentv1.RunRequest{Protocol: string(p), Operations: []*assentv1.Operation{
			putOp("kv-a", "x", value), putOp("kv-b", "x", value), putOp("kv-c", "x", value), getOp("kv-c", "x")}})
		if err != nil || r.GetOutcome().GetCommitted() == nil {
			t.Fatalf("%s: %v, %v", p, r, err)
		}
		if got := r.GetResults()[3].GetRows()[0].GetValues()[0].GetString_(); got != value {
			t.Errorf("%s: at another node the transaction reads %q of its own", p, got)
		}
		for id, s := range servers {
			read, err := s.Run(t.Context(), &assentv1.RunRequest{Operations: []*assentv1.Operation{getOp("kv-"+string(id), "x")}})
			if err != nil || read.GetResults()[0].GetRows()[0].GetValues()[0].GetString_() != value {
				t.Errorf("%s: at %s there is %v, %v", p, id, read, err)
			}
			known, err := s.Get(t.Context(), &assentv1.GetRequest{Id: r.GetOutcome().GetId()})
			if err != nil || known.GetTransaction().GetState() != assentv1.State_STATE_COMMITTED {
				t.Errorf("%s: %s says %v, %v", p, id, known, err)
			}
		}
	}
}

// TestRunAmongSitesRefused: what is wrong is told, wherever it went wrong, and nothing of it stays.
func TestRunAmongSitesRefused(t *testing.T) {
	servers := startNodes(t, time.Minute, "a", "b")
	for want, req := range map[string]*assentv1.RunRequest{
		`protocol "4pc" is not known; choose 2pc, 3pc, q3pc or paxos`: {Protocol: "4pc", Operations: []*assentv1.Operation{putOp("kv-a", "x", "1")}},
		"retries cannot be asked for":                                 {Protocol: "paxos", Retries: 1, Operations: []*assentv1.Operation{putOp("kv-a", "x", "1")}},
		"there are 0 operations":                                      {Protocol: "paxos"},
	} {
		if _, err := servers["a"].Run(t.Context(), req); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	for want, op := range map[string]*assentv1.Operation{
		"operation 2: node b: the key is missing":                    putOp("kv-b", "", "1"),
		`operation 2: node b: there is no resource`:                  putOp("more-b", "x", "1"),
		`operation 2: no node keeps a resource "nowhere" for itself`: putOp("nowhere", "x", "1"),
		"operation 2: the operation has 1048":                        putOp("kv-b", "x", strings.Repeat("x", maxErrandBytes)),
	} {
		r, err := servers["a"].Run(t.Context(), &assentv1.RunRequest{Protocol: "paxos", Operations: []*assentv1.Operation{putOp("kv-a", "y", "1"), op}})
		aborted := r.GetOutcome().GetAborted()
		if err != nil || aborted.GetFailedOperation() != 2 || !strings.Contains(aborted.GetReason(), want) {
			t.Errorf("want %q, got %v, %v", want, r, err)
		}
	}
	read, err := servers["a"].Run(t.Context(), &assentv1.RunRequest{Operations: []*assentv1.Operation{getOp("kv-a", "y")}})
	if err != nil || len(read.GetResults()[0].GetRows()) != 0 {
		t.Errorf("what was given up is there: %v, %v", read, err)
	}
	alone := &Server{}
	alone.opts.setDefaults()
	_, err = alone.Run(t.Context(), &assentv1.RunRequest{Protocol: "paxos", Operations: []*assentv1.Operation{putOp("kv", "x", "1")}})
	if err == nil || !strings.Contains(err.Error(), "among the nodes of a cluster only") {
		t.Errorf("without a cluster: %v", err)
	}
}

// TestSitesWhenANodeIsDown: what waits is listed, and a node that is down is not waited for.
func TestSitesWhenANodeIsDown(t *testing.T) {
	servers := startNodes(t, 2*time.Second, "a", "b")
	a, b := servers["a"], servers["b"]
	tx := check1(a.opts.Sites.Begin(site.TwoPhase))(t)
	for _, id := range []protocol.NodeID{"a", "b"} {
		check1(a.workAt(t.Context(), tx, id, putOp("kv-"+string(id), "x", "1"), false, maxErrandBytes))(t)
	}
	if err := b.opts.Sites.Close(); err != nil { // it does not vote
		t.Fatal(err)
	}
	over := make(chan site.Result)
	go func() {
		r, _ := a.opts.Sites.Commit(t.Context(), tx, []protocol.NodeID{"a", "b"}, false)
		over <- r
	}()
	listed := false
	for done := false; !done; {
		select {
		case r := <-over:
			done = true
			if r.Decision != commit.Abort || r.Cause != commit.NoAnswer || r.By != "b" {
				t.Errorf("it ended %+v", r)
			}
		default:
			l, err := a.List(t.Context(), &assentv1.ListRequest{})
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range l.GetTransactions() {
				listed = listed || x.GetId() == string(tx.ID) && x.GetDecision() == assentv1.Decision_DECISION_UNSPECIFIED
			}
			time.Sleep(time.Millisecond)
		}
	}
	if !listed {
		t.Error("a transaction that waited for a vote was not listed")
	}
	word := &assentv1.ResolveRequest{Id: string(tx.ID), Branch: "node b", Outcome: assentv1.BranchOutcome_BRANCH_OUTCOME_ROLLED_BACK, By: "alice", Reason: "b burnt down"}
	for { // until a has rolled back
		branches := check1(a.Get(t.Context(), &assentv1.GetRequest{Id: word.Id}))(t).GetTransaction().GetBranches()
		if len(branches) == 1 && branches[0].GetResource() == word.Branch && branches[0].GetState() == "told" {
			break
		}
		time.Sleep(time.Millisecond)
	}
	known := check1(a.Resolve(t.Context(), word))(t).GetTransaction()
	if len(known.GetNotes()) != 1 || known.GetNotes()[0].GetReason() != word.Reason || known.GetNotes()[0].GetBranch() != word.Branch || len(known.GetBranches()) != 0 {
		t.Errorf("resolved it is %v", known)
	}
	if _, err := a.Resolve(t.Context(), word); err == nil || !strings.Contains(err.Error(), "nothing to resolve") {
		t.Errorf("resolved once more: %v", err)
	}
	if err := b.opts.Node.Close(); err != nil {
		t.Fatal(err)
	}
	for !a.opts.Node.Suspected("b") {
		time.Sleep(time.Millisecond)
	}
	r, err := a.Run(t.Context(), &assentv1.RunRequest{Protocol: "paxos", Operations: []*assentv1.Operation{putOp("kv-b", "x", "2")}})
	if err != nil || !strings.Contains(r.GetOutcome().GetAborted().GetReason(), `node b, which keeps resource "kv-b", is suspected to be down`) {
		t.Errorf("got %v, %v", r, err)
	}
}

// TestLeaveWaits: a node leaves when no transaction among sites waits for it, whoever is asked.
func TestLeaveWaits(t *testing.T) {
	servers := startNodes(t, 500*time.Millisecond, "a", "b", "c")
	a, b := servers["a"], servers["b"]
	leave := func(at *Server, node string, patience time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := at.ChangeCluster(ctx, &assentv1.ChangeClusterRequest{By: "alice",
			Change: &assentv1.ChangeClusterRequest_Leave{Leave: &assentv1.LeaveCluster{Node: node}}})
		return err
	}
	tx := check1(b.opts.Sites.Begin(site.PaxosCommit))(t)
	check1(b.workAt(t.Context(), tx, "c", putOp("kv-c", "x", "1"), false, maxErrandBytes))(t)
	err := leave(a, "c", time.Second)
	if err == nil || !strings.Contains(err.Error(), "transactions among sites that are not over: "+string(tx.ID)+" (open)") {
		t.Errorf("c leaves in the middle of a transaction: %v", err)
	}
	r, err := b.opts.Sites.Commit(t.Context(), tx, []protocol.NodeID{"c"}, true)
	if err != nil || r.Decision != commit.Commit {
		t.Errorf("c was not let go, and the transaction is not committed: %+v, %v", r, err)
	}
	if err := leave(servers["c"], "c", changePatience); err != nil {
		t.Errorf("c may not leave: %v", err)
	}
	answer, err := b.Run(t.Context(), &assentv1.RunRequest{Protocol: "paxos", Operations: []*assentv1.Operation{putOp("kv-c", "x", "2")}})
	if text := answer.GetOutcome().GetAborted().GetReason(); err != nil || text == "" {
		t.Errorf("a store of a node that has left is used: %v, %v", answer, err)
	}
}
