package site

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/quorum"
)

// View is who is in the cluster, as one node knows it.
type View struct {
	// Number is that of the view.
	Number  uint64
	Members []Member
}

// Member is a node of a View.
type Member struct {
	Node protocol.NodeID
	// Storage names the stable records with which the node takes part, as the node has told. It is empty where the node
	// has not been heard, or takes no part.
	Storage string
	// Incarnation names the site's present incarnation, from Open to Close. The ids of the transactions that begin in it
	// begin with it, and a later one has a greater name. It is empty where the node has not told it.
	Incarnation string
	// Leaving says that the node is about to leave. It finishes what it takes part in, and is no acceptor of anything
	// more where there are others.
	Leaving bool
	// Votes is the node's weight as an acceptor of Paxos Commit. One without any is none.
	Votes int
}

// leavingMark ends the announcement of a node that is about to leave. No storage's name, and no incarnation's, has a space.
const leavingMark = " leaving"

// Heard returns what a view has for a node with so many votes that has announced this (Host.Announcement), or nothing.
func Heard(node protocol.NodeID, announcement string, votes int) Member {
	words, leaving := strings.CutSuffix(announcement, leavingMark)
	storage, incarnation, _ := strings.Cut(words, " ")
	return Member{Node: node, Storage: storage, Incarnation: incarnation, Leaving: leaving, Votes: votes}
}

// Transaction names a transaction among sites to those who take part in it.
type Transaction struct {
	ID commit.TransactionID `json:"id"`
	// Protocol is how it is decided.
	Protocol Protocol `json:"protocol"`
	// Coordinator is the node at which it began.
	Coordinator protocol.NodeID `json:"coordinator"`
	// View is the number of the view of the cluster from which the parts were taken.
	View uint64 `json:"view,omitempty" cbor:",omitempty"`
	// Parts are all nodes that have a part in deciding it, the coordinator first. They are settled when it is to be
	// committed, travel with every message, and stand in the stable records: whoever brings it to an end, and
	// whenever, asks these and no others. There are none while it is open for work.
	Parts []Part `json:"parts,omitempty" cbor:",omitempty"`
}

// Part is the part of a node in a transaction. One that is neither a site nor has votes is the coordinator.
type Part struct {
	Node protocol.NodeID `json:"node"`
	// Storage names the stable records with which the node takes part. The same node with others has forgotten
	// what it had promised, and is not taken for it.
	Storage string `json:"storage"`
	// Site says that the node votes on its work.
	Site bool `json:"site,omitempty" cbor:",omitempty"`
	// Votes is the node's weight as an acceptor of Paxos Commit; a majority of the votes is a quorum.
	Votes int `json:"votes,omitempty" cbor:",omitempty"`
}

// MaxSites is how many sites may take part in a transaction.
const MaxSites = 8

const (
	maxID         = 128
	mostAcceptors = 5
	// mostParts are those of all sites, the acceptors and the coordinator.
	mostParts = MaxSites + mostAcceptors + 1
)

func (t Transaction) check() error {
	if t.ID == "" || len(t.ID) > maxID || strings.ContainsRune(string(t.ID), 0) {
		return fmt.Errorf("site: the transaction's id has %d bytes; 1 to %d are allowed, none of them zero", len(t.ID), maxID)
	}
	if err := t.Protocol.Check(); err != nil {
		return fmt.Errorf("site: %w", err)
	}
	if err := checkNode(t.Coordinator); err != nil {
		return err
	}
	if len(t.Parts) > mostParts {
		return fmt.Errorf("site: %d nodes have a part in the transaction; at most %d may", len(t.Parts), mostParts)
	}
	for i, p := range t.Parts {
		err := checkNode(p.Node)
		switch {
		case err != nil:
			return err
		case p.Storage == "" || len(p.Storage) > maxID:
			return fmt.Errorf("site: the name of the storage of node %q has %d bytes; 1 to %d are allowed", p.Node, len(p.Storage), maxID)
		case p.Votes < 0 || p.Votes > quorum.MaxVotes || p.Votes > 0 && t.Protocol != PaxosCommit:
			return fmt.Errorf("site: node %q cannot have %d votes", p.Node, p.Votes)
		case slices.ContainsFunc(t.Parts[:i], func(q Part) bool { return q.Node == p.Node }):
			return fmt.Errorf("site: node %q has two parts", p.Node)
		}
	}
	return nil
}

