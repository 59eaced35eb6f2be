package transport

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// A frame is one byte for the channel, four for the length of the payload, the highest first, and
// the payload.
const frameHeader = 5

// control is the channel of the streams' own frames: a ping, to which a pong with the same payload
// is the answer.
const (
	control      = 255
	ping    byte = 1
	pong    byte = 2
	// maxControl bounds the payload of a control frame.
	maxControl = 16
)

// appendFrame appends a frame to buf.
func appendFrame(buf []byte, channel byte, payload []byte) []byte {
	buf = append(buf, channel)
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(payload)))
	return append(buf, payload...)
}

// frameReader reads frames. The payloads are the receiver's to keep.
type frameReader struct {
	in   *bufio.Reader
	most int    // bytes of a payload
	slab []byte // what is left of the memory that short payloads are cut from
}

func newFrameReader(r io.Reader, most int) *frameReader {
	return &frameReader{in: bufio.NewReaderSize(r, 64<<10), most: most}
}

const (
	slabBytes = 16 << 10
	shortMost = 2 << 10 // a longer payload has memory of its own
)

// next reads one frame.
func (r *frameReader) next() (channel byte, payload []byte, err error) {
	header, err := r.in.Peek(frameHeader)
	if err != nil {
		if err == io.EOF && len(header) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	channel = header[0]
	n, most := int64(binary.BigEndian.Uint32(header[1:])), int64(r.most)
	if channel == control {
		most = maxControl
	}
	if n > most {
		return 0, nil, fmt.Errorf("a frame of %d bytes on channel %d; at most %d are allowed", n, channel, most)
	}
	if _, err := r.in.Discard(frameHeader); err != nil {
		return 0, nil, err
	}
	payload = r.room(int(n))
	if _, err := io.ReadFull(r.in, payload); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return channel, payload, nil
}

// room returns memory for a payload.
func (r *frameReader) room(n int) []byte {
	if n > shortMost {
		return make([]byte, n)
	}
	if n > len(r.slab) {
		r.slab = make([]byte, slabBytes)
	}
	payload := r.slab[:n:n]
	r.slab = r.slab[n:]
	return payload
}
