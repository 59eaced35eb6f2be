package site

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/resource"
	"assent/resource/kv"
	"assent/trace"
)

// world is some sites in one process, a network between them that loses what it is told to, and disks
// that keep what was synced.
type world struct {
	*testing.T
	nodes     []protocol.NodeID // all that there are, members or not
	acceptors []protocol.NodeID // who has a vote; all, where there are none
	absent    []protocol.NodeID // who is no member
	observer  trace.Observer
	refuses   protocol.NodeID // whose store votes no
	gone      protocol.NodeID // whose store is not configured
	// hurry is for how long whoever opens from now on waits for others; a busy machine may seem to be
	// silent for longer. It is 0 for ever: nothing is then sent again, and nobody given up.
	hurry time.Duration
	// timeout is when work is given up that nobody asks about. It is 0 for never.
	timeout time.Duration
	// tweak changes what whoever opens from now on is told to be.
	tweak func(*Config)

	mu       sync.Mutex
	number   uint64 // of the view
	storages map[protocol.NodeID]string
	lives    map[protocol.NodeID]string // who is heard to have this incarnation; nobody has told it, else
	leaving  protocol.NodeID            // who is heard to be about to leave
	random   *rand.Rand
	loss     float64
	cut      map[[2]protocol.NodeID]bool
	inbox    map[protocol.NodeID]*inbox
	sites    map[protocol.NodeID]*node
	posted   func(from protocol.NodeID, payload []byte) // sees what is sent
	ended    sync.WaitGroup
}

// node is one site with its disks.
type node struct {
	disk  *vfs.MemFS
	store *kv.Resource
	host  *Host
}

// inbox is where a node's messages wait. It is nil in a world's map while the node is down.
type inbox struct {
	w       *world
	self    protocol.NodeID
	receive func(protocol.NodeID, []byte)
	letters chan post
	quit    chan struct{}
}

type post struct {
	from protocol.NodeID
	data []byte
}

func newWorld(t *testing.T, n int, seed uint64) *world {
	w := &world{T: t, random: rand.New(rand.NewPCG(seed, 1)), cut: map[[2]protocol.NodeID]bool{},
		inbox: map[protocol.NodeID]*inbox{}, sites: map[protocol.NodeID]*node{}, storages: map[protocol.NodeID]string{}}
	for i := range n {
		w.nodes = append(w.nodes, protocol.NodeID(fmt.Sprintf("n%d", i+1)))
	}
	t.Cleanup(func() {
		for _, id := range w.nodes {
			w.crash(id)
		}
		w.ended.Wait()
	})
	return w
}

// Send implements Network.
func (b *inbox) Send(to protocol.NodeID, payload []byte) {
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	if b.w.posted != nil {
		b.w.posted(b.self, payload)
	}
	there := b.w.inbox[to]
	if there == nil || b.w.inbox[b.self] != b || b.w.cut[[2]protocol.NodeID{b.self, to}] || b.w.random.Float64() < b.w.loss {
		return
	}
	select {
	case there.letters <- post{b.self, payload}:
	default:
	}
}

// Receive implements Network.
func (b *inbox) Receive(f func(protocol.NodeID, []byte)) {
	b.receive = f
	b.w.ended.Go(func() {
		for {
			select {
			case p := <-b.letters:
				b.receive(p.from, p.data)
			case <-b.quit:
				return
			}
		}
	})
}

var quietly = slog.New(slog.NewTextHandler(io.Discard, nil))

func (w *world) config(id protocol.NodeID, b *inbox, n *node) Config {
	resources := map[string]resource.Resource{"kv": n.store}
	if id == w.refuses {
		resources["kv"] = refusing{n.store}
	}
	if id == w.gone {
		resources = nil
	}
	c := Config{Self: id, Cluster: w.view, Network: b, Dir: "records", FS: n.disk,
		Resources: resources, Timeout: cmp.Or(w.timeout, time.Hour), VoteTimeout: time.Hour, Retry: time.Hour, RetryMost: time.Hour,
		Logger: quietly, Observer: w.observer}
	if w.hurry > 0 {
		c.VoteTimeout, c.Retry, c.RetryMost = w.hurry, 10*time.Millisecond, 80*time.Millisecond
	}
	if w.tweak != nil {
		w.tweak(&c)
	}
	return c
}

// view is what all nodes know of the cluster. Those that are down were heard of before.
func (w *world) view() View {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := View{Number: w.number}
	for _, id := range w.nodes {
		if slices.Contains(w.absent, id) {
			continue
		}
		m := Member{Node: id, Storage: w.storages[id], Incarnation: w.lives[id], Leaving: id == w.leaving}
		if len(w.acceptors) == 0 || slices.Contains(w.acceptors, id) {
			m.Votes = 1
		}
		v.Members = append(v.Members, m)
	}
	return v
}

