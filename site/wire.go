package site

import (
	"fmt"
	"strings"

	"assent/protocol"
	"assent/protocol/commit"
)

// letter is what travels between sites: a message of one machine to another of the same transaction.
type letter struct {
	Transaction Transaction
	// From and To are the machines' addresses at the transaction.
	From, To protocol.NodeID
	// Body is the message's encoding.
	Body []byte
}

// completed says that every site has reported how its branches ended.
type completed struct{ Transaction Transaction }

// askOver asks a node whether the transaction is over there: whether it is in doubt about nothing and never will be.
// over says that it is so. Where it is not, there is no answer.
type (
	askOver struct{ Transaction Transaction }
	over    struct{ Transaction Transaction }
)

// headSuffix ends the address of a coordinator that is a machine of its own. In Paxos Commit a site is
// one machine, whatever its roles.
const headSuffix = "/c"

// headOf returns the address of the transaction's coordinator.
func (t Transaction) headOf() protocol.NodeID {
	if t.Protocol == PaxosCommit {
		return t.Coordinator
	}
	return t.Coordinator + headSuffix
}

// nodeOf returns the node at which the machine with this address is.
func nodeOf(address protocol.NodeID) protocol.NodeID {
	return protocol.NodeID(strings.TrimSuffix(string(address), headSuffix))
}

func newCodec() (*protocol.Codec, error) {
	return protocol.NewCodec(append(commit.Types(),
		protocol.Type{Name: "site.Transaction", Zero: Transaction{}},
		protocol.Type{Name: "site.Letter", Zero: letter{}},
		protocol.Type{Name: "site.Completed", Zero: completed{}},
		protocol.Type{Name: "site.AskOver", Zero: askOver{}},
		protocol.Type{Name: "site.Over", Zero: over{}},
		protocol.Type{Name: "site.Evidence", Zero: evidence{}},
		protocol.Type{Name: "site.Note", Zero: Note{}})...)
}

// send puts a message of the transaction t on its way. Of one that nobody was asked to commit there is nothing to say
// to anybody.
func (h *Host) send(t Transaction, from, to protocol.NodeID, message protocol.Message) {
	if len(t.Parts) == 0 {
		return
	}
	if nodeOf(to) == h.cfg.Self {
		// Not within this step: the other machine may have something to say to this one.
		h.spawn(func() {
			if err := h.deliver(t, from, to, message); err != nil {
				h.cfg.Logger.Error("a message to this node itself is dropped", "transaction", t.ID, "error", err)
			}
		})
		return
	}
	body, err := h.codec.Encode(message)
	if err == nil {
		var data []byte
		if data, err = h.codec.Encode(letter{t, from, to, body}); err == nil {
			h.cfg.Network.Send(nodeOf(to), data)
			return
		}
	}
	h.cfg.Logger.Error("a message cannot be sent", "transaction", t.ID, "to", to, "error", err)
}

// mail is a payload that has arrived.
type mail struct {
	from protocol.NodeID
	data []byte
}

// How many payloads wait to be read, and how many goroutines read. More are lost, as a network may.
const (
	mostMail = 4096
	readers  = 8
)

// receive takes what arrives from the network, which it does not keep waiting for a disk.
func (h *Host) receive(from protocol.NodeID, payload []byte) {
	select {
	case h.inbound <- mail{from, payload}:
	default:
	}
}

// read reads what has arrived, until the host is closed.
func (h *Host) read() {
	for {
		select {
		case m := <-h.inbound:
			if err := h.accept(m); err != nil {
				h.cfg.Logger.Warn("a message is dropped", "from", m.from, "error", err)
			}
		case <-h.life.Done():
			return
		}
	}
}

func (h *Host) accept(m mail) error {
	v, err := h.codec.Decode(m.data)
	if err != nil {
		return err
	}
	l, ok := v.(letter)
	if !ok {
		return h.conclude(m.from, v)
	}
	message, err := h.open(m.from, l)
	if err != nil {
		return err
	}
	if err := h.deliver(l.Transaction, l.From, l.To, message); err != nil {
		return fmt.Errorf("transaction %q: %w", l.Transaction.ID, err)
	}
	return nil
}

// conclude takes what nodes say to one another of a transaction's end.
func (h *Host) conclude(from protocol.NodeID, v any) error {
	switch v := v.(type) {
	case completed:
		if err := h.concerns(from, v.Transaction); err != nil {
			return err
		}
		if !v.Transaction.ends(from) {
			return fmt.Errorf("transaction %q is not node %q's to end", v.Transaction.ID, from)
		}
		h.completed(v.Transaction)
	case askOver:
		if err := h.concerns(from, v.Transaction); err != nil {
			return err
		}
		if h.isOver(v.Transaction) {
			h.tell(from, over(v))
		}
	case over:
		if err := h.concerns(from, v.Transaction); err != nil {
			return err
		}
		h.clear(from, v.Transaction)
	default:
		return fmt.Errorf("it is a %T", v)
	}
	return nil
}

// tell sends a node something that is no message of a machine.
func (h *Host) tell(to protocol.NodeID, v any) {
	data, err := h.codec.Encode(v)
	if err != nil {
		h.cfg.Logger.Error("a message cannot be sent", "to", to, "error", err)
		return
	}
	h.cfg.Network.Send(to, data)
}

// concerns returns nil if the transaction is one in which the node from and this site have a part, this site with the
// records that it has.
func (h *Host) concerns(from protocol.NodeID, t Transaction) error {
	if err := t.check(); err != nil {
		return err
	}
	if _, ok := t.part(from); !ok {
		return fmt.Errorf("node %q has no part in transaction %q", from, t.ID)
	}
	own, ok := t.part(h.cfg.Self)
	if !ok {
		return fmt.Errorf("this node has no part in transaction %q", t.ID)
	}
	if own.Storage != h.store.owner {
		return fmt.Errorf("transaction %q is that of the records %q, and this node has lost them: it has %q", t.ID, own.Storage, h.store.owner)
	}
	return nil
}

// open returns the message in a letter that is for this site.
func (h *Host) open(from protocol.NodeID, l letter) (message any, err error) {
	if err := h.concerns(from, l.Transaction); err != nil {
		return nil, err
	}
	switch {
	case nodeOf(l.From) != from:
		return nil, fmt.Errorf("it says that it is from %q", l.From)
	case nodeOf(l.To) != h.cfg.Self:
		return nil, fmt.Errorf("it is for %q", l.To)
	case !l.Transaction.has(l.From), !l.Transaction.has(l.To):
		return nil, fmt.Errorf("transaction %q has no machine with the address %q, or none with %q", l.Transaction.ID, l.From, l.To)
	}
	if message, err = h.codec.Decode(l.Body); err != nil {
		return nil, err
	}
	if !l.Transaction.sameElectorate(message) {
		return nil, fmt.Errorf("it gives transaction %q another electorate", l.Transaction.ID)
	}
	return message, nil
}
