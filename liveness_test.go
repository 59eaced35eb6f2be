package assent_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"assent"
	"assent/decision"
	"assent/protocol/commit"
	"assent/resource"
)

// prefixed is a log with a prefix.
type prefixed struct {
	decision.Log
	prefix string
}

func (p prefixed) Prefix() string { return p.prefix }

func TestIDsBeginWithTheLogsPrefix(t *testing.T) {
	h := newHouse(t, func(c *assent.Config) { c.Log = prefixed{c.Log, "PREFIXOFTWENTYLETTER"} })
	other, err := assent.Open(t.Context(), assent.Config{Log: prefixed{h.log, "PREFIXOFTWENTYLETTER"}, Logger: quiet,
		Resources: map[string]resource.Resource{"a": h.stores["a"]}})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(context.Background())
	seen := map[string]bool{}
	for _, m := range []*assent.Manager{h.m, other} {
		for range 3 {
			tx, err := m.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if id := tx.ID(); !strings.HasPrefix(id, "PREFIXOFTWENTYLETTER") || seen[id] {
				t.Errorf("id %s after %v", id, seen)
			}
			seen[tx.ID()] = true
			if err := tx.Rollback(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	for _, bad := range []string{"", "has space", strings.Repeat("A", decision.MaxPrefix+1)} {
		if _, err := assent.Open(t.Context(), assent.Config{Log: prefixed{h.log, bad}, Resources: map[string]resource.Resource{"a": h.stores["a"]}}); err == nil {
			t.Errorf("prefix %q is taken", bad)
		}
	}
}

// TestAliveSparesTransactionsOfOthers: a branch of a manager that lives is left alone until the grace is
// over, and settled at once when it has died.
func TestAliveSparesTransactionsOfOthers(t *testing.T) {
	var mu sync.Mutex
	alive, asked := true, map[commit.TransactionID]int{}
	believed := func(id commit.TransactionID) bool {
		mu.Lock()
		defer mu.Unlock()
		asked[id]++
		return alive
	}
	scout := &observer{}
	h := newHouse(t, func(c *assent.Config) {
		c.Observer, c.Alive, c.OrphanGrace = scout, believed, time.Hour
	})
	stopped, release := make(chan struct{}), make(chan struct{})
	var id string
	scout.at("coordinator: emit Propose(commit)", func(tx string) { id = tx; close(stopped); <-release })
	result := make(chan error, 1)
	go func() {
		_, err := h.changeAll(context.Background(), "v")
		result <- err
	}()
	<-stopped
	h.die(release)
	if err := <-result; !errors.Is(err, assent.ErrInDoubt) {
		t.Fatal(err)
	}
	if err := h.m.Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	if asked[commit.TransactionID(id)] == 0 {
		t.Error("nobody asked whether its manager lives")
	}
	mu.Unlock()
	for name, s := range h.m.Scans() {
		if s.Prepared != 1 || s.Settled != 0 {
			t.Errorf("%s, while its manager lives: %+v", name, s)
		}
	}
	mu.Lock()
	alive = false
	mu.Unlock()
	h.settled()
	for _, name := range storeNames {
		if got := h.get(name, "k"); got != "" {
			t.Errorf("%s has %q", name, got)
		}
	}
	if i, err := h.m.Transaction(t.Context(), id); err != nil && !errors.Is(err, assent.ErrUnknown) || err == nil && i.Decision != commit.Abort {
		t.Errorf("%+v, %v", i, err)
	}
}
