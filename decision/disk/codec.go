package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"assent/decision"
	"assent/protocol/commit"
)

// Values in the index and groups in the log carry a CRC-32C of their own, above whatever the
// storage engine checks, so that a value is never taken for another key's or another file's.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errChecksum = errors.New("checksum does not match")

// clone returns a copy of a normalized entry that shares nothing with it.
func clone(e decision.Entry) *decision.Entry {
	e.Branches = append([]decision.Branch(nil), e.Branches...)
	for i := range e.Branches {
		e.Branches[i].Evidence = append([]byte(nil), e.Branches[i].Evidence...)
	}
	e.Notes = append([]decision.Note(nil), e.Notes...)
	return &e
}

// stored is an entry in the index, with what its other index keys are derived from.
type stored struct {
	id      commit.TransactionID
	status  decision.Status
	decided uint64          // the sequence number of the record that decided it
	done    uint64          // that of the record which made it Done; 0 if it is not
	doneAt  int64           // when, in Unix milliseconds by the log's clock
	raw     []byte          // the entry's CBOR; nil where it is not at hand
	known   *decision.Entry // what raw says, where that is at hand; it is not changed
}

const storedHeader = 4 + 1 + 8 + 8 + 8

// appendStored appends s's value under key to buf.
func appendStored(buf, key []byte, s *stored) []byte {
	start := len(buf)
	buf = append(buf, 0, 0, 0, 0, byte(s.status))
	buf = binary.BigEndian.AppendUint64(buf, s.decided)
	buf = binary.BigEndian.AppendUint64(buf, s.done)
	buf = binary.BigEndian.AppendUint64(buf, uint64(s.doneAt))
	buf = append(buf, s.raw...)
	bindValue(key, buf[start:])
	return buf
}

// decodeStored reads the value under the entry key of an index. The result aliases value.
func decodeStored(key, value []byte) (*stored, error) {
	if err := checkValue(key, value); err != nil {
		return nil, err
	}
	if len(value) < storedHeader || len(key) < 2 {
		return nil, fmt.Errorf("value of %d bytes is too short", len(value))
	}
	s := &stored{
		id:      commit.TransactionID(key[1:]),
		status:  decision.Status(value[4]),
		decided: binary.BigEndian.Uint64(value[5:]),
		done:    binary.BigEndian.Uint64(value[13:]),
		doneAt:  int64(binary.BigEndian.Uint64(value[21:])),
		raw:     value[storedHeader:],
	}
	if s.status < decision.Unfinished || s.status > decision.Done {
		return nil, fmt.Errorf("status %d does not exist", value[4])
	}
	return s, nil
}

// decode sets what s.raw says, and checks that it is what its key and its status say.
func (s *stored) decode() error {
	e, err := decision.DecodeEntry(s.raw)
	if err != nil {
		return err
	}
	if e.ID != s.id || e.Status() != s.status {
		return fmt.Errorf("entry of %q, %v, is kept as %q, %v", e.ID, e.Status(), s.id, s.status)
	}
	s.known = &e
	return nil
}

// bindValue sets the first four bytes of value to the checksum of the key and the rest of value.
func bindValue(key, value []byte) {
	binary.BigEndian.PutUint32(value, valueSum(key, value))
}

// checkValue reports whether value is what bindValue made of it under the same key.
func checkValue(key, value []byte) error {
	if len(value) < 4 || binary.BigEndian.Uint32(value) != valueSum(key, value) {
		return errChecksum
	}
	return nil
}

func valueSum(key, value []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli, key), castagnoli, value[4:])
}

// kind says what a record in the log does.
type kind byte

const (
	decideRecord kind = iota + 1
	noteRecord
	forgetRecord
)

// record is one change in the log. A decide record was the first of its transaction when it was
// written, so that applying it is an unconditional put.
type record struct {
	kind kind
	id   commit.TransactionID
	body []byte // an entry, a note, or nothing
}

const maxRecord = 8 << 20 // bytes of a record's body; what Check admits is below

func appendRecord(buf []byte, r record) []byte {
	buf = append(buf, byte(r.kind))
	buf = binary.AppendUvarint(buf, uint64(len(r.id)))
	buf = append(buf, r.id...)
	buf = binary.AppendUvarint(buf, uint64(len(r.body)))
	return append(buf, r.body...)
}

// decodeRecords reads count records that fill data. The results alias data.
func decodeRecords(data []byte, count int) ([]record, error) {
	if count > len(data) {
		return nil, fmt.Errorf("%d records do not fit %d bytes", count, len(data))
	}
	records := make([]record, 0, count)
	for range count {
		if len(data) == 0 {
			return nil, errors.New("records end early")
		}
		r := record{kind: kind(data[0])}
		if r.kind < decideRecord || r.kind > forgetRecord {
			return nil, fmt.Errorf("record kind %d does not exist", data[0])
		}
		id, rest, err := cut(data[1:], 64)
		if err != nil {
			return nil, err
		}
		r.id = commit.TransactionID(id)
		if err := decision.CheckID(r.id); err != nil {
			return nil, err
		}
		if r.body, data, err = cut(rest, maxRecord); err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	if len(data) != 0 {
		return nil, fmt.Errorf("%d bytes are left over", len(data))
	}
	return records, nil
}

// cut takes a length and that many bytes off data.
func cut(data []byte, most uint64) (head, rest []byte, err error) {
	n, w := binary.Uvarint(data)
	if w <= 0 || n > most || n > uint64(len(data)-w) {
		return nil, nil, errors.New("a length is out of range")
	}
	return data[w : w+int(n)], data[w+int(n):], nil
}
