package paxos

import (
	"slices"
	"sync"
	"sync/atomic"

	"assent/engine"
	"assent/protocol"
)

// outbox puts together what proposers say to one member at about the same time. Where there is but one
// proposer its messages leave at once.
type outbox struct {
	// crowd is how many proposers are at work. Company says that several had something in what was sent last:
	// those who are answered together begin anew together, and the first of them is alone only for a moment.
	crowd   atomic.Int64
	company atomic.Bool

	mu       sync.Mutex
	messages int      // that wait
	roster   *roster  // the epoch of those that wait
	waiting  [][]byte // a payload for each of its peers, or nil
	size     int      // of the latest
	flushing bool     // somebody will send them
}

// add sends the message, of that epoch, to the node, in good company if there is any. It is lost where the
// epoch is over, of which its proposer is about to hear, or this node is not a member, whom nobody answers.
func (o *outbox) add(l *Log, to protocol.NodeID, epoch uint64, message protocol.Message) {
	r := l.roster.Load()
	p := r.peers.of(to)
	if p == nil || r.number() != epoch || !r.member() {
		return
	}
	if o.crowd.Load() <= 1 && !o.company.Load() {
		l.cfg.Network.Send(p.node, appendMessage(l.payloadOf(256, epoch), message))
		return
	}
	o.mu.Lock()
	if o.roster != r {
		if o.roster != nil && o.roster.number() > epoch {
			o.mu.Unlock()
			return
		}
		o.roster, o.waiting, o.messages = r, make([][]byte, len(r.peers)), 0
	}
	b := o.waiting[p.index]
	if b == nil {
		b = l.payloadOf(max(o.size+o.size/4, 512), epoch)
	}
	b = appendMessage(b, message)
	var full []byte
	if len(b) > maxPayload {
		b, full = nil, b
	}
	o.waiting[p.index] = b
	o.messages++
	first := !o.flushing
	o.flushing = true
	o.mu.Unlock()
	if full != nil {
		l.cfg.Network.Send(p.node, full)
	}
	if first {
		go o.flush(l)
	}
}

// flush sends what is waiting when those who run now have had their say.
func (o *outbox) flush(l *Log) {
	engine.Gather(o.count)
	o.mu.Lock()
	o.flushing = false
	to := o.roster.peers
	o.company.Store(o.messages > len(to))
	o.messages = 0
	ready := make([][]byte, len(o.waiting))
	copy(ready, o.waiting)
	o.size = len(slices.MaxFunc(ready, func(a, b []byte) int { return len(a) - len(b) }))
	clear(o.waiting)
	o.mu.Unlock()
	for i, b := range ready {
		if b != nil {
			l.cfg.Network.Send(to[i].node, b)
		}
	}
}

// count returns how many messages wait.
func (o *outbox) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.messages
}
