// Package ports gives tests TCP ports of 127.0.0.1 that stay theirs while nobody listens on them: before
// a server starts, and between two of its lives. No two processes that use this package hold the same
// port. It does not keep other programs away: it only looks where systems, as they are delivered, take no
// ports from for outgoing connections and for those who ask for any.
package ports

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Where ports are looked for. Linux takes ephemeral ports from 32768 on, other systems from 49152 on.
const (
	first = 12_000
	count = 18_000
)

// Reserve returns a port on which nobody listens. It belongs to the caller until release is called, or its
// process ends; release may be called more than once.
func Reserve() (port int, release func(), err error) {
	for range 1000 {
		port := first + rand.N(count)
		// The UDP port of the same number is the sign that the TCP port is taken: whoever holds it holds
		// it alone, and loses it with the process.
		sign, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			err = l.Close()
		}
		if err == nil {
			return port, func() { _ = sign.Close() }, nil // it is closed already, or now
		}
		_ = sign.Close() // the port is not taken
	}
	return 0, nil, errors.New("no free TCP port was found on 127.0.0.1")
}

// test is what of testing.TB this package needs.
type test interface {
	Helper()
	Cleanup(func())
	Fatal(...any)
}

// Address returns host and port of a port that belongs to the test until it ends. It ends a test for which
// there is none.
func Address(t test) string {
	t.Helper()
	port, release, err := Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return fmt.Sprintf("127.0.0.1:%d", port)
}
