package paxos

import (
	"slices"

	"assent/decision"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/paxos"
	"assent/resource"
)

// A payload is a sequence of CBOR items (RFC 8742): an envelope, then messages, each an array that
// begins with its kind. See docs/format/acceptor.md.
const (
	wireVersion = 2

	maxEntry = 8 << 20 // bytes; what decision.Entry.Check admits is below
	maxNote  = 8 << 10
	maxName  = 256
	// maxPayload is the size above which a payload is sent, and no more added.
	maxPayload = 256 << 10
	// maxItems bounds the lists in messages.
	maxItems = 4096
)

// kind says what a message is.
type kind byte

// The kinds of messages. Numbers are for ever.
const (
	kindPhase1a kind = iota + 1
	kindPhase1b
	kindPhase2a
	kindPhase2b
	kindRefused
	kindChosen
	kindVoid
	kindHello
	kindWelcome
	kindQuery
	kindAnswer
	kindNote
	kindForget
	kindDone
	kindPageQuery
	kindPage
	kindFeed
	kindFetch
	kindStates
	kindFeedAck
	kindEpoch
	kindMovedQuery
	kindMoved
)

// envelope begins a payload.
type envelope struct {
	owner string
	// incarnation names the sender's Log, and stamp is the latest that it knows.
	incarnation protocol.NodeID
	stamp       uint64
	// epoch is the number of the one that the messages are of.
	epoch uint64
}

func appendEnvelope(b []byte, e envelope) []byte {
	b = appendUint(appendArray(b, 5), wireVersion)
	b = appendUint(appendText(appendText(b, e.owner), e.incarnation), e.stamp)
	return appendUint(b, e.epoch)
}

func (r *reader) envelope() (e envelope) {
	r.array(5)
	if r.uint() != wireVersion {
		r.fail()
	}
	e.owner = r.text(resource.MaxOwner)
	e.incarnation = r.node()
	e.stamp = r.uint()
	e.epoch = r.uint()
	return e
}

func (r *reader) node() protocol.NodeID { return protocol.NodeID(r.text(maxName)) }

func (r *reader) id() commit.TransactionID {
	return commit.TransactionID(r.text(resource.MaxTransaction))
}

func appendValue(b []byte, v Value) []byte {
	return appendBytes(appendUint(appendUint(b, v.Stamp), uint64(v.Status)), v.Entry)
}

func (r *reader) value() Value {
	v := Value{Stamp: r.uint(), Status: decision.Status(r.most(uint64(decision.Done)))}
	if raw := r.bytes(maxEntry); len(raw) > 0 {
		v.Entry = slices.Clone(raw)
	}
	return v
}

func appendBallot(b []byte, x paxos.Ballot) []byte {
	return appendText(appendUint(appendUint(b, x.Epoch), x.Round), x.Node)
}

func (r *reader) ballot() paxos.Ballot {
	b := paxos.Ballot{Epoch: r.uint()}
	b.Round = r.uint()
	b.Node = r.node()
	return b
}

// appendMessage appends a message of the protocol. A Phase2b goes without its value, which the ballot's
// proposer knows: the stamp says which it is.
func appendMessage(b []byte, message protocol.Message) []byte {
	switch m := message.(type) {
	case phase1a:
		b = append(appendArray(b, 5), byte(kindPhase1a))
		return appendBallot(appendText(b, m.Instance), m.Ballot)
	case phase1b:
		b = append(appendArray(b, 11), byte(kindPhase1b))
		return appendValue(appendBallot(appendBallot(appendText(b, m.Instance), m.Ballot), m.Accepted), m.Value)
	case phase2a:
		b = append(appendArray(b, 8), byte(kindPhase2a))
		return appendValue(appendBallot(appendText(b, m.Instance), m.Ballot), m.Value)
	case phase2b:
		b = append(appendArray(b, 6), byte(kindPhase2b))
		return appendUint(appendBallot(appendText(b, m.Instance), m.Ballot), m.Value.Stamp)
	case refused:
		b = append(appendArray(b, 8), byte(kindRefused))
		return appendBallot(appendBallot(appendText(b, m.Instance), m.Ballot), m.Promised)
	case chosen:
		b = append(appendArray(b, 5), byte(kindChosen))
		return appendValue(appendText(b, m.Instance), m.Value)
	case Void:
		b = append(appendArray(b, 3), byte(kindVoid))
		return appendUint(appendText(b, m.Instance), m.Forgotten)
	}
	panic("not a message of this protocol")
}

// message reads a message of n items, kind included, that appendMessage made.
func (r *reader) message(k kind, n int) (id commit.TransactionID, m protocol.Message) {
	id = r.id()
	instance := paxos.Instance(id)
	items := 0
	switch k {
	case kindPhase1a:
		m, items = phase1a{Instance: instance, Ballot: r.ballot()}, 5
	case kindPhase1b:
		p := phase1b{Instance: instance, Ballot: r.ballot()}
		p.Accepted = r.ballot()
		p.Value = r.value()
		m, items = p, 11
	case kindPhase2a:
		p := phase2a{Instance: instance, Ballot: r.ballot()}
		p.Value = r.value()
		m, items = p, 8
	case kindPhase2b:
		p := phase2b{Instance: instance, Ballot: r.ballot()}
		p.Value.Stamp = r.uint()
		m, items = p, 6
	case kindRefused:
		p := refused{Instance: instance, Ballot: r.ballot()}
		p.Promised = r.ballot()
		m, items = p, 8
	case kindChosen:
		m, items = chosen{Instance: instance, Value: r.value()}, 5
	case kindVoid:
		m, items = Void{Instance: instance, Forgotten: r.uint()}, 3
	}
	if n != items {
		r.fail()
	}
	return id, m
}

func appendHeld(b []byte, h held) []byte {
	b = appendBool(appendText(appendArray(b, 7), h.id), h.chosen)
	b = appendUint(appendValue(b, h.value), h.forgotten)
	b = appendArray(b, len(h.notes))
	for _, n := range h.notes {
		b = appendNote(b, n)
	}
	return b
}

// maxHeldNotes is more than decision.MaxNotes, for notes may be added at several nodes at once.
const maxHeldNotes = 4 * decision.MaxNotes

func (r *reader) held() (h held) {
	r.array(7)
	h.id = r.id()
	h.chosen = r.bool()
	h.value = r.value()
	h.forgotten = r.uint()
	for range r.list(maxHeldNotes) {
		h.notes = append(h.notes, r.note())
	}
	return h
}

func appendNote(b []byte, n Note) []byte {
	return appendBytes(appendText(appendUint(appendArray(b, 3), n.Stamp), n.Node), n.Note)
}

func (r *reader) note() (n Note) {
	r.array(3)
	n.Stamp = r.uint()
	n.Node = r.node()
	n.Note = slices.Clone(r.bytes(maxNote))
	return n
}
