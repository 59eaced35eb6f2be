package decision

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// codec is the one encoding of entries and notes: CBOR, core deterministic (RFC 8949, 4.2.1).
type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

var entryCodec = newCodec()

func newCodec() codec {
	opts := cbor.CoreDetEncOptions()
	opts.Time = cbor.TimeRFC3339Nano // TimeUnix would drop the fraction of a second
	enc, err := opts.EncMode()
	if err != nil {
		panic(err)
	}
	dec, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:   8,
		MaxArrayElements:  max(MaxBranches, MaxNotes),
		MaxMapPairs:       16,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8:              cbor.UTF8RejectInvalid,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return codec{enc, dec}
}

// Normal returns what a reader of any Log sees of e: times in UTC without a monotonic part, empty
// lists and evidence nil, no note Forced. It copies what it changes.
func (e Entry) Normal() Entry {
	e.Time = e.Time.Round(0).UTC()
	e.Branches = append([]Branch(nil), e.Branches...)
	for i := range e.Branches {
		if len(e.Branches[i].Evidence) == 0 {
			e.Branches[i].Evidence = nil
		}
	}
	e.Notes = append([]Note(nil), e.Notes...)
	for i := range e.Notes {
		e.Notes[i] = e.Notes[i].Normal()
	}
	return e
}

// Normal returns what a reader of any Log sees of n.
func (n Note) Normal() Note {
	n.Time = n.Time.Round(0).UTC()
	n.Forced = false
	return n
}

// Encode returns e as CBOR, core deterministic: what is kept on disks and sent between nodes. Equal
// entries that are Normal have equal bytes.
func (e Entry) Encode() ([]byte, error) { return entryCodec.enc.Marshal(e) }

// DecodeEntry reads what Entry.Encode made, and returns it Normal. It accepts nothing that Check
// refuses.
func DecodeEntry(data []byte) (Entry, error) {
	var e Entry
	if err := entryCodec.dec.Unmarshal(data, &e); err != nil {
		return Entry{}, fmt.Errorf("entry: %w", err)
	}
	if err := e.Check(); err != nil {
		return Entry{}, fmt.Errorf("entry: %w", err)
	}
	return e.Normal(), nil
}

// Encode returns n as CBOR, core deterministic, without Forced.
func (n Note) Encode() ([]byte, error) { return entryCodec.enc.Marshal(n) }

// DecodeNote reads what Note.Encode made, and returns it Normal. It accepts nothing that Check
// refuses.
func DecodeNote(data []byte) (Note, error) {
	var n Note
	if err := entryCodec.dec.Unmarshal(data, &n); err != nil {
		return Note{}, fmt.Errorf("note: %w", err)
	}
	if err := n.Check(); err != nil {
		return Note{}, fmt.Errorf("note: %w", err)
	}
	return n.Normal(), nil
}

// EncodeNotes returns the notes one after the other (a CBOR sequence, RFC 8742): what is appended
// to them is appended to their bytes.
func EncodeNotes(notes []Note) ([]byte, error) {
	var all []byte
	for _, n := range notes {
		one, err := n.Encode()
		if err != nil {
			return nil, err
		}
		all = append(all, one...)
	}
	return all, nil
}

// DecodeNotes reads what EncodeNotes made, MaxNotes at most.
func DecodeNotes(data []byte) ([]Note, error) {
	var notes []Note
	for len(data) > 0 {
		if len(notes) == MaxNotes {
			return nil, fmt.Errorf("there are more than %d notes", MaxNotes)
		}
		var raw cbor.RawMessage
		rest, err := entryCodec.dec.UnmarshalFirst(data, &raw)
		if err != nil {
			return nil, fmt.Errorf("note %d: %w", len(notes)+1, err)
		}
		n, err := DecodeNote(raw)
		if err != nil {
			return nil, fmt.Errorf("note %d: %w", len(notes)+1, err)
		}
		notes, data = append(notes, n), rest
	}
	return notes, nil
}
