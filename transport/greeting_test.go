package transport

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"assent/protocol"
)

func TestVersions(t *testing.T) {
	for _, c := range []struct {
		a, b versions
		want byte
	}{
		{versions{1, 1}, versions{1, 1}, 1}, {versions{1, 3}, versions{2, 5}, 3}, {versions{2, 2}, versions{1, 3}, 2},
		{versions{1, 2}, versions{3, 4}, 0}, {versions{4, 4}, versions{1, 3}, 0}, {versions{0, 0}, versions{1, 1}, 0},
		{versions{200, 10}, versions{1, 250}, 0},
	} {
		if got := c.a.with(c.b); got != c.want || c.b.with(c.a) != got {
			t.Errorf("%v with %v: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

// Nodes of two releases are in one cluster if they have a version in common, and say so if not.
func TestRollingUpgrade(t *testing.T) {
	for _, c := range []struct {
		old, young versions
		want       string
	}{
		{versions{1, 1}, versions{1, 2}, ""},
		{versions{1, 1}, versions{2, 3}, "it speaks version 1 of the protocol, and this node versions 2 to 3; upgrade in smaller steps"},
	} {
		meshes := map[protocol.NodeID]*Mesh{}
		addresses, listeners := map[protocol.NodeID]string{}, map[protocol.NodeID]net.Listener{}
		for _, n := range []protocol.NodeID{"old", "young"} {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			listeners[n], addresses[n] = listener, listener.Addr().String()
		}
		for n, speaks := range map[protocol.NodeID]versions{"old": c.old, "young": c.young} {
			m, err := Listen(Config{Cluster: "c", Self: n, Listener: listeners[n], Peers: addresses, speaks: speaks,
				RetryMost: 50 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			meshes[n] = m
		}
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			s := meshes["old"].Status()[0]
			if c.want == "" && s.Connected && s.Version == 1 || c.want != "" && strings.Contains(s.Why, c.want) {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%v and %v: %+v, want %q", c.old, c.young, s, c.want)
			}
		}
		for _, m := range meshes {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestGreetings(t *testing.T) {
	h := hello{speaks: versions{1, 7}, cluster: "shop", from: "a", to: "b", software: "1.0", address: "127.0.0.1:1"}
	if got, err := readHello(bytes.NewReader(h.encode())); err != nil || got != h {
		t.Errorf("%+v, %v", got, err)
	}
	a := answer{version: 7, from: "b", software: "1.1", text: strings.Repeat("x", 300)}
	got, err := readAnswer(bytes.NewReader(a.encode()))
	a.text = a.text[:mostText]
	if err != nil || got != a {
		t.Errorf("%+v, %v", got, err)
	}
	// What a later version adds is passed over.
	later := h.encode()
	later = append(later, "more"...)
	n := len(magic) + 1
	binary.BigEndian.PutUint16(later[n:], binary.BigEndian.Uint16(later[n:])+4)
	if got, err := readHello(bytes.NewReader(later)); err != nil || got != h {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := readHello(bytes.NewReader(a.encode())); err == nil {
		t.Error("an answer is taken for a hello")
	}
}

func TestFrames(t *testing.T) {
	frame := appendFrame(nil, 9, []byte("hello"))
	for n := 1; n < len(frame); n++ {
		if _, _, err := newFrameReader(bytes.NewReader(frame[:n]), 100).next(); err != io.ErrUnexpectedEOF {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if _, _, err := newFrameReader(bytes.NewReader(nil), 100).next(); err != io.EOF {
		t.Errorf("nothing: %v", err)
	}
	if _, _, err := newFrameReader(bytes.NewReader(appendFrame(nil, control, make([]byte, maxControl+1))), 100).next(); err == nil {
		t.Error("a long frame of control")
	}
	// Payloads that are kept stay as they are.
	var stream []byte
	for i := range 5000 {
		stream = appendFrame(stream, 1, bytes.Repeat([]byte{byte(i)}, i))
	}
	r := newFrameReader(bytes.NewReader(stream), 5000)
	var kept [][]byte
	for range 5000 {
		_, p, err := r.next()
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, p)
	}
	for i, p := range kept {
		if len(p) != i || !bytes.Equal(p, bytes.Repeat([]byte{byte(i)}, i)) {
			t.Fatalf("frame %d has changed", i)
		}
		_ = append(p, 255) // must not reach into the next
	}
}

// FuzzDecode gives what a stranger may send to everything that reads it: whatever is accepted is within
// its limits and is written as it was read.
func FuzzDecode(f *testing.F) {
	f.Add(hello{speaks: versions{1, 1}, cluster: "shop", from: "a", to: "b", software: "1.0"}.encode())
	f.Add(answer{version: 1, from: "b", text: "no"}.encode())
	f.Add(appendFrame(appendFrame(nil, 3, []byte("payload")), control, []byte{ping}))
	f.Add([]byte(magic + "H\x00\x01\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if h, err := readHello(bytes.NewReader(data)); err == nil {
			if again, err := readHello(bytes.NewReader(h.encode())); err != nil || again != h {
				t.Errorf("%+v is read again as %+v, %v", h, again, err)
			}
		}
		if a, err := readAnswer(bytes.NewReader(data)); err == nil {
			if again, err := readAnswer(bytes.NewReader(a.encode())); err != nil || again != a {
				t.Errorf("%+v is read again as %+v, %v", a, again, err)
			}
		}
		const most = 64
		r := &frameReader{in: bufio.NewReader(bytes.NewReader(data)), most: most}
		for rest := data; ; {
			channel, payload, err := r.next()
			if err != nil {
				return
			}
			frame := appendFrame(nil, channel, payload)
			if len(payload) > most || !bytes.HasPrefix(rest, frame) {
				t.Fatalf("channel %d, %d bytes", channel, len(payload))
			}
			rest = rest[len(frame):]
		}
	})
}
