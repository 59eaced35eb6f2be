package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"assent/protocol"
)

// The versions of the protocol between nodes. A node speaks all from the oldest to the newest, so
// that nodes of two releases can be in one cluster while it is upgraded, one node after another.
const (
	oldestVersion = 1
	newestVersion = 1
)

// versions is a range of versions of the protocol.
type versions struct{ oldest, newest byte }

// with returns the newest version that both ranges hold, or 0.
func (v versions) with(other versions) byte {
	if common := min(v.newest, other.newest); common >= max(v.oldest, other.oldest) {
		return common
	}
	return 0
}

func (v versions) String() string {
	if v.oldest == v.newest {
		return fmt.Sprintf("version %d", v.newest)
	}
	return fmt.Sprintf("versions %d to %d", v.oldest, v.newest)
}

// magic begins what each side says first. A connection that begins otherwise is none of ours.
const magic = "assent/n"

// maxGreeting bounds the body of a hello or an answer.
const maxGreeting = 2 << 10

// hello is what a node says first on a connection that it has made.
type hello struct {
	speaks versions
	// cluster, from and to are the names of the cluster, the node that calls, and the one it
	// means to call: an address may have come to belong to another.
	cluster  string
	from, to protocol.NodeID
	software string
	// address is where the node that calls can be called; empty where it does not say, as earlier programs
	// do not.
	address string
}

// answer is what the called node says to a hello. text is why it refuses; empty where it does not.
type answer struct {
	version  byte
	from     protocol.NodeID
	software string
	text     string
}

func (h hello) encode() []byte {
	body := []byte{h.speaks.oldest, h.speaks.newest}
	for _, s := range []string{h.cluster, string(h.from), string(h.to), h.software, h.address} {
		body = appendText(body, s)
	}
	return greeting('H', body)
}

func (a answer) encode() []byte {
	body := []byte{a.version}
	for _, s := range []string{string(a.from), a.software, a.text} {
		body = appendText(body, s)
	}
	return greeting('A', body)
}

// greeting is the magic, the kind, the length and the body.
func greeting(kind byte, body []byte) []byte {
	all := append([]byte(magic), kind)
	all = binary.BigEndian.AppendUint16(all, uint16(len(body)))
	return append(all, body...)
}

// mostText bounds each text of a greeting, in bytes; what is longer is cut.
const mostText = 255

func appendText(body []byte, text string) []byte {
	text = text[:min(len(text), mostText)]
	return append(append(body, byte(len(text))), text...)
}

// errForeign says that a connection does not begin as ours do.
var errForeign = errors.New("it does not speak this protocol")

// readGreeting reads the body of a greeting of the kind. It reads no byte more.
func readGreeting(r io.Reader, kind byte) ([]byte, error) {
	var head [len(magic) + 3]byte
	if n, err := io.ReadFull(r, head[:]); err != nil {
		if n >= 2 && head[0] == 0x16 && head[1] == 0x03 {
			return nil, fmt.Errorf("%w: it speaks TLS, and this node has no certificate", errForeign)
		}
		return nil, err
	}
	switch {
	case head[0] == 0x16 && head[1] == 0x03:
		return nil, fmt.Errorf("%w: it speaks TLS, and this node has no certificate", errForeign)
	case string(head[:len(magic)]) != magic || head[len(magic)] != kind:
		return nil, fmt.Errorf("%w: it begins with %.11q", errForeign, head[:])
	}
	n := binary.BigEndian.Uint16(head[len(magic)+1:])
	if n > maxGreeting {
		return nil, fmt.Errorf("a greeting of %d bytes; at most %d are allowed", n, maxGreeting)
	}
	body := make([]byte, n)
	_, err := io.ReadFull(r, body)
	return body, err
}

func readHello(r io.Reader) (h hello, err error) {
	body, err := readGreeting(r, 'H')
	if err != nil {
		return h, err
	}
	d := decoder{rest: body}
	h.speaks.oldest, h.speaks.newest = d.byte(), d.byte()
	h.cluster, h.from, h.to, h.software = d.text(), protocol.NodeID(d.text()), protocol.NodeID(d.text()), d.text()
	if len(d.rest) > 0 {
		h.address = d.text()
	}
	return h, d.err
}

func readAnswer(r io.Reader) (a answer, err error) {
	body, err := readGreeting(r, 'A')
	if err != nil {
		return a, err
	}
	d := decoder{rest: body}
	a.version = d.byte()
	a.from, a.software, a.text = protocol.NodeID(d.text()), d.text(), d.text()
	return a, d.err
}

// decoder takes a greeting's body apart. What follows the fields that it knows is of a later version
// and is passed over.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) take(n int) []byte {
	if n > len(d.rest) {
		d.err, d.rest = errors.New("a greeting that ends too early"), nil
		return make([]byte, n)
	}
	part := d.rest[:n]
	d.rest = d.rest[n:]
	return part
}

func (d *decoder) byte() byte { return d.take(1)[0] }

func (d *decoder) text() string { return string(d.take(int(d.byte()))) }