// part returns a node's part.
func (t Transaction) part(node protocol.NodeID) (Part, bool) {
	i := slices.IndexFunc(t.Parts, func(p Part) bool { return p.Node == node })
	if i < 0 {
		return Part{}, false
	}
	return t.Parts[i], true
}

// outlived reports whether the transaction began in an earlier incarnation of its coordinator, which is now m: nobody will
// ask for it to be committed any more, unless that had been asked before.
func (t Transaction) outlived(m Member) bool {
	incarnation, _, ok := strings.Cut(string(t.ID), "-")
	return ok && m.Incarnation != "" && incarnation < m.Incarnation
}

// opens reports whether o is this transaction while it is open for work.
func (t Transaction) opens(o Transaction) bool {
	return t.ID == o.ID && t.Protocol == o.Protocol && t.Coordinator == o.Coordinator
}

// is reports whether o is the same, with the same parts.
func (t Transaction) is(o Transaction) bool {
	return t.opens(o) && t.View == o.View && slices.Equal(t.Parts, o.Parts)
}

// has reports whether a machine of the transaction has this address: the coordinator's, where that is one of its own,
// or that of a node which votes, or in Paxos Commit has any part.
func (t Transaction) has(address protocol.NodeID) bool {
	if address == t.headOf() {
		_, ok := t.part(t.Coordinator)
		return ok
	}
	p, ok := t.part(address)
	return ok && (p.Site || t.Protocol == PaxosCommit)
}

// ends reports whether a node may say that every site has reported: it is one that may bring the transaction to its end.
func (t Transaction) ends(node protocol.NodeID) bool {
	p, ok := t.part(node)
	return ok && (node == t.Coordinator || p.Votes > 0)
}

// electorate returns who decides the transaction in Paxos Commit.
func (t Transaction) electorate() *commit.Electorate {
	e := &commit.Electorate{Leaders: []protocol.NodeID{t.Coordinator}}
	for _, p := range t.Parts {
		if p.Site {
			e.Participants = append(e.Participants, p.Node)
		}
		if p.Votes > 0 {
			e.Acceptors.Members = append(e.Acceptors.Members, quorum.Member{Node: p.Node, Votes: p.Votes})
			if p.Node != t.Coordinator {
				e.Leaders = append(e.Leaders, p.Node)
			}
		}
	}
	e.Acceptors.Read = e.Acceptors.Total()/2 + 1
	e.Acceptors.Write = e.Acceptors.Read
	return e
}

// sameElectorate reports whether a message gives the transaction's electorate, or none.
func (t Transaction) sameElectorate(message any) bool {
	var e *commit.Electorate
	switch m := message.(type) {
	case commit.Prepare:
		e = m.Electorate
	case commit.Bundle:
		e = m.Electorate
	case commit.InDoubt:
		e = &m.Electorate
	}
	if e == nil {
		return true
	}
	own := t.electorate()
	return slices.Equal(e.Participants, own.Participants) && slices.Equal(e.Leaders, own.Leaders) && e.Fast == own.Fast &&
		slices.Equal(e.Acceptors.Members, own.Acceptors.Members) && e.Acceptors.Read == own.Acceptors.Read && e.Acceptors.Write == own.Acceptors.Write
}

// view returns who is in the cluster. What this node's own storage is, it knows best.
func (h *Host) view() View {
	v := h.cfg.Cluster()
	v.Members = slices.Clone(v.Members)
	for i := range v.Members {
		if v.Members[i].Node == h.cfg.Self {
			v.Members[i].Storage, v.Members[i].Leaving = h.store.owner, h.isLeaving()
		}
	}
	return v
}

// member returns a member that has been heard.
func (v View) member(node protocol.NodeID) (Member, bool) {
	i := slices.IndexFunc(v.Members, func(m Member) bool { return m.Node == node && m.Storage != "" })
	if i < 0 {
		return Member{}, false
	}
	return v.Members[i], true
}

// votes returns a member's weight as an acceptor of what is settled now. Who is about to leave has none, as if it had
// left, unless there is nobody else.
func (v View) votes(m Member) int {
	stays := func(o Member) bool { return !o.Leaving && o.Votes > 0 }
	if m.Leaving && slices.ContainsFunc(v.Members, stays) {
		return 0
	}
	return m.Votes
}

// gone reports whether the node of a part has left the cluster, or lost the records with which it took part.
func (v View) gone(p Part) bool {
	return !slices.ContainsFunc(v.Members, func(m Member) bool {
		return m.Node == p.Node && (m.Storage == "" || m.Storage == p.Storage)
	})
}

