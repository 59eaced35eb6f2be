package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/fxamacker/cbor/v2"

	"assent/protocol"
)

// Disk is the stable storage of one simulated node: a log of frames, one for each step's writes.
// It holds bytes, so that a write can be torn and a record can be changed: a frame is its length, a
// checksum and the writes. How far frames were forced is kept with them, as a seal in a sector of its
// own would be, so that a damaged frame is told from one that was never whole. It is for one goroutine.
type Disk struct {
	codec   *protocol.Codec
	frames  []byte
	forced  int // so many bytes of frames are stable; a seal says so
	damage  int // the place of a changed byte, or -1
	ailment *Fault
	records protocol.Records // what the frames say, for whoever judges
}

// errDamaged says that a stable record is not what was written.
var errDamaged = errors.New("a stable record is damaged")

const frameHeader = 8

// written is a write as it stands in a frame.
type written struct {
	_      struct{} `cbor:",toarray"`
	Key    string
	Record []byte // nil where the key is deleted
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// NewDisk returns an empty disk for records of the codec's types.
func NewDisk(codec *protocol.Codec) *Disk {
	return &Disk{codec: codec, damage: -1, records: protocol.Records{}}
}

// Ail makes the next force fail in the way of f, one of the disk's faults.
func (d *Disk) Ail(f *Fault) { d.ailment = f }

// Record returns what is stable under key, or nil.
func (d *Disk) Record(key string) protocol.Record { return d.records[key] }

// Force appends the writes, all or none. Where a fault is met, its class is returned: then it depends on the
// fault what of the writes is there, and the node must be taken down and read what is. It fails where the
// writes cannot be encoded.
func (d *Disk) Force(writes []protocol.Write) (met Class, err error) {
	list := make([]written, len(writes))
	for i, w := range writes {
		list[i].Key = w.Key
		if w.Record == nil {
			continue
		}
		data, err := d.codec.Encode(w.Record)
		if err != nil {
			return 0, err
		}
		list[i].Record = data
	}
	body, err := cbor.Marshal(list)
	if err != nil {
		return 0, err
	}
	frame := make([]byte, frameHeader, frameHeader+len(body))
	binary.BigEndian.PutUint32(frame, uint32(len(body)))
	binary.BigEndian.PutUint32(frame[4:], crc32.Checksum(body, castagnoli))
	frame = append(frame, body...)
	if f := d.ailment; f != nil {
		d.ailment = nil
		if f.Class != DiskFull {
			d.frames = append(d.frames, frame[:len(frame)*f.Rate/100]...)
		}
		return f.Class, nil
	}
	d.frames = append(d.frames, frame...)
	d.forced = len(d.frames)
	d.apply(list)
	return 0, nil
}

// apply keeps what the frames say. What cannot be decoded here could not have been encoded.
func (d *Disk) apply(list []written) {
	for _, w := range list {
		if w.Record == nil {
			delete(d.records, w.Key)
			continue
		}
		if v, err := d.codec.Decode(w.Record); err == nil {
			d.records[w.Key] = v
		}
	}
}

// Corrupt changes one byte of what is stable. It reports whether there was any.
func (d *Disk) Corrupt(where uint64) bool {
	if d.forced == 0 || d.damage >= 0 {
		return false
	}
	d.damage = int(where % uint64(d.forced))
	d.frames[d.damage] ^= 0x40
	return true
}

// Repair puts the changed byte back, the operator's copy, and ends what ails the disk. It reports
// whether there was anything to repair.
func (d *Disk) Repair() bool {
	sick := d.damage >= 0 || d.ailment != nil
	if d.damage >= 0 {
		d.frames[d.damage] ^= 0x40
	}
	d.damage, d.ailment = -1, nil
	return sick
}

// Read reads the frames as a node does that starts: a last frame that is not whole and was never
// forced is dropped; any other that is not whole is damage, and an error.
func (d *Disk) Read() (protocol.Records, error) {
	d.ailment, d.records = nil, protocol.Records{}
	at := 0
	for at < len(d.frames) {
		body, ok := frameAt(d.frames[at:])
		var list []written
		if !ok || cbor.Unmarshal(body, &list) != nil {
			if at < d.forced {
				return nil, fmt.Errorf("%w: the frame at byte %d, of %d that were stable", errDamaged, at, d.forced)
			}
			d.frames = d.frames[:at]
			break
		}
		d.apply(list)
		at += frameHeader + len(body)
	}
	d.forced = len(d.frames)
	records := protocol.Records{}
	for key, r := range d.records {
		copied, err := Copy(d.codec, r)
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
