package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"assent/cluster"
	"assent/protocol/membership"
	"assent/resource"
)

// registry tells the cluster which resources this node has, and compares: a name must stand for the same
// database at all nodes, or each would look in the wrong place for what the others have left prepared.
type registry struct {
	node      registrar
	resources map[string]resource.Resource
	log       *slog.Logger

	mu     sync.Mutex
	barred map[string]string // why, by name
}

// registrar is what the registry needs of a cluster's node.
type registrar interface {
	State() membership.State
	Barrier(ctx context.Context) (membership.State, error)
	Change(ctx context.Context, c membership.Change) (epoch uint64, err error)
}

var _ registrar = (*cluster.Node)(nil)

// identified is a resource that can be the same at several nodes, and says which one it is.
type identified interface {
	Identity(ctx context.Context) (string, error)
}

// Pauses between two looks at what is not registered yet, and the time of one look.
const (
	registryPause    = 100 * time.Millisecond
	registryMost     = 2 * time.Second
	registryPatience = 15 * time.Second
)

// Barred says why a resource is not to be worked in, or "".
func (r *registry) Barred(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.barred[name]
}

func (r *registry) bar(name, why string) {
	r.mu.Lock()
	was := r.barred[name]
	r.barred[name] = why
	r.mu.Unlock()
	switch {
	case was == why:
	case why == "":
		r.log.Info("the resource is the cluster's again", "resource", name)
	default:
		r.log.Error("a resource is not used here: another one has its name", "resource", name, "reason", why)
	}
}

// keep registers the resources, however long that takes: a database may be down, and a node may not yet be a
// member. It ends when all are registered, or with ctx.
func (r *registry) keep(ctx context.Context) {
	left := slices.Sorted(maps.Keys(r.resources))
	for pause := registryPause; len(left) > 0 && ctx.Err() == nil; pause = min(2*pause, registryMost) {
		left = slices.DeleteFunc(left, func(name string) bool {
			ctx, cancel := context.WithTimeout(ctx, registryPatience)
			defer cancel()
			ok, err := r.register(ctx, name)
			if err != nil {
				r.log.Debug("a resource is not registered yet", "resource", name, "error", err)
			}
			return ok
		})
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// register registers a resource, or looks whether it is the one that is registered. ok says that it is.
func (r *registry) register(ctx context.Context, name string) (ok bool, err error) {
	state := r.node.State()
	if state.View.Number == 0 {
		return false, errors.New("this node is not a member yet")
	}
	own := membership.Resource{Name: name, Kind: "kv"}
	if db, is := r.resources[name].(identified); is {
		own.Kind = "postgres"
		if own.Settings, err = db.Identity(ctx); err != nil {
			return false, err
		}
	}
	there, found := registered(state, name)
	if found && there != own { // which this node may know of too late
		if state, err = r.node.Barrier(ctx); err != nil {
			return false, err
		}
		there, found = registered(state, name)
	}
	switch {
	case found && there == own:
		r.bar(name, "")
		return true, nil
	case found:
		r.bar(name, fmt.Sprintf("resource %q is %s at this node, and %s in the cluster", name, inWords(own), inWords(there)))
		return false, nil
	}
	// Of two nodes that register the same name at once the second is refused, and looks again.
	_, err = r.node.Change(ctx, membership.Change{Kind: membership.Register, Resource: &own, Epoch: state.Epoch})
	if err == nil {
		r.bar(name, "")
	}
	return err == nil, err
}

func registered(state membership.State, name string) (membership.Resource, bool) {
	i := slices.IndexFunc(state.Resources, func(x membership.Resource) bool { return x.Name == name })
	if i < 0 {
		return membership.Resource{}, false
	}
	return state.Resources[i], true
}

// inWords says which resource it is: "the postgres orders of system 7301843271093846001".
func inWords(x membership.Resource) string {
	if x.Settings == "" {
		return "a " + x.Kind
	}
	return fmt.Sprintf("the %s %s", x.Kind, x.Settings)
}
