package paxos

import (
	"fmt"
	"slices"

	"assent/decision"
	"assent/protocol"
	"assent/protocol/commit"
	"assent/protocol/paxos"
)

// Short names of the protocol's messages about decisions.
type (
	phase1a = paxos.Phase1a[Value]
	phase1b = paxos.Phase1b[Value]
	phase2a = paxos.Phase2a[Value]
	phase2b = paxos.Phase2b[Value]
	refused = paxos.Refused[Value]
	chosen  = paxos.Chosen[Value]
)

// Void tells a proposer that its value is older than the forgetting of the transaction.
type Void struct {
	Instance  paxos.Instance
	Forgotten uint64
}

// What a Copy is told besides the protocol's messages.
type (
	// Learn says what is known elsewhere: the decision, notes, that the transaction was forgotten.
	Learn struct {
		Chosen    bool
		Value     Value
		Notes     []Note
		Forgotten uint64
	}
	// Annotate adds a note. Forced asks for it to be stable before anything follows.
	Annotate struct {
		Note   Note
		Forced bool
	}
)

// The stable records of a Copy, besides the acceptor's.
type (
	// ChosenRecord says that Value is decided or, where Accepted is set, that the value is which the
	// acceptor has accepted last.
	ChosenRecord struct {
		Accepted bool
		Value    Value
	}
	// NoteRecord adds a note.
	NoteRecord struct {
		Note   Note
		Forced bool
	}
	// ForgottenRecord voids all records before it.
	ForgottenRecord struct{ Stamp uint64 }
)

// acceptorRecord is the acceptor's record.
type acceptorRecord = paxos.AcceptorRecord[Value]

// Copy is what a member holds of one transaction: its acceptor until the decision is known, then
// the decision, and the notes. It is a machine; its acceptor is one of protocol/paxos.
type Copy struct {
	ID commit.TransactionID
	// Acceptor is nil before the first ballot, and when the decision is known.
	Acceptor *paxos.Acceptor[Value] `cbor:",omitempty"`
	// Chosen says that Value is decided.
	Chosen bool `cbor:",omitempty"`
	Value  Value
	// Notes are sorted, each once.
	Notes []Note `cbor:",omitempty"`
	// Forgotten voids proposals and notes with that stamp or an earlier one.
	Forgotten uint64 `cbor:",omitempty"`
}

// acceptor returns the acceptor, made when it is needed first.
func (r *Copy) acceptor() *paxos.Acceptor[Value] {
	if r.Acceptor == nil {
		r.Acceptor = &paxos.Acceptor[Value]{Instance: paxos.Instance(r.ID), Owner: owner(r.ID)}
	}
	return r.Acceptor
}

// ballots returns what was promised, and in which ballot what was accepted.
func (r *Copy) ballots() (promised, accepted paxos.Ballot, value Value) {
	if r.Acceptor == nil {
		return promised, accepted, value
	}
	return r.Acceptor.Promised, r.Acceptor.Accepted, r.Acceptor.Value
}

// accepted returns what was accepted last.
func (r *Copy) accepted() Value {
	_, _, value := r.ballots()
	return value
}

// grave reports whether nothing is held but that the transaction was forgotten: no value, and no promise
// for what comes after. Rounds are stamps, so that an earlier one was for what was forgotten.
func (r *Copy) grave() bool {
	promised, _, value := r.ballots()
	return !r.Chosen && r.Forgotten > 0 && value.Stamp == 0 && promised.Round <= r.Forgotten
}

// forget drops everything but the promise, which may have been given for what comes after.
func (r *Copy) forget() {
	promised, _, _ := r.ballots()
	r.Acceptor, r.Chosen, r.Value, r.Notes = nil, false, Value{}, nil
	if !promised.IsZero() {
		r.acceptor().Promised = promised
	}
}

