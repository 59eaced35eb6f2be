package transport

import (
	"fmt"
	"maps"
	"time"

	"assent/protocol"
)

// Bounds of a guest's messages: so many a second on average, and so many at once. What is beyond is lost.
const (
	guestRate  = 50
	guestBurst = 100
)

// receiveGuest returns the guest that the hello is from, which is new, or why it is not let in.
func (m *Mesh) receiveGuest(h hello) (*peer, error) {
	if m.cfg.Guests == 0 {
		return nil, fmt.Errorf("node %s is not among the peers of node %s, which are %v", h.from, m.cfg.Self, m.names())
	}
	if h.address == "" {
		return nil, fmt.Errorf("node %s is not among the peers of node %s, and says not where to answer it", h.from, m.cfg.Self)
	}
	if err := m.cfg.checkPeers(map[protocol.NodeID]string{h.from: h.address}); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.peers[h.from]; p != nil {
		return p, nil // it has become one
	}
	guests := 0
	for _, p := range m.peers {
		if p.guest.Load() {
			guests++
		}
	}
	if guests >= m.cfg.Guests || m.closed {
		return nil, fmt.Errorf("node %s is not among the peers of node %s, and there are %d others already that are not", h.from, m.cfg.Self, guests)
	}
	p := newPeer(m, h.from, h.address)
	p.guest.Store(true)
	m.peers[h.from] = p
	m.group.Go(p.run)
	m.group.Go(p.seeOut)
	now := maps.Clone(m.peers)
	m.byNode.Store(&now)
	return p, nil
}

// seeOut ends a guest from whom there has been no stream for the time in which one is given up, twice. It ends
// where the guest becomes a peer.
func (p *peer) seeOut() {
	gone := 0
	for ticker := time.NewTicker(p.mesh.cfg.Silence); ; {
		select {
		case <-p.life.Done():
			ticker.Stop()
			return
		case <-ticker.C:
		}
		p.mu.Lock()
		gone++
		if p.in != nil {
			gone = 0
		}
		p.mu.Unlock()
		if gone >= 2 && p.mesh.dismiss(p) || !p.guest.Load() {
			ticker.Stop()
			return
		}
	}
}

// dismiss ends a peer if it is a guest.
func (m *Mesh) dismiss(p *peer) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !p.guest.Load() || m.peers[p.node] != p {
		return false
	}
	p.close()
	delete(m.peers, p.node)
	now := maps.Clone(m.peers)
	m.byNode.Store(&now)
	return true
}

// mayHear reports whether a message of a guest is delivered. What it is allowed is one allowance for all its
// connections, and what comes on a channel that is not for guests is no part of it.
func (p *peer) mayHear(channel byte) bool {
	if channel != p.mesh.cfg.GuestChannel {
		p.mesh.log.warn("messages of a node that is no peer are lost: that channel is for peers", "node", p.node, "channel", channel)
		return false
	}
	if !p.allowed.take(time.Now()) {
		p.mesh.log.warn("messages of a node that is no peer are lost: it sends too many", "node", p.node)
		return false
	}
	return true
}

// allowance is what a guest may still send.
type allowance struct {
	left float64
	at   time.Time
}

// take reports whether one more message is allowed at the time now.
func (a *allowance) take(now time.Time) bool {
	if a.at.IsZero() {
		a.left = guestBurst
	} else {
		a.left = min(guestBurst, a.left+guestRate*now.Sub(a.at).Seconds())
	}
	a.at = now
	if a.left < 1 {
		return false
	}
	a.left--
	return true
}