// settle gives the transaction its parts: this node as its coordinator, the sites, and, in Paxos Commit, acceptors:
// members that have been heard, those with most votes first, and of equal ones those that have a part anyway.
func (t Transaction) settle(v View, sites []protocol.NodeID) Transaction {
	t.View, t.Parts = v.Number, nil
	var votes []int // of those that may be acceptors, in the order of the parts
	add := func(node protocol.NodeID) {
		m, ok := v.member(node)
		if _, again := t.part(node); !ok || again {
			return
		}
		t.Parts = append(t.Parts, Part{Node: node, Storage: m.Storage, Site: slices.Contains(sites, node)})
		votes = append(votes, v.votes(m))
	}
	add(t.Coordinator)
	for _, n := range sites {
		add(n)
	}
	if t.Protocol != PaxosCommit {
		return t
	}
	for _, m := range v.Members {
		add(m.Node)
	}
	order := make([]int, len(t.Parts))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(votes[b], votes[a]) })
	for _, i := range order[:min(len(order), mostAcceptors)] {
		t.Parts[i].Votes = votes[i]
	}
	t.Parts = slices.DeleteFunc(t.Parts, func(p Part) bool { return !p.Site && p.Votes == 0 && p.Node != t.Coordinator })
	return t
}

// wanting says why the transaction cannot be committed at the sites in this view of the cluster, or "".
func (t Transaction) wanting(v View, sites []protocol.NodeID) string {
	heard, all := 0, 0
	var silent []string
	for _, m := range v.Members {
		all += v.votes(m)
		if m.Storage == "" {
			silent = append(silent, string(m.Node))
			continue
		}
		heard += v.votes(m)
	}
	if _, ok := v.member(t.Coordinator); !ok {
		return fmt.Sprintf("node %s is no member of the cluster", t.Coordinator)
	}
	for _, n := range sites {
		if _, ok := v.member(n); !ok {
			return fmt.Sprintf("node %s is no member of the cluster, takes no part in transactions among sites, or has not been heard of yet", n)
		}
	}
	if t.Protocol == PaxosCommit && 2*heard <= all {
		return fmt.Sprintf("acceptors are taken from the members that take part, which have %d of %d votes: not heard of %s", heard, all, strings.Join(silent, ", "))
	}
	return ""
}

// awaitParts returns t with its parts. It waits a little for nodes that are heard of any moment.
func (h *Host) awaitParts(ctx context.Context, t Transaction, sites []protocol.NodeID) (Transaction, error) {
	const pause = 10 * time.Millisecond
	for end := time.Now().Add(h.cfg.VoteTimeout); ; {
		v := h.view()
		why := t.wanting(v, sites)
		if why == "" {
			return t.settle(v, sites), nil
		}
		if time.Now().After(end) {
			return t, fmt.Errorf("site: %q: %w: %s", t.ID, ErrAlone, why)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return t, fmt.Errorf("site: %q: %w: %s: %w", t.ID, ErrAlone, why, ctx.Err())
		case <-h.life.Done():
			return t, ErrClosed
		}
	}
}

// missing says which of those that the transaction needs are gone, as far as the view tells: they have left the cluster,
// or have lost what they promised; or "".
func (t Transaction) missing(v View) string {
	const left = "have left the cluster, or lost their records: "
	var system quorum.System
	for _, p := range t.Parts {
		switch {
		case t.Protocol == PaxosCommit && p.Votes > 0:
			system.Members = append(system.Members, quorum.Member{Node: p.Node, Votes: p.Votes})
		case t.Protocol == QuorumThreePhase && p.Site:
			system.Members = append(system.Members, quorum.Member{Node: p.Node, Votes: 1})
		case t.Protocol == TwoPhase && p.Node == t.Coordinator && v.gone(p):
			return left + string(p.Node) + ", which coordinates it"
		case t.Protocol == ThreePhase && v.gone(p):
			return left + string(p.Node) + ", for which all wait that have been started again"
		}
	}
	system.Write = system.Total()/2 + 1
	tally := system.WriteTally(func(node protocol.NodeID) quorum.Answer {
		if p, _ := t.part(node); v.gone(p) {
			return quorum.Unreachable
		}
		return quorum.Granted
	})
	if len(system.Members) == 0 || tally.Verdict() == quorum.Reached {
		return ""
	}
	return left + tally.String()
}
