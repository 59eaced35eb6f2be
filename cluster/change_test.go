package cluster_test

import (
	"errors"
	"testing"

	"assent/cluster"
	"assent/protocol/membership"
)

func TestMembersOfTheConfiguration(t *testing.T) {
	h := newHouse(t, "a", "b")
	h.open("a")
	n := h.nodes["a"]
	members := n.Members()
	if len(members) != 2 || members[0].Node != "a" || members[0].API != "http://api-of-a" || members[1].Votes != 1 {
		t.Errorf("%+v", members)
	}
	if _, err := n.Change(t.Context(), membership.Change{Kind: membership.Set, Key: "k", Value: "v"}); !errors.Is(err, cluster.ErrRefused) {
		t.Errorf("%v", err)
	}
	if _, err := n.Barrier(t.Context()); !errors.Is(err, cluster.ErrRefused) {
		t.Errorf("%v", err)
	}
}
