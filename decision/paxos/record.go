package paxos

import (
	"fmt"

	"assent/protocol"
	"assent/protocol/commit"
)

// recordKind says what a record in the journal is. Numbers are for ever.
type recordKind byte

const (
	recordAccepted       recordKind = iota + 1 // what the acceptor has promised and accepted
	recordChosenAccepted                       // what was accepted last is decided
	recordChosen                               // a value is decided
	recordNote                                 // a note was added
	recordForgotten                            // the transaction was forgotten
	recordDropped                              // nothing is held of the transaction any more
	recordState                                // all that is held, in place of all records before
	recordMember                               // the storage of another member
	recordAdmitted                             // this storage may vote
	recordBegin                                // the first segment that is needed
	recordEpoch                                // the epoch of the acceptors
	recordBlank                                // nothing is held of any transaction any more
)

// appendWrite appends the record of what a copy writes. Hard says that it must be stable before
// anything follows from it; the others tell of what others know, too, and are stable soon after.
func appendWrite(b []byte, id commit.TransactionID, w protocol.Write) (record []byte, hard bool) {
	switch v := w.Record.(type) {
	case acceptorRecord:
		b = appendText(append(appendArray(b, 11), byte(recordAccepted)), id)
		return appendValue(appendBallot(appendBallot(b, v.Promised), v.Accepted), v.Value), true
	case ChosenRecord:
		if v.Accepted {
			return appendText(append(appendArray(b, 2), byte(recordChosenAccepted)), id), false
		}
		return appendValue(appendText(append(appendArray(b, 5), byte(recordChosen)), id), v.Value), false
	case NoteRecord:
		b = appendText(append(appendArray(b, 3), byte(recordNote)), id)
		return appendNote(b, v.Note), v.Forced
	case ForgottenRecord:
		b = appendText(append(appendArray(b, 3), byte(recordForgotten)), id)
		return appendUint(b, v.Stamp), true
	}
	panic(fmt.Sprintf("a %T is not a record of a copy", w.Record))
}

func appendDropped(b []byte, id commit.TransactionID) []byte {
	return appendText(append(appendArray(b, 2), byte(recordDropped)), id)
}

// appendState appends the record of all that r holds.
func appendState(b []byte, r *Copy) []byte {
	b = appendHeld(append(appendArray(b, 8), byte(recordState)), r.held())
	promised, accepted, _ := r.ballots()
	return appendBallot(appendBallot(b, promised), accepted)
}

func appendMember(b []byte, node protocol.NodeID, storage string) []byte {
	return appendText(appendText(append(appendArray(b, 3), byte(recordMember)), node), storage)
}

func appendAdmitted(b []byte) []byte { return append(appendArray(b, 1), byte(recordAdmitted)) }

func appendBlank(b []byte) []byte { return append(appendArray(b, 1), byte(recordBlank)) }

func appendBegin(b []byte, first uint64) []byte {
	return appendUint(append(appendArray(b, 2), byte(recordBegin)), first)
}

// record is one record as it is read back.
type record struct {
	kind   recordKind
	id     commit.TransactionID
	change protocol.Record // what Copy.restore takes, for a change of a copy
	state  *Copy           // of a recordState
	node   protocol.NodeID
	text   string // a member's storage
	first  uint64
	epoch  Epoch
}

// record takes one record off r.
func (r *reader) record() (rec record) {
	items := r.list(16)
	rec.kind = recordKind(r.most(255))
	want := 0
	switch rec.kind {
	case recordAccepted:
		rec.id = r.id()
		a := acceptorRecord{Promised: r.ballot()}
		a.Accepted = r.ballot()
		a.Value = r.value()
		rec.change, want = a, 11
	case recordChosenAccepted:
		rec.id, rec.change, want = r.id(), ChosenRecord{Accepted: true}, 2
	case recordChosen:
		rec.id = r.id()
		rec.change, want = ChosenRecord{Value: r.value()}, 5
	case recordNote:
		rec.id = r.id()
		rec.change, want = NoteRecord{Note: r.note()}, 3
	case recordForgotten:
		rec.id = r.id()
		rec.change, want = ForgottenRecord{Stamp: r.uint()}, 3
	case recordDropped:
		rec.id, want = r.id(), 2
	case recordState:
		rec.state, want = r.state(), 8
		rec.id = rec.state.ID
	case recordMember:
		rec.node = r.node()
		rec.text, want = r.text(maxName), 3
	case recordAdmitted, recordBlank:
		want = 1
	case recordBegin:
		rec.first, want = r.uint(), 2
	case recordEpoch:
		rec.epoch, want = r.epoch(), 4
	default:
		r.fail()
	}
	if items != want {
		r.fail()
	}
	return rec
}

// state reads what appendState made, behind its kind.
func (r *reader) state() *Copy {
	h := r.held()
	c := &Copy{ID: h.id, Notes: h.notes, Forgotten: h.forgotten}
	promised, accepted := r.ballot(), r.ballot()
	if h.chosen {
		c.Chosen, c.Value = true, h.value
		return c
	}
	if !promised.IsZero() {
		c.restore(acceptorRecord{Promised: promised, Accepted: accepted, Value: h.value})
	}
	return c
}
