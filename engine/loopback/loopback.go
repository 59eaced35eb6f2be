// Package loopback runs the nodes of a system live in one process, each on a UDP socket of 127.0.0.1:
// the nodes that the checker and the simulator take, over a network that is there.
//
// It promises each machine the engine's order of effects, stable storage that outlives Crash, and that
// nobody outside the process is heard. The network promises nothing more than UDP does: messages may
// be lost, late or out of order. It is for examples, tests and watching a protocol at work, and not a
// deployment: stable storage is memory and ends with the process.
package loopback

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"assent/engine"
	"assent/protocol"
	"assent/spec"
	"assent/trace"
)

// maxMessage is the greatest encoded message, in bytes: every system's loopback takes as much in one
// datagram.
const maxMessage = 8 << 10

// maxNodes bounds the sockets that a Network opens.
const maxNodes = 256

var (
	// ErrSystem says that nodes cannot be run; the text says why.
	ErrSystem = errors.New("system cannot be run")
	// ErrClaim says that a claim did not hold; the text says which, and after what.
	ErrClaim = errors.New("a claim is broken")
)

// Config says what a Network runs. Nodes and Codec are required.
type Config struct {
	// Nodes are run, at most 256, each with the first of its ways to begin.
	Nodes []protocol.Node
	// Codec knows the messages and records.
	Codec *protocol.Codec
	// Emit takes what the machines say upward. It is called by many goroutines at once and must not
	// wait for the network, nor close it. Defaults to dropping what is said.
	Emit func(node protocol.NodeID, value protocol.Value)
	// Observer is told of every event, crashes included. Defaults to none.
	Observer trace.Observer
	// Always are claims that hold in every state: the checker's and the simulator's, live. They are judged
	// after every crash and every step, when its writes are stable and before anything is sent; machines
	// are then stepped one at a time. Close returns an ErrClaim for the first that is broken.
	Always []spec.Property
}

// Network is a running system. All methods are safe for concurrent use.
type Network struct {
	cfg       Config
	hosts     map[protocol.NodeID]*host
	addresses map[netip.AddrPort]protocol.NodeID
	readers   sync.WaitGroup
	steps     sync.WaitGroup // what is stepping machines; see begin

	step sync.Mutex // is held while a machine is stepped, if there are claims

	mu     sync.Mutex
	closed bool
	err    error // the first
}

// Start opens the sockets and gives every machine protocol.Start, in the order of the nodes. It
// returns an ErrSystem for nodes that cannot be run, and the system's error where it has no socket.
func Start(cfg Config) (*Network, error) {
	n := &Network{cfg: cfg, hosts: map[protocol.NodeID]*host{}, addresses: map[netip.AddrPort]protocol.NodeID{}}
	if len(cfg.Nodes) == 0 || len(cfg.Nodes) > maxNodes || cfg.Codec == nil {
		return nil, fmt.Errorf("%w: %d nodes and the codec %v; 1 to %d nodes and a codec are needed",
			ErrSystem, len(cfg.Nodes), cfg.Codec, maxNodes)
	}
	for _, node := range cfg.Nodes {
		if err := n.open(node); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	for _, node := range cfg.Nodes {
		n.hosts[node.ID].start(node.New[0](), protocol.Start{})
	}
	for _, h := range n.hosts { // not earlier: what the first sends must not find the last down
		n.readers.Go(h.read)
	}
	return n, nil
}

func (n *Network) open(node protocol.Node) error {
	if node.ID == "" || n.hosts[node.ID] != nil || len(node.New) == 0 {
		return fmt.Errorf("%w: node %q has no name, the name of another, or no way to begin", ErrSystem, node.ID)
	}
	here := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(here, 0)))
	if err != nil {
		return fmt.Errorf("node %s: %w", node.ID, err)
	}
	port := conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	h := &host{net: n, node: node, conn: conn, address: netip.AddrPortFrom(here, port), disk: map[string][]byte{}}
	n.hosts[node.ID], n.addresses[h.address] = h, node.ID
	return nil
}

// Input gives the machine of a node a value. A node that is down does not get it. It returns an
// ErrSystem if there is no such node.
func (n *Network) Input(node protocol.NodeID, value protocol.Value) error {
	h, err := n.host(node)
	if err != nil {
		return err
	}
	h.deliver(protocol.Input{Value: value})
	return nil
}

// Crash takes a node down, between two effects of a step where one is being carried out. What it has
// forced remains; the messages that come for it are lost. It returns an ErrSystem if there is no
// such node.
func (n *Network) Crash(node protocol.NodeID) error {
	h, err := n.host(node)
	if err != nil {
		return err
	}
	if len(n.cfg.Always) > 0 {
		n.step.Lock()
		defer n.step.Unlock()
	}
	if h.halt(true) {
		n.judge(trace.Event{Node: node, Kind: trace.Crash})
	}
	return nil
}

// Restart makes the machine of a node that is down anew, and gives it protocol.Recover with what was
// forced. It does nothing where the node is up. It returns an ErrSystem if there is no such node, and
// an error if its records cannot be decoded.
func (n *Network) Restart(node protocol.NodeID) error {
	h, err := n.host(node)
	if err != nil {
		return err
	}
	return h.restart()
}

// Close stops the machines and closes the sockets. When it returns nothing of the network runs any more.
// It returns the first thing that went wrong while it ran: a claim that was broken, a message or record that
// the codec does not know, one too long, or to nobody.
func (n *Network) Close() error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	for _, h := range n.hosts {
		h.halt(false)
		_ = h.conn.Close() // a socket that only lost messages could follow
	}
	n.readers.Wait()
	n.steps.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

func (n *Network) host(node protocol.NodeID) (*host, error) {
	if h := n.hosts[node]; h != nil {
		return h, nil
	}
	return nil, fmt.Errorf("%w: it has no node %q", ErrSystem, node)
}

// begin reports whether the network is open; whoever steps a machine then calls steps.Done at the end.
func (n *Network) begin() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed {
		n.steps.Add(1)
	}
	return !n.closed
}

// fail notes the first error.
func (n *Network) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		n.err = err
	}
}

// judge judges the claims in the present state, which e has led to. The caller holds n.step.
func (n *Network) judge(e trace.Event) {
	for _, claim := range n.cfg.Always {
		if !claim.Holds(view{n}) {
			n.fail(fmt.Errorf("%w: %s, after %s", ErrClaim, claim.Name, e.Point()))
		}
	}
}

// view is the present state, as claims see it.
type view struct{ *Network }

var _ spec.View = view{}

// Nodes implements spec.View.
func (v view) Nodes() int { return len(v.cfg.Nodes) }

// Machine implements spec.View.
func (v view) Machine(i int) protocol.Machine {
	h := v.hosts[v.cfg.Nodes[i].ID]
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.life == nil {
		return nil
	}
	return h.life.machine
}

// Record implements spec.View.
func (v view) Record(i int, key string) protocol.Record {
	h := v.hosts[v.cfg.Nodes[i].ID]
	h.mu.Lock()
	defer h.mu.Unlock()
	data, ok := h.disk[key]
	if !ok {
		return nil
	}
	record, err := v.cfg.Codec.Decode(data)
	if err != nil {
		v.fail(fmt.Errorf("node %s: record %s: %w", h.node.ID, key, err))
	}
	return record
}

// deliver gives the loop an event, unless the network is closed.
func (n *Network) deliver(l *engine.Loop, ev protocol.Event) {
	if n.begin() {
		defer n.steps.Done()
		l.Deliver(ev)
	}
}
