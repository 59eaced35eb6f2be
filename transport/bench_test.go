package transport_test

import (
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"assent/protocol"
	"assent/transport"
)

// BenchmarkRoundTrip compares a message and its answer over the mesh with the same bytes over bare TCP,
// between two goroutines, over the loopback.
func BenchmarkRoundTrip(b *testing.B) {
	payload := make([]byte, 100)
	b.Run("bare TCP", func(b *testing.B) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer listener.Close()
		go func() {
			conn, err := listener.Accept()
			if err == nil {
				buf := make([]byte, 105)
				for err == nil {
					if _, err = io.ReadFull(conn, buf); err == nil {
						_, err = conn.Write(buf)
					}
				}
			}
		}()
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		buf := make([]byte, 105)
		for b.Loop() {
			if _, err := conn.Write(buf); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(conn, buf); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, secure := range []bool{false, true} {
		b.Run(fmt.Sprintf("mesh, TLS %v", secure), func(b *testing.B) {
			x, y := pair(b, secure)
			y.Channel(0).Receive(func(from protocol.NodeID, p []byte) { y.Channel(0).Send(from, p) })
			back := make(chan struct{}, 1)
			x.Channel(0).Receive(func(protocol.NodeID, []byte) { back <- struct{}{} })
			for b.Loop() {
				x.Channel(0).Send("b", payload)
				<-back
			}
		})
	}
}

// BenchmarkStream is how many messages a second pass one way, with eight senders.
func BenchmarkStream(b *testing.B) {
	for _, secure := range []bool{false, true} {
		b.Run(fmt.Sprintf("TLS %v", secure), func(b *testing.B) {
			x, y := pair(b, secure)
			var got atomic.Int64
			room := make(chan struct{}, 8192)
			y.Channel(0).Receive(func(protocol.NodeID, []byte) { got.Add(1); <-room })
			payload := make([]byte, 100)
			b.SetParallelism(4)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					room <- struct{}{}
					x.Channel(0).Send("b", payload)
				}
			})
			for got.Load() < int64(b.N) {
				room <- struct{}{}
				<-room
			}
		})
	}
}

func pair(b *testing.B, secure bool) (x, y *transport.Mesh) {
	l := newLAN(b, "a", "b")
	ca := newAuthority(b, "ours")
	var meshes []*transport.Mesh
	for _, n := range []protocol.NodeID{"a", "b"} {
		cfg := l.config(n)
		if secure {
			cfg.TLS = ca.node(string(n))
		}
		meshes = append(meshes, l.listen(cfg))
	}
	for !connected(meshes[0]) || !connected(meshes[1]) {
	}
	return meshes[0], meshes[1]
}
