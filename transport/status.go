package transport

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"assent/protocol"
)

// PeerStatus is how it stands with one peer.
type PeerStatus struct {
	Node    protocol.NodeID `json:"node"`
	Address string          `json:"address"`
	// Guest says that it is none of the peers that the mesh was given.
	Guest bool `json:"guest,omitempty"`
	// Connected says that there is a stream to the peer, and Since since when; or since when there
	// is none, and Why.
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`
	Why       string    `json:"why,omitempty"`
	// Hears says that there is a stream from the peer, and Heard when the last byte came from it, on
	// a stream of either way; zero for never.
	Hears bool      `json:"hears"`
	Heard time.Time `json:"heard,omitzero"`
	// RoundTrip is how long the last ping took, the wait for what was to be written before it
	// included; 0 before the first.
	RoundTrip time.Duration `json:"roundTrip,omitempty"`
	// Queued are the bytes that wait to be written.
	Queued int `json:"queued"`
	// Sent and Received count messages, Dropped those for which the queue was full or which were too
	// long, Missed those that were given up because the peer was away, and Breaks the streams to the
	// peer that have ended: all since the peer became one. Sent includes those that were lost on the
	// way. Lost counts messages that came from the peer and were lost here: nobody was there to receive
	// them, or the peer is a guest and sent too many.
	Sent     uint64 `json:"sent"`
	Received uint64 `json:"received"`
	Lost     uint64 `json:"lost"`
	Dropped  uint64 `json:"dropped"`
	Missed   uint64 `json:"missed"`
	Breaks   uint64 `json:"breaks"`
	// Version is the protocol's, and Software what the peer says of its program. Both are zero
	// before the first connection.
	Version  int    `json:"version,omitempty"`
	Software string `json:"software,omitempty"`
}

// Status returns how it stands with each peer, by name.
func (m *Mesh) Status() []PeerStatus {
	var all []PeerStatus
	for _, p := range *m.byNode.Load() {
		all = append(all, p.status())
	}
	slices.SortFunc(all, func(a, b PeerStatus) int { return strings.Compare(string(a.Node), string(b.Node)) })
	return all
}

func (p *peer) status() PeerStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := PeerStatus{
		Node: p.node, Address: p.address, Guest: p.guest.Load(), Connected: p.out != nil, Since: p.since, Hears: p.in != nil,
		RoundTrip: time.Duration(p.rtt.Load()), Queued: len(p.queue),
		Sent: p.sent.Load(), Received: p.received.Load(), Lost: p.lost.Load(), Dropped: p.dropped.Load(), Missed: p.missed.Load(), Breaks: p.breaks.Load(),
		Version: int(p.version), Software: p.program,
	}
	if p.why != nil && p.out == nil {
		s.Why = p.why.Error()
	}
	heard := p.heard.Load()
	if p.in != nil {
		heard = max(heard, p.in.heard.Load())
	}
	if p.out != nil {
		heard = max(heard, p.out.wire.heard.Load())
	}
	if heard > 0 {
		s.Heard = p.mesh.epoch.Add(time.Duration(heard))
	}
	return s
}

// Words says how it stands with the peer at the time now, for people: "connected for 5m0s, round trip
// 212µs", "away for 12s: connection refused".
func (s PeerStatus) Words(now time.Time) string {
	var words []string
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	length := roughly(now.Sub(s.Since))
	switch {
	case s.Connected && s.Hears:
		add("connected for %v", length)
	case s.Connected:
		add("connected for %v, and it has not called back", length)
	default:
		add("away for %v: %s", length, s.Why)
		if s.Hears {
			add("though it still reaches this node")
		}
	}
	if s.Connected && s.RoundTrip > 0 {
		add("round trip %v", roughly(s.RoundTrip))
	}
	if s.Connected && s.Queued > 0 {
		add("%d bytes queued", s.Queued)
	}
	if s.Dropped > 0 {
		add("%d messages dropped", s.Dropped)
	}
	return strings.Join(words, ", ")
}

// roughly rounds a time to what a person wants to read.
func roughly(d time.Duration) time.Duration {
	d = max(d, 0)
	for _, unit := range []time.Duration{time.Minute, time.Second, time.Millisecond, time.Microsecond} {
		if d >= unit {
			return d.Round(unit / 10)
		}
	}
	return d
}
