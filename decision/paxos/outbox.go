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
	waiting  [][]byte // a payload for each peer, or nil
	size     int      // of the latest
	flushing bool     // somebody will send them
}

// add sends the message to the peer, in good company if there is any.
func (o *outbox) add(l *Log, p *peer, message protocol.Message) {
	if o.crowd.Load() <= 1 {
		l.cfg.Network.Send(p.node, appendMessage(l.payload(), message))
		return
	}
	o.mu.Lock()
	b := o.waiting[p.index]
	if b == nil {
		b = l.payloadOf(max(o.size+o.size/4, 512))
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
	ready := make([][]byte, len(o.waiting))
	copy(ready, o.waiting)
	o.size = len(slices.MaxFunc(ready, func(a, b []byte) int { return len(a) - len(b) }))
	clear(o.waiting)
	o.mu.Unlock()
	for i, b := range ready {
		if b != nil {
			l.cfg.Network.Send(l.peers[i].node, b)
		}
	}
}
