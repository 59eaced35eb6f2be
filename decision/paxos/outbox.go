package paxos

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"assent/protocol"
)

// outbox puts together what proposers say to one member at about the same time. Where there is but one
// proposer its messages leave at once.
type outbox struct {
	// crowd is how many proposers are at work.
	crowd atomic.Int64

	mu       sync.Mutex
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
	if o.crowd.Load() <= 1 {
		l.cfg.Network.Send(p.node, appendMessage(l.payloadOf(256, epoch), message))
		return
	}
	o.mu.Lock()
	if o.roster != r {
		if o.roster != nil && o.roster.number() > epoch {
			o.mu.Unlock()
			return
		}
		o.roster, o.waiting = r, make([][]byte, len(r.peers))
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
	runtime.Gosched()
	o.mu.Lock()
	o.flushing = false
	to := o.roster.peers
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
