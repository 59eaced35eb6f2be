package crashtest

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// exchange is a network between nodes of a cluster that needs no rights: every connection to a node goes through
// this process, which sees by its first words who has made it, and stops its bytes while the way is cut.
type exchange struct {
	mu    sync.Mutex
	cut   map[[2]string]bool // by who calls and who is called
	whole *sync.Cond
	conns map[net.Conn]struct{}
	over  bool
	group sync.WaitGroup
}

func newExchange(t testing.TB) *exchange {
	x := &exchange{cut: map[[2]string]bool{}, conns: map[net.Conn]struct{}{}}
	x.whole = sync.NewCond(&x.mu)
	t.Cleanup(func() {
		x.mu.Lock()
		x.over = true
		for c := range x.conns {
			_ = c.Close()
		}
		x.mu.Unlock()
		x.whole.Broadcast()
		x.group.Wait()
	})
	return x
}

// door returns the address at which others reach the node that listens at inner.
func (x *exchange) door(t testing.TB, node, inner string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	x.group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			x.group.Go(func() { x.connect(conn, node, inner) })
		}
	})
	return l.Addr().String()
}

// connect carries one connection.
func (x *exchange) connect(from net.Conn, node, inner string) {
	defer from.Close()
	if !x.keep(from) {
		return
	}
	defer x.drop(from)
	first, caller, err := readCaller(from)
	if err != nil {
		return
	}
	way := [2]string{caller, node}
	if !x.pass(way) {
		return
	}
	to, err := net.Dial("tcp", inner)
	if err != nil {
		return // the node is down
	}
	defer to.Close()
	if !x.keep(to) {
		return
	}
	defer x.drop(to)
	if _, err := to.Write(first); err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		x.carry(from, to, way)
	}()
	x.carry(to, from, way)
	<-done
}

// carry copies bytes, and holds them while the way is cut. It ends both connections.
func (x *exchange) carry(from, to net.Conn, way [2]string) {
	defer from.Close()
	defer to.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && x.pass(way) {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pass waits until the way is whole. It returns false when the test is over.
func (x *exchange) pass(way [2]string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for x.cut[way] && !x.over {
		x.whole.Wait()
	}
	return !x.over
}

func (x *exchange) keep(c net.Conn) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.conns[c] = struct{}{}
	return !x.over
}

func (x *exchange) drop(c net.Conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.conns, c)
}

// sever cuts the ways, each from one node to another.
func (x *exchange) sever(ways ...[2]string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, w := range ways {
		x.cut[w] = true
	}
}

// heal makes every way whole.
func (x *exchange) heal() {
	x.mu.Lock()
	defer x.mu.Unlock()
	clear(x.cut)
	x.whole.Broadcast()
}

// readCaller reads the hello of package transport: who calls, and all that was read.
func readCaller(from io.Reader) (first []byte, caller string, err error) {
	const magic = "assent/nH"
	first = make([]byte, len(magic)+2)
	if _, err := io.ReadFull(from, first); err != nil {
		return nil, "", err
	}
	if string(first[:len(magic)]) != magic {
		return nil, "", errors.New("it is no hello")
	}
	body := make([]byte, binary.BigEndian.Uint16(first[len(magic):]))
	if _, err := io.ReadFull(from, body); err != nil {
		return nil, "", err
	}
	rest := body[2:] // the versions; the cluster and the caller follow, each with its length
	for range 2 {
		if len(rest) == 0 || len(rest) <= int(rest[0]) {
			return nil, "", errors.New("the hello is cut off")
		}
		caller, rest = string(rest[1:1+rest[0]]), rest[1+rest[0]:]
	}
	return append(first, body...), caller, nil
}
