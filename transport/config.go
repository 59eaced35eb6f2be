package transport

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"assent/protocol"
)

// MaxName is the greatest length in bytes of the names of nodes and clusters.
const MaxName = 63

// Config says who a node is and whom it talks to. Cluster, Self and one of Address and Listener are
// required.
type Config struct {
	// Cluster is the name of the cluster. Nodes of another cluster are refused, and refuse.
	Cluster string
	// Self is the name of this node. Under TLS it must be the name in its certificate.
	Self protocol.NodeID

	// Address is where to listen for peers, as host:port. It is not used where there is a Listener.
	Address string
	// Listener is where peers come in. Close closes it.
	Listener net.Listener

	// Peers are the addresses, as host:port, of the other nodes. Self may be among them and is
	// passed over. SetPeers changes them.
	Peers map[protocol.NodeID]string

	// Advertise is where other nodes reach this one, as host:port. Those whom it calls are told, so that
	// one which does not know it can call back. It may be empty.
	Advertise string
	// Guests is how many nodes may be connected at a time that are no peers. A guest has a certificate in
	// its own name, as a peer has, where there is TLS, and is called back where it says. Defaults to 0: who is
	// no peer is refused.
	Guests int
	// GuestChannel is the one channel on which a guest's messages are delivered, up to 50 a second; whoever
	// receives them there must tell guests from peers. What a guest sends on another is lost, and counted by
	// Status. It must not be 255.
	GuestChannel uint8

	// TLS holds this node's certificate, and in RootCAs and ClientCAs the authorities of the other
	// nodes' certificates. The name in a certificate is its common name, or, where it has none, its
	// first DNS name; it must be among the DNS names too, and the certificate must be good for
	// servers and for clients. nil means plaintext, which is for addresses of the loopback alone.
	TLS *tls.Config
	// AllowPlaintext lets plaintext leave the machine: within a network that protects and
	// authenticates by itself. Defaults to false.
	AllowPlaintext bool

	// Software is what this node tells others of its program: its version. At most 64 bytes.
	Software string

	// MaxPayload bounds a message in bytes. All nodes need the same. Defaults to 4 MiB.
	MaxPayload int
	// MaxQueue bounds the messages that wait to be written to one peer, in bytes. Defaults to
	// 16 MiB.
	MaxQueue int

	// Ping is how often a stream is tried out, also where it is in use. Defaults to 1 s.
	Ping time.Duration
	// Silence is after how much of it a stream is given up and, by its sender, made anew. Defaults
	// to three times Ping.
	Silence time.Duration
	// Retry and RetryMost are the first and the greatest pause before a peer that is away is called
	// again; each pause is twice the one before. Default to 50 ms and 500 ms.
	Retry, RetryMost time.Duration
	// Handshake bounds the time from the first byte of a connection to its first message. Defaults
	// to 5 s.
	Handshake time.Duration

	// Logger hears of peers that come and go, and of connections that are refused. Defaults to
	// slog.Default().
	Logger *slog.Logger

	speaks versions // what this node speaks, for tests
}

func (c *Config) setDefaults() {
	c.MaxPayload = cmp.Or(c.MaxPayload, 4<<20)
	c.MaxQueue = cmp.Or(c.MaxQueue, 16<<20)
	c.Ping = cmp.Or(c.Ping, time.Second)
	c.Silence = cmp.Or(c.Silence, 3*c.Ping)
	c.Retry = cmp.Or(c.Retry, 50*time.Millisecond)
	c.RetryMost = max(c.Retry, cmp.Or(c.RetryMost, 500*time.Millisecond))
	c.Handshake = cmp.Or(c.Handshake, 5*time.Second)
	c.speaks = cmp.Or(c.speaks, versions{oldestVersion, newestVersion})
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
}

func (c *Config) validate() error {
	if err := CheckName(c.Cluster); err != nil {
		return fmt.Errorf("transport: the cluster's name: %w", err)
	}
	if err := CheckName(string(c.Self)); err != nil {
		return fmt.Errorf("transport: this node's name: %w", err)
	}
	if len(c.Software) > 64 {
		return fmt.Errorf("transport: Config.Software has %d bytes; at most 64 are allowed", len(c.Software))
	}
	if c.MaxPayload < 0 || c.MaxPayload > 1<<30 || c.MaxQueue < c.MaxPayload {
		return errors.New("transport: Config.MaxPayload must be at most 1 GiB, and MaxQueue not below it")
	}
	for name, d := range map[string]time.Duration{"Ping": c.Ping, "Silence": c.Silence, "Retry": c.Retry,
		"RetryMost": c.RetryMost, "Handshake": c.Handshake} {
		if d < 0 || d > time.Hour {
			return fmt.Errorf("transport: Config.%s is %v; give a time up to an hour", name, d)
		}
	}
	if c.Guests < 0 || c.Guests > 255 {
		return fmt.Errorf("transport: Config.Guests is %d; give 0 to 255", c.Guests)
	}
	if c.GuestChannel == control {
		return fmt.Errorf("transport: Config.GuestChannel is %d, which the mesh keeps for itself", control)
	}
	if c.Silence <= c.Ping {
		return fmt.Errorf("transport: Config.Silence is %v and must be greater than Ping, %v", c.Silence, c.Ping)
	}
	if c.TLS != nil {
		return checkTLS(c.TLS, c.Self)
	}
	address := c.Address
	if c.Listener != nil {
		address = c.Listener.Addr().String()
	}
	if !c.AllowPlaintext && !loopback(address) {
		return fmt.Errorf("transport: %s can be reached by other machines, and there is no TLS; "+
			"make certificates with assent certs, or listen on 127.0.0.1", address)
	}
	return nil
}

// checkPeers refuses names and addresses that cannot be.
func (c *Config) checkPeers(peers map[protocol.NodeID]string) error {
	if len(peers) > 255 {
		return fmt.Errorf("transport: %d peers; at most 255 are allowed", len(peers))
	}
	for node, address := range peers {
		if err := CheckName(string(node)); err != nil {
			return fmt.Errorf("transport: the name of a peer: %w", err)
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			return fmt.Errorf("transport: the address of node %s: %w", node, err)
		}
		if node != c.Self && c.TLS == nil && !c.AllowPlaintext && !loopback(address) {
			return fmt.Errorf("transport: node %s is at %s, on another machine, and there is no TLS; make certificates with assent certs", node, address)
		}
	}
	return nil
}

// CheckName returns why name cannot be that of a node or a cluster: it must have 1 to MaxName
// letters, digits, '.', '_' and '-', and must not be an IP address, which certificates hold in
// another place.
func CheckName(name string) error {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	switch _, err := netip.ParseAddr(name); {
	case name == "":
		return errors.New("it is empty")
	case len(name) > MaxName:
		return fmt.Errorf("%.20q… has %d bytes; at most %d are allowed", name, len(name), MaxName)
	case strings.Trim(name, allowed) != "":
		return fmt.Errorf("%q holds more than letters, digits, '.', '_' and '-'", name)
	case err == nil:
		return fmt.Errorf("%q is an IP address; give the node a name", name)
	}
	return nil
}

// loopback reports whether only this machine can reach the address.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}