// Step takes the messages of an acceptor, and Learn and Annotate as messages.
func (r *Copy) Step(ev protocol.Event, out *protocol.Effects) {
	e, ok := ev.(protocol.Receive)
	if !ok {
		return
	}
	switch m := e.Message.(type) {
	case Learn:
		r.learn(m, out)
	case Annotate:
		r.annotate(m.Note, m.Forced, out)
	case phase1a:
		r.vote(e, out)
	case phase2a:
		if m.Value.Stamp <= r.Forgotten {
			out.Send(e.From, Void{Instance: m.Instance, Forgotten: r.Forgotten})
			return
		}
		r.vote(e, out)
	}
}

// vote gives the message to the acceptor, unless the decision is known.
func (r *Copy) vote(ev protocol.Receive, out *protocol.Effects) {
	if r.Chosen {
		out.Send(ev.From, chosen{Instance: paxos.Instance(r.ID), Value: r.Value})
		return
	}
	r.acceptor().Step(ev, out)
}

func (r *Copy) learn(l Learn, out *protocol.Effects) {
	if l.Forgotten > r.Forgotten {
		r.Forgotten = l.Forgotten
		if r.Value.Stamp <= l.Forgotten && r.accepted().Stamp <= l.Forgotten {
			r.forget()
			out.Put("forgotten", ForgottenRecord{Stamp: l.Forgotten})
		}
	}
	// Two values can only be decided where the first was forgotten between; the later one counts.
	if l.Chosen && l.Value.Stamp > r.Forgotten && (!r.Chosen || l.Value.Stamp > r.Value.Stamp) {
		record := ChosenRecord{Accepted: true}
		if own := r.accepted(); own.equal(l.Value) {
			l.Value = own // the same, and in memory already
		} else {
			record = ChosenRecord{Value: l.Value}
		}
		r.Acceptor, r.Chosen, r.Value = nil, true, l.Value
		out.Put("chosen", record)
	}
	for _, n := range l.Notes {
		r.annotate(n, false, out)
	}
}

func (r *Copy) annotate(n Note, forced bool, out *protocol.Effects) {
	if n.Stamp <= r.Forgotten {
		return
	}
	i, found := slices.BinarySearchFunc(r.Notes, n, compareNotes)
	if !found {
		r.Notes = slices.Insert(slices.Clip(r.Notes), i, n) // whoever holds the old ones keeps them
	}
	if !found || forced {
		out.Put(fmt.Sprintf("note %d %s", n.Stamp, n.Node), NoteRecord{Note: n, Forced: forced})
	}
}

// restore takes back a record that was stable before a crash. Records come in the order in which
// they were written.
func (r *Copy) restore(record protocol.Record) {
	switch v := record.(type) {
	case acceptorRecord:
		if !r.Chosen {
			r.acceptor().Step(protocol.Recover{Records: protocol.Records{paxos.AcceptorKey: v}}, &protocol.Effects{})
		}
	case ChosenRecord:
		value := v.Value
		if v.Accepted {
			value = r.accepted()
		}
		r.Acceptor, r.Chosen, r.Value = nil, true, value
	case NoteRecord:
		r.Notes = withNotes(r.Notes, []Note{v.Note})
	case ForgottenRecord:
		r.Forgotten = max(r.Forgotten, v.Stamp)
		r.forget()
	}
}

// held returns what r holds. It shares the notes, which are not changed in place.
func (r *Copy) held() held {
	h := held{id: r.ID, chosen: r.Chosen, value: r.Value, notes: r.Notes, forgotten: r.Forgotten}
	if !r.Chosen {
		h.value = r.accepted()
	}
	return h
}

// status returns the entry's status, or 0 where nothing is known to be decided.
func (r *Copy) status() (decision.Status, error) {
	if !r.Chosen || len(r.Notes) == 0 {
		return r.Value.Status, nil
	}
	if r.Value.Status != decision.Unfinished {
		h := r.held()
		e, err := h.entry()
		return e.Status(), err
	}
	var e decision.Entry
	for _, n := range r.Notes {
		note, err := decision.DecodeNote(n.Note)
		if err != nil {
			return 0, err
		}
		e.Notes = append(e.Notes, note)
	}
	return e.Status(), nil
}
