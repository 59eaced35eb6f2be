package cluster

import (
	"sync"

	"assent/protocol"
	"assent/protocol/detector"
	"assent/protocol/election"
)

// watcher is the machine of a node's beliefs: who is up, and of those, who leads. What the detector
// suspects, the elector is told.
type watcher struct {
	mu       sync.Mutex // Step is called by one goroutine at a time; others look
	detector *detector.Detector
	elector  *election.Elector
}

func newWatcher(c *Config) *watcher {
	nodes := c.nodes()
	var others []protocol.NodeID
	for _, n := range nodes {
		if n != c.Self {
			others = append(others, n)
		}
	}
	return &watcher{
		detector: detector.New(others, c.Detector),
		elector:  &election.Elector{Self: c.Self, Nodes: nodes, Options: c.Election},
	}
}

// Step routes an event to the part that it concerns. Every message is a sign of life.
func (w *watcher) Step(ev protocol.Event, out *protocol.Effects) {
	w.mu.Lock()
	defer w.mu.Unlock()
	emitted := len(out.Emits)
	switch ev := ev.(type) {
	case protocol.Expire:
		if ev.Timer == detector.Timer {
			w.detector.Step(ev, out)
		} else {
			w.elector.Step(ev, out)
		}
	case protocol.Receive:
		w.detector.Step(ev, out)
		w.elector.Step(ev, out)
	default:
		w.detector.Step(ev, out)
		w.elector.Step(ev, out)
	}
	for _, v := range out.Emits[emitted:] {
		if s, ok := v.(detector.Suspect); ok {
			w.elector.Step(protocol.Input{Value: election.Suspect{Node: s.Node}}, out)
		}
	}
	// The news that a node leads may come when it is suspected already.
	for _, node := range w.detector.Suspected() {
		if node == w.elector.Leader {
			w.elector.Step(protocol.Input{Value: election.Suspect{Node: node}}, out)
		}
	}
}

// reborn notes that the node has begun a new life: suspicions of the last one were right and are nothing to
// be more patient for, and its silence says nothing of its rhythm.
func (w *watcher) reborn(node protocol.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.detector.Peers {
		if p := &w.detector.Peers[i]; p.Node == node {
			p.Mistakes, p.Intervals = 0, nil
		}
	}
}

// leader returns who leads, as far as this node knows.
func (w *watcher) leader() (protocol.NodeID, election.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.elector.Leader, w.elector.State
}

// suspicion returns whether the node is suspected, and how suspicious its silence is as a share of
// what makes it suspected.
func (w *watcher) suspicion(node protocol.NodeID) (suspected bool, level float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	level = w.detector.Level(node)
	for _, p := range w.detector.Peers {
		if p.Node == node {
			suspected = p.Suspected
			if phi := w.detector.Options.Phi; phi > 0 && len(p.Intervals) >= 4 {
				level /= float64(phi)
			}
		}
	}
	return suspected, level
}
