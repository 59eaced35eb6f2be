package paxos

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"assent/protocol"
)

// wires is a network in memory: a queue and a goroutine for each pair of nodes, and faults.
type wires struct {
	mu    sync.Mutex
	nodes map[protocol.NodeID]*wire
	rng   *rand.Rand
	// lose, repeat and delay are how many of a hundred payloads meet that.
	lose, repeat, delay int
	cut                 map[[2]protocol.NodeID]bool
	sent                atomic.Int64
	// watch is told of every payload that is sent.
	watch func(from, to protocol.NodeID, payload []byte)
	queue map[[2]protocol.NodeID]chan []byte
	ended chan struct{}
}

func newWires(seed uint64) *wires {
	return &wires{
		nodes: map[protocol.NodeID]*wire{}, rng: rand.New(rand.NewPCG(seed, 4)), cut: map[[2]protocol.NodeID]bool{},
		queue: map[[2]protocol.NodeID]chan []byte{}, ended: make(chan struct{}),
	}
}

// wire is one node's end. A node that starts again gets a new one.
type wire struct {
	all  *wires
	node protocol.NodeID
	take atomic.Pointer[func(protocol.NodeID, []byte)]
}

func (w *wires) of(node protocol.NodeID) *wire {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := &wire{all: w, node: node}
	w.nodes[node] = n
	return n
}

// down makes the node's end dead: nothing gets in or out.
func (w *wires) down(node protocol.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.nodes, node)
}

// isolate cuts all ways between the nodes and the others; with none it heals everything.
func (w *wires) isolate(nodes ...protocol.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.cut)
	in := map[protocol.NodeID]bool{}
	for _, n := range nodes {
		in[n] = true
	}
	for a := range w.nodes {
		for b := range w.nodes {
			if in[a] != in[b] {
				w.cut[[2]protocol.NodeID{a, b}] = true
			}
		}
	}
}

func (e *wire) Receive(take func(protocol.NodeID, []byte)) { e.take.Store(&take) }

func (e *wire) Send(to protocol.NodeID, payload []byte) {
	w := e.all
	w.sent.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watch != nil {
		w.watch(e.node, to, payload)
	}
	way := [2]protocol.NodeID{e.node, to}
	if w.nodes[e.node] != e || w.cut[way] || w.rng.IntN(100) < w.lose {
		return
	}
	q, ok := w.queue[way]
	if !ok {
		q = make(chan []byte, 1<<14)
		w.queue[way] = q
		go w.carry(way, q)
	}
	times := 1
	if w.rng.IntN(100) < w.repeat {
		times = 2
	}
	for range times {
		if w.rng.IntN(100) < w.delay {
			after := time.Duration(w.rng.IntN(int(20 * time.Millisecond)))
			time.AfterFunc(after, func() { put(q, payload) })
			continue
		}
		put(q, payload)
	}
}

func put(q chan []byte, payload []byte) {
	select {
	case q <- payload:
	default:
	}
}

func (w *wires) carry(way [2]protocol.NodeID, q chan []byte) {
	for {
		select {
		case payload := <-q:
			w.mu.Lock()
			n, cut := w.nodes[way[1]], w.cut[way]
			w.mu.Unlock()
			if n == nil || cut {
				continue
			}
			if take := n.take.Load(); take != nil {
				(*take)(way[0], payload)
			}
		case <-w.ended:
			return
		}
	}
}
