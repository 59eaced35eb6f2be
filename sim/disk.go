package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"

	"github.com/fxamacker/cbor/v2"

	"assent/protocol"
)

// storage is the stable storage of one simulated node: a log of frames, one for each step's writes.
// It holds bytes, so that a write can be torn and a record can be changed: a frame is its length, a
// checksum and the writes. How far frames were forced is kept with them, as a seal in a sector of its
// own would be, so that a damaged frame is told from one that was never whole.
type storage struct {
	codec   *protocol.Codec
	frames  []byte
	forced  int // so many bytes of frames are stable; a seal says so
	damage  int // the place of a changed byte, or -1
	ailment *Fault
	records protocol.Records // what the frames say, for whoever judges
}

// errDamaged says that a stable record is not what was written.
var errDamaged = errors.New("a stable record is damaged")

// errAiling says that the simulated disk has failed a write.
var errAiling = errors.New("the disk has failed")

const frameHeader = 8

// written is a write as it stands in a frame.
type written struct {
	_      struct{} `cbor:",toarray"`
	Key    string
	Record []byte // nil where the key is deleted
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newStorage(codec *protocol.Codec) *storage {
	return &storage{codec: codec, damage: -1, records: protocol.Records{}}
}

// ail makes the next force fail in the way of f.
func (s *storage) ail(f *Fault) { s.ailment = f }

// force appends the writes. After an error it depends on the fault what of them is there.
func (s *storage) force(writes []protocol.Write) error {
	list := make([]written, len(writes))
	for i, w := range writes {
		list[i].Key = w.Key
		if w.Record == nil {
			continue
		}
		data, err := s.codec.Encode(w.Record)
		if err != nil {
			return err
		}
		list[i].Record = data
	}
	body, err := cbor.Marshal(list)
	if err != nil {
		return err
	}
	frame := make([]byte, frameHeader, frameHeader+len(body))
	binary.BigEndian.PutUint32(frame, uint32(len(body)))
	binary.BigEndian.PutUint32(frame[4:], crc32.Checksum(body, castagnoli))
	frame = append(frame, body...)
	if f := s.ailment; f != nil {
		s.ailment = nil
		if f.Class != DiskFull {
			s.frames = append(s.frames, frame[:len(frame)*f.Rate/100]...)
		}
		return fmt.Errorf("%w: %s", errAiling, f.Class)
	}

	s.frames = append(s.frames, frame...)
	s.forced = len(s.frames)
	s.apply(list)
	return nil
}

// apply keeps what the frames say. What cannot be decoded here could not have been encoded.
func (s *storage) apply(list []written) {
	s.records = maps.Clone(s.records)
	for _, w := range list {
		if w.Record == nil {
			delete(s.records, w.Key)
			continue
		}
		if v, err := s.codec.Decode(w.Record); err == nil {
			s.records[w.Key] = v
		}
	}
}

// corrupt changes one byte of what is stable. It reports whether there was any.
func (s *storage) corrupt(where uint64) bool {
	if s.forced == 0 || s.damage >= 0 {
		return false
	}
	s.damage = int(where % uint64(s.forced))
	s.frames[s.damage] ^= 0x40
	return true
}

// repair puts the changed byte back, the operator's copy, and ends what ails the disk. It reports
// whether there was anything to repair.
func (s *storage) repair() bool {
	sick := s.damage >= 0 || s.ailment != nil
	if s.damage >= 0 {
		s.frames[s.damage] ^= 0x40
	}
	s.damage, s.ailment = -1, nil
	return sick
}

// read reads the frames as a node does that starts: a last frame that is not whole and was never
// forced is dropped; any other that is not whole is damage.
func (s *storage) read() (protocol.Records, error) {
	s.ailment, s.records = nil, protocol.Records{}
	at := 0
	for at < len(s.frames) {
		body, ok := frameAt(s.frames[at:])
		var list []written
		if !ok || cbor.Unmarshal(body, &list) != nil {
			if at < s.forced {
				return nil, fmt.Errorf("%w: the frame at byte %d, of %d that were stable", errDamaged, at, s.forced)
			}
			s.frames = s.frames[:at]
			break
		}
		s.apply(list)
		at += frameHeader + len(body)
	}
	s.forced = len(s.frames)
	records := protocol.Records{}
	for key, r := range s.records {
		copied, err := Copy(s.codec, r)
		if err != nil {
			return nil, err
		}
		records[key] = copied
	}
	return records, nil
}

func frameAt(data []byte) (body []byte, ok bool) {
	if len(data) < frameHeader {
		return nil, false
	}
	n := int(binary.BigEndian.Uint32(data))
	if n < 0 || n > len(data)-frameHeader {
		return nil, false
	}
	body = data[frameHeader : frameHeader+n]
	return body, crc32.Checksum(body, castagnoli) == binary.BigEndian.Uint32(data[4:])
}
