package api

import (
	"fmt"
	"testing"

	"connectrpc.com/connect"

	assentv1 "assent/api/assent/v1"
	"assent/cluster"
)

// Requests that ask for nothing that could be done are refused before the cluster is asked.
func TestChangesThatCannotBeRead(t *testing.T) {
	set := &assentv1.ChangeClusterRequest_Set{Set: &assentv1.SetSetting{Key: "k", Value: "v"}}
	servers := startNodes(t, 0, "a")
	for want, req := range map[string]*assentv1.ChangeClusterRequest{
		"the request names no change":                 {By: "alice"},
		"the request does not say who asks":           {Change: set},
		"the request does not say what to exclude":    {By: "alice", Change: &assentv1.ChangeClusterRequest_Exclude{}},
		"the request does not say what to set":        {By: "alice", Change: &assentv1.ChangeClusterRequest_Set{}},
		"to leave knows no epoch":                     {By: "alice", Epoch: 3, Change: &assentv1.ChangeClusterRequest_Leave{}},
		"to weigh knows no epoch":                     {By: "alice", Epoch: 3, Change: &assentv1.ChangeClusterRequest_Weigh{Weigh: &assentv1.WeighNode{Node: "a"}}},
		"the request does not say what to unregister": {By: "alice", Change: &assentv1.ChangeClusterRequest_Unregister{}},
		"the request does not say what to unset":      {By: "alice", Change: &assentv1.ChangeClusterRequest_Unset{Unset: &assentv1.UnsetSetting{}}},
		"the request does not say what to weigh":      {By: "alice", Change: &assentv1.ChangeClusterRequest_Weigh{}},
	} {
		if _, err := servers["a"].ChangeCluster(t.Context(), req); err == nil || err.Error() != want || codeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("want %q: %v, %v", want, err, codeOf(err))
		}
	}
	alone, err := New(nil, nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alone.ChangeCluster(t.Context(), &assentv1.ChangeClusterRequest{By: "alice", Change: set}); codeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("no node of a cluster: %v", err)
	}
	if _, err := alone.ClusterState(t.Context(), &assentv1.ClusterStateRequest{Known: true}); codeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("no node of a cluster: %v", err)
	}
}

// A change that comes too late is told apart from one that cannot be made at all.
func TestRefusedChanges(t *testing.T) {
	for _, c := range []struct {
		was, is uint64
		code    connect.Code
	}{{0, 7, connect.CodeFailedPrecondition}, {7, 7, connect.CodeFailedPrecondition}, {6, 7, connect.CodeAborted}} {
		err := refusedChange(c.was, c.is, fmt.Errorf("%w: z is no member", cluster.ErrRefused))
		if codeOf(err) != c.code || err.Error() != "z is no member" {
			t.Errorf("%+v: %v, %v", c, codeOf(err), err)
		}
	}
	unsure := refuse(connect.CodeDeadlineExceeded, "text", "hint")
	unsure.unsure = true
	for _, d := range contractError(unsure).Details() {
		if v, err := d.Value(); err != nil || !v.(*assentv1.ErrorDetail).GetUnsure() {
			t.Errorf("%v, %v", v, err)
		}
	}
}
