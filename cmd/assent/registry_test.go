package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"assent/cluster"
	"assent/protocol/membership"
	"assent/resource"
)

// consensus is a cluster's state that registries of several nodes change, and that a node knows late where it lags.
type consensus struct {
	state, known membership.State
	lags         bool
}

func (a *consensus) State() membership.State {
	if a.lags {
		return a.known
	}
	return a.state
}

func (a *consensus) Barrier(context.Context) (membership.State, error) {
	a.known = a.state
	return a.state, nil
}

func (a *consensus) Change(_ context.Context, c membership.Change) (uint64, error) {
	if c.Epoch != a.state.Epoch {
		return a.state.Epoch, fmt.Errorf("%w: the state is at epoch %d, not %d: look again", cluster.ErrRefused, a.state.Epoch, c.Epoch)
	}
	a.state.Epoch++
	a.state.Resources = append(a.state.Resources[:len(a.state.Resources):len(a.state.Resources)], *c.Resource)
	return a.state.Epoch, nil
}

// database is a resource of which only the identity matters.
type database struct {
	resource.Resource
	name string
	err  error
}

func (d *database) Identity(context.Context) (string, error) { return d.name, d.err }

func TestRegistry(t *testing.T) {
	a := &consensus{}
	var log strings.Builder
	node := func(resources map[string]resource.Resource) *registry {
		return &registry{node: a, resources: resources, log: slog.New(slog.NewTextHandler(&log, nil)), barred: map[string]string{}}
	}
	orders := &database{name: "orders of system 1"}
	first := node(map[string]resource.Resource{"db": orders, "kv-a": struct{ resource.Resource }{}})
	if ok, err := first.register(t.Context(), "db"); ok || err == nil {
		t.Errorf("registered by a node that is no member: %v", err)
	}
	a.state.View.Number, a.state.Epoch = 1, 1
	orders.err = errors.New("down")
	if ok, err := first.register(t.Context(), "db"); ok || err == nil || len(a.state.Resources) > 0 {
		t.Errorf("registered while it is down: %v", err)
	}
	orders.err = nil
	first.keep(t.Context()) // it ends when both are registered
	if len(a.state.Resources) != 2 || a.state.Resources[0] != (membership.Resource{Name: "db", Kind: "postgres", Settings: "orders of system 1"}) {
		t.Errorf("%+v", a.state.Resources)
	}

	// Who has another database under the name may not use it, until one of the two is mended.
	wrong := &database{name: "test of system 2"}
	second := node(map[string]resource.Resource{"db": wrong})
	for range 2 {
		if ok, err := second.register(t.Context(), "db"); ok || err != nil {
			t.Errorf("registered over another: %v", err)
		}
	}
	want := `resource "db" is the postgres test of system 2 at this node, and the postgres orders of system 1 in the cluster`
	if got := second.Barred("db"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if strings.Count(log.String(), "level=ERROR") != 1 {
		t.Errorf("it is said once, and loudly:\n%s", &log)
	}
	a.state.Resources = a.state.Resources[1:]
	if ok, err := second.register(t.Context(), "db"); !ok || err != nil || second.Barred("db") != "" {
		t.Errorf("not registered when the name is free: %v, %q", err, second.Barred("db"))
	}

	// A node that lags looks twice before it says that anything is wrong, and does not register what is there.
	a.lags = true
	a.known = membership.State{Epoch: 1, View: membership.View{Number: 1}}
	if ok, err := second.register(t.Context(), "db"); ok || !errors.Is(err, cluster.ErrRefused) {
		t.Errorf("registered twice: %v", err)
	}
	a.known.Resources = []membership.Resource{{Name: "db", Kind: "kv"}}
	if ok, err := second.register(t.Context(), "db"); !ok || err != nil {
		t.Errorf("what is old counts: %v", err)
	}
}
