package ports

import (
	"fmt"
	"net"
	"testing"
)

func TestPortsAreHeldByOneAlone(t *testing.T) {
	taken := map[string]bool{}
	for range 500 {
		address := Address(t)
		if taken[address] {
			t.Fatalf("%s is given to two", address)
		}
		taken[address] = true
	}
	for address := range taken {
		for range 2 { // two lives of a server
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestReleasedPortsCanBeHadAgain(t *testing.T) {
	var signs []string
	for range 20 {
		port, release, err := Reserve()
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		sign := fmt.Sprintf("127.0.0.1:%d", port)
		if c, err := net.ListenPacket("udp4", sign); err == nil {
			_ = c.Close()
			t.Errorf("port %d is reserved and bears no sign", port)
		}
		release()
		signs = append(signs, sign)
	}
	for _, sign := range signs {
		if c, err := net.ListenPacket("udp4", sign); err == nil {
			_ = c.Close()
			return // another process may have been quicker with one port, not with all
		}
	}
	t.Error("no port that was released can be had again")
}
