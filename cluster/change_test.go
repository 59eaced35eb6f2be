package cluster_test

import (
	"errors"
	"testing"

	"assent/cluster"
	"assent/protocol/membership"
)

// What is asked of one node all come to know, and what cannot be is refused with the reason.
func TestChanges(t *testing.T) {
	h := newHouse(t, "a", "b", "c")
	h.open("a", "b", "c")
	n := h.nodes["a"]
	members := n.Members()
	if len(members) != 3 || members[0].Node != "a" || members[0].API != "http://api-of-a" || members[1].Votes != 1 {
		t.Errorf("%+v", members)
	}
	first, err := n.Change(t.Context(), membership.Change{Kind: membership.Set, Key: "k", Value: "v"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.nodes["b"].Barrier(t.Context())
	if v, ok := s.Setting("k"); err != nil || !ok || v != "v" || s.Epoch < first {
		t.Errorf("%q at epoch %d, %v", v, s.Epoch, err)
	}
	if _, err := h.nodes["c"].Change(t.Context(), membership.Change{Kind: membership.Set, Key: "k", Value: "w", Epoch: first - 1}); !errors.Is(err, cluster.ErrRefused) {
		t.Errorf("%v", err)
	}
}
