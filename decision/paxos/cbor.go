package paxos

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

// What is hot is encoded by hand, without reflection: CBOR, core deterministic (RFC 8949, 4.2.1), of
// unsigned integers, byte strings, texts and arrays.
const (
	majorUint  = 0 << 5
	majorBytes = 2 << 5
	majorText  = 3 << 5
	majorArray = 4 << 5
)

// errCBOR says that data is not what the functions below make.
var errCBOR = errors.New("it is not canonical CBOR of the expected form")

func appendHead(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

func appendUint(b []byte, n uint64) []byte { return appendHead(b, majorUint, n) }

func appendArray(b []byte, n int) []byte { return appendHead(b, majorArray, uint64(n)) }

func appendBytes(b, data []byte) []byte {
	return append(appendHead(b, majorBytes, uint64(len(data))), data...)
}

func appendText[S ~string](b []byte, text S) []byte {
	return append(appendHead(b, majorText, uint64(len(text))), text...)
}

func appendBool(b []byte, is bool) []byte {
	if is {
		return append(b, 1)
	}
	return append(b, 0)
}

// reader takes items off data. After the first error everything is zero.
type reader struct {
	data []byte
	err  error
	// names are texts that are expected often: nothing is allocated for them.
	names [2]string
}

func (r *reader) fail() uint64 {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %d bytes before the end", errCBOR, len(r.data))
	}
	r.data = nil
	return 0
}

// head takes the head of an item of the major type.
func (r *reader) head(major byte) uint64 {
	if len(r.data) == 0 || r.data[0]&0xe0 != major {
		return r.fail()
	}
	info := r.data[0] & 0x1f
	if info < 24 {
		r.data = r.data[1:]
		return uint64(info)
	}
	width := 1 << (info - 24)
	if info > 27 || len(r.data) < 1+width {
		return r.fail()
	}
	var n uint64
	for _, c := range r.data[1 : 1+width] {
		n = n<<8 | uint64(c)
	}
	if n < 24 || width > 1 && n>>(4*width) == 0 { // a shorter form exists
		return r.fail()
	}
	r.data = r.data[1+width:]
	return n
}

func (r *reader) uint() uint64 { return r.head(majorUint) }

// most takes an integer that is not greater than most.
func (r *reader) most(most uint64) uint64 {
	n := r.head(majorUint)
	if n > most {
		return r.fail()
	}
	return n
}

func (r *reader) bool() bool { return r.most(1) == 1 }

// array takes the head of an array with n items.
func (r *reader) array(n int) {
	if r.head(majorArray) != uint64(n) {
		r.fail()
	}
}

// list takes the head of an array with at most most items, and returns how many it has.
func (r *reader) list(most int) int {
	n := r.head(majorArray)
	if n > uint64(most) || n > uint64(len(r.data)) {
		r.fail()
		return 0
	}
	return int(n)
}

// bytes takes a byte string of at most most bytes. The result aliases the data.
func (r *reader) bytes(most int) []byte { return r.take(majorBytes, most) }

func (r *reader) text(most int) string {
	text := r.take(majorText, most)
	for _, name := range r.names {
		if string(text) == name {
			return name
		}
	}
	if !utf8.Valid(text) {
		r.fail()
		return ""
	}
	return string(text)
}

func (r *reader) take(major byte, most int) []byte {
	n := r.head(major)
	if n > uint64(most) || n > uint64(len(r.data)) {
		r.fail()
		return nil
	}
	taken := r.data[:n:n]
	r.data = r.data[n:]
	return taken
}
