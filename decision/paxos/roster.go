package paxos

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"assent/protocol"
	"assent/protocol/paxos"
	"assent/protocol/quorum"
)

// roster is an epoch as one of its nodes sees it. It does not change; what is known of the others does.
type roster struct {
	epoch  Epoch
	system paxos.Epoch
	self   protocol.NodeID
	// own are the entries of this node in the sets that name it: none where it is not a member.
	own    []Member
	peers  peers // the other members, by place
	places [MaxMembers]*peer
}

// contact is what is known of another node, whatever changes about its membership.
type contact struct {
	// heard is when something last came from it, in nanoseconds since the Log was opened; 0 for never.
	heard atomic.Int64
	// incarnation names its Log, and hello is what it last said of itself.
	incarnation atomic.Pointer[protocol.NodeID]
	hello       atomic.Pointer[hello]
	strange     atomic.Uint64 // payloads that could not be used
	// told is when it was last told of an epoch, or asked for one, as heard.
	told atomic.Int64
}

// peer is another member in an epoch.
type peer struct {
	*contact
	node    protocol.NodeID
	storage string // that the epoch names
	unnamed bool   // a set names the node without one
	votes   int
	index   int // in peers
	place   int
	bit     uint64 // 1 << place
	since   uint64 // the epoch with which it came
}

// lastIncarnation returns the name of the peer's Log, "" where it is not known.
func (p *peer) lastIncarnation() string {
	if is := p.incarnation.Load(); is != nil {
		return string(*is)
	}
	return ""
}

type peers []*peer

// of returns the peer of that name, or nil.
func (all peers) of(node protocol.NodeID) *peer {
	for _, p := range all {
		if p.node == node {
			return p
		}
	}
	return nil
}

// newRoster returns e as self sees it. What is known of those who are in was, which may be nil, is kept.
func newRoster(self protocol.NodeID, e Epoch, was *roster) *roster {
	r := &roster{epoch: e, system: e.Acceptors(), self: self}
	for _, set := range [][]Member{e.Members, e.Next} {
		if m, ok := find(set, self); ok {
			r.own = append(r.own, m)
		}
	}
	for _, m := range e.named() {
		if m.Node == self {
			continue
		}
		p := &peer{node: m.Node, storage: m.Storage, votes: m.Votes, place: m.Place, bit: 1 << m.Place, since: m.Since, index: len(r.peers)}
		if was != nil {
			if known := was.peers.of(m.Node); known != nil {
				p.contact = known.contact
			}
		}
		if p.contact == nil {
			p.contact = &contact{}
		}
		for _, set := range [][]Member{e.Members, e.Next} {
			if m, ok := find(set, p.node); ok && m.Storage == "" {
				p.unnamed = true
			}
		}
		r.peers = append(r.peers, p)
		r.places[p.place] = p
	}
	return r
}

func (r *roster) number() uint64 { return r.epoch.Number }

// since returns the epoch with which this node came, where it is a member.
func (r *roster) since() uint64 {
	if !r.member() {
		return 0
	}
	return r.own[0].Since
}

// member reports whether this node is in either set, and may propose.
func (r *roster) member() bool { return len(r.own) > 0 }

// serves reports whether this node's directory, of that name, is the one that counts. Admitted says that the
// others have written it down.
func (r *roster) serves(storage string, admitted bool) bool {
	for _, m := range r.own {
		if m.Storage == "" && !admitted || m.Storage != "" && m.Storage != storage {
			return false
		}
	}
	return r.member()
}

// unnamed reports whether a set names this node without a storage, so that the others must write it down.
func (r *roster) unnamed() bool {
	for _, m := range r.own {
		if m.Storage == "" {
			return true
		}
	}
	return false
}

// votes returns this node's votes.
func (r *roster) votes() (votes int) {
	for _, m := range r.own {
		votes = max(votes, m.Votes)
	}
	return votes
}

// tallies say how the quorums of one or, in an epoch of both, two sets stand. Each must agree.
type tallies []quorum.Tally

// Verdict returns how they stand together.
func (t tallies) Verdict() quorum.Verdict {
	worst := quorum.Reached
	for _, one := range t {
		worst = max(worst, one.Verdict())
	}
	return worst
}

// silent reports whether somebody is reachable and has not answered.
func (t tallies) silent() bool {
	for _, one := range t {
		if len(one.Silent) > 0 {
			return true
		}
	}
	return false
}

// String returns "1 of 3 votes, 2 needed: b and c unreachable"; for two sets what both say.
func (t tallies) String() string {
	var all []string
	for i, one := range t {
		text := one.String()
		if len(t) > 1 {
			text = [...]string{"before the change ", "after it "}[i] + text
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

// count returns how the quorums stand, those to write or those to read.
func (r *roster) count(write bool, answer func(protocol.NodeID) quorum.Answer) (all tallies) {
	for _, s := range r.system.Joint() {
		if write {
			all = append(all, s.WriteTally(answer))
		} else {
			all = append(all, s.ReadTally(answer))
		}
	}
	return all
}

// ErrNotMember says that this node is not a member, so that nothing can be asked of it but what it holds.
var ErrNotMember = errors.New("not a member")

// outside says that this node is not a member.
func (r *roster) outside() error {
	if r.number() == 0 {
		return fmt.Errorf("%s is %w of a cluster that it knows", r.self, ErrNotMember)
	}
	return fmt.Errorf("%s is %w in epoch %d", r.self, ErrNotMember, r.number())
}