// members makes these the cluster's members, in a view of their own.
func (w *world) members(nodes ...protocol.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.number++
	w.absent = slices.DeleteFunc(slices.Clone(w.nodes), func(id protocol.NodeID) bool { return slices.Contains(nodes, id) })
}

// up opens the node, with what its disk has kept.
func (w *world) up(id protocol.NodeID) *Host {
	w.Helper()
	w.mu.Lock()
	n := w.sites[id]
	if n == nil {
		n = &node{disk: vfs.NewCrashableMem()}
		w.sites[id] = n
	}
	b := &inbox{w: w, self: id, letters: make(chan post, 4096), quit: make(chan struct{})}
	w.inbox[id] = b
	w.mu.Unlock()
	var err error
	if n.store, err = kv.Open("data", kv.Config{FS: n.disk, LockTimeout: 10 * time.Second}); err != nil {
		w.Fatal(err)
	}
	if n.host, err = Open(w.Context(), w.config(id, b, n)); err != nil {
		w.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.storages[id] = n.host.store.owner
	return n.host
}

// crash takes the node down as the loss of power would: what was not synced is gone.
func (w *world) crash(id protocol.NodeID) {
	w.mu.Lock()
	n, b := w.sites[id], w.inbox[id]
	w.inbox[id] = nil
	w.mu.Unlock()
	if n == nil || b == nil {
		return
	}
	left := n.disk.CrashClone(vfs.CrashCloneCfg{})
	close(b.quit)
	_ = n.host.Close() // its disk is not looked at again
	_ = n.store.Close()
	n.disk = left
}

// life tells one life of a node from the next. It is nil while the node is down.
func (w *world) life(id protocol.NodeID) *inbox {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.inbox[id]
}

func (w *world) all() {
	for _, id := range w.nodes {
		w.up(id)
	}
}

func (w *world) host(id protocol.NodeID) *Host { return w.sites[id].host }

// put has the transaction put a value at the sites.
func (w *world) put(t Transaction, key string, sites ...protocol.NodeID) error {
	for _, id := range sites {
		b, err := w.host(id).Join(w.Context(), t, "kv", false)
		if err != nil {
			return err
		}
		if err := b.(*kv.Tx).Put(w.Context(), []byte(key), []byte(t.ID)); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) begin(id protocol.NodeID, p Protocol) Transaction {
	w.Helper()
	t, err := w.host(id).Begin(p)
	if err != nil {
		w.Fatal(err)
	}
	return t
}

// settled waits until no site holds anything prepared. It fails the test after a time that is long
// for every timeout of config.
func (w *world) settled(sites ...protocol.NodeID) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 30*time.Second)
	defer cancel()
	for _, id := range sites {
		for {
			list, err := w.sites[id].store.Recover(ctx)
			if err != nil {
				w.Fatal(err)
			}
			if len(list) == 0 {
				break
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
				w.Fatalf("%s still holds %v", id, list)
			}
		}
	}
}

// holds reports whether the transaction's value is at the site.
func (w *world) holds(id protocol.NodeID, key string, t Transaction) bool {
	w.Helper()
	found := false
	err := w.sites[id].store.View(w.Context(), func(v *kv.View) error {
		value, ok, err := v.Get([]byte(key))
		found = ok && string(value) == string(t.ID)
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	return found
}

// inDoubt reports whether the site has something prepared.
func (w *world) inDoubt(id protocol.NodeID) bool {
	w.Helper()
	list, err := w.sites[id].store.Recover(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	return len(list) > 0
}

// refusing is a resource whose branches vote no.
type refusing struct{ resource.Resource }

func (r refusing) Begin(ctx context.Context, id resource.ID) (resource.Branch, error) {
	b, err := r.Resource.Begin(ctx, id)
	return refusingBranch{b}, err
}

type refusingBranch struct{ resource.Branch }

func (refusingBranch) Prepare(context.Context) (resource.Vote, error) {
	return resource.Vote{}, errors.New("the disk is on fire")
}

// counter counts what crosses the network and what is forced, before anybody is told the decision.
type counter struct {
	mu     sync.Mutex
	sent   map[string]int
	forces int
	told   map[string]bool
}

func (c *counter) Observe(e trace.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e.Kind {
	case trace.Force:
		if !c.told[e.Scope] {
			c.forces++
		}
	case trace.Send:
		if _, ok := e.Value.(commit.Finish); ok {
			c.told[e.Scope] = true
		}
		if nodeOf(e.Node) != nodeOf(e.Peer) {
			c.sent[fmt.Sprintf("%T", e.Value)]++
		}
	}
}

func (c *counter) cost() (messages, forces int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for kind, n := range c.sent {
		if kind != "commit.Acknowledge" {
			messages += n
		}
	}
	return messages, c.forces
}
