package paxos

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"assent/decision"
	"assent/protocol"
	"assent/protocol/commit"
)

// Value is what is agreed on: a proposal for one transaction.
type Value struct {
	// Stamp tells proposals apart, and puts the entries that stand in order. No two are equal; it is
	// the time of the proposal, and later than all that the node had heard of.
	Stamp uint64
	// Status is the entry's, as it was proposed.
	Status decision.Status
	// Entry is the encoding of a decision.Entry.
	Entry []byte
}

// equal reports whether v and w are the same proposal with the same entry.
func (v Value) equal(w Value) bool {
	return v.Stamp == w.Stamp && v.Status == w.Status && bytes.Equal(v.Entry, w.Entry)
}

// Note is a note that was added to an entry, in the order in which notes are told: by Stamp, then by
// Node.
type Note struct {
	Stamp uint64
	Node  protocol.NodeID
	// Note is the encoding of a decision.Note.
	Note []byte
}

func compareNotes(a, b Note) int {
	return cmp.Or(cmp.Compare(a.Stamp, b.Stamp), cmp.Compare(a.Node, b.Node))
}

// stamps is a clock whose times never repeat and never fall behind what was heard (a hybrid logical
// clock: Kulkarni and others 2014). A stamp's low bits are the member's place, so that no two members
// draw the same.
type stamps struct {
	now    func() time.Time
	member atomic.Uint64 // its place, less than MaxMembers
	last   atomic.Uint64
}

// next returns a stamp later than all before.
func (s *stamps) next() uint64 {
	now := uint64(max(s.now().UnixNano(), MaxMembers))
	for {
		last := s.last.Load()
		stamp := max(now, last)&^(MaxMembers-1) | s.member.Load()
		if stamp <= last {
			stamp += MaxMembers
		}
		if s.last.CompareAndSwap(last, stamp) {
			return stamp
		}
	}
}

// maxStamp bounds what is believed of others: it is in the year 2116.
const maxStamp = 1 << 62

// heard makes all later stamps later than stamp.
func (s *stamps) heard(stamp uint64) {
	if stamp > maxStamp {
		return
	}
	for {
		last := s.last.Load()
		if last >= stamp || s.last.CompareAndSwap(last, stamp) {
			return
		}
	}
}

// prefixLength is the length of a Log's prefix, in bytes. All members must agree on it.
const prefixLength = 20

// owner returns who owns ballot 0 of the transaction: the incarnation that its id begins with.
func owner(id commit.TransactionID) protocol.NodeID {
	if len(id) <= prefixLength {
		return ""
	}
	return protocol.NodeID(id[:prefixLength])
}

// draw returns a name of n letters and digits, 5 bits each.
func draw(random io.Reader, n int) (string, error) {
	const letters = "abcdefghijklmnopqrstuvwxyz234567" // RFC 4648, base32, in lower case
	b := make([]byte, n)
	if _, err := io.ReadFull(random, b); err != nil {
		return "", fmt.Errorf("draw a name: %w", err)
	}
	for i := range b {
		b[i] = letters[b[i]%32]
	}
	return string(b), nil
}

// drawNumber returns a number of 62 bits.
func drawNumber(random io.Reader) (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return 0, fmt.Errorf("draw a number: %w", err)
	}
	return binary.BigEndian.Uint64(b[:]) >> 2, nil
}

// held is what a member holds of one transaction, as it is told to others and put together.
type held struct {
	id commit.TransactionID
	// chosen says that value is decided; else value is what was accepted last, if stamp is not 0.
	chosen bool
	value  Value
	notes  []Note
	// forgotten voids every value with that stamp or an earlier one.
	forgotten uint64
}

// merge adds what another member holds of the same transaction.
func (h *held) merge(o held) {
	h.forgotten = max(h.forgotten, o.forgotten)
	h.void()
	o.forgotten = h.forgotten
	o.void()
	switch {
	case o.chosen && (!h.chosen || o.value.Stamp > h.value.Stamp), !h.chosen && o.value.Stamp > h.value.Stamp:
		h.chosen, h.value = o.chosen, o.value
	}
	h.notes = withNotes(slices.Clone(h.notes), o.notes)
}

// void drops what was forgotten.
func (h *held) void() {
	if h.value.Stamp <= h.forgotten {
		h.chosen, h.value = false, Value{}
	}
	h.notes = slices.DeleteFunc(slices.Clone(h.notes), func(n Note) bool { return n.Stamp <= h.forgotten })
}

// entry returns the entry that stands, with its notes.
func (h *held) entry() (decision.Entry, error) {
	e, err := decision.DecodeEntry(h.value.Entry)
	if err != nil {
		return decision.Entry{}, err
	}
	if e.ID != h.id {
		return decision.Entry{}, fmt.Errorf("entry of %q is kept as %q", e.ID, h.id)
	}
	for _, n := range h.notes {
		note, err := decision.DecodeNote(n.Note)
		if err != nil {
			return decision.Entry{}, err
		}
		e.Notes = append(e.Notes, note)
	}
	return e, nil
}

// withNotes returns notes with more added, sorted and each once.
func withNotes(notes, more []Note) []Note {
	for _, n := range more {
		if i, found := slices.BinarySearchFunc(notes, n, compareNotes); !found {
			notes = slices.Insert(notes, i, n)
		}
	}
	return notes
}
