package kv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"

	"assent/protocol/commit"
	"assent/resource"
)

// The keys in Pebble. The first byte says what a key is about.
const (
	dataKey     = 'd' // + key: value
	indexKey    = 'i' // + finishing number, 8 bytes, greatest first byte first: the branch's id
	metaKey     = 'm' // alone: meta
	outcomeKey  = 'o' // + id: outcomeRecord
	preparedKey = 'p' // + id: preparedRecord
)

func keyOf(kind byte, rest string) []byte { return append([]byte{kind}, rest...) }

func indexKeyOf(n uint64) []byte { return binary.BigEndian.AppendUint64([]byte{indexKey}, n) }

// format is the version of what is on disk.
const format = 1

// meta describes the store.
type meta struct {
	Format uint64 `cbor:"1,keyasint"`
	// Store is drawn at random when the store is made. Evidence names it.
	Store [16]byte `cbor:"2,keyasint"`
	// Pruned is the greatest finishing number whose outcome was dropped.
	Pruned uint64 `cbor:"3,keyasint"`
}

// preparedRecord is a branch that has voted yes. Its locks are exclusive ones on the keys that it
// writes, so they need no record of their own.
type preparedRecord struct {
	// Ballot is drawn at random when the branch prepares, so that the evidence of one prepare
	// is never taken for that of another, not even in a store restored from an older copy.
	Ballot uint64 `cbor:"1,keyasint"`
	// Since is when it prepared, in milliseconds of Unix time.
	Since  int64         `cbor:"2,keyasint"`
	Writes []writeRecord `cbor:"3,keyasint"`
}

type writeRecord struct {
	_      struct{} `cbor:",toarray"`
	Key    []byte
	Value  []byte
	Delete bool
}

// outcomeRecord is the evidence of what became of a branch.
type outcomeRecord struct {
	Committed bool `cbor:"1,keyasint"`
	// Ballot is that of the vote; 0 for a branch that never voted.
	Ballot uint64 `cbor:"2,keyasint"`
	// At is when it finished, in milliseconds of Unix time.
	At int64 `cbor:"3,keyasint"`
	// Number is the finishing number: the place in the index.
	Number uint64 `cbor:"4,keyasint"`
}

func (o outcomeRecord) outcome() commit.Outcome {
	if o.Committed {
		return commit.Committed
	}
	return commit.RolledBack
}

// codec encodes deterministically and decodes strictly.
type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

func newCodec() (codec, error) {
	enc, err1 := cbor.CoreDetEncOptions().EncMode()
	dec, err2 := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		IndefLength:       cbor.IndefLengthForbidden,
		MaxArrayElements:  1 << 30 / 64, // the greatest branch, at 64 bytes for each write
		MaxMapPairs:       16,
		MaxNestedLevels:   4,
	}.DecMode()
	return codec{enc, dec}, errors.Join(err1, err2)
}

func (c codec) decodeMeta(data []byte) (meta, error) {
	var m meta
	if err := c.dec.Unmarshal(data, &m); err != nil {
		return meta{}, err
	}
	if m.Format != format {
		return meta{}, fmt.Errorf("the format is %d; this program knows %d", m.Format, format)
	}
	return m, nil
}

func (c codec) decodePrepared(data []byte) (preparedRecord, error) {
	var p preparedRecord
	if err := c.dec.Unmarshal(data, &p); err != nil {
		return preparedRecord{}, err
	}
	if p.Ballot == 0 || len(p.Writes) == 0 {
		return preparedRecord{}, errors.New("a prepared branch without ballot or writes")
	}
	for i, w := range p.Writes {
		if len(w.Key) == 0 || w.Delete && len(w.Value) > 0 {
			return preparedRecord{}, fmt.Errorf("write %d is none", i)
		}
		if i > 0 && bytes.Compare(p.Writes[i-1].Key, w.Key) >= 0 {
			return preparedRecord{}, fmt.Errorf("write %d is out of order", i)
		}
	}
	return p, nil
}

func (c codec) decodeOutcome(data []byte) (outcomeRecord, error) {
	var o outcomeRecord
	if err := c.dec.Unmarshal(data, &o); err != nil {
		return outcomeRecord{}, err
	}
	if o.Number == 0 || o.Committed && o.Ballot == 0 {
		return outcomeRecord{}, errors.New("an outcome without number or ballot")
	}
	return o, nil
}

// Evidence is one version byte, the store's id and the ballot.
const evidenceSize = 1 + 16 + 8

func evidence(store [16]byte, ballot uint64) []byte {
	e := append(make([]byte, 0, evidenceSize), format)
	return binary.BigEndian.AppendUint64(append(e, store[:]...), ballot)
}

// ballotOf returns the ballot in a vote's evidence; ok is false where it is not of this store.
func ballotOf(e []byte, store [16]byte) (ballot uint64, ok bool) {
	if len(e) != evidenceSize || e[0] != format || !bytes.Equal(e[1:17], store[:]) {
		return 0, false
	}
	ballot = binary.BigEndian.Uint64(e[17:])
	return ballot, ballot != 0
}

// newBallot draws a ballot, which is never 0.
func newBallot(random io.Reader) (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return 0, fmt.Errorf("draw a ballot: %w", err)
	}
	return max(1, binary.BigEndian.Uint64(b[:])), nil
}

// damaged is the error of a record that cannot be read.
func damaged(kind, id string, err error) error {
	return &resource.Error{Code: resource.Unavailable, Op: "read the " + kind + " record of " + id, Err: err,
		Hint: "the store is damaged; restore it from a copy"}
}
