package cluster

import (
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"assent/internal/ports"
	"assent/protocol"
	"assent/protocol/membership"
)

// A node whose records cannot be written says nothing more until they can, and then goes on with what is there.
func TestRecordsThatFail(t *testing.T) {
	address := ports.Address(t)
	n, err := Open(Config{Name: "test", Self: "a", Members: map[protocol.NodeID]Member{"a": {Address: address}},
		Dir: filepath.Join(t.TempDir(), "cluster"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	set := func(value string) {
		for end := time.Now().Add(20 * time.Second); ; {
			_, err := n.Change(t.Context(), membership.Change{Kind: membership.Set, Key: "k", Value: value})
			if err == nil {
				return
			}
			if !errors.Is(err, ErrUnsure) || time.Now().After(end) {
				t.Fatal(err)
			}
		}
	}
	set("before")
	first := n.life.Load()
	first.records.mu.Lock()
	if err := first.records.journal.Close(); err != nil { // as if the disk had gone
		t.Fatal(err)
	}
	first.records.mu.Unlock()
	set("after")
	s := n.State()
	if v, _ := s.Setting("k"); v != "after" || n.life.Load() == first {
		t.Errorf("k is %q", v)
	}
	if err := n.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}
